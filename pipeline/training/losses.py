"""Losses on soft targets, and what a model's outputs are for each kind of task: how many, how decided, which loss fits.

All losses are means over the batch that a caller may split: summed over micro-batches with the factor b / B, they give
the loss of the whole batch. They are computed in float32 (float64 stays), whatever the precision of the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.errors import ConfigError, MismatchError, listed, nearest
from pipeline.records.experiment import (
    BinaryCrossEntropy,
    ClassWeights,
    CrossEntropy,
    Huber,
    LossSpec,
    SquaredError,
)
from pipeline.records.task import Kind

Loss = Callable[..., Tensor]
"""(logits, targets, sample weights or None) -> scalar."""
Targets = NDArray[np.int64] | NDArray[np.float32]

VALUE_LOSSES = ("mse", "l1", "huber")


def build_loss(
    spec: LossSpec | None,
    kind: Kind,
    ordinal: str,
    names: Sequence[str],
    train_targets: Targets | None,
    device: torch.device | str = "cpu",
) -> Loss:
    """Return the loss of (logits, targets), both (B, K) or (B, 1), as a scalar mean over the batch.

    Targets are soft already: one-hot or mixed, multi-hot, or standardised values. Label smoothing happens inside, and
    nowhere else. A third argument (B,) weighs the samples: the loss is then the mean over B of weight times loss.

    Args:
        spec: the loss and its options; None takes the default of the kind.
        kind: of the task.
        ordinal: `softmax` or `regression`; read by the kind `ordinal` only.
        names: class, label or target names, in the order of the columns. A binary task's positive class is the last.
        train_targets: targets of the fold's training part as `Rows` holds them; read by `balanced` weights only.
        device: where the weights are kept, so that a step copies nothing.

    Raises:
        ConfigError: the loss does not fit the kind, a weight names no class, or `balanced` lacks the targets.
    """
    _check_fits(spec, kind, ordinal)
    if isinstance(spec, CrossEntropy):
        weights = _on(_class_weights(spec.class_weights, names, train_targets), device)
        eps = spec.label_smoothing
        return _checked(lambda z, t, w: soft_cross_entropy(z, smooth_targets(t, eps), weights, w))
    if isinstance(spec, BinaryCrossEntropy):
        labels = names[-1:] if kind == "binary" else names
        positive = _on(_positive_weights(spec.positive_weights, labels, train_targets), device)
        eps = spec.label_smoothing
        return _checked(lambda z, t, w: binary_cross_entropy(z, smooth_multihot(t, eps), positive, w))
    if isinstance(spec, Huber):
        delta = spec.delta
        return _checked(lambda z, t, w: huber(z, t, delta, w))
    if spec is None:
        plain: dict[str, Loss] = {
            "cross_entropy": lambda z, t, w: soft_cross_entropy(z, t, None, w),
            "bce": lambda z, t, w: binary_cross_entropy(z, t, None, w),
            "mse": mse,
        }
        return _checked(plain[default_loss(kind, ordinal)])
    return _checked(mse if isinstance(spec, SquaredError) else l1)


def default_loss(kind: Kind, ordinal: str) -> str:
    """Return the name of the loss that a task takes when the experiment states none."""
    return allowed_losses(kind, ordinal)[0]


def allowed_losses(kind: Kind, ordinal: str) -> tuple[str, ...]:
    """Return the names of the losses that fit a kind of task, the default first."""
    if kind in ("binary", "multilabel"):
        return ("bce",)
    if kind == "multiclass" or (kind == "ordinal" and ordinal == "softmax"):
        return ("cross_entropy",)
    return VALUE_LOSSES


def n_outputs(kind: Kind, names: Sequence[str], ordinal: str) -> int:
    """Return how many numbers the model gives per item: one per name, but one for binary and regressed grades."""
    return 1 if kind == "binary" or (kind == "ordinal" and ordinal == "regression") else len(names)


def activate(logits: Tensor, kind: Kind, ordinal: str) -> Tensor:
    """Return probabilities (softmax or sigmoid, by the kind) or the values as they are, (B, K), float32."""
    loss = default_loss(kind, ordinal)
    if loss == "cross_entropy":
        return logits.float().softmax(dim=1)
    return logits.float().sigmoid() if loss == "bce" else logits.float()


def soft_targets(labels: Tensor, n_classes: int) -> Tensor:
    """Return integer labels (B,) of 0..K-1 as one-hot float32 rows, (B, K)."""
    return F.one_hot(labels.long(), n_classes).float()


def smooth_targets(targets: Tensor, eps: float) -> Tensor:
    """Return targets (B, K) with a share `eps` of their mass spread evenly over all K classes.

    One-hot becomes 1-eps+eps/K and eps/K (the mass goes over K, not K-1), as in torch and timm. Rows that sum to one
    still do. Source: Szegedy et al. 2015, https://arxiv.org/abs/1512.00567.
    """
    return targets * (1 - eps) + eps / targets.shape[1]


def smooth_multihot(targets: Tensor, eps: float) -> Tensor:
    """Return targets in [0, 1] moved towards one half: 0 becomes eps/2 and 1 becomes 1-eps/2."""
    return targets * (1 - eps) + eps / 2


def soft_cross_entropy(
    logits: Tensor, targets: Tensor, class_weights: Tensor | None = None, sample_weights: Tensor | None = None
) -> Tensor:
    """Return the mean over B of -sum_k w_k t_k log softmax(z)_k.

    With weights too the sum is divided by B, as torch does for probability targets (and not by the sum of the weights,
    as it does for labels), so that micro-batches add up. `balanced` weights are 1 on average over the training part.

    Args:
        logits: (B, K), any floating type.
        targets: (B, K), rows summing to one.
        class_weights: (K,) or None for ones.
        sample_weights: (B,) or None for ones.
    """
    logits = _wide(logits)
    targets, weights = targets.to(logits.dtype), _as(class_weights, logits)
    losses = F.cross_entropy(logits, targets, weights, reduction=_reduction(sample_weights))
    return _weighted(losses, sample_weights)


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, positive_weights: Tensor | None = None, sample_weights: Tensor | None = None
) -> Tensor:
    """Return the mean over B and K of -(w_k t log s + (1-t) log(1-s)) with s = sigmoid(z).

    Args:
        logits: (B, K), any floating type.
        targets: (B, K) in [0, 1].
        positive_weights: (K,) weight of the positive term, or None for ones.
        sample_weights: (B,) or None for ones.
    """
    logits = _wide(logits)
    weights = _as(positive_weights, logits)
    losses = F.binary_cross_entropy_with_logits(
        logits, targets.to(logits.dtype), pos_weight=weights, reduction=_reduction(sample_weights)
    )
    return _weighted(losses, sample_weights)


def mse(values: Tensor, targets: Tensor, sample_weights: Tensor | None = None) -> Tensor:
    """Return the mean squared error over B and T, samples weighted by (B,) where given."""
    values = _wide(values)
    losses = F.mse_loss(values, targets.to(values.dtype), reduction=_reduction(sample_weights))
    return _weighted(losses, sample_weights)


def l1(values: Tensor, targets: Tensor, sample_weights: Tensor | None = None) -> Tensor:
    """Return the mean absolute error over B and T, samples weighted by (B,) where given."""
    values = _wide(values)
    losses = F.l1_loss(values, targets.to(values.dtype), reduction=_reduction(sample_weights))
    return _weighted(losses, sample_weights)


def huber(values: Tensor, targets: Tensor, delta: float = 1.0, sample_weights: Tensor | None = None) -> Tensor:
    """Return the mean of e^2/2 where |e| <= delta and delta*(|e| - delta/2) beyond (Huber 1964), weighted like `l1`."""
    values = _wide(values)
    losses = F.huber_loss(values, targets.to(values.dtype), delta=delta, reduction=_reduction(sample_weights))
    return _weighted(losses, sample_weights)


def balanced_class_weights(targets: Targets, n_classes: int) -> NDArray[np.float64]:
    """Return n / (K * n_k) per class, (K,), from labels (N,) or soft targets (N, K); 0 for a class without rows.

    A class that the training part lacks has nothing to learn from; weight 0 keeps label smoothing from lifting it.
    """
    counts = np.bincount(targets, minlength=n_classes) if targets.ndim == 1 else targets.sum(axis=0, dtype=np.float64)
    weights = np.zeros(n_classes)
    np.divide(len(targets), n_classes * counts, out=weights, where=counts > 0)
    return weights


def balanced_positive_weights(targets: Targets) -> NDArray[np.float64]:
    """Return negatives / positives per label, from (N,) or (N, K) of 0 and 1; 1 where one of the two is missing."""
    columns = targets.reshape(len(targets), -1).astype(np.float64)
    positives = columns.sum(axis=0)
    negatives = len(columns) - positives
    weights = np.ones(columns.shape[1])
    np.divide(negatives, positives, out=weights, where=(positives > 0) & (negatives > 0))
    return weights


def _check_fits(spec: LossSpec | None, kind: Kind, ordinal: str) -> None:
    allowed = allowed_losses(kind, ordinal)
    if spec is not None and spec.name not in allowed:
        what = f"{kind} ({ordinal})" if kind == "ordinal" else kind
        raise ConfigError(f"loss.name: '{spec.name}' does not fit kind: {what}. Allowed: {listed(allowed)}")


def _checked(loss: Loss) -> Loss:
    """Return the loss behind a check of shapes: (B,) against (B, 1) would silently compare all pairs."""

    def checked(logits: Tensor, targets: Tensor, sample_weights: Tensor | None = None) -> Tensor:
        if logits.shape != targets.shape:
            raise MismatchError(f"logits of shape {tuple(logits.shape)} meet targets of {tuple(targets.shape)}")
        return loss(logits, targets, sample_weights)

    return checked


def _reduction(sample_weights: Tensor | None) -> str:
    return "mean" if sample_weights is None else "none"


def _weighted(losses: Tensor, sample_weights: Tensor | None) -> Tensor:
    """Return the mean over B of weight times loss, of losses (B,) or (B, K); without weights they are reduced."""
    if sample_weights is None:
        return losses
    return (losses.reshape(len(losses), -1).mean(1) * sample_weights.to(losses.dtype)).mean()


def _class_weights(
    given: ClassWeights | None, names: Sequence[str], targets: Targets | None
) -> NDArray[np.float64] | None:
    if given == "balanced":
        return balanced_class_weights(_needed(targets, "loss.class_weights"), len(names))
    return _by_name(given, names, "loss.class_weights")


def _positive_weights(
    given: ClassWeights | None, names: Sequence[str], targets: Targets | None
) -> NDArray[np.float64] | None:
    if given == "balanced":
        return balanced_positive_weights(_needed(targets, "loss.positive_weights"))
    return _by_name(given, names, "loss.positive_weights")


def _by_name(given: ClassWeights | None, names: Sequence[str], key: str) -> NDArray[np.float64] | None:
    """Return the weights in the order of `names`, 1 where none is given."""
    if given is None or isinstance(given, str):
        return None
    for name in given:
        if name not in names:
            raise ConfigError(f"{key}: '{name}' is no class here.{nearest(name, names)} Known: {listed(names)}")
    return np.array([given.get(name, 1.0) for name in names])


def _needed(targets: Targets | None, key: str) -> Targets:
    if targets is None or len(targets) == 0:
        raise ConfigError(f"{key}: balanced needs the targets of the training part, and there are none")
    return targets


def _on(weights: NDArray[np.float64] | None, device: torch.device | str) -> Tensor | None:
    return None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)


def _as(weights: Tensor | None, logits: Tensor) -> Tensor | None:
    return None if weights is None else weights.to(logits)


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
