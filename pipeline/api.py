"""Every command as a function with the same words: `from pipeline import api as podium; podium.train("configs/...")`.

Each takes plain values, does one thing, returns what it made, and prints nothing but progress on standard error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.base.progress import display, say
from pipeline.records.config import Config, load_config, read_yaml, validate
from pipeline.records.runs import Run, Workspace
from pipeline.records.task import Source

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.auto import Made
    from pipeline.blending.difference import Comparison
    from pipeline.records.folds import Folds
    from pipeline.stages.board.send import Sent
    from pipeline.stages.board.tables import Outlook
    from pipeline.stages.check import Report
    from pipeline.stages.infer.stage import Initiated
    from pipeline.stages.known_data.prepared import Prepared
    from pipeline.stages.plan import Plan
    from pipeline.stages.pseudo import Wanted
    from pipeline.stages.study.stage import Studied

Show = Literal["auto", "bar", "lines", "quiet"]


def config(path: Path | str, overrides: Sequence[str] = (), name: str | None = None) -> Config:
    """Return the config of an experiment file, with `key=value` overrides and, if given, another run name."""
    loaded = load_config(path, overrides)
    return replace(loaded, run_name=name) if name else loaded


def init(
    folder: Path | str,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    metric: str | None = None,
    overwrite: bool = False,
    learnt: Mapping[str, tuple[str, str]] | None = None,
    root: Path | str = ".",
) -> Initiated:
    """Look at the files of a competition and write `configs/<name>/task.yaml`; return what was concluded, and why.

    A first experiment is written beside it, `baseline.yaml`. `overrides` are `key=value` with the keys of task.yaml;
    what they state steers the other conclusions. `learnt` holds keys that a training decided, each with its value and
    the reason.

    Raises:
        PodiumError: the files do not make a competition; the message says what was seen and what is needed.
    """
    from pipeline.stages.infer.stage import init_folder

    return init_folder(
        Workspace(Path(root)),
        Path(folder),
        say,
        name=name,
        metric=metric,
        overrides=overrides,
        overwrite=overwrite,
        learnt=learnt,
    )


def auto(
    folder: Path | str,
    overrides: Sequence[str] = (),
    *,
    minutes: float = 7.0,
    name: str | None = None,
    metric: str | None = None,
    again: bool = False,
    device: str = "auto",
    jobs: int | None = None,
    show: Show = "auto",
    root: Path | str = ".",
) -> Made:
    """Go from the files of a competition to a checked submission within `minutes` of wall time; return what was made.

    `overrides` and `metric` are as for `init`. A second call goes on with what the first one began; `again` fits a new
    experiment to the time.

    Raises:
        PodiumError: the files do not make a competition, or not even one fold ends in time.
    """
    from pipeline.auto import run_auto

    return run_auto(
        Path(folder),
        overrides,
        say,
        minutes=minutes,
        name=name,
        metric=metric,
        again=again,
        device=device,
        jobs=jobs,
        show=show,
        root=Path(root),
    )


def data(
    which: str,
    path: Path | str | None = None,
    *,
    seed: int | None = None,
    name: str | None = None,
    any_bytes: bool = False,
    overwrite: bool = False,
    root: Path | str = ".",
) -> Prepared:
    """Check copies of a known data set (bci3b, things-meg) or make up one (synthetic-eeg, synthetic-meg) from a seed.

    Writes `configs/<name>/task.yaml` and an experiment beside it, and returns where they and the data lie. `path` is
    the folder of the copies, which is only read, or where made-up data go.

    Raises:
        PodiumError: the copies are not what was published, or something else lies where made-up data should go.
    """
    from pipeline.stages.known_data.stage import prepare_data

    folder = None if path is None else Path(path)
    return prepare_data(
        Workspace(Path(root)), which, folder, say, seed=seed, name=name, any_bytes=any_bytes, overwrite=overwrite
    )


def folds(path: Path | str, overrides: Sequence[str] = (), root: Path | str = ".") -> tuple[Folds, pd.DataFrame]:
    """Return the fold table of a config, made and saved if need be, and its balance (rows and classes per fold)."""
    from pipeline.stages.folding import fold_balance, fold_table

    workspace, loaded = Workspace(Path(root)), config(path, overrides)
    table = fold_table(workspace, loaded, say)
    return table, fold_balance(workspace, loaded, table)


def train(
    path: Path | str,
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | Literal["all"] | None = None,
    name: str | None = None,
    device: str = "auto",
    jobs: int | None = None,
    turns: bool = False,
    threads: int | None = None,
    workers: int | None = None,
    loaders: int | None = None,
    checkpoint_minutes: float = 5.0,
    verify: bool = False,
    minutes: float | None = None,
    show: Show = "auto",
    root: Path | str = ".",
) -> Run:
    """Train every unfinished fold of a config (or those given, or `all` rows as a refit) and return the run.

    After `minutes`, if given, what is not finished saves itself; the run then holds the folds that are. With
    `folds.within`, a second run `<name>-across` is trained on folds that hold out whole subjects. With `turns`, the
    `jobs` units side by side take turns in this process, a step of each, on data that are held once.

    Raises:
        PodiumError: something is wrong with the config, the data or the run's name; nothing was trained.
        StopRequestedError: a signal came; the same call goes on where it stopped.
    """
    from pipeline.stages.early import start_early

    loaded = config(path, overrides, name)
    start_early(loaded, folds, device, 1 if turns else jobs)
    from pipeline.stages.across import train_with_subjects
    from pipeline.stages.machines import Wishes

    wishes = Wishes(
        device=device,
        jobs=jobs,
        turns=turns,
        threads=threads,
        workers=workers,
        loaders=loaders,
        checkpoint_minutes=checkpoint_minutes,
        verify=verify,
        show=show,
        minutes=minutes,
    )
    with display(show, loaded.experiment.folds.n_folds * len(loaded.experiment.seeds)) as report:
        return train_with_subjects(Workspace(Path(root)), loaded, wishes, say, report, folds)


def check(
    path: Path | str,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    device: str = "auto",
    threads: int | None = None,
    root: Path | str = ".",
) -> Report:
    """Try a config on a sample of its data, in about a minute, and return what each check found.

    Only a picture is written: to `out`, or `runs/<task>/<run>-check/augmented.png`.
    """
    from pipeline.stages.check import check_config
    from pipeline.stages.machines import Wishes

    wishes = Wishes(device=device, threads=threads, show="quiet")
    return check_config(Workspace(Path(root)), config(path, overrides), wishes, say, Path(out) if out else None)


def plan(
    path: Path | str,
    overrides: Sequence[str] = (),
    *,
    quota: str | None = None,
    name: str | None = None,
    device: str = "auto",
    jobs: int | None = None,
    threads: int | None = None,
    loaders: int | None = None,
    seconds: float = 12.0,
    root: Path | str = ".",
) -> Plan:
    """Try a few steps of a config, about `seconds` long, and return what its training takes in time and memory.

    `quota`, such as 9h or 1h30m, is the time that the run may take; see `Plan.holds`.
    """
    from pipeline.stages.budget import parse_duration
    from pipeline.stages.machines import Wishes
    from pipeline.stages.plan import plan_config

    wishes = Wishes(device=device, jobs=jobs, threads=threads, loaders=loaders, show="quiet")
    quota_sec = None if quota is None else parse_duration(quota)
    return plan_config(Workspace(Path(root)), config(path, overrides, name), wishes, say, quota_sec, seconds)


def predict(
    run: str, *, source: Path | str | None = None, out: Path | str | None = None, root: Path | str = "."
) -> Path:
    """Predict the test rows, or those that a YAML file describes as `train:` does in a task; return the file's path."""
    from pipeline.base.errors import ConfigError
    from pipeline.stages.crossval import predict_run

    if source is not None and out is None:
        raise ConfigError("--source: other rows need --out FILE.parquet, so that the test predictions stay")
    rows = validate(Source, read_yaml(Path(source)), str(source)) if source is not None else None
    workspace = Workspace(Path(root))
    return predict_run(workspace, Run(workspace.find_run(run)), say, rows, Path(out) if out else None)


