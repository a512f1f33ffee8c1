"""OOF predictions of several runs joined by id: the rows that all of them hold, as they would be submitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import MismatchError
from pipeline.records.cv import submitted
from pipeline.records.predictions import Predictions, check_alike, label_of
from pipeline.records.rows import Rows, Strings
from pipeline.records.scores import Targets


@dataclass(frozen=True)
class Paired:
    """M sets of predictions for the same N rows of a submission, sorted by id: the order they came in is gone."""

    ids: Strings
    """(N,) submission ids."""
    targets: Targets
    """N rows, as metrics take them."""
    values: tuple[NDArray[np.float32], ...]
    """(M) arrays (N, n_columns)."""
    folds: tuple[NDArray[np.int64] | None, ...]
    """(M) the fold in which each row was held out."""
    groups: Strings | None
    """(N,) the group of each row; None when the task has none."""
    row_ids: Strings
    """The rows behind the submission ids: those that all sets hold."""


def pair_rows(parts: Sequence[Predictions], rows: Rows, labels: Sequence[str] | None = None) -> Paired:
    """Return the rows that every set of predictions holds, averaged by submission id and sorted.

    Args:
        parts: of one task, with the same columns; their fold tables may differ.
        rows: the labelled rows of the task.
        labels: what messages call the sets.

    Raises:
        MismatchError: the sets are of different tasks or columns, or no row is in all of them.
        DataError: rows of one submission id have different targets.
    """
    labels = labels or [label_of(part) for part in parts]
    for label, part in zip(labels, parts, strict=True):
        check_alike(_without_folds_hash(parts[0]), _without_folds_hash(part), (labels[0], label))
    shared = set(rows.ids).intersection(*(part.ids for part in parts))
    if not shared:
        counts = ", ".join(f"{label} holds {len(part)}" for label, part in zip(labels, parts, strict=True))
        raise MismatchError(f"no row is common to {' and '.join(labels)} and the training table ({counts} rows)")
    row_ids = np.array(sorted(shared), dtype=object)
    sent = [submitted(_at_ids(part, row_ids), rows) for part in parts]
    ids = sent[0][0].ids
    return Paired(
        ids=ids,
        targets=sent[0][1],
        values=tuple(predictions.values for predictions, _ in sent),
        folds=tuple(predictions.fold for predictions, _ in sent),
        groups=_groups(ids, row_ids, rows),
        row_ids=row_ids,
    )


def _without_folds_hash(part: Predictions) -> Predictions:
    return replace(part, meta={key: value for key, value in part.meta.items() if key != "folds_hash"})


def _at_ids(part: Predictions, ids: Strings) -> Predictions:
    place = {row_id: position for position, row_id in enumerate(part.ids)}
    return part.at(np.array([place[row_id] for row_id in ids], dtype=np.int64))


def _groups(ids: Strings, row_ids: Strings, rows: Rows) -> Strings | None:
    """Return the group of each submission id, that of its first row by id."""
    if rows.groups is None:
        return None
    keys = rows.ids if rows.submission_ids is None else rows.submission_ids
    known = {row_id: (key, group) for row_id, key, group in zip(rows.ids, keys, rows.groups, strict=True)}
    group_of = dict(known[row_id] for row_id in row_ids[::-1])
    return np.array([group_of[key] for key in ids], dtype=object)
