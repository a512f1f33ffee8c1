"""Probabilities to the cells of a submission and back, one small function for each format and direction.

Encoding decides (which class, which labels, which k); decoding gives back what a grader can still see, in the form
of predictions: one column for binary, K for classes and labels, T for values. Ties go to the lower class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed, nearest
from pipeline.records.layout import Layout
from pipeline.records.scores import decide
from pipeline.records.task import Task

Values = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Strings = NDArray[np.object_]

_SUM_TOLERANCE = 1e-3
"""How far from one a row of class probabilities may be and still count as rounding; it is scaled to one exactly."""


def is_probs(task: Task) -> bool:
    """Say whether predictions of a task are probabilities, not values."""
    return task.kind != "regression" and not (task.kind == "ordinal" and task.ordinal == "regression")


def sums_to_one(task: Task) -> bool:
    """Say whether the predicted columns of a task are shares of one whole."""
    return task.kind == "multiclass" or (task.kind == "ordinal" and task.ordinal == "softmax")


def to_columns(values: Values, layout: Layout, task: Task, names: Sequence[str]) -> list[NDArray[Any]]:
    """Return the value columns of a submission, each (N,): int64, float64 or text as the host writes them.

    Args:
        values: (N, K) float32, finite, columns in the order of `names`, rows in the order of `layout.ids`.
        layout: the host's form; a format with numbers stays float where the sample's placeholders are integers.
        task: kind, ordinal form.
        names: class, label or target names.

    Raises:
        DataError: class values are no probabilities, for the ids that it names.
    """
    if is_probs(task):
        _check_probs(values, layout.ids, task)
    wide = values.astype(np.float64)
    match layout.format:
        case "label":
            chosen = decide(values, task.kind, task.ordinal, layout.spec.threshold, len(names))
            return [_typed(_texts(layout)[chosen], layout.dtypes[0])]
        case "labels":
            return [_joined_labels(values, layout)]
        case "top_k":
            return [_joined([_texts(layout)[row] for row in ranking(values, layout.spec.k)], layout)]
        case "values" if task.kind == "ordinal":
            return [_grade_values(wide, layout, task, names)]
        case "per_class":
            return list(_per_class(wide, layout, task).T)
        case "array":
            return list(_clipped(wide, layout).T)
        case _:
            return list(_clipped(wide, layout)[:, list(layout.picks)].T)


def from_cells(cells: Strings, layout: Layout, task: Task, names: Sequence[str]) -> Floats:
    """Return what a column of class names says as (N, K) values: one-hot, several ones, or ranks as 1, 1/2, 1/3.

    Raises:
        DataError: a cell names a class that is unknown or comes twice, or too many; its id is named.
    """
    index = {text: position for position, text in enumerate(layout.texts)}
    values = np.zeros((len(cells), len(names)))
    for row, cell in enumerate(cells):
        chosen = _chosen(cell, index, layout, layout.ids[row])
        values[row, chosen] = 1.0 / np.arange(1, len(chosen) + 1) if layout.format == "top_k" else 1.0
    if task.kind == "binary":
        return values[:, 1:]
    return values if is_probs(task) else values.argmax(axis=1).astype(np.float64)[:, None]


def from_numbers(numbers: Floats, layout: Layout, task: Task, names: Sequence[str]) -> Floats:
    """Return what numeric cells (N, C) say as values (N, K), columns in class order.

    Where the host wants fewer labels than the training table has, K counts those: `sorted(layout.picks)`.
    """
    if layout.format == "values" and task.kind == "ordinal":
        grades = np.interp(numbers[:, 0], _grades(names), np.arange(len(names)))
        return _spread(grades, len(names)) if task.ordinal == "softmax" else grades[:, None]
    if layout.format == "array":
        return numbers
    if layout.format == "per_class" and task.kind == "binary":
        return numbers[:, [layout.picks.index(1)]]
    return numbers[:, np.argsort(layout.picks)]


def settled(values: Values, layout: Layout, task: Task) -> Values:
    """Return what a submission makes of (N, K) values before any text: float32, (N, K) or the columns that are wanted.

    Cut by `clip`, and where no label reaches the threshold the best one is lifted to it (see `present`).
    """
    if layout.format == "labels":
        return np.where(present(values, layout), np.maximum(values, np.float32(layout.spec.threshold)), values)
    if layout.format in ("label", "top_k"):
        return values
    cut = _clipped(values.astype(np.float64), layout).astype(np.float32)
    return cut[:, sorted(layout.picks)] if layout.format == "per_class" and task.kind == "multilabel" else cut


def present(values: Values, layout: Layout) -> NDArray[np.bool_]:
    """Return which labels count as present, (N, K): from the threshold on.

    Where none does, the most probable counts, unless the task states an `empty` cell for such rows.
    """
    chosen = decide(values, "multilabel", threshold=layout.spec.threshold).astype(bool)
    if not layout.spec.empty:
        none = np.flatnonzero(~chosen.any(axis=1))
        chosen[none, values[none].argmax(axis=1)] = True
    return chosen


def ranking(values: Values, k: int) -> Ints:
    """Return the classes of each row by falling probability, (N, min(k, K))."""
    return np.asarray(np.argsort(-values, axis=1, kind="stable")[:, :k], dtype=np.int64)


def _check_probs(values: Values, ids: Strings, task: Task) -> None:
    bad = ((values < 0) | (values > 1)).any(axis=1)
    if sums_to_one(task):
        bad |= np.abs(values.sum(axis=1) - 1) > _SUM_TOLERANCE
    if bad.any():
        row = values[bad][0]
        shown = f"values {row.min():.6g} to {row.max():.6g}, sum {row.sum():.6g}"
        raise DataError(f"predictions are no probabilities for ids {listed(ids[bad], 5)} (the first: {shown})")


def _texts(layout: Layout) -> Strings:
    return np.array(layout.texts, dtype=object)


def _typed(texts: Strings, cell: str) -> NDArray[Any]:
    return texts if cell == "str" else texts.astype(np.int64 if cell == "int" else np.float64)


def _joined(rows: Sequence[Strings], layout: Layout) -> Strings:
    return np.array([layout.spec.separator.join(row) for row in rows], dtype=object)


def _joined_labels(values: Values, layout: Layout) -> Strings:
    chosen = present(values, layout)
    cells = _joined([_texts(layout)[row] for row in chosen], layout)
    cells[~chosen.any(axis=1)] = layout.spec.empty
    return cells


def _clipped(values: Floats, layout: Layout) -> Floats:
    return values if layout.spec.clip is None else np.clip(values, *layout.spec.clip)


def _per_class(values: Floats, layout: Layout, task: Task) -> Floats:
    """Return one column for each class the host wants; shares of a whole are cut first and then scaled to one."""
    values = _clipped(values, layout)
    if task.kind == "binary":
        values = np.hstack([1 - values, values])
    if sums_to_one(task):
        values = values / values.sum(axis=1, keepdims=True)
    return values[:, list(layout.picks)]


def _grade_values(values: Floats, layout: Layout, task: Task, names: Sequence[str]) -> NDArray[Any]:
    """Return the expected grade in the host's numbers, rounded (halves down) where the sample holds integers."""
    numbers = np.interp(_expected_grade(values, task, len(names)), np.arange(len(names)), _grades(names))
    if layout.dtypes[0] == "int":
        numbers = np.ceil(numbers - 0.5)
    numbers = _clipped(numbers, layout)
    return numbers.astype(np.int64) if layout.dtypes[0] == "int" else numbers


