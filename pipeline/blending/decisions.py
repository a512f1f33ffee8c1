"""What a fit after averaging has to know of a metric: from which probability a label counts, and what a class is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.records.metrics import Metric
from pipeline.records.scores import Context


@dataclass(frozen=True)
class Decision:
    """How a metric turns predictions into decisions."""

    threshold: float
    """From which probability a label counts as present; 0.5 where the metric is a function of the user's."""
    columns: tuple[int, ...]
    """The columns that the metric counts: all of them, unless the host asks for some of the labels only."""


def decision_of(metric: Metric) -> Decision:
    """Return the threshold and the counted columns of a metric, as `resolve_metric` and `metric_of` bound them."""
    match metric.score:
        case partial(args=(Metric() as inner, list() as columns)):
            return Decision(decision_of(inner).threshold, tuple(columns))
        case partial(args=(_, Context() as context, _)):
            return Decision(context.threshold, tuple(range(metric.n_columns)))
    return Decision(0.5, tuple(range(metric.n_columns)))


def hard_classes(targets: NDArray[Any]) -> NDArray[np.int64]:
    """Return class indices (N,), of soft targets (N, K) the largest share (ties to the lower), as metrics do."""
    return np.asarray(targets if targets.ndim == 1 else targets.argmax(axis=1), dtype=np.int64)


def label_columns(targets: NDArray[Any]) -> NDArray[np.bool_]:
    """Return what is present as (N, K): labels as they are, of a binary task one column, its second class."""
    return np.asarray((targets[:, None] if targets.ndim == 1 else targets) > 0.5)


def class_shares(targets: NDArray[Any], n_classes: int) -> NDArray[np.float64]:
    """Return the targets as shares (N, K): soft ones as they are, class indices one-hot."""
    return targets.astype(np.float64) if targets.ndim == 2 else np.eye(n_classes)[targets]


def float32_edges(edge: float) -> tuple[np.float32, np.float32]:
    """Return a float32 just below an edge and the smallest at or above it.

    Both keep their side of the edge when they are compared in float32 and in float64: an edge of 0.7 lies above its
    own float32, so what has to reach it gets the next one.
    """
    rounded = np.float32(edge)
    is_enough = float(rounded) >= edge
    return np.nextafter(rounded, np.float32(-np.inf)), rounded if is_enough else np.nextafter(
        rounded, np.float32(np.inf)
    )
