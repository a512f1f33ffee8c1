"""Kinds of targets as records, and what is told of the cells of a target: several labels, class names, heavy tails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed
from pipeline.data.targets import class_order
from pipeline.records.task import Kind
from pipeline.stages.infer.columns import Column, plain_form, words_of
from pipeline.stages.infer.findings import Finding
from pipeline.stages.infer.samples import Sample, bare, split

_POSITIVE = (
    "yes",
    "true",
    "positive",
    "pos",
    "abnormal",
    "malignant",
    "sick",
    "disease",
    "pneumonia",
    "present",
    "defect",
)
_NEGATIVE = ("no", "false", "negative", "neg", "normal", "benign", "healthy", "absent", "good", "ok", "control")


@dataclass(frozen=True)
class Kinds:
    """What the targets are."""

    kind: Kind
    finding: Finding
    classes: tuple[str, ...] = ()
    """In order (binary: the second is the positive one); empty for values and for labels in columns."""
    separator: str | None = None
    """Several labels in a cell."""
    clip: tuple[float, float] | None = None
    """Values: the observed range."""
    is_heavy_tailed: bool = False
    """Values above zero whose logarithm is far more even than they are."""
    is_bare_list: bool = False
    """Cells are lists with brackets, which have to be rewritten."""
    is_soft: bool = False
    """Classes: the targets are shares of a whole, not one class."""


def label_separator(cells: Iterable[str]) -> str | None:
    """Return what stands between the labels of cells that hold several, or None where each cell is one label.

    Splitting must give fewer labels than there are distinct cells, and labels that recur in other combinations: names
    of several words (`Fat Hen`, `Sugar beet`) give more words than names.
    """
    distinct = [bare(cell) for cell in cells if cell]
    for separator in ("|", ";", ",", " "):
        parts = [split(cell, separator) for cell in distinct]
        if all(len(each) < 2 for each in parts):
            continue
        labels = Counter(label for each in parts for label in set(each))
        recurring = sum(count > 1 for count in labels.values()) / len(labels)
        alone = {each[0] for each in parts if len(each) == 1}
        also_alone = any(label in alone for each in parts if len(each) > 1 for label in each)
        varied = len({len(each) for each in parts}) > 1 and (also_alone or recurring > 0.5)
        if (len(labels) < len(distinct) and varied) or (recurring > 0.8 and len(labels) <= len(distinct) / 2):
            return separator
        # Names hardly have a bar in them, and numbers hardly a space.
        is_plain_list = separator in "|;" or all(label.isdecimal() for label in labels)
        if is_plain_list and varied and len(labels) <= len(distinct):
            return separator
    return None


def evenness(counts: Iterable[int]) -> float:
    """Return the entropy of class counts over that of equal shares, 0..1."""
    shares = np.array(list(counts), dtype=np.float64)
    shares = shares[shares > 0] / shares.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(len(shares))) if len(shares) > 1 else 0.0


def ordered_classes(column: Column, sample: Sample | None, kind: Kind) -> tuple[str, ...]:
    """Return class names in the sample's order where it lists them, binary ones with the positive class second."""
    names = class_order(column.counts)
    if sample is not None and sample.value is None and kind != "ordinal":
        forms = {plain_form(name): name for name in names}
        listed_there = [forms[plain_form(name)] for name in sample.value_columns if plain_form(name) in forms]
        if len(listed_there) == len(names):
            return tuple(listed_there)
    if kind == "binary" and len(names) == 2:
        asked = words_of(sample.value.name) if sample is not None and sample.value is not None else frozenset()
        first, second = (_positiveness(name, asked) for name in names)
        return names if second >= first else (names[1], names[0])
    return names


def labels_kind(column: Column, separator: str, sample: Sample | None, finding: Finding) -> Kinds:
    """Return several labels in a cell, those that the sample has columns for in its order, the others after them."""
    names = class_order(label for cell in column.counts for label in split(bare(cell), separator))
    if sample is not None and sample.value is None:
        asked = tuple(name for name in sample.value_columns if name in names)
        names = (*asked, *(name for name in names if name not in asked))
    is_bare = any(cell != bare(cell) for cell in column.counts)
    return Kinds("multilabel", finding, names, separator, is_bare_list=is_bare)


def values_kind(columns: Sequence[Column], finding: Finding) -> Kinds:
    """Return real values with their observed range.

    Raises:
        DataError: a column does not hold numbers.
    """
    numbers = [column.numbers for column in columns if column.numbers is not None]
    if len(numbers) < len(columns):
        words = [column.name for column in columns if column.numbers is None]
        raise DataError(f"kind=regression: the target column {listed(words, 5)} does not hold numbers")
    low, high = min(float(each[0]) for each in numbers), max(float(each[-1]) for each in numbers)
    heavy = len(columns) == 1 and is_heavy_tailed(columns[0].cells[columns[0].cells != ""].astype(np.float64))
    return Kinds("regression", finding, clip=(low, high), is_heavy_tailed=heavy)


def is_heavy_tailed(values: NDArray[np.float64]) -> bool:
    """Say whether values, (N,), are all above zero and skewed in a way that their logarithm is not."""
    if len(values) < 20 or values.min() <= 0:
        return False
    skewness = _skewness(values)
    return skewness > 2 and abs(_skewness(np.log(values))) < skewness / 2


def _skewness(values: NDArray[np.float64]) -> float:
    spread = values.std()
    return float((((values - values.mean()) / spread) ** 3).mean()) if spread else 0.0


def _positiveness(name: str, asked: frozenset[str]) -> float:
    """Return what speaks for a class of two being the one whose probability is asked for."""
    plain = plain_form(name)
    return 2.0 * bool(words_of(name) & asked) + 1.0 * (plain in _POSITIVE) - 1.0 * (plain in _NEGATIVE)
