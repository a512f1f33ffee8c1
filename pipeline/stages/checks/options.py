"""Is every option read: two trainings of a few steps, with it and at its default, must differ in some bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic.fields import FieldInfo
from torch import Tensor

from pipeline.base.errors import PodiumError, listed
from pipeline.base.interrupt import Deadline
from pipeline.records.experiment import Experiment, ModelSpec
from pipeline.records.record import Record
from pipeline.records.rows import Rows
from pipeline.records.signal_steps import SignalSteps
from pipeline.records.task import Kind, Task
from pipeline.stages.checks.context import Context, Finding, Ints, batches_of_epoch, step_batch
from pipeline.training.ema import state_tensors
from pipeline.training.layers import freeze_layers
from pipeline.training.losses import default_loss
from pipeline.training.train import StepAt, epoch_batches, train_step

READ = "every option is read"

BLOCKS = ("input", "augment", "mix", "model", "loss", "optimizer", "schedule", "train", "sam", "ema")
NOT_TRIED = {
    "input.size": "decides how items are stored",
    "input.channels": "decides how items are stored",
    "input.resize": "decides how items are stored",
    "input.length": "decides how items are stored",
    "input.align": "decides how items are stored",
    "input.nan": "decides how items are stored",
    **{f"input.{name}": "decides how items are stored" for name in SignalSteps.model_fields},
    "model.pretrained": "would fetch other weights",
    "model.weights": "start weights are left out here",
    "model.name": "decides everything",
    "train.epochs": "decides how long",
    "train.epoch_steps": "decides how long",
    "train.n_rows": "rows are few here",
    "train.score_training": "is only looked at",
    "train.layer_statistics": "is only looked at",
    "train.batch_size": "batches are small here",
    "train.accumulation": "changes the last bits at most",
    "train.precision": "may be what `auto` takes",
    "train.channels_last": "changes the last bits at most",
    "train.compile": "changes the last bits at most",
    "train.last_batch": "changes only an epoch's end",
    "train.early_stop": "acts after many epochs",
    "train.weights": "decides what is kept of a whole training",
}
"""Options that a few steps cannot show, each with the reason."""
MAY_NOT_BITE = {
    "train.clip_norm": "no gradient was longer",
    "ema.decay": "the warm-up keeps less until the end of the training",
    "ema.warmup": "the decay is the smaller one all the time",
    "input.clip": "no value was beyond it",
    "input.gradual.step_px": "the sides are rounded to the same",
    "loss.delta": "every error was on one side of it",
}
"""Options that may rightly change nothing, each with the reason why."""
MAX_BATCH, MIN_BATCH, N_DRAWN = 12, 4, 2000
"""Samples of a step, where there is time; samples that are drawn before a rare change counts as never made."""


@dataclass(frozen=True)
class Option:
    """A key whose value is not its default, and the experiment that has the default instead."""

    key: str
    without: Experiment


def check_options(context: Context) -> Finding:
    """Train a few steps, early, halfway and late, with all options and without each one; name those without a trace."""
    deadline = Deadline(context.limit_sec)
    if _batch_size(context) < MIN_BATCH:
        speed = f"{context.samples_per_sec:.1f} samples a second"
        return Finding(READ, "note", f"not tried: {speed} are too slow for a training per option", "use a GPU")
    whole = _trained(context, context.experiment)
    unread, idle, defaults, left, n_read = [], [], [], [], 0
    for option in options_of(context.task, context.experiment):
        if option.key in NOT_TRIED:
            continue
        if deadline.is_over:
            left.append(option.key)
        elif _differ(whole, trace(context, option.without)) or _draws_differ(context, option):
            n_read += 1
        elif option.key in MAY_NOT_BITE:
            idle.append(f"{option.key} changed nothing ({MAY_NOT_BITE[option.key]})")
        elif option.key.startswith(("model.", "optimizer.options.")):  # whose defaults only their functions know
            defaults.append(f"{option.key} is as by default")
        else:
            unread.append(option.key)
    if unread:
        advice = "training never reads what is written there: look at the way from the key to the step"
        return Finding(READ, "fail", f"{listed(unread)}: leaving it out changes no bit of the training", advice)
    notes = [*idle, *([f"out of time before {listed(left)}"] if left else [])]
    shown = [f"{n_read} options change the training", *defaults, *notes]
    return Finding(READ, "note" if notes else "pass", "; ".join(shown))


def options_of(task: Task, experiment: Experiment) -> Iterator[Option]:
    """Yield every block that is on and every value in it that is not its default, in the order of the records."""
    averages = experiment.ema is None or experiment.train.weights == "ema"  # else no weights that predict show them
    for block in BLOCKS if averages else BLOCKS[:-1]:
        for key, value in _without(getattr(experiment, block), type(experiment).model_fields[block], block):
            changed = experiment.model_copy(update={block: value})
            if changed.ema is None and changed.train.weights == "ema":
                changed = changed.model_copy(update={"train": changed.train.model_copy(update={"weights": "last"})})
            is_default_loss = key == "loss" and experiment.loss and experiment.loss.name == default_loss(*_kind(task))
            if not is_default_loss:
                yield Option(key, changed)


def _without(value: Any, field: FieldInfo, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys at and below a value that differ from their defaults, and what the value is without each."""
    default = field.get_default(call_default_factory=True)
    if value == default:
        return
    if isinstance(default, Record) and type(value) is not type(default):
        yield f"{key}.name", default  # another variant
    elif not field.is_required() and not isinstance(default, Record | dict):
        yield key, default
    if isinstance(value, ModelSpec):
        for name in value.options:
            yield f"{key}.{name}", ModelSpec(name=value.name, **_less(value.options, name))
    elif isinstance(value, Record):
        for name, inner in type(value).model_fields.items():
            for below, less in _without(getattr(value, name), inner, f"{key}.{name}"):
                if (changed := _changed(value, name, less)) is not None:
                    yield below, changed
    elif isinstance(value, dict) and isinstance(default, dict):
        for name in value:
            yield f"{key}.{name}", _less(value, name)


