"""Greedy selection with replacement: again and again the member that helps the mean most, picked as often as it helps.

Caruana et al. 2004, Ensemble selection from libraries of models, https://doi.org/10.1145/1015330.1015432: with the
sorted start and the bags of that paper. Differences: the start takes as many of the best as score best together, and
the path is cut where its score was best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np

from pipeline.base.keyed import make_key, permutation
from pipeline.blending.averages import Average
from pipeline.blending.losses import Floats64
from pipeline.blending.problem import Fit, Problem
from pipeline.blending.running import RunningSum, empty_sum

SCORE_DIGITS = 6
"""Scores that differ beyond this digit are level: such a difference is rounding, not quality."""


@dataclass(frozen=True)
class Path:
    """The picks of one selection, cut at the best of its scores."""

    picks: tuple[int, ...]
    """Members in the order in which they were picked, the start first."""
    losses: tuple[float, ...]
    """After each pick, that which was cut off included: the rounded score, or minus it where higher is better."""


def greedy(n_picks: int = 50, n_start: int = 5, n_bags: int = 1, bag_share: float = 0.5, seed: int = 0) -> Fit:
    """Return the fit that selects members greedily; their weights are their shares of all picks.

    Args:
        n_picks: length of a path, those of the start included, >= 1.
        n_start: from how many of the best members the start is chosen, >= 1.
        n_bags: paths over random subsets of the members, whose weights are averaged; 1 is one path over all of them.
            Bags keep weights steadier where there are many members, and starve the good ones where there are few.
        bag_share: which part of the members a bag holds, in (0, 1].
        seed: of the bags.
    """
    return partial(_fit_greedy, n_picks, n_start, n_bags, bag_share, seed)


def greedy_path(problem: Problem, members: Sequence[int], n_picks: int = 50, n_start: int = 5) -> Path:
    """Return one selection among some of the members.

    Ties go to a member that has been picked already, then to the lower position.

    Args:
        problem: whose metric is bettered, on all of its rows.
        members: positions of the candidates, ascending.
        n_picks: longest path, >= 1.
        n_start: from how many of the best the start is chosen, >= 1.
    """
    running = empty_sum(problem)
    picks, losses = _start(running, members, min(n_start, n_picks))
    while len(picks) < n_picks:
        tried = _rounded(running.losses(members))
        loss, _, member = min((loss, member not in picks, member) for loss, member in zip(tried, members, strict=True))
        picks.append(member)
        losses.append(loss)
        running.pick(member)
    return Path(tuple(picks[: losses.index(min(losses)) + 1]), tuple(losses))


def _start(running: RunningSum, members: Sequence[int], n_start: int) -> tuple[list[int], list[float]]:
    """Pick as many of the best members, in order, as score best together; return them and the losses after each."""
    alone = _rounded(running.losses(members))
    ranked = [member for _, member in sorted(zip(alone, members, strict=True))][:n_start]
    losses = []
    for member in ranked:
        losses += _rounded(running.losses([member]))
        running.pick(member)
    n_kept = losses.index(min(losses)) + 1
    running.clear()
    for member in ranked[:n_kept]:
        running.pick(member)
    return ranked[:n_kept], losses[:n_kept]


def _fit_greedy(n_picks: int, n_start: int, n_bags: int, bag_share: float, seed: int, problem: Problem) -> Average:
    n_members = len(problem.members)
    weights = np.zeros(n_members)
    for bag in range(n_bags):
        members = list(range(n_members)) if n_bags == 1 else _bag(n_members, bag_share, seed, bag)
        weights += _shares(greedy_path(problem, members, n_picks, n_start), n_members) / n_bags
    return Average("greedy", weights)


def _bag(n_members: int, share: float, seed: int, number: int) -> list[int]:
    drawn = permutation(make_key("bag", seed, number), n_members)[: ceil(share * n_members)]
    return sorted(drawn.tolist())


def _shares(path: Path, n_members: int) -> Floats64:
    return np.bincount(path.picks, minlength=n_members) / len(path.picks)


def _rounded(losses: Sequence[float]) -> list[float]:
    return [round(loss, SCORE_DIGITS) for loss in losses]
