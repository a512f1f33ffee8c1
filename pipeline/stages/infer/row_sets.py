"""Labelled rows and rows to predict, each with its items: from tables, from the paths of files, or from arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.base.errors import DataError, listed
from pipeline.stages.infer.array_rows import labelled_array_rows, test_array_rows
from pipeline.stages.infer.arrays import array_sets
from pipeline.stages.infer.columns import Table, hints_at, shown_path, words_of
from pipeline.stages.infer.delivered import Delivered
from pipeline.stages.infer.drafts import Draft, exploded, is_ragged, stacked
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.groups import find_split
from pipeline.stages.infer.path_rows import labelled_path_rows, test_path_rows
from pipeline.stages.infer.paths import LABEL, common_root
from pipeline.stages.infer.roles import Roles
from pipeline.stages.infer.samples import Sample
from pipeline.stages.infer.survey import suffix_of
from pipeline.stages.infer.table_items import Stock, no_match, with_items

Valid = tuple[bool, ...] | None
"""(N,) which labelled rows the host set apart to validate on; None where he did not."""


@dataclass(frozen=True, eq=False)
class RowSets:
    """What there is to learn from and to predict."""

    train: Draft
    test: Draft | None
    sample: Sample | None
    is_valid: Valid = None
    label: str | None = None
    """The column of labels that were read off paths or an array."""
    others: tuple[Table, ...] = ()
    """Tables that are none of these; they may say which rows belong together."""


def find_rows(delivered: Delivered, roles: Roles, given: dict[str, Any], findings: Findings) -> RowSets:
    """Return the rows of train and test with their items.

    Args:
        delivered: what the host handed out.
        roles: which table is what.
        given: what the user states, as in task.yaml.
        findings: gets how each set was found.

    Raises:
        DataError: there are no items, ids match no file, nothing says what the classes are, or there is nothing to
            predict.
    """
    stock = Stock(delivered, array_sets(delivered.arrays), findings)
    _require_items(stock)
    found = _from_tables(stock, roles, given) if roles.train is not None else None
    if found is None:
        has_labels = "train" in stock.sets and stock.sets["train"].labels is not None
        found = _from_arrays(stock, roles) if has_labels or not delivered.index.files else _from_paths(stock, roles)
    if found.test is None and given.get("test") is not False:
        raise DataError(
            f"{delivered.folder}: nothing to predict: no sample submission, no test table, and no files or array "
            "called test. Give one of them, say test.table=FILE, or test=off to train without a test set"
        )
    if any(draft is not None and is_ragged(draft) for draft in (found.train, found.test)):
        return _exploded(found)
    return found


def _require_items(stock: Stock) -> None:
    delivered = stock.delivered
    in_tables = any(table.pixels is not None or table.arrays for table in delivered.tables)
    if not delivered.index.files and not stock.sets and not in_tables:
        tables = listed([table.shown for table in delivered.tables], 8) or "no table either"
        raise DataError(
            f"{delivered.folder}: no items: no image, sound or array file, and no table with pixel columns (found: "
            f"{tables}). Give the folder in which the files lie, beside their tables"
        )


def _from_tables(stock: Stock, roles: Roles, given: dict[str, Any]) -> RowSets | None:
    """Return the rows of tables, or None where labels stand in paths or arrays and the table is another thing."""
    assert roles.train is not None
    train = with_items(stock, roles.train, "train", given.get("train") or {})
    if train is None:
        if "train" in stock.sets or _has_labels_in_paths(stock, roles):
            return None
        raise no_match(stock.delivered, roles.train)
    test = (
        None
        if given.get("test") is False
        else _test_of_tables(stock, _test_table(roles), train, given.get("test") or {})
    )
    train, test, is_valid = _split(stock, train, test, roles)
    _refuse_swapped_folders(train, test)
    return RowSets(train, test, roles.sample, is_valid, others=roles.others)


def _test_of_tables(stock: Stock, table: Table | None, train: Draft, given: dict[str, Any]) -> Draft | None:
    if train.array is not None:
        return test_array_rows(stock, table)
    if table is None:
        return test_path_rows(stock, train) if train.files is not None else None
    like = frozenset(suffix_of(path) for paths in train.files or () for path in paths)
    test = with_items(stock, table, "test", given, like)
    if test is None and train.files is not None:
        raise no_match(stock.delivered, table)
    if test is None:
        raise DataError(f"{table.shown}: has no pixel columns or arrays like {train.table.shown}; say test.table=FILE")
    return test.shaped_like(train)


def _from_arrays(stock: Stock, roles: Roles) -> RowSets:
    train, is_valid = labelled_array_rows(stock)
    label = LABEL if LABEL in train.columns else None
    return RowSets(train, test_array_rows(stock, _test_table(roles)), roles.sample, is_valid, label)


def _from_paths(stock: Stock, roles: Roles) -> RowSets:
    table = _test_table(roles)
    test = with_items(stock, table, "test", {}) if table is not None else None
    if table is not None and test is None:
        raise no_match(stock.delivered, table)
    train, is_valid, label = labelled_path_rows(stock, test, roles.sample)
    return RowSets(train, test or test_path_rows(stock, train), roles.sample, is_valid, label)


def _test_table(roles: Roles) -> Table | None:
    return roles.test or (roles.sample.table if roles.sample is not None else None)


def _has_labels_in_paths(stock: Stock, roles: Roles) -> bool:
    try:
        _from_paths(stock.silent(), roles)
    except DataError:
        return False
    return True


def _split(stock: Stock, train: Draft, test: Draft | None, roles: Roles) -> tuple[Draft, Draft | None, Valid]:
    """Return train and test after the host's own split: a table of validation rows, or a column that says it."""
    if roles.valid is not None and (more := with_items(stock.silent(), roles.valid, "train", {})) is not None:
        stock.findings.add("valid rows", f"{more.n_rows:,} of {more.table.shown}", "the host set them apart")
        return stacked([train, more]), test, (*[False] * train.n_rows, *[True] * more.n_rows)
    split = find_split(train.table, {train.main or ""})
    if split is None:
        return train, test, None
    column, meaning = split
    parts = np.array([meaning[cell] for cell in train.columns[column].cells.tolist()], dtype=object)
    if (parts == "test").any():
        reason = f"its values say which rows train and which are to be predicted ({listed(meaning)})"
        stock.findings.add("split", column, reason)
        is_same = test is None or test.table is train.table
        test = train.at(np.flatnonzero(parts == "test")) if is_same else test
        train, parts = train.at(np.flatnonzero(parts != "test")), parts[parts != "test"]
    return train, test, tuple(bool(part == "valid") for part in parts) if (parts == "valid").any() else None


