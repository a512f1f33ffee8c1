"""The host's tables to `Rows`: ids as text, files as paths, targets as arrays, by what the task says.

Tables are read as text throughout, so that `007`, `NA` and `1e5` stay what they are; numbers are made where a target
needs them, and the error then names the row.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed, nearest
from pipeline.data.readers import read_array
from pipeline.data.sources import ArrayItems, FileItems, ItemSource, PixelItems
from pipeline.records.rows import Rows, Strings
from pipeline.records.task import Array, Source, Task

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RowSet:
    """Rows and the source of their items; `rows.items` are positions in `source`."""

    rows: Rows
    source: ItemSource


def load_train(task: Task, data: Path) -> RowSet:
    """Return the labelled rows, without those that the task excludes.

    Raises:
        DataError: a table, column or array is missing, an id is doubled, or a target is empty or of another kind.
    """
    full = _load(task, task.train, data, known_names=None, is_labelled=True)
    unknown = sorted(set(task.exclude) - set(full.rows.ids))
    if unknown:
        raise DataError(f"exclude: no training row has the id {listed(unknown)}.{nearest(unknown[0], full.rows.ids)}")
    kept = np.flatnonzero(~np.isin(full.rows.ids, list(task.exclude)))
    return full if len(kept) == len(full.rows) else RowSet(_take(full.rows, kept), full.source)


def load_test(task: Task, data: Path, names: Sequence[str], source: Source | None = None) -> RowSet:
    """Return unlabelled rows: the task's test set, or any other `source`, with the class names of training."""
    source = source or task.test
    if source is None:
        raise DataError(f"task {task.name}: has no test: block, so there are no test rows to predict")
    return _load(task, source, data, known_names=tuple(names), is_labelled=False)


def read_table(path: Path) -> pd.DataFrame:
    """Return a CSV (also zipped or gzipped) or Parquet file with every cell as text; empty cells are empty strings."""
    import pandas as pd

    if not path.is_file():
        near = nearest(path.name, [other.name for other in path.parent.glob("*")]) if path.parent.is_dir() else ""
        raise DataError(f"{path}: no such file.{near} The path is relative to the task's data: folder.")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path).astype(str)
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a table: {error}") from None


def column(table: pd.DataFrame, name: str, where: str, role: str) -> Strings:
    """Return a column as text, or raise a DataError that names the column, its role and the nearest one."""
    if name not in table.columns:
        near = nearest(name, list(table.columns))
        raise DataError(f"{where}: has no column '{name}' ({role}).{near} Columns: {listed(table.columns, 12)}")
    return np.asarray(table[name].to_numpy(dtype=object), dtype=object)


def _load(task: Task, source: Source, data: Path, known_names: tuple[str, ...] | None, is_labelled: bool) -> RowSet:
    table = read_table(data / source.table) if source.table else None
    array = _items_array(source, data)
    n_rows = len(table) if table is not None else _length(array)
    where = str(data / (source.table or (source.array.file if source.array else "")))
    ids = _ids(task, table, n_rows, where)
    items, item_source = _items(source, data, table, array, ids, where)
    targets, names = None, known_names or ()
    if is_labelled:
        targets, names = _targets(task, source, data, table, ids, where)
    optional = [task.group, task.fold_column, task.submission.row_id]
    groups, host_folds, submission_ids = (_optional(table, name, where, is_labelled) for name in optional)
    rows = Rows(
        ids=ids,
        items=items,
        names=names,
        targets=targets,
        groups=groups,
        host_folds=None if host_folds is None else _numbers(host_folds, ids, where, "fold").astype(np.int64),
        submission_ids=submission_ids,
    )
    return RowSet(rows, item_source)


def _take(rows: Rows, kept: NDArray[np.int64]) -> Rows:
    """Return the rows at the given positions."""

    def of(values: Any) -> Any:
        return None if values is None else values[kept]

    return Rows(
        ids=rows.ids[kept],
        items=tuple(rows.items[position] for position in kept),
        names=rows.names,
        targets=of(rows.targets),
        groups=of(rows.groups),
        host_folds=of(rows.host_folds),
        submission_ids=of(rows.submission_ids),
    )


