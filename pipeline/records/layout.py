"""How the host wants a submission to look: its ids and their order, its columns, and how each cell is written.

Taken from the host's sample file; without one, from the test ids in the host's order and what the task states.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError, MismatchError, listed, nearest
from pipeline.base.tables import read_table
from pipeline.records.predictions import check_same_ids
from pipeline.records.task import Format, Kind, SubmissionSpec, Task

if TYPE_CHECKING:
    import pandas as pd

Strings = NDArray[np.object_]
CellType = Literal["int", "float", "str"]

_KINDS: dict[Format, tuple[Kind, ...]] = {
    "label": ("binary", "multiclass", "ordinal"),
    "probability": ("binary",),
    "per_class": ("binary", "multiclass", "multilabel", "ordinal"),
    "labels": ("multilabel",),
    "top_k": ("multiclass", "multilabel"),
    "values": ("regression", "ordinal"),
    "array": ("binary", "multiclass", "multilabel", "ordinal", "regression"),
}
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)")


@dataclass(frozen=True)
class Layout:
    """The form of one submission file; `replace(layout, ids=...)` is the same form for other rows."""

    id_column: str
    columns: tuple[str, ...]
    """The whole header in the host's order, the id column among them."""
    ids: Strings
    """(N,) unique, in the host's order."""
    format: Format
    dtypes: tuple[CellType, ...]
    """How the cells of each value column are written."""
    picks: tuple[int, ...]
    """Formats with a column per class or target: which one each value column holds; else empty."""
    texts: tuple[str, ...]
    """How each class is written in a cell."""
    spec: SubmissionSpec

    @property
    def value_columns(self) -> tuple[str, ...]:
        """Return the header without the id column."""
        return tuple(name for name in self.columns if name != self.id_column)


def read_layout(task: Task, data_folder: Path, names: Sequence[str], test_ids: Sequence[str]) -> Layout:
    """Return the layout of the host's sample file or, without one, of the test rows in their order.

    Args:
        task: says where the sample is and what a row holds.
        data_folder: the folder with the host's files.
        names: class, label or target names in order (binary: both).
        test_ids: the ids under which rows are submitted, each once, in the host's order.

    Raises:
        DataError: the sample is missing or broken, or a column of it is no class or target.
        MismatchError: the sample asks for other rows than the test set has.
    """
    sample = task.submission.sample
    if sample is None or task.format == "array":
        return plain_layout(task, names, test_ids)
    path = data_folder / sample
    table = read_table(path)
    id_column = _id_column(task, table, path)
    check_same_ids(test_ids, table[id_column], f"test rows against the sample {path}")
    values = table.drop(columns=id_column)
    dtypes = tuple(_cell_type(values[name]) for name in values.columns)
    columns = tuple(str(name) for name in table.columns)
    return _layout(task, names, columns, id_column, table[id_column], dtypes, str(path))


def wanted_labels(task: Task, data_folder: Path, names: Sequence[str]) -> tuple[int, ...] | None:
    """Return which labels the host asks for, as positions in `names`, where that is fewer than training has; else None.

    Only multilabel tasks with a column per label may have more labels in training.
    """
    if task.kind != "multilabel" or task.format != "per_class":
        return None
    sample = task.submission.sample
    columns = (
        list(task.submission.columns) if sample is None else [str(name) for name in read_table(data_folder / sample)]
    )
    wanted = tuple(position for position, name in enumerate(names) if name in columns)
    return wanted if 0 < len(wanted) < len(names) else None


def plain_layout(task: Task, names: Sequence[str], ids: Sequence[str]) -> Layout:
    """Return the layout that the task alone describes, for `ids` in their order."""
    spec = task.submission
    id_column = spec.id or task.id or "id"
    values = spec.columns or _default_columns(task, names)
    if id_column in values or len(set(values)) < len(values):
        raise ConfigError(f"submission columns are doubled: {listed((id_column, *values))}; set submission.columns:")
    is_class = task.format == "label"
    whole = all(_INTEGER.fullmatch(name) for name in names)
    cell: CellType = (
        ("int" if whole else "str") if is_class else "str" if task.format in ("labels", "top_k") else "float"
    )
    check_same_ids(ids, ids, "submission ids")
    where = f"submission.columns of {task.name}"
    return _layout(task, names, (id_column, *values), id_column, ids, (cell,) * len(values), where)


