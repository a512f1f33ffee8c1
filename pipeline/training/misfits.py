"""What misfits is refused before any work: keys that are never read, parts that do not go together, shapes.

Numbers that are never reached are no errors but warnings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from pipeline.augment.limits import refuse_image_augment
from pipeline.augment.resize import grown_size
from pipeline.augment.signals import refuse_signal_augment
from pipeline.base.errors import ConfigError
from pipeline.data.forms import stored_rate
from pipeline.records.augmentation import Augment
from pipeline.records.cv import is_value
from pipeline.records.experiment import Experiment, Input
from pipeline.records.rows import Rows
from pipeline.records.runs import FoldName
from pipeline.records.signal_steps import SignalSteps
from pipeline.records.task import Task
from pipeline.training.layers import frozen_names, movable_names
from pipeline.training.losses import build_loss
from pipeline.training.optim import build_optimizer, schedule_warnings
from pipeline.training.recipe import new_model, recipe_of
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


def try_parts(
    task: Task,
    experiment: Experiment,
    in_shape: tuple[int, ...],
    rows: Rows,
    fold: FoldName = 0,
    full_scale: float = 255.0,
) -> nn.Module:
    """Build model, optimiser and loss once and run two empty items through, so that a misfit shows before any work.

    Raises:
        ConfigError: an option is unknown or out of range, or the model does not take items of this shape.
    """
    refuse_misfits(task, experiment)
    shapes = training_shapes(task, experiment, in_shape, full_scale)
    model = new_model(task, experiment.model.started_for(fold), in_shape, rows, experiment.seeds[0])
    if experiment.train.freeze is not None:
        frozen_names(model, experiment.train.freeze, movable_names(model))
    build_optimizer(experiment.optimizer, model)
    build_loss(experiment.loss, task.kind, task.ordinal, rows.names, np.asarray(rows.targets))
    for key, shape in shapes.items():
        _try_shape(model, experiment, key, shape)
    try_views(experiment.predict.views, model, in_shape)
    return model


def training_shapes(
    task: Task, experiment: Experiment, in_shape: tuple[int, ...], full_scale: float
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of items that the model meets in this experiment, by the key that makes them.

    Raises:
        ConfigError: a change of `augment:` does not fit items of this shape.
    """
    augment = experiment.augment
    shapes = {"": in_shape}
    if len(in_shape) != 3:
        for key, each in _augments(experiment).items():
            with _named(key):
                refuse_signal_augment(each, (in_shape[0], in_shape[1]), stored_rate(task, experiment.input))
        return shapes
    recipe = recipe_of(augment, in_shape, full_scale)
    trained = recipe.out_shape if recipe else in_shape
    for key, each in _augments(experiment).items():
        with _named(key):
            refuse_image_augment(each, (trained[0], trained[1], trained[2]))
    if recipe:
        shapes["augment.albumentations"] = trained
    if experiment.input.gradual is not None:
        size = grown_size(experiment.input.gradual, (trained[1], trained[2]), 0)
        shapes["input.gradual"] = (trained[0], *size)
    return shapes


def _augments(experiment: Experiment) -> dict[str, Augment]:
    """Return the blocks of changes by their keys."""
    strong = {"consistency.strong": experiment.consistency.strong} if experiment.consistency else {}
    return {"augment": experiment.augment, **strong}


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Let errors about `augment.` name the block that is meant."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(str(error).replace("augment.", f"{key}.", 1)) from None


