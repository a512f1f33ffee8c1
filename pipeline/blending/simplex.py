"""Weights >= 0 that sum to one, where a smooth score of the weighted mean is best.

Log loss, KL divergence, RMSE and MAE are convex in the weights, so what is found is the best there is. Solved by
sequential least squares programming (SLSQP; Kraft 1988, https://doi.org/10.1145/192115.192124) from the uniform mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.base.errors import MismatchError, listed
from pipeline.blending.averages import Average
from pipeline.blending.losses import Floats64, Loss, ScoreLoss, loss_of
from pipeline.blending.problem import Fit, Problem

SMOOTH_METRICS = ("log_loss", "kl_divergence", "rmse", "mae", "r2")
"""Scores that change a little when the weights do."""

_STEP = 1e-6
"""Of the differences that stand for the slope of a score without a derivative."""


def simplex(max_steps: int = 200) -> Fit:
    """Return the fit of weights on the simplex; a metric `module:function` is taken to be smooth.

    Args:
        max_steps: after how many steps the search ends, >= 1; it seldom needs 50.
    """

    def fit(problem: Problem) -> Average:
        return Average("simplex", simplex_weights(problem, max_steps))

    return fit


def simplex_weights(problem: Problem, max_steps: int = 200) -> Floats64:
    """Return the weights (M,) of the best weighted mean on all rows of the problem; never worse than the uniform mean.

    Raises:
        MismatchError: the metric is a matter of decisions or order, so its slope says nothing.
    """
    name = problem.metric.name
    if name not in SMOOTH_METRICS and ":" not in name:
        raise MismatchError(
            f"method 'simplex' needs a smooth metric ({listed(SMOOTH_METRICS)}, or module:function), and {name} goes "
            "in steps: use 'greedy'"
        )
    loss, n_members = loss_of(problem), len(problem.members)
    uniform = np.full(n_members, 1 / n_members)
    found = _on_simplex(_solve(loss, uniform, max_steps))
    return found if loss.value(found) < loss.value(uniform) else uniform


def _solve(loss: Loss, start: Floats64, max_steps: int) -> Floats64:
    from scipy.optimize import minimize

    # SLSQP judges steps in absolute terms, and a score may be 1e-4 or 1e6: the loss is measured in that of the start.
    unit = abs(loss.value(start)) or 1.0
    slope = None if isinstance(loss, ScoreLoss) else lambda weights: loss.gradient(weights) / unit
    constraint: dict[str, Any] = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    done = minimize(
        lambda weights: loss.value(weights) / unit,
        start,
        jac=slope,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(start),
        constraints=[constraint],
        options={"maxiter": max_steps, "ftol": 1e-9, "eps": _STEP},
    )
    return np.asarray(done.x, dtype=np.float64)


def _on_simplex(weights: Floats64) -> Floats64:
    """Return the weights without the rounding of the solver: none below zero, those below a millionth dropped."""
    if not np.isfinite(weights).all() or weights.max() <= 0:
        return np.full(len(weights), 1 / len(weights))
    kept = np.where(weights < 1e-6, 0.0, weights)
    return np.asarray(kept / kept.sum())
