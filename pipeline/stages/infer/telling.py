"""May numbers that preprocessing would take away tell the labels? What tells is never taken away."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEAST_PER_LABEL = 8
"""Items for each class or label; with fewer, not even a strong relation could be seen, so none is ruled out."""
RISK = 0.05
"""How often numbers that tell nothing are kept all the same, over all comparisons together."""


def may_tell(numbers: NDArray[np.float64], labels: NDArray[np.float32]) -> bool:
    """Say whether numbers are related to labels, or too few items were seen to rule it out.

    Compared are the ranks of each number, and their distances from the middle rank, with each label, by correlation;
    the limit is that of as many comparisons as there are (Bonferroni).

    Args:
        numbers: (N, F), finite.
        labels: (N, L), shares of classes, labels, or values from 0 to 1.
    """
    n_items = len(numbers)
    if n_items < LEAST_PER_LABEL * max(2, labels.shape[1]):
        return True
    ranks = _ranks(numbers.reshape(n_items, -1))
    seen, known = _standardised(np.hstack([ranks, np.abs(ranks - 0.5)])), _standardised(labels.astype(np.float64))
    if not seen.shape[1] or not known.shape[1]:
        return False
    limit = NormalDist().inv_cdf(1 - RISK / (2 * seen.shape[1] * known.shape[1]))
    return bool(np.abs(seen.T @ known / n_items).max() * np.sqrt(n_items - 1) > limit)


def _ranks(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each number in its column, from 0 to 1; equal ones share theirs."""
    columns = []
    for column in numbers.T:
        ordered = np.sort(column)
        middle = np.searchsorted(ordered, column, "left") + np.searchsorted(ordered, column, "right") - 1
        columns.append(middle / (2 * max(1, len(column) - 1)))
    return np.stack(columns, axis=1)


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return columns with mean 0 and deviation 1; constant ones are left out."""
    deviation = values.std(axis=0)
    varied = deviation > 1e-9
    return np.asarray((values[:, varied] - values[:, varied].mean(axis=0)) / deviation[varied])
