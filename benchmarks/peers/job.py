"""What a contestant is asked to do, and the lines that it prints. Imports nothing but the standard library."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What each peer may choose for itself."""

    workers: int = 0
    """Processes that load images."""
    channels_last: bool = True
    """Memory layout of images and weights."""
    compile: bool = False
    """Whether the net goes through torch.compile."""

    def __str__(self) -> str:
        """Return what the table calls it."""
        layout = "channels last" if self.channels_last else "channels first"
        return f"{self.workers} workers, {layout}{', compiled' if self.compile else ''}"


@dataclass(frozen=True)
class Job:
    """One training: the same for every contestant but for its options."""

    net: str
    """`cnn3` or `conv5x5`."""
    folder: str
    """Holds train.csv and val.csv (path,label) and the same as folders of links, train/<label>/ and val/<label>/."""
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    smoothing: float
    seed: int = 0
    options: Options = Options()
    checkout: str = ""
    """timm: a checkout of its repository, whose train.py then runs instead of the package's pieces."""

    def write(self, path: Path) -> None:
        """Write the job as JSON."""
        path.write_text(json.dumps(asdict(self)))


def read_job(arguments: Sequence[str]) -> Job:
    """Return the job whose file the command line names."""
    values = json.loads(Path(arguments[1]).read_text())
    return Job(**{**values, "options": Options(**values["options"])})


def read_rows(job: Job, part: str) -> list[tuple[str, int]]:
    """Return path and class of every image of `train` or `val`."""
    with (Path(job.folder) / f"{part}.csv").open(newline="") as file:
        return [(line["path"], int(line["label"])) for line in csv.DictReader(file)]


class Reporter:
    """Prints a JSON line per epoch; counts the seconds between `start` and `stop` as those of training."""

    def __init__(self) -> None:
        self.epoch = 0
        self.n_images = 0
        self._started = 0.0
        self._seconds = 0.0

    def start(self) -> None:
        """Begin the training part of an epoch."""
        self.n_images = 0
        self._started = time.perf_counter()

    def stop(self) -> None:
        """End it; what follows is validation."""
        self._seconds = time.perf_counter() - self._started

    def report(self, accuracy: float) -> None:
        """Print the epoch's line: its number from 1, images trained on, seconds of training, accuracy."""
        self.epoch += 1
        line = {"epoch": self.epoch, "n_images": self.n_images, "seconds": self._seconds, "accuracy": accuracy}
        print(json.dumps(line), file=sys.stdout, flush=True)
