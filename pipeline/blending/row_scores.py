"""What each row adds to a score that is a mean over rows, so that a resample needs sums only, not the metric again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.records.metrics import Metric
from pipeline.records.scores import METRICS, PROB_FLOOR, Context, MetricInfo, Targets, Values

Floats = NDArray[np.float64]

_REL_TOLERANCE = 1e-9  # of two orders of the same sum


@dataclass(frozen=True)
class RowScores:
    """A score as sums over rows."""

    parts: Floats
    """(N, C): what each row adds."""
    is_root: bool = False
    """Whether the root is taken of the mean of each column (RMSE)."""

    def score(self, counts: Floats) -> Floats:
        """Return the scores (D,) of D draws of at least one row, given as (D, N): how often each row is drawn."""
        means = (counts @ self.parts) / counts.sum(axis=1)[:, None]
        return np.asarray((np.sqrt(means) if self.is_root else means).mean(axis=1))


def row_scores(metric: Metric, targets: Targets, values: Values) -> RowScores | None:
    """Return what each row adds to the metric, or None when it is no mean over rows or is not known to be one.

    Args:
        metric: of a task; functions of the user's are never taken apart.
        targets: as the metric takes them.
        values: (N, n_columns), as the metric takes them.

    Raises:
        PodiumError: the metric refuses these rows.
    """
    found = _taken_apart(metric, targets, values)
    whole = metric(targets, values)
    # The metric itself has the last word: should it ever change, its draws get slow instead of wrong.
    if found is None or not np.isclose(found.score(np.ones((1, len(values))))[0], whole, _REL_TOLERANCE, 1e-12):
        return None
    return found


def _taken_apart(metric: Metric, targets: Any, values: Any) -> RowScores | None:
    match metric.score:
        case partial(args=(Metric() as inner, list() as columns)):  # the host asks for some of the labels
            return _taken_apart(inner, targets[:, columns], values[:, columns])
        case partial(args=(MetricInfo() as info, Context() as context, dict() as options)):
            name = next((name for name, known in METRICS.items() if known is info), "")
            return _PARTS[name](context, targets, values, **options) if name in _PARTS else None
    return None


def _accuracy(context: Context, targets: Targets, values: Values) -> RowScores:
    is_right = context.preds(values) == _labels(context, targets)
    return _one_column(is_right.all(axis=1) if is_right.ndim == 2 else is_right)


def _log_loss(context: Context, targets: Targets, values: Values) -> RowScores:
    truth = _shares(context, targets)
    if context.kind in ("binary", "multilabel"):
        probs = np.clip(values.astype(np.float64), PROB_FLOOR, 1 - PROB_FLOOR)
        return _one_column(-(truth * np.log(probs) + (1 - truth) * np.log1p(-probs)).mean(axis=1))
    return _one_column(-(truth * _log_probs(values)).sum(axis=1))


def _kl_divergence(context: Context, targets: Targets, values: Values) -> RowScores:
    truth = _shares(context, targets)
    log_truth = np.log(truth, out=np.zeros_like(truth), where=truth > 0)
    return _one_column((truth * (log_truth - _log_probs(values))).sum(axis=1))


def _mae(context: Context, targets: Targets, values: Values) -> RowScores:
    return RowScores(np.abs(targets.astype(np.float64) - values.astype(np.float64)))


def _rmse(context: Context, targets: Targets, values: Values) -> RowScores:
    return RowScores((targets.astype(np.float64) - values.astype(np.float64)) ** 2, is_root=True)


def _top_k_accuracy(context: Context, targets: Targets, values: Values, k: int) -> RowScores:
    return _one_column(_hits(context, targets, values, k).any(axis=1))


def _map_at_k(context: Context, targets: Targets, values: Values, k: int) -> RowScores:
    hits = _hits(context, targets, values, k)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    n_true = targets.sum(axis=1) if context.kind == "multilabel" else np.ones(len(targets))
    return _one_column((precision * hits).sum(axis=1) / np.clip(n_true, 1, k))


_PARTS: dict[str, Callable[..., RowScores]] = {
    "accuracy": _accuracy,
    "log_loss": _log_loss,
    "kl_divergence": _kl_divergence,
    "mae": _mae,
    "rmse": _rmse,
    "top_k_accuracy": _top_k_accuracy,
    "map_at_k": _map_at_k,
}


def _one_column(parts: Any) -> RowScores:
    return RowScores(np.asarray(parts, dtype=np.float64)[:, None])


def _labels(context: Context, targets: Targets) -> NDArray[np.int64]:
    if context.kind == "multilabel" or targets.ndim == 1:
        return targets.astype(np.int64)
    return np.asarray(np.argmax(targets, axis=1), dtype=np.int64)


def _shares(context: Context, targets: Targets) -> Floats:
    if targets.ndim == 2:
        return targets.astype(np.float64)
    return targets[:, None].astype(np.float64) if context.kind == "binary" else np.eye(len(context.names))[targets]


def _log_probs(values: Values) -> Floats:
    probs = np.clip(values.astype(np.float64), PROB_FLOOR, 1.0)
    return np.asarray(np.log(probs / probs.sum(axis=1, keepdims=True)))


def _hits(context: Context, targets: Targets, values: Values, k: int) -> NDArray[np.bool_]:
    top = np.argsort(-values, axis=1, kind="stable")[:, :k]
    if context.kind == "multilabel":
        return np.asarray(np.take_along_axis(targets > 0.5, top, axis=1))
    return np.asarray(top == _labels(context, targets)[:, None])
