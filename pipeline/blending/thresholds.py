"""From which probability each label counts as present, searched exactly, for F1 and accuracy.

What is fitted is applied to the probabilities, as a map that moves the fitted threshold onto the task's own, so that
everything that decides later stays as it is. The search for one label is in `scans.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.blending.decisions import decision_of, float32_edges, label_columns
from pipeline.blending.problem import Floats, Form
from pipeline.blending.scans import (
    CountScore,
    accuracy,
    balanced_accuracy,
    best_threshold,
    best_threshold_of_gains,
    f1,
    f1_of_both,
)
from pipeline.records.metrics import Metric

Floats64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

_MAX_SWEEPS = 20
_TIE = 1e-12


@dataclass(frozen=True)
class Moved:
    """Probabilities of which the fitted thresholds lie at the task's threshold."""

    thresholds: tuple[float, ...]
    """(K,) from which probability each label counts; up to 0: always, above 1: never."""
    target: float
    """The task's threshold."""

    def apply(self, values: Floats) -> NDArray[np.float32]:
        """Return (N, K) probabilities that reach the task's threshold where `values` reach the fitted one."""
        return move_thresholds(values, np.array(self.thresholds), self.target)

    def record(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"name": Thresholds.name, "thresholds": list(self.thresholds), "target": self.target}


@dataclass(frozen=True)
class Thresholds:
    """A threshold for each label of a binary or multilabel task.

    f1, accuracy and balanced accuracy of a binary task, f1_macro (each label by itself) and f1_micro (Dinkelbach's
    method) are maximised exactly. f1_samples and accuracy of several labels, where a row's score hangs on all of them,
    by sweeps over the labels, each searched exactly with the others held: a maximum that no single label can raise.
    """

    name = "thresholds"

    def misfit(self, metric: Metric, form: Form, is_exclusive: bool) -> str | None:
        """Return why it does not apply, or None."""
        if form != "probs" or is_exclusive or metric.kind not in ("binary", "multilabel"):
            return f"{metric.kind} predictions are not decided label by label"
        if metric.name not in (_OF_ONE if metric.kind == "binary" else _OF_MANY):
            return f"{metric.name} is not known to count decisions"
        if not 0 < decision_of(metric).threshold < 1:
            return "the task's own threshold is 0 or 1, so nothing can be moved past it"
        return None

    def fit(self, values: Floats, targets: NDArray[Any], metric: Metric) -> Moved:
        """Return the thresholds with the best score on these rows; the nearest to the task's own where several are.

        A label that has no true row keeps the task's threshold where F1 counts it, as every threshold scores the same.

        Args:
            values: (N, K) float32 probabilities.
            targets: (N,) classes of a binary task, (N, K) labels.
            metric: one of those above; labels that it does not count keep the task's threshold.
        """
        decision = decision_of(metric)
        columns = list(decision.columns)
        wide, truth = values.astype(np.float64)[:, columns], label_columns(targets)[:, columns]
        # What counts so far is compared in float32 (`decide`): a float32 0.7, which lies below 0.7, does.
        thresholds = np.full(values.shape[1], float(np.float32(decision.threshold)))
        if metric.kind == "binary":
            thresholds[columns] = _each(wide, truth, thresholds[columns], _OF_ONE[metric.name])
        else:
            thresholds[columns] = _OF_MANY[metric.name](wide, truth, thresholds[columns])
        return Moved(tuple(thresholds.tolist()), decision.threshold)


def move_thresholds(values: Floats, thresholds: Floats64, target: float) -> NDArray[np.float32]:
    """Return (N, K) in 0..1 that are at or above `target` exactly where `values` reach `thresholds` (K,).

    Each column goes through the line that joins (0, 0), (threshold, target) and (1, 1), which keeps its order; float32
    rounding that would cross the target is held back. The ends 0 and 1 stay, but for thresholds up to 0 and above
    1, where all values lie on one side.
    """
    wide = values.astype(np.float64)
    below = target * np.minimum(wide, thresholds) / np.where(thresholds > 0, thresholds, 1.0)
    rest = np.maximum(wide - thresholds, 0.0) / np.where(thresholds < 1, 1 - thresholds, 1.0)
    above = target + (1 - target) * rest
    counts = wide >= thresholds
    moved = np.clip(np.where(counts, above, below), 0.0, 1.0).astype(np.float32)
    highest_below, lowest_above = float32_edges(target)
    return np.where(counts, np.maximum(moved, lowest_above), np.minimum(moved, highest_below))


