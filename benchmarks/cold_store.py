"""What does a store cost that lies on the disk and not in memory? Training steps at random places of a large one.

    python benchmarks/cold_store.py       # some minutes on two cores; writes a file of 8 GB beside the results

An epoch's first steps on made-up images of 224 px and of 32 px, in three ways that take turns: from a store of
which memory holds these images; from the disk as training reads, which asks for the items of the next batch while a
step runs; and from the disk where the map's pages are touched, as a data set of numpy's `memmap` does. Before each turn
the system forgets the file. Linux only. Writes `benchmarks/results/cold_store.md`.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from entry import start
from made_up import made_up_unit
from numpy.typing import NDArray
from turns import origin, table_of

from pipeline.base.allocator import keep_freed_memory
from pipeline.base.files import write_text
from pipeline.base.progress import say
from pipeline.data.batches import Items
from pipeline.data.pages import Pages
from pipeline.data.stream import Stream
from pipeline.records.config import validate
from pipeline.records.experiment import Experiment
from pipeline.records.machine import Machine
from pipeline.training.device import resolve_precision, threads
from pipeline.training.train import Batch, StepAt, epoch_batches, make_batch, step_inputs, train_step

PROJECT = Path(__file__).parent.parent
DISKS = Path("/proc/diskstats")
SECTOR_BYTES = 512
RECIPE: dict[str, Any] = {
    "model": {"name": "cnn3", "width": 16},
    "augment": {"shift": {"max_px": 4}, "flip": {}, "erasing": {}},
    "optimizer": {"name": "adamw"},
    "input": {"normalize": {"mean": [0.5] * 3, "std": [0.25] * 3}},
}
KINDS = {224: 64, 32: 256}
"""Samples of a batch by the pixels of a side."""
MOST_IMAGES = 1_000_000
"""Of a store, as every one has its row."""
MEMORY, ASKED, TOUCHED = "from memory", "asked for ahead, as training does", "read where pages are touched"


class Epochs:
    """The first steps of an epoch on a store of made-up images; every turn is another epoch, so another order."""

    def __init__(self, path: Path, px: int, n_steps: int, machine: Machine) -> None:
        values = RECIPE | {"train": {"epochs": 1_000, "batch_size": KINDS[px]}}
        self._experiment, self._machine = validate(Experiment, values, "benchmark"), machine
        self._path, self._n_steps, self._epoch = path, n_steps, -1
        self._shape = (min(path.stat().st_size // (3 * px * px), MOST_IMAGES), 3, px, px)
        unit, self._parts = made_up_unit(self._map(), self._experiment, machine)
        self._unit = replace(unit, items=Items(np.zeros((1, *self._shape[1:]), np.uint8), "cpu"))  # lets go of the map
        self.n_images, self.store_gb = n_steps * KINDS[px], math.prod(self._shape) / 1e9
        self.read_bytes: dict[str, list[int]] = {}
        """From the disk, in each turn of a way."""

    def steps(self, way: str) -> Callable[[], None]:
        """Return the steps on batches that are fetched from a map, of which nothing is in memory or all they need."""
        self._epoch += 1
        forget(self._path)
        array = self._map()
        self._order, self._slices = epoch_batches(self._unit, self._experiment, self._epoch)
        if way == MEMORY:
            for _ in self._made(array):
                pass

        def steps() -> None:
            before = bytes_read(self._path)
            for at, batch in self._made(array):
                train_step(self._parts, self._experiment, self._machine, batch, at)
            self.read_bytes.setdefault(way, []).append(bytes_read(self._path) - before)

        return steps

    def _made(self, array: NDArray[Any]) -> Iterator[tuple[StepAt, Batch]]:
        unit = replace(self._unit, items=Items(array, "cpu"))
        with Stream(unit.items, self._parts.recipe, 0) as stream:
            order, slices = self._order, self._slices
            first = slices[: self._n_steps]
            for step, inputs in enumerate(step_inputs(stream, unit, self._parts, order, first, self._epoch)):
                at = StepAt(self._epoch, step, len(slices), slices[step])
                yield at, make_batch(unit, self._parts, self._experiment, order, at, inputs)

    def _map(self) -> NDArray[Any]:
        return np.memmap(self._path, dtype=np.uint8, mode="r", shape=self._shape)


def forget(path: Path) -> None:
    """Have the system drop the pages of a file that no process has mapped."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_read(path: Path) -> int:
    """Return the bytes read so far from the disk that a file lies on."""
    number = path.stat().st_dev
    for line in DISKS.read_text().splitlines():
        words = line.split()
        if (int(words[0]), int(words[1])) == (os.major(number), os.minor(number)):
            return int(words[5]) * SECTOR_BYTES
    return 0


