"""What a sample submission asks for: whose ids, in which columns, and what stands in its cells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from pipeline.stages.infer.columns import Column, Table

Cells = Literal["empty", "int", "float", "text"]

INDEX_NAMES = frozenset({"", "Unnamed: 0", "index", "level_0"})
"""Names that an index has which somebody saved with the table."""
SEPARATORS = (" ", ",", ";", "|")
_SUM_SLACK = 0.02


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample submission: one column names the rows, the others hold what is asked for."""

    table: Table
    id_column: str

    @property
    def ids(self) -> Column:
        """Return the column that names the rows."""
        return self.table.columns[self.id_column]

    @cached_property
    def value_columns(self) -> tuple[str, ...]:
        """Return the other columns, without an index that was saved along."""
        return tuple(name for name in self.table.columns if name != self.id_column and name != self.index_column)

    @cached_property
    def index_column(self) -> str | None:
        """Return an unnamed column that only counts the rows, where another one names them."""
        first = next(iter(self.table.columns.values()))
        others = len(self.table.columns) - 1
        is_index = first.name in INDEX_NAMES and first.name != self.id_column and _counts_rows(first)
        return first.name if is_index and others > 1 else None

    @property
    def value(self) -> Column | None:
        """Return the one value column, or None where there are several."""
        return self.table.columns[self.value_columns[0]] if len(self.value_columns) == 1 else None

    @cached_property
    def cells(self) -> Cells:
        """Return what the value cells are, over all value columns."""
        columns = [self.table.columns[name] for name in self.value_columns]
        if all(not column.counts for column in columns):
            return "empty"
        if any(column.numbers is None for column in columns if column.counts):
            return "text"
        return "int" if all(column.is_whole and "." not in "".join(column.counts) for column in columns) else "float"

    @cached_property
    def sums_to_one(self) -> bool:
        """Say whether several value columns add up to one in every row, as shares of a whole do."""
        if self.cells not in ("int", "float") or len(self.value_columns) < 2:
            return False
        sums = self.table.frame[list(self.value_columns)].to_numpy(dtype=object).astype(float).sum(axis=1)
        return bool(np.abs(sums - 1).max() <= _SUM_SLACK)

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """Return the distinct texts of the one value column."""
        return self.value.values if self.value is not None else frozenset()


def read_sample(table: Table, test_ids: Sequence[frozenset[str]] = ()) -> Sample:
    """Return a table as a sample; its id column is the one that holds test ids, else the first that names each row."""
    keys = [column for column in table.columns.values() if column.is_key]
    for ids in test_ids:
        for column in keys:
            if ids and column.values == ids and len(table.columns) > 1:
                return Sample(table, column.name)
    first = next(iter(table.columns.values()))
    if first.name in INDEX_NAMES and _counts_rows(first) and len(table.columns) > 2 and len(keys) > 1:
        return Sample(table, keys[1].name)  # `,id,label`: the index was saved along
    return Sample(table, first.name)


def listed_tokens(column: Column) -> tuple[str, int] | None:
    """Return the separator and the number of labels where each cell lists the same number, two or more, of them."""
    for separator in SEPARATORS:
        lengths = {len(split(cell, separator)) for cell in column.counts}
        if len(lengths) == 1 and (length := lengths.pop()) > 1:
            return separator, length
    return None


def split(cell: str, separator: str) -> list[str]:
    """Return the labels of a cell, without the spaces around them."""
    return [label for label in (part.strip() for part in cell.split(separator)) if label]


def bare(cell: str) -> str:
    """Return a list written as Python or JSON does (`['a', 'b']`) as `a,b`; other cells as they are."""
    found = re.fullmatch(r"\s*[\[(](.*)[\])]\s*", cell)
    if found is None:
        return cell
    return ",".join(part.strip().strip("'\"") for part in found.group(1).split(",") if part.strip())


def first_number(ids: Column) -> int | None:
    """Return 0 or 1 (or another start) where the ids count the rows from there in order, else None."""
    cells = ids.cells.tolist()
    if not cells or not cells[0].isdecimal():
        return None
    start = int(cells[0])
    return start if all(cell == str(start + row) for row, cell in enumerate(cells)) else None


def _counts_rows(column: Column) -> bool:
    return first_number(column) in (0, 1)
