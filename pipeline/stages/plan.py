"""What a training will take in time and memory, from a few real steps of it. `podium plan CONFIG --quota 9h`.

As many units as train side by side are probed side by side, on the real data, with every option of the experiment.
Nothing is written to `runs/`. A fold table and decoded items, which training needs too, are made where they lack.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.data.dataset import Dataset
from pipeline.records.config import Config
from pipeline.records.machine import Machine
from pipeline.records.runs import Run, Unit, Workspace, start_run
from pipeline.stages.budget import Cost, step_seconds
from pipeline.stages.crossval import refuse_before_training
from pipeline.stages.folding import fold_table
from pipeline.stages.machines import Wishes, at_once_of, resolve_machine
from pipeline.training.device import gpus_of, require_compiler, seats_of
from pipeline.training.executors import run_jobs
from pipeline.training.memory import StepMemoryError, finer_split
from pipeline.training.misfits import warnings_of
from pipeline.training.origins import origin_hashes
from pipeline.training.phases import Phase, phases_of
from pipeline.training.probe import Probed, ProbeJob, probe_job
from pipeline.training.unit import UnitJob

Say = Callable[[str], None]

SECONDS = 12.0
"""About how long steps are timed."""


@dataclass(frozen=True)
class Plan:
    """What a training will take."""

    machine: Machine
    """Of the run; `micro_batches` are those that fitted."""
    probes: tuple[Probed, ...]
    """Of the units that were probed side by side."""
    phases: dict[Phase, float]
    """Seconds of a step of each kind that was measured: the median, mean over the probes."""
    cost: Cost
    n_done: int
    """Units that are finished already and not in `cost`."""
    quota_sec: float | None
    finish: datetime
    """When the run would end, were it started now."""
    config: Config
    n_test: int
    """Test items."""

    @property
    def holds(self) -> bool | None:
        """Say whether the run ends within the quota; None without one."""
        return None if self.quota_sec is None else self.cost.run <= self.quota_sec

    @property
    def images_per_sec(self) -> float:
        """Return the samples that all units together train on in a second, over a whole training without scoring."""
        n_epochs = self.config.experiment.train.epochs
        seconds = sum(_steps_of(self.config, self.probes[0], self.phases))
        return self.probes[0].n_samples * n_epochs / seconds * len(self.probes)


def plan_config(
    workspace: Workspace,
    config: Config,
    wishes: Wishes,
    say: Say,
    quota_sec: float | None = None,
    seconds: float = SECONDS,
) -> Plan:
    """Return what the training of a config will take, found by trying a few of its steps and predictions.

    Args:
        workspace: where everything lies; nothing is written to its `runs/`.
        config: what would be trained.
        wishes: device, jobs, threads and workers, as for training.
        say: gets messages.
        quota_sec: time that the run may take.
        seconds: about how long steps are timed; more makes the estimate steadier.

    Raises:
        ConfigError, DataError, MismatchError: what training would refuse too.
        PodiumError: not even the smallest micro-batch fits into memory.
    """
    folds = fold_table(workspace, config, say)
    machine = resolve_machine(workspace, config, wishes, say)  # refuses before files are decoded
    data_folder = workspace.data(config.task)
    data = Dataset(
        config.task, config.experiment.input, data_folder, workspace.cache, machine.workers, say, wishes.show
    )
    if config.experiment.train.compile:
        require_compiler(machine.device)
    data.train_items("cpu")  # decoded once, and no part of later starts
    opened = time.perf_counter()
    refuse_before_training(workspace.root, config, data, folds, False, say)
    for note in warnings_of(config.experiment):
        say(f"warning: {note}")
    starts = origin_hashes(workspace.root, config.experiment, range(folds.n_folds))
    n_test = 0 if config.task.test is None else len(data.other(None, "cpu")[1])
    preparation = time.perf_counter() - opened
    del data
    with tempfile.TemporaryDirectory(prefix="podium-plan-") as folder:
        run = start_run(Workspace(Path(folder)), config, folds, machine, starts)
        todo = _unfinished(workspace, config, run.units())
        units = todo[: at_once_of(machine)] or run.units()[:1]
        say(f"trying {len(units)} x {machine.threads} threads on {machine.device}, {machine.precision}")
        n_parallel = max(1, min(machine.jobs, len(todo)))
        machine, probes = _probe(workspace, run, units, machine, n_parallel, seconds, Path(folder), say)
    phases = {
        phase: statistics.fmean(probe.step_sec[phase] for probe in probes if phase in probe.step_sec)
        for phase in {phase for probe in probes for phase in probe.step_sec}
    }
    cost = _cost(config, probes, phases, preparation, len(todo), n_parallel, n_test)
    return Plan(
        machine=machine,
        probes=probes,
        phases=phases,
        cost=cost,
        n_done=len(run.units()) - len(todo),
        quota_sec=quota_sec,
        finish=datetime.now().astimezone() + timedelta(seconds=cost.run),
        config=config,
        n_test=n_test,
    )


def _unfinished(workspace: Workspace, config: Config, units: Sequence[Unit]) -> list[Unit]:
    """Return the units that a run of that name has not finished."""
    folder = workspace.run(config.task, config.run_name)
    if not (folder / "run.json").is_file() or Run(folder).is_blend:
        return list(units)
    done = set(Run(folder).done_units())
    return [unit for unit in units if unit not in done]


def _probe(
    workspace: Workspace,
    run: Run,
    units: Sequence[Unit],
    machine: Machine,
    n_parallel: int,
    seconds: float,
    folder: Path,
    say: Say,
) -> tuple[Machine, tuple[Probed, ...]]:
    """Return what each unit was found to take, and the machine with as many micro-batches as fit."""
    while True:
        found: list[Probed] = []
        meeting = folder / f"meeting-{machine.micro_batches}"
        meeting.mkdir()
        jobs = [
            ProbeJob(
                job=UnitJob(workspace.root, run.folder, unit, machine),
                number=number,
                n_together=len(units),
                n_parallel=-(-n_parallel // max(1, len(gpus_of(machine.device)))),
                meeting=meeting,
                seconds=seconds,
                asked=time.time(),
            )
            for number, unit in enumerate(units)
        ]
        try:
            run_jobs(probe_job, jobs, len(jobs), found.append, seats=seats_of(machine.device))
            return machine, tuple(found)
        except StepMemoryError as error:
            factor = finer_split(error, run.experiment.train.accumulation)
            say(f"note: {error}; going on with {factor} times the micro-batches, as training would")
            machine = machine.model_copy(update={"micro_batches": factor})


def _cost(
    config: Config,
    probes: Sequence[Probed],
    phases: dict[Phase, float],
    preparation: float,
    n_units: int,
    n_parallel: int,
    n_test: int,
) -> Cost:
    """Return the seconds of a run; of what the probes differ in, the mean."""

    def mean(read: Callable[[Probed], float]) -> float:
        return statistics.fmean(read(probe) for probe in probes)

    scoring = mean(lambda probe: probe.n_heldout * probe.score_item_sec)
    checkpoint = mean(lambda probe: probe.checkpoint_sec)
    return Cost(
        preparation=preparation + max(probe.ready_sec - probe.open_sec for probe in probes),
        opening=mean(lambda probe: probe.open_sec + probe.first_step_sec),
        epochs=tuple(each + scoring + checkpoint for each in _steps_of(config, probes[0], phases)),
        prediction=mean(lambda probe: (probe.n_heldout + n_test) * probe.predict_item_sec),
        n_units=n_units,
        n_parallel=n_parallel,
        at_once=len(probes),
    )


def _steps_of(config: Config, probe: Probed, phases: dict[Phase, float]) -> list[float]:
    kinds = phases_of(config.experiment, probe.in_shape, probe.n_steps)
    return step_seconds(kinds, phases, config.experiment.train.epochs)
