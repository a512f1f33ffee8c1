"""Rows that no table lists: labels in the names of folders and files, and test files that simply lie in a folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from pipeline.base.errors import DataError, listed
from pipeline.stages.infer.columns import Table, hints_at, shown_path, words_of
from pipeline.stages.infer.drafts import Draft
from pipeline.stages.infer.groups import split_meaning
from pipeline.stages.infer.items import DECOYS, FileIndex
from pipeline.stages.infer.paths import FILE, ID, LABEL, common_root, label_column, path_table
from pipeline.stages.infer.roles import classes_named
from pipeline.stages.infer.samples import Sample
from pipeline.stages.infer.survey import stem_of, suffix_of
from pipeline.stages.infer.table_items import Stock


def labelled_path_rows(
    stock: Stock, test: Draft | None, sample: Sample | None
) -> tuple[Draft, tuple[bool, ...] | None, str]:
    """Return rows whose labels stand in paths, which of them the host set apart to validate on, and the column.

    Args:
        stock: the files.
        test: the rows to predict, whose files are no training files.
        sample: may name the classes.

    Raises:
        DataError: there are no training files, or their paths tell no classes apart.
    """
    folder = stock.delivered.folder
    taken = {path for paths in (test.files or () if test is not None else ()) for path in paths}
    files = _training_files(stock.delivered.index, taken)
    if not files:
        raise DataError(
            f"{folder}: no table holds labels, and there are no training files beside the test files; give the table "
            "with the labels, or a folder train/ with a folder for each class"
        )
    is_valid = _valid_folders(files)
    root = common_root(files)
    table = path_table(files, root)
    table = table if is_valid is None else _without_first_folder(table)
    others = [paths[0] for paths in test.files or ()] if test is not None else []
    name = label_column(table, path_table(others, common_root(others)) if others else None, classes_named(sample))
    if name is None:
        raise DataError(
            f"{folder}: no table holds labels, and neither folders nor names of the {len(files):,} files under "
            f"{shown_path(root)}/ tell classes apart (such as {shown_path(files[0])}). Give the table with the labels"
        )
    labels = table.columns[name]
    where = f"the folders below {shown_path(root)}/" if name.startswith("folder") else "the names of the files"
    reason = f"read off {where}, such as {listed(sorted(labels.values), 4)}"
    stock.findings.add("labels", f"{len(labels.counts)} classes", reason)
    stock.findings.add("train rows", f"{len(files):,} files", f"all items below {shown_path(root)}/")
    label = sample.value.name if sample is not None and sample.value is not None else LABEL
    renamed = replace(table, frame=table.frame.rename(columns={name: label}))
    return Draft(renamed, None, tuple((path,) for path in files), FILE), is_valid, label


def test_path_rows(stock: Stock, train: Draft) -> Draft | None:
    """Return the files of a folder called test, where no table lists the rows to predict; None where there are none.

    Where each labelled row has several files, with the same ends to their names, so have these.
    """
    taken = {path for paths in train.files or () for path in paths}
    suffixes = {PurePosixPath(path).suffix.lower() for path in taken}
    files = [
        file.path
        for file in stock.delivered.index.files
        if file.path not in taken
        and hints_at(words_of(shown_path(file.folder)), ("test",))
        and not hints_at(words_of(shown_path(file.folder)), DECOYS)
        and file.suffix in suffixes
    ]
    if not files:
        return None
    root = common_root(files)
    rows = _by_ends(files, _ends(train))
    reason = f"no table lists them: all items below {shown_path(root)}/"
    stock.findings.add("test rows", f"{len(rows):,} rows, {len(files):,} files", reason)
    table = path_table([paths[0] for paths in rows], root)
    names = [paths[0].rpartition("/")[2] for paths in rows]
    ids = [_without_end(stem_of(name), _ends(train)) for name in names]
    if train.main in train.columns and train.main != FILE and suffix_of(train.columns[train.main].cells[0]):
        ids = names
    if len(set(ids)) == len(ids):
        own = train.main if train.main is not None and train.main != FILE else ID
        table = replace(table, frame=table.frame.drop(columns=[ID]).assign(**{own: ids}))
    return Draft(table, None, tuple(rows), FILE)


def _ends(train: Draft) -> list[str]:
    """Return what follows the id in the names of the several files of a row; nothing where each has one."""
    first = (train.files or ((),))[0]
    cell = str(train.columns[train.main].cells[0]) if train.main in train.columns else ""
    stems = [stem_of(path.rpartition("/")[2]) for path in first]
    if len(stems) < 2 or not all(cell and cell in stem for stem in stems):
        return []
    return [stem.partition(cell)[2] for stem in stems]


def _by_ends(files: Sequence[str], ends: Sequence[str]) -> list[tuple[str, ...]]:
    rows: dict[str, list[str]] = defaultdict(list)
    for path in files:
        folder, _, name = path.rpartition("/")
        rows[f"{folder}/{_without_end(stem_of(name), ends)}"].append(path)
    return [tuple(paths) for paths in rows.values()]


def _without_end(stem: str, ends: Sequence[str]) -> str:
    return next((stem.removesuffix(end) for end in ends if end and stem.endswith(end)), stem)


def _training_files(index: FileIndex, taken: set[str]) -> list[str]:
    """Return the files to learn from: those in folders called train, else all that are neither test nor decoys."""
    named, plain = [], []
    for file in index.files:
        words = words_of(shown_path(file.folder))
        top = words_of(shown_path(file.path).split("/")[0]) if "/" in shown_path(file.path) else frozenset()
        is_test = hints_at(words, ("test", "unlabel")) and not hints_at(words, ("train",))
        if file.path in taken or hints_at(top, DECOYS) or is_test:
            continue
        plain.append(file.path)
        if hints_at(words, ("train", "val")):
            named.append(file.path)
    return named if any(hints_at(words_of(path), ("train",)) for path in named) else plain


def _valid_folders(files: list[str]) -> tuple[bool, ...] | None:
    """Return which of the files lie in a folder of validation rows beside one of training rows."""
    root = common_root(files)
    tops = [path.removeprefix(f"{root}/").split("/")[0] for path in files]
    meaning = {top: split_meaning(top) for top in set(tops)}
    if set(meaning.values()) != {"train", "valid"}:
        return None
    return tuple(meaning[top] == "valid" for top in tops)


def _without_first_folder(table: Table) -> Table:
    """Return a path table whose folders are counted below train/ and val/, which stand first in its paths."""
    frame = table.frame.drop(columns=["folder_1"])
    numbers = {
        name: f"folder_{int(name[7:]) - 1}" for name in map(str, frame.columns) if re.fullmatch(r"folder_\d+", name)
    }
    return replace(table, frame=frame.rename(columns=numbers))
