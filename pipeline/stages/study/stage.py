"""A study from its file to its page: `podium study FILE.yaml`."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import ConfigError
from pipeline.base.files import read_json
from pipeline.records.config import Config
from pipeline.records.runs import Run, Workspace, git_commit, now, versions
from pipeline.records.study import Point, Study, load_study, points_of
from pipeline.stages.machines import Wishes
from pipeline.stages.study.page import Origin, write_study
from pipeline.stages.study.points import PointTrainer, config_of
from pipeline.stages.study.results import StudyResult, collect, describe
from pipeline.training.device import count_cores

Say = Callable[[str], None]


@dataclass(frozen=True)
class Studied:
    """What came out of a study."""

    study: Study
    result: StudyResult
    folder: Path
    """Of the tables and pictures."""
    page: Path


def run_study(
    workspace: Workspace,
    file: Path,
    wishes: Wishes,
    say: Say,
    *,
    name: str | None = None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    command: str = "",
) -> Studied:
    """Train the points of a study that are not finished, score all of them, and write tables, pictures and page.

    Args:
        workspace: where everything lies.
        file: the study.
        wishes: of the machine.
        say: gets messages: one for each point that is finished.
        name: of the study, before the names of its runs; by default the file's.
        out: folder of tables and page; by default `runs/<task>/<name>-study/`.
        overrides: `key=value` of the experiment, for every point.
        command: as the page shows it.

    Raises:
        PodiumError: something is wrong with the study, a point or the data.
        StopRequestedError: a signal came; the same call goes on where it stopped.
    """
    study, name = load_study(file), name or file.stem
    points = points_of(study, str(file))
    if study.search is not None:
        from pipeline.stages.study.search import search_points

        points, configs, runs = search_points(workspace, study, file, wishes, say, name, overrides)
    else:
        configs = configs_of(study, file, points, name, overrides)
        runs = PointTrainer(workspace, study, points, configs, wishes, say, _told).train()
    if not runs:
        raise ConfigError(f"{file}: no point trains anything, so there is nothing to score")
    result = collect(workspace, study, points, runs)
    task = next(iter(configs.values())).task
    folder = out or workspace.root / "runs" / task.name / f"{name}-study"
    page = write_study(folder, study, result, _origin(name, command or f"podium study {file}", runs))
    return Studied(study, result, folder, page)


def configs_of(
    study: Study, file: Path, points: Sequence[Point], name: str, overrides: Sequence[str] = ()
) -> dict[str, Config]:
    """Return the config of each point that trains, by its label, with every wrong key named before any training.

    Raises:
        ConfigError: a key or value is wrong, two points are the same experiment, or their tasks, folds or seeds differ.
    """
    configs = {
        point.label: config_of(study, file, point, name, overrides) for point in points if not point.spec.mean_of
    }
    seen: dict[str, str] = {}
    for point in points:
        if point.label not in configs:
            continue
        config = configs[point.label]
        what = repr((config.experiment.plain(), point.spec.teacher, point.spec.threshold, point.spec.folds))
        if what in seen:
            raise ConfigError(f"{file}: '{seen[what]}' and '{point.label}' are the same experiment; leave one out")
        seen[what] = point.label
    first = next(iter(configs.values()), None)
    for label, config in configs.items():
        if first is not None and (config.task.name, config.experiment.folds, config.experiment.seeds) != (
            first.task.name,
            first.experiment.folds,
            first.experiment.seeds,
        ):
            raise ConfigError(f"{file}: '{label}' has other folds, seeds or another task, so it cannot be compared")
    return configs


def _told(run: Run, n_trained: int) -> str:
    cv = read_json(run.folder / "cv.json")
    return describe(run, cv) + ("" if n_trained else ", trained before")


def _origin(name: str, command: str, runs: Mapping[str, Run]) -> Origin:
    run = next(iter(runs.values()))
    machine = run.machine
    seconds = sum(_seconds(each) for each in runs.values())
    hardware = (
        f"{machine.device}, {machine.precision}, {machine.jobs} units side by side with {machine.threads} threads each;"
        f" {count_cores()} cores of {_processor()}. Training steps of all units, added up: {seconds / 60:.1f} min"
    )
    made = f"{now()[:10]}, commit {(git_commit() or 'unknown')[:12]}, " + ", ".join(
        f"{library} {version}" for library, version in versions().items()
    )
    return Origin(name, command, hardware, made)


def _seconds(run: Run) -> float:
    from pipeline.training.history import read_history

    histories = [read_history(run.unit_folder(unit) / "history.csv") for unit in run.done_units()]
    return sum(sum(history["seconds"]) for history in histories)


def _processor() -> str:
    """Return the name of the processor as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
