"""What a unit learns from, and what becomes of an epoch: its losses counted, its fold scored, its weights judged."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.errors import DivergedError
from pipeline.base.interrupt import StopFlag
from pipeline.data.batches import Items, Samples
from pipeline.models.weights import save_weights
from pipeline.records.experiment import EarlyStop, Experiment
from pipeline.records.machine import Machine
from pipeline.training.ema import swapped
from pipeline.training.predict import average_items, predict_logits
from pipeline.training.recipe import Parts
from pipeline.training.state import State
from pipeline.training.subjects import SubjectsOfRows
from pipeline.training.unlabelled import Unlabelled

MAX_BAD_STEPS = 3
"""Steps in a row with a loss that is not finite, after which the unit stops."""

EpochRow = dict[str, float | int | None]


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
    score_training: Callable[[NDArray[np.float32]], float | None] | None = None
    """The same of the rows that are learnt from, where the experiment asks for it."""
    unlabelled: Unlabelled | None = None
    """Rows without labels that it learns from too."""
    subjects: SubjectsOfRows | None = None
    """Whose each row is, where the model asks for it."""
    lineage: Mapping[str, Any] = field(default_factory=dict)
    """Which fold it leaves out, as written beside every weight file that a later run may start from."""


def count_loss(
    state: State, unit: UnitData, folder: Path, rows: NDArray[np.int64], loss: Tensor, is_good: bool
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
        line = {"epoch": state.epoch, "step": state.step - 1, "loss": repr(float(loss)), "ids": unit.ids[rows].tolist()}
        file.write(json.dumps(line) + "\n")
    if state.bad_in_a_row >= MAX_BAD_STEPS:
        raise DivergedError(
            f"{unit.name}: the loss was not finite in {MAX_BAD_STEPS} steps in a row (epoch {state.epoch}). The ids of"
            f" those batches are in {log}; the last good checkpoint is kept. Look at these items, lower optimizer.lr,"
            " or set train.clip_norm"
        )


def require_finite(unit: UnitData, parts: Parts, epoch: int) -> None:
    """Stop before weights that are not finite are scored or saved; a finite loss may still have such gradients."""
    if not all(bool(tensor.isfinite().all()) for tensor in parts.model.state_dict().values()):
        raise DivergedError(
            f"{unit.name}: the weights are not finite after epoch {epoch}; the last good checkpoint is kept. Lower"
            " optimizer.lr, or set train.clip_norm"
        )


def score_epoch(
    unit: UnitData,
    parts: Parts,
    experiment: Experiment,
    machine: Machine,
    state: State,
    stop: StopFlag,
) -> EpochRow:
    """Score the fold with the weights that would predict now, and add the epoch's row to the history."""
    heldout_loss, score = None, None
    if len(unit.heldout):
        averaged = experiment.train.weights == "ema"
        with swapped(parts.model, parts.ema.state()) if parts.ema and averaged else nullcontext():
            logits = predict_logits(
                parts.model,
                unit.items,
                unit.heldout.item,
                parts.scaling,
                machine,
                experiment.predict.batch_size,
                stop,
                None if unit.subjects is None else unit.subjects.at(unit.heldout.row),
            )
        targets = unit.targets[torch.from_numpy(unit.heldout.row).to(unit.targets.device)]
        with torch.inference_mode():
            heldout_loss = float(parts.heldout_loss(logits, targets))
        heldout_loss = heldout_loss if math.isfinite(heldout_loss) else None
        n_rows = len(np.unique(unit.heldout.row))
        score = unit.score(average_items(parts.activate(logits), unit.heldout, n_rows, parts.scaling))
    row: EpochRow = {
        "epoch": state.epoch + 1,
        "lr": _head_rate(parts.optimizer),
        "train_loss": float(state.loss_sum) / state.n_applied if state.n_applied else None,
        "heldout_loss": heldout_loss,
        unit.metric: score,
        "seconds": round(state.seconds, 3),
    }
    if unit.score_training is not None:
        row[f"train_{unit.metric}"] = _score_training(unit, unit.score_training, parts, experiment, machine, stop)
    state.history.append(row)
    return row


def _score_training(
    unit: UnitData,
    score: Callable[[NDArray[np.float32]], float | None],
    parts: Parts,
    experiment: Experiment,
    machine: Machine,
    stop: StopFlag,
) -> float | None:
    """Return the metric on the rows that are learnt from, as they are, by the weights that would predict now."""
    averaged = experiment.train.weights == "ema"
    with swapped(parts.model, parts.ema.state()) if parts.ema and averaged else nullcontext():
        logits = predict_logits(
            parts.model, unit.items, unit.train.item, parts.scaling, machine, experiment.predict.batch_size, stop
        )
    return score(average_items(parts.activate(logits), unit.train, len(np.unique(unit.train.row)), parts.scaling))


def keep_best(state: State, parts: Parts, experiment: Experiment, unit: UnitData) -> None:
    """Keep a copy of the weights when the epoch that just ended is the best so far; the first of equals stays."""
    if experiment.train.weights != "best":
        return
    rank = _rank(state.history[-1], unit)
    if state.best_rank is None or rank > state.best_rank:
        state.best_rank = rank
        state.best = {name: tensor.detach().clone() for name, tensor in parts.model.state_dict().items()}


def keep_epoch(folder: Path, unit: UnitData, parts: Parts, experiment: Experiment, epoch: int) -> None:
    """Write the weights that would predict now as `epoch-<number>` and remove those that are too old to be kept."""
    spec = experiment.train
    if not spec.keep_epochs:
        return
    kept = parts.ema.state() if parts.ema and spec.weights == "ema" else parts.model.state_dict()
    meta = {"epoch": epoch, "lineage": dict(unit.lineage)}
    save_weights(folder / f"epoch-{epoch:05d}.safetensors", kept, meta)
    for end in ("json", "safetensors"):
        (folder / f"epoch-{epoch - spec.keep_epochs:05d}.{end}").unlink(missing_ok=True)


def has_stalled(history: Sequence[EpochRow], spec: EarlyStop | None, unit: UnitData) -> bool:
    """Say whether early stopping ends the training here: no better score in the last `patience` epochs.

    A function of the history alone, so that a resumed unit ends where an unbroken one does.
    """
    if spec is None or len(history) <= spec.patience or not len(unit.heldout):
        return False
    ranks = [_rank(row, unit) for row in history]
    best, n_since = ranks[0], 0
    for rank in ranks[1:]:
        is_better = rank > best + spec.min_gain
        best, n_since = (rank, 0) if is_better else (best, n_since + 1)
    return n_since >= spec.patience


def _rank(row: EpochRow, unit: UnitData) -> float:
    """Return a number that is higher for a better epoch: the score in its direction, else the loss turned round."""
    score, loss = row[unit.metric], row["heldout_loss"]
    if score is None:
        return -float(sys.float_info.max if loss is None else loss)
    return float(score if unit.higher_is_better else -score)


def _head_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the present rate of the head's weights; other layers, norms and biases may have another."""
    group = optimizer.param_groups[-1]
    return float(group["lr"]) / float(group.get("lr_scale", 1.0))
