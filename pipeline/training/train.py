"""The training of one unit (a fold and a seed), from scratch or from its newest checkpoint. Read this file first.

`train_unit` is an iterator over steps, so that an executor may take turns between units. Its state is (epoch, step) and
the tensors; order, augmentation and dropout are functions of (seed, epoch, step, id), so a run that was killed and
resumed ends bitwise where an unbroken one does (on one machine, with one thread count).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.augment.mixing import draw_mix, mix_batch
from pipeline.base.errors import StopRequestedError
from pipeline.base.interrupt import StopFlag
from pipeline.base.keyed import make_key, permutation, seeded
from pipeline.base.progress import Event
from pipeline.data.batches import EpochOrder, draws_of, even_slices, neighbours, seeds_of
from pipeline.data.stream import Stream
from pipeline.models.max_norm import Constrained
from pipeline.models.subjects import add_subjects
from pipeline.records.experiment import Experiment, SamSpec, TrainSpec
from pipeline.records.machine import Machine
from pipeline.training.device import autocast, read_later
from pipeline.training.epochs import epoch_of
from pipeline.training.history import write_history
from pipeline.training.layer_statistics import watch_layers
from pipeline.training.layers import enter_training, freeze_layers
from pipeline.training.memory import step_memory, with_micro_batches
from pipeline.training.optim import l1_penalty, lr_factor
from pipeline.training.recipe import Parts
from pipeline.training.sam import ascent_rows, is_sam_step, kept_buffers, perturbed
from pipeline.training.scoring import (
    EpochRow,
    UnitData,
    count_loss,
    has_stalled,
    keep_best,
    keep_epoch,
    require_finite,
    score_epoch,
)
from pipeline.training.state import State, resume_state, save_state
from pipeline.training.subjects import with_known
from pipeline.training.unlabelled import extra_rows, joined

TOGETHER, VALUES_TOGETHER = 2048, 2**22
"""Samples, and numbers of their inputs (16 MB), that are made at a time: of a small batch, the calls cost most."""


@dataclass(frozen=True)
class StepAt:
    """Which step of which epoch, and which places of the epoch's order it takes."""

    epoch: int
    step: int
    n_steps: int
    """Steps of an epoch."""
    part: slice

    @property
    def number(self) -> int:
        """Steps before this one, over all epochs."""
        return self.epoch * self.n_steps + self.step


@dataclass(frozen=True)
class Batch:
    """What a step learns from."""

    rows: NDArray[np.int64]
    """Which labelled rows these are."""
    inputs: Tensor
    """(B, ...) normalised, augmented, mixed; unlabelled rows behind the labelled ones."""
    targets: Tensor
    """(B, K) what the loss sees."""
    weights: Tensor | None
    """(B,) of each row's loss; None for ones."""
    key: int
    """Of the dropout masks."""


# ---------------------------------------------------------------------------------------------------------------------
# The straight line
# ---------------------------------------------------------------------------------------------------------------------


def train_unit(
    unit: UnitData, parts: Parts, experiment: Experiment, machine: Machine, folder: Path, stop: StopFlag
) -> Iterator[Event]:
    """Train one unit to its last epoch, yielding after every step; checkpoints lie in `folder`.

    When the iterator ends, `final_weights` of the folder's newest checkpoint are those that predict.

    Raises:
        StopRequestedError: `stop` was set; the state is saved.
        StepMemoryError: a step does not fit into memory.
        PodiumError: the loss was not finite three times in a row, or the weights are not; the last good checkpoint
            stays.
    """
    experiment, spec = with_micro_batches(experiment, machine.micro_batches), experiment.train
    state = resume_state(folder, parts, machine.device, machine.micro_batches)
    yield Event(unit.name, state.epoch, spec.epochs, 0, 1)  # starts the clock of the unit, also after a resume
    saved_at = time.monotonic()
    if spec.layer_statistics and (state.epoch, state.step) == (0, 0):
        watch_layers(folder, unit, parts, 0, machine)
    with Stream(unit.items, parts.recipe, machine.loaders) as stream:
        for epoch in range(state.epoch, spec.epochs):
            if has_stalled(state.history, spec.early_stop, unit):
                break
            freeze_layers(parts.model, parts.optimizer, spec.freeze, epoch)
            order, batches = epoch_batches(unit, experiment, epoch)
            smallest = min(part.stop - part.start for part in batches)
            started = time.monotonic()
            for inputs in step_inputs(stream, unit, parts, order, batches, epoch, state.step):
                step = state.step
                at = StepAt(epoch, step, len(batches), batches[step])
                batch = make_batch(unit, parts, experiment, order, at, inputs)
                del inputs  # what was mixed is not held beside its mixture during the step
                with step_memory(unit.name, smallest, machine.micro_batches):
                    loss, is_good = train_step(parts, experiment, machine, batch, at)
                state.step = step + 1
                state.seconds += time.monotonic() - started
                count_loss(state, unit, folder, batch.rows, loss, is_good)
                is_last_chance = stop.is_set  # asked once: a signal between two questions would stop without saving
                if is_last_chance or time.monotonic() - saved_at > 60 * machine.checkpoint_minutes:
                    save_state(folder, state, parts)
                    saved_at = time.monotonic()
                if is_last_chance:
                    stop()
                if state.step < len(batches):  # the event that ends the epoch carries its scores, below
                    yield _event(unit, state, spec, len(batches), batches[step].stop)
                started = time.monotonic()

            require_finite(unit, parts, epoch)
            try:
                row = score_epoch(unit, parts, experiment, machine, state, stop)
            except StopRequestedError:
                save_state(folder, state, parts)  # all steps are done, and only the scores are to be made again
                raise
            if spec.layer_statistics:
                watch_layers(folder, unit, parts, epoch + 1, machine)
            keep_best(state, parts, experiment, unit)
            keep_epoch(folder, unit, parts, experiment, epoch)
            state.start_epoch(epoch + 1)
            save_state(folder, state, parts)
            write_history(folder / "history.csv", state.history)
            saved_at = time.monotonic()
            yield _event(unit, state, spec, len(batches), len(order.sample), row)
    write_history(folder / "history.csv", state.history)  # again, for a run killed between checkpoint and this file


