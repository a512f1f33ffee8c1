"""What the next pick of a greedy selection would score, for every candidate: a running sum and each member on top.

Scores are losses, lower is better. A path of 50 picks among 200 members tries 10,000 means, so log loss, accuracy and
RMSE have their own ways, which equal the metric; every other score is asked for each mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.blending.losses import LogLoss, RootSquares, log_loss_of, signed, squares_of
from pipeline.blending.problem import Problem


class RunningSum(Protocol):
    """The sum of the picks so far, and what each member would make of it."""

    def losses(self, members: Sequence[int]) -> list[float]:
        """Return the loss of the mean of all picks and one more, for each of the members."""

    def pick(self, member: int) -> None:
        """Add a member to the picks."""

    def clear(self) -> None:
        """Forget all picks."""


def empty_sum(problem: Problem) -> RunningSum:
    """Return the fastest way to score the picks of a problem, with no pick made."""
    log_loss = log_loss_of(problem)
    if log_loss is not None:
        return LogLossSum(log_loss)
    squares = squares_of(problem)
    if squares is not None:
        return SquaresSum(squares)
    is_hard = problem.metric.name == "accuracy" and problem.metric.kind == "multiclass" and problem.targets.ndim == 1
    return RightSum(problem) if is_hard else ScoredSum(problem)


class LogLossSum:
    """Log loss and KL divergence: only what the members give to what came true is summed."""

    def __init__(self, loss: LogLoss) -> None:
        self._loss = loss
        self._sum = np.zeros_like(loss.probs[0])
        self._mean = np.empty_like(self._sum)
        self._n_picks = 0

    def losses(self, members: Sequence[int]) -> list[float]:
        """Return the loss of the mean of all picks and one more, for each of the members."""
        return [self._loss_with(member) for member in members]

    def pick(self, member: int) -> None:
        """Add a member to the picks."""
        self._sum += self._loss.probs[member]
        self._n_picks += 1

    def clear(self) -> None:
        """Forget all picks."""
        self._sum[:] = 0
        self._n_picks = 0

    def _loss_with(self, member: int) -> float:
        np.add(self._sum, self._loss.probs[member], out=self._mean)
        self._mean /= np.float32(self._n_picks + 1)
        return self._loss.of_mean(self._mean)


class RightSum:
    """Accuracy of classes: rows are sorted by their true class and columns laid out one after another.

    Then the largest of the other columns is a few vectorised maxima of a stretch that fits into the cache, where
    `argmax` of each row takes many times as long. Ties go to the lower class, as in `decide`.
    """

    def __init__(self, problem: Problem) -> None:
        order = np.argsort(problem.targets, kind="stable")
        classes, starts = np.unique(problem.targets[order], return_index=True)
        stops = [*starts[1:].tolist(), len(order)]
        self._blocks = list(zip(classes.tolist(), starts.tolist(), stops, strict=True))
        self._columns = [np.ascontiguousarray(member[order].T) for member in problem.members]
        self._sum = np.zeros_like(self._columns[0])
        self._n_rows = len(order)

    def losses(self, members: Sequence[int]) -> list[float]:
        """Return minus the accuracy of the mean of all picks and one more, for each of the members."""
        n_right = np.zeros(len(members), dtype=np.int64)
        for true, start, stop in self._blocks:
            picked = np.ascontiguousarray(self._sum[:, start:stop])
            total = np.empty_like(picked)
            for place, member in enumerate(members):
                np.add(picked, self._columns[member][:, start:stop], out=total)
                n_right[place] += _count_right(total, true)
        return [-float(count) / self._n_rows for count in n_right]

    def pick(self, member: int) -> None:
        """Add a member to the picks."""
        self._sum += self._columns[member]

    def clear(self) -> None:
        """Forget all picks."""
        self._sum[:] = 0


class SquaresSum:
    """RMSE: counts of the picks are enough."""

    def __init__(self, loss: RootSquares) -> None:
        self._loss = loss
        self._counts = np.zeros(loss.products.shape[1])

    def losses(self, members: Sequence[int]) -> list[float]:
        """Return the loss of the mean of all picks and one more, for each of the members."""
        n_picks = self._counts.sum() + 1
        ones = np.eye(len(self._counts))
        return [self._loss.value((self._counts + ones[member]) / n_picks) for member in members]

    def pick(self, member: int) -> None:
        """Add a member to the picks."""
        self._counts[member] += 1

    def clear(self) -> None:
        """Forget all picks."""
        self._counts[:] = 0


class ScoredSum:
    """Any metric, asked for each mean."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._sum = np.zeros(problem.members.shape[1:], dtype=np.float64)
        self._n_picks = 0

    def losses(self, members: Sequence[int]) -> list[float]:
        """Return the loss of the mean of all picks and one more, for each of the members."""
        return [self._loss_with(member) for member in members]

    def pick(self, member: int) -> None:
        """Add a member to the picks."""
        self._sum += self._problem.members[member]
        self._n_picks += 1

    def clear(self) -> None:
        """Forget all picks."""
        self._sum[:] = 0
        self._n_picks = 0

    def _loss_with(self, member: int) -> float:
        mean = (self._sum + self._problem.members[member]) / (self._n_picks + 1)
        return signed(self._problem, self._problem.score(mean.astype(np.float32)))


def _count_right(columns: NDArray[np.float32], true: int) -> int:
    """Return in how many places of (K, n) the row `true` is the largest, or level with later rows only."""
    is_right = np.ones(columns.shape[1], dtype=bool)
    if true > 0:
        is_right &= columns[true] > columns[:true].max(axis=0)
    if true < len(columns) - 1:
        is_right &= columns[true] >= columns[true + 1 :].max(axis=0)
    return int(np.count_nonzero(is_right))
