"""Rows on their way to a task: a table, and the items of its rows, before it is known what a task can say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.stages.infer.arrays import ArrayFacts, load_values
from pipeline.stages.infer.columns import Column, Table
from pipeline.stages.infer.items import Match
from pipeline.stages.infer.paths import FILE
from pipeline.stages.infer.pixels import read_pixels
from pipeline.stages.infer.templates import find_template

Files = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Draft:
    """Labelled rows, or rows to predict. Exactly one of files, pixels, array and values holds their items."""

    table: Table
    source: str | None
    """The host's own table, where it holds just these rows and the pipeline can read it; else one must be made."""
    files: Files | None = None
    """For each row the paths of its files, as many each unless a table is made."""
    main: str | None = None
    """The column that names the files."""
    stated: tuple[str, ...] = ()
    """Path templates that the user stated."""
    pixel_shape: tuple[int, ...] | None = None
    """Items are the table's pixel columns, of this shape."""
    pixel_file: Path | None = None
    """Where that table lies."""
    pixel_rows: NDArray[np.int64] | None = None
    """Which rows of it, where it is not all."""
    array: ArrayFacts | None = None
    """Items are one array of the host."""
    values: NDArray[Any] | None = None
    """Items of an array that has to be written, (N, ...)."""
    labels: ArrayFacts | None = None
    """Where the labels lie, if in an array of the host."""

    @property
    def n_rows(self) -> int:
        """Return N."""
        return self.table.n_rows

    @property
    def columns(self) -> dict[str, Column]:
        """Return the columns of the table."""
        return self.table.columns

    def with_columns(self, cells: Mapping[str, Sequence[str]], dropped: Sequence[str] = ()) -> Draft:
        """Return the rows with further or changed columns; their table has to be made then."""
        frame = self.table.frame.drop(columns=[name for name in dropped if name in self.table.frame.columns])
        frame = frame.assign(**{name: list(values) for name, values in cells.items()})
        return replace(self, table=replace(self.table, frame=frame), source=None)

    def at(self, rows: NDArray[np.int64]) -> Draft:
        """Return some of the rows, in that order; their table, and an array of items, have to be made then."""
        if len(rows) == self.n_rows and (rows == np.arange(self.n_rows)).all():
            return self
        table = replace(self.table, frame=self.table.frame.iloc[rows].reset_index(drop=True))
        files = None if self.files is None else tuple(self.files[row] for row in rows)
        values = load_values(self.array) if self.array is not None else self.values
        values = None if values is None else np.asarray(values[rows])
        before = self.pixel_rows
        pixel_rows = None if self.pixel_shape is None else rows if before is None else before[rows]
        return replace(
            self, table=table, source=None, files=files, array=None, values=values, pixel_rows=pixel_rows, labels=None
        )

    def items_as_array(self) -> NDArray[Any]:
        """Return the items that lie in columns or in memory, (N, ...), for a table that is made anew."""
        if self.values is not None:
            return self.values
        assert self.pixel_shape is not None
        assert self.pixel_file is not None
        assert self.table.pixels is not None
        values = read_pixels(self.pixel_file, self.table.pixels)
        return (values if self.pixel_rows is None else values[self.pixel_rows]).reshape(-1, *self.pixel_shape)

    def shaped_like(self, other: Draft) -> Draft:
        """Return the rows with items of columns or lists in the shape of those of `other`, if it holds as much."""
        if self.pixel_shape is not None and other.pixel_shape is not None:
            is_same = np.prod(self.pixel_shape) == np.prod(other.pixel_shape)
            return replace(self, pixel_shape=other.pixel_shape) if is_same else self
        if self.values is None or other.values is None or self.values[:1].size != other.values[:1].size:
            return self
        return replace(self, values=self.values.reshape(-1, *other.values.shape[1:]))

    def templates(self) -> tuple[str, ...] | None:
        """Return path templates that give exactly the files of each row, or None where there are none such."""
        if self.stated:
            return self.stated
        if self.files is None or self.main is None:
            return None
        lengths = {len(paths) for paths in self.files}
        if len(lengths) != 1 or 0 in lengths:
            return None
        found = []
        for place in range(lengths.pop()):
            paths = [of_row[place] for of_row in self.files]
            names = [self.main, *(name for name in self.columns if name != self.main)]
            template = next((made for name in names if (made := find_template(paths, self.columns, name))), None)
            if template is None:
                return None
            found.append(template)
        return tuple(found) if len(set(found)) == len(found) else None


def with_files(draft: Draft, match: Match, further: Sequence[Match] = ()) -> Draft:
    """Return the rows with the files that a match, and further ones of other columns, found."""
    files = match.files
    for other in further:
        files = tuple((*own, *more) for own, more in zip(files, other.files, strict=True))
    return replace(draft, files=files, main=match.column)


def stacked(parts: Sequence[Draft]) -> Draft:
    """Return the rows of several sets as one; columns that some lack are empty there."""
    import pandas as pd

    first = parts[0]
    frame = pd.concat([part.table.frame for part in parts], ignore_index=True).fillna("")
    files = (
        None
        if any(part.files is None for part in parts)
        else tuple(of_row for part in parts for of_row in part.files or ())
    )
    values = None
    if first.array is not None or first.values is not None:
        loaded = [load_values(part.array) if part.array is not None else part.values for part in parts]
        values = np.concatenate([each for each in loaded if each is not None])
    table = replace(first.table, frame=frame)
    return replace(first, table=table, source=None, files=files, array=None, values=values, labels=None)


def is_ragged(draft: Draft) -> bool:
    """Say whether rows have different numbers of files."""
    return draft.files is not None and len({len(paths) for paths in draft.files}) > 1


def exploded(draft: Draft) -> Draft:
    """Return a row for each file, where rows have different numbers of files."""
    files = draft.files or ()
    rows = np.array([row for row, paths in enumerate(files) for _ in paths], dtype=np.int64)
    frame = draft.table.frame.iloc[rows].reset_index(drop=True)
    paths = [path for of_row in files for path in of_row]
    frame = frame.assign(**{FILE: paths})
    table = replace(draft.table, frame=frame)
    return replace(draft, table=table, source=None, files=tuple((path,) for path in paths), main=FILE)
