"""The loop that everybody writes: a DataLoader, OpenCV and albumentations, AdamW. `plain.py JOB.json`."""

from __future__ import annotations

import sys

import torch
from common import compiled, laid_out, loaders, make_net, placed
from job import Reporter, read_job
from torch import nn


def main() -> None:
    """Train and validate epoch by epoch."""
    job, reporter = read_job(sys.argv), Reporter()
    torch.manual_seed(job.seed)
    train, val = loaders(job)
    net = compiled(laid_out(make_net(job.net), job), job)
    loss_of = nn.CrossEntropyLoss(label_smoothing=job.smoothing)
    optimizer = torch.optim.AdamW(net.parameters(), lr=job.lr, weight_decay=job.weight_decay)
    for _ in range(job.epochs):
        reporter.start()
        net.train()
        for images, labels in train:
            loss = loss_of(net(placed(images, job)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            reporter.n_images += len(labels)
        reporter.stop()
        net.eval()
        n_right = n = 0
        with torch.inference_mode():
            for images, labels in val:
                n_right += int((net(placed(images, job)).argmax(1) == labels).sum())
                n += len(labels)
        reporter.report(n_right / n)


if __name__ == "__main__":
    main()
