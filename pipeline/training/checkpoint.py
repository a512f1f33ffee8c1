"""Checkpoints of a unit: tensors in safetensors, the rest in JSON beside, the newest valid one counts.

A checkpoint is valid when its JSON is there and the tensors have the checksum that it states; the JSON is written last.
The newest two are kept, so that a crash (or a full disk) during a write leaves the one before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.base.errors import DataError, PodiumError, listed
from pipeline.base.files import remove_leftovers
from pipeline.models.weights import read_weights, save_weights

KEPT = 2


def save_checkpoint(folder: Path, epoch: int, step: int, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write the state of a unit at (epoch, step) and remove all but the newest two.

    Raises:
        PodiumError: a tensor is not finite; nothing is written, so the last good checkpoint stays the newest.
        OSError: the disk is full or not writable.
    """
    odd = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if odd:
        raise PodiumError(
            f"{folder}: no checkpoint is written at epoch {epoch}, step {step}, because these tensors are not finite:"
            f" {listed(odd, 5)}. The last good checkpoint is kept; lower optimizer.lr, or set train.clip_norm"
        )
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
    """Return an optimiser's state as named tensors and a JSON value, for `restore_optimizer`.

    The numbers of parameter groups belong to it: Adan and LAMB count their steps there, one as a number and the other
    as a tensor.
    """
    state = optimizer.state_dict()
    holders = {f"state/{index}": entries for index, entries in state["state"].items()}
    holders |= {f"groups/{index}": group for index, group in enumerate(state["param_groups"])}
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for holder, entries in holders.items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{holder}/{name}"] = value
            elif isinstance(value, bool | int | float):
                numbers.setdefault(holder, {})[name] = value
    return tensors, numbers


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Put back, bitwise, what `flatten_optimizer` returned of an optimiser of the same parameters and options."""
    entries: dict[str, dict[str, Any]] = {holder: dict(values) for holder, values in numbers.items()}
    for key, tensor in tensors.items():
        holder, _, name = key.rpartition("/")
        entries.setdefault(holder, {})[name] = tensor
    state = {int(holder.removeprefix("state/")): entries[holder] for holder in entries if holder.startswith("state/")}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for index, saved in state.items():
        loaded = optimizer.state[params[index]]
        for name in [name for name in saved if isinstance(saved[name], Tensor)]:
            loaded[name] = _placed(saved[name], loaded[name].device, params[index])
    for index, group in enumerate(optimizer.param_groups):
        group.update(entries.get(f"groups/{index}", {}))


def _placed(saved: Tensor, device: torch.device, param: Tensor) -> Tensor:
    """Return a saved tensor with its own type, which `load_state_dict` changes, and the parameter's memory layout.

    In another layout the same update may run through another kernel, whose last bits differ.
    """
    if saved.shape != param.shape:
        return saved.to(device)
    return torch.empty_like(param, dtype=saved.dtype, device=device, requires_grad=False).copy_(saved)


def _path(folder: Path, epoch: int, step: int) -> Path:
    return folder / f"checkpoint-{epoch:05d}-{step:07d}.safetensors"


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints from old to new: the zero-padded names sort by (epoch, step)."""
    return sorted(folder.glob("checkpoint-*[0-9].safetensors"))