def read_ahead_of(path: Path) -> str:
    """Return how much the system reads of the disk that a path lies on where a page is touched."""
    number = path.stat().st_dev
    setting = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/bdi/read_ahead_kb")
    return f"{int(setting.read_text()):,} KiB" if setting.is_file() else "an unknown stretch"


@contextmanager
def unasked() -> Iterator[None]:
    """Let the disk be asked for nothing inside the block, so that pages come where they are touched."""
    ask = Pages.ask
    Pages.ask = lambda _pages, _positions: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Pages.ask = ask  # type: ignore[method-assign]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both sizes, write the tables and print them."""
    wishes = _parser().parse_args(arguments)
    keep_freed_memory()
    machine = Machine(device="cpu", threads=wishes.threads, precision=resolve_precision("auto", "cpu"))
    wishes.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wishes.out.parent) as folder, threads(wishes.threads):
        path = Path(folder) / "store.bin"
        _write_noise(path, int(wishes.gb * 1e9))
        tables = [_table(path, px, wishes, machine) for px in KINDS]
    text = (
        f"Images per second of training steps, {machine.precision}; median of {wishes.rounds} rounds. The system reads"
    )
    text += f" {read_ahead_of(wishes.out.parent)} around a page that is touched.\n\n"
    text += "\n".join(tables) + f"\n{origin(wishes.threads).rstrip()[:-1]}, torch {torch.__version__}.\n"
    write_text(wishes.out, text)
    print(text)


def _table(path: Path, px: int, wishes: argparse.Namespace, machine: Machine) -> str:
    epochs = Epochs(path, px, wishes.steps * (1 if px > 32 else 2), machine)
    title = f"cnn3, {px} px, batch {KINDS[px]}, a store of {epochs.store_gb:.1f} GB"
    say(title)
    rates: dict[str, list[float]] = {MEMORY: [], ASKED: [], TOUCHED: []}
    for number in range(wishes.rounds + 1):
        for way in rates:
            steps = epochs.steps(way)
            with unasked() if way == TOUCHED else nullcontext():
                began = time.perf_counter()
                steps()
                seconds = time.perf_counter() - began
            del steps
            if number:  # the first round warms up
                rates[way].append(epochs.n_images / seconds)
            say(f"{way}: {epochs.n_images / seconds:,.0f} images/s")
    wanted = epochs.n_images * 3 * px * px
    read = "; ".join(f"{way}: {median(found) / wanted:,.1f} times" for way, found in epochs.read_bytes.items())
    return table_of(title, "images/s", rates, "against the first", is_rate=True) + (
        f"\nRead from the disk, against the {wanted / 1e6:,.0f} MB of the images: {read}.\n"
    )


def _write_noise(path: Path, n_bytes: int) -> None:
    """Write a file that no file system can make smaller."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start_byte in range(0, n_bytes, 2**26):
            file.write(rng.bytes(min(2**26, n_bytes - start_byte)))
        file.flush()
        os.fsync(file.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the CPU")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--gb", type=float, default=8, help="size of the store")
    parser.add_argument("--steps", type=int, default=20, help="of each turn at 224 px; twice as many at 32 px")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/cold_store.md", help="the tables")
    return parser


if __name__ == "__main__":
    start("cold_store", main)
