"""The best threshold of one label, exactly: sort its predictions once and score every cut between neighbours.

A score that counts decisions is constant between two neighbouring predictions, so nothing lies between the cuts that a
scan sees, O(N log N); gradients and grids miss the maximum
(https://github.com/finite-sample/optimal-classification-cutoffs).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]
CountScore = Callable[[Counts, int, int], Floats64]
"""From the hits (N+1,) among the first 0..N rows, the number of true rows and N, to the score when those count."""

_TIE = 1e-12


def best_threshold(values: Floats64, truth: Bools, score: CountScore, current: float) -> float:
    """Return the threshold (`values >= threshold` count) with the best score; of equal ones the nearest to `current`.

    Args:
        values: (N,) in 0..1.
        truth: (N,).
        score: what is maximised.
        current: in 0..1; comes back itself where no other threshold is better.
    """
    order = np.argsort(-values, kind="stable")
    hits = np.concatenate([[0], np.cumsum(truth[order])])
    return _threshold_at_best(values[order], score(hits, int(truth.sum()), len(truth)), current)


def best_threshold_of_gains(values: Floats64, gains: Floats64, current: float) -> float:
    """Return the threshold that maximises the sum of `gains` (N,) of the rows that count; else as `best_threshold`."""
    order = np.argsort(-values, kind="stable")
    return _threshold_at_best(values[order], np.concatenate([[0.0], np.cumsum(gains[order])]), current)


def f1(hits: Counts, n_true: int, n: int) -> Floats64:
    """Return the F1 of what counts, (N+1,); 0 where nothing counts and nothing is true."""
    chosen = n_true + np.arange(n + 1)
    return np.asarray(2.0 * hits / np.maximum(chosen, 1))


def accuracy(hits: Counts, n_true: int, n: int) -> Floats64:
    """Return the share of right rows, (N+1,)."""
    n_right = 2.0 * hits - np.arange(n + 1) + n - n_true
    return np.asarray(n_right / max(n, 1))


def f1_of_both(hits: Counts, n_true: int, n: int) -> Floats64:
    """Return the mean F1 of the two classes, over those that occur in truth or decisions, (N+1,)."""
    chosen = np.arange(n + 1)
    sizes = np.stack([n_true + chosen, 2 * n - n_true - chosen])
    doubled = 2.0 * np.stack([hits, n - n_true - chosen + hits])
    return np.asarray((doubled / np.maximum(sizes, 1)).sum(axis=0) / np.maximum((sizes > 0).sum(axis=0), 1))


def balanced_accuracy(hits: Counts, n_true: int, n: int) -> Floats64:
    """Return the mean recall of the classes that are true somewhere, (N+1,)."""
    recalls = [hits / n_true] if n_true else []
    if n_true < n:
        recalls.append((n - n_true - np.arange(n + 1) + hits) / (n - n_true))
    return np.asarray(np.mean(recalls, axis=0))


def _threshold_at_best(falling: Floats64, scores: Floats64, current: float) -> float:
    """Return a threshold for the best of `scores` (N+1,), by how many of the `falling` values (N,) count.

    Exactly the first j values count for a threshold above value j and up to value j-1, so equal values stay together.
    """
    low = np.concatenate([falling, [-np.inf]])  # the threshold lies above it ...
    high = np.concatenate([[np.inf], falling])  # ... and goes up to here
    scores = np.where(low < high, scores, -np.inf)
    best = np.flatnonzero(scores >= scores.max() - _TIE * max(1.0, abs(scores.max())))
    distance = np.maximum(np.maximum(low[best] - current, current - high[best]), 0.0)
    j = best[distance.argmin()]
    if low[j] < current <= high[j]:
        return current
    if j == len(falling):
        return float(falling[-1] / 2 if falling[-1] > 0 else falling[-1])
    if j == 0:
        high[j] = 1.0 if low[j] < 1 else np.nextafter(low[j], 2)
    middle = low[j] + (high[j] - low[j]) / 2
    return float(middle if middle > low[j] else high[j])