def make_batch(
    unit: UnitData, parts: Parts, experiment: Experiment, order: EpochOrder, at: StepAt, inputs: Tensor
) -> Batch:
    """Return what a step learns from: its inputs mixed, its targets, and rows without labels behind them.

    As a whole, so that no draw depends on how the batch is split later. Args are those of the epoch; `inputs` (B, ...)
    are those of `at.part` of the order, from `step_inputs`.
    """
    rows = unit.train.row[order.sample[at.part]]
    if unit.subjects is not None:
        draw = draws_of(unit.train, order, at.part, unit.items.device, unit.seed, at.epoch)
        inputs = with_known(inputs, unit.subjects.at(rows), draw)
    targets = unit.targets.index_select(0, torch.from_numpy(rows).to(unit.targets.device))
    if experiment.mix is not None and at.epoch < experiment.train.epochs - experiment.mix.off_epochs:
        mix = draw_mix(experiment.mix, len(rows), unit.seed, at.epoch, at.step)
        inputs, targets = mix_batch(inputs, targets, mix)
    weights = None
    if unit.unlabelled is not None:
        n_own = max(1, round(len(order.sample) / at.n_steps))
        extra = extra_rows(unit.unlabelled, parts, experiment, n_own, unit.seed, at.epoch, at.step, at.n_steps)
        if unit.subjects is not None and extra is not None:
            extra = replace(extra, inputs=add_subjects(extra.inputs, None, unit.subjects.n_subjects))
        inputs, targets, weights = joined(inputs, targets, extra)
        is_split = experiment.train.accumulation > 1 or (experiment.sam is not None and experiment.sam.ascent_frac < 1)
        if weights is not None and is_split:
            # Else the first part would hold labelled rows alone, and batch norm would see two kinds in turn.
            place = torch.from_numpy(permutation(make_key("micro", unit.seed, at.number), len(inputs)))
            inputs, targets, weights = (part[place.to(part.device)] for part in (inputs, targets, weights))
    return Batch(rows, inputs, targets, weights, make_key("step", unit.seed, at.number))


def train_step(parts: Parts, experiment: Experiment, machine: Machine, batch: Batch, at: StepAt) -> tuple[Tensor, bool]:
    """Go from one batch to new weights; return its mean loss (on the device) and whether it was applied.

    A loss that is not finite changes nothing: gradients are dropped and the batch statistics put back.
    """
    model, optimizer, scaler, spec = parts.model, parts.optimizer, parts.scaler, experiment.train
    peak_share = lr_factor(experiment.schedule, at.number, at.n_steps, spec.epochs)
    for group in optimizer.param_groups:
        group["lr"] = experiment.optimizer.lr * peak_share * group.get("lr_scale", 1.0)
    before = [buffer.clone() for buffer in model.buffers()]

    # Gradients; with SAM once more from the perturbed weights, with the same batch and the same dropout masks.
    sam = experiment.sam if experiment.sam is not None and is_sam_step(experiment.sam, at.epoch, at.number) else None
    first, n_micro = (batch, spec.accumulation) if sam is None else _ascent_part(batch, sam, spec.accumulation)
    loss, is_finite = backward(parts, first, n_micro, machine)
    is_finite_there = is_finite
    if sam is not None:
        with perturbed(model, sam.rho, sam.adaptive), kept_buffers(model):
            _, is_finite_there = backward(parts, batch, spec.accumulation, machine)
    if experiment.optimizer.l1 and (penalty := l1_penalty(model)).requires_grad:
        scaler.scale(experiment.optimizer.l1 * penalty).backward()  # type: ignore[no-untyped-call]

    # New weights.
    if not (is_finite() and is_finite_there()):
        optimizer.zero_grad(set_to_none=True)
        for buffer, old in zip(model.buffers(), before, strict=True):
            buffer.copy_(old)
        return loss, False
    scaler.unscale_(optimizer)
    if spec.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), spec.clip_norm)
    scaler.step(optimizer)  # skipped when scaled gradients overflowed
    scaler.update()
    if isinstance(model, Constrained):
        model.constrain()  # before the averages, which then keep the limits too
    optimizer.zero_grad(set_to_none=True)
    if parts.ema is not None:
        parts.ema.update(model, at.number)
    return loss, True


