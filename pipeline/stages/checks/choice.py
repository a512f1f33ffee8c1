"""Which rows of many to try: evenly from folds and classes, and always the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.keyed import make_key, permutation
from pipeline.records.rows import Rows
from pipeline.training.scaling import hard_labels

Ints = NDArray[np.int64]

MIN_OF_CLASS = 8
"""Classes (of rows with several labels: labels) with fewer rows are left out: some fold would never train on them."""
MOST_LOOKED_AT = 50_000
"""Rows of a million from which a few are chosen."""


def choose_rows(rows: Rows, fold: Ints, n: int, n_classes: int | None = None) -> Ints:
    """Return the positions of about `n` rows, spread evenly over folds and, within each, over classes.

    Rows that share a submission id are chosen together. The order is such that a shorter list is as even.

    Args:
        rows: labelled.
        fold: (N,) of each row.
        n: more than are there gives all.
        n_classes: of more classes only the most frequent are taken, and none of few rows; None takes all.
    """
    classes = _classes(rows)
    names, counts = np.unique(classes, return_counts=True)
    kept = names[np.argsort(-counts, kind="stable")]
    if n_classes is not None and (counts >= MIN_OF_CLASS).sum() > 1:
        kept = kept[: min(n_classes, (counts >= MIN_OF_CLASS).sum())]
    place = {name: number for number, name in enumerate(kept)}
    mixed = permutation(make_key("check rows"), len(rows))[:MOST_LOOKED_AT]
    order = np.array([row for row in mixed if classes[row] in place])
    in_cell = _count_up((int(fold[row]), place[classes[row]]) for row in order)
    order = order[np.lexsort((np.array([place[classes[row]] for row in order]), in_cell))]
    order = order[np.argsort(_count_up(int(fold[row]) for row in order), kind="stable")]
    if rows.submission_ids is None:
        return order[:n]
    keys = list(dict.fromkeys(rows.submission_ids[order]))
    of_key = {key: np.flatnonzero(rows.submission_ids == key) for key in keys[:n]}
    return np.concatenate([of_key[key] for key in keys[:n] if key in of_key])[:n]


def _classes(rows: Rows) -> Ints:
    """Return one class per row; one for all where rows have no single class."""
    targets = np.asarray(rows.targets)
    is_share = targets.ndim == 2 and targets.shape[1] > 1 and np.allclose(targets.sum(axis=1), 1, atol=1e-4)
    if targets.dtype.kind == "f" and not is_share:
        return np.zeros(len(rows), dtype=np.int64)
    return hard_labels(rows)


def _count_up(keys: Iterable[Any]) -> Ints:
    """Return for each key how often it came before."""
    seen: dict[Any, int] = {}
    counts = []
    for key in keys:
        counts.append(seen.get(key, 0))
        seen[key] = counts[-1] + 1
    return np.array(counts, dtype=np.int64)