def pseudo(
    runs: Sequence[str],
    *,
    wanted: Wanted | None = None,
    name: str = "labels",
    student: Path | str | None = None,
    overrides: Sequence[str] = (),
    student_name: str | None = None,
    rounds: int = 1,
    jobs: int | None = None,
    show: Show = "auto",
    root: Path | str = ".",
) -> Path | list[Run]:
    """Write the label tables that runs give the rows without labels, and return their folder.

    With a `student` config, train it on them, `rounds` times over, each student teaching the next; return the students.
    """
    from pipeline.rounds import run_rounds
    from pipeline.stages.machines import Wishes
    from pipeline.stages.pseudo import Wanted, make_labels

    workspace, asked = Workspace(Path(root)), wanted or Wanted()
    teachers = [Run(workspace.find_run(run)) for run in runs]
    if student is None:
        return make_labels(workspace, teachers, asked, name, say)
    loaded = config(student, overrides, student_name)
    n_units = rounds * loaded.experiment.folds.n_folds * len(loaded.experiment.seeds)
    with display(show, n_units) as report:
        return run_rounds(workspace, teachers, loaded, asked, rounds, Wishes(jobs=jobs, show=show), say, report)


def ensemble(
    runs: Sequence[str],
    *,
    method: str = "mean",
    options: dict[str, Any] | None = None,
    weights: Sequence[float] | None = None,
    adjust: Sequence[str] = (),
    prior: Sequence[float] | Literal["estimate"] | None = None,
    name: str | None = None,
    root: Path | str = ".",
) -> tuple[Run, dict[str, Any]]:
    """Blend runs (and blends) of one task into a new run; return it and its scores beside those of its members.

    `method` and its `options` are described in `pipeline/blending/methods.py`; `weights`, in the order of the runs, are
    for the means; `adjust` names what is fitted after averaging, or is ["auto"]; `prior` holds the shares of the
    classes that the test set has, or is "estimate".
    """
    from pipeline.blending.methods import method_of
    from pipeline.stages.ensemble import blend_runs

    workspace, chosen = Workspace(Path(root)), method_of(method, options, weights, adjust, prior)
    return blend_runs(workspace, [Run(workspace.find_run(run)) for run in runs], chosen, name, say)


