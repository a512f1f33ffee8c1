"""Is a fitted blend better than the uniform mean? Its honest score beside the others, each with an interval.

Weights are kept when their nested score gains more than one standard error over the uniform mean, the error being that
of the paired difference. Anything less is noise that the leaderboard will not repay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.keyed import make_key
from pipeline.blending.averages import average
from pipeline.blending.bootstrap import bootstrap_scores, interval, standard_error
from pipeline.blending.losses import Floats64, signed
from pipeline.blending.nested import Nested, fit_nested, values_by_fold, with_one_rule
from pipeline.blending.problem import Fit, Fitted, Problem
from pipeline.blending.row_scores import row_scores
from pipeline.records.metrics import UndefinedMetricError
from pipeline.records.rows import Strings

LEVEL = 0.95
"""Of the intervals."""

N_DRAWS = 1000
"""Draws of rows for intervals and errors of scores that are means over rows."""
N_SLOW_DRAWS = 200
"""Draws where every one asks the metric again: areas under curves, F1, kappa, functions of the user's."""

_KEY = make_key("ensemble")


@dataclass(frozen=True)
class Entry:
    """A score with its bootstrap interval; None where too many draws have no score."""

    name: str
    score: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Verdict:
    """What was fitted, what it is worth, and what is kept of it."""

    rule: Fitted
    """What blends new rows: fitted on all OOF, or the fallback."""
    nested: Nested
    """OOF of what is kept, each fold by a rule that was fitted without it."""
    entries: tuple[Entry, ...]
    """In-sample, nested, uniform mean, best single; the latter is chosen on the rows that score it."""
    gain: float
    """Of the nested score over that of the uniform mean; positive is better, whatever the direction of the metric."""
    gain_se: float | None
    """Its standard error; None where too many draws have no score."""
    is_kept: bool
    """Whether the rule is what was asked for, not the fallback."""


def judge(problem: Problem, names: Sequence[str], fit: Fit, is_fitted: bool, groups: Strings | None = None) -> Verdict:
    """Return a blend, its scores, and the decision between it and the uniform mean.

    Args:
        problem: OOF of all members.
        names: of the members.
        fit: what is asked for.
        is_fitted: whether `fit` learns from OOF, so that it must earn its place.
        groups: (N,) rows that chance draws together.

    Raises:
        UndefinedMetricError: the metric has no value on these rows.
    """
    rule, uniform = fit(problem), average("mean")(problem)
    asked = fit_nested(problem, fit) if is_fitted else with_one_rule(problem, rule)
    plain = with_one_rule(problem, uniform)
    single, single_name = _best_single(problem, names)
    values = {
        "in-sample": values_by_fold(problem, rule),
        "nested": asked.values,
        "uniform mean": plain.values,
        f"best single: {single_name}": problem.members[single],
    }
    entries, draws = _entries(problem, values, groups)
    gain = signed(problem, entries[2].score) - signed(problem, entries[1].score)
    gain_se = _error_or_none(draws[:, 1] - draws[:, 2])
    is_kept = not is_fitted or (gain_se is not None and gain > gain_se)
    return Verdict(rule if is_kept else uniform, asked if is_kept else plain, entries, gain, gain_se, is_kept)


def error_correlation(problem: Problem) -> Floats64:
    """Return the correlation (M, M) of the members' errors, prediction less truth, over all rows and columns.

    Errors, because predictions of good members are alike through the truth they share. A member whose errors are all
    the same has none, NaN.
    """
    truth = _truth(problem)
    n_members = len(problem.members)
    sums, products = np.zeros(n_members), np.zeros((n_members, n_members))
    step = max(1, 2**22 // max(1, n_members * truth.shape[1]))  # float64 copies of a stretch of rows at a time
    for start in range(0, len(truth), step):
        errors = problem.members[:, start : start + step] - truth[start : start + step]
        flat = errors.reshape(n_members, -1)
        sums += flat.sum(axis=1)
        products += flat @ flat.T
    covariance = products / truth.size - np.outer(sums, sums) / truth.size**2
    spread = np.sqrt(np.maximum(np.diag(covariance), 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.clip(covariance / np.outer(spread, spread), -1, 1))


def leave_one_out(problem: Problem, nested: Nested) -> list[float | None]:
    """Return for each member how much the nested score loses without it; positive: the member helps.

    The member's predictions are replaced by the mean of the others', and nothing is fitted again: for the uniform mean
    that is the mean of the others. None for a single member, or where the score is undefined.
    """
    n_members = len(problem.members)
    if n_members < 2:
        return [None]
    whole = signed(problem, problem.score(nested.values))
    without = [np.empty_like(nested.values) for _ in range(n_members)]
    for fold, rule in nested.rules.items():
        held = problem.fold == fold
        members = problem.members[:, held]
        total = members.sum(axis=0, dtype=np.float64)
        for number in range(n_members):
            own = members[number].copy()
            members[number] = (total - own) / (n_members - 1)
            without[number][held] = rule.apply(members)
            members[number] = own
    return [_loss_or_none(problem, values, whole) for values in without]


def plain_entries(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return entries as JSON holds them."""
    return [{"name": e.name, "score": e.score, "low": e.low, "high": e.high} for e in entries]


def scored(problem: Problem, name: str, values: NDArray[np.float32], groups: Strings | None = None) -> Entry:
    """Return the score of predictions (N, K) with its interval, on the same draws of rows as those of a verdict."""
    return _entries(problem, {name: values}, groups)[0][0]


def _entries(
    problem: Problem, values: dict[str, NDArray[np.float32]], groups: Strings | None
) -> tuple[tuple[Entry, ...], Floats64]:
    # What is the same is drawn once: of a mean, in-sample and nested are, and often the uniform mean too.
    arrays = list(values.values())
    first = [next(n for n, other in enumerate(arrays) if np.array_equal(other, array)) for array in arrays]
    distinct = sorted(set(first))
    is_fast = row_scores(problem.metric, problem.targets, arrays[0]) is not None
    draws = bootstrap_scores(
        problem.targets,
        [arrays[n] for n in distinct],
        problem.metric,
        N_DRAWS if is_fast else N_SLOW_DRAWS,
        _KEY,
        groups,
        limit_sec=math.inf,  # a verdict must not hang on how busy the machine is
    )[:, [distinct.index(n) for n in first]]
    columns = zip(values.items(), draws.T, strict=True)
    return tuple(_entry(name, problem.score(entry), column) for (name, entry), column in columns), draws


def _loss_or_none(problem: Problem, values: NDArray[np.float32], whole: float) -> float | None:
    try:
        return signed(problem, problem.score(values)) - whole
    except UndefinedMetricError:
        return None


def _best_single(problem: Problem, names: Sequence[str]) -> tuple[int, str]:
    """Return the member with the best score, the first of those that are level."""
    losses = [signed(problem, problem.score(member)) for member in problem.members]
    best = losses.index(min(losses))
    return best, names[best]


def _entry(name: str, score: float, draws: Floats64) -> Entry:
    try:
        return Entry(name, score, *interval(draws, LEVEL))
    except UndefinedMetricError:
        return Entry(name, score, None, None)


def _error_or_none(draws: Floats64) -> float | None:
    try:
        return standard_error(draws)
    except UndefinedMetricError:
        return None


def _truth(problem: Problem) -> Floats64:
    """Return what a perfect prediction would be, (N, K)."""
    targets, n_columns = problem.targets, problem.members.shape[2]
    if targets.ndim == 2:
        return targets.astype(np.float64)
    return targets[:, None].astype(np.float64) if n_columns == 1 else np.eye(n_columns)[targets]
