"""Where one grade ends and the next begins, searched exactly, for quadratic kappa and accuracy of ordinal tasks.

Kappa is one minus a ratio of two sums over rows, so for a given ratio the best cuts of the sorted grades are a
shortest path, found by dynamic programming in O(N K); the ratio falls to the optimum in a few rounds (Dinkelbach 1967,
https://doi.org/10.1287/mnsc.13.7.492). The usual Nelder-Mead from .5, 1.5, ... only gets near: kappa is constant
between two neighbouring predictions. The cuts are applied to the predictions, by a map that moves them onto
.5, 1.5, ..., so that everything that decides later stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.blending.problem import Floats, Form
from pipeline.records.metrics import Metric

Floats64 = NDArray[np.float64]
Ints = NDArray[np.int64]

_METRICS = ("quadratic_kappa", "accuracy", "balanced_accuracy", "f1_micro")
_MAX_ROUNDS = 50
_TIE = 1e-12
_STEPS = 2.0**24
"""Shares in steps of 1/2**24 and their complements are exact in float32, so a half stays a half."""


@dataclass(frozen=True)
class Recut:
    """Ordinal predictions of which the fitted cuts lie at .5, 1.5, ..."""

    cuts: tuple[float, ...]
    """(K-1,) rising: grade k lies above cut k, up to cut k+1."""
    is_softmax: bool
    """Whether predictions are probabilities of K grades, which count by their expected grade, or one value."""

    def apply(self, values: Floats) -> NDArray[np.float32]:
        """Return predictions in the form of `values` whose rounded grade is the one that the cuts give.

        Values (N, 1) are moved. Probabilities (N, K) become those of the two grades around the moved expected grade:
        more than the expectation is not kept, which is right for scores of grades and wrong for a log loss.
        """
        if not self.is_softmax:
            return move_cuts(values[:, 0].astype(np.float64), np.array(self.cuts))[:, None]
        return spread_grades(move_cuts(_grades(values, True), np.array(self.cuts)), len(self.cuts) + 1)

    def record(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"name": CutPoints.name, "cuts": list(self.cuts), "is_softmax": self.is_softmax}


@dataclass(frozen=True)
class CutPoints:
    """The cuts between grades with the best quadratic kappa, accuracy or balanced accuracy: the global maximum."""

    name = "cut_points"

    def misfit(self, metric: Metric, form: Form, is_exclusive: bool) -> str | None:
        """Return why it does not apply, or None."""
        if metric.kind != "ordinal":
            return f"{metric.kind} predictions are no grades"
        return None if metric.name in _METRICS else f"{metric.name} is no sum over rows"

    def fit(self, values: Floats, targets: NDArray[Any], metric: Metric) -> Recut:
        """Return the best cuts on these rows; .5, 1.5, ... where none are better, as when all rows are of one grade.

        Args:
            values: (N, K) probabilities or (N, 1) values.
            targets: (N,) grades.
            metric: quadratic_kappa, accuracy, balanced_accuracy or f1_micro.
        """
        is_softmax = metric.n_columns > 1
        truth = np.asarray(targets, dtype=np.int64)
        cost, by_chance = _costs(truth, len(metric.names), metric.name)
        return Recut(tuple(best_cuts(_grades(values, is_softmax), cost, by_chance).tolist()), is_softmax)


def best_cuts(grades: Floats64, cost: Floats64, by_chance: Floats64) -> Floats64:
    """Return the cuts (K-1,) with the least ratio of summed cost to summed cost by chance.

    Args:
        grades: (N,) predictions; equal ones get equal grades.
        cost: (N, K) what it costs to give each row each grade.
        by_chance: (K,) what it would cost by chance, the same for all rows; all equal where nothing is divided.
    """
    start = np.arange(cost.shape[1] - 1) + 0.5
    order = np.argsort(grades, kind="stable")
    rising, starts = np.unique(grades[order], return_index=True)
    summed = np.concatenate([np.zeros((1, cost.shape[1])), np.cumsum(cost[order], axis=0)])[[*starts, len(grades)]]
    counts = np.array([*starts, len(grades)], dtype=np.float64)[:, None]
    best, ends = start, np.searchsorted(rising, start, side="right")
    ratio = _ratio(ends, summed, counts * by_chance)
    for _ in range(_MAX_ROUNDS):
        if not np.isfinite(ratio):
            break
        tried = _cheapest_ends(summed - ratio * counts * by_chance)
        reached = _ratio(tried, summed, counts * by_chance)
        if not reached < ratio - _TIE:
            break
        best, ratio = _cuts_at(rising, tried, start), reached
    return best


def move_cuts(grades: Floats64, cuts: Floats64) -> NDArray[np.float32]:
    """Return (N,) values that round (halves down) to the number of cuts that lie below each of `grades` (N,).

    The line through (0, 0), (cut k, k - 1/2) and (K-1, K-1) keeps the order; beyond its ends it rises by 1 for each 1.
    Where cuts coincide it jumps. Float32 rounding that would cross a half is held back.
    """
    n_cuts = len(cuts)
    low = np.array([0.0 if cuts[0] > 0 else cuts[0] - 0.5, *cuts])
    high = np.array([*cuts, n_cuts if cuts[-1] < n_cuts else cuts[-1] + 0.5])
    to_low = np.array([0.0, *(np.arange(n_cuts) + 0.5)])
    to_high = np.array([*(np.arange(n_cuts) + 0.5), n_cuts])
    given = np.searchsorted(cuts, grades, side="left")
    inside = np.clip(grades, low[0], high[-1])
    share = (inside - low[given]) / np.where(high > low, high - low, 1.0)[given]
    moved = (to_low[given] + share * (to_high - to_low)[given] + grades - inside).astype(np.float32)
    floor = np.nextafter(to_low.astype(np.float32), np.float32(np.inf))
    moved = np.where(given > 0, np.maximum(moved, floor[given]), moved)
    return np.asarray(np.where(given < n_cuts, np.minimum(moved, to_high.astype(np.float32)[given]), moved))


def spread_grades(grades: Floats, n_classes: int) -> NDArray[np.float32]:
    """Return probabilities (N, K) of the two grades around each of `grades` (N,), whose expectation it is.

    Grades are cut to 0..K-1 and rounded to steps of 1/2**24, so that the float32 shares and their sum are exact.
    """
    exact = np.rint(np.clip(grades.astype(np.float64), 0, n_classes - 1) * _STEPS) / _STEPS
    lower = np.minimum(np.floor(exact).astype(np.int64), n_classes - 2)
    rows = np.arange(len(exact))
    values = np.zeros((len(exact), n_classes), dtype=np.float32)
    values[rows, lower] = 1 - (exact - lower)
    values[rows, lower + 1] = exact - lower
    return values


def _grades(values: Floats, is_softmax: bool) -> Floats64:
    """Return what `decide` rounds: the expected grade, or the value."""
    wide = values.astype(np.float64)
    return np.asarray(wide @ np.arange(wide.shape[1], dtype=np.float64) if is_softmax else wide[:, 0])


def _costs(truth: Ints, n_classes: int, name: str) -> tuple[Floats64, Floats64]:
    """Return the cost (N, K) of giving each row each grade, and what it costs by chance (K,)."""
    sizes = np.bincount(truth, minlength=n_classes)
    if name == "quadratic_kappa":
        grades = np.arange(n_classes, dtype=np.float64)
        distance = (grades[:, None] - grades[None, :]) ** 2
        return np.asarray(distance[truth]), np.asarray(distance @ sizes / len(truth))
    share = 1.0 / (sizes[truth] * np.count_nonzero(sizes)) if name == "balanced_accuracy" else 1 / len(truth)
    cost = np.zeros((len(truth), n_classes))
    cost[np.arange(len(truth)), truth] = -share
    return cost, np.full(n_classes, 1 / len(truth))


def _cheapest_ends(summed: Floats64) -> Ints:
    """Return the ends (K-1,) of the first K-1 of K stretches that cover the places 0..G at the least cost.

    Args:
        summed: (G+1, K) what the places before each one cost in each stretch.
    """
    n_places, n_stretches = summed.shape
    least, origin = summed[:, 0], np.zeros((n_stretches, n_places), dtype=np.int64)
    for stretch in range(1, n_stretches):
        before = least - summed[:, stretch]
        lowest = np.minimum.accumulate(before)
        is_new = np.concatenate([[True], before[1:] < lowest[:-1]])
        origin[stretch] = np.maximum.accumulate(np.where(is_new, np.arange(n_places), 0))
        least = summed[:, stretch] + lowest
    ends, place = [], n_places - 1
    for stretch in range(n_stretches - 1, 0, -1):
        place = int(origin[stretch, place])
        ends.append(place)
    return np.array(ends[::-1], dtype=np.int64)


def _ratio(ends: Ints, summed: Floats64, by_chance: Floats64) -> float:
    """Return summed cost over cost by chance for stretches that end at `ends`; infinite where chance costs nothing."""
    borders = np.array([0, *ends, len(summed) - 1])
    stretches = np.arange(summed.shape[1])
    total, expected = (
        (sums[borders[1:], stretches] - sums[borders[:-1], stretches]).sum() for sums in (summed, by_chance)
    )
    return float(total / expected) if expected > 0 else np.inf


def _cuts_at(rising: Floats64, ends: Ints, start: Floats64) -> Floats64:
    """Return cuts (K-1,) that leave `ends[k]` of the distinct values (G,) at or below cut k.

    Of the values that do, it is the one of `start` where that does, else the middle between the neighbours.
    """
    padded = np.concatenate([[rising[0] - 2], rising, [rising[-1] + 2]])
    low, high = padded[ends], padded[ends + 1]
    middle = low + (high - low) / 2
    middle = np.where(middle < high, middle, low)
    is_first, is_last = ends == 0, ends == len(rising)
    keeps = ((start >= low) | is_first) & ((start < high) | is_last)
    return np.sort(np.where(keeps, start, middle))