def _expected_grade(values: Floats, task: Task, n_classes: int) -> Floats:
    """Return the expected grade of each row as a number from 0 to K-1, shape (N,)."""
    if task.ordinal == "regression":
        return np.clip(values[:, 0], 0, n_classes - 1)
    return np.asarray(values @ np.arange(n_classes) / values.sum(axis=1))


def _grades(names: Sequence[str]) -> Floats:
    """Return the grades as numbers: what the classes are called where that rises, else 0, 1, 2, ..."""
    try:
        numbers = np.array([float(name) for name in names])
    except ValueError:
        return np.arange(len(names), dtype=np.float64)
    return numbers if (np.diff(numbers) > 0).all() else np.arange(len(names), dtype=np.float64)


def _spread(grades: Floats, n_classes: int) -> Floats:
    """Return rows of probabilities whose expected grade is the given one, shared by its two neighbours."""
    low = np.clip(np.floor(grades).astype(np.int64), 0, max(n_classes - 2, 0))
    values = np.zeros((len(grades), n_classes))
    values[np.arange(len(grades)), low] = 1 - (grades - low)
    if n_classes > 1:
        values[np.arange(len(grades)), low + 1] = grades - low
    return values


def _chosen(cell: str, index: dict[str, int], layout: Layout, name: str) -> list[int]:
    """Return the classes that a cell names, in its order."""
    where = f"id {name}, column '{layout.value_columns[0]}'"
    if layout.format == "labels" and layout.spec.empty and cell == layout.spec.empty:
        return [index[cell]] if cell in index else []
    words = [cell] if layout.format == "label" else cell.split(layout.spec.separator)
    unknown = [word for word in words if word not in index]
    if unknown:
        raise DataError(f"{where}: '{unknown[0]}' is no class.{nearest(unknown[0], index)} Known: {listed(index)}")
    if len(set(words)) < len(words):
        raise DataError(f"{where}: a class comes twice in '{cell}'")
    if layout.format == "top_k" and len(words) > layout.spec.k:
        raise DataError(f"{where}: {len(words)} classes, at most {layout.spec.k} are allowed")
    return [index[word] for word in words]
