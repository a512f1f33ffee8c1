"""Rows of a task that show the same picture, exactly or nearly, and training rows that a test row shows again.

Asked for by `folds.duplicates: exact` or `near`; the groups keep such rows out of two folds (`podium folds CONFIG`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, listed
from pipeline.data.dataset import Dataset
from pipeline.data.duplicates import Duplicates, content_groups, duplicate_groups, find_duplicates
from pipeline.records.config import Config
from pipeline.records.rows import Rows, Strings
from pipeline.records.runs import Workspace

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Twins:
    """Which labelled rows belong together."""

    ids: Strings
    """(N,) the labelled rows."""
    groups: Strings
    """(N,) the first id among the rows that show the same picture; a row without twins stands for itself."""
    notes: tuple[str, ...]
    """What was found, a line each, with examples by id."""


def find_twins(
    workspace: Workspace, config: Config, how: Literal["exact", "near"], say: Callable[[str], None]
) -> Twins:
    """Return the duplicates among the labelled rows, and say how many the test rows repeat.

    Items are compared as the experiment stores them (`input.size` and so on). Rows of several files belong together
    when any of their files do.

    Raises:
        ConfigError: the task's items are signals.
        DataError: items cannot be read, or near duplicates are asked for among images that are not of 8 bits.
    """
    task = config.task
    if task.input != "image":
        raise ConfigError(f"folds.duplicates: {how} compares images, and the task's input is `{task.input}`; remove it")
    data = Dataset(task, config.experiment.input, workspace.data(task), workspace.cache, 0, say)
    train, rows = data.train_array(), data.train.rows
    test_rows, test = (None, None) if task.test is None else data.other_array(None, train.shape[1:])
    found = find_duplicates(train, test) if how == "near" else exact_duplicates(train, test)
    groups = row_groups(rows.items, found.groups)
    names = rows.ids[np.unique(groups, return_index=True)[1]][groups]
    notes = (_note_train(rows.ids, groups, found, how), *_note_test(rows, test_rows, found))
    return Twins(rows.ids, names, notes)


def exact_duplicates(train: NDArray[Any], test: NDArray[Any] | None) -> Duplicates:
    """Return the items that are alike in every value; see `find_duplicates`, which finds near ones too.

    Args:
        train: (N, ...), any type; may be memory-mapped.
        test: (M, ...) of the same item shape and type.
    """
    contents = _contents(train)
    groups = content_groups(contents)
    _, first = np.unique(groups, return_index=True)
    place = {contents[position]: position for position in first}
    again = [] if test is None else [(place[c], number) for number, c in enumerate(_contents(test)) if c in place]
    pairs = np.array(sorted(again), dtype=np.int64).reshape(-1, 2)
    return Duplicates(groups, len(train) - len(first), 0, pairs)


def row_groups(items: Sequence[tuple[int, ...]], item_groups: Ints) -> Ints:
    """Return the group of each row, (N,), 0..G-1 by first appearance: rows with items of one group belong together.

    Args:
        items: (N) positions of each row's items.
        item_groups: (M,) group of each item.
    """
    pairs = [(row, len(items) + int(item_groups[item])) for row, of_row in enumerate(items) for item in of_row]
    n_nodes = len(items) + int(item_groups.max(initial=0)) + 1
    return duplicate_groups(n_nodes, np.array(pairs, dtype=np.int64).reshape(-1, 2))[: len(items)]


def _contents(array: NDArray[Any]) -> list[str]:
    """Return a hash of the bytes of each item."""
    return [hashlib.blake2b(item.tobytes(), digest_size=16).hexdigest() for item in array]


def _note_train(ids: Strings, groups: Ints, found: Duplicates, how: str) -> str:
    sizes = np.bincount(groups)
    torn = np.flatnonzero(sizes > 1)
    counts = f"{found.n_exact} items are exact copies" + (f", {found.n_near} pairs near ones" if how == "near" else "")
    if not len(torn):
        return f"duplicates in training: {counts}"
    examples = listed((" = ".join(ids[groups == group][:4]) for group in torn[:3]), 3)
    return (
        f"duplicates in training: {counts}; {len(torn)} groups of up to {sizes.max()} rows stay together ({examples})"
    )


def _note_test(rows: Rows, test_rows: Rows | None, found: Duplicates) -> tuple[str, ...]:
    """Return how many test rows show a picture of the training rows, if there are test rows."""
    if test_rows is None:
        return ()
    of_train, of_test = _row_of(rows), _row_of(test_rows)
    pairs = sorted({(rows.ids[of_train[a]], test_rows.ids[of_test[b]]) for a, b in found.train_test_pairs.tolist()})
    n_test = len({test_id for _, test_id in pairs})
    if not pairs:
        return ("duplicates between training and test: none",)
    examples = listed((f"{train_id} = {test_id}" for train_id, test_id in pairs[:5]), 5)
    return (f"duplicates between training and test: {n_test} test rows repeat a training row ({examples})",)


def _row_of(rows: Rows) -> dict[int, int]:
    """Return for each item the first row that holds it."""
    return {item: row for row in reversed(range(len(rows))) for item in rows.items[row]}
