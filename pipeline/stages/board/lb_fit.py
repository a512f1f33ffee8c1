"""What the leaderboard makes of CV: a line through (CV, LB), an interval for the next LB, and points that do not fit.

Least squares, not Theil-Sen: with 3 to 30 submissions the interval matters most, and Student's is exact for least
squares, while Theil-Sen has none at this size. What Theil-Sen would protect from, a submission that is off, is looked
for and named instead (`find_outliers`), and the line is drawn through the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_POINTS = 4
"""A line takes two; two more say how far points lie from it."""
LEVEL = 0.95
"""Share of future LBs that an interval holds."""
OUTLIER_CHANCE = 0.05
"""How often one of all points would be called an outlier where none is."""
_DUST = 1e-9  # relative to LB: what is left of points on a line in floating point

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LbFit:
    """A line LB = intercept + slope * CV and how far points lie from it."""

    slope: float
    intercept: float
    n: int
    residual_std: float
    """With n - 2 degrees of freedom."""
    mean_cv: float
    sum_squares: float
    """Of the deviations of CV from its mean."""

    def predict(self, cv: float) -> tuple[float, float, float]:
        """Return LB at `cv` and the ends of the interval that holds one new LB in 95% of cases (Student's t)."""
        value = self.intercept + self.slope * cv
        spread = math.sqrt(1 + 1 / self.n + (cv - self.mean_cv) ** 2 / self.sum_squares)
        half = _t_quantile((1 + LEVEL) / 2, self.n - 2) * self.residual_std * spread
        return value, value - half, value + half

    def slope_ends(self) -> tuple[float, float]:
        """Return the ends of the 95% interval of the slope; where they have two signs, LB may not follow CV at all."""
        half = _t_quantile((1 + LEVEL) / 2, self.n - 2) * self.residual_std / math.sqrt(self.sum_squares)
        return self.slope - half, self.slope + half


def fit_lb(cv: Sequence[float], lb: Sequence[float]) -> LbFit:
    """Return the least-squares line through (CV, LB).

    Args:
        cv: (N,) finite.
        lb: (N,) finite.

    Raises:
        ValueError: fewer than four points, or all have the same CV.
    """
    x, y = np.asarray(cv, np.float64), np.asarray(lb, np.float64)
    if len(x) != len(y) or len(x) < MIN_POINTS:
        raise ValueError(f"needs at least {MIN_POINTS} pairs of CV and LB (found: {len(x)}, {len(y)})")
    if np.ptp(x) == 0:
        raise ValueError(f"all {len(x)} points have the CV {x[0]:g}")
    dx = x - x.mean()
    sum_squares = float(dx @ dx)
    slope = float(dx @ y) / sum_squares
    intercept = float(y.mean() - slope * x.mean())
    residuals = y - intercept - slope * x
    std = math.sqrt(float(residuals @ residuals) / (len(x) - 2))
    return LbFit(slope, intercept, len(x), std, float(x.mean()), sum_squares)


def studentised_residuals(cv: Sequence[float], lb: Sequence[float]) -> Floats:
    """Return each point's distance from the line through the others, in its standard deviations: (N,).

    Externally studentised: a point does not widen the spread by which it is judged, so each follows Student's t with
    N - 3 degrees of freedom. A point that alone decides the slope (all others have one CV) gets 0.

    Source: Cook and Weisberg 1982, Residuals and Influence in Regression, section 2.2,
    https://hdl.handle.net/11299/37076.
    """
    fit = fit_lb(cv, lb)
    x, y = np.asarray(cv, np.float64), np.asarray(lb, np.float64)
    residuals = y - fit.intercept - fit.slope * x
    free = 1 - 1 / fit.n - (x - fit.mean_cv) ** 2 / fit.sum_squares  # one minus the leverage
    dust = _DUST * float(np.abs(y).max(initial=0))
    scores = np.zeros(fit.n)
    for place in np.flatnonzero((np.abs(residuals) > dust) & (free > _DUST)):
        others = float(residuals @ residuals) - residuals[place] ** 2 / free[place]
        spread = math.sqrt(max(others, dust**2) / (fit.n - 3) * free[place])
        scores[place] = residuals[place] / spread
    return scores


def outlier_bound(n_points: int) -> float:
    """Return how many standard deviations make an outlier among `n_points` >= 4: 5% over all points (Bonferroni)."""
    return _t_quantile(1 - OUTLIER_CHANCE / (2 * n_points), n_points - 3)


def find_outliers(cv: Sequence[float], lb: Sequence[float]) -> list[int]:
    """Return the places of points that lie off the line of the others, the farthest first.

    One after the other: the farthest beyond `outlier_bound` is taken out and the line drawn anew, so that one does not
    hide behind another; at least four stay. Fewer than five points have none.
    """
    places = list(range(len(cv)))
    found: list[int] = []
    while len(places) > MIN_POINTS and len({cv[place] for place in places}) > 1:
        scores = np.abs(studentised_residuals([cv[place] for place in places], [lb[place] for place in places]))
        worst = int(scores.argmax())
        if scores[worst] <= outlier_bound(len(places)):
            break
        found.append(places.pop(worst))
    return found


def _t_quantile(share: float, freedom: int) -> float:
    # `scipy.special` alone: `scipy.stats` would take a second to import, and every `podium board` comes here.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))
