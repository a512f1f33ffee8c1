"""What do the data cost an epoch: fetching, augmenting, normalising and handing over every batch, beside the steps?

    python benchmarks/data_path.py        # a minute on two cores

The epochs of `speed.py`, on made-up images: crop, flip, erasing and smoothing, batches of 256, fp32. They take turns
with epochs of the same steps on batches that were all made before and lie in memory. A clock around the making of each
batch gives the share of the data. Writes `benchmarks/results/data_path.md`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from entry import start
from made_up import made_up_unit
from turns import CLOCKS, origin, seconds_of, table_of

from pipeline.base.allocator import keep_freed_memory
from pipeline.base.files import write_text
from pipeline.base.progress import say
from pipeline.data.stream import Stream
from pipeline.records.config import validate
from pipeline.records.experiment import Experiment
from pipeline.records.machine import Machine
from pipeline.training.device import threads
from pipeline.training.train import Batch, StepAt, epoch_batches, make_batch, step_inputs, train_step

PROJECT = Path(__file__).parent.parent
SHAPE = (3, 32, 32)
MODELS: dict[str, dict[str, Any]] = {"cnn3": {"name": "cnn3", "width": 16}, "conv5x5": {"name": "conv5x5"}}
RECIPE: dict[str, Any] = {
    "augment": {"shift": {"max_px": 4}, "flip": {"horizontal": True}, "erasing": {"prob": 0.5}},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
    "schedule": {"name": "constant"},
    "train": {"batch_size": 256, "precision": "fp32"},
}


class Epochs:
    """The steps of an epoch on batches made as they are needed, or on batches that are there."""

    def __init__(self, model: dict[str, Any], n_images: int, n_threads: int, clock: str) -> None:
        experiment = validate(Experiment, {"model": model} | RECIPE, "benchmark")
        self._machine = Machine(device="cpu", threads=n_threads, precision="fp32", channels_last=True)
        images = np.random.default_rng(0).integers(0, 256, (n_images, *SHAPE), dtype=np.uint8)
        self._experiment = experiment
        self._unit, self._parts = made_up_unit(images, experiment, self._machine)
        self.model = self._parts.model
        self._resident = list(self._made())
        self._now = CLOCKS[clock]
        self.data_sec: list[float] = []
        """Of each epoch with its data."""

    def with_data(self) -> None:
        """Take the steps of an epoch as training does, and note what its data took."""
        seconds, began = 0.0, self._now()
        for at, batch in self._made():
            seconds += self._now() - began
            train_step(self._parts, self._experiment, self._machine, batch, at)
            began = self._now()
        self.data_sec.append(seconds + self._now() - began)

    def resident(self) -> None:
        """Take the same steps on batches that were made before."""
        for at, batch in self._resident:
            train_step(self._parts, self._experiment, self._machine, batch, at)

    def _made(self) -> Iterator[tuple[StepAt, Batch]]:
        unit, parts = self._unit, self._parts
        with Stream(unit.items, parts.recipe, 0) as stream:
            order, slices = epoch_batches(unit, self._experiment, 0)
            for step, inputs in enumerate(step_inputs(stream, unit, parts, order, slices, 0)):
                at = StepAt(0, step, len(slices), slices[step])
                yield at, make_batch(unit, parts, self._experiment, order, at, inputs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both nets, write the tables and print them."""
    wishes = _parser().parse_args(arguments)
    keep_freed_memory()
    with threads(wishes.threads):
        tables = [_table(name, wishes) for name in MODELS]
    text = f"Images per second of an epoch's steps, fp32; median of {wishes.rounds} rounds.\n\n" + "\n".join(tables)
    text += f"\n{origin(wishes.threads, wishes.clock).rstrip()[:-1]}, torch {torch.__version__}.\n"
    write_text(wishes.out, text)
    print(text)


def _table(name: str, wishes: argparse.Namespace) -> str:
    title = f"{name}, {wishes.images:,} images of 32 px, batch 256"
    say(title)
    epochs = Epochs(MODELS[name], wishes.images, wishes.threads, wishes.clock)
    ways: dict[str, Callable[[], None]] = {
        "steps on batches that lie in memory": epochs.resident,
        "the same with each batch fetched, augmented and normalised": epochs.with_data,
    }
    seconds = seconds_of(ways, wishes.rounds, 1, wishes.clock)
    rates = {way: [wishes.images / each for each in found] for way, found in seconds.items()}
    whole = list(seconds.values())[1]
    shares = [100 * data / sec for data, sec in zip(epochs.data_sec[-len(whole) :], whole, strict=True)]
    step_ms = 1e3 * median(epochs.data_sec) * 256 / wishes.images
    told = (
        f"{median(shares):.1f} % of an epoch ({min(shares):.1f} to {max(shares):.1f}), {step_ms:.2f} ms for 256 images"
    )
    return table_of(title, "images/s", rates, "against the first", is_rate=True) + f"\nData: {told}.\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the CPU")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each way")
    parser.add_argument("--images", type=int, default=8_000, help="of an epoch")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: while the machine does other work")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/data_path.md", help="the tables")
    return parser


if __name__ == "__main__":
    start("data_path", main)
