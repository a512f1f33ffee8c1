"""Whether whole numbers are grades, names of classes, or values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.data.targets import class_order
from pipeline.stages.infer.columns import Column, hints_at, words_of
from pipeline.stages.infer.findings import Finding, Sure
from pipeline.stages.infer.kinds import Kinds, evenness, ordered_classes, values_kind
from pipeline.stages.infer.samples import Sample

GRADES = ("diagnosis", "grade", "level", "severity", "stage", "rating", "quality", "degree", "isup", "stars", "score")
"""Beginnings of names of columns whose numbers have an order."""
NOMINAL = ("label", "class", "categor", "type", "species", "breed", "digit", "id", "target", "kind", "group", "subject")
"""Beginnings of names of columns whose numbers are names."""
VALUES = (
    "age",
    "score",
    "count",
    "price",
    "weight",
    "height",
    "size",
    "popularity",
    "pawpularity",
    "rate",
    "mean",
    "value",
)
"""Beginnings of names of columns whose numbers are measured."""
VALUE_METRICS = frozenset({"rmse", "mae", "r2"})
MAX_GRADES = 10
_EVEN = 0.99
"""From this evenness on, classes were dealt alike by the host, as names of things are and grades are not."""


def kind_of_numbers(column: Column, sample: Sample | None, metric: str | None) -> Kinds:
    """Return the kind of a column of more than two different numbers.

    Numbers that are not whole are values. Whole ones that run on from 0 or 1, at most ten, are grades or classes, by
    the name and by how even the classes are; of others the sample, the name and how they are spread decide. Grades
    are checked again on out-of-fold predictions (`ordinal`).
    """
    if metric in VALUE_METRICS:
        return values_kind([column], Finding("kind", "regression", f"numbers, scored by {metric}"))
    if not column.is_whole:
        return values_kind([column], Finding("kind", "regression", f"{len(column.counts)} different real numbers"))
    if sample is not None and sample.cells == "float" and _has_fractions(sample):
        return values_kind([column], Finding("kind", "regression", f"{sample.table.shown} holds real values"))
    if metric == "quadratic_kappa":
        return _ordinal(column, Finding("kind", "ordinal", "grades, scored by quadratic kappa"))
    numbers = np.zeros(0) if column.numbers is None else column.numbers
    is_run = bool(numbers[0] in (0, 1) and len(numbers) == numbers[-1] - numbers[0] + 1)
    if is_run and len(numbers) <= MAX_GRADES:
        return _grades_or_classes(column, sample, int(numbers[0]), metric)
    return _values_or_classes(column, numbers, sample)


def _values_or_classes(column: Column, numbers: NDArray[np.float64], sample: Sample | None) -> Kinds:
    score = _value_score(column, numbers, words_of(column.name), sample)
    sure: Sure = "likely" if abs(score) > 1 else "guess"
    shown = f"{len(numbers)} different whole numbers from {numbers[0]:g} to {numbers[-1]:g}"
    if score > 0:
        flag = "kind=multiclass" if sure == "guess" else ""
        return values_kind([column], Finding("kind", "regression", shown, sure, flag))
    reason = f"{shown}, each in {len(column.cells) / len(numbers):.0f} rows or so"
    finding = Finding("kind", "multiclass", reason, sure, "kind=regression" if sure == "guess" else "")
    return Kinds("multiclass", finding, ordered_classes(column, sample, "multiclass"))


def _value_score(column: Column, numbers: NDArray[np.float64], words: frozenset[str], sample: Sample | None) -> float:
    """Return what speaks for whole numbers being values (above zero) rather than names of classes."""
    density = len(numbers) / (numbers[-1] - numbers[0] + 1)
    score = 2.0 * hints_at(words, VALUES) - 2.0 * hints_at(words, NOMINAL)
    score += 1.0 if evenness(column.counts.values()) < 0.97 else -1.0
    score -= 1.0 * bool(density < 0.1 and len(column.cells) >= 3 * len(numbers))
    score += 1.0 * (len(numbers) > 0.3 * len(column.cells))
    return score - 4.0 * (sample is not None and sample.cells == "text")


def _grades_or_classes(column: Column, sample: Sample | None, first: int, metric: str | None) -> Kinds:
    """Return grades or classes for whole numbers that run on from 0 or 1."""
    n_distinct, even = len(column.counts), evenness(column.counts.values())
    words, shown = words_of(column.name), f"whole numbers from {first} to {first + n_distinct - 1}"
    is_asked_bare = sample is None or sample.cells in ("int", "float", "empty")
    score = 2.0 * hints_at(words, GRADES) - 2.0 * hints_at(words, NOMINAL)
    score += (-1.0 if even > _EVEN else 0.5) - 0.5 * first
    if metric is None and is_asked_bare and score > 0:
        why = f"{shown}, as grades are, in classes of uneven size" if even <= _EVEN else f"{shown}, named as grades are"
        flag = "" if score > 1 else "kind=multiclass"
        return _ordinal(column, Finding("kind", "ordinal", why, "likely" if score > 1 else "guess", flag))
    named = f"{shown} with the name of classes"
    why = f"{shown}, in classes of one size, as names are" if even > _EVEN else named
    why = f"{shown}, scored by {metric}" if metric is not None else why
    sure: Sure = "likely" if metric is not None or score < -1 else "guess"
    finding = Finding("kind", "multiclass", why, sure, "" if sure == "likely" else "kind=ordinal")
    return Kinds("multiclass", finding, ordered_classes(column, sample, "multiclass"))


def _ordinal(column: Column, finding: Finding) -> Kinds:
    return Kinds("ordinal", finding, class_order(column.counts))


def _has_fractions(sample: Sample) -> bool:
    """Say whether the sample's one value column holds numbers that are not whole."""
    numbers = sample.value.numbers if sample.value is not None else None
    return numbers is not None and bool((numbers % 1 != 0).any())
