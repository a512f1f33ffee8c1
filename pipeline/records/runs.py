"""Where a run's files lie: the workspace, the run's folder, the folder of each unit; open, claim, list, finish.

    runs/<task>/<run>/run.json            task, experiment, folds, machine, versions: everything that made it
                      units/fold0-seed0/  checkpoints, history.csv, heldout.parquet, test.parquet, weights, done.json
                      oof.parquet, test.parquet, cv.json, curves.png     derived from the units

A unit is finished when its `done.json` exists: it is written last, and a finished unit is never trained again (unless
memory ran out in another one, since when batches are split otherwise: all units of a run are split alike).
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pipeline.base.errors import DataError, MismatchError, PodiumError, nearest
from pipeline.base.files import hash_json, read_json, write_json
from pipeline.records.config import Config, difference, validate
from pipeline.records.experiment import Experiment, FoldSpec
from pipeline.records.folds import Folds, resolve_scheme, table_name
from pipeline.records.machine import Machine
from pipeline.records.subjects import keeps_whole
from pipeline.records.task import Task

FoldName = int | Literal["all"]


CLAIM_WAIT_SEC = 5.0
"""How long a unit that another process holds is waited for: a worker whose parent was killed saves itself and ends."""


@dataclass(frozen=True)
class Workspace:
    """The folder that everything lies in: the current directory, or `--root`."""

    root: Path

    def data(self, task: Task) -> Path:
        """Return the folder with the host's files."""
        return self.root / task.data

    def folds(self, task: Task, spec: FoldSpec) -> Path:
        """Return the path of the fold table that a spec names."""
        has_groups = bool(task.group or task.submission.row_id or spec.duplicates != "off")
        has_groups = has_groups or keeps_whole(task, spec.within)
        scheme = resolve_scheme(spec.scheme, task.kind, has_groups)
        return self.root / "folds" / task.name / f"{table_name(spec, scheme)}.csv"

    def run(self, task: Task, name: str) -> Path:
        """Return the folder of a run or blend."""
        return self.root / "runs" / task.name / name

    def submissions(self, task: Task) -> Path:
        """Return the folder of the task's submission files."""
        return self.root / "submissions" / task.name

    def short(self, path: Path) -> str:
        """Return a path as configs write it: from the workspace on where it lies there, else whole."""
        path, root = path.resolve(), self.root.resolve()
        return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()

    @property
    def cache(self) -> Path:
        """Return the folder of decoded items."""
        return self.root / ".cache"

    def find_run(self, name: str) -> Path:
        """Return the folder of a run given as a path, as `task/run`, or as a run name that occurs once.

        Raises:
            DataError: no run has that name (the nearest is shown), or several tasks have one.
        """
        # The workspace first: with --root, a run of the same name in the current directory is another one.
        for folder in (self.root / name, self.root / "runs" / name, Path(name)):
            if (folder / "run.json").is_file():
                return folder
        known = sorted(self.root.glob("runs/*/*/run.json"))
        found = [path.parent for path in known if path.parent.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"run '{name}': several tasks have one; say which: {', '.join(map(_two_names, found))}")
        near = nearest(name, [path.parent.name for path in known] + [_two_names(path.parent) for path in known])
        raise DataError(f"run '{name}': not found under {self.root / 'runs'}.{near} `podium board` lists the runs")