def _layout(
    task: Task,
    names: Sequence[str],
    columns: tuple[str, ...],
    id_column: str,
    ids: Iterable[str],
    dtypes: tuple[CellType, ...],
    where: str,
) -> Layout:
    """Return a layout whose columns and class texts fit the task, or raise an error that says what does not."""
    form = task.format
    if task.kind not in _KINDS[form]:
        fits = [name for name, kinds in _KINDS.items() if task.kind in kinds]
        raise ConfigError(f"submission.format: {form} does not fit kind: {task.kind}; allowed: {listed(fits)}")
    layout = Layout(id_column, columns, np.array(list(ids), dtype=object), form, dtypes, (), (), task.submission)
    values = layout.value_columns
    if form in ("per_class", "array") or (form == "values" and len(names) > 1 and task.kind == "regression"):
        return replace(layout, picks=_picks(task, values, names, where))
    if len(values) != 1:
        raise DataError(f"{where}: format {form} has one value column, found {len(values)}: {listed(values, 5)}")
    if form in ("probability", "values"):
        return replace(layout, picks=(0,))
    return replace(layout, texts=_texts(task, names, dtypes[0], where))


def _id_column(task: Task, table: pd.DataFrame, path: Path) -> str:
    """Return the stated id column, or the first, with ids that are unique and not empty."""
    columns = [str(name) for name in table.columns]
    name = task.submission.id or columns[0]
    if name not in columns:
        raise ConfigError(f"submission.id: {path} has no column '{name}'.{nearest(name, columns)}")
    if len(columns) < 2 or not len(table):
        raise DataError(f"{path}: a sample needs an id column, value columns and rows (found: {listed(columns, 5)})")
    if (table[name] == "").any():
        row = int((table[name] == "").to_numpy().argmax())
        raise DataError(f"{path}: the id in column '{name}' of row {row + 1} is empty")
    return name


def _default_columns(task: Task, names: Sequence[str]) -> tuple[str, ...]:
    if task.format in ("per_class", "array") or (task.format == "values" and task.kind == "regression"):
        return tuple(names)
    return task.target if len(task.target) == 1 else ("labels" if task.format == "labels" else "label",)


def _picks(task: Task, columns: Sequence[str], names: Sequence[str], where: str) -> tuple[int, ...]:
    """Return for each value column the class or target it is named after; fewer columns fit multilabel only."""
    known = list(names)
    unknown = [name for name in columns if name not in known]
    if unknown and len(unknown) == len(columns) == len(known) and task.submission.columns == tuple(columns):
        return tuple(range(len(known)))  # the user's own header, in the order of the classes
    if unknown:
        raise DataError(
            f"{where}: column '{unknown[0]}' is no class or target.{nearest(unknown[0], known)} Known: {listed(known)}"
        )
    missing = [name for name in known if name not in columns]
    if missing and task.kind != "multilabel":
        raise DataError(f"{where}: no column for {listed(missing, 5)}; exclude their rows or name `classes:` as wanted")
    return tuple(known.index(name) for name in columns)


def _texts(task: Task, names: Sequence[str], cell: CellType, where: str) -> tuple[str, ...]:
    """Return how each class is written, in the number type of the host's column."""
    texts = tuple(names)
    if task.format == "label" and cell != "str":
        if task.kind == "binary" and not any(map(_is_number, names)):
            texts = ("0", "1")  # two classes that are words: the second is the positive one
        texts = tuple(_number_text(text, cell, where) for text in texts)
    if len(set(texts)) < len(texts):
        raise MismatchError(f"{where}: several classes would be written alike: {listed(texts)}")
    torn = [name for name in texts if task.submission.separator in name]
    if task.format in ("labels", "top_k") and torn:
        raise DataError(
            f"class '{torn[0]}' holds the separator {task.submission.separator!r}; set submission.separator:"
        )
    return texts


def _number_text(name: str, cell: CellType, where: str) -> str:
    """Return a class as the host's numeric column holds it."""
    if not _is_number(name) or (cell == "int" and not float(name).is_integer()):
        kind = "integers" if cell == "int" else "numbers"
        raise DataError(
            f"{where}: its labels are {kind}, but class '{name}' is none. If the sample only holds a placeholder, "
            "leave out submission.sample and set submission.id and submission.columns"
        )
    if cell == "float":
        return repr(float(name))
    return str(int(name)) if _INTEGER.fullmatch(name) else str(int(float(name)))


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _cell_type(cells: pd.Series[str]) -> CellType:
    """Return `int` or `float` when every cell is one, else `str`; `007` is text."""
    if all(_INTEGER.fullmatch(cell) for cell in cells):
        return "int"
    try:
        cells.astype(object).to_numpy().astype(np.float64)
    except ValueError:
        return "str"
    return "str" if any(re.fullmatch(r"0\d+", cell) for cell in cells) else "float"
