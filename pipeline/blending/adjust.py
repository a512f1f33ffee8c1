"""What is fitted after averaging: temperature, thresholds, class weights, cut points, clipping.

An adjustment is a map of predictions (N, K) -> (N, K) under which the rule that decides (`decide`) stays as it is, so
scores, submissions and blends of blends take adjusted predictions like any others. It is fitted with the blend, inside
the nested loop over folds, and kept only if the nested score gains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError, listed, nearest
from pipeline.base.keyed import make_key
from pipeline.blending.bootstrap import bootstrap_scores, standard_error
from pipeline.blending.class_weights import ClassWeights, Weighted
from pipeline.blending.clipping import Clip, Clipped
from pipeline.blending.cut_points import CutPoints, Recut
from pipeline.blending.nested import nested_values, values_by_fold
from pipeline.blending.priors import PriorShift, Shifted
from pipeline.blending.problem import Fit, Fitted, Floats, Form, Problem
from pipeline.blending.temperature import Scaled, Temperature
from pipeline.blending.thresholds import Moved, Thresholds
from pipeline.records.metrics import Metric, UndefinedMetricError


class Adjuster(Protocol):
    """A map that was fitted."""

    def apply(self, values: Floats) -> NDArray[np.float32]:
        """Return adjusted predictions (N, K), each row by itself."""

    def record(self) -> dict[str, Any]:
        """Return the map as plain JSON, with the name of its adjustment."""


class Adjustment(Protocol):
    """A way of fitting such a map."""

    @property
    def name(self) -> str:
        """What users and records call it."""

    def misfit(self, metric: Metric, form: Form, is_exclusive: bool) -> str | None:
        """Return why it cannot help this metric, or None when it applies."""

    def fit(self, values: Floats, targets: NDArray[Any], metric: Metric) -> Adjuster:
        """Return the map that is best for the metric on these rows."""


@dataclass(frozen=True)
class Trial:
    """One adjustment that was tried: the nested score without and with it."""

    name: str
    before: float
    after: float | None
    """None where the score is undefined with it."""
    gain: float
    """By how much the score got better, whatever its direction; 0 where it is undefined."""
    std_error: float | None
    """Of the gain, over bootstrap draws of the rows; None where too few draws have a score."""
    is_accepted: bool


@dataclass(frozen=True)
class Adjusted:
    """A blend and the maps that follow it."""

    blend: Fitted
    adjusters: tuple[Adjuster, ...]

    def apply(self, members: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the adjusted blend (N, K) of predictions (M, N, K)."""
        return apply_all(self.adjusters, self.blend.apply(members))

    def record(self) -> dict[str, Any]:
        """Return the record of the blend, and the maps in order under `adjustments`."""
        return {**self.blend.record(), "adjustments": [adjuster.record() for adjuster in self.adjusters]}


ADJUSTMENTS: dict[str, Adjustment] = {
    known.name: known for known in (Temperature(), Thresholds(), ClassWeights(), CutPoints(), Clip())
}
"""By name, those that OOF can judge, in the order in which they are tried; `priors.PriorShift` is the user's alone."""


_ADJUSTERS: dict[str, Callable[..., Adjuster]] = {
    Temperature.name: Scaled,
    Thresholds.name: Moved,
    ClassWeights.name: Weighted,
    CutPoints.name: Recut,
    Clip.name: Clipped,
    PriorShift.name: Shifted,
}


def candidates_of(metric: Metric, form: Form, is_exclusive: bool) -> tuple[Adjustment, ...]:
    """Return the adjustments that may help a metric, in the order in which they are tried; none for most."""
    return tuple(known for known in ADJUSTMENTS.values() if known.misfit(metric, form, is_exclusive) is None)


