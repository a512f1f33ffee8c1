"""How fast are files decoded and read again: beside a loop over Pillow, at 32 px and from 512 to 256 px?

    python benchmarks/decode.py           # a minute on two cores

Made-up JPEG files of quality 90 with the detail of photographs. Whole stores are built, hashes and flushing to the disk
included; Pillow's loop only fills an array in memory. Writes `benchmarks/results/decode.md`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from entry import start
from numpy.typing import NDArray
from PIL import Image
from turns import CLOCKS, origin, seconds_of, table_of

from pipeline.base.files import write_text
from pipeline.base.progress import say
from pipeline.data.readers import DECODER_VERSION, read_image, resize_image
from pipeline.data.sources import FileItems, StoredForm
from pipeline.data.store import open_store

PROJECT = Path(__file__).parent.parent
CASES = {"32 px": (32, 32, 6_000), "512 px to 256": (512, 256, 480)}
N_POSITIONS, BATCH = 1_000_000, 1_024


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every case, write the tables and print them."""
    wishes = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=wishes.scratch) as scratch:
        tables = [_decoding(case, Path(scratch), wishes) for case in CASES]
        tables.append(_reading(Path(scratch), wishes))
    text = f"Images per second; median of {wishes.rounds} rounds. Decoder {DECODER_VERSION}.\n\n" + "\n".join(tables)
    text += f"\n{origin(len(os.sched_getaffinity(0)), wishes.clock)}"
    write_text(wishes.out, text)
    print(text)


def write_files(folder: Path, px: int, n: int) -> tuple[Path, ...]:
    """Write `n` JPEG files of `px` x `px` and return their paths: edges, slopes and some noise, all different."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = []
    for number in range(n):
        coarse = rng.integers(0, 256, (max(4, px // 24), max(4, px // 24), 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (px, px), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        picture += rng.normal(0, 5, picture.shape)
        paths.append(folder / f"{number:06d}.jpg")
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return tuple(paths)


def pillow_loop(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Return all pictures (N, H, W, 3) as a plain loop reads and resizes them."""
    pictures = np.empty((len(paths), size, size, 3), np.uint8)
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            picture = image.convert("RGB")
            pictures[number] = picture if picture.size == (size, size) else picture.resize((size, size), Image.BILINEAR)
    return pictures


def decode_loop(paths: Sequence[Path], size: int) -> None:
    """Read and resize all pictures with the store's reader, and keep none."""
    for path in paths:
        resize_image(read_image(path, fit=((size, size), "squash")), (size, size), "squash")


def build_store(paths: tuple[Path, ...], size: int, cache: Path) -> None:
    """Build the store of all pictures in a folder where it is not."""
    open_store(FileItems(paths), StoredForm("image", (size, size), 3), cache, report=_unsaid)


def _decoding(case: str, scratch: Path, wishes: argparse.Namespace) -> str:
    px, size, n = CASES[case]
    say(f"decoding {case}")
    paths = write_files(scratch / case, px, max(20, round(n * wishes.share)))
    ways: dict[str, Callable[[], object]] = {
        "a loop over Pillow": partial(pillow_loop, paths, size),
        "the reader": partial(decode_loop, paths, size),
        "the store, from nothing to whole": partial(build_store, paths, size, scratch / "cache"),
    }
    # The last store is deleted outside of the time that is taken, so each begins from nothing, on pages that are free.
    before = partial(shutil.rmtree, scratch / "cache", ignore_errors=True)
    return _table(f"JPEG, {case}, {len(paths):,} files", ways, len(paths), wishes, before)


def _reading(scratch: Path, wishes: argparse.Namespace) -> str:
    """Return the table of reading shuffled batches from a store that is there."""
    say("reading a warm store")
    paths = write_files(scratch / "warm", 32, max(20, round(6_000 * wishes.share)))
    store = open_store(FileItems(paths), StoredForm("image", None, 3), scratch / "warm-cache", report=_unsaid)
    n = max(BATCH, round(N_POSITIONS * wishes.share))
    positions = np.random.default_rng(0).integers(0, len(paths), n)

    def read() -> None:
        for first in range(0, n, BATCH):
            store.array[positions[first : first + BATCH]]

    return _table("A later start: shuffled batches of 1,024 from the store, 32 px", {"the store": read}, n, wishes)


def _table(
    title: str,
    ways: dict[str, Callable[[], object]],
    n: int,
    wishes: argparse.Namespace,
    before: Callable[[], object] | None = None,
) -> str:
    seconds = seconds_of(ways, wishes.rounds, 1, wishes.clock, before)
    rates = {way: [n / s for s in found] for way, found in seconds.items()}
    return table_of(title, "images/s", rates, "against the first", is_rate=True)


def _unsaid(_: str) -> None:
    """Say nothing."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way")
    parser.add_argument("--share", type=float, default=1.0, help="of the files, for a quick look")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: while the machine does other work")
    parser.add_argument("--scratch", type=Path, help="a folder for the files; by default the system's")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/decode.md", help="the tables")
    return parser


if __name__ == "__main__":
    start("decode", main)
