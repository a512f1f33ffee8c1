"""From a task and an experiment to the parts of one unit: model, loss, optimiser, normalisation; refuses what misfits.

Everything that a unit of work needs to know is gathered here once, so that the loop in `train` holds no `if` about
kinds of tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.augment.draw import Draw
from pipeline.augment.images import augment_images
from pipeline.augment.limits import refuse_image_augment
from pipeline.augment.signals import augment_signals, refuse_signal_augment
from pipeline.base.errors import ConfigError
from pipeline.base.keyed import make_key, seeded
from pipeline.data.batches import Items, channel_stats
from pipeline.models.build import build_model
from pipeline.models.timm_nets import pretrained_stats
from pipeline.records.augmentation import Augment
from pipeline.records.cv import is_value
from pipeline.records.experiment import ChannelStats, Experiment, LossSpec, ModelSpec
from pipeline.records.machine import Machine
from pipeline.records.rows import Rows
from pipeline.records.runs import FoldName
from pipeline.records.task import Task
from pipeline.training.ema import Ema
from pipeline.training.losses import activate, build_loss, n_outputs
from pipeline.training.optim import build_optimizer, schedule_warnings
from pipeline.training.views import refuse_views, try_views

SIGNAL_ONLY = (
    "time_shift",
    "amplitude",
    "phase",
    "band_stop",
    "signal_noise",
    "time_mask",
    "channel_dropout",
    "sign_flip",
)
IMAGE_ONLY = tuple(name for name in Augment.model_fields if name not in SIGNAL_ONLY)


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


@dataclass(frozen=True)
class Parts:
    """The working parts of one unit."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    loss: Callable[[Tensor, Tensor], Tensor]
    """What training minimises: (logits, soft targets) -> mean over the batch."""
    heldout_loss: Callable[[Tensor, Tensor], Tensor]
    """The same without smoothing and weights, so that it can be compared between experiments."""
    scaling: Scaling
    inputs: Callable[[Tensor, Draw, Draw, int], Tensor]
    """(stored items (B, ...), draws, draws that are the same in every epoch, epoch) -> augmented, normalised inputs."""
    activate: Callable[[Tensor], Tensor]
    """Logits (B, K) -> probabilities or standardised values, float32."""


def build_parts(
    task: Task,
    experiment: Experiment,
    machine: Machine,
    rows: Rows,
    items: Items,
    train: NDArray[np.int64],
    seed: int,
    fold: FoldName = "all",
) -> Parts:
    """Return the parts of a unit that trains on the rows at `train`; initialisation is keyed by `seed`.

    `fold` is what `{fold}` in the path of start weights becomes. Everything that is measured (normalisation, class
    weights, scale of the targets) is measured on `train` alone. What
    misfits was refused by `try_parts`; here the experiment comes from `run.json`, where every key is written.
    """
    scaling = measure_scaling(task, experiment, rows, items, train)
    spec = experiment.model.started_for(fold)
    model = new_model(task, spec, items.shape, rows, seed).to(machine.device)
    if len(items.shape) == 3:
        model = model.to(memory_format=torch.channels_last)
    return Parts(
        model=model,
        optimizer=build_optimizer(experiment.optimizer, model),
        ema=Ema(model, experiment.ema.decay, experiment.ema.warmup) if experiment.ema else None,
        loss=build_loss(experiment.loss, task.kind, task.ordinal, rows.names, _targets_at(rows, train), machine.device),
        heldout_loss=build_loss(_bare(experiment.loss), task.kind, task.ordinal, rows.names, None, machine.device),
        scaling=scaling,
        inputs=_inputs(task, experiment.augment, items, scaling),
        activate=lambda logits: activate(logits, task.kind, task.ordinal),
    )


def prepare(batch: Tensor, scaling: Scaling) -> Tensor:
    """Return stored items (B, C, ...) as the model sees them: float32, normalised, channels-last for images."""
    shape = (1, -1) + (1,) * (batch.ndim - 2)
    inputs = (batch.float() - scaling.mean.view(shape)) / scaling.std.view(shape)
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


def _inputs(
    task: Task, augment: Augment, items: Items, scaling: Scaling
) -> Callable[[Tensor, Draw, Draw, int], Tensor]:
    """Return how training samples become inputs.

    Images are changed as they are stored, where black is zero; signals once they are normalised, where zero is the mean
    of a channel, so that silence and turned signs know no offset.
    """
    if len(items.shape) == 3:
        scale = items.full_scale
        return lambda batch, draw, lasting, epoch: prepare(
            augment_images(batch, augment, draw, lasting, epoch, scale), scaling
        )
    return lambda batch, draw, _, __: augment_signals(prepare(batch, scaling), augment, draw, task.sample_rate_hz)


def new_model(task: Task, spec: ModelSpec, in_shape: tuple[int, ...], rows: Rows, seed: int) -> nn.Module:
    """Return a model with the initial weights that the seed gives, or those of the file that it names."""
    with seeded(make_key("init", seed)):
        return build_model(spec, in_shape, n_outputs(task.kind, rows.names, task.ordinal), Path())


