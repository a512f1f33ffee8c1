"""Five folds as a textbook trains them: net after net, a plain loop, all in memory. Arguments: FILE.npz EPOCHS."""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

BATCH = 100


def make_net() -> nn.Module:
    """Return conv5x5 as a textbook writes it."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.4),
        nn.Flatten(),
        nn.Linear(32 * 14 * 14, 10),
    )


def train_fold(images: torch.Tensor, labels: torch.Tensor, is_heldout: torch.Tensor, epochs: int) -> float:
    """Return how many held-out rows are right after the last epoch; all are scored after every epoch."""
    net, loss_of = make_net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    train, heldout = (~is_heldout).nonzero()[:, 0], is_heldout.nonzero()[:, 0]
    n_right = 0
    for _ in range(epochs):
        net.train()
        for rows in train[torch.randperm(len(train))].split(BATCH):
            loss = loss_of(net(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        net.eval()
        with torch.inference_mode():
            found = [int((net(images[rows]).argmax(1) == labels[rows]).sum()) for rows in heldout.split(500)]
        n_right = sum(found)
    return n_right


def main() -> None:
    """Train all folds and print the share of held-out rows that are right."""
    with np.load(sys.argv[1]) as file:
        images = torch.from_numpy(file["images"]).float().div_(255)
        labels, folds = torch.from_numpy(file["labels"]), torch.from_numpy(file["folds"])
    torch.manual_seed(0)
    right = [train_fold(images, labels, folds == fold, int(sys.argv[2])) for fold in range(int(folds.max()) + 1)]
    print(f"accuracy {sum(right) / len(labels):.5f}")


if __name__ == "__main__":
    main()
