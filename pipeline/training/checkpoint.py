"""Checkpoints of a unit: tensors in safetensors, the rest in JSON beside, the newest valid one counts.

A checkpoint is valid when its JSON is there and the tensors have the checksum that it states; the JSON is written last.
The newest two are kept, so that a crash (or a full disk) during a write leaves the one before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.base.errors import DataError
from pipeline.base.files import remove_leftovers
from pipeline.models.weights import read_weights, save_weights

KEPT = 2


def save_checkpoint(folder: Path, epoch: int, step: int, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write the state of a unit at (epoch, step) and remove all but the newest two.

    Weights that are not finite are never written: the last good checkpoint stays.

    Raises:
        OSError: the disk is full or not writable.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point()):
        return
    save_weights(_path(folder, epoch, step), tensors, {"epoch": epoch, "step": step, **values})
    for old in _checkpoints(folder)[:-KEPT]:
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return tensors and values of the newest valid checkpoint, or None; invalid ones are passed over.

    Call it only while holding the unit's lock: it also removes what a killed write left behind.
    """
    if not folder.is_dir():
        return None
    remove_leftovers(folder)
    for path in reversed(_checkpoints(folder)):
        try:
            return read_weights(path)
        except (DataError, OSError):
            continue
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a finished unit."""
    for path in _checkpoints(folder):
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimiser's state as named tensors and a JSON value, for `restore_optimizer`."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    return tensors, {"scalars": scalars, "lrs": [group["lr"] for group in optimizer.param_groups]}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Put back what `flatten_optimizer` returned; groups and their options come from the config, not the file."""
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in values["scalars"].items()}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for group, lr in zip(optimizer.param_groups, values["lrs"], strict=True):
        group["lr"] = lr


def _path(folder: Path, epoch: int, step: int) -> Path:
    return folder / f"checkpoint-{epoch:05d}-{step:07d}.safetensors"


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints from old to new: the zero-padded names sort by (epoch, step)."""
    return sorted(folder.glob("checkpoint-*[0-9].safetensors"))
