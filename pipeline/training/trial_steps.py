"""Single steps and predictions of an opened unit, made as training makes them: to be timed and weighed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import PodiumError
from pipeline.base.interrupt import StopFlag
from pipeline.data.batches import EpochOrder
from pipeline.data.stream import Stream
from pipeline.records.experiment import Constant, Experiment, PredictSpec
from pipeline.records.machine import Machine
from pipeline.training.layers import freeze_layers
from pipeline.training.peak import MemoryLine, forget_peak, peak_bytes, used_bytes
from pipeline.training.predict import predict_logits, predict_views
from pipeline.training.train import StepAt, epoch_batches, make_batch, step_inputs, train_step
from pipeline.training.unit import OpenUnit

MIN_STEPS = 3
"""Steps of each kind that are timed at least."""
WARM_UP = 2
"""Steps that are not counted: memory is taken, kernels are chosen."""


class TrialSteps:
    """The real steps of one unit, made to be timed or weighed."""

    def __init__(
        self,
        opened: OpenUnit,
        experiment: Experiment,
        machine: Machine,
        stream: Stream,
        stop: StopFlag,
        free: int | None,
    ) -> None:
        self._unit, self._parts, self._experiment = opened.unit, opened.parts, experiment
        self._machine, self._stream, self._stop = machine, stream, stop
        self._free = free
        self.first_sec = 0.0
        """What the very first step took."""

    def time(self, places: list[tuple[int, int]], seconds: float) -> list[float]:
        """Return the seconds of steps like those at `places`, one after another, without the first ones."""
        ends = [time.perf_counter()]
        while len(ends) < 1 + WARM_UP + MIN_STEPS or ends[-1] - ends[0] < seconds:
            for _ in self._steps(places):
                self._stop()
                ends.append(time.perf_counter())
                if ends[-1] - ends[0] > seconds and len(ends) > WARM_UP + MIN_STEPS:
                    break
        durations = np.diff(ends).tolist()
        return [float(each) for each in durations[WARM_UP:]]

    def weigh(self, place: tuple[int, int], n_micro: int) -> MemoryLine:
        """Return the peak of memory over the samples of a micro-batch, from half of `n_micro` to all of it."""
        points: list[tuple[int, int]] = []
        before = used_bytes(self._machine.device)
        for n in (max(1, n_micro // 2), n_micro):
            if points and not self._machine.device.startswith("cuda"):
                self._require_room(before, points[0][1], n)
            forget_peak(self._machine.device)
            self._stop()
            for _ in range(2):  # the optimiser's state is made in the first one
                started = time.perf_counter()
                self.at_once(place, n)
                self.first_sec = self.first_sec or time.perf_counter() - started
            points.append((n, peak_bytes(self._machine.device)))
        return MemoryLine(points[0], points[1])

    def at_once(self, place: tuple[int, int], n: int) -> None:
        """Take a step on a batch of `n` samples that is not split."""
        epoch, step = place
        order, batches = epoch_batches(self._unit, self._experiment, epoch)
        sample = np.resize(order.sample, n)
        whole = EpochOrder(sample, np.arange(n, dtype=np.uint64) // np.uint64(len(order.sample)))
        # As an epoch of one step, whose number, which SAM goes by, is that of the place.
        at = StepAt(epoch, epoch * (len(batches) - 1) + step, 1, slice(0, n))
        single = self._experiment.train.model_copy(update={"accumulation": 1})
        experiment = self._experiment.model_copy(update={"train": single, "schedule": Constant(name="constant")})
        freeze_layers(self._parts.model, self._parts.optimizer, single.freeze, epoch)
        inputs = next(step_inputs(self._stream, self._unit, self._parts, whole, [at.part], epoch))
        batch = make_batch(self._unit, self._parts, experiment, whole, at, inputs)
        train_step(self._parts, experiment, self._machine, batch, at)

    def _require_room(self, before: int, peak_of_half: int, n: int) -> None:
        """Raise where twice what half of a micro-batch took is not there: here the system would end the process."""
        wanted = before + 2 * (peak_of_half - before)
        if self._free is not None and wanted > self._free:
            raise PodiumError(
                f"{self._unit.name}: a step on {n} samples would take about {wanted / 2**30:.1f} GiB, and"
                f" {self._free / 2**30:.1f} GiB can be had. Lower train.batch_size, raise train.accumulation, or train"
                " fewer units side by side (--jobs)"
            )

    def _steps(self, places: list[tuple[int, int]]) -> Iterable[None]:
        """Take the steps at `places`, yielding after each."""
        by_epoch: dict[int, list[int]] = {}
        for epoch, step in places:
            by_epoch.setdefault(epoch, []).append(step)
        for epoch, steps in by_epoch.items():
            freeze_layers(self._parts.model, self._parts.optimizer, self._experiment.train.freeze, epoch)
            order, batches = epoch_batches(self._unit, self._experiment, epoch)
            parts = [batches[step] for step in steps]
            made = step_inputs(self._stream, self._unit, self._parts, order, parts, epoch)
            for step, inputs in zip(steps, made, strict=True):
                at = StepAt(epoch, step, len(batches), batches[step])
                batch = make_batch(self._unit, self._parts, self._experiment, order, at, inputs)
                train_step(self._parts, self._experiment, self._machine, batch, at)
                yield


def time_predictions(
    opened: OpenUnit, spec: PredictSpec, machine: Machine, limit_sec: float, stop: StopFlag
) -> tuple[float, float]:
    """Return the seconds of an item at prediction: as it is, and with all its views."""
    parts = opened.parts
    positions = (opened.unit.heldout if len(opened.unit.heldout) else opened.unit.train).item

    def plain(chosen: NDArray[np.int64]) -> None:
        predict_logits(parts.model, opened.items, chosen, parts.scaling, machine, spec.batch_size, stop)

    def with_views(chosen: NDArray[np.int64]) -> None:
        predict_views(
            parts.model,
            opened.items,
            chosen,
            parts.scaling,
            machine,
            spec.batch_size,
            spec.views,
            spec.average,
            parts.activate,
            stop,
        ).cpu()

    each = _time_items(plain, positions, spec.batch_size, limit_sec)
    return each, each if spec.views == ("identity",) else _time_items(with_views, positions, spec.batch_size, limit_sec)


def _time_items(
    predict: Callable[[NDArray[np.int64]], None], positions: NDArray[np.int64], batch_size: int, limit_sec: float
) -> float:
    """Return the seconds of an item, over as many batches as fit into the limit after one to warm up."""
    first = positions[:batch_size]
    started = time.perf_counter()
    predict(first)
    warm_up = time.perf_counter() - started
    n_batches = max(1, int(limit_sec / warm_up))
    chosen = positions[: n_batches * batch_size]
    started = time.perf_counter()
    predict(chosen)
    return (time.perf_counter() - started) / len(chosen)
