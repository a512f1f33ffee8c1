"""All units of all points of a study through one executor: what is finished is passed over, what was begun goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError, DivergedError
from pipeline.base.files import write_json
from pipeline.base.interrupt import StopFlag
from pipeline.base.progress import clock_text
from pipeline.blending.trust import Trust
from pipeline.data.dataset import Dataset
from pipeline.records.config import Config, load_config
from pipeline.records.folds import Folds
from pipeline.records.runs import Run, Unit, Workspace, now
from pipeline.records.study import Point, Study
from pipeline.records.unlabelled import PseudoSpec
from pipeline.stages.crossval import begin_run, finish_run
from pipeline.stages.folding import fold_table
from pipeline.stages.machines import Wishes, wishes_of_all
from pipeline.stages.pseudo import Wanted, make_labels
from pipeline.stages.study.apart import has_apart, predict_apart
from pipeline.stages.units import train_units
from pipeline.training.device import seats_of
from pipeline.training.executors import run_jobs
from pipeline.training.memory import StepMemoryError
from pipeline.training.unit import UnitJob, train_unit_job

Say = Callable[[str], None]
Tell = Callable[[Run, int], str]
"""A finished run of a point, and how many of its units were trained now -> what is said of it."""


DIVERGED = "diverged.json"
"""Written into the folder of a unit whose loss or weights left the finite numbers: a finding, not a failure."""


@dataclass(frozen=True)
class PointJob:
    """A unit of a point, picklable."""

    label: str
    """Of the point."""
    unit: UnitJob
    is_scored_apart: bool
    """Whether rows are kept apart, to be predicted too."""


@dataclass(frozen=True)
class UnitDone:
    """What a worker reports of a unit."""

    label: str
    unit: Unit


def config_of(study: Study, file: Path, point: Point, name: str, overrides: Sequence[str] = ()) -> Config:
    """Return the config of a point: the base experiment with its changes, the study's seeds, and a name for its run.

    `overrides` come last and hold for every point.

    Raises:
        ConfigError: a key or value is wrong; the message names the point.
    """
    common = [f"seeds={list(study.seeds)}"] if study.seeds else []
    common += ["train.layer_statistics=true"] if study.layer_statistics else []
    try:
        config = load_config(file.parent / study.base, [*point.overrides, *common, *overrides])
    except ConfigError as error:
        raise ConfigError(f"{file}, point '{point.label}': {error}") from None
    return replace(config, run_name=f"{name}-{point.slug}")


def folds_of(study: Study, point: Point) -> tuple[int, ...] | None:
    """Return the folds that a point trains; None for all of them."""
    chosen = study.folds if point.spec.folds is None else point.spec.folds
    return None if isinstance(chosen, str) else chosen


class PointTrainer:
    """Trains points one wave after another: all that wait for no teacher side by side, then those that had to."""

    def __init__(
        self,
        workspace: Workspace,
        study: Study,
        points: Sequence[Point],
        configs: Mapping[str, Config],
        wishes: Wishes,
        say: Say,
        tell: Tell,
    ) -> None:
        """Choose how many units train side by side.

        Args:
            workspace: where everything lies.
            study: gives the folds.
            points: of the study; those that are means of others are passed over.
            configs: of each point by its label.
            wishes: of the machine.
            say: gets messages.
            tell: makes the end of the line that a finished point gets.
        """
        self._workspace, self._study, self._configs = workspace, study, configs
        self._points = [point for point in points if not point.spec.mean_of]
        self._tell, self._say_always = tell, say
        self._said: set[str] = set()
        self._wishes = self._shared(wishes)
        self._data: dict[str, tuple[Dataset, Path]] = {}
        self._folds: Folds | None = None
        self._runs: dict[str, Run] = {}
        self._left: dict[str, set[Unit]] = {}
        self._trained: dict[str, int] = {}
        self._n_done = 0
        self._started = time.monotonic()

    def train(self) -> dict[str, Run]:
        """Train what is not finished and return the run of each point by its label.

        Raises:
            PodiumError: something is wrong with a point, before any unit of its wave trains; or a unit failed.
            StopRequestedError: a signal came; the same call goes on.
        """
        todo = list(self._points)
        while todo:
            ready = [point for point in todo if point.spec.teacher is None or point.spec.teacher in self._runs]
            self._train_wave(ready)
            todo = [point for point in todo if point not in ready]
        return self._runs

    def _train_wave(self, points: Sequence[Point]) -> None:
        jobs: list[PointJob] = []
        for point in points:
            jobs += self._jobs_of(point)
        for label in [point.label for point in points if not self._left[point.label]]:
            self._finish(label)
        if not jobs:
            return
        try:
            seats = seats_of(jobs[0].unit.machine.device)
            run_jobs(train_point_job, jobs, self._wishes.jobs or 1, self._take, seats=seats)
        except StepMemoryError as error:
            self._say(f"note: {error}; the points go on one by one, each in micro-batches as small as it needs")
            for point in points:
                self._train_alone(point, [job for job in jobs if job.label == point.label])

    def _jobs_of(self, point: Point) -> list[PointJob]:
        """Start the run of a point and return its units that are not finished."""
        config = self._taught(point)
        which = folds_of(self._study, point)
        self._folds = self._folds or fold_table(self._workspace, config, self._say)  # alike for all points
        key = repr((config.task.plain(), config.experiment.input.plain()))
        data, data_of = self._data.get(key, (None, None))
        run, machine = begin_run(self._workspace, config, self._wishes, self._say, which, self._folds, data)
        if data is None or data_of is None:
            workers = machine.workers
            folder, cache = self._workspace.data(config.task), self._workspace.cache
            data = Dataset(config.task, config.experiment.input, folder, cache, workers, self._say, self._wishes.show)
            data.train_items("cpu")
            data_of = run.folder
            self._data[key] = (data, data_of)
        is_apart = config.experiment.folds.holdout_frac > 0
        asked = [unit for unit in run.units() if which is None or unit.fold in which]
        units = [unit for unit in asked if not _is_over(run, unit, is_apart)]
        self._runs[point.label], self._left[point.label] = run, set(units)
        self._trained[point.label] = len(units)
        root, label = self._workspace.root, point.label
        return [PointJob(label, UnitJob(root, run.folder, unit, machine, data_of), is_apart) for unit in units]

    def _taught(self, point: Point) -> Config:
        """Return the config of a point with the labels that its teacher gives the rows without labels."""
        config, teacher = self._configs[point.label], point.spec.teacher
        if teacher is None:
            return config
        wanted = Wanted(trust=Trust(threshold=point.spec.threshold), folds=folds_of(self._study, point))
        folder = make_labels(self._workspace, [self._runs[teacher]], wanted, f"for-{config.run_name}", self._say)
        pseudo = config.experiment.pseudo or PseudoSpec()
        pseudo = pseudo.model_copy(update={"labels": self._workspace.short(folder)})
        return replace(config, experiment=config.experiment.model_copy(update={"pseudo": pseudo}))

    def _take(self, event: Any) -> None:
        """Count a unit that has ended; with the last one of a point, derive its scores and say them."""
        if not isinstance(event, UnitDone):
            return
        self._left[event.label].discard(event.unit)
        if not self._left[event.label]:
            self._finish(event.label)

    def _finish(self, label: str) -> None:
        run = Run(self._runs[label].folder)  # how batches are split may have changed
        if self._trained[label] or not (run.folder / "cv.json").is_file():
            rows = next((data.train.rows for data, _ in self._data.values()), None)
            finish_run(self._workspace, run, rows)
        self._runs[label] = run
        self._n_done += 1
        took = clock_text(time.monotonic() - self._started)
        end = self._tell(run, self._trained[label])
        self._say_always(f"{self._n_done}/{len(self._points)}  {label}: {end}  [{took}]")

    def _train_alone(self, point: Point, jobs: Sequence[PointJob]) -> None:
        if not jobs or not self._left[point.label]:
            return
        run, machine = Run(self._runs[point.label].folder), jobs[0].unit.machine
        which = folds_of(self._study, point)
        train_units(self._workspace, run, machine, which, self._say, lambda event: None)
        for job in jobs:
            if job.is_scored_apart:
                predict_apart(job.unit, StopFlag())
        self._left[point.label].clear()
        self._finish(point.label)

    def _shared(self, wishes: Wishes) -> Wishes:
        """Return the wishes with as many units side by side as suit the whole study."""
        n_units = 0
        for point in self._points:
            experiment, which = self._configs[point.label].experiment, folds_of(self._study, point)
            n_units += len(experiment.seeds) * (experiment.folds.n_folds if which is None else len(which))
        shared, why = wishes_of_all(wishes, n_units)
        if wishes.jobs is None:
            self._say(f"jobs: {shared.jobs}, {why}")
        return shared

    def _say(self, line: str) -> None:
        """Say what no other point has said."""
        if line not in self._said:
            self._said.add(line)
            self._say_always(line)


def train_point_job(job: PointJob, report: Callable[[Any], None], stop: StopFlag) -> None:
    """Train a unit if it is not finished, predict the rows kept apart, and report that it is done.

    A unit that diverges ends too: the study goes on, and says so.
    """
    try:
        train_unit_job(job.unit, lambda event: None, stop)
        if job.is_scored_apart:
            predict_apart(job.unit, stop)
    except DivergedError as error:
        write_json(Run(job.unit.folder).unit_folder(job.unit.unit) / DIVERGED, {"error": str(error), "at": now()})
    report(UnitDone(job.label, job.unit.unit))


def _is_over(run: Run, unit: Unit, is_apart: bool) -> bool:
    """Say whether there is nothing left to do for a unit: it is finished and scored, or diverged, as it would again."""
    if (run.unit_folder(unit) / DIVERGED).is_file():
        return True
    return run.is_done(unit) and (not is_apart or has_apart(run, unit))
