"""What each metric computes: decisions from predictions, the scores themselves, and the list of them.

Every score is a function of (context, targets, values) whose arrays have been checked (`metrics.py`), with
scikit-learn underneath wherever it has the score; where a choice exists, its docstring names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, PodiumError
from pipeline.records.task import Kind

Targets = NDArray[np.int64] | NDArray[np.float32]
Values = NDArray[np.floating[Any]]
Ordinal = Literal["softmax", "regression"]
Needs = Literal["probs", "preds"]

PROB_FLOOR = 1e-15  # below it log loss and KL divergence see this, as Kaggle's do
PROB_SLACK = 1e-5  # float32 probabilities may pass 0 and 1 by their rounding


class UndefinedMetricError(PodiumError):
    """A score has no value on these rows, such as the ROC AUC of a single class."""


def decide(
    values: Values, kind: Kind, ordinal: Ordinal = "softmax", threshold: float = 0.5, n_classes: int | None = None
) -> NDArray[Any]:
    """Return what predictions decide: class indices (N,), present labels (N, K) in {0, 1}, or values as they are.

    Multiclass: the most probable class, ties to the lower index. Binary and multilabel: 1 from `threshold` upward.
    Ordinal: the expected grade (softmax) or the value (regression), rounded with halves to the lower grade, and cut to
    0..K-1.

    Args:
        values: (N, K) probabilities, (N, 1) probability of the second class or ordinal value, (N, T) values.
        kind: what is predicted.
        ordinal: how an ordinal task is modelled.
        threshold: compared in the type of `values`, so that a float32 0.7 reaches a threshold of 0.7.
        n_classes: K; needed by ordinal regression only, whose values do not show it.
    """
    if kind == "multiclass":
        return np.asarray(np.argmax(values, axis=1), dtype=np.int64)
    if kind == "binary":
        return (values[:, 0] >= threshold).astype(np.int64)
    if kind == "multilabel":
        return (values >= threshold).astype(np.int64)
    if kind == "regression":
        return values
    if ordinal == "softmax":
        n_classes = values.shape[1]
        grades = _expected_grade(values)
    else:
        grades = values[:, 0].astype(np.float64)
    if n_classes is None:
        raise ValueError("decide: ordinal regression needs n_classes")
    return np.clip(np.ceil(grades - 0.5), 0, n_classes - 1).astype(np.int64)


@dataclass(frozen=True)
class Context:
    """What a score has to know beside targets and values."""

    kind: Kind
    names: tuple[str, ...]
    ordinal: Ordinal
    threshold: float

    def preds(self, values: Values) -> NDArray[Any]:
        """Return what the values decide."""
        return decide(values, self.kind, self.ordinal, self.threshold, len(self.names))


Score = Callable[..., float]


@dataclass(frozen=True)
class MetricInfo:
    """A metric of the list: its function, direction, and the kinds of task that it fits."""

    score: Score
    kinds: tuple[Kind, ...]
    higher_is_better: bool
    needs: Needs
    options: dict[str, int] = field(default_factory=dict)
    """Options with their defaults; all are whole numbers from 1."""

    def fits(self, kind: Kind, ordinal: Ordinal = "softmax") -> bool:
        """Return whether tasks of `kind` can be scored; a regressed grade has no probabilities."""
        return kind in self.kinds and not (kind == "ordinal" and ordinal == "regression" and self.needs == "probs")


def _accuracy(context: Context, targets: Targets, values: Values) -> float:
    """Share of right rows; a multilabel row is right when all its labels are.

    Not scikit-learn's: this one is scored after every epoch, and the import alone would take a second.
    """
    is_right = _labels(targets, context) == context.preds(values)
    return float(np.mean(is_right.all(axis=1) if is_right.ndim == 2 else is_right))


def _balanced_accuracy(context: Context, targets: Targets, values: Values) -> float:
    """Mean recall of the classes that occur among the targets (scikit-learn's, without its warning)."""
    from sklearn.metrics import recall_score

    truth = _labels(targets, context)
    return float(recall_score(truth, context.preds(values), labels=np.unique(truth), average="macro", zero_division=0))


def _f1(context: Context, targets: Targets, values: Values, average: str) -> float:
    """F1 of the second class (`binary`), or averaged; 0 where neither truth nor decision has the class, label or row.

    Macro of classes: over those that occur in truth or decisions, as scikit-learn and thus most hosts do. Macro of
    labels: over all of them.
    """
    from sklearn.metrics import f1_score

    truth, preds = _labels(targets, context), context.preds(values)
    labels = None if context.kind == "multilabel" or average == "binary" else np.union1d(truth, preds)
    return float(f1_score(truth, preds, labels=labels, average=average, zero_division=0))


def _quadratic_kappa(context: Context, targets: Targets, values: Values) -> float:
    """Cohen's kappa with quadratic weights over all K grades, also those that do not occur."""
    from sklearn.metrics import cohen_kappa_score

    truth, preds = _labels(targets, context), context.preds(values)
    if len(np.union1d(truth, preds)) == 1:
        name = context.names[int(truth[0])]
        raise UndefinedMetricError(f"kappa is undefined: all {len(truth)} rows have and are given the class '{name}'")
    return float(cohen_kappa_score(truth, preds, labels=np.arange(len(context.names)), weights="quadratic"))


def _log_loss(context: Context, targets: Targets, values: Values) -> float:
    """Mean cross-entropy in nats, soft targets as they are; binary and multilabel: mean over the label columns too."""
    truth = _shares(targets, context)
    if context.kind in ("binary", "multilabel"):
        probs = np.clip(_as_probs(values), PROB_FLOOR, 1 - PROB_FLOOR)
        return float(-np.mean(truth * np.log(probs) + (1 - truth) * np.log1p(-probs)))
    return float(-np.mean(np.sum(truth * np.log(_floored(values)), axis=1)))


def _kl_divergence(context: Context, targets: Targets, values: Values) -> float:
    """Mean over rows of the KL divergence of the predicted from the true distribution, in nats, with 0 log 0 = 0."""
    truth = _shares(targets, context)
    log_truth = np.log(truth, out=np.zeros_like(truth), where=truth > 0)
    return float(np.mean(np.sum(truth * (log_truth - np.log(_floored(values))), axis=1)))


def _column_mean(context: Context, targets: Targets, values: Values, area: Literal["ROC AUC", "AP"]) -> float:
    """Mean over the label columns of the area under a curve; classes one-vs-rest, binary its second class alone."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    hard = context.kind != "multilabel"
    truth = np.eye(len(context.names))[_labels(targets, context)] if hard else targets
    first = 1 if context.kind == "binary" else 0
    _need_both(context, truth[:, first:], area, context.names[first:])
    score = roc_auc_score if area == "ROC AUC" else average_precision_score
    columns = zip(truth[:, first:].T, values.T, strict=True)
    return float(np.mean([score(column > 0.5, column_values) for column, column_values in columns]))


def _error(context: Context, targets: Targets, values: Values, squared: bool) -> float:
    """Root mean squared or mean absolute error; several targets: the mean over the targets of the error of each."""
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    score = root_mean_squared_error if squared else mean_absolute_error
    return float(score(targets.astype(np.float64), values.astype(np.float64)))


def _r2(context: Context, targets: Targets, values: Values) -> float:
    """Share of variance explained; several targets: the mean over the targets."""
    from sklearn.metrics import r2_score

    for name, column in zip(context.names, targets.T, strict=True):
        if np.all(column == column[0]):
            raise UndefinedMetricError(f"R2 is undefined: the target '{name}' is {column[0]} in all {len(column)} rows")
    return float(r2_score(targets.astype(np.float64), values.astype(np.float64)))


def _top_k_accuracy(context: Context, targets: Targets, values: Values, k: int) -> float:
    """Share of rows whose class is among the k most probable; ties to the lower class (scikit-learn: the higher)."""
    return float(np.mean(np.any(_hits(context, targets, values, k), axis=1)))


def _map_at_k(context: Context, targets: Targets, values: Values, k: int) -> float:
    """Mean average precision of the k most probable labels, in their order; a row without a true label counts 0."""
    hits = _hits(context, targets, values, k).astype(np.float64)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    n_true = targets.sum(axis=1) if context.kind == "multilabel" else np.ones(len(targets))
    return float(np.mean(np.sum(precision * hits, axis=1) / np.clip(n_true, 1, k)))


_CLASSES: tuple[Kind, ...] = ("binary", "multiclass", "ordinal")
_LABELLED: tuple[Kind, ...] = (*_CLASSES, "multilabel")

METRICS: dict[str, MetricInfo] = {
    "accuracy": MetricInfo(_accuracy, _LABELLED, True, "preds"),
    "balanced_accuracy": MetricInfo(_balanced_accuracy, _CLASSES, True, "preds"),
    "log_loss": MetricInfo(_log_loss, _LABELLED, False, "probs"),
    "roc_auc": MetricInfo(partial(_column_mean, area="ROC AUC"), ("binary", "multiclass"), True, "probs"),
    "mean_column_auc": MetricInfo(partial(_column_mean, area="ROC AUC"), ("multilabel", "multiclass"), True, "probs"),
    "average_precision": MetricInfo(partial(_column_mean, area="AP"), ("binary", "multilabel"), True, "probs"),
    "f1": MetricInfo(partial(_f1, average="binary"), ("binary",), True, "preds"),
    "f1_macro": MetricInfo(partial(_f1, average="macro"), _LABELLED, True, "preds"),
    "f1_micro": MetricInfo(partial(_f1, average="micro"), _LABELLED, True, "preds"),
    "f1_samples": MetricInfo(partial(_f1, average="samples"), ("multilabel",), True, "preds"),
    "quadratic_kappa": MetricInfo(_quadratic_kappa, ("ordinal", "multiclass"), True, "preds"),
    "rmse": MetricInfo(partial(_error, squared=True), ("regression",), False, "preds"),
    "mae": MetricInfo(partial(_error, squared=False), ("regression",), False, "preds"),
    "r2": MetricInfo(_r2, ("regression",), True, "preds"),
    "top_k_accuracy": MetricInfo(_top_k_accuracy, ("multiclass",), True, "probs", {"k": 5}),
    "map_at_k": MetricInfo(_map_at_k, ("multiclass", "multilabel"), True, "probs", {"k": 5}),
    "kl_divergence": MetricInfo(_kl_divergence, ("multiclass",), False, "probs"),
}
"""The metrics by name."""


def _labels(targets: Targets, context: Context) -> NDArray[np.int64]:
    """Return (N,) class indices, soft ones by their largest share (ties to the lower), or (N, K) in {0, 1}."""
    if context.kind == "multilabel" or targets.ndim == 1:
        return targets.astype(np.int64)
    return np.asarray(np.argmax(targets, axis=1), dtype=np.int64)


def _shares(targets: Targets, context: Context) -> NDArray[np.float64]:
    """Return targets as the shares (N, columns) that log loss weighs: one-hot, soft, or 0 and 1 per label."""
    if targets.ndim == 2:
        return targets.astype(np.float64)
    if context.kind == "binary":
        return targets[:, None].astype(np.float64)
    return np.eye(len(context.names))[targets]


def _floored(values: Values) -> NDArray[np.float64]:
    probs = np.clip(_as_probs(values), PROB_FLOOR, 1.0)
    return np.asarray(probs / probs.sum(axis=1, keepdims=True))


def _as_probs(values: Values) -> NDArray[np.float64]:
    if values.min() < -PROB_SLACK or values.max() > 1 + PROB_SLACK:
        raise DataError(f"probabilities lie in 0..1, found {values.min():g}..{values.max():g}; are these logits?")
    return values.astype(np.float64)


def _expected_grade(values: Values) -> NDArray[np.float64]:
    return np.asarray(values.astype(np.float64) @ np.arange(values.shape[1], dtype=np.float64))


def _hits(context: Context, targets: Targets, values: Values, k: int) -> NDArray[np.bool_]:
    """Return (N, min(k, K)) whether each of the k most probable labels is true; ties to the lower label."""
    top = np.argsort(-values, axis=1, kind="stable")[:, :k]
    if context.kind == "multilabel":
        return np.asarray(np.take_along_axis(targets > 0.5, top, axis=1))
    return np.asarray(top == _labels(targets, context)[:, None])


def _need_both(context: Context, truth: NDArray[Any], area: str, names: Sequence[str]) -> None:
    """Raise when a label column has no positive row or, for ROC AUC, no negative one."""
    n = len(truth)
    for name, n_true in zip(names, truth.sum(axis=0), strict=True):
        if context.kind == "binary" and n_true in (0, n) and area == "ROC AUC":
            only = context.names[1] if n_true else context.names[0]
            raise UndefinedMetricError(f"{area} is undefined: only class '{only}' occurs among the {n} rows")
        if n_true == 0:
            raise UndefinedMetricError(f"{area} is undefined: '{name}' has no positive among the {n} rows")
        if n_true == n and area == "ROC AUC":
            raise UndefinedMetricError(f"{area} is undefined: '{name}' is positive in all of the {n} rows")