def _each(values: Floats64, truth: Bools, current: Floats64, score: CountScore) -> Floats64:
    columns = zip(values.T, truth.T, current.tolist(), strict=True)
    return np.array([best_threshold(column, true, score, start) for column, true, start in columns])


def _macro(values: Floats64, truth: Bools, current: Floats64) -> Floats64:
    return _each(values, truth, current, f1)


def _micro(values: Floats64, truth: Bools, current: Floats64) -> Floats64:
    """Return the thresholds with the best micro F1, 2 TP / (chosen + true), over all labels together.

    For a given score s the sum of 2 TP - s * chosen splits into labels, each maximised by a scan; s rises to the
    optimum in a few rounds (Dinkelbach 1967, https://doi.org/10.1287/mnsc.13.7.492).
    """
    best = current
    score = _micro_f1(values >= best, truth)
    for _ in range(_MAX_SWEEPS):
        columns = zip(values.T, truth.T, current, strict=True)
        tried = np.array([best_threshold_of_gains(v, 2.0 * t - score, start) for v, t, start in columns])
        if (reached := _micro_f1(values >= tried, truth)) <= score + _TIE:
            break
        best, score = tried, reached
    return best


def _micro_f1(chosen: Bools, truth: Bools) -> float:
    return float(2 * (chosen & truth).sum() / max(chosen.sum() + truth.sum(), 1))


def _sweep(
    values: Floats64, truth: Bools, current: Floats64, gains_of: Callable[[Bools, Bools, int], Floats64]
) -> Floats64:
    """Return thresholds at which no single one can raise the score: each in turn, with the others held.

    Args:
        values: (N, K).
        truth: (N, K).
        current: (K,) the start.
        gains_of: from what counts (N, K), the truth and a label to what each row (N,) gains when that label counts.
    """
    thresholds = current.copy()
    chosen = values >= thresholds
    for _ in range(_MAX_SWEEPS):
        before = thresholds.copy()
        for label, column in enumerate(values.T):
            gains = gains_of(chosen, truth, label)
            thresholds[label] = best_threshold_of_gains(column, gains, float(thresholds[label]))
            chosen[:, label] = column >= thresholds[label]
        if (thresholds == before).all():
            break
    return thresholds


def _samples(values: Floats64, truth: Bools, current: Floats64) -> Floats64:
    return _sweep(values, truth, current, _row_f1_gains)


def _whole_rows(values: Floats64, truth: Bools, current: Floats64) -> Floats64:
    return _sweep(values, truth, current, _row_gains)


def _row_f1_gains(chosen: Bools, truth: Bools, label: int) -> Floats64:
    """Return by how much the F1 of each row rises when it is given the label."""
    others = np.delete(chosen, label, axis=1)
    hits = (others & np.delete(truth, label, axis=1)).sum(axis=1)
    sizes = others.sum(axis=1) + truth.sum(axis=1)
    return np.asarray(2 * (hits + truth[:, label]) / (sizes + 1) - 2 * hits / np.maximum(sizes, 1))


def _row_gains(chosen: Bools, truth: Bools, label: int) -> Floats64:
    """Return what it does to whole rows to be given the label: 1 makes it right, -1 wrong, 0 wrong either way."""
    others_are_right = (np.delete(chosen, label, axis=1) == np.delete(truth, label, axis=1)).all(axis=1)
    return np.where(others_are_right, np.where(truth[:, label], 1.0, -1.0), 0.0)


_OF_ONE: dict[str, CountScore] = {
    "f1": f1,
    "f1_macro": f1_of_both,
    "f1_micro": accuracy,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
}
_OF_MANY: dict[str, Callable[[Floats64, Bools, Floats64], Floats64]] = {
    "f1_macro": _macro,
    "f1_micro": _micro,
    "f1_samples": _samples,
    "accuracy": _whole_rows,
}