def named_adjustments(names: Sequence[str], metric: Metric, form: Form, is_exclusive: bool) -> tuple[Adjustment, ...]:
    """Return the adjustments that a user names, in that order.

    Raises:
        ConfigError: a name is unknown, or comes twice, or the adjustment cannot help the metric; the message says why.
    """
    for place, name in enumerate(names):
        if name not in ADJUSTMENTS:
            raise ConfigError(f"adjustment '{name}': unknown.{nearest(name, ADJUSTMENTS)} Known: {listed(ADJUSTMENTS)}")
        if name in names[:place]:
            raise ConfigError(f"adjustment '{name}' comes twice; name it once")
        if why := ADJUSTMENTS[name].misfit(metric, form, is_exclusive):
            fitting = listed(known.name for known in candidates_of(metric, form, is_exclusive)) or "none"
            raise ConfigError(f"adjustment '{name}' cannot help {metric.name}: {why}; these can: {fitting}")
    return tuple(ADJUSTMENTS[name] for name in names)


def adjusted(fit: Fit, adjustments: Sequence[Adjustment]) -> Fit:
    """Return a fit of a blend followed by the adjustments in order, each fitted on what the ones before leave."""
    if not adjustments:
        return fit

    def fit_all(problem: Problem) -> Adjusted:
        blend = fit(problem)
        values = values_by_fold(problem, blend)
        adjusters: list[Adjuster] = []
        for adjustment in adjustments:
            adjusters.append(adjustment.fit(values, problem.targets, problem.metric))
            values = adjusters[-1].apply(values)
        return Adjusted(blend, tuple(adjusters))

    return fit_all


def accept(
    problem: Problem, fit: Fit, candidates: Sequence[Adjustment], n_draws: int = 200
) -> tuple[tuple[Adjustment, ...], tuple[Trial, ...]]:
    """Return the adjustments that are worth it, and what each trial gave, in the order of `candidates`.

    Each is tried behind those accepted before it and accepted if the nested score, of rows that neither the blend nor
    the adjustment was fitted on, gets strictly better. On noise that still happens by chance now and then: the gain is
    then small beside its standard error.

    Args:
        problem: OOF of at least two folds.
        fit: the way of blending, fitted anew in every fold.
        candidates: such as `candidates_of` gives them.
        n_draws: bootstrap draws for the standard error of the gain.

    Raises:
        UndefinedMetricError: the score is undefined without any adjustment.
    """
    if not candidates:
        return (), ()
    accepted: tuple[Adjustment, ...] = ()
    values = nested_values(problem, fit)
    trials = []
    for candidate in candidates:
        tried = nested_values(problem, adjusted(fit, (*accepted, candidate)))
        trials.append(_compare(candidate.name, problem, values, tried, n_draws))
        if trials[-1].is_accepted:
            accepted, values = (*accepted, candidate), tried
    return accepted, tuple(trials)


def apply_all(adjusters: Sequence[Adjuster], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return predictions (N, K) after all maps, in order."""
    for adjuster in adjusters:
        values = adjuster.apply(values)
    return values


def from_record(record: Mapping[str, Any]) -> Adjuster:
    """Return the map that a `record()` describes.

    Raises:
        DataError: the record is of no known adjustment, or a part of it is missing or extra.
    """
    name = str(record.get("name"))
    if name not in _ADJUSTERS:
        raise DataError(f"record of an adjustment: name is '{name}'; known: {listed(_ADJUSTERS)}")
    parts = {key: tuple(part) if isinstance(part, list) else part for key, part in record.items() if key != "name"}
    try:
        return _ADJUSTERS[name](**parts)
    except TypeError as error:
        raise DataError(f"record of the adjustment '{name}': {error}") from None


def _compare(name: str, problem: Problem, before: Floats, after: Floats, n_draws: int) -> Trial:
    """Return what an adjustment gained between two nested predictions (N, K) of all rows."""
    metric, targets = problem.metric, problem.targets
    score = problem.score(before)
    try:
        reached = problem.score(after)
    except UndefinedMetricError:
        return Trial(name, score, None, 0.0, None, False)
    sign = 1 if metric.higher_is_better else -1
    draws = bootstrap_scores(targets, [before, after], metric, n_draws, make_key("adjustment", name))
    try:
        error = standard_error(sign * (draws[:, 1] - draws[:, 0]))
    except UndefinedMetricError:
        error = None
    return Trial(name, score, reached, sign * (reached - score), error, metric.better(reached, score))
