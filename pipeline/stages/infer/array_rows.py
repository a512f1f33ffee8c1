"""Rows whose items and labels lie in arrays."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import numpy as np

from pipeline.base.errors import DataError
from pipeline.stages.infer.arrays import ArrayFacts, ArraySet, as_text, load_values
from pipeline.stages.infer.columns import Table
from pipeline.stages.infer.drafts import Draft, stacked
from pipeline.stages.infer.paths import LABEL
from pipeline.stages.infer.table_items import Stock


def labelled_array_rows(stock: Stock) -> tuple[Draft, tuple[bool, ...] | None]:
    """Return the rows of the training array, and which of them the host set apart to validate on.

    Raises:
        DataError: no array holds as many labels.
    """
    train, valid = stock.sets["train"], stock.sets.get("valid")
    if train.labels is None:
        raise DataError(
            f"{train.items.shown}: {train.n_rows:,} items, but no array and no table holds as many labels; give y or "
            "label beside it"
        )
    parts = [train] if valid is None or valid.labels is None else [train, valid]
    for part in parts:
        shape = "x".join(map(str, part.items.shape[1:]))
        labels = part.labels.shown if part.labels is not None else ""
        reason = f"items of {shape}, labels in {labels}"
        stock.findings.add(f"{part.items.part} rows", f"{part.n_rows:,} of {part.items.shown}", reason)
    drafts = [_draft_of(part) for part in parts]
    if len(drafts) == 1:
        return drafts[0], None
    return stacked(drafts), (*[False] * drafts[0].n_rows, *[True] * drafts[1].n_rows)


def test_array_rows(stock: Stock, table: Table | None) -> Draft | None:
    """Return the rows of the test array: those of a table with as many rows, else numbered ones."""
    import pandas as pd

    own = stock.sets.get("test")
    if own is None:
        return None
    shape = "x".join(map(str, own.items.shape[1:]))
    stock.findings.add("test rows", f"{own.n_rows:,} of {own.items.shown}", f"items of {shape}")
    if table is not None and table.n_rows == own.n_rows:
        return Draft(table, table.path if table.is_plain else None, array=own.items)
    frame = pd.DataFrame(_columns(own.columns), index=pd.RangeIndex(own.n_rows), dtype=str)
    return Draft(Table(own.items.path, frame), None, array=own.items)


def _draft_of(part: ArraySet) -> Draft:
    """Return the rows of an array, with labels and further columns of one value per row as a table."""
    import pandas as pd

    assert part.labels is not None
    labels = load_values(part.labels)
    is_wide = labels.ndim > 1 and labels[0].size > 1
    cells = {f"{LABEL}_{place}": as_text(column) for place, column in enumerate(labels.reshape(len(labels), -1).T)}
    cells = cells if is_wide else {LABEL: as_text(np.asarray(labels))}
    cells |= _columns(part.columns)
    return Draft(Table(part.items.path, pd.DataFrame(cells, dtype=str)), None, array=part.items, labels=part.labels)


def _columns(arrays: tuple[ArrayFacts, ...]) -> dict[str, list[str]]:
    """Return columns of one value per row, alike for train and test: `subject` of `subject_train.npy`."""
    return {_name(array): as_text(load_values(array)) for array in arrays}


def _name(array: ArrayFacts) -> str:
    own = array.key or PurePosixPath(array.path).stem
    return re.sub(r"(?i)[_-]?(train(ing)?|test(ing)?|valid(ation)?|val)[_-]?", "", own) or own
