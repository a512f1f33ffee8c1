"""The training of one unit (a fold and a seed), from scratch or from its newest checkpoint. Read this file first.

`train_unit` is an iterator over steps, so that an executor may take turns between units. Its state is (epoch, step) and
the tensors; order, augmentation and dropout are functions of (seed, epoch, step, id), so a run that was killed and
resumed ends bitwise where an unbroken one does (on one machine, with one thread count).
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.augment.mixing import draw_mix, mix_batch
from pipeline.base.errors import PodiumError, StopRequestedError
from pipeline.base.interrupt import StopFlag
from pipeline.base.keyed import make_key, seeded
from pipeline.base.progress import Event
from pipeline.data.batches import EpochOrder, Items, Samples, balanced, draws_of, even_slices, shuffled
from pipeline.records.experiment import Experiment
from pipeline.records.machine import Machine
from pipeline.training.device import autocast, read_later
from pipeline.training.ema import swapped
from pipeline.training.history import write_history
from pipeline.training.optim import l1_penalty, lr_factor
from pipeline.training.predict import average_items, predict_logits
from pipeline.training.recipe import Parts
from pipeline.training.sam import is_sam_step, kept_buffers, perturbed
from pipeline.training.state import State, resume_state, save_state

MAX_BAD_STEPS = 3
"""Steps in a row with a loss that is not finite, after which the unit stops."""


@dataclass(frozen=True)
class UnitData:
    """What one unit learns from and is scored on."""

    name: str
    seed: int
    ids: NDArray[np.object_]
    """(N,) ids of all rows, to name a bad batch."""
    items: Items
    targets: Tensor
    """(N, K) what the loss sees, on the device."""
    labels: NDArray[np.int64] | None
    """(N,) class per row, for balanced sampling; None where rows have no single class."""
    train: Samples
    heldout: Samples
    """No samples for a refit on every row."""
    score: Callable[[NDArray[np.float32]], float | None]
    """Held-out predictions (rows in sorted order, K) -> metric, or None where it is undefined."""
    higher_is_better: bool
    metric: str


@dataclass(frozen=True)
class StepAt:
    """Which step of which epoch, and which places of the epoch's order it takes."""

    epoch: int
    step: int
    n_steps: int
    """Steps of an epoch."""
    part: slice