def _ids(task: Task, table: pd.DataFrame | None, n_rows: int, where: str) -> Strings:
    if n_rows == 0:
        raise DataError(f"{where}: has no rows")
    if task.id is None or table is None:
        numbers = range(task.first_id, task.first_id + n_rows)
        return np.array([str(number) for number in numbers], dtype=object)
    ids = column(table, task.id, where, "id")
    unique, counts = np.unique(ids.astype(str), return_counts=True)
    if len(unique) < n_rows:
        doubled = listed(unique[counts > 1], 5)
        raise DataError(
            f"{where}: the id column '{task.id}' holds {doubled} more than once. Ids must be unique; where several rows"
            " belong to one submission row, leave id: out and name that column in submission.row_id"
        )
    if "" in unique:
        raise DataError(f"{where}: the id column '{task.id}' has an empty cell in row {int(np.argmax(ids == ''))}")
    return ids


def _optional(table: pd.DataFrame | None, name: str | None, where: str, is_labelled: bool) -> Strings | None:
    """Return an optional column; tables of unlabelled rows need not have it."""
    if name is None or table is None or (not is_labelled and name not in table.columns):
        return None
    return column(table, name, where, "named in the task")


# -- items ------------------------------------------------------------------------------------------------------------


def _items_array(source: Source, data: Path) -> ArrayItems | None:
    return ArrayItems(data / source.array.file, source.array.key) if source.array else None


def _length(array: ArrayItems | None) -> int:
    return 0 if array is None else len(read_array(array.path, array.key))


def _items(
    source: Source, data: Path, table: pd.DataFrame | None, array: ArrayItems | None, ids: Strings, where: str
) -> tuple[tuple[tuple[int, ...], ...], ItemSource]:
    one_each = tuple((position,) for position in range(len(ids)))
    if array is not None:
        if _length(array) != len(ids):
            raise DataError(f"{array.path}: holds {_length(array)} items, but {where} has {len(ids)} rows")
        return one_each, array
    if table is None:
        raise DataError(f"{where}: files and pixels need a table")
    if source.pixels:
        pattern = source.pixels.columns
        names = tuple(name for name in table.columns if _matches(str(name), pattern))
        if len(names) != np.prod(source.pixels.shape):
            shape = source.pixels.shape
            raise DataError(
                f"{where}: {len(names)} columns match '{pattern}', but shape {shape} needs {np.prod(shape)}"
            )
        return one_each, PixelItems(Path(where), names, source.pixels.shape)
    return _files(source.files, data, table, ids, where)


def _matches(name: str, pattern: str) -> bool:
    import fnmatch

    return fnmatch.fnmatchcase(name, pattern)


def _files(
    templates: Iterable[str], data: Path, table: pd.DataFrame, ids: Strings, where: str
) -> tuple[tuple[tuple[int, ...], ...], FileItems]:
    """Fill each template for each row; a file that several rows name is one item."""
    paths_of: list[list[str]] = [[] for _ in ids]
    for template in templates:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field]
        columns = {field: column(table, field, where, f"named in files: {template}") for field in fields}
        for row, paths in enumerate(paths_of):
            paths.append(_inside(template.format(**{field: cells[row] for field, cells in columns.items()}), ids[row]))
    position: dict[str, int] = {}
    items = tuple(tuple(position.setdefault(path, len(position)) for path in paths) for paths in paths_of)
    return items, FileItems(tuple(data / path for path in position))


def _inside(path: str, row_id: str) -> str:
    """Refuse a path that an id would lead out of the data folder."""
    if path.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", path):
        raise DataError(f"row '{row_id}': the file path '{path}' leaves the data folder")
    return path


# -- targets ----------------------------------------------------------------------------------------------------------


def _targets(
    task: Task, source: Source, data: Path, table: pd.DataFrame | None, ids: Strings, where: str
) -> tuple[NDArray[Any], tuple[str, ...]]:
    cells = _target_cells(task, source, data, table, ids, where)
    many_columns = len(cells) > 1
    if task.kind == "regression":
        return _number_columns(cells, ids, where).astype(np.float32), tuple(cells)
    if task.kind == "multilabel":
        return _multihot(task, cells, ids, where)
    if many_columns:
        return _soft(task, cells, ids, where)
    return _class_indices(task, next(iter(cells.values())), ids, where)


def _target_cells(
    task: Task, source: Source, data: Path, table: pd.DataFrame | None, ids: Strings, where: str
) -> dict[str, Strings]:
    """Return the text of the target columns by name, from the table or from an array of labels."""
    if source.labels is None:
        if table is None:
            raise DataError(f"{where}: the targets {listed(task.target)} need a table, or labels: an array")
        return {name: column(table, name, where, "target") for name in task.target}
    labels = _label_array(source.labels, data)
    if len(labels) != len(ids):
        raise DataError(f"{data / source.labels.file}: holds {len(labels)} labels for {len(ids)} rows")
    by_column = labels.reshape(len(labels), -1).T
    names = task.target or tuple(f"target_{number}" for number in range(len(by_column)))
    if len(names) != len(by_column):
        raise DataError(f"{data / source.labels.file}: holds {len(by_column)} columns, target: names {len(names)}")
    return {name: values.astype(str).astype(object) for name, values in zip(names, by_column, strict=True)}


