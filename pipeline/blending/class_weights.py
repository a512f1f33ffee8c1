"""A factor for each class, which moves the borders between classes; searched exactly, one class at a time.

For probabilities p the decision that is best for a score other than accuracy is the largest w * p, for instance
w = 1 / prior for balanced accuracy; fitted factors also mend classes of which the models are too sure or too shy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.blending.decisions import hard_classes
from pipeline.blending.problem import Floats, Form
from pipeline.records.metrics import Metric

Floats64 = NDArray[np.float64]
Ints = NDArray[np.int64]
PathScore = Callable[[Ints, Ints, int, int], Floats64]
"""From classes (N,), decisions (N,), a class k and K, to the scores (N+1,) when the first 0..N rows become k."""

MOST_CLASSES = 50
"""With more classes than these the factors are not fitted: there are few rows for each, and a sweep gets slow."""

_MAX_SWEEPS = 10
_TIE = 1e-12


@dataclass(frozen=True)
class Weighted:
    """Probabilities times a factor for each class, scaled to sum to one."""

    weights: tuple[float, ...]
    """(K,) positive; their geometric mean is 1."""

    def apply(self, values: Floats) -> NDArray[np.float32]:
        """Return (N, K) probabilities whose largest is that of `values * weights`, ties to the lower class."""
        return weigh_classes(values, np.array(self.weights))

    def record(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"name": ClassWeights.name, "weights": list(self.weights)}


@dataclass(frozen=True)
class ClassWeights:
    """A factor for each class of a multiclass task, for scores that count decisions.

    Each factor is searched exactly with the others held, in sweeps over the classes until none can raise the score: a
    local maximum, never below the start. The cost of a sweep is of the order N K (K + log N).
    """

    name = "class_weights"

    def misfit(self, metric: Metric, form: Form, is_exclusive: bool) -> str | None:
        """Return why it does not apply, or None."""
        if form != "probs" or not is_exclusive or metric.kind != "multiclass":
            return f"{metric.kind} predictions are not decided by the largest probability"
        if metric.name not in _SCORES:
            return f"{metric.name} is not known to count decisions"
        if metric.n_columns > MOST_CLASSES:
            return f"there are {metric.n_columns} classes, more than {MOST_CLASSES}"
        return None

    def fit(self, values: Floats, targets: NDArray[Any], metric: Metric) -> Weighted:
        """Return the factors; all 1 where no single one raises the score, as when all rows are of one class.

        Args:
            values: (N, K) probabilities, rows sum to one.
            targets: (N,) classes, or (N, K) shares, of which the largest is the class.
            metric: accuracy, balanced_accuracy, f1_macro, f1_micro or quadratic_kappa.
        """
        return Weighted(tuple(best_weights(values, hard_classes(targets), _SCORES[metric.name]).tolist()))


def best_weights(values: Floats, truth: Ints, score: PathScore) -> Floats64:
    """Return the factors (K,) that sweeps of exact searches arrive at, of geometric mean 1.

    Args:
        values: (N, K), >= 0.
        truth: (N,) classes.
        score: what is maximised.
    """
    wide = values.astype(np.float64)
    with np.errstate(divide="ignore"):
        logs = np.log(wide)
    n_classes = values.shape[1]
    shifts = np.zeros(n_classes)
    best = _score_now(wide, shifts, truth, score)
    for _ in range(_MAX_SWEEPS):
        before = best
        for label in range(n_classes):
            tried = shifts.copy()
            tried[label] = _best_shift(logs, shifts, label, truth, score)
            # Equal products go to the lower class, which a scan of one class cannot see: what counts is the result.
            if tried[label] != shifts[label] and (reached := _score_now(wide, tried, truth, score)) > best + _TIE:
                shifts, best = tried, reached
        if best <= before:
            break
    return _factors(shifts)


def weigh_classes(values: Floats, weights: Floats64) -> NDArray[np.float32]:
    """Return `values * weights` (N, K) scaled to sum to one; float32 rounding never changes which one is largest."""
    wide = values.astype(np.float64) * weights
    total = wide.sum(axis=1, keepdims=True)
    scaled = (wide / np.where(total > 0, total, 1.0)).astype(np.float32)
    chosen = wide.argmax(axis=1)
    torn = np.flatnonzero(scaled.argmax(axis=1) != chosen)
    scaled[torn, chosen[torn]] = np.nextafter(scaled[torn].max(axis=1), np.float32(2))
    return scaled


def _best_shift(logs: Floats64, shifts: Floats64, label: int, truth: Ints, score: PathScore) -> float:
    """Return the log factor of one class with the best score; of equal ones the nearest to what it is."""
    others = logs + shifts
    others[:, label] = -np.inf
    decided = others.argmax(axis=1)
    with np.errstate(invalid="ignore"):
        needed = others[np.arange(len(others)), decided] - logs[:, label]  # above it a row is decided for the class
    needed = np.where(np.isnan(needed), np.inf, needed)  # a row of zeros stays where it is
    order = np.argsort(needed, kind="stable")
    scores = score(truth[order], decided[order], label, logs.shape[1])
    return _shift_at_best(needed[order], scores, float(shifts[label]))


def _shift_at_best(rising: Floats64, scores: Floats64, current: float) -> float:
    """Return a shift between the values (N,) around the best of `scores` (N+1,): the first j rows lie below it."""
    low = np.concatenate([[-np.inf], rising])
    high = np.concatenate([rising, [np.inf]])
    scores = np.where((low < high) & (low < np.inf) & (high > -np.inf), scores, -np.inf)
    best = np.flatnonzero(scores >= scores.max() - _TIE)
    distance = np.maximum(np.maximum(low[best] - current, current - high[best]), 0.0)
    j = best[distance.argmin()]
    if low[j] < current < high[j]:
        return current
    if np.isinf(low[j]):
        return float(high[j] - 1)
    return float(low[j] + 1 if np.isinf(high[j]) else low[j] + (high[j] - low[j]) / 2)


def _score_now(wide: Floats64, shifts: Floats64, truth: Ints, score: PathScore) -> float:
    return float(score(truth, (wide * _factors(shifts)).argmax(axis=1), 0, wide.shape[1])[0])


def _factors(shifts: Floats64) -> Floats64:
    return np.asarray(np.exp(shifts - shifts.mean()))


def _accuracy(truth: Ints, decided: Ints, label: int, n_classes: int) -> Floats64:
    return _running((decided == truth).astype(np.float64), (truth == label).astype(np.float64)) / len(truth)


def _balanced_accuracy(truth: Ints, decided: Ints, label: int, n_classes: int) -> Floats64:
    sizes = np.bincount(truth, minlength=n_classes)
    share = 1.0 / (sizes[truth] * np.count_nonzero(sizes))
    return _running(share * (decided == truth), share * (truth == label))


def _f1_macro(truth: Ints, decided: Ints, label: int, n_classes: int) -> Floats64:
    """Mean F1 over the classes that occur in truth or decisions, as the metric takes it, in O(N log N).

    A row that becomes `label` changes the F1 of the class it leaves and that of `label`, no other.
    """
    n, order = len(truth), np.argsort(decided.astype(np.int16), kind="stable")  # 16 bits: NumPy sorts them by radix
    left, is_hit = decided[order], (truth == decided)[order].astype(np.int64)
    sizes, n_true = np.bincount(left, minlength=n_classes), np.bincount(truth, minlength=n_classes)
    hits = np.bincount(left, is_hit, minlength=n_classes)
    n_gone = np.arange(n) - (np.cumsum(sizes) - sizes)[left]  # of its class, before the row
    hits_gone = np.cumsum(is_hit) - is_hit - (np.cumsum(hits) - hits)[left]
    before = _f1(hits[left] - hits_gone, sizes[left] - n_gone, n_true[left])
    after = _f1(hits[left] - hits_gone - is_hit, sizes[left] - n_gone - 1, n_true[left])
    joined = _f1(
        hits[label] + np.concatenate([[0], np.cumsum(truth == label)]), sizes[label] + np.arange(n + 1), n_true[label]
    )
    changes = np.zeros((2, n))
    changes[:, order] = after - before
    others = _f1(hits, sizes, n_true)
    others[:, label] = 0
    total, n_occurring = others.sum(axis=1)[:, None] + np.pad(np.cumsum(changes, axis=1), ((0, 0), (1, 0))) + joined
    return np.asarray(total / np.maximum(n_occurring, 1))


def _f1(hits: NDArray[Any], sizes: NDArray[Any], n_true: NDArray[Any]) -> Floats64:
    """Return the F1 and whether the class occurs at all, stacked."""
    both = sizes + n_true
    return np.stack([2 * hits / np.maximum(both, 1), (both > 0).astype(np.float64)])


def _quadratic_kappa(truth: Ints, decided: Ints, label: int, n_classes: int) -> Floats64:
    """Return 1 - sum of squared distances / what chance would give; 0 where chance gives none."""
    grades = np.arange(n_classes, dtype=np.float64)
    shares = np.bincount(truth, minlength=n_classes) / len(truth)
    by_chance = (grades[:, None] - grades[None, :]) ** 2 @ shares
    found = _running((grades[decided] - grades[truth]) ** 2, (label - grades[truth]) ** 2)
    expected = _running(by_chance[decided], np.full(len(truth), by_chance[label]))
    return np.where(expected > 0, 1 - found / np.where(expected > 0, expected, 1.0), 0.0)


def _running(stays: Floats64, moves: Floats64) -> Floats64:
    """Return the sums (N+1,) when the first 0..N rows add `moves` and the rest `stays`."""
    return np.asarray(stays.sum() + np.concatenate([[0.0], np.cumsum(moves - stays)]))


_SCORES: dict[str, PathScore] = {
    "accuracy": _accuracy,
    "f1_micro": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1_macro": _f1_macro,
    "quadratic_kappa": _quadratic_kappa,
}
