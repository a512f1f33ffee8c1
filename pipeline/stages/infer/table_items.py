"""The items of a table's rows: files that a column names, pixel columns, lists of numbers, or an array."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed
from pipeline.records.task import template_parts
from pipeline.stages.infer.arrays import ArraySet
from pipeline.stages.infer.columns import Table, hints_at, shown_path
from pipeline.stages.infer.delivered import Delivered
from pipeline.stages.infer.drafts import Draft, with_files
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.items import Match, Part, best_match, further_columns
from pipeline.stages.infer.pixels import item_shape, read_pixels

NEARLY = 0.9
"""From this share of rows with a file on, the others are broken rows; below, the ids are wrong."""
_TRIED_ROWS = 64


@dataclass(frozen=True, eq=False)
class Stock:
    """What rows can be made of, and where it is noted how."""

    delivered: Delivered
    sets: dict[Any, ArraySet]
    """Arrays by part."""
    findings: Findings

    def silent(self) -> Stock:
        """Return the same without a place for notes, for trials."""
        return replace(self, findings=Findings())


def with_items(
    stock: Stock, table: Table, part: Part, given: dict[str, Any], like: frozenset[str] = frozenset()
) -> Draft | None:
    """Return the rows of a table with the items that fit them best, or None where none do.

    Args:
        stock: files and arrays.
        table: the rows.
        part: whether they are labelled.
        given: what the user states of this part.
        like: suffixes of the files of the other part.

    Raises:
        DataError: files that the user states are missing, or some rows have a file and others have none.
    """
    draft = Draft(table, table.path if table.is_plain else None)
    if given.get("files"):
        return _stated_files(stock, draft, given["files"], part)
    match = best_match(table, stock.delivered.index, part, like=like)
    has_more = table.pixels is not None or bool(table.arrays)
    if match is not None and (not has_more or match.rows_found > NEARLY):
        return _with_files(stock, draft, match, part)
    if table.pixels is not None:
        return _with_pixels(stock, draft, part)
    if table.arrays:
        return _with_lists(stock, draft, part)
    own = stock.sets.get(part)
    if own is not None and own.n_rows == table.n_rows:
        reason = f"{table.shown} has as many rows, in its order"
        stock.findings.add(f"{part} rows", f"{own.n_rows:,} of {own.items.shown}", reason)
        return replace(draft, array=own.items)
    return None


def no_match(delivered: Delivered, table: Table, column: str | None = None, has_file: Any = None) -> DataError:
    """Return the error that ids match no file, with the nearest names.

    Args:
        delivered: what there is.
        table: the rows.
        column: the column that names files for some of them.
        has_file: (N,) for which of them, if for some.
    """
    names = [file.name for file in delivered.index.files]
    if not names:
        return DataError(f"{table.shown}: there is no image or other item file that its rows could name")
    name = column or next((key.name for key in table.keys), next(iter(table.columns), ""))
    cells = table.columns[name].cells.tolist() if name in table.columns else []
    wrong = cells if has_file is None else [cell for cell, found in zip(cells, has_file, strict=True) if not found]
    first = wrong[0] if wrong else ""
    near = difflib.get_close_matches(first, names, n=3, cutoff=0) or names[:3]
    how_many = "no column names files" if has_file is None else f"{len(wrong):,} of {len(cells):,} rows have no file"
    folders = listed(sorted({shown_path(file.folder) for file in delivered.index.files}), 5)
    part = "test" if hints_at(table.words, ("test", "sample")) else "train"
    return DataError(
        f"{table.shown}: {how_many}: '{first}' (column '{name}') matches none. The nearest names are {listed(near, 3)} "
        f"(folders: {folders}). Say how ids become paths with {part}.files='FOLDER/{{id}}.png', or give the missing "
        "files"
    )


def _with_files(stock: Stock, draft: Draft, match: Match, part: Part) -> Draft:
    """Return the rows that have a file; too many labelled rows without one, or any to predict, are an error."""
    index, table = stock.delivered.index, draft.table
    further = further_columns(table, match, index, part) if match.way in ("name", "path", "stem") else []
    stock.findings.add(f"{part} rows", f"{table.n_rows:,} of {table.shown}", _how_found(match, further))
    draft = with_files(draft, match, further)
    has_file = np.array([bool(paths) for paths in draft.files or ()])
    if has_file.all():
        return draft
    if part == "test" or has_file.mean() < NEARLY:
        raise no_match(stock.delivered, table, draft.main, has_file)
    gone = [str(draft.columns[draft.main or ""].cells[row]) for row in np.flatnonzero(~has_file)]
    stock.findings.add("rows without a file", f"{len(gone):,} left out", f"no file for {listed(gone, 5)}", "likely")
    return draft.at(np.flatnonzero(has_file))


def _how_found(match: Match, further: Sequence[Match]) -> str:
    names = {
        "name": "is the file's name",
        "path": "is the file's path",
        "stem": "is the file's name without suffix",
        "number": "is the number in the file's name",
        "other suffix": "is the file's name with another suffix",
        "affix": "stands in the names of its files",
        "folder": "is the folder of its files",
    }
    columns = f" ({listed([other.column for other in further])}: further files of the same row)" if further else ""
    rows = "all rows have one" if match.rows_found == 1 else f"{match.rows_found:.1%} of the rows have one"
    used = f"{match.files_used:.0%} of the files there are used"
    return f"{match.column} {names[match.way]} in {shown_path(match.root)}/{columns}; {rows}, {used}"


def _stated_files(stock: Stock, draft: Draft, stated: str | Sequence[str], part: Part) -> Draft:
    """Return rows with the files that templates of the user give; one that is missing is an error."""
    templates = tuple(f"original/{template}" for template in ((stated,) if isinstance(stated, str) else stated))
    known = {file.path for file in stock.delivered.index.files}
    columns = {name: column.cells.tolist() for name, column in draft.columns.items()}
    files = []
    for row in range(draft.n_rows):
        cells = {name: values[row] for name, values in columns.items()}
        files.append(tuple(_filled(template, cells, draft.table) for template in templates))
    missing = [path for paths in files for path in paths if path not in known]
    if missing:
        near = difflib.get_close_matches(missing[0], known, n=3, cutoff=0)
        raise DataError(
            f"{part}.files: {len(missing):,} files are missing, such as {shown_path(missing[0])}; the nearest are "
            f"{listed(map(shown_path, near), 3)}"
        )
    stock.findings.add(f"{part} rows", f"{draft.n_rows:,} of {draft.table.shown}", "files as you said")
    return replace(draft, files=tuple(files), stated=templates)


def _filled(template: str, cells: dict[str, str], table: Table) -> str:
    filled = []
    for text, name, spec in template_parts(template):
        if name and name not in cells:
            known = listed(table.columns, 12)
            raise DataError(f"files: {template}: {table.shown} has no column '{name}'. Columns: {known}")
        filled.append(text + (format(cells[name], spec) if name else ""))
    return "".join(filled)


def _with_pixels(stock: Stock, draft: Draft, part: Part) -> Draft:
    pixels = draft.table.pixels
    assert pixels is not None
    real = next(file.real for file in stock.delivered.survey.files if file.path == draft.table.path)
    shape, is_last, why = item_shape(read_pixels(real, pixels, _TRIED_ROWS).astype(np.float32))
    reason = f"items in {len(pixels.names)} columns: {why}"
    stock.findings.add(f"{part} rows", f"{draft.n_rows:,} of {draft.table.shown}", reason)
    if is_last:  # the pipeline reads columns as (C, H, W) only
        return replace(draft, values=read_pixels(real, pixels).reshape(-1, *shape), source=None)
    return replace(draft, pixel_shape=shape, pixel_file=real)


def _with_lists(stock: Stock, draft: Draft, part: Part) -> Draft:
    """Return rows whose items are lists of numbers in columns, each column a channel."""
    arrays = draft.table.arrays or {}
    lengths = [array.shape[1:] for array in arrays.values()]
    chosen = max(set(lengths), key=lambda shape: (lengths.count(shape), shape))
    bands = {name: array for name, array in arrays.items() if array.shape[1:] == chosen}
    shape, why = _shape_of_lists(bands.values())
    values = np.stack([array.reshape(len(array), *shape) for array in bands.values()], axis=1)
    values = values[:, 0] if len(bands) == 1 else values
    reason = f"items in {listed(bands, 4)}: {why}"
    stock.findings.add(f"{part} rows", f"{draft.n_rows:,} of {draft.table.shown}", reason)
    is_bytes = bool(np.isfinite(values).all() and values.min(initial=0) >= 0 and (values % 1 == 0).all())
    return replace(
        draft, values=values.astype(np.uint8) if is_bytes and values.max(initial=0) <= 255 else values, source=None
    )


def _shape_of_lists(arrays: Collection[NDArray[np.float32]]) -> tuple[tuple[int, ...], str]:
    """Return the shape of each list of several columns, (H, W) or (T,); of one alone also of colour, and why."""
    first = next(iter(arrays))
    if first.ndim > 2:
        return first.shape[1:], f"each {'x'.join(map(str, first.shape[1:]))}"
    shape, _, why = item_shape(np.concatenate([array[:_TRIED_ROWS] for array in arrays]))
    is_fine = len(arrays) == 1 or (len(shape) == 2 and shape[0] > 1)
    return (shape if is_fine else first.shape[1:]), why