@dataclass(frozen=True)
class Batch:
    """What a step learns from."""

    inputs: Tensor
    """(B, ...) normalised, augmented, mixed."""
    targets: Tensor
    """(B, K) what the loss sees."""
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
        PodiumError: the loss was not finite three times in a row, or the weights are not; the last good checkpoint
            stays.
    """
    spec = experiment.train
    scaler = torch.amp.GradScaler(torch.device(machine.device).type, enabled=machine.precision == "fp16")
    state = resume_state(folder, parts, scaler, machine.device)
    yield Event(unit.name, state.epoch, spec.epochs, 0, 1)  # starts the clock of the unit, also after a resume
    saved_at = time.monotonic()
    for epoch in range(state.epoch, spec.epochs):
        order = epoch_order(unit, spec.sampling, epoch)
        batches = even_slices(len(order.sample), spec.batch_size)
        for step in range(state.step, len(batches)):
            started = time.monotonic()
            at = StepAt(epoch, step, len(batches), batches[step])
            rows, loss, is_good = train_step(unit, parts, experiment, machine, scaler, order, at)
            state.step = step + 1
            state.seconds += time.monotonic() - started
            _count_loss(state, unit, folder, epoch, rows, loss, is_good)
            is_last_chance = stop.is_set  # asked once: a signal between two questions would stop without saving
            if is_last_chance or time.monotonic() - saved_at > 60 * machine.checkpoint_minutes:
                save_state(folder, state, parts, scaler)
                saved_at = time.monotonic()
            if is_last_chance:
                stop()
            if state.step < len(batches):  # the event that ends the epoch carries its scores, below
                yield _event(unit, state, spec.epochs, len(batches), batches[step].stop)

        _require_finite(unit, parts, epoch)
        try:
            row = _score_epoch(unit, parts, experiment, machine, state, stop)
        except StopRequestedError:
            save_state(folder, state, parts, scaler)  # all steps are done, and only the scores are to be made again
            raise
        _keep_best(state, parts, experiment, unit)
        state.start_epoch(epoch + 1)
        save_state(folder, state, parts, scaler)
        write_history(folder / "history.csv", state.history)
        saved_at = time.monotonic()
        yield _event(unit, state, spec.epochs, len(batches), len(order.sample), row)
    write_history(folder / "history.csv", state.history)  # again, for a run killed between checkpoint and this file


def train_step(
    unit: UnitData,
    parts: Parts,
    experiment: Experiment,
    machine: Machine,
    scaler: torch.amp.GradScaler,
    order: EpochOrder,
    at: StepAt,
) -> tuple[NDArray[np.int64], Tensor, bool]:
    """Go from one batch to new weights; return its rows, its mean loss (on the device), and whether it was applied.

    A loss that is not finite changes nothing: gradients are dropped and the batch statistics put back.
    """
    model, optimizer, spec = parts.model, parts.optimizer, experiment.train
    step = at.epoch * at.n_steps + at.step
    for group in optimizer.param_groups:
        group["lr"] = experiment.optimizer.lr * lr_factor(experiment.schedule, step, at.n_steps, spec.epochs)
    before = [buffer.clone() for buffer in model.buffers()]

    # The batch: items, augmented as a whole (so the draws do not depend on the split below), and what the loss sees.
    samples = order.sample[at.part]
    rows = unit.train.row[samples]
    items = unit.items.fetch(unit.train.item[samples])
    draw, lasting = (
        draws_of(unit.train, order, at.part, machine.device, unit.seed, epoch) for epoch in (at.epoch, None)
    )
    inputs = parts.inputs(items, draw, lasting, at.epoch)
    targets = unit.targets[torch.from_numpy(rows).to(unit.targets.device)]

    if experiment.mix is not None and at.epoch < spec.epochs - experiment.mix.off_epochs:
        mix = draw_mix(experiment.mix, len(rows), unit.seed, at.epoch, at.step)
        inputs, targets = mix_batch(inputs, targets, mix)

    # Gradients; with SAM once more from the perturbed weights, with the same batch and the same dropout masks.
    batch = Batch(inputs, targets, make_key("step", unit.seed, step))
    loss, is_finite = backward(parts, batch, spec.accumulation, machine, scaler)
    if experiment.sam is not None and is_sam_step(experiment.sam, at.epoch, step):
        with perturbed(model, experiment.sam.rho, experiment.sam.adaptive), kept_buffers(model):
            _, is_finite_there = backward(parts, batch, spec.accumulation, machine, scaler)
    else:
        is_finite_there = is_finite
    if experiment.optimizer.l1:
        scaler.scale(experiment.optimizer.l1 * l1_penalty(model)).backward()  # type: ignore[no-untyped-call]

    # New weights.
    if not (is_finite() and is_finite_there()):
        optimizer.zero_grad(set_to_none=True)
        for buffer, old in zip(model.buffers(), before, strict=True):
            buffer.copy_(old)
        return rows, loss, False
    scaler.unscale_(optimizer)
    if spec.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), spec.clip_norm)
    scaler.step(optimizer)  # skipped when scaled gradients overflowed
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    if parts.ema is not None:
        parts.ema.update(model, step)
    return rows, loss, True


# ---------------------------------------------------------------------------------------------------------------------
# Its parts
# ---------------------------------------------------------------------------------------------------------------------


def backward(
    parts: Parts, batch: Batch, n_micro: int, machine: Machine, scaler: torch.amp.GradScaler
) -> tuple[Tensor, Callable[[], bool]]:
    """Add the gradients of the batch's mean loss to the weights'; return the loss and whether it is finite, read late.

    In micro-batches whose gradients add up to that of the batch. Dropout is keyed, so a second call has the same masks.
    """
    n = len(batch.inputs)
    loss = torch.zeros((), dtype=torch.float64, device=machine.device)
    parts.model.train()
    with seeded(batch.key):
        for micro in even_slices(n, -(-n // n_micro)):
            with autocast(machine.device, machine.precision):
                logits = parts.model(batch.inputs[micro])
            micro_loss = parts.loss(logits, batch.targets[micro]) * ((micro.stop - micro.start) / n)
            loss += micro_loss.detach()
            is_finite = read_later(loss.isfinite())
            scaler.scale(micro_loss).backward()
    return loss, is_finite


def epoch_order(unit: UnitData, sampling: str, epoch: int) -> EpochOrder:
    """Return the order of one epoch, a function of (seed, epoch) alone."""
    if sampling == "balanced" and unit.labels is not None:
        return balanced(unit.train, unit.labels[unit.train.row], unit.seed, epoch)
    return shuffled(unit.train, unit.seed, epoch)


def _count_loss(
    state: State, unit: UnitData, folder: Path, epoch: int, rows: NDArray[np.int64], loss: Tensor, is_good: bool
) -> None:
    """Add an applied loss to the epoch's sum; write down the batch of one that was not, and stop at the third."""
    if is_good:
        state.loss_sum += loss * len(rows)
        state.n_applied += len(rows)
        state.bad_in_a_row = 0
        return
    state.bad_in_a_row += 1
    log = folder / "nonfinite.jsonl"
    with log.open("a") as file:
        line = {"epoch": epoch, "step": state.step - 1, "loss": repr(float(loss)), "ids": unit.ids[rows].tolist()}
        file.write(json.dumps(line) + "\n")
    if state.bad_in_a_row >= MAX_BAD_STEPS:
        raise PodiumError(
            f"{unit.name}: the loss was not finite in {MAX_BAD_STEPS} steps in a row (epoch {epoch}). The ids of those"
            f" batches are in {log}; the last good checkpoint is kept. Look at these items, lower optimizer.lr, or set"
            " train.clip_norm"
        )


