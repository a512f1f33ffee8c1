"""One number that makes probabilities more or less sure, fitted after averaging.

Calibrated members do not make a calibrated mean (Rahaman and Thiery 2020, https://arxiv.org/abs/2007.08792), so the
mean is what gets calibrated, by temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.blending.decisions import class_shares, decision_of, label_columns
from pipeline.blending.problem import Floats, Form
from pipeline.records.metrics import Metric
from pipeline.records.predictions import SMALLEST_PROB

COLDEST, HOTTEST = 0.05, 20.0
"""Between these ends a temperature is searched: without them one that separates all classes would go to 0."""

_ROUNDING = 1e-12
_METRICS = ("log_loss", "kl_divergence")


@dataclass(frozen=True)
class Scaled:
    """Probabilities made softer (temperature above 1) or sharper (below 1)."""

    temperature: float
    is_exclusive: bool

    def apply(self, values: Floats) -> NDArray[np.float32]:
        """Return softmax(log p / T) of each row, or sigmoid(logit p / T) of each label; p is first cut at 1e-7."""
        logits = _logits(values, self.is_exclusive) / self.temperature
        if self.is_exclusive:
            return np.exp(logits - _log_sum_exp(logits)[:, None]).astype(np.float32)
        return np.exp(-np.logaddexp(0.0, -logits)).astype(np.float32)

    def record(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"name": Temperature.name, "temperature": self.temperature, "is_exclusive": self.is_exclusive}


@dataclass(frozen=True)
class Temperature:
    """The one temperature with the least cross-entropy, the same for all classes or labels."""

    name = "temperature"

    def misfit(self, metric: Metric, form: Form, is_exclusive: bool) -> str | None:
        """Return why it does not apply, or None."""
        if form != "probs":
            return "predictions are values, no probabilities"
        return None if metric.name in _METRICS else f"{metric.name} is no cross-entropy"

    def fit(self, values: Floats, targets: NDArray[Any], metric: Metric) -> Scaled:
        """Return the temperature between 0.05 and 20 with the least cross-entropy on these rows.

        The cross-entropy is convex in 1/T, so the search along log T (Brent's, within bounds) finds its one minimum.
        It is 1, no change, where nothing is better (all classes are equally probable in all rows).

        Args:
            values: (N, K) probabilities; 0 and 1 are allowed.
            targets: (N,) classes, (N, K) shares or labels.
            metric: says which labels count.
        """
        from scipy.optimize import minimize_scalar

        is_exclusive = metric.kind not in ("binary", "multilabel")
        columns = list(decision_of(metric).columns)
        logits = _logits(values, is_exclusive)[:, columns]
        truth = class_shares(targets, values.shape[1]) if is_exclusive else label_columns(targets)[:, columns]

        def loss(log_temperature: float) -> float:
            return _cross_entropy(logits * np.exp(-log_temperature), truth.astype(np.float64), is_exclusive)

        ends = (float(np.log(COLDEST)), float(np.log(HOTTEST)))
        found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6})
        return Scaled(float(np.exp(found.x)) if found.fun < loss(0.0) - _ROUNDING else 1.0, is_exclusive)


def _logits(values: Floats, is_exclusive: bool) -> NDArray[np.float64]:
    highest = 1.0 if is_exclusive else 1.0 - SMALLEST_PROB
    probs = np.clip(values.astype(np.float64), SMALLEST_PROB, highest)
    return np.asarray(np.log(probs) if is_exclusive else np.log(probs) - np.log1p(-probs))


def _cross_entropy(logits: NDArray[np.float64], truth: NDArray[np.float64], is_exclusive: bool) -> float:
    """Return the mean cross-entropy from logits, which never overflow as probabilities do."""
    if is_exclusive:
        return float(np.mean(_log_sum_exp(logits) * truth.sum(axis=1) - np.sum(truth * logits, axis=1)))
    return float(np.mean(np.logaddexp(0.0, logits) - truth * logits))


def _log_sum_exp(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    highest = logits.max(axis=1)
    return np.asarray(highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1)))
