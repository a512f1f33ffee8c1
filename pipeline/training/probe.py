"""A few real steps and predictions of one unit, timed and weighed: what `podium plan` reckons with.

Units that would train side by side are probed side by side: they meet before each part, so that each is timed while
the others work too.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.interrupt import StopFlag
from pipeline.data.stream import Stream
from pipeline.records.experiment import Experiment
from pipeline.records.runs import Run
from pipeline.training.device import threads
from pipeline.training.memory import freed_after, step_memory, with_micro_batches
from pipeline.training.peak import MemoryLine, forget_peak, free_bytes, largest_that_fits, peak_bytes, used_bytes
from pipeline.training.phases import Phase, phases_of, to_be_measured
from pipeline.training.state import State, save_state
from pipeline.training.train import epoch_batches
from pipeline.training.trial_steps import TrialSteps, time_predictions
from pipeline.training.unit import UnitJob, open_unit

USABLE = 0.9
"""Share of the free memory that may be reckoned with."""


@dataclass(frozen=True)
class ProbeJob:
    """One unit to be probed beside others; picklable."""

    job: UnitJob
    """Its folder is that of a run for the probe alone."""
    number: int
    """0 .. n_together - 1."""
    n_together: int
    """Probes that meet."""
    n_parallel: int
    """Units that a training holds in memory at the same time; some of them may wait for their turn."""
    meeting: Path
    """An empty folder where the probes of one plan meet."""
    seconds: float
    """About how long steps are timed, all kinds together."""
    asked: float
    """When the probe was asked for, as `time.time()`: with a process of its own, that has to start first."""


@dataclass(frozen=True)
class Probed:
    """What the probe of one unit found."""

    ready_sec: float
    """From the asking to open data: start of a process where there is one, and `open_sec`."""
    open_sec: float
    """To open the unit: tables, items, normalisation, model."""
    first_step_sec: float
    """What the first step took more than a later one: kernels are chosen, or compiled."""
    step_sec: dict[Phase, float]
    """Mean of each measured kind of step, of which one in some makes the inputs of the next ones too."""
    n_steps: int
    """Steps of an epoch."""
    n_samples: int
    """Samples of an epoch."""
    batch: int
    """Samples of its largest batch."""
    in_shape: tuple[int, ...]
    """Of a stored item."""
    n_heldout: int
    """Held-out items."""
    score_item_sec: float
    """Prediction of an item as it is, as after each epoch."""
    predict_item_sec: float
    """Prediction of an item with all its views, as in the end."""
    checkpoint_sec: float
    peak: int
    """Most memory in bytes: of the device, or of the process."""
    memory: MemoryLine
    """Over the samples of a micro-batch."""
    free: int | None
    """Memory in bytes that the unit may come to use, as its share of the machine; None where it is not known."""
    largest: int | None
    """Most samples of a micro-batch: tried on a CUDA device, estimated from `memory` elsewhere; None where unknown."""


def probe_job(probe: ProbeJob, report: Callable[[Any], None], stop: StopFlag) -> None:
    """Probe one unit and report a `Probed`.

    Raises:
        StepMemoryError: a step does not fit into memory.
    """
    job = probe.job
    with threads(job.machine.threads):
        report(freed_after(lambda: _probe(probe, stop), job.unit.name, job.machine.device))


def _probe(probe: ProbeJob, stop: StopFlag) -> Probed:
    run, machine, opening = Run(probe.job.folder), probe.job.machine, time.perf_counter()
    opened = open_unit(probe.job, run)
    open_sec, ready_sec = time.perf_counter() - opening, time.time() - probe.asked
    unit, experiment = opened.unit, _tame(with_micro_batches(run.experiment, machine.micro_batches))
    order, batches = epoch_batches(unit, experiment, 0)
    batch = max(part.stop - part.start for part in batches)
    kinds = phases_of(experiment, opened.items.shape, len(batches))
    places = {phase: kinds[phase].places for phase in to_be_measured(kinds)}
    heaviest = places[max(places, key=lambda phase: phase.weight)][0]

    with Stream(unit.items, opened.parts.recipe, machine.loaders) as stream:
        _meet(probe, "memory", stop)
        free = _free_share(machine.device, probe.n_parallel)
        tried = TrialSteps(opened, experiment, machine, stream, stop, free)
        with step_memory(unit.name, min(part.stop - part.start for part in batches), machine.micro_batches):
            memory = tried.weigh(heaviest, -(-batch // experiment.train.accumulation))
            forget_peak(machine.device)
            _meet(probe, "steps", stop)
            times = {phase: tried.time(places[phase], probe.seconds / len(places)) for phase in places}
        _meet(probe, "predictions", stop)
        score_item_sec, predict_item_sec = time_predictions(
            opened, run.experiment.predict, machine, probe.seconds / 4, stop
        )
        peak = max(peak_bytes(machine.device), memory.large[1])
        largest = None
        if not machine.device.startswith("cuda"):
            largest = None if free is None else memory.most(free, len(order.sample))
        elif probe.n_together == 1:
            largest = largest_that_fits(lambda n: tried.at_once(heaviest, n), memory.large[0], len(order.sample))
    with tempfile.TemporaryDirectory(prefix="podium-plan-") as folder:
        saving = time.perf_counter()
        save_state(Path(folder), State(), opened.parts)
        checkpoint_sec = time.perf_counter() - saving
    steps = {phase: statistics.fmean(seconds) for phase, seconds in times.items()}
    return Probed(
        ready_sec=ready_sec,
        open_sec=open_sec,
        first_step_sec=max(0.0, tried.first_sec - max(steps.values())),
        step_sec=steps,
        n_steps=len(batches),
        n_samples=len(order.sample),
        batch=batch,
        in_shape=opened.items.shape,
        n_heldout=len(unit.heldout),
        score_item_sec=score_item_sec,
        predict_item_sec=predict_item_sec,
        checkpoint_sec=checkpoint_sec,
        peak=peak,
        memory=memory,
        free=free,
        largest=largest,
    )


def _tame(experiment: Experiment) -> Experiment:
    """Return the experiment with so small a rate that no loss goes astray in steps which are not meant to learn."""
    slow = experiment.optimizer.model_copy(update={"lr": 1e-3 * experiment.optimizer.lr})
    return experiment.model_copy(update={"optimizer": slow})


def _meet(probe: ProbeJob, point: str, stop: StopFlag) -> None:
    """Wait until all probes have come as far as this."""
    (probe.meeting / f"{point}-{probe.number}").touch()
    while len(list(probe.meeting.glob(f"{point}-*"))) < probe.n_together:
        stop()
        time.sleep(0.01)


def _free_share(device: str, n_parallel: int) -> int | None:
    """Return how much memory a unit may come to use: what it has, and its share of what is free."""
    free = free_bytes(device)
    return None if free is None else used_bytes(device) + int(USABLE * free / n_parallel)
