"""A unit of training without files: forty 8x8 items of three classes in memory, for tests of the loop itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.base.interrupt import StopFlag
from pipeline.base.progress import Event
from pipeline.data.batches import Items, JoinedItems, samples_of
from pipeline.records.config import merge, validate
from pipeline.records.experiment import Experiment
from pipeline.records.machine import Machine
from pipeline.records.rows import Rows
from pipeline.records.task import Task
from pipeline.training.checkpoint import flatten_optimizer
from pipeline.training.recipe import Parts, build_parts
from pipeline.training.scaling import hard_labels, soft_targets
from pipeline.training.scoring import UnitData
from pipeline.training.train import train_unit
from pipeline.training.unlabelled import Unlabelled

N_ROWS, N_HELDOUT, N_EXTRA = 40, 10, 12
CPU = Machine()

BUSY = {
    "model": {"name": "cnn3", "width": 4, "dropout": 0.3},
    "augment": {"affine": {"max_rotate_deg": 10.0}, "shift": {"max_px": 1}, "flip": {}},
    "optimizer": {"name": "momentum", "lr": 0.05, "weight_decay": 0.01, "l1": 1e-4},
    "train": {"epochs": 3, "batch_size": 10, "accumulation": 2, "clip_norm": 1.0, "weights": "ema"},
    "ema": {"decay": 0.9},
}
"""Everything that has a state or draws: batch norm, dropout, augmentation, momentum, averaged weights."""


def make_experiment(*blocks: dict[str, Any]) -> Experiment:
    """Return an experiment of a linear model and plain SGD with `blocks` laid over it, one after another."""
    values: dict[str, Any] = {
        "model": {"name": "mlp", "hidden": ()},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "schedule": {"name": "constant"},
        "train": {"epochs": 2, "batch_size": 10},
    }
    for block in blocks:
        values = merge(values, block)
    return validate(Experiment, values, "test")


def make_task(kind: str = "multiclass", **more: Any) -> Task:
    """Return a task whose files are never looked at."""
    source = {"table": "train.csv", "array": {"file": "x.npy"}}
    values = {"name": "toy", "data": "data", "kind": kind, "target": "y", "metric": "accuracy", "train": source}
    return validate(Task, values | more, "test")


def make_unit(
    experiment: Experiment, bad: Sequence[int] = (), seed: int = 0, machine: Machine = CPU
) -> tuple[UnitData, Parts]:
    """Return a unit that trains on rows 10..39 and is scored on rows 0..9, and its parts; `bad` rows hold NaN."""
    rng = np.random.default_rng(0)
    targets = np.arange(N_ROWS, dtype=np.int64) % 3
    array = rng.normal(100, 40, (N_ROWS, 1, 8, 8)).astype(np.float32)
    array[np.arange(N_ROWS), :, targets * 2, :] += 60
    array[list(bad)] = np.nan
    ids = np.array([f"r{number:02d}" for number in range(N_ROWS)], dtype=object)
    rows = Rows(ids, tuple((number,) for number in range(N_ROWS)), ("a", "b", "c"), targets)
    items, task = Items(array, machine.device), make_task()
    train, heldout = np.arange(N_HELDOUT, N_ROWS), np.arange(N_HELDOUT)
    parts = build_parts(task, experiment, machine, rows, items, train, seed)

    def score(values: np.ndarray) -> float:
        return float((values.argmax(axis=1) == targets[heldout]).mean())

    unit = UnitData(
        name="fold 0",
        seed=seed,
        ids=ids,
        items=items,
        targets=soft_targets(task, rows, parts.scaling),
        labels=hard_labels(rows),
        train=samples_of(ids, rows.items, train),
        heldout=samples_of(ids, rows.items, heldout),
        score=score,
        higher_is_better=True,
        metric="accuracy",
    )
    return unit, parts


def make_extra(with_targets: bool = True, device: str = "cpu") -> Unlabelled:
    """Return twelve rows without labels, pseudo-labelled in turn or left to a teacher."""
    rng = np.random.default_rng(1)
    items = Items(rng.normal(100, 40, (N_EXTRA, 1, 8, 8)).astype(np.float32), device)
    ids = [f"u{number}" for number in range(N_EXTRA)]
    samples = samples_of(ids, [(number,) for number in range(N_EXTRA)], np.arange(N_EXTRA))
    targets = torch.eye(3)[torch.arange(N_EXTRA) % 3] if with_targets else None
    return Unlabelled(JoinedItems([items]), samples, None if targets is None else targets.to(device))


def train_all(
    unit: UnitData, parts: Parts, experiment: Experiment, folder: Path, machine: Machine = CPU
) -> list[Event]:
    """Train a unit to its end and return its events."""
    folder.mkdir(exist_ok=True)
    return list(train_unit(unit, parts, experiment, machine, folder, StopFlag()))


def assert_resumes(
    fresh: Callable[[], tuple[UnitData, Parts]], experiment: Experiment, folder: Path, stop_after: int
) -> None:
    """Assert that a unit which stops, and goes on in new parts, ends with the bits of an unbroken one.

    Args:
        fresh: returns the unit and new parts.
        experiment: of the unit.
        folder: for checkpoints; two new folders are made in it.
        stop_after: how many events come before the stop; every step writes a checkpoint.
    """
    unit, parts = fresh()
    train_all(unit, parts, experiment, folder / f"whole{stop_after}")
    unbroken = bits_of(parts)
    broken = folder / f"broken{stop_after}"
    broken.mkdir()
    unit, parts = fresh()
    for number, _ in enumerate(train_unit(unit, parts, experiment, every_step(), broken, StopFlag())):
        if number == stop_after:
            break
    unit, parts = fresh()
    train_all(unit, parts, experiment, broken, every_step())
    assert same_bits(bits_of(parts), unbroken)


def bits_of(parts: Parts) -> dict[str, torch.Tensor]:
    """Return copies of everything that training moves: weights, buffers, optimiser, averages."""
    named = {f"model/{name}": tensor for name, tensor in parts.model.state_dict().items()}
    named |= {f"optimizer/{name}": tensor for name, tensor in flatten_optimizer(parts.optimizer)[0].items()}
    named |= {f"ema/{name}": tensor for name, tensor in (parts.ema.state() if parts.ema else {}).items()}
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Say whether two sets of tensors are equal in every bit (and hold no NaN)."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def every_step(**more: Any) -> Machine:
    """Return a machine that writes a checkpoint at each step."""
    return Machine(checkpoint_minutes=0.0, **more)
