"""A part of the training rows, for learning curves and for studies of what few rows teach."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError
from pipeline.base.keyed import hash_ids, make_key, uniforms
from pipeline.records.rows import Rows


def few_rows(rows: Rows, train: NDArray[np.int64], n_rows: int | None, seed: int) -> NDArray[np.int64]:
    """Return `n_rows` of the positions in `train`, sorted; all of them for None.

    Drawn by (seed, id), so the order of the table changes nothing, and more rows hold those of fewer but for the last
    of each class. Where rows have a single class, its share is kept within a row.

    Args:
        rows: all labelled rows.
        train: positions of the rows that may be learnt from.
        n_rows: how many of them; None for all.
        seed: of the unit.

    Raises:
        ConfigError: there are fewer.
    """
    if n_rows is None:
        return train
    if n_rows > len(train):
        raise ConfigError(f"train.n_rows: {n_rows} are asked for, and the training part has {len(train)} rows")
    draws = uniforms(make_key("few", seed), hash_ids(rows.ids[train].tolist()), 1)[:, 0]
    place = draws
    targets = np.asarray(rows.targets)[train]
    if targets.ndim == 1:
        place = np.empty(len(train))
        for label in np.unique(targets):
            members = np.flatnonzero(targets == label)
            ranked = members[np.argsort(draws[members], kind="stable")]
            place[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    # Every class is spread evenly over the places, so the first ones hold all classes in their shares.
    order = np.lexsort((draws, place))
    return np.sort(train[order[:n_rows]])
