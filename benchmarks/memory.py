"""How much memory does a training take? On 20 GB of images, on 20 GB of signals, and over fifty epochs of a small set.

    python benchmarks/memory.py              # some minutes on two cores, and no disk space: the stores are sparse files

Anonymous memory is what cannot be dropped: tensors, the interpreter, libraries' tables. Pages of the store that were
read are in the page cache, which the system takes back at will, and are not counted. Linux only. Writes
`benchmarks/results/memory.md`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from entry import start
from made_up import made_up_unit
from numpy.typing import NDArray

from pipeline.base.files import write_text
from pipeline.base.interrupt import StopFlag
from pipeline.base.progress import say
from pipeline.records.config import validate
from pipeline.records.experiment import Experiment
from pipeline.records.machine import Machine
from pipeline.training.device import resolve_precision, threads
from pipeline.training.train import train_unit

PROJECT = Path(__file__).parent.parent
STATUS = Path("/proc/self/smaps_rollup")
IMAGE_NET = {
    "model": {"name": "cnn3", "width": 8},
    "augment": {"shift": {"max_px": 4}, "flip": {}, "erasing": {}},
}
SIGNAL_NET = {"model": {"name": "eegnet"}, "augment": {"time_shift": {"max_samples": 50}}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both, write the table and print it."""
    wishes = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=wishes.folder) as folder, threads(2):
        lines = [
            "| training | store | anonymous memory before | at most | growth from the second to the last epoch |",
            "|---|---:|---:|---:|---:|",
            _large(Path(folder), wishes.gb, wishes.steps),
            _large_signals(Path(folder), wishes.gb, wishes.steps),
            _long(Path(folder), wishes.epochs),
        ]
    text = "\n".join(lines) + f"\n\nMade on a CPU with torch {torch.__version__}; {time.strftime('%Y-%m-%d')}.\n"
    write_text(wishes.out, text)
    print(text)


def sparse_images(path: Path, n_images: int, px: int) -> np.memmap:  # type: ignore[type-arg]
    """Return a map of `n_images` black RGB images, (N, 3, px, px) uint8, of which nothing is on the disk."""
    with path.open("wb") as file:
        file.truncate(n_images * 3 * px * px)
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(n_images, 3, px, px))


def sparse_signals(path: Path, n_signals: int, n_channels: int, n_samples: int) -> np.memmap:  # type: ignore[type-arg]
    """Return a map of `n_signals` silent signals, (N, C, T) float32, of which nothing is on the disk."""
    with path.open("wb") as file:
        file.truncate(4 * n_signals * n_channels * n_samples)
    return np.memmap(path, dtype=np.float32, mode="r", shape=(n_signals, n_channels, n_samples))


def anonymous_bytes() -> int:
    """Return how much anonymous memory this process holds."""
    for line in STATUS.read_text().splitlines():
        if line.startswith("Anonymous:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"{STATUS}: has no line 'Anonymous:'")


def held_after_steps(
    array: NDArray[Any], folder: Path, epochs: int, n_heldout: int, net: dict[str, Any]
) -> Iterator[tuple[int, int]]:
    """Train on items and yield after every step the epoch and the anonymous bytes; `net` adds to the experiment."""
    values = {
        "optimizer": {"name": "adamw"},
        "ema": {"decay": 0.9},
        "train": {"epochs": epochs, "batch_size": 64, "weights": "ema"},
    }
    experiment = validate(Experiment, values | net, "benchmark")
    machine = Machine(threads=2, precision=resolve_precision("auto", "cpu"))
    unit, parts = made_up_unit(array, experiment, machine, n_heldout)
    for event in train_unit(unit, parts, experiment, machine, folder, StopFlag()):
        yield event.epoch, anonymous_bytes()


def _large(folder: Path, gb: float, n_steps: int) -> str:
    px = 224
    images = sparse_images(folder / "store.bin", int(gb * 1e9 / (3 * px * px)), px)
    return _line_of(images, f"images, at random, {px} px", folder, gb, n_steps, IMAGE_NET)


def _large_signals(folder: Path, gb: float, n_steps: int) -> str:
    n_channels, n_samples = 64, 1_000
    signals = sparse_signals(
        folder / "signals.bin", int(gb * 1e9 / (4 * n_channels * n_samples)), n_channels, n_samples
    )
    words = f"signals, at random, {n_channels} channels of {n_samples:,} samples"
    return _line_of(signals, words, folder, gb, n_steps, SIGNAL_NET)


def _line_of(array: NDArray[Any], words: str, folder: Path, gb: float, n_steps: int, net: dict[str, Any]) -> str:
    own = folder / f"of-{array.ndim}-axes"
    own.mkdir()
    before, highest = anonymous_bytes(), 0
    for number, (_, held) in enumerate(
        islice(held_after_steps(array, own, 1, len(array) // 100, net), n_steps), start=1
    ):
        highest = max(highest, held)
        if number % 50 == 0:
            say(f"{gb:g} GB: step {number}/{n_steps}, {_mb(held)}")
    seen = f"{64 * n_steps:,} of {len(array):,} {words}"
    return f"| {seen} | {gb:g} GB | {_mb(before)} | {_mb(highest)} | |"


def _long(folder: Path, epochs: int) -> str:
    images = np.random.default_rng(0).integers(0, 256, (1_280, 3, 32, 32), dtype=np.uint8)
    own = folder / "long"
    own.mkdir()
    before, after_epoch = anonymous_bytes(), {}
    for epoch, held in held_after_steps(images, own, epochs, 256, IMAGE_NET):
        after_epoch[epoch] = held
        if epoch % 10 == 0 and epoch not in after_epoch:
            say(f"epoch {epoch}/{epochs}, {_mb(held)}")
    growth = after_epoch[max(after_epoch)] - after_epoch[1]
    highest = max(after_epoch.values())
    return f"| {epochs} epochs of 1,024 images, 32 px | 4 MB | {_mb(before)} | {_mb(highest)} | {_mb(growth)} |"


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=20, help="size of each large store")
    parser.add_argument("--steps", type=int, default=300, help="steps on each large store")
    parser.add_argument("--epochs", type=int, default=50, help="epochs on the small store")
    parser.add_argument(
        "--folder", type=Path, help="where the sparse file lies; by default the system's for such files"
    )
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/memory.md", help="the table")
    return parser


if __name__ == "__main__":
    start("memory", main)