def _try_shape(model: nn.Module, experiment: Experiment, key: str, shape: tuple[int, ...]) -> None:
    """Run two empty items of a shape through the model; raise a ConfigError that names what makes the shape."""
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(2, *shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        whose = f"{key}: makes items of shape {shape}, which {experiment.model.name}" if key else ""
        whose = whose or f"model.{experiment.model.name}: does not take items of shape {shape}"
        raise ConfigError(f"{whose}{' does not take' if key else ''}: {error}") from None


def refuse_misfits(task: Task, experiment: Experiment) -> None:
    """Raise a ConfigError for a key that this task would never read, or a choice that lacks what it needs.

    What the types of the records cannot see is checked here: keys for images in a task of signals, and the reverse.
    """
    wrong = SIGNAL_ONLY if task.input == "image" else IMAGE_ONLY
    for key, augment in _augments(experiment).items():
        for name in wrong:
            if getattr(augment, name):
                raise ConfigError(f"{key}.{name}: is never read, because the task's input is `{task.input}`")
    _refuse_unlabelled(task, experiment)
    of_signals = {"length", "align", "clip", *SignalSteps.model_fields}
    others = of_signals if task.input == "image" else set(Input.model_fields) - of_signals - {"normalize", "nan"}
    if written := others & experiment.input.model_fields_set:
        raise ConfigError(f"input.{min(written)}: is never read, because the task's input is `{task.input}`")
    if task.input == "signal" and not experiment.train.channels_last:
        raise ConfigError("train.channels_last: is never read, because the task's input is `signal`")
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


def _refuse_unlabelled(task: Task, experiment: Experiment) -> None:
    """Raise a ConfigError where rows without labels cannot be learnt from."""
    spec = experiment.consistency
    key = "pseudo" if experiment.pseudo else "consistency"
    if experiment.pseudo is not None and spec is not None:
        raise ConfigError("pseudo: and consistency: both learn from unlabelled rows; switch one of them off")
    if (experiment.pseudo or spec) and task.rules.pseudo_labels == "forbidden":
        raise ConfigError(f"{key}: the rules of the task forbid it (rules.pseudo_labels: forbidden in task.yaml)")
    if experiment.pseudo is not None and experiment.pseudo.labels is None:
        raise ConfigError("pseudo.labels: is missing; name the folder that `podium pseudo` wrote")
    if (experiment.pseudo or spec) and task.test is None and task.unlabelled is None:
        raise ConfigError(f"{key}: needs rows without labels, and the task has neither test: nor unlabelled:")
    if (experiment.pseudo or spec) and experiment.train.compile and experiment.train.accumulation > 1:
        raise ConfigError(f"{key}: makes micro-batches of two sizes with train.accumulation, but compile: wants one")
    if spec is None:
        return
    if experiment.ema is None:
        raise ConfigError("consistency: needs the ema: block, such as `ema: {decay: 0.999}`, whose weights teach")
    if task.kind in ("multilabel", "regression") or is_value(task):
        raise ConfigError(f"consistency: needs one class per row; the task's kind is {task.kind}")
    if spec.strong.albumentations:
        raise ConfigError("consistency.strong.albumentations: is not read; give it in augment:, for both views")


def _unlabelled_warnings(experiment: Experiment) -> list[str]:
    notes = []
    for key, spec in (("pseudo", experiment.pseudo), ("consistency", experiment.consistency)):
        if spec is not None and spec.start_epoch >= experiment.train.epochs:
            notes.append(f"{key}.start_epoch: {spec.start_epoch} is never reached in {experiment.train.epochs} epochs")
    smoothing = getattr(experiment.loss, "label_smoothing", 0.0)
    if experiment.consistency is not None and 1 - smoothing < experiment.consistency.threshold:
        notes.append(
            f"consistency.threshold: {experiment.consistency.threshold} is hardly ever reached with label_smoothing:"
            f" {smoothing}, which teaches probabilities of about {1 - smoothing:g}"
        )
    return notes


def warnings_of(experiment: Experiment) -> list[str]:
    """Return notes on numbers that are never reached, such as a milestone after the last epoch."""
    notes = schedule_warnings(experiment.schedule, experiment.train.epochs)
    epochs = experiment.train.epochs
    if experiment.mix is not None and experiment.mix.off_epochs >= epochs:
        notes.append(f"mix.off_epochs: {experiment.mix.off_epochs} of {epochs} epochs, so nothing is ever mixed")
    if experiment.sam is not None and experiment.sam.start_epoch >= epochs:
        notes.append(f"sam.start_epoch: {experiment.sam.start_epoch} is never reached in {epochs} epochs")
    if experiment.input.gradual is not None and experiment.input.gradual.full_epoch >= epochs:
        notes.append(
            f"input.gradual.full_epoch: {experiment.input.gradual.full_epoch} is never reached in {epochs} epochs, so"
            " the model never trains on the size that it predicts at"
        )
    if experiment.train.early_stop is not None:
        notes.append(
            "train.early_stop: chooses the number of epochs by the fold that is scored, so CV is a little too good"
        )
        if experiment.train.early_stop.patience >= epochs:
            notes.append(
                f"train.early_stop.patience: {experiment.train.early_stop.patience} is never reached in {epochs} epochs"
            )
        if experiment.train.weights != "best":
            notes.append(
                f"train.weights: {experiment.train.weights} predicts with the epoch that training stopped at,"
                " `patience` epochs past the best; train.weights: best takes that one"
            )
    if experiment.train.keep_epochs > epochs:
        notes.append(f"train.keep_epochs: {experiment.train.keep_epochs} of {epochs} epochs, so all are kept")
    if experiment.optimizer.name == "adadelta" and experiment.optimizer.lr < 0.1:
        notes.append(f"optimizer.lr: {experiment.optimizer.lr:g} scales the steps of adadelta, whose own rate is 1")
    notes += _unlabelled_warnings(experiment)
    freeze = experiment.train.freeze
    if freeze is not None and freeze.n_epochs is not None and freeze.n_epochs >= epochs:
        notes.append(f"train.freeze.n_epochs: {freeze.n_epochs} of {epochs} epochs, so the frozen layers never move")
    if experiment.ema is not None and experiment.train.weights == "last":
        notes.append("ema: is kept but does not predict; train.weights: ema makes it")
    return notes
