"""Labels, patients and parts that stand in the paths of files: a table of the folders and words of each path.

`train/Fat Hen/0a1.png` has `folder_1` Fat Hen; `cat.12.jpg` has `name_text` cat; `20090328_TRAIN5_1.aif` has
`name_last` 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.stages.infer.columns import Column, Table, plain_form
from pipeline.stages.infer.survey import stem_of

ID, FILE, LABEL = "id", "item_file", "label"
"""Columns of made tables; `file` itself is what many hosts call their ids."""

_NUMBER_AT_END = re.compile(r"[^0-9A-Za-z]*\d+$")
_MAX_WORDS = 8


def path_table(paths: Sequence[str], root: str) -> Table:
    """Return a table with id, file, and each folder and word of the paths below `root` as a column.

    The id is the file's name without suffix where that is unique, else the path below `root`.
    """
    import pandas as pd

    below = [path.removeprefix(f"{root}/") for path in paths]
    stems = [stem_of(path.rpartition("/")[2]) for path in below]
    ids = stems if len(set(stems)) == len(stems) else [stem_of(path) for path in below]
    ids = ids if len(set(ids)) == len(ids) else below
    cells: dict[str, list[str]] = {ID: ids, FILE: list(paths), **_folders(below), **_name_words(stems)}
    return Table(root, pd.DataFrame(cells, dtype=str))


def label_column(train: Table, test: Table | None, classes: frozenset[str]) -> str | None:
    """Return the column of a path table that holds the classes, or None.

    Args:
        train: the labelled files.
        test: the files to predict, whose paths do not tell the class.
        classes: what the sample names as classes; may be empty.
    """
    scores = {}
    for column in train.columns.values():
        if column.name in (ID, FILE) or not _may_be_label(column):
            continue
        seen = test.columns[column.name].values if test is not None and column.name in test.columns else frozenset()
        if len(column.values & seen) > 0.5 * len(column.values):
            continue
        scores[column.name] = _label_score(column, classes) - 5.0 * _only_parts(column, train)
    return max(scores, key=lambda name: scores[name], default=None)


def _label_score(column: Column, classes: frozenset[str]) -> float:
    known = {plain_form(name) for name in classes}
    mine = {plain_form(name) for name in column.values}
    score = 10.0 * len(known & mine) / len(known) if known else 0.0
    alone = sum(count == 1 for count in column.counts.values()) / len(column.counts)
    by_place = {"folder": 3.0, "name_text": 2.0, "name_last": 1.0}
    place = next((value for start, value in by_place.items() if column.name.startswith(start)), 0.5)
    depth = int(column.name.rpartition("_")[2]) if column.name.startswith("folder") else 0
    return score + place - 0.1 * depth - 2 * alone


def _only_parts(column: Column, train: Table) -> bool:
    """Say whether folders only part what the folders below them tell apart: each of those comes again in others.

    `part_1/cat`, `part_2/cat` are parts with classes in them; `cat/patient_7` is a class with patients in it.
    """
    inner = train.columns.get(f"folder_{int(column.name[7:]) + 1}") if column.name.startswith("folder_") else None
    if inner is None or inner.is_constant or "" in inner.cells:
        return False
    outer_of: dict[str, set[str]] = {}
    for outer, name in zip(column.cells.tolist(), inner.cells.tolist(), strict=True):
        outer_of.setdefault(name, set()).add(outer)
    return sum(len(outers) > 1 for outers in outer_of.values()) > len(outer_of) / 2


def _may_be_label(column: Column) -> bool:
    """Say whether a column has several values, most of them repeated."""
    return not column.is_constant and len(column.values) <= max(2, len(column.cells) / 2) and column.n_empty == 0


def _folders(below: Sequence[str]) -> dict[str, list[str]]:
    parts = [path.split("/")[:-1] for path in below]
    depth = max((len(each) for each in parts), default=0)
    return {
        f"folder_{level + 1}": [each[level] if level < len(each) else "" for each in parts] for level in range(depth)
    }


def _name_words(stems: Sequence[str]) -> dict[str, list[str]]:
    """Return the words of names that differ and are not just the whole name."""
    words = [[word for word in re.split(r"[^0-9A-Za-z]+", stem) if word] for stem in stems]
    n_words = min((len(each) for each in words), default=0)
    columns = {"name_text": [_NUMBER_AT_END.sub("", stem) for stem in stems]}
    if n_words > 1:
        columns |= {f"name_{at + 1}": [each[at] for each in words] for at in range(min(n_words, _MAX_WORDS))}
        columns["name_last"] = [each[-1] for each in words]
    kept: dict[str, list[str]] = {}
    for name, cells in columns.items():
        if len(set(cells)) > 1 and cells != list(stems) and cells not in kept.values():
            kept[name] = cells
    return kept


def common_root(paths: Sequence[str]) -> str:
    """Return the deepest folder that all paths lie below."""
    parts = [path.split("/")[:-1] for path in paths]
    same = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        same.append(level[0])
    return "/".join(same)
