"""What every check is given, what it says, and the few things that several of them do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.batches import EpochOrder, Items, samples_of
from pipeline.data.stream import Stream
from pipeline.records.augmentation import Augment
from pipeline.records.experiment import Constant, Experiment, OptimizerSpec
from pipeline.records.machine import Machine
from pipeline.records.rows import Rows
from pipeline.records.task import Task
from pipeline.stages.checks.sample import Sample
from pipeline.training.recipe import Parts, build_parts
from pipeline.training.scaling import hard_labels, soft_targets
from pipeline.training.scoring import UnitData
from pipeline.training.train import Batch, StepAt, epoch_batches, make_batch, step_inputs, train_step

Verdict = Literal["pass", "fail", "note"]
Ints = NDArray[np.int64]

PLAIN_ADAM = OptimizerSpec(name="adam", lr=1e-3)
"""What nearly every net learns with."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    verdict: Verdict
    """`note`: nothing is wrong as far as the check could see, but there is something to know."""
    detail: str
    advice: str = ""
    """Where the cause lies and what to do."""


@dataclass(frozen=True)
class Context:
    """The user's task and experiment on a sample of the data."""

    sample: Sample
    machine: Machine
    limit_sec: float
    """Time that a check may take; it says so when that was not enough."""

    @cached_property
    def items(self) -> Items:
        """Return the items of the sample."""
        return Items(self.sample.array, self.machine.device)

    @property
    def task(self) -> Task:
        """Return the task of the sample."""
        return self.sample.config.task

    @property
    def experiment(self) -> Experiment:
        """Return the user's experiment, on stored items."""
        return self.sample.config.experiment

    @property
    def rows(self) -> Rows:
        """Return the labelled rows of the sample."""
        return self.sample.rows

    @cached_property
    def samples_per_sec(self) -> float:
        """Return how many samples a training step takes in, measured on the second of two small steps."""
        experiment = plain(self.experiment, PLAIN_ADAM, accumulation=1)
        parts = self.parts(experiment)
        unit = self.unit(parts)
        batch = batch_of(unit, parts, experiment, 0, np.arange(min(8, len(unit.train))))
        for step in range(2):
            started = time.monotonic()
            train_step(parts, experiment, self.machine, batch, StepAt(0, step, 2, slice(0, len(batch.rows))))
        return len(batch.rows) / max(time.monotonic() - started, 1e-6)

    @property
    def seed(self) -> int:
        """Return the first of the experiment's seeds."""
        return self.experiment.seeds[0]

    def parts(self, experiment: Experiment, measured: Ints | None = None) -> Parts:
        """Return new parts, measured on the given rows, or on all."""
        chosen = np.arange(len(self.rows)) if measured is None else measured
        return build_parts(self.task, experiment, self.machine, self.rows, self.items, chosen, self.seed, 0)

    def unit(self, parts: Parts, chosen: Ints | None = None) -> UnitData:
        """Return a unit that trains on the chosen rows (all, if none are given) and is scored on none."""
        rows = self.rows
        has_classes = self.task.kind not in ("multilabel", "regression")
        return UnitData(
            name="check",
            seed=self.seed,
            ids=rows.ids,
            items=self.items,
            targets=soft_targets(self.task, rows, parts.scaling),
            labels=hard_labels(rows) if has_classes else None,
            train=samples_of(rows.ids, rows.items, np.arange(len(rows)) if chosen is None else chosen),
            heldout=samples_of(rows.ids, rows.items, np.array([], dtype=np.int64)),
            score=lambda _: None,
            higher_is_better=True,
            metric="none",
        )


def plain(experiment: Experiment, optimizer: OptimizerSpec, **train: Any) -> Experiment:
    """Return the experiment with its model and loss and nothing else: no augmentation, mixing, SAM, averages, decay.

    Args:
        experiment: as the user wrote it.
        optimizer: with its rate, which is then constant; weight decay and L1 are left out.
        train: further values of `train:`.
    """
    off: dict[str, Any] = {"augment": Augment(), "mix": None, "sam": None, "ema": None}
    if experiment.input.gradual is not None:
        off["input"] = experiment.input.model_copy(update={"gradual": None})
    loop = {"clip_norm": None, "sampling": "shuffle", "last_batch": "auto", "early_stop": None, "freeze": None}
    return experiment.model_copy(
        update={
            **off,
            "schedule": Constant(name="constant"),
            "optimizer": optimizer.model_copy(update={"weight_decay": 0.0, "l1": 0.0, "layer_decay": 1.0}),
            "train": experiment.train.model_copy(update={**loop, "weights": "last", **train}),
        }
    )


def batches_of_epoch(unit: UnitData, parts: Parts, experiment: Experiment, epoch: int) -> list[Batch]:
    """Return the batches of an epoch, as training makes them."""
    order, slices = epoch_batches(unit, experiment, epoch)
    places = [StepAt(epoch, step, len(slices), part) for step, part in enumerate(slices)]
    return [step_batch(unit, parts, experiment, order, at) for at in places]


def batch_of(unit: UnitData, parts: Parts, experiment: Experiment, epoch: int, samples: Ints) -> Batch:
    """Return one batch of the given samples in their order, as training makes it at the first step of an epoch."""
    order = EpochOrder(samples, np.zeros(len(samples), dtype=np.uint64))
    at = StepAt(epoch, 0, 1, slice(0, len(samples)))
    return step_batch(unit, parts, experiment, order, at)


def step_batch(unit: UnitData, parts: Parts, experiment: Experiment, order: EpochOrder, at: StepAt) -> Batch:
    """Return the batch of one step, as training makes it."""
    with Stream(unit.items, parts.recipe, 0) as stream:
        inputs = next(step_inputs(stream, unit, parts, order, [at.part], at.epoch))
        return make_batch(unit, parts, experiment, order, at, inputs)
