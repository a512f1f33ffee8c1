"""Under which id a row is known and submitted: one id column for train and test, joined to the sample's ids."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.base.errors import DataError, listed
from pipeline.stages.infer.columns import Column
from pipeline.stages.infer.drafts import Draft
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.paths import FILE
from pipeline.stages.infer.samples import Sample, first_number
from pipeline.stages.infer.survey import stem_of


@dataclass(frozen=True, eq=False)
class Joined:
    """Rows with their ids settled."""

    train: Draft
    test: Draft | None
    id: str | None
    """The id column of both; None where rows are numbered."""
    first_id: int = 0
    row_id: str | None = None
    """A column whose value several rows share: they are one row of the submission."""


_FORMS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("as it is", lambda cell: cell),
    ("without suffix", stem_of),
    ("the file's name", lambda cell: cell.rpartition("/")[2]),
    ("the file's name without suffix", lambda cell: stem_of(cell.rpartition("/")[2])),
    ("as a number", lambda cell: str(int(cell)) if cell.isdecimal() else cell),
    (
        "the number in the file's name",
        lambda cell: str(int(stem)) if (stem := stem_of(cell.rpartition("/")[2])).isdecimal() else stem,
    ),
    ("case aside", str.casefold),
)


def join_ids(
    train: Draft, test: Draft | None, sample: Sample | None, given: dict[str, Any], findings: Findings
) -> Joined:
    """Return the rows with one id column, and test rows that answer to the sample.

    Args:
        train: the labelled rows.
        test: the rows to predict.
        sample: whose rows are to be submitted; without one the test rows are, as they are.
        given: what the user states, as in task.yaml.
        findings: gets how ids were joined.

    Raises:
        DataError: the sample asks for rows that the test set has not; the nearest ids are shown.
    """
    row_id = (given.get("submission") or {}).get("row_id")
    column: str | None = given.get("id")
    numbered = False
    if test is not None and sample is not None:
        test, found, is_shared = _to_sample(test, sample, column)
        numbered = found is None
        if is_shared:
            row_id = row_id or found
        elif column is None:
            column = found
    if row_id is not None:
        train, test, row_id = _with_row_id(train, test, row_id)
        findings.add(
            "submission.row_id", row_id, f"several rows share a value of {row_id}, which the sample asks for once"
        )
        column = column if column != row_id else None
    if numbered and sample is not None:
        start = first_number(sample.ids) or 0
        findings.add("id", "none", f"rows are numbered from {start} in their order, as {sample.table.shown} names them")
        return Joined(train, test, None, start, row_id)
    return _one_name(train, test, column, row_id, findings)


def _to_sample(test: Draft, sample: Sample, stated: str | None) -> tuple[Draft, str | None, bool]:
    """Return test rows that answer to the sample, the column that does, and whether several rows share its values."""
    start = first_number(sample.ids)
    if test.table is sample.table and test.files is None and start is not None and stated is None:
        return test, None, False  # items of an array in the order of the sample: the numbers are no names
    wanted = sample.ids.values
    names = [stated] if stated is not None and stated in test.columns else list(test.columns)
    columns = sorted((test.columns[name] for name in names), key=lambda column: column.name != sample.id_column)
    for how, form in _FORMS:
        by_form = {form(cell): cell for cell in wanted}
        if len(by_form) < len(wanted):
            continue
        for column in columns:
            cells = [by_form.get(form(cell)) for cell in column.cells.tolist()]
            if wanted <= {cell for cell in cells if cell is not None}:
                return _renamed(test, column, cells, sample, how)
    if first_number(sample.ids) is not None and test.n_rows == len(sample.ids.cells):
        return test, None, False
    raise _not_in_test(test, sample, columns)


def _renamed(
    test: Draft, column: Column, cells: list[str | None], sample: Sample, how: str
) -> tuple[Draft, str | None, bool]:
    """Return the test rows that the sample asks for, with its spelling of their ids."""
    kept = np.array([row for row, cell in enumerate(cells) if cell is not None], dtype=np.int64)
    spelled = [cell for cell in cells if cell is not None]
    is_shared = len(set(spelled)) < len(spelled)
    if how == "as it is":
        return test.at(kept), column.name, is_shared
    name = sample.id_column or "id"
    return test.at(kept).with_columns({name: spelled}), name, is_shared


def _not_in_test(test: Draft, sample: Sample, columns: Sequence[Column]) -> DataError:
    """Return the error that the sample asks for rows that are not in the test set."""
    best = max(columns, key=lambda column: len(column.values & sample.ids.values), default=None)
    known = best.values if best is not None else frozenset()
    missing = [cell for cell in sample.ids.cells.tolist() if cell not in known]
    near = difflib.get_close_matches(missing[0], list(known), n=3, cutoff=0) if missing else []
    return DataError(
        f"{sample.table.shown}: {len(missing):,} of its {len(sample.ids.cells):,} ids are not among the test rows of "
        f"{test.table.shown}, such as {listed(missing, 3)}; the nearest there: {listed(near, 3)}. Give the sample of "
        "this test set, or say test.table=FILE, or submission.sample=FILE"
    )


def _with_row_id(train: Draft, test: Draft | None, row_id: str) -> tuple[Draft, Draft | None, str]:
    """Return both sets with the column that several rows share; training rows without it are their own."""
    if row_id not in train.columns:
        keys = [column for column in train.columns.values() if column.is_key]
        cells = keys[0].cells.tolist() if keys else [str(row) for row in range(train.n_rows)]
        train = train.with_columns({row_id: cells})
    return train, test, row_id


def _one_name(train: Draft, test: Draft | None, column: str | None, row_id: str | None, findings: Findings) -> Joined:
    """Return both sets with an id column of one name; the smaller change is made where names differ."""
    if column is None and test is not None:
        shared = [own.name for own in _keys(train) if own.name in test.columns and test.columns[own.name].is_key]
        column = next((name for name in shared if name != row_id), None)
        if column is None and row_id is not None:
            findings.add("id", "none", "no column names each row of train and test; rows are numbered")
            return Joined(train, test, None, 0, row_id)
    own = _train_key(train, column)
    if test is None:
        findings.add("id", own or "none", "names each row" if own else "rows are numbered in their order")
        return Joined(train, None, own, 0, row_id)
    if column is None:
        column = next((key.name for key in _keys(test)), None)
        if column is None and own is None:
            findings.add("id", "none", "no column names the rows; they are numbered in their order")
            return Joined(train, test, None, 0, row_id)
    if own is not None and own == column:
        findings.add("id", column, "names each row of train and test")
        return Joined(train, test, column, 0, row_id)
    return _made_alike(train, test, own, column, row_id, findings)


def _made_alike(
    train: Draft, test: Draft, own: str | None, column: str | None, row_id: str | None, findings: Findings
) -> Joined:
    """Return both sets with an id column of one name, which one of them lacks."""
    if column is not None and column in train.columns and row_id is None and not train.columns[column].is_key:
        reason = f"{column} is repeated in {train.table.shown}: rows that share it count as one"
        findings.add("submission.row_id", column, reason, "likely")
        return Joined(train, test, None, 0, column)
    if column is None or (own is not None and train.source is not None):
        name = own or "id"
        cells = (
            test.columns[column].cells.tolist() if column is not None else [f"test_{row}" for row in range(test.n_rows)]
        )
        test = test.with_columns({name: cells})
    else:
        name = column
    if own != name:
        cells = train.columns[own].cells.tolist() if own is not None else [str(row) for row in range(train.n_rows)]
        train = train.with_columns({name: cells})
    other = column if column != name else own
    findings.add(
        "id",
        name,
        f"names each row; called {other} in {'test' if column != name else 'train'}"
        if other
        else "made: rows by number",
    )
    return Joined(train, test, name, 0, row_id)


def _keys(draft: Draft) -> list[Column]:
    """Return the columns that name each row, the one that names files first, made paths last."""
    keys = [column for column in draft.columns.values() if column.is_key]
    return sorted(keys, key=lambda column: (column.name == FILE, column.name != draft.main))


def _train_key(train: Draft, wanted: str | None) -> str | None:
    keys = [column.name for column in _keys(train)]
    if wanted in keys:
        return wanted
    return next(
        (name for name in keys if name == train.main and name != FILE),
        next((name for name in keys if name == "id"), None),
    ) or next((name for name in keys if name != FILE and _looks_like_id(train.columns[name])), None)


def _looks_like_id(column: Column) -> bool:
    """Say whether distinct cells are ids, not values that happen to differ."""
    return column.numbers is None or first_number(column) is not None or column.is_whole
