"""What turns stored items and targets into what a model sees and learns: measured on the training part of a fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.augment.pieces import in_pieces
from pipeline.base.errors import ConfigError
from pipeline.data.batches import Items, channel_stats, samples_of
from pipeline.data.robust import robust_stats
from pipeline.models.fast_nets import Measured
from pipeline.models.timm_nets import pretrained_stats
from pipeline.records.experiment import ChannelStats, Experiment, ValueLoss
from pipeline.records.rows import Rows
from pipeline.records.task import Task
from pipeline.training.losses import n_outputs

_MEASURED_ITEMS = 5_000


@dataclass(frozen=True)
class Scaling:
    """What turns stored items into what the model sees: (x - mean) / std per channel, and targets likewise."""

    mean: Tensor
    """(C,) in stored units."""
    std: Tensor
    """(C,) in stored units."""
    target_mean: Tensor
    """(T,) of the regression targets; zeros otherwise."""
    target_std: Tensor
    """(T,) of the regression targets; ones otherwise."""
    clip: Tensor | None = None
    """() largest size of a normalised value; None for no limit."""
    log_target: Tensor | None = None
    """() there, and 1, where mean and deviation of the targets are those of log(1 + y)."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is there, by name: `Scaling(**tensors)` is the same."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def standardised(self, values: Tensor) -> Tensor:
        """Return targets (N, T) in their own units as the loss sees them."""
        values = values if self.log_target is None else values.log1p()
        return (values - self.target_mean) / self.target_std

    def in_units(self, outputs: Tensor) -> Tensor:
        """Return what a model gives for targets, (N, T), in their own units; probabilities stay as they are."""
        values = outputs * self.target_std.to(outputs.dtype) + self.target_mean.to(outputs.dtype)
        return values if self.log_target is None else values.expm1().clamp(min=0)


def prepare(batch: Tensor, scaling: Scaling, is_channels_last: bool = True) -> Tensor:
    """Return stored items (B, C, ...) as the model sees them: float32, normalised, clipped, in the asked layout."""
    shape = (1, -1) + (1,) * (batch.ndim - 2)
    mean, std = scaling.mean.view(shape), scaling.std.view(shape)
    layout = torch.channels_last if batch.ndim == 4 and is_channels_last else torch.contiguous_format
    inputs = torch.empty(batch.shape, dtype=torch.float32, device=batch.device, memory_format=layout)
    limit = scaling.clip

    def normalise(part: Tensor) -> Tensor:
        normalised = part.to(torch.float32, copy=True).sub_(mean).div_(std)
        return normalised if limit is None else normalised.clamp_(-limit, limit)

    return in_pieces(normalise, batch, into=inputs)


def measure_scaling(task: Task, experiment: Experiment, rows: Rows, items: Items, train: NDArray[np.int64]) -> Scaling:
    """Return the scaling of items and targets, measured on the rows at `train` where it is measured."""
    mean, std = _item_scaling(experiment, rows, items, train)
    n_targets = n_outputs(task.kind, rows.names, task.ordinal)
    target_mean, target_std = torch.zeros(n_targets), torch.ones(n_targets)
    is_log = isinstance(experiment.loss, ValueLoss) and experiment.loss.log_target
    if task.kind == "regression" or (task.kind == "ordinal" and task.ordinal == "regression"):
        values = torch.from_numpy(np.array(targets_at(rows, train), dtype=np.float64)).reshape(len(train), n_targets)
        if is_log:
            _require_from_zero(rows)
            values = values.log1p()
        target_mean = values.mean(0)
        target_std = torch.where(values.std(0, correction=0) > 0, values.std(0, correction=0), 1.0)
    measured = {"mean": mean, "std": std, "target_mean": target_mean, "target_std": target_std}
    if experiment.input.clip is not None:
        measured["clip"] = torch.tensor(experiment.input.clip)
    if is_log:
        measured["log_target"] = torch.ones(())
    return Scaling(**{name: tensor.float().to(items.device) for name, tensor in measured.items()})


