"""Scores of weighted means, written as losses of the weights alone: fast, and smooth where the score is.

A metric takes (N, K) predictions apart anew for each trial; most of what it needs can be cut out of the members once.
Every shortcut is held against the metric itself before it is used, so a metric that it does not know is only slower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.blending.averages import weighted_sum
from pipeline.blending.problem import Problem
from pipeline.records.scores import PROB_FLOOR

Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class LogLoss:
    """`offset - sum over E of shares * log(mean of probs)`: log loss and KL divergence of a weighted mean.

    Of hard classes only the probability of the true one counts, so E is N and not N x K.
    """

    probs: NDArray[np.float32]
    """(M, E) what each member gives to what came true."""
    shares: Floats64 | None
    """(E,) how much of the loss each entry is; None where all count alike."""
    offset: float = 0.0

    def value(self, weights: Floats64) -> float:
        """Return the loss of the mean with weights (M,)."""
        return self.of_mean(weights.astype(np.float32) @ self.probs)

    def of_mean(self, mean: NDArray[np.float32]) -> float:
        """Return the loss of a mean (E,) of the members' `probs`; `mean` is overwritten."""
        np.maximum(mean, np.float32(PROB_FLOOR), out=mean)
        logs = np.log(mean, out=mean)
        total = logs.mean(dtype=np.float64) if self.shares is None else self.shares @ logs
        return self.offset - float(total)

    def gradient(self, weights: Floats64) -> Floats64:
        """Return the derivative (M,) of the loss for each weight."""
        mean = np.maximum(weights.astype(np.float32) @ self.probs, np.float32(PROB_FLOOR))
        share = 1 / len(mean) if self.shares is None else self.shares
        return np.asarray(-(self.probs @ (share / mean).astype(np.float32)), dtype=np.float64)


@dataclass(frozen=True)
class RootSquares:
    """RMSE of a weighted mean whose weights sum to one, from the products of the members' errors: no row is needed."""

    products: Floats64
    """(T, M, M) for each target the mean over rows of the product of two members' errors."""

    def value(self, weights: Floats64) -> float:
        """Return the mean over the targets of the root of the mean squared error, weights (M,)."""
        return float(np.mean(self._roots(weights)))

    def gradient(self, weights: Floats64) -> Floats64:
        """Return the derivative (M,); zero where nothing is left of an error."""
        roots = np.maximum(self._roots(weights), 1e-12)
        return np.asarray(np.mean((self.products @ weights) / roots[:, None], axis=0))

    def _roots(self, weights: Floats64) -> Floats64:
        return np.asarray(np.sqrt(np.maximum(weights @ (self.products @ weights).T, 0)))


@dataclass(frozen=True)
class AbsoluteErrors:
    """MAE of a weighted mean whose weights sum to one."""

    errors: NDArray[np.float32]
    """(M, N * T) prediction less target."""

    def value(self, weights: Floats64) -> float:
        """Return the mean absolute error, weights (M,)."""
        return float(np.abs(weights.astype(np.float32) @ self.errors).mean(dtype=np.float64))

    def gradient(self, weights: Floats64) -> Floats64:
        """Return a subgradient (M,)."""
        signs = np.sign(weights.astype(np.float32) @ self.errors)
        return np.asarray(self.errors @ signs / len(signs), dtype=np.float64)


@dataclass(frozen=True)
class ScoreLoss:
    """Any metric of a weighted mean, the other way round where higher is better; without a derivative."""

    problem: Problem

    def value(self, weights: Floats64) -> float:
        """Return the score, or minus the score, of the mean with weights (M,)."""
        # In float64: a slope is found from differences that float32 would round away.
        return signed(self.problem, self.problem.score(weighted_sum(self.problem.members, weights)))


Loss = LogLoss | RootSquares | AbsoluteErrors | ScoreLoss


def loss_of(problem: Problem) -> Loss:
    """Return the score of weighted means as a loss: lower is better."""
    return log_loss_of(problem) or squares_of(problem) or _absolutes_of(problem) or ScoreLoss(problem)


def log_loss_of(problem: Problem) -> LogLoss | None:
    """Return log loss or KL divergence cut down to what came true; None for other metrics and forms."""
    if problem.metric.name not in ("log_loss", "kl_divergence") or problem.form != "probs":
        return None
    members, targets = problem.members, problem.targets
    if not problem.is_exclusive:
        loss = _of_columns(members, targets[:, None] if targets.ndim == 1 else targets)
    elif targets.ndim == 1:
        loss = LogLoss(members[:, np.arange(len(targets)), targets], None)
    else:
        shares = targets.astype(np.float64) / len(targets)
        is_kl = problem.metric.name == "kl_divergence"
        entropy = float(np.sum(shares * np.log(targets, out=np.zeros_like(shares), where=targets > 0)))
        loss = LogLoss(members.reshape(len(members), -1), shares.ravel(), entropy if is_kl else 0.0)
    return loss if _agrees(loss, problem) else None


def squares_of(problem: Problem) -> RootSquares | None:
    """Return RMSE by the products of the members' errors; None for other metrics."""
    if problem.metric.name != "rmse":
        return None
    products = []
    for target in range(problem.members.shape[2]):
        errors = problem.members[:, :, target].astype(np.float64) - problem.targets[:, target]
        products.append(errors @ errors.T / errors.shape[1])
    loss = RootSquares(np.stack(products))
    return loss if _agrees(loss, problem) else None


def signed(problem: Problem, score: float) -> float:
    """Return a score as a loss: lower is better."""
    return -score if problem.metric.higher_is_better else score


def _of_columns(members: NDArray[np.float32], labels: NDArray[np.generic]) -> LogLoss:
    """Return log loss of columns that do not exclude each other: of p where the label is present, else of 1 - p."""
    probs = members.copy()
    np.subtract(1, probs, out=probs, where=(labels == 0)[None])
    return LogLoss(probs.reshape(len(members), -1), None)


def _absolutes_of(problem: Problem) -> AbsoluteErrors | None:
    if problem.metric.name != "mae":
        return None
    loss = AbsoluteErrors((problem.members - problem.targets.astype(np.float32)).reshape(len(problem.members), -1))
    return loss if _agrees(loss, problem) else None


def _agrees(loss: LogLoss | RootSquares | AbsoluteErrors, problem: Problem) -> bool:
    """Say whether a loss scores the first member as the metric does: not where the host asks for some labels only."""
    weights = np.eye(len(problem.members))[0]
    score = signed(problem, problem.score(problem.members[0]))
    # The metric scales rows to sum to one, which float32 keeps to some 1e-7; errors have no such unit.
    return bool(np.isclose(loss.value(weights), score, rtol=1e-4, atol=1e-5 if isinstance(loss, LogLoss) else 0))
