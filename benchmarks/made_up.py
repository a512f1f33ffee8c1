"""A unit of training on made-up items, without files: what the measurements of steps and memory train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.batches import Items, samples_of
from pipeline.data.stream import Stream
from pipeline.records.experiment import Experiment
from pipeline.records.machine import Machine
from pipeline.records.rows import Rows
from pipeline.records.task import MetricSpec, Source, Task
from pipeline.training.recipe import Parts, build_parts
from pipeline.training.scaling import hard_labels, soft_targets
from pipeline.training.scoring import UnitData
from pipeline.training.train import StepAt, epoch_batches, make_batch, step_inputs, train_step

N_CLASSES = 10


def made_up_unit(
    array: NDArray[Any], experiment: Experiment, machine: Machine, n_heldout: int = 0
) -> tuple[UnitData, Parts]:
    """Return a unit whose items are those of `array`, (N, C, H, W) or (N, C, T), labelled in turn, and its parts.

    The first `n_heldout` rows are predicted after every epoch and not trained on.
    """
    ids = np.array([f"r{number}" for number in range(len(array))], dtype=object)
    labels = np.arange(len(array), dtype=np.int64) % N_CLASSES
    rows = Rows(ids, tuple((n,) for n in range(len(array))), tuple(map(str, range(N_CLASSES))), labels)
    items = Items(array, machine.device)
    task = Task(
        name="benchmark",
        data=".",
        input="image" if array.ndim == 4 else "signal",
        kind="multiclass",
        metric=MetricSpec(name="accuracy"),
        target=("y",),
        train=Source(table="train.csv", files=("{id}.png",)),
    )
    train, heldout = np.arange(n_heldout, len(array)), np.arange(n_heldout)
    parts = build_parts(task, experiment, machine, rows, items, train, 0)
    unit = UnitData(
        name="all",
        seed=0,
        ids=ids,
        items=items,
        targets=soft_targets(task, rows, parts.scaling),
        labels=hard_labels(rows),
        train=samples_of(ids, rows.items, train),
        heldout=samples_of(ids, rows.items, heldout),
        score=lambda _: None,
        higher_is_better=True,
        metric="accuracy",
    )
    return unit, parts


def made_up_step(array: NDArray[Any], experiment: Experiment, machine: Machine) -> Callable[[], None]:
    """Return a function that takes one training step as `podium train` does, with a batch made anew each time."""
    unit, parts = made_up_unit(array, experiment, machine)
    order, batches = epoch_batches(unit, experiment, 0)
    at, stream = StepAt(0, 0, len(batches), batches[0]), Stream(unit.items, None, 0)

    def step() -> None:
        inputs = next(step_inputs(stream, unit, parts, order, [at.part], 0))
        train_step(parts, experiment, machine, make_batch(unit, parts, experiment, order, at, inputs), at)

    return step
