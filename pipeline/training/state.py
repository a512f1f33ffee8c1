"""Where a unit stands, as tensors and values in its checkpoints: saved, put back, and the weights that predict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.base.errors import PodiumError
from pipeline.training.checkpoint import (
    flatten_optimizer,
    newest_checkpoint,
    remove_checkpoints,
    restore_optimizer,
    save_checkpoint,
)
from pipeline.training.recipe import Parts


@dataclass
class State:
    """Where a unit stands: everything that a checkpoint holds beside model, optimiser, EMA and scaler."""

    epoch: int = 0
    step: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    """Sum of the applied losses of this epoch, each times its batch size; on the device, read once an epoch."""
    n_applied: int = 0
    """Samples whose loss was applied in this epoch."""
    bad_in_a_row: int = 0
    seconds: float = 0.0
    """Time spent in this epoch."""
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    """One row for each finished epoch."""
    best_rank: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights of the best epoch, where the experiment asks for them."""
    micro_batches: int = 1
    """The factor on `train.accumulation` that it was made with from the start."""

    def start_epoch(self, epoch: int) -> None:
        """Stand before the first step of an epoch."""
        self.epoch, self.step, self.n_applied, self.seconds = epoch, 0, 0, 0.0
        self.loss_sum = torch.zeros_like(self.loss_sum)


def save_state(folder: Path, state: State, parts: Parts) -> None:
    """Write a checkpoint of the unit.

    Raises:
        PodiumError: a tensor is not finite; nothing is written and the last good checkpoint stays.
        OSError: the disk is full or not writable.
    """
    optimizer_tensors, optimizer_values = flatten_optimizer(parts.optimizer)
    groups: dict[str, dict[str, Tensor]] = {
        "model/": parts.model.state_dict(),
        "optimizer/": optimizer_tensors,
        "ema/": parts.ema.state() if parts.ema else {},
        "best/": state.best,
        "": {"loss_sum": state.loss_sum},
    }
    tensors = {prefix + name: tensor for prefix, group in groups.items() for name, tensor in group.items()}
    values: dict[str, Any] = {
        "optimizer": optimizer_values,
        "scaler": parts.scaler.state_dict(),
        "n_applied": state.n_applied,
        "bad_in_a_row": state.bad_in_a_row,
        "seconds": state.seconds,
        "history": state.history,
        "best_rank": state.best_rank,
        "micro_batches": state.micro_batches,
    }
    save_checkpoint(folder, state.epoch, state.step, tensors, values)


def resume_state(folder: Path, parts: Parts, device: str, micro_batches: int = 1) -> State:
    """Return the state of the newest valid checkpoint, put into the parts; or a fresh state.

    Checkpoints of steps that were split otherwise are removed: a unit is split alike from its first step to its last.
    """
    found = newest_checkpoint(folder)
    if found is not None and found[1].get("micro_batches", 1) != micro_batches:
        start_anew(folder)
        found = None
    if found is None:
        return State(loss_sum=torch.zeros((), dtype=torch.float64, device=device), micro_batches=micro_batches)
    tensors, values = found
    parts.model.load_state_dict(_under("model/", tensors))
    restore_optimizer(parts.optimizer, _under("optimizer/", tensors), values["optimizer"])
    if parts.ema is not None:
        parts.ema.load_state(_under("ema/", tensors))
    if values["scaler"]:
        parts.scaler.load_state_dict(values["scaler"])
    return State(
        epoch=values["epoch"],
        step=values["step"],
        loss_sum=tensors["loss_sum"].to(device),
        n_applied=values["n_applied"],
        bad_in_a_row=values["bad_in_a_row"],
        seconds=values["seconds"],
        history=values["history"],
        best_rank=values["best_rank"],
        best=_under("best/", tensors),
        micro_batches=micro_batches,
    )


def start_anew(folder: Path) -> None:
    """Remove what a unit whose batches were split otherwise left: its marker, checkpoints and kept epochs."""
    (folder / "done.json").unlink(missing_ok=True)
    remove_checkpoints(folder)
    for kept in folder.glob("epoch-*.*"):
        kept.unlink()


def final_weights(folder: Path, parts: Parts, which: str) -> dict[str, Tensor]:
    """Return the weights that predict (`last`, `best` or `ema`) of a unit whose `train_unit` has ended."""
    found = newest_checkpoint(folder)
    if found is None:
        raise PodiumError(f"{folder}: has no valid checkpoint; delete the folder and train the unit again")
    prefix = {"last": "model/", "best": "best/", "ema": "ema/"}[which]
    device = next(parts.model.parameters()).device
    return {name: tensor.to(device) for name, tensor in _under(prefix, found[0]).items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