def measure_model(model: nn.Module, items: Items, rows: Rows, train: NDArray[np.int64], scaling: Scaling) -> None:
    """Measure what a model takes from its items rather than learns, on at most 5,000 rows of the training part.

    Which rows, and in which order, follows from their ids.
    """
    if not isinstance(model, Measured):
        return
    samples = samples_of(rows.ids, rows.items, train)
    chosen = samples.item[np.argsort(samples.key, kind="stable")[:_MEASURED_ITEMS]]
    model.measure(prepare(items.fetch(chosen), scaling))


def soft_targets(task: Task, rows: Rows, scaling: Scaling) -> Tensor:
    """Return what the loss sees for every row, (N, K) float32: one-hot, soft, multi-hot, or standardised values."""
    if rows.targets is None:
        raise ValueError("unlabelled rows have no targets")
    targets = torch.from_numpy(np.array(rows.targets)).to(scaling.mean.device)
    if targets.ndim == 2 and task.kind in ("multiclass", "multilabel"):
        return targets.float()
    if task.kind == "binary":
        return targets.float()[:, None]
    if task.kind == "regression" or task.ordinal == "regression":
        return scaling.standardised(targets.float().reshape(len(rows), -1))
    # Not `one_hot`, whose int64 would take twice the memory of the result beside it.
    return torch.zeros(len(rows), len(rows.names), device=targets.device).scatter_(1, targets[:, None], 1.0)


def hard_labels(rows: Rows) -> NDArray[np.int64]:
    """Return one class index per row, (N,); the heaviest class of soft targets."""
    targets = np.asarray(rows.targets)
    return targets.argmax(axis=1) if targets.ndim == 2 else targets.astype(np.int64)


def targets_at(rows: Rows, positions: NDArray[np.int64]) -> NDArray[Any]:
    """Return the targets of the rows at `positions`, as `Rows` holds them."""
    return np.asarray(rows.targets)[positions]


def _item_scaling(experiment: Experiment, rows: Rows, items: Items, train: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    n_channels = items.shape[0]
    how = experiment.input.normalize
    if isinstance(how, ChannelStats):
        return _per_channel(how.mean, n_channels, "mean"), _per_channel(how.std, n_channels, "std")
    if how == "none":
        return torch.zeros(n_channels), torch.ones(n_channels)
    if how == "pretrained":
        mean, std = pretrained_stats(experiment.model.name)
        scale = 65535.0 if items.is_uint16 else 255.0
        return _per_channel(mean, n_channels, "mean") * scale, _per_channel(std, n_channels, "std") * scale
    if how == "robust":
        return robust_stats(items, samples_of(rows.ids, rows.items, train))
    # Each item once, in the order of the rows: the last bits of the sums then do not depend on the store's order.
    positions = list(dict.fromkeys(item for row in train for item in rows.items[row]))
    return channel_stats(items, np.array(positions, dtype=np.int64))


def _require_from_zero(rows: Rows) -> None:
    """Raise where a target has no logarithm of 1 + y that is from 0 on."""
    low = np.asarray(rows.targets).reshape(len(rows), -1).min(axis=1)
    if (low < 0).any():
        row = int(low.argmin())
        raise ConfigError(
            f"loss.log_target: needs values from 0 on, but row '{rows.ids[row]}' has {low[row]:g}; leave it out"
        )


def _per_channel(values: tuple[float, ...], n_channels: int, what: str) -> Tensor:
    """Return one value per channel; a single value, or the mean of an RGB model's three, serves other counts."""
    if len(values) == n_channels:
        return torch.tensor(values)
    if len(values) == 1 or n_channels == 1:
        return torch.full((n_channels,), sum(values) / len(values))
    raise ConfigError(f"input.normalize.{what}: has {len(values)} values, but items have {n_channels} channels")