def compare(
    a: str,
    b: str,
    *,
    simulate_lb: float | None = None,
    n_draws: int = 1000,
    json: Path | str | None = None,
    root: Path | str = ".",
) -> Comparison:
    """Return by how much run B is better than run A on the rows that both predicted, with an interval.

    With `simulate_lb`, the public share of the test rows, also how far a public score may stray. With `json`, the same
    numbers go to that file.
    """
    from pipeline.base.files import write_json
    from pipeline.stages.compare import compare_runs

    workspace = Workspace(Path(root))
    runs = [Run(workspace.find_run(name)) for name in (a, b)]
    found = compare_runs(workspace, runs[0], runs[1], n_draws, simulate_lb)
    if json is not None:
        write_json(Path(json), asdict(found))
    return found


def soup(
    runs: Sequence[str],
    *,
    how: Literal["uniform", "greedy"] = "uniform",
    across_folds: bool = False,
    n_epochs: int | None = None,
    name: str | None = None,
    device: str = "auto",
    root: Path | str = ".",
) -> tuple[Run, dict[str, Any]]:
    """Average runs of one net in their weights into a new run; return it and its scores beside those of its members.

    With `across_folds` one model of all folds, without CV; with `n_epochs` the last epochs of each unit of one run.
    """
    from pipeline.stages.soup import Wishes, soup_runs

    workspace, wishes = Workspace(Path(root)), Wishes(how, across_folds, n_epochs, name, device)
    return soup_runs(workspace, [Run(workspace.find_run(run)) for run in runs], wishes, say)


def study(
    path: Path | str,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    jobs: int | None = None,
    threads: int | None = None,
    command: str | None = None,
    root: Path | str = ".",
) -> Studied:
    """Train the points of a study that are not finished, score all on the same rows, and write tables and a page.

    `overrides` hold for every point; `name` stands before the names of the runs; `out` is the folder of the page.
    """
    from pipeline.stages.machines import Wishes
    from pipeline.stages.study.stage import run_study

    return run_study(
        Workspace(Path(root)),
        Path(path),
        Wishes(device=device, jobs=jobs, threads=threads, show="quiet"),
        say,
        name=name,
        out=Path(out) if out else None,
        overrides=overrides,
        command=command or "",
    )


def submit(run: str, *, file: str | None = None, overwrite: bool = False, root: Path | str = ".") -> Path:
    """Write and check the submission of a run or blend under `submissions/<task>/`; return its path."""
    from pipeline.stages.submit import submit_run

    workspace = Workspace(Path(root))
    return submit_run(workspace, Run(workspace.find_run(run)), file, overwrite, say)


def send(
    file: Path | str,
    *,
    competition: str | None = None,
    message: str | None = None,
    again: bool = False,
    wait: bool = True,
    root: Path | str = ".",
) -> Sent:
    """Send a written submission to the host with its official client, wait for its score, and record both.

    The same bytes are sent once, unless `again`; a second call fetches their score.
    """
    from pipeline.stages.board.kaggle_host import KaggleHost
    from pipeline.stages.board.send import Patience, send_file

    return send_file(
        Path(root),
        str(file),
        KaggleHost(),
        say,
        competition=competition,
        message=message,
        again=again,
        patience=Patience() if wait else None,
    )


def refresh(task: str | None = None, root: Path | str = ".") -> int:
    """Fetch the scores of what was sent and write them into the records; return how many records changed."""
    from pipeline.stages.board.kaggle_host import KaggleHost
    from pipeline.stages.board.send import refresh as fetch

    return fetch(Path(root), KaggleHost(), say, task)


def board(task: str | None = None, root: Path | str = ".") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return every run and every submission with CV and LB, best first."""
    from pipeline.stages.board.tables import board_tables

    return board_tables(Path(root), task)


def outlook(task: str | None = None, root: Path | str = ".") -> list[Outlook]:
    """Return, for each task, the line from CV to LB, the files that lie off it, and two proposed finals."""
    from pipeline.stages.board.tables import read_outlook

    return read_outlook(Path(root), task)


def enter_lb(file: str, score: float, *, private: bool = False, root: Path | str = ".") -> Path:
    """Write the leaderboard score of a submission into the JSON beside it; return that path."""
    from pipeline.stages.board.tables import enter_lb as enter

    return enter(Path(root), file, score, private=private)
