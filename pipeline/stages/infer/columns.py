"""What is measured on the columns of a host's table before anything is concluded, and how names are compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Strings = NDArray[np.object_]

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_INTEGER = re.compile(r"[+-]?\d+(\.0+)?")


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table as text."""

    name: str
    cells: Strings
    """(N,) text; an empty cell is an empty string."""

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Return how often each text occurs, empty cells aside."""
        counts = Counter(self.cells.tolist())
        counts.pop("", None)
        return counts

    @cached_property
    def values(self) -> frozenset[str]:
        """Return the distinct texts, the empty one aside."""
        return frozenset(self.counts)

    @property
    def n_empty(self) -> int:
        """Return how many cells are empty."""
        return len(self.cells) - sum(self.counts.values())

    @property
    def is_key(self) -> bool:
        """Say whether no cell is empty and no two are alike."""
        return 0 < len(self.cells) == len(self.counts)

    @property
    def is_constant(self) -> bool:
        """Say whether there is at most one distinct text."""
        return len(self.counts) <= 1

    @cached_property
    def numbers(self) -> NDArray[np.float64] | None:
        """Return the distinct values as numbers, sorted; None where one is no finite number or there is none."""
        try:
            numbers = np.array([float(text) for text in self.counts])
        except ValueError:
            return None
        return np.sort(numbers) if len(numbers) and np.isfinite(numbers).all() else None

    @cached_property
    def is_whole(self) -> bool:
        """Say whether every cell that is not empty is written as a whole number."""
        return bool(self.counts) and all(_INTEGER.fullmatch(text) for text in self.counts)

    def is_within(self, allowed: Iterable[float]) -> bool:
        """Say whether the column has numbers only, all of them among `allowed`."""
        return self.numbers is not None and set(self.numbers.tolist()) <= set(allowed)


@dataclass(frozen=True, eq=False)
class PixelColumns:
    """Columns of a table that hold items: numbered names, numbers only."""

    names: tuple[str, ...]
    """In the table's order."""
    pattern: str
    """Shell pattern that these columns match, and no other."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table that the host delivered, or one made of what he delivered (names of files, a JSON document)."""

    path: str
    """Where it lies: `original/...` or `unpacked/...`; a made one has the name of what it was made of."""
    frame: pd.DataFrame
    """Text cells, without pixel columns."""
    is_plain: bool = False
    """Whether the pipeline's own reader gives exactly this frame, so that a task may name the file."""
    pixels: PixelColumns | None = None
    arrays: Mapping[str, NDArray[np.float32]] | None = None
    """Columns whose cells are lists of numbers, (N, length) each."""
    note: str = ""
    """How it was read, where that is worth saying."""

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Return the columns by name."""
        return {str(name): Column(str(name), self.frame[name].to_numpy(dtype=object)) for name in self.frame.columns}

    @property
    def n_rows(self) -> int:
        """Return N."""
        return len(self.frame)

    @cached_property
    def words(self) -> frozenset[str]:
        """Return the words of the file's name and of the folders above it."""
        return words_of(PurePosixPath(self.path).with_suffix("").as_posix()) - {"original", "unpacked"}

    @property
    def shown(self) -> str:
        """Return the path as the user knows it."""
        return shown_path(self.path)

    @cached_property
    def keys(self) -> list[Column]:
        """Return the columns that name each row, in order."""
        return [column for column in self.columns.values() if column.is_key]


def shown_path(path: str) -> str:
    """Return a path inside the data folder as the user knows it, without the folder that stands for his own."""
    return path.removeprefix("original/") or "."


def words_of(text: str) -> frozenset[str]:
    """Return the lower-case words and numbers of a name: `trainLabels_2.csv` has train, labels, 2, csv."""
    return frozenset(word.lower() for word in _WORD.findall(text))


def hints_at(words: Iterable[str], stems: Iterable[str]) -> bool:
    """Say whether a word begins with one of `stems`: `trainlabels` hints at `train`, `latest` does not at `test`."""
    beginnings = tuple(stems)
    return any(word.startswith(beginnings) for word in words)


def plain_form(text: str) -> str:
    """Return a name without case, spaces and punctuation, so that `black_grass` equals `Black-grass`."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def same_names(ours: Iterable[str], theirs: Iterable[str]) -> dict[str, str] | None:
    """Return the spelling of `theirs` for each of `ours`, where every one of `ours` has exactly one; else None."""
    by_form: dict[str, list[str]] = {}
    for name in theirs:
        by_form.setdefault(plain_form(name), []).append(name)
    known = {name for names in by_form.values() for name in names}
    found = {}
    for name in ours:
        near = [name] if name in known else by_form.get(plain_form(name), [])
        if len(near) != 1:
            return None
        found[name] = near[0]
    return found if len(set(found.values())) == len(found) else None


def shared(ours: frozenset[str] | set[str], theirs: frozenset[str] | set[str]) -> float:
    """Return which share of `ours` is among `theirs`, 0..1."""
    return len(ours & theirs) / len(ours) if ours else 0.0
