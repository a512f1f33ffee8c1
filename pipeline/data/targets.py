"""The text of target cells to arrays, one form per kind of task, with the names of what their columns are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed
from pipeline.data.readers import load_array
from pipeline.records.rows import Strings
from pipeline.records.task import Task

Targets = NDArray[np.int64] | NDArray[np.float32]
Columns = Mapping[str, Strings]
"""Text cells, (N,) each, by the name of their column."""


def make_targets(task: Task, columns: Columns, ids: Strings, where: str) -> tuple[Targets, tuple[str, ...]]:
    """Return the targets as `Rows` has them, and class, label or target names in order.

    Args:
        task: kind, classes and separator decide the form.
        columns: the target columns in the task's order; at least one.
        ids: (N,) row ids, for messages.
        where: the table, for messages.

    Raises:
        DataError: a cell is empty, no number where one is needed, or no stated class; the message names the ids.
    """
    if task.kind == "regression":
        return _number_columns(columns, ids, where).astype(np.float32), tuple(columns)
    if task.kind == "multilabel" and task.target_separator is None:
        return _zeros_and_ones(columns, ids, where), tuple(columns)
    if task.kind == "multilabel":
        return _label_sets(next(iter(columns.values())), task.target_separator or "", task.classes, ids, where)
    if len(columns) > 1:
        return _shares(task, columns, ids, where)
    return _class_indices(task, next(iter(columns.values())), ids, where)


def label_columns(path: Path, key: str | None, names: Sequence[str], n_rows: int) -> dict[str, Strings]:
    """Return the cells of an array of labels, (N,) or (N, T), as text columns; without names `target_0`, ...

    Raises:
        DataError: the array has another number of rows, or of columns than there are names.
    """
    labels = load_array(path, key)
    if labels.ndim == 0 or len(labels) != n_rows:
        raise DataError(f"{path}: labels of shape {labels.shape} do not fit {n_rows} rows")
    by_column = labels.reshape(n_rows, -1).T
    names = list(names) or [f"target_{number}" for number in range(len(by_column))]
    if len(names) != len(by_column):
        raise DataError(f"{path}: holds {len(by_column)} columns of labels, target: names {len(names)}")
    return {name: _texts(values) for name, values in zip(names, by_column, strict=True)}


def class_order(cells: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct class names, by number where all are numbers, else by text."""
    distinct = sorted(set(cells))
    return tuple(sorted(distinct, key=float) if _are_numbers(distinct) else distinct)


def to_numbers(cells: Strings, ids: Strings, where: str, name: str) -> NDArray[np.float64]:
    """Return text as finite numbers, (N,), or raise a DataError that names the first rows that are none."""
    import pandas as pd

    values = pd.to_numeric(pd.Series(cells), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        examples = listed((f"{ids[row]}: '{cells[row]}'" for row in wrong[:5]), 5)
        raise DataError(f"{where}: column '{name}' must hold finite numbers; {len(wrong)} rows do not ({examples})")
    return values


def _class_indices(task: Task, cells: Strings, ids: Strings, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    empty = ids[cells == ""]
    if len(empty):
        raise DataError(f"{where}: the target is empty for {listed(empty, 5)}; give a value or list them in exclude:")
    names = task.classes or class_order(cells)
    if task.kind == "ordinal" and not task.classes and not _are_numbers(names):
        raise DataError(f"{where}: the order of the grades {listed(names, 8)} is not known; state it in classes:")
    index = {name: position for position, name in enumerate(names)}
    unknown = [position for position, cell in enumerate(cells) if cell not in index]
    if unknown:
        examples = listed(sorted({cells[position] for position in unknown}), 5)
        raise DataError(
            f"{where}: the target holds {examples} (row '{ids[unknown[0]]}'), not in classes: {listed(names)}"
        )
    if len(names) < 2:
        raise DataError(f"{where}: the target holds only {listed(names)}; there is nothing to tell apart")
    if task.kind == "binary" and len(names) != 2:
        raise DataError(f"{where}: kind: binary needs two classes, found {len(names)}: {listed(names, 8)}")
    return np.array([index[cell] for cell in cells], dtype=np.int64), tuple(names)


def _label_sets(
    cells: Strings, separator: str, classes: Sequence[str], ids: Strings, where: str
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return a one for each label of a cell, (N, K); spaces around labels do not count, an empty cell has none."""
    label_sets = [{label.strip() for label in cell.split(separator)} - {""} for cell in cells]
    names = tuple(classes) or class_order(label for labels in label_sets for label in labels)
    if not names:
        raise DataError(f"{where}: no row has a label")
    index = {name: position for position, name in enumerate(names)}
    multihot = np.zeros((len(ids), len(names)), dtype=np.float32)
    for row, labels in enumerate(label_sets):
        unknown = sorted(labels - index.keys())
        if unknown:
            raise DataError(f"{where}: row '{ids[row]}' has the label '{unknown[0]}', not in classes: {listed(names)}")
        multihot[row, [index[label] for label in labels]] = 1
    return multihot, names


def _zeros_and_ones(columns: Columns, ids: Strings, where: str) -> NDArray[np.float32]:
    values = _number_columns(columns, ids, where)
    wrong = ids[((values != 0) & (values != 1)).any(axis=1)]
    if len(wrong):
        raise DataError(f"{where}: multilabel targets must be 0 or 1; not so for {listed(wrong, 5)}")
    return values.astype(np.float32)


def _shares(task: Task, columns: Columns, ids: Strings, where: str) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return votes or shares per class, scaled to sum to one."""
    if task.kind != "multiclass":
        raise DataError(f"{where}: several target columns fit multiclass (soft), multilabel and regression only")
    if task.classes and set(task.classes) != set(columns):
        raise DataError(f"classes: {listed(task.classes)} and target: {listed(columns)} must name the same columns")
    names = task.classes or tuple(columns)
    values = _number_columns({name: columns[name] for name in names}, ids, where)
    sums = values.sum(axis=1, keepdims=True)
    wrong = ids[(values < 0).any(axis=1) | (sums[:, 0] <= 0)]
    if len(wrong):
        raise DataError(f"{where}: soft targets must be >= 0 with a positive sum; not so for {listed(wrong, 5)}")
    return (values / sums).astype(np.float32), names


def _number_columns(columns: Columns, ids: Strings, where: str) -> NDArray[np.float64]:
    return np.stack([to_numbers(cells, ids, where, name) for name, cells in columns.items()], axis=1)


def _texts(values: NDArray[Any]) -> Strings:
    """Return the text of each label; NaN is a missing label, so it becomes an empty string."""
    texts = values.astype(str).astype(object)
    if values.dtype.kind == "f":
        texts[np.isnan(values)] = ""
    return texts


def _are_numbers(names: Sequence[str]) -> bool:
    try:
        return all(math.isfinite(float(name)) for name in names)
    except ValueError:
        return False
