"""From a task and an experiment to the parts of one unit: model, loss, optimiser, normalisation; refuses what misfits.

Everything that a unit of work needs to know is gathered here once, so that the loop in `train` holds no `if` about
kinds of tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.augment.albumentations import Recipe, build_recipe
from pipeline.augment.draw import Draw
from pipeline.augment.images import augment_images
from pipeline.augment.resize import grown_size, resize_images
from pipeline.augment.signals import augment_signals
from pipeline.base.keyed import make_key, seeded
from pipeline.data.batches import Items
from pipeline.data.forms import stored_rate
from pipeline.models.build import build_model
from pipeline.records.augmentation import Augment
from pipeline.records.experiment import Experiment, LossSpec, ModelSpec
from pipeline.records.machine import Machine
from pipeline.records.rows import Rows
from pipeline.records.runs import FoldName
from pipeline.records.subjects import subject_names
from pipeline.records.task import Task
from pipeline.training.ema import Ema
from pipeline.training.losses import Loss, activate, build_loss, n_outputs
from pipeline.training.optim import build_optimizer
from pipeline.training.scaling import Scaling, measure_model, measure_scaling, prepare, targets_at
from pipeline.training.teacher import teach

Inputs = Callable[[Tensor, Draw, Draw, int], Tensor]


@dataclass(frozen=True)
class Parts:
    """The working parts of one unit."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    loss: Loss
    """What training minimises: (logits, soft targets, weights of the samples or None) -> mean over the batch."""
    heldout_loss: Loss
    """The same without smoothing and weights, so that it can be compared between experiments."""
    scaling: Scaling
    inputs: Inputs
    """(stored items (B, ...), draws, draws that are the same in every epoch, epoch) -> augmented, normalised inputs."""
    activate: Callable[[Tensor], Tensor]
    """Logits (B, K) -> probabilities or standardised values, float32."""
    forward: Callable[[Tensor], Tensor]
    """The model's training pass: the model itself, or its compiled form."""
    scaler: torch.amp.GradScaler
    """Of the loss; does nothing but for fp16."""
    recipe: Recipe | None
    """The transforms of albumentations, which run before `inputs`."""
    strong: Inputs | None
    """As `inputs`, the strong view of a sample; None without `consistency:`."""
    teach: Callable[[Tensor], tuple[Tensor, Tensor]] | None
    """Weakly changed inputs (E, ...) -> one-hot targets (E, K) and where they count (E,); None without it."""


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
    model = laid_out(new_model(task, spec, items.shape, rows, seed).to(machine.device), items.shape, machine)
    if spec == spec.without_start():  # else the file holds what was measured where its weights were learnt
        measure_model(model, items, rows, train, scaling)
    ema = Ema(model, experiment.ema.decay, experiment.ema.warmup) if experiment.ema else None
    views = experiment.consistency

    def decide(logits: Tensor) -> Tensor:
        return activate(logits, task.kind, task.ordinal)

    return Parts(
        model=model,
        optimizer=build_optimizer(experiment.optimizer, model),
        ema=ema,
        loss=build_loss(experiment.loss, task.kind, task.ordinal, rows.names, targets_at(rows, train), machine.device),
        heldout_loss=build_loss(_bare(experiment.loss), task.kind, task.ordinal, rows.names, None, machine.device),
        scaling=scaling,
        inputs=_inputs(task, experiment, experiment.augment, items, scaling, machine),
        strong=_inputs(task, experiment, views.strong, items, scaling, machine) if views else None,
        teach=partial(teach, model, ema.state(), decide, views.threshold, machine) if views and ema else None,
        recipe=recipe_of(experiment.augment, items.shape, items.full_scale),
        activate=decide,
        forward=compiled(model) if experiment.train.compile else model,
        scaler=torch.amp.GradScaler(torch.device(machine.device).type, enabled=machine.precision == "fp16"),
    )


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the compiled pass of a model, one for each shape that it meets; the model shares its weights."""
    # By default torch silently leaves shapes uncompiled from the ninth on, which growing images may reach.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 128)
    forward: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False)
    return forward


def laid_out(model: nn.Module, in_shape: tuple[int, ...], machine: Machine) -> nn.Module:
    """Return the model with its weights in the layout of its inputs."""
    is_channels_last = len(in_shape) == 3 and machine.channels_last
    return model.to(memory_format=torch.channels_last) if is_channels_last else model


def recipe_of(augment: Augment, in_shape: tuple[int, ...], full_scale: float) -> Recipe | None:
    """Return the transforms of albumentations that an experiment asks for; None where it asks for none."""
    return build_recipe(augment.albumentations, in_shape, full_scale) if augment.albumentations else None


def _inputs(
    task: Task, experiment: Experiment, augment: Augment, items: Items, scaling: Scaling, machine: Machine
) -> Inputs:
    """Return how training samples become inputs.

    Images are changed as they are stored, where black is zero; signals once they are normalised, where zero is the mean
    of a channel, so that silence and turned signs know no offset.
    """
    if len(items.shape) != 3:
        rate_hz = stored_rate(task, experiment.input)
        return lambda batch, draw, _, __: augment_signals(prepare(batch, scaling), augment, draw, rate_hz)

    def inputs(batch: Tensor, draw: Draw, lasting: Draw, epoch: int) -> Tensor:
        changed = augment_images(batch, augment, draw, lasting, epoch, items.full_scale)
        size = grown_size(experiment.input.gradual, (batch.shape[2], batch.shape[3]), epoch)
        return prepare(resize_images(changed, size), scaling, machine.channels_last)

    return inputs


def new_model(task: Task, spec: ModelSpec, in_shape: tuple[int, ...], rows: Rows, seed: int) -> nn.Module:
    """Return a model with the initial weights that the seed gives, or those of the file that it names."""
    with seeded(make_key("init", seed)):
        n_subjects = len(subject_names(rows))
        return build_model(spec, in_shape, n_outputs(task.kind, rows.names, task.ordinal), Path(), n_subjects)


def _bare(spec: LossSpec | None) -> LossSpec | None:
    """Return a loss without smoothing and weights."""
    neutral = {"label_smoothing": 0.0, "class_weights": None, "positive_weights": None}
    return (
        spec.model_copy(update={key: neutral[key] for key in neutral if key in type(spec).model_fields})
        if spec
        else None
    )