def _refuse_swapped_folders(train: Draft, test: Draft | None) -> None:
    """Raise where the labelled rows lie in a folder called test and those to predict in one called train."""
    if test is None or train.files is None or test.files is None or train.stated:
        return
    (first, own), (other, others) = ((_first_file(draft), _words_of_root(draft)) for draft in (train, test))
    if hints_at(own, ("test",)) and not hints_at(own, ("train",)) and hints_at(others, ("train",)):
        raise DataError(
            f"train and test are mixed up: the rows of {train.table.shown} lie in the folder of the test rows "
            f"({first}), and those of {test.table.shown} in that of train ({other}). Rename the folders, or state "
            "train.files= and test.files="
        )


def _first_file(draft: Draft) -> str:
    return shown_path(next(path for paths in draft.files or () for path in paths))


def _words_of_root(draft: Draft) -> frozenset[str]:
    return words_of(shown_path(common_root([path for paths in draft.files or () for path in paths])))


def _exploded(rows: RowSets) -> RowSets:
    """Return a row for each file, where rows have different numbers of files."""
    valid = rows.is_valid
    if valid is not None:
        valid = tuple(own for own, paths in zip(valid, rows.train.files or (), strict=True) for _ in paths)
    test = exploded(rows.test) if rows.test is not None else None
    return replace(rows, train=exploded(rows.train), test=test, is_valid=valid)
