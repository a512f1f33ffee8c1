"""The rows of one set (train, test, ...) as the task sees them: ids, items, targets, groups.

Their order carries no meaning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed

Strings = NDArray[np.object_]


@dataclass(frozen=True)
class Rows:
    """Everything that is known about a set of rows before a file is opened.

    `targets` has one form per kind of task: (N,) int64 class index for binary, multiclass and ordinal; (N, K) float32
    in {0, 1} for multilabel; (N, K) float32 summing to one for soft multiclass; (N, T) float32 for regression.
    """

    ids: Strings
    """(N,) unique strings."""
    items: tuple[tuple[int, ...], ...]
    """(N) for each row the positions of its items (files) in the set's store; at least one."""
    names: tuple[str, ...]
    """Class names in order, label names, or target names: what the columns of `targets` and predictions are."""
    targets: NDArray[np.int64] | NDArray[np.float32] | None = None
    """None where the rows are not labelled."""
    groups: Strings | None = None
    """(N,) what no two folds may share; None without a group column."""
    subjects: Strings | None = None
    """(N,) whom each row was recorded from; None without such a column."""
    sessions: Strings | None = None
    """(N,) the session of each recording; None without such a column."""
    host_folds: NDArray[np.int64] | None = None
    """(N,) the host's own fold numbers; None without such a column."""
    submission_ids: Strings | None = None
    """(N,) the id under which a row is submitted, when several rows share one; None when it is the row's id."""

    wanted: tuple[int, ...] | None = None
    """Positions in `names` of the labels that the host asks for, when training has more; None when it is all."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.ids)

    def at(self, positions: NDArray[np.int64]) -> Rows:
        """Return the rows at the given positions, in that order."""

        def of(values: Any) -> Any:
            return None if values is None else values[positions]

        return replace(
            self,
            ids=self.ids[positions],
            items=tuple(self.items[position] for position in positions),
            targets=of(self.targets),
            groups=of(self.groups),
            subjects=of(self.subjects),
            sessions=of(self.sessions),
            host_folds=of(self.host_folds),
            submission_ids=of(self.submission_ids),
        )


def joined_rows(sets: Sequence[Rows], n_items: Sequence[int]) -> Rows:
    """Return the ids and items of several sets without labels, their items counted on from set to set.

    Args:
        sets: of one task, at least one.
        n_items: how many items the store of each set holds.

    Raises:
        DataError: two sets share an id.
    """
    ids = np.concatenate([rows.ids for rows in sets])
    if doubled := [row_id for row_id, times in Counter(ids.tolist()).items() if times > 1]:
        raise DataError(f"{len(doubled)} ids stand in the test set and in unlabelled: both ({listed(doubled, 5)})")
    starts = np.cumsum([0, *n_items])
    items = [
        tuple(int(start) + item for item in of_row)
        for rows, start in zip(sets, starts, strict=False)
        for of_row in rows.items
    ]
    return Rows(ids, tuple(items), sets[0].names)
