"""fastai's Learner on its own DataLoaders, as its scripts write it. `fastai_train.py JOB.json`."""

from __future__ import annotations

import sys

import pandas as pd
import torch
from common import MEAN, PADDING, PX, STD, make_net
from fastai.vision.all import (
    Callback,
    CropPad,
    DataLoaders,
    FlipItem,
    ImageDataLoaders,
    LabelSmoothingCrossEntropyFlat,
    Learner,
    Normalize,
    PadMode,
    RandomCrop,
    RandomErasing,
    accuracy,
    set_seed,
)
from job import Job, Reporter, read_job, read_rows


class Report(Callback):
    """Tells the reporter where training and validation begin and end."""

    order = 60  # behind the recorder, which has the accuracy

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def before_train(self) -> None:
        """Begin the training part."""
        self.reporter.start()

    def after_batch(self) -> None:
        """Count the images that were trained on."""
        self.reporter.n_images += len(self.yb[0]) if self.training else 0

    def after_train(self) -> None:
        """End the training part."""
        self.reporter.stop()

    def after_epoch(self) -> None:
        """Tell what the validation found."""
        self.reporter.report(float(self.recorder.values[-1][-1]))


def make_loaders(job: Job) -> DataLoaders:
    """Return fastai's loaders; it erases the same rectangle in all images of a batch, which is less work."""
    rows = [(path, label, part == "val") for part in ("train", "val") for path, label in read_rows(job, part)]
    return ImageDataLoaders.from_df(
        pd.DataFrame(rows, columns=["path", "label", "is_val"]),
        path="/",
        valid_col="is_val",
        item_tfms=[CropPad(PX + 2 * PADDING, pad_mode=PadMode.Zeros), RandomCrop(PX), FlipItem(0.5)],
        batch_tfms=[Normalize.from_stats(MEAN, STD), RandomErasing(p=0.5, sl=0.02, sh=0.33)],
        bs=job.batch_size,
        num_workers=job.options.workers,
        persistent_workers=job.options.workers > 0,
    )


def main() -> None:
    """Fit with a constant rate."""
    job = read_job(sys.argv)
    set_seed(job.seed)
    learner = Learner(
        make_loaders(job),
        make_net(job.net),
        loss_func=LabelSmoothingCrossEntropyFlat(job.smoothing),
        metrics=accuracy,
        cbs=Report(Reporter()),
    )
    if job.options.channels_last:
        learner.to_channelslast(use_amp=False)
    if job.options.compile:
        learner.model = torch.compile(learner.model)
    with learner.no_bar(), learner.no_logging():
        learner.fit(job.epochs, job.lr, wd=job.weight_decay)


if __name__ == "__main__":
    main()