def _two_names(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


@dataclass(frozen=True, order=True)
class Unit:
    """One training: a fold (or `all`) and a seed."""

    fold: FoldName
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the unit's folder."""
        return f"fold{self.fold}-seed{self.seed}"


@dataclass(frozen=True)
class Run:
    """An opened run: what `run.json` says, and the paths of everything else."""

    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """Return the content of `run.json`."""
        return dict(read_json(self.folder / "run.json"))

    @cached_property
    def task(self) -> Task:
        """Return the task as it was when the run started."""
        return validate(Task, self.record["task"], str(self.folder / "run.json"))

    @cached_property
    def experiment(self) -> Experiment:
        """Return the whole experiment, with overrides and defaults filled in."""
        return validate(Experiment, self.record["experiment"], str(self.folder / "run.json"))

    @cached_property
    def machine(self) -> Machine:
        """Return the machine that started the run."""
        return validate(Machine, self.record["machine"], str(self.folder / "run.json"))

    @property
    def name(self) -> str:
        """Return the run's name."""
        return self.folder.name

    @property
    def is_blend(self) -> bool:
        """Say whether this is a blend of other runs, which has no units."""
        return "blend" in self.record

    @property
    def is_refit(self) -> bool:
        """Say whether the run's units learn from every row, so that it has no OOF."""
        return bool(self.record.get("is_refit"))

    def units(self) -> list[Unit]:
        """Return every unit of the run, done or not."""
        folds: Sequence[FoldName] = ["all"] if self.is_refit else range(self.record["folds"]["n_folds"])
        return [Unit(fold, seed) for seed in self.experiment.seeds for fold in folds]

    def unit_folder(self, unit: Unit) -> Path:
        """Return the folder of a unit."""
        return self.folder / "units" / unit.name

    def is_done(self, unit: Unit) -> bool:
        """Say whether a unit is finished, with batches split as the run now splits them."""
        path, split = self.unit_folder(unit) / "done.json", self.record.get("machine", {}).get("micro_batches", 1)
        return path.is_file() and read_json(path).get("micro_batches", 1) == split

    def unfinished(self, folds: Sequence[int] | None = None) -> list[Unit]:
        """Return the units that are not finished, of some folds or of all."""
        return [unit for unit in self.units() if (folds is None or unit.fold in folds) and not self.is_done(unit)]

    def done_units(self) -> list[Unit]:
        """Return the finished units."""
        return [unit for unit in self.units() if self.is_done(unit)]

    @contextmanager
    def claim(self, unit: Unit) -> Iterator[Path]:
        """Yield the unit's folder while holding its lock; another process that holds it is an error, not a wait."""
        folder = self.unit_folder(unit)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=CLAIM_WAIT_SEC):
                yield folder
        except Timeout:
            raise PodiumError(f"{folder}: another process is training this unit; wait for it or stop it") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the whole run while its derived files are written."""
        with FileLock(self.folder / ".lock"):
            yield


def start_run(
    workspace: Workspace,
    config: Config,
    folds: Folds,
    machine: Machine,
    start_weights: Mapping[str, str] | None = None,
    is_refit: bool = False,
) -> Run:
    """Return the run of a config: a new folder, or the old one when exactly the same config made it.

    Raises:
        MismatchError: a run of that name has another config, folds or machine; the differences are listed.
    """
    folder = workspace.run(config.task, config.run_name)
    record = _record(config, folds, machine, is_refit) | {"start_weights": dict(start_weights or {})}
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / "run.json").exists():
            write_json(folder / "run.json", record)
        run = Run(folder)
        _require_same(run, record, machine)
    return run


def config_hash(experiment: Experiment) -> str:
    """Return the hash of everything that an experiment decides."""
    return hash_json(experiment.plain())


def across_folder(folder: Path) -> Path:
    """Return where the run lies that holds out whole subjects, beside the run of a split within them."""
    return folder.with_name(f"{folder.name}-across")


def versions() -> dict[str, str]:
    """Return the versions of what decides the numbers."""
    libraries = ("podium", "torch", "timm", "numpy", "pandas", "scikit-learn")
    return {"python": platform.python_version()} | {name: _version(name) for name in libraries}


def git_commit() -> str | None:
    """Return the commit of the current checkout, with `+changes` when files differ from it; None outside of one."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _record(config: Config, folds: Folds, machine: Machine, is_refit: bool) -> dict[str, Any]:
    return {
        "task": config.task.plain(),
        "experiment": config.experiment.plain(),
        "config_hash": config_hash(config.experiment),
        "folds": {"name": folds.name, "hash": folds.table_hash, "n_folds": folds.n_folds},
        "is_refit": is_refit,
        "machine": machine.plain(),
        "created": now(),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def _require_same(run: Run, record: dict[str, Any], machine: Machine) -> None:
    if run.is_blend:
        raise MismatchError(f"{run.folder}: is a blend; choose another name with --name")
    # Through the records, so that a key that is younger than the run has its default.
    started = {"start_weights": {}} | run.record | {"task": run.task.plain(), "experiment": run.experiment.plain()}
    # Where submissions are sent changes nothing about a run, and is often decided after the first ones.
    started, record = ({**facts, "task": {**facts["task"], "host": None}} for facts in (started, record))
    lines = [
        line
        for part in ("task", "experiment", "folds", "is_refit", "start_weights")
        for line in difference({part: started[part]}, {part: record[part]})
    ]
    if lines:
        shown = "\n  ".join(lines)
        raise MismatchError(
            f"{run.folder}: was started with another config:\n  {shown}\n"
            "Start a run of its own with --name NEW, or delete the folder to begin again"
        )
    bits = difference(run.machine.bits(), machine.bits())
    if bits:
        raise MismatchError(
            f"{run.folder}: was started on another machine setting ({'; '.join(bits)}), and a run that goes on must be"
            " bitwise the same. Give the old setting, or start a run of its own with --name NEW"
        )


@cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
