"""Probabilities for a test set in which classes are more or less common than in training.

All of it assumes *label shift*: the shares of the classes differ, but what a class looks like does not, p(x | class)
is the same. And it assumes calibrated probabilities. OOF cannot tell whether either holds, since OOF has the shares of
training, so nothing here is ever applied unless the user asks for it.

Source: Saerens, Latinne and Decaestecker 2002, Adjusting the outputs of a classifier to new a priori probabilities
(https://doi.org/10.1162/089976602753284446).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError
from pipeline.blending.decisions import class_shares, label_columns
from pipeline.blending.problem import Floats, Form
from pipeline.records.metrics import Metric

Floats64 = NDArray[np.float64]

_SUM_TOLERANCE = 1e-3
_MAX_ROUNDS = 1000
_SETTLED = 1e-8


@dataclass(frozen=True)
class Shifted:
    """Probabilities moved from the shares of training to other ones."""

    training: tuple[float, ...]
    target: tuple[float, ...]
    is_exclusive: bool

    def apply(self, values: Floats) -> NDArray[np.float32]:
        """Return (N, K) probabilities under the target shares."""
        return correct_priors(values, np.array(self.training), np.array(self.target), self.is_exclusive)

    def record(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        shares = {"training": list(self.training), "target": list(self.target)}
        return {"name": PriorShift.name, **shares, "is_exclusive": self.is_exclusive}


@dataclass(frozen=True)
class PriorShift:
    """The shares that the user expects in the test set; those of training are counted.

    It belongs on test predictions. OOF moved to shares that it does not have scores worse, also when the shift is real.
    """

    target: tuple[float, ...]
    """One for each column: of all classes, summing to one; of the second class (binary); of each label."""

    name = "prior"

    def misfit(self, metric: Metric, form: Form, is_exclusive: bool) -> str | None:
        """Return why it does not apply, or None."""
        return None if form == "probs" else "predictions are values, no probabilities"

    def fit(self, values: Floats, targets: NDArray[Any], metric: Metric) -> Shifted:
        """Return the correction from the shares of `targets`; `values` have no part in it.

        Raises:
            ConfigError: the target shares are not one for each column, in 0..1, or do not sum to one where they must.
        """
        is_exclusive = metric.kind not in ("binary", "multilabel")
        _check_shares(self.target, metric, is_exclusive)
        return Shifted(tuple(training_priors(targets, metric).tolist()), self.target, is_exclusive)


def training_priors(targets: NDArray[Any], metric: Metric) -> Floats64:
    """Return the share of each class or label among the targets, (K,); binary: (1,), that of the second class."""
    if metric.kind in ("binary", "multilabel"):
        return np.asarray(label_columns(targets).mean(axis=0), dtype=np.float64)
    return np.asarray(class_shares(targets, metric.n_columns).mean(axis=0))


def correct_priors(values: Floats, training: Floats64, target: Floats64, is_exclusive: bool) -> NDArray[np.float32]:
    """Return probabilities times target share / training share, scaled to sum to one; labels each with its opposite.

    A class without training rows, or a label with no or only true ones, has no ratio and keeps its factor at 1. A row
    of which every class has the target share 0 stays as it is.

    Args:
        values: (N, K) probabilities of models trained under the shares `training`.
        training: (K,) shares.
        target: (K,) shares.
        is_exclusive: whether the columns are classes that sum to one, else labels.
    """
    return _corrected(values.astype(np.float64), training, target, is_exclusive).astype(np.float32)


def estimate_priors(values: Floats, training: Floats64, is_exclusive: bool) -> Floats64:
    """Return the shares (K,) of the classes in the set that `values` (N, K) predict, by expectation-maximisation.

    Starting from the training shares, the predictions are corrected to the shares so far and averaged to the next,
    until nothing moves by 1e-8; no round lowers the likelihood. Trust it as far as the models are calibrated.
    """
    shares = np.asarray(training, dtype=np.float64)
    wide = values.astype(np.float64)
    for _ in range(_MAX_ROUNDS):
        before = shares
        shares = _corrected(wide, training, before, is_exclusive).mean(axis=0)
        if np.abs(shares - before).max() < _SETTLED:
            break
    return shares


def _corrected(wide: Floats64, training: Floats64, target: Floats64, is_exclusive: bool) -> Floats64:
    yes = wide * _ratio(target, training)
    total = yes.sum(axis=1, keepdims=True) if is_exclusive else yes + (1 - wide) * _ratio(1 - target, 1 - training)
    return np.where(total > 0, yes / np.where(total > 0, total, 1.0), wide)


def _ratio(target: Floats64, training: Floats64) -> Floats64:
    return np.where(training > 0, target / np.where(training > 0, training, 1.0), 1.0)


def _check_shares(target: Sequence[float], metric: Metric, is_exclusive: bool) -> None:
    if len(target) != metric.n_columns or not all(0 <= share <= 1 for share in target):
        raise ConfigError(f"prior: give {metric.n_columns} shares in 0..1 (found: {list(target)})")
    if is_exclusive and abs(sum(target) - 1) > _SUM_TOLERANCE:
        raise ConfigError(f"prior: shares of {metric.n_columns} classes sum to one (found: {list(target)})")
