"""The host's tables to `Rows`: ids as text, files as paths, targets as arrays, by what the task says.

Tables are read as text throughout, so that `007`, `NA` and `1e5` stay what they are; numbers are made where a target
needs them, and the error then names the row.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed, nearest
from pipeline.base.tables import read_header, read_table
from pipeline.data.readers import load_array
from pipeline.data.sources import ArrayItems, FileItems, ItemSource, PixelItems
from pipeline.data.targets import Targets, label_columns, make_targets, to_numbers
from pipeline.records.layout import wanted_labels
from pipeline.records.rows import Rows, Strings
from pipeline.records.task import Pixels, Source, Task, template_parts

if TYPE_CHECKING:
    import pandas as pd

ItemsOfRows = tuple[tuple[int, ...], ...]


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
    full = _read(task, task.train, data)
    unknown = sorted(set(task.exclude) - set(full.ids))
    if unknown:
        raise DataError(f"exclude: no training row has the id {listed(unknown)}.{nearest(unknown[0], full.ids)}")
    kept = np.flatnonzero(~np.isin(full.ids, list(task.exclude)))
    part = full.at(kept)
    targets, names = _targets(task, data, full, kept)
    host_folds = part.optional(task.fold_column, "fold_column:")
    rows = Rows(
        ids=part.ids,
        items=part.items,
        names=names,
        targets=targets,
        groups=part.filled(task.group, "group:"),
        subjects=part.filled(task.subject, "subject:"),
        sessions=part.filled(task.session, "session:"),
        host_folds=None if host_folds is None else _whole_numbers(host_folds, part.ids, part.where),
        submission_ids=part.filled(task.submission.row_id, "submission.row_id:"),
        wanted=wanted_labels(task, data, names),
    )
    return RowSet(rows, part.source)


def load_test(task: Task, data: Path, names: Sequence[str], source: Source | None = None) -> RowSet:
    """Return unlabelled rows: the task's test set, or any other `source`, with the class names of training.

    Raises:
        DataError: there is no test set, or like `load_train`; of other sources the column `submission.row_id` may lack.
    """
    chosen = source or task.test
    if chosen is None:
        raise DataError(f"task {task.name}: has no test: block, so there are no test rows to predict")
    read = _read(task, chosen, data)
    row_id = task.submission.row_id
    has_keys = chosen is task.test or (read.table is not None and row_id in read.table.columns)
    submission_ids = read.filled(row_id, "submission.row_id:") if has_keys else None
    knows_subjects = read.table is not None and task.subject in read.table.columns
    subjects = read.optional(task.subject, "subject:") if knows_subjects else None
    rows = Rows(read.ids, read.items, tuple(names), subjects=subjects, submission_ids=submission_ids)
    return RowSet(rows, read.source)


def column(table: pd.DataFrame, name: str, where: str, role: str) -> Strings:
    """Return a column as text, or raise a DataError that names the column, its role and the nearest one."""
    if name not in table.columns:
        near = nearest(name, list(table.columns))
        raise DataError(f"{where}: has no column '{name}' ({role}).{near} Columns: {listed(table.columns, 12)}")
    return np.asarray(table[name].to_numpy(dtype=object), dtype=object)


@dataclass(frozen=True)
class _Read:
    """A source as it was read."""

    table: pd.DataFrame | None
    """Without its pixel columns."""
    source: ItemSource
    items: ItemsOfRows
    ids: Strings
    where: str
    """The table's path, or the array's, for messages."""

    def at(self, rows: NDArray[np.int64]) -> _Read:
        """Return the rows at the given positions."""
        table = None if self.table is None else self.table.iloc[rows]
        items = tuple(self.items[row] for row in rows)
        return replace(self, table=table, items=items, ids=self.ids[rows])

    def optional(self, name: str | None, role: str) -> Strings | None:
        """Return the column of a key that the task may leave out."""
        return None if name is None or self.table is None else column(self.table, name, self.where, role)

    def filled(self, name: str | None, role: str) -> Strings | None:
        """Return a column like `optional`; an empty cell is an error, as all such rows would count as one group."""
        cells = self.optional(name, role)
        if cells is not None and (cells == "").any():
            empty = listed(self.ids[cells == ""], 5)
            raise DataError(f"{self.where}: {role} is empty for {empty}; give each a value, of its own if it is alone")
        return cells


def _read(task: Task, source: Source, data: Path) -> _Read:
    path = data / (source.table or "")
    if source.array is not None:
        array = ArrayItems(data / source.array.file, source.array.key)
        n_items = len(load_array(array.path, array.key))
        table = read_table(path) if source.table else None
        path = path if source.table else array.path
        ids = _ids(task, table, n_items if table is None else len(table), path)
        if n_items != len(ids):
            raise DataError(f"{array.path}: holds {n_items} items, but {path} has {len(ids)} rows")
        return _Read(table, array, _one_each(ids), ids, str(path))
    if source.pixels is not None:
        table, pixels = _without_pixels(path, source.pixels)
        ids = _ids(task, table, len(table), path)
        return _Read(table, pixels, _one_each(ids), ids, str(path))
    table = read_table(path)
    ids = _ids(task, table, len(table), path)
    items, files = _files(source.files, data, table, ids, str(path))
    return _Read(table, files, items, ids, str(path))


def _ids(task: Task, table: pd.DataFrame | None, n_rows: int, path: Path) -> Strings:
    where = str(path)
    if n_rows == 0:
        raise DataError(f"{where}: has no rows")
    if task.id is None or table is None:
        numbers = range(task.first_id, task.first_id + n_rows)
        return np.array([str(number) for number in numbers], dtype=object)
    ids = column(table, task.id, where, "id:")
    if (ids == "").any():
        raise DataError(f"{where}: the id column '{task.id}' is empty in row {int(np.argmax(ids == '')) + 1}")
    unique, counts = np.unique(ids.astype(str), return_counts=True)
    if len(unique) < n_rows:
        doubled = listed(unique[counts > 1], 5)
        raise DataError(
            f"{where}: the id column '{task.id}' holds {doubled} more than once. Ids must be unique; where several rows"
            " belong to one submission row, leave id: out and name that column in submission.row_id"
        )
    return ids


def _targets(task: Task, data: Path, full: _Read, kept: NDArray[np.int64]) -> tuple[Targets, tuple[str, ...]]:
    """Return the targets of the kept rows, from the table or from an array of labels for all rows."""
    labels, where = task.train.labels, full.where
    if labels is not None:
        where = str(data / labels.file)
        columns = label_columns(data / labels.file, labels.key, task.target, len(full.ids))
    elif full.table is not None:
        columns = {name: column(full.table, name, where, "target:") for name in task.target}
    else:
        raise DataError(f"{where}: the targets {listed(task.target)} need train.table, or train.labels: an array")
    return make_targets(task, {name: cells[kept] for name, cells in columns.items()}, full.ids[kept], where)


def _whole_numbers(cells: Strings, ids: Strings, where: str) -> NDArray[np.int64]:
    numbers = to_numbers(cells, ids, where, "fold_column:")
    if (numbers % 1 != 0).any():
        raise DataError(f"{where}: fold_column: must hold whole numbers; not so for {listed(ids[numbers % 1 != 0], 5)}")
    return numbers.astype(np.int64)


def _one_each(ids: Strings) -> ItemsOfRows:
    return tuple((position,) for position in range(len(ids)))


def _without_pixels(path: Path, pixels: Pixels) -> tuple[pd.DataFrame, PixelItems]:
    """Return the other columns of a table, and where the pixels are; as text these would fill the memory."""
    names = tuple(name for name in read_header(path) if fnmatch.fnmatchcase(name, pixels.columns))
    n_needed = int(np.prod(pixels.shape))
    if len(names) != n_needed:
        raise DataError(
            f"{path}: {len(names)} columns match '{pixels.columns}', but pixels.shape: {pixels.shape} needs {n_needed}"
        )
    others = read_table(path, is_wanted=lambda name: name not in set(names))
    return others, PixelItems(path, names, pixels.shape)


def _files(
    templates: Iterable[str], data: Path, table: pd.DataFrame, ids: Strings, where: str
) -> tuple[ItemsOfRows, FileItems]:
    """Fill each template for each row; a file that several rows name is one item."""
    paths_of: list[list[str]] = [[] for _ in ids]
    for template in templates:
        parts = template_parts(template)
        cells = {name: column(table, name, where, f"named in files: {template}") for _, name, _ in parts if name}
        for row, paths in enumerate(paths_of):
            filled = (text + (format(cells[name][row], spec) if name else "") for text, name, spec in parts)
            paths.append(_inside("".join(filled), ids[row]))
    position: dict[str, int] = {}
    items = tuple(tuple(position.setdefault(path, len(position)) for path in paths) for paths in paths_of)
    return items, FileItems(tuple(data / path for path in position))


def _inside(path: str, row_id: str) -> str:
    """Refuse a path that an id would lead out of the data folder."""
    if path.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", path):
        raise DataError(f"row '{row_id}': the file path '{path}' leaves the data folder")
    return path
