"""Competitions with one fault each, and the words that the message about it must hold.

for broken in BROKEN:
    broken.spoil(folder)        # a whole competition with one fault
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from toy_competitions import Layout, make
from toy_files import pack


@dataclass(frozen=True)
class Broken:
    """A fault, and what its message must say."""

    name: str
    spoil: Callable[[Path], None]
    """Writes the competition into a folder."""
    words: tuple[str, ...]
    """All of these, in any case."""
    one_of: tuple[str, ...] = ()
    """At least `n_of` of these, if there are any."""
    n_of: int = 1


def _tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write a sound competition and return its training table and its sample, as text."""
    make(Layout(), folder)
    names = ("train.csv", "sample_submission.csv")
    train, sample = (pd.read_csv(folder / name, dtype=str, keep_default_na=False) for name in names)
    return train, sample


def _empty(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _no_items(folder: Path) -> None:
    make(Layout(), folder)
    shutil.rmtree(folder / "train")
    shutil.rmtree(folder / "test")


def _other_ids(folder: Path) -> None:
    train, _ = _tables(folder)
    train["id"] = [f"IMG_{number:04d}" for number in range(len(train))]
    train.to_csv(folder / "train.csv", index=False)
    for number, path in enumerate(sorted((folder / "train").iterdir())):
        path.rename(path.with_name(f"pic-{number:04d}.png"))


def _unique_labels(folder: Path) -> None:
    train, sample = _tables(folder)
    train["label"] = [f"name {chr(97 + number % 26)}{number}" for number in range(len(train))]
    sample["label"] = "name a0"
    train.to_csv(folder / "train.csv", index=False)
    sample.to_csv(folder / "sample_submission.csv", index=False)


def _constant_labels(folder: Path) -> None:
    train, _ = _tables(folder)
    train.assign(label="ant").to_csv(folder / "train.csv", index=False)


def _other_sample(folder: Path) -> None:
    _, sample = _tables(folder)
    sample["id"] = [f"absent_{number}" for number in range(len(sample))]
    sample.to_csv(folder / "sample_submission.csv", index=False)


def _torn_archive(folder: Path) -> None:
    make(Layout(), folder)
    archive = pack(folder / "train", ".zip")
    shutil.rmtree(folder / "train")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])


def _mixed_up(folder: Path) -> None:
    make(Layout(), folder)
    (folder / "train").rename(folder / "aside")
    (folder / "test").rename(folder / "train")
    (folder / "aside").rename(folder / "test")


BROKEN = (
    Broken("empty", _empty, ("empty",)),
    Broken("no items", _no_items, ("train.csv",), ("no image", "no picture", "no file", "no item")),
    # Of 36 files the three nearest are to be named; which they are depends on the distance.
    Broken("other ids", _other_ids, ("IMG_0", "train.csv"), tuple(f"pic-{number:04d}" for number in range(36)), n_of=3),
    Broken("unique labels", _unique_labels, ("label", "target="), ("unique", "different", "distinct", "own value")),
    Broken("constant labels", _constant_labels, ("label", "ant")),
    Broken("other sample", _other_sample, ("sample_submission.csv", "absent_")),
    Broken("torn archive", _torn_archive, ("train.zip",)),
    Broken("mixed up", _mixed_up, ("train.csv", "test")),
)
"""The bad input that `podium init` refuses, one message each."""