def _less(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {other: value for other, value in values.items() if other != name}


def _kind(task: Task) -> tuple[Kind, str]:
    return task.kind, task.ordinal


def _changed(record: Record, name: str, value: Any) -> Record | None:
    """Return the record with another value; None where it would then be refused."""
    changed = record.model_copy(update={name: value})
    try:
        return type(record).model_validate(changed.model_dump())
    except ValueError:
        return None


def trace(context: Context, experiment: Experiment) -> dict[str, Tensor] | str:
    """Return the weights that would predict, and those that were trained, after a few steps spread over the training.

    Each step has the place that it has in the user's own training, so that warm-up, milestones, late starts and early
    ends act. Instead of weights the message of an error is returned, where the experiment is refused: that is a
    difference too.
    """
    try:
        return _trained(context, experiment)
    except (PodiumError, ValueError) as error:
        return str(error)


def _trained(context: Context, experiment: Experiment) -> dict[str, Tensor]:
    loop = experiment.train.model_copy(update={"batch_size": _batch_size(context), "accumulation": 1})
    n_epochs, small = loop.epochs, experiment.model_copy(update={"train": loop})
    n_train = context.sample.n_all * (1 - 1 / max(2, context.sample.folds.n_folds))
    n_steps = max(4, round(n_train / experiment.train.batch_size))
    chosen = uneven_rows(context.rows)
    parts = context.parts(small, chosen)
    unit = context.unit(parts, chosen)
    for epoch, steps in _places(n_epochs, n_steps):
        freeze_layers(parts.model, parts.optimizer, small.train.freeze, epoch)
        order, slices = epoch_batches(unit, small, epoch)
        for step in steps:
            at = StepAt(epoch, step, n_steps, slices[step % len(slices)])
            batch = step_batch(unit, parts, small, order, at)
            train_step(parts, small, context.machine, batch, at)
    trained = state_tensors(parts.model)
    predicting = parts.ema.state() if parts.ema is not None and small.train.weights == "ema" else trained
    named = {f"trained/{name}": tensor for name, tensor in trained.items()}
    return named | {f"predicting/{name}": tensor for name, tensor in predicting.items()}


def _batch_size(context: Context) -> int:
    """Return how many samples a step may have if a dozen trainings of seven steps are to be done in time."""
    return min(MAX_BATCH, int(context.samples_per_sec * context.limit_sec / (7 * 12)))


def uneven_rows(rows: Rows) -> Ints:
    """Return rows of which few have the first class (or label, or a high value): balancing must change something."""
    targets = np.asarray(rows.targets)
    first = targets[:, 0] if targets.ndim == 2 else (targets == 0).astype(np.float64)
    is_high = first > np.median(first) if first.max() > 1 else first > 0.5
    dropped = np.flatnonzero(is_high)[1::2]
    return np.setdiff1d(np.arange(len(rows)), dropped)


def _places(n_epochs: int, n_steps: int) -> list[tuple[int, list[int]]]:
    """Return epochs and steps of them: the first two, two halfway, and the first, the second last and the last."""
    places: dict[int, list[int]] = {}
    late = [(n_epochs - 1, 0), (n_epochs - 1, n_steps - 2), (n_epochs - 1, n_steps - 1)]
    for epoch, step in [(0, 0), (0, 1), (n_epochs // 2, 0), (n_epochs // 2, 1), *late]:
        steps = places.setdefault(epoch, [])
        if step not in steps:
            steps.append(step)
    return [(epoch, sorted(steps)) for epoch, steps in sorted(places.items())]


def _differ(left: dict[str, Tensor] | str, right: dict[str, Tensor] | str) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        return True
    return left.keys() != right.keys() or not all(torch.equal(left[name], right[name]) for name in left)


def _draws_differ(context: Context, option: Option) -> bool:
    """Say whether an augmentation or mixing that the few steps did not meet shows in the inputs of more batches."""
    if not option.key.startswith(("augment.", "mix")):
        return False
    n_epochs = -(-N_DRAWN // len(context.rows))
    pairs = zip(*(_inputs(context, each, n_epochs) for each in (context.experiment, option.without)), strict=True)
    return any(left.shape != right.shape or not torch.equal(left, right) for left, right in pairs)


def _inputs(context: Context, experiment: Experiment, n_epochs: int) -> Iterator[Tensor]:
    """Yield inputs and targets of every batch of some epochs."""
    parts = context.parts(experiment)
    unit = context.unit(parts)
    for epoch in range(n_epochs):
        for batch in batches_of_epoch(unit, parts, experiment, epoch):
            yield torch.cat([batch.inputs.flatten(1), batch.targets], dim=1)
