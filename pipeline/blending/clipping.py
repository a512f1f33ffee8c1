"""Values beyond the range of the training targets, cut to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.blending.problem import Floats, Form
from pipeline.records.metrics import Metric


@dataclass(frozen=True)
class Clipped:
    """Values cut to a range for each target."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, values: Floats) -> NDArray[np.float32]:
        """Return (N, T) values, none below `low` or above `high` of its target."""
        return np.clip(values, self.low, self.high).astype(np.float32)

    def record(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"name": Clip.name, "low": list(self.low), "high": list(self.high)}


@dataclass(frozen=True)
class Clip:
    """The range of each target of a regression; it helps where targets have hard ends, such as 0 to 100."""

    name = "clip"

    def misfit(self, metric: Metric, form: Form, is_exclusive: bool) -> str | None:
        """Return why it does not apply, or None."""
        return None if metric.kind == "regression" else f"{metric.kind} predictions are no values without ends"

    def fit(self, values: Floats, targets: NDArray[Any], metric: Metric) -> Clipped:
        """Return the least and the largest of each column of `targets` (N, T); `values` have no part in it."""
        return Clipped(tuple(targets.min(axis=0).tolist()), tuple(targets.max(axis=0).tolist()))
