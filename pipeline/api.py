"""Every command as a function with the same words: `from pipeline import api as podium; podium.train("configs/...")`.

Each takes plain values, does one thing, returns what it made, and prints nothing but progress on standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.base.progress import display, say
from pipeline.records.config import Config, load_config, read_yaml, validate
from pipeline.records.runs import Run, Workspace
from pipeline.records.task import Source

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.records.folds import Folds

Show = Literal["auto", "bar", "lines", "quiet"]


def config(path: Path | str, overrides: Sequence[str] = (), name: str | None = None) -> Config:
    """Return the config of an experiment file, with `key=value` overrides and, if given, another run name."""
    loaded = load_config(path, overrides)
    return replace(loaded, run_name=name) if name else loaded


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
    threads: int | None = None,
    workers: int | None = None,
    checkpoint_minutes: float = 5.0,
    verify: bool = False,
    show: Show = "auto",
    root: Path | str = ".",
) -> Run:
    """Train every unfinished fold of a config (or those given, or `all` rows as a refit) and return the run.

    Raises:
        PodiumError: something is wrong with the config, the data or the run's name; nothing was trained.
        StopRequestedError: a signal came; the same call goes on where it stopped.
    """
    from pipeline.stages.crossval import Wishes, train_run

    wishes = Wishes(device, jobs, threads, workers, checkpoint_minutes, verify, show)
    loaded = config(path, overrides, name)
    with display(show, loaded.experiment.folds.n_folds * len(loaded.experiment.seeds)) as report:
        return train_run(Workspace(Path(root)), loaded, wishes, say, report, folds)


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


def ensemble(
    runs: Sequence[str],
    *,
    how: Literal["arithmetic", "geometric"] = "arithmetic",
    name: str | None = None,
    root: Path | str = ".",
) -> tuple[Run, dict[str, Any]]:
    """Blend runs (and blends) of one task into a new run; return it and its scores beside those of its members."""
    from pipeline.stages.ensemble import blend_runs

    workspace = Workspace(Path(root))
    return blend_runs(workspace, [Run(workspace.find_run(run)) for run in runs], how, name, say)


def submit(run: str, *, file: str | None = None, overwrite: bool = False, root: Path | str = ".") -> Path:
    """Write and check the submission of a run or blend under `submissions/<task>/`; return its path."""
    from pipeline.stages.submit import submit_run

    workspace = Workspace(Path(root))
    return submit_run(workspace, Run(workspace.find_run(run)), file, overwrite, say)


def board(task: str | None = None, root: Path | str = ".") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return every run and every submission with CV and LB, best first."""
    from pipeline.stages.board import board_tables

    return board_tables(Path(root), task)


def enter_lb(file: str, score: float, *, private: bool = False, root: Path | str = ".") -> Path:
    """Write the leaderboard score of a submission into the JSON beside it; return that path."""
    from pipeline.stages.board import enter_lb as enter

    return enter(Path(root), file, score, private=private)