def try_parts(
    task: Task, experiment: Experiment, in_shape: tuple[int, ...], rows: Rows, fold: FoldName = 0
) -> nn.Module:
    """Build model, optimiser and loss once and run two empty items through, so that a misfit shows before any work.

    Raises:
        ConfigError: an option is unknown or out of range, or the model does not take items of this shape.
    """
    refuse_misfits(task, experiment)
    if len(in_shape) == 3:
        refuse_image_augment(experiment.augment, in_shape)
    else:
        refuse_signal_augment(experiment.augment, (in_shape[0], in_shape[1]), task.sample_rate_hz)
    model = new_model(task, experiment.model.started_for(fold), in_shape, rows, experiment.seeds[0])
    build_optimizer(experiment.optimizer, model)
    build_loss(experiment.loss, task.kind, task.ordinal, rows.names, np.asarray(rows.targets))
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(2, *in_shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(f"model.{experiment.model.name}: does not take items of shape {in_shape}: {error}") from None
    try_views(experiment.predict.views, model, in_shape)
    return model


def refuse_misfits(task: Task, experiment: Experiment) -> None:
    """Raise a ConfigError for a key that this task would never read, or a choice that lacks what it needs.

    What the types of the records cannot see is checked here: keys for images in a task of signals, and the reverse.
    """
    wrong = SIGNAL_ONLY if task.input == "image" else IMAGE_ONLY
    for name in wrong:
        if getattr(experiment.augment, name):
            raise ConfigError(f"augment.{name}: is never read, because the task's input is `{task.input}`")
    written = experiment.input.model_fields_set - {"normalize"}
    if task.input == "signal" and written:
        raise ConfigError(f"input.{min(written)}: is never read, because the task's input is `signal`")
    if experiment.train.weights == "ema" and experiment.ema is None:
        raise ConfigError("train.weights: ema needs the ema: block, such as `ema: {decay: 0.999}`")
    if experiment.train.sampling == "balanced" and task.kind in ("multilabel", "regression"):
        raise ConfigError(f"train.sampling: balanced needs one class per row; the task's kind is {task.kind}")
    if experiment.train.accumulation > experiment.train.batch_size:
        raise ConfigError(
            f"train.accumulation: {experiment.train.accumulation} micro-batches cannot be made of"
            f" train.batch_size: {experiment.train.batch_size} samples"
        )
    refuse_views(experiment.predict, task.input, is_value(task))


def warnings_of(experiment: Experiment) -> list[str]:
    """Return notes on numbers that are never reached, such as a milestone after the last epoch."""
    notes = schedule_warnings(experiment.schedule, experiment.train.epochs)
    epochs = experiment.train.epochs
    if experiment.mix is not None and experiment.mix.off_epochs >= epochs:
        notes.append(f"mix.off_epochs: {experiment.mix.off_epochs} of {epochs} epochs, so nothing is ever mixed")
    if experiment.sam is not None and experiment.sam.start_epoch >= epochs:
        notes.append(f"sam.start_epoch: {experiment.sam.start_epoch} is never reached in {epochs} epochs")
    if experiment.ema is not None and experiment.train.weights == "last":
        notes.append("ema: is kept but does not predict; train.weights: ema makes it")
    return notes


def measure_scaling(task: Task, experiment: Experiment, rows: Rows, items: Items, train: NDArray[np.int64]) -> Scaling:
    """Return the scaling of items and targets, measured on the rows at `train` where it is measured."""
    mean, std = _item_scaling(experiment, rows, items, train)
    n_targets = n_outputs(task.kind, rows.names, task.ordinal)
    target_mean, target_std = torch.zeros(n_targets), torch.ones(n_targets)
    if task.kind == "regression" or (task.kind == "ordinal" and task.ordinal == "regression"):
        values = torch.from_numpy(np.array(_targets_at(rows, train), dtype=np.float64)).reshape(len(train), n_targets)
        target_mean = values.mean(0)
        target_std = torch.where(values.std(0, correction=0) > 0, values.std(0, correction=0), 1.0)
    device = items.device
    return Scaling(
        mean.float().to(device), std.float().to(device), target_mean.float().to(device), target_std.float().to(device)
    )


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
        return (targets.float().reshape(len(rows), -1) - scaling.target_mean) / scaling.target_std
    return nn.functional.one_hot(targets, len(rows.names)).float()


def hard_labels(rows: Rows) -> NDArray[np.int64]:
    """Return one class index per row, (N,); the heaviest class of soft targets."""
    targets = np.asarray(rows.targets)
    return targets.argmax(axis=1) if targets.ndim == 2 else targets.astype(np.int64)


def _bare(spec: LossSpec | None) -> LossSpec | None:
    """Return a loss without smoothing and weights."""
    neutral = {"label_smoothing": 0.0, "class_weights": None, "positive_weights": None}
    return (
        spec.model_copy(update={key: neutral[key] for key in neutral if key in type(spec).model_fields})
        if spec
        else None
    )


def _targets_at(rows: Rows, positions: NDArray[np.int64]) -> NDArray[Any]:
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
    # Each item once, in the order of the rows: the last bits of the sums then do not depend on the store's order.
    positions = list(dict.fromkeys(item for row in train for item in rows.items[row]))
    return channel_stats(items, np.array(positions, dtype=np.int64))


def _per_channel(values: tuple[float, ...], n_channels: int, what: str) -> Tensor:
    """Return one value per channel; a single value, or the mean of an RGB model's three, serves other counts."""
    if len(values) == n_channels:
        return torch.tensor(values)
    if len(values) == 1 or n_channels == 1:
        return torch.full((n_channels,), sum(values) / len(values))
    raise ConfigError(f"input.normalize.{what}: has {len(values)} values, but items have {n_channels} channels")
