"""Means of members with weights that are given, not fitted: of predictions, of logarithms or log odds, of ranks.

Extremes weigh most in the geometric mean and in that of log odds, so both cut probabilities at 1e-7: one confident
member must not decide alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import MismatchError, listed
from pipeline.blending.problem import Fit, Floats, Problem
from pipeline.records.predictions import SMALLEST_PROB

AverageName = Literal["mean", "geometric", "logits", "ranks"]

RANKING_METRICS = ("roc_auc", "mean_column_auc", "average_precision")
"""Scores that see the order of the rows in each column, and nothing else."""


@dataclass(frozen=True)
class Average:
    """A weighted mean on one of four scales."""

    method: str
    """What chose the weights: the name of the mean, or `greedy`, `simplex`."""
    weights: NDArray[np.float64]
    """(M,) >= 0, sum one."""
    scale: AverageName = "mean"
    """On which scale members are averaged."""
    is_exclusive: bool = False
    """Whether the columns of a row are scaled to sum to one where the scale does not keep that."""

    def apply(self, members: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean (N, K) of (M, N, K). Ranks depend on the set of rows; all else is taken row by row."""
        return _SCALES[self.scale](members, self.weights, self.is_exclusive).astype(np.float32)

    def record(self) -> dict[str, Any]:
        """Return the method and its weights in the order of the members."""
        return {"method": self.method, "weights": self.weights.tolist()}


def average(scale: AverageName, weights: NDArray[np.float64] | None = None) -> Fit:
    """Return the fit that takes a mean and fits nothing.

    Args:
        scale: `mean` of the predictions; `geometric` mean of probabilities, scaled to sum to one over the columns, or
            over p and 1-p of each where they do not exclude each other; `logits`, mean of log odds of each column,
            turned back and scaled likewise (for single columns the same as `geometric`); `ranks`, mean of the
            percentile ranks within the set of rows: they say nothing of a row by itself, so only ranking metrics take
            them, and a row's value changes with the rows beside it.
        weights: (M,) >= 0, sum one; equal when left out.
    """
    return partial(_fit_average, scale, weights)


def _fit_average(scale: AverageName, weights: NDArray[np.float64] | None, problem: Problem) -> Average:
    if scale in ("geometric", "logits") and problem.form == "values":
        raise MismatchError(f"method '{scale}' needs probabilities; these are values: use 'mean'")
    if scale == "ranks" and problem.metric.name not in RANKING_METRICS:
        raise MismatchError(
            f"method 'ranks' keeps the order of rows only, and {problem.metric.name} needs more; it is for "
            f"{listed(RANKING_METRICS)}"
        )
    if scale == "ranks" and problem.is_exclusive:
        raise MismatchError(
            "ranks of classes do not sum to one, as a submission of them must: use 'mean' or 'geometric'"
        )
    shares = np.full(len(problem.members), 1 / len(problem.members)) if weights is None else weights
    return Average(scale, shares, scale, problem.is_exclusive)


def _arithmetic(members: NDArray[np.float32], weights: Floats, is_exclusive: bool) -> Floats:
    return weighted_sum(members, weights)


def _geometric(members: NDArray[np.float32], weights: Floats, is_exclusive: bool) -> Floats:
    yes = np.exp(weighted_sum((_log(member) for member in members), weights))
    if is_exclusive:
        return np.asarray(yes / yes.sum(axis=1, keepdims=True))
    no = np.exp(weighted_sum((_log(1 - member.astype(np.float64)) for member in members), weights))
    return np.asarray(yes / (yes + no))


def _log_odds(members: NDArray[np.float32], weights: Floats, is_exclusive: bool) -> Floats:
    probs = 1 / (1 + np.exp(-weighted_sum((log_odds(member) for member in members), weights)))
    return np.asarray(probs / probs.sum(axis=1, keepdims=True) if is_exclusive else probs)


def _ranks(members: NDArray[np.float32], weights: Floats, is_exclusive: bool) -> Floats:
    return weighted_sum((_percentiles(member) for member in members), weights)


_SCALES: dict[str, Callable[[NDArray[np.float32], Floats, bool], Floats]] = {
    "mean": _arithmetic,
    "geometric": _geometric,
    "logits": _log_odds,
    "ranks": _ranks,
}


def weighted_sum(members: Iterable[Floats], weights: Floats) -> NDArray[np.float64]:
    """Return the weighted sum (N, K); one member at a time, because all of them in float64 may not fit."""
    total: Any = 0.0
    for member, weight in zip(members, weights, strict=True):
        if weight:
            total = total + weight * member.astype(np.float64)
    return np.asarray(total)


def log_odds(probs: Floats) -> NDArray[np.float64]:
    """Return log p - log (1 - p) in float64, each probability cut at 1e-7 from either end."""
    return _log(probs) - _log(1 - probs.astype(np.float64))


def _log(probs: Floats) -> NDArray[np.float64]:
    return np.asarray(np.log(np.clip(probs.astype(np.float64), SMALLEST_PROB, 1.0)))


def _percentiles(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the rank of each row within its column, in (0, 1); ties share their mean rank."""
    from scipy.stats import rankdata

    return np.asarray((rankdata(values, axis=0) - 0.5) / len(values))