# ---------------------------------------------------------------------------------------------------------------------
# Its parts
# ---------------------------------------------------------------------------------------------------------------------


def backward(parts: Parts, batch: Batch, n_micro: int, machine: Machine) -> tuple[Tensor, Callable[[], bool]]:
    """Add the gradients of the batch's mean loss to the weights'; return the loss and whether it is finite, read late.

    In micro-batches whose gradients add up to that of the batch. Dropout is keyed, so a second call has the same masks.
    """
    n = len(batch.inputs)
    loss = torch.zeros((), dtype=torch.float64, device=machine.device)
    enter_training(parts.model)
    with seeded(batch.key):
        for micro in even_slices(n, -(-n // n_micro)):
            with autocast(machine.device, machine.precision):
                logits = parts.forward(batch.inputs[micro])
            weights = None if batch.weights is None else batch.weights[micro]
            micro_loss = parts.loss(logits, batch.targets[micro], weights) * ((micro.stop - micro.start) / n)
            loss += micro_loss.detach()
            is_finite = read_later(loss.isfinite())
            parts.scaler.scale(micro_loss).backward()
    return loss, is_finite


def _ascent_part(batch: Batch, sam: SamSpec, n_micro: int) -> tuple[Batch, int]:
    """Return what SAM's first pass learns from, and in how many micro-batches, which are no larger than the others."""
    n, n_all = ascent_rows(sam, len(batch.inputs)), len(batch.inputs)
    if n == n_all:
        return batch, n_micro
    weights = None if batch.weights is None else batch.weights[:n]
    return replace(batch, inputs=batch.inputs[:n], targets=batch.targets[:n], weights=weights), -(-n_micro * n // n_all)


def epoch_batches(unit: UnitData, experiment: Experiment, epoch: int) -> tuple[EpochOrder, list[slice]]:
    """Return the order of one epoch, a function of (seed, epoch) alone, and which places of it each step takes."""
    labels = None if unit.labels is None else unit.labels[unit.train.row]
    return epoch_of(unit.train, labels, experiment.train, unit.seed, epoch)


def step_inputs(
    stream: Stream, unit: UnitData, parts: Parts, order: EpochOrder, batches: list[slice], epoch: int, first: int = 0
) -> Iterator[Tensor]:
    """Yield the inputs (B, ...) of each step of an epoch from step `first` on: items fetched, augmented, normalised.

    Small batches that follow each other are made together. Which ones does not depend on `first`, so that a resumed
    epoch computes what an unbroken one does, to the bit.
    """
    most = TOGETHER if parts.recipe is None else 1  # worker processes make batches ahead one by one
    groups = neighbours(batches, min(most, VALUES_TOGETHER // math.prod(unit.items.shape)))
    ends = np.cumsum([len(group) for group in groups])
    todo = [(end - len(group), group) for end, group in zip(ends.tolist(), groups, strict=True) if end > first]
    wholes = [slice(group[0].start, group[-1].stop) for _, group in todo]
    positions = [unit.train.item[order.sample[whole]] for whole in wholes]
    seeds = None if parts.recipe is None else [seeds_of(unit.train, order, each, unit.seed, epoch) for each in wholes]
    for (begin, group), whole, stored in zip(todo, wholes, stream.batches(positions, seeds), strict=True):
        draw, lasting = (
            draws_of(unit.train, order, whole, unit.items.device, unit.seed, when) for when in (epoch, None)
        )
        inputs = parts.inputs(stored, draw, lasting, epoch)
        made = [inputs[part.start - whole.start : part.stop - whole.start] for part in group[max(0, first - begin) :]]
        del inputs  # nor is it held here, beyond the batches that are still to come
        while made:
            yield made.pop(0)


def _event(
    unit: UnitData, state: State, spec: TrainSpec, n_steps: int, n_seen: int, row: EpochRow | None = None
) -> Event:
    seconds = float(row["seconds"] or 0) if row else state.seconds
    scores = {"held-out": row["heldout_loss"], unit.metric: row[unit.metric]} if row else {}
    is_last = state.epoch == spec.epochs or has_stalled(state.history, spec.early_stop, unit)
    return Event(
        unit=unit.name,
        epoch=state.epoch - 1 if row else state.epoch,
        n_epochs=spec.epochs,
        step=n_steps if row else state.step,
        n_steps=n_steps,
        images_per_sec=n_seen / max(seconds, 1e-9),
        train_loss=float(row["train_loss"] or 0) if row else None,
        metrics={key: float(value) for key, value in scores.items() if value is not None},
        finished=row is not None and is_last,
    )
