"""What kind of target it is: classes, labels, grades, shares or values; with class names in the host's spelling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.base.errors import DataError, listed
from pipeline.records.task import Kind
from pipeline.stages.infer.columns import Column, hints_at, words_of
from pipeline.stages.infer.findings import Finding
from pipeline.stages.infer.kinds import Kinds, label_separator, labels_kind, ordered_classes, values_kind
from pipeline.stages.infer.number_kinds import VALUE_METRICS, VALUES, kind_of_numbers
from pipeline.stages.infer.samples import SEPARATORS, Sample

_SUM_SLACK = 0.02


def find_kind(
    columns: Sequence[Column],
    sample: Sample | None,
    melted: bool,
    given: Kind | None = None,
    metric: str | None = None,
    separator: str | None = None,
) -> Kinds:
    """Return the kind of the target columns.

    Args:
        columns: the target columns of the labelled rows; empty cells are left out of account.
        sample: what is asked for.
        melted: whether the sample has a column for each class of the one target column.
        given: the kind that the user states.
        metric: the metric that the user or the host names; decides between readings.
        separator: what stands between the labels of a cell, if the user states it.

    Raises:
        DataError: the target is constant, or of words that are all different.
    """
    for column in columns:
        _refuse_useless(column, given)
    if separator is not None and len(columns) == 1 and given in (None, "multilabel"):
        return labels_kind(
            columns[0], separator, sample, Finding("kind", "multilabel", "with the separator that you state")
        )
    found = _of_columns(columns, sample, metric) if len(columns) > 1 else _of_cells(columns[0], sample, melted, metric)
    if given is None:
        return found
    if found.kind == given:
        return replace(found, finding=Finding("kind", given, "as you said"))
    return _as_given(columns, sample, given, found.kind)


def _as_given(columns: Sequence[Column], sample: Sample | None, given: Kind, found: Kind) -> Kinds:
    """Return the reading of a kind that the user states against what would have been concluded."""
    finding = Finding("kind", given, f"as you said (the cells look like {found})")
    if given == "regression":
        return values_kind(columns, finding)
    if len(columns) > 1:
        return Kinds(given, finding, tuple(column.name for column in columns) if given == "multiclass" else ())
    if given == "multilabel":
        text = "".join(columns[0].counts)
        separator = label_separator(columns[0].counts) or next((mark for mark in SEPARATORS if mark in text), "|")
        return labels_kind(columns[0], separator, sample, finding)
    return Kinds(given, finding, ordered_classes(columns[0], sample, given))


def _refuse_useless(column: Column, given: Kind | None) -> None:
    n_rows, n_distinct, example = len(column.cells), len(column.counts), next(iter(column.counts), "")
    if n_distinct < 2:
        raise DataError(
            f"the target column '{column.name}' holds only '{example}' in all {n_rows} rows: there is nothing to "
            "learn; say target=COLUMN for another column"
        )
    is_value = given == "regression" or (column.numbers is not None and (not column.is_whole or _is_measured(column)))
    if n_distinct == n_rows - column.n_empty and n_rows > 10 and not is_value:
        raise DataError(
            f"the target column '{column.name}' is different in each of the {n_rows} rows, such as '{example}': it "
            "names rows, it does not class them; say target=COLUMN for another column, or kind=regression if these "
            "are values"
        )


def _is_measured(column: Column) -> bool:
    """Say whether distinct whole numbers are measured values: named so, and not running on as numbers of rows do."""
    numbers = column.numbers
    if numbers is None or not hints_at(words_of(column.name), VALUES):
        return False
    return bool(len(numbers) / (numbers[-1] - numbers[0] + 1) < 0.5)


def _of_columns(columns: Sequence[Column], sample: Sample | None, metric: str | None) -> Kinds:
    """Return the kind of several columns: one of them set, labels, shares or votes, or values."""
    words = [column.name for column in columns if column.numbers is None]
    if words:
        raise DataError(
            f"the target columns {listed(words, 5)} hold words; several targets must be numbers. Say "
            "target=COLUMN for one"
        )
    cells = np.stack([column.cells for column in columns], axis=1)
    values = cells[(cells != "").all(axis=1)].astype(np.float64)
    sums, shown = values.sum(axis=1), f"{len(columns)} columns"
    classes = tuple(column.name for column in columns)
    if np.isin(values, (0, 1)).all():
        if (sums == 1).all():
            reason = f"{shown} of 0 and 1, exactly one of them 1 in each row"
            return Kinds("multiclass", Finding("kind", "multiclass", reason), classes)
        reason = f"{shown} of 0 and 1, {sums.mean():.2g} of them 1 in a row"
        return Kinds("multilabel", Finding("kind", "multilabel", reason))
    if values.min() >= 0 and (sums > 0).all() and metric not in VALUE_METRICS:
        if np.abs(sums - 1).max() < _SUM_SLACK:
            finding = Finding("kind", "multiclass", f"{shown} of shares that sum to one in each row")
            return Kinds("multiclass", finding, classes, is_soft=True)
        if _are_votes(columns, values, sample):
            finding = Finding("kind", "multiclass", f"{shown} of vote counts, made shares of one", "likely")
            return Kinds("multiclass", finding, classes, is_soft=True)
    return values_kind(columns, Finding("kind", "regression", f"{shown} of real values"))


def _are_votes(
    columns: Sequence[Column], values: np.ndarray[tuple[int, int], np.dtype[np.float64]], sample: Sample | None
) -> bool:
    """Say whether whole numbers count votes: they are named so, as many in each row, or answered with shares."""
    sums = values.sum(axis=1)
    is_named = hints_at(words_of(" ".join(column.name for column in columns)), ("vote",))
    is_shared = bool(np.ptp(sums) < 1e-6 * sums.max()) or sample is None or sample.sums_to_one
    return bool((values % 1 == 0).all()) and (is_named or is_shared)


def _of_cells(column: Column, sample: Sample | None, melted: bool, metric: str | None) -> Kinds:
    """Return the kind of one column."""
    if len(column.counts) == 2 and not (metric in VALUE_METRICS and column.numbers is not None):
        classes = ordered_classes(column, sample, "binary")
        words = "" if column.is_within((0, 1)) else f"; a probability is that of {classes[1]}"
        finding = Finding("kind", "binary", f"two classes, {classes[0]} and {classes[1]}{words}")
        return Kinds("binary", finding, classes)
    separator = None if column.numbers is not None else label_separator(column.counts)
    if separator is not None:
        finding = Finding("kind", "multilabel", f"cells list several labels with {separator!r} between them", "likely")
        return labels_kind(column, separator, sample, finding)
    if column.numbers is not None and not melted:
        return kind_of_numbers(column, sample, metric)
    reason = f"{len(column.counts)} class names"
    return Kinds("multiclass", Finding("kind", "multiclass", reason), ordered_classes(column, sample, "multiclass"))