def _label_array(array: Array, data: Path) -> NDArray[Any]:
    path = data / array.file
    if not path.is_file():
        raise DataError(f"{path}: no such file (labels)")
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    keys = list(loaded.keys())
    key = array.key or keys[0]
    if key not in keys or (array.key is None and len(keys) > 1):
        raise DataError(f"{path}: labels: key: must be one of {listed(keys)} (found: {array.key})")
    return np.asarray(loaded[key])


def _class_indices(task: Task, cells: Strings, ids: Strings, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    empty = ids[cells == ""]
    if len(empty):
        raise DataError(f"{where}: the target is empty for {listed(empty, 5)}; give a value or list them in exclude:")
    names = task.classes or class_order(cells)
    index = {name: position for position, name in enumerate(names)}
    unknown = sorted({cell for cell in cells if cell not in index})
    if unknown:
        raise DataError(f"{where}: the target holds {listed(unknown, 5)}, which is not in classes: {listed(names)}")
    if len(names) < 2:
        raise DataError(f"{where}: the target holds only {listed(names)}; there is nothing to tell apart")
    if task.kind == "binary" and len(names) != 2:
        raise DataError(f"{where}: kind: binary needs two classes, found {len(names)}: {listed(names, 8)}")
    return np.array([index[cell] for cell in cells], dtype=np.int64), tuple(names)


def class_order(cells: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct class names, by number where all are whole numbers, else by text."""
    distinct = set(cells)
    try:
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(distinct))


def _multihot(
    task: Task, cells: dict[str, Strings], ids: Strings, where: str
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    if task.target_separator is None:
        values = _number_columns(cells, ids, where)
        wrong = ids[((values != 0) & (values != 1)).any(axis=1)]
        if len(wrong):
            raise DataError(f"{where}: multilabel targets must be 0 or 1; not so for {listed(wrong, 5)}")
        return values.astype(np.float32), tuple(cells)
    label_lists = [cell.split(task.target_separator) if cell else [] for cell in next(iter(cells.values()))]
    names = task.classes or class_order(label for labels in label_lists for label in labels if label)
    index = {name: position for position, name in enumerate(names)}
    multihot = np.zeros((len(ids), len(names)), dtype=np.float32)
    for row, labels in enumerate(label_lists):
        for label in filter(None, labels):
            if label not in index:
                raise DataError(f"{where}: row '{ids[row]}' has the label '{label}', which is not in classes:")
            multihot[row, index[label]] = 1
    return multihot, tuple(names)


def _soft(
    task: Task, cells: dict[str, Strings], ids: Strings, where: str
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Votes or shares per class: rows are scaled to sum to one."""
    if task.kind != "multiclass":
        raise DataError(f"{where}: several target columns fit multiclass (soft), multilabel and regression only")
    if task.classes and set(task.classes) != set(cells):
        raise DataError(f"classes: {listed(task.classes)} and target: {listed(cells)} must name the same columns")
    names = task.classes or tuple(cells)
    values = _number_columns({name: cells[name] for name in names}, ids, where)
    sums = values.sum(axis=1, keepdims=True)
    wrong = ids[(values < 0).any(axis=1) | (sums[:, 0] <= 0)]
    if len(wrong):
        raise DataError(f"{where}: soft targets must be >= 0 with a positive sum; not so for {listed(wrong, 5)}")
    return (values / sums).astype(np.float32), names


def _number_columns(cells: dict[str, Strings], ids: Strings, where: str) -> NDArray[np.float64]:
    return np.stack([_numbers(values, ids, where, name) for name, values in cells.items()], axis=1)


def _numbers(cells: Strings, ids: Strings, where: str, name: str) -> NDArray[np.float64]:
    """Return text as finite numbers, or name the first rows that are not."""
    import pandas as pd

    values = pd.to_numeric(pd.Series(cells), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        examples = listed((f"{ids[row]}: '{cells[row]}'" for row in wrong[:5]), 5)
        raise DataError(f"{where}: column '{name}' must hold finite numbers; {len(wrong)} rows do not ({examples})")
    return values
