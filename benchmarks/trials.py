"""Scored trainings of a study: several side by side, resumable, one JSON file each. For any study on a cut contest.

contest = cut_contest(root, task, data, {"train": 2_000, "scored": 10_000}, base)
trials = [Trial(contest, arm, overrides, seed) for ...]
results = run_trials(trials, n_parallel=2)
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from contest import Contest

from pipeline import api
from pipeline.base.errors import MismatchError
from pipeline.base.files import hash_json, read_json, write_json
from pipeline.base.interrupt import StopFlag
from pipeline.base.progress import clock_text, say
from pipeline.base.tables import read_table
from pipeline.records.predictions import Predictions, load_predictions
from pipeline.records.runs import Run, git_commit, now

Report = Callable[[Any], None]


@dataclass(frozen=True)
class Trial:
    """One training to be scored: an arm of a study with one seed, picklable."""

    contest: Contest
    arm: str
    overrides: tuple[str, ...]
    """What the arm changes in the base experiment, as `key=value`."""
    seed: int
    device: str = "auto"

    @property
    def name(self) -> str:
        """Return the name of its run and its result."""
        return f"{self.arm}-seed{self.seed}"

    @property
    def path(self) -> Path:
        """Return the path of its result."""
        return self.contest.root / "results" / self.contest.name / f"{self.name}.json"

    @property
    def all_overrides(self) -> tuple[str, ...]:
        """Return the arm's overrides and the seed's."""
        return (*self.overrides, f"seeds=[{self.seed}]")

    def fingerprint(self) -> str:
        """Return a hash of what decides the score: the whole experiment and all rows with their labels."""
        config = api.config(self.contest.config, self.all_overrides)
        return hash_json([config.experiment.plain(), self.contest.rows_hash])


@dataclass(frozen=True)
class Result:
    """What a trial scored."""

    contest: str
    arm: str
    seed: int
    overrides: list[str]
    accuracy: float
    n_rows: int
    """Rows that were scored."""
    wrong: list[str]
    """Ids of the rows that were predicted wrongly, sorted."""
    seconds: float
    """Of the training steps, without start, prediction and files."""
    fingerprint: str
    device: str
    precision: str
    git_commit: str | None
    finished: str


def run_trials(
    trials: Sequence[Trial],
    n_parallel: int,
    job: Callable[[Trial, Report, StopFlag], None] | None = None,
    tell: Callable[[str], None] = say,
) -> list[Result]:
    """Run every trial that has no result yet, `n_parallel` at a time, and return the results of all, in their order.

    Args:
        trials: begun in this order; a line is told when one has finished.
        n_parallel: processes side by side; 1 stays in this process.
        job: what trains, scores and writes the result, a function of a module; by default `run_trial`.
        tell: gets the lines.

    Raises:
        MismatchError: a result is there, but was made with other settings or rows; nothing was trained.
        StopRequestedError: a signal came; the same call goes on.
    """
    from pipeline.training.executors import run_jobs

    todo = [trial for trial in trials if read_result(trial) is None]
    if todo:
        for contest in dict.fromkeys(trial.contest for trial in todo):
            api.folds(contest.config, root=contest.root)  # once, before two processes do it at the same time
        tell(f"{len(trials) - len(todo)} of {len(trials)} trainings have a result; {len(todo)} to go")
        run_jobs(job or run_trial, todo, n_parallel, tally(len(todo), tell))
    return [result for trial in trials if (result := read_result(trial)) is not None]


def run_trial(trial: Trial, report: Report, stop: StopFlag) -> None:
    """Train on all training rows, predict those of the part `scored`, and write the result; report it at the end."""
    contest = trial.contest
    log = contest.root / "logs" / contest.name / f"{trial.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    # One thread each: as many trainings side by side as there are cores are faster than one on all of them.
    machine: dict[str, Any] = {"device": trial.device, "jobs": 1, "threads": 1, "show": "quiet"}
    with log.open("a") as file, redirect_stderr(file), _signalled(stop):
        run = api.train(contest.config, trial.all_overrides, folds="all", name=trial.name, root=contest.root, **machine)
        out = run.folder / "scored.parquet"
        api.predict(str(run.folder), source=contest.source("scored"), out=out, root=contest.root)
    write_result(trial, run, load_predictions(out))
    report(read_result(trial))


def write_result(trial: Trial, run: Run, predictions: Predictions, part: str = "scored") -> None:
    """Score the predictions of a part against its answers and write the trial's result; `run` gives the seconds."""
    from pipeline.training.history import read_history

    wrong, n_rows = wrong_rows(predictions, trial.contest.answers(part))
    histories = [read_history(run.unit_folder(unit) / "history.csv") for unit in run.done_units()]
    result = Result(
        contest=trial.contest.name,
        arm=trial.arm,
        seed=trial.seed,
        overrides=list(trial.overrides),
        accuracy=1 - len(wrong) / n_rows,
        n_rows=n_rows,
        wrong=wrong,
        seconds=round(sum(sum(history["seconds"]) for history in histories), 3),
        fingerprint=trial.fingerprint(),
        device=run.machine.device,
        precision=run.machine.precision,
        git_commit=git_commit(),
        finished=now(),
    )
    write_json(trial.path, asdict(result))


def read_result(trial: Trial) -> Result | None:
    """Return the result of a trial, None where it has none; raises MismatchError for one of another experiment."""
    if not trial.path.is_file():
        return None
    result = Result(**read_json(trial.path))
    if result.fingerprint != trial.fingerprint():
        raise MismatchError(
            f"{trial.path}: was made with other settings or other rows. Choose another --out, or delete"
            f" {trial.contest.root} to begin again"
        )
    return result


def wrong_rows(predictions: Predictions, answers: Path) -> tuple[list[str], int]:
    """Return the ids whose most probable class is not the answer, sorted, and how many rows there are.

    Raises:
        MismatchError: predictions and answers are not for the same ids.
    """
    table = read_table(answers)
    ids, labels = (table.iloc[:, column].to_numpy(dtype=object) for column in (0, 1))
    chosen = np.array(predictions.names, dtype=object)[predictions.aligned_to(ids).values.argmax(axis=1)]
    return sorted(ids[chosen != labels].tolist()), len(ids)


def tally(n_trials: int, tell: Callable[[str], None] = say) -> Report:
    """Return what takes the results of `n_trials` trials as they come and tells a line for each."""
    return _Tally(n_trials, tell)


@contextmanager
def _signalled(stop: StopFlag) -> Iterator[None]:
    """Send this process a signal while `stop` is set: what the commands inside look at is signals, not the pool."""
    has_ended = threading.Event()

    def watch() -> None:
        while not has_ended.wait(0.2):
            if stop.is_set:
                os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        has_ended.set()
        watcher.join()


class _Tally:
    """Tells a line for each finished trial: how many are done, what it scored, how fast it goes and what is left."""

    def __init__(self, n_trials: int, tell: Callable[[str], None]) -> None:
        self._n_trials, self._tell = n_trials, tell
        self._n_done, self._started = 0, time.monotonic()

    def __call__(self, result: Result) -> None:
        self._n_done += 1
        sec_each = (time.monotonic() - self._started) / self._n_done
        self._tell(
            f"{self._n_done}/{self._n_trials}  {result.contest} {result.arm} seed {result.seed}"
            f"  accuracy {result.accuracy:.4f}  {result.seconds:.0f} s"
            f"  {60 / sec_each:.1f} trainings/min  eta {clock_text(sec_each * (self._n_trials - self._n_done))}"
        )