def _require_finite(unit: UnitData, parts: Parts, epoch: int) -> None:
    """Stop before weights that are not finite are scored or saved; a finite loss may still have such gradients."""
    if not all(bool(tensor.isfinite().all()) for tensor in parts.model.state_dict().values()):
        raise PodiumError(
            f"{unit.name}: the weights are not finite after epoch {epoch}; the last good checkpoint is kept. Lower"
            " optimizer.lr, or set train.clip_norm"
        )


def _score_epoch(
    unit: UnitData,
    parts: Parts,
    experiment: Experiment,
    machine: Machine,
    state: State,
    stop: StopFlag,
) -> dict[str, float | int | None]:
    """Score the fold with the weights that would predict now, and add the epoch's row to the history."""
    heldout_loss, score = None, None
    if len(unit.heldout):
        averaged = experiment.train.weights == "ema"
        with swapped(parts.model, parts.ema.state()) if parts.ema and averaged else nullcontext():
            logits = predict_logits(
                parts.model, unit.items, unit.heldout.item, parts.scaling, machine, experiment.predict.batch_size, stop
            )
        targets = unit.targets[torch.from_numpy(unit.heldout.row).to(unit.targets.device)]
        with torch.inference_mode():
            heldout_loss = float(parts.heldout_loss(logits, targets))
        heldout_loss = heldout_loss if math.isfinite(heldout_loss) else None
        n_rows = len(np.unique(unit.heldout.row))
        score = unit.score(average_items(parts.activate(logits), unit.heldout, n_rows, parts.scaling))
    row: dict[str, float | int | None] = {
        "epoch": state.epoch + 1,
        "lr": float(parts.optimizer.param_groups[0]["lr"]),
        "train_loss": float(state.loss_sum) / state.n_applied if state.n_applied else None,
        "heldout_loss": heldout_loss,
        unit.metric: score,
        "seconds": round(state.seconds, 3),
    }
    state.history.append(row)
    return row


def _keep_best(state: State, parts: Parts, experiment: Experiment, unit: UnitData) -> None:
    """Keep a copy of the weights when the epoch that just ended is the best so far; the first of equals stays."""
    if experiment.train.weights != "best":
        return
    row = state.history[-1]
    score, loss = row[unit.metric], row["heldout_loss"]
    if score is None:
        rank = -float(sys.float_info.max if loss is None else loss)
    else:
        rank = float(score if unit.higher_is_better else -score)
    if state.best_rank is None or rank > state.best_rank:
        state.best_rank = rank
        state.best = {name: tensor.detach().clone() for name, tensor in parts.model.state_dict().items()}


def _event(
    unit: UnitData,
    state: State,
    n_epochs: int,
    n_steps: int,
    n_seen: int,
    row: dict[str, float | int | None] | None = None,
) -> Event:
    seconds = float(row["seconds"] or 0) if row else state.seconds
    scores = {"held-out": row["heldout_loss"], unit.metric: row[unit.metric]} if row else {}
    return Event(
        unit=unit.name,
        epoch=state.epoch - 1 if row else state.epoch,
        n_epochs=n_epochs,
        step=n_steps if row else state.step,
        n_steps=n_steps,
        images_per_sec=n_seen / max(seconds, 1e-9),
        train_loss=float(row["train_loss"] or 0) if row else None,
        metrics={key: float(value) for key, value in scores.items() if value is not None},
        finished=row is not None and state.epoch == n_epochs,
    )
