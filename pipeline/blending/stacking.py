"""Stacks: an estimator of scikit-learn that learns from OOF how to join the members.

What it learns from are the members' log odds, or their values, each scaled by the rows it is fitted on: the penalty of
a linear estimator then means the same in every competition, and its intercept bears none. Stacked generalisation:
Wolpert 1992, https://doi.org/10.1016/S0893-6080(05)80023-1.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError
from pipeline.blending.averages import log_odds
from pipeline.blending.problem import Fit, Problem

LOGISTIC = "sklearn.linear_model:LogisticRegression"
RIDGE = "sklearn.linear_model:Ridge"

_SEED = 0
_DEFAULTS: dict[str, dict[str, Any]] = {LOGISTIC: {"max_iter": 5000}, RIDGE: {}}


@dataclass(frozen=True)
class Part:
    """One estimator and the column or columns that it makes."""

    columns: tuple[int, ...]
    """Which columns it reads from every member; all classes together, or one label or target."""
    estimator: Any
    """Fitted; None where the truth is the same in all rows, which leaves nothing to learn: the mean is taken."""
    is_classifier: bool

    def apply(self, members: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (N, columns) from (M, N, K)."""
        if self.estimator is None:
            return np.asarray(members[:, :, self.columns].mean(axis=0, dtype=np.float64))
        inputs = _inputs(members[:, :, self.columns], self.is_classifier)
        if not self.is_classifier:
            return np.asarray(self.estimator.predict(inputs), dtype=np.float64).reshape(len(inputs), 1)
        probs = np.asarray(self.estimator.predict_proba(inputs), dtype=np.float64)
        if len(self.columns) == 1:
            return probs[:, 1:]
        known = np.zeros((len(inputs), len(self.columns)))
        known[:, self.estimator.classes_.astype(np.int64)] = probs
        return known


@dataclass(frozen=True)
class Stack:
    """Fitted estimators that make all columns between them."""

    estimator: str
    arguments: Mapping[str, Any]
    parts: tuple[Part, ...]

    def apply(self, members: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, K) from (M, N, K), row by row."""
        return np.concatenate([part.apply(members) for part in self.parts], axis=1).astype(np.float32)

    def record(self) -> dict[str, Any]:
        """Return the estimator, its arguments and, of linear ones, what they learnt about the scaled inputs."""
        fitted = [{"columns": list(part.columns)} | _coefficients(part.estimator) for part in self.parts]
        return {"method": "stack", "estimator": self.estimator, "arguments": dict(self.arguments), "parts": fitted}


def stack(estimator: str | None = None, arguments: Mapping[str, Any] | None = None) -> Fit:
    """Return the fit of an estimator on the members' OOF.

    Classes: one classifier reads the log odds of all classes. Labels and binary tasks: one classifier for each label
    reads the log odds of that label. Values: one regressor for each target reads that target. Soft targets: each row
    counts once for each class, weighted by its share. Estimators that draw at random are seeded unless told otherwise.

    Args:
        estimator: `module:Class`; by default logistic regression (of classes and labels) or ridge regression (of
            values), with scikit-learn's own penalties.
        arguments: of the class.

    Raises:
        ConfigError: there is no such class, it takes no such argument, or it cannot do what the task needs.
    """
    if estimator is not None:
        _make(estimator, arguments or {})
    return partial(_fit_stack, estimator, dict(arguments or {}))


def _fit_stack(name: str | None, arguments: dict[str, Any], problem: Problem) -> Stack:
    is_classifier = problem.form == "probs"
    chosen = name or (LOGISTIC if is_classifier else RIDGE)
    n_columns = problem.members.shape[2]
    groups = [tuple(range(n_columns))] if problem.is_exclusive else [(column,) for column in range(n_columns)]
    make = partial(_make, chosen, arguments)
    return Stack(chosen, arguments, tuple(_fit_part(problem, columns, make, is_classifier) for columns in groups))


def _fit_part(problem: Problem, columns: tuple[int, ...], make: Callable[[], Any], is_classifier: bool) -> Part:
    inputs = _inputs(problem.members[:, :, columns], is_classifier)
    truth, weights = problem.targets, None
    if truth.ndim == 2 and problem.is_exclusive:
        inputs, truth, weights = _repeated(inputs, truth)
    elif truth.ndim == 2:
        truth = truth[:, columns[0]]
    if is_classifier:
        truth = truth.astype(np.int64)
        if len(np.unique(truth)) == 1:
            return Part(columns, None, is_classifier)
    return Part(columns, _fitted(make(), inputs, truth, weights, is_classifier), is_classifier)


def _fitted(
    estimator: Any,
    inputs: NDArray[np.float64],
    truth: NDArray[Any],
    weights: NDArray[np.float64] | None,
    is_classifier: bool,
) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    name = type(estimator).__name__
    if not hasattr(estimator, "predict_proba" if is_classifier else "predict"):
        raise ConfigError(f"estimator {name}: gives no probabilities (predict_proba), which this task needs")
    extra = {} if weights is None else {f"{name.lower()}__sample_weight": weights}
    try:
        return make_pipeline(StandardScaler(), estimator).fit(inputs, truth, **extra)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"estimator {name}: cannot be fitted: {error}") from error


def _inputs(members: NDArray[np.float32], is_classifier: bool) -> NDArray[np.float64]:
    """Return (N, M * columns) inputs from (M, N, columns) predictions."""
    values = log_odds(members) if is_classifier else members.astype(np.float64)
    return np.asarray(values.transpose(1, 0, 2).reshape(members.shape[1], -1))


def _repeated(
    inputs: NDArray[np.float64], shares: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return a row for every row and class that it has a share of: inputs, class and share."""
    rows, classes = np.nonzero(shares)
    return inputs[rows], classes, shares[rows, classes].astype(np.float64)


def _make(name: str, arguments: Mapping[str, Any]) -> Any:
    """Return an estimator that is not fitted yet."""
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
        seeded = {"random_state": _SEED} if "random_state" in inspect.signature(found).parameters else {}
        estimator = found(**{**seeded, **_DEFAULTS.get(name, {}), **arguments})
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"estimator '{name}': {error}; give module:Class, such as {RIDGE}") from error
    if not (hasattr(estimator, "fit") and hasattr(estimator, "predict")):
        raise ConfigError(f"estimator '{name}': is no estimator (it has no fit and predict)")
    return estimator


def _coefficients(estimator: Any) -> dict[str, Any]:
    last = None if estimator is None else estimator.steps[-1][1]
    names = [name for name in ("coef_", "intercept_") if hasattr(last, name)]
    return {name: np.asarray(getattr(last, name)).tolist() for name in names}
