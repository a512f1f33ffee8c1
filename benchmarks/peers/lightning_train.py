"""Lightning's Trainer on the loaders of the plain loop; no logs, bars, checkpoints. `lightning_train.py JOB.json`."""

from __future__ import annotations

import logging
import sys
from typing import Any

import lightning
import torch
from common import compiled, laid_out, loaders, make_net, placed
from job import Job, Reporter, read_job
from torch import Tensor, nn


class Classifier(lightning.LightningModule):
    """The net with its loss, optimiser and count of right answers."""

    def __init__(self, job: Job, reporter: Reporter) -> None:
        super().__init__()
        self.job, self.reporter = job, reporter
        self.net = compiled(laid_out(make_net(job.net), job), job)
        self.loss_of = nn.CrossEntropyLoss(label_smoothing=job.smoothing)
        self.n_right = self.n = 0

    def training_step(self, batch: Any, _: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        self.reporter.n_images += len(labels)
        return self.loss_of(self.net(placed(images, self.job)), labels)

    def validation_step(self, batch: Any, _: int) -> None:
        """Count the right answers."""
        images, labels = batch
        self.n_right += int((self.net(placed(images, self.job)).argmax(1) == labels).sum())
        self.n += len(labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW with a constant rate."""
        return torch.optim.AdamW(self.net.parameters(), lr=self.job.lr, weight_decay=self.job.weight_decay)

    def on_train_epoch_start(self) -> None:
        """Begin the training part."""
        self.reporter.start()

    def on_validation_epoch_start(self) -> None:
        """End the training part: Lightning validates inside of the epoch."""
        self.reporter.stop()
        self.n_right = self.n = 0

    def on_validation_epoch_end(self) -> None:
        """Tell what the validation found."""
        self.reporter.report(self.n_right / self.n)


def main() -> None:
    """Let the Trainer do it."""
    logging.getLogger("lightning").setLevel(logging.ERROR)
    job, reporter = read_job(sys.argv), Reporter()
    lightning.seed_everything(job.seed)
    train, val = loaders(job)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=job.epochs,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(job, reporter), train, val)


if __name__ == "__main__":
    main()
