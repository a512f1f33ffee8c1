"""What a way of blending sees, and what it makes: arrays in, a rule for new rows out.

A *fit* is a function from a `Problem` to a `Fitted`; methods (`greedy.py`, `simplex.py`, ...) are fits, and so is a
method followed by an adjustment. Nothing here knows of runs or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.records.metrics import Metric

Floats = NDArray[np.floating[Any]]
Form = Literal["probs", "values"]


@dataclass(frozen=True)
class Problem:
    """Held-out predictions of M members for the same N rows, and the truth."""

    members: NDArray[np.float32]
    """(M, N, K) OOF as it is submitted: rows of one submission id are averaged."""
    targets: NDArray[Any]
    """(N,) class indices, or (N, K) labels, shares or values, as in `Rows`."""
    fold: NDArray[np.int64]
    """(N,) the fold in which a row was held out."""
    metric: Metric
    """The score that counts."""
    form: Form
    """Whether predictions are probabilities or values on the scale of the target."""
    is_exclusive: bool
    """Whether the K columns are classes of which each row has one, so that its probabilities sum to one."""

    def at(self, rows: NDArray[Any]) -> Problem:
        """Return the problem on some of its rows, given as positions (any order) or as (N,) booleans."""
        return replace(self, members=self.members[:, rows], targets=self.targets[rows], fold=self.fold[rows])

    def score(self, values: Floats) -> float:
        """Return the metric of predictions (N, K) for these rows."""
        return self.metric(self.targets, values)


class Fitted(Protocol):
    """A rule that was fitted: it blends any rows, such as those of the test set."""

    def apply(self, members: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the blend (N', K) of predictions (M, N', K) of the same members in the same order."""

    def record(self) -> dict[str, Any]:
        """Return what was fitted as plain JSON: the method, and its weights or parameters."""


Fit = Callable[[Problem], Fitted]
"""From a problem to a rule; a function of the problem alone, so that chance in it is keyed."""
