"""All units of a run through an executor -> OOF, test predictions and CV. `podium train CONFIG`, `podium predict RUN`.

What the units write is the truth; the run's `oof.parquet`, `test.parquet`, `cv.json` and `curves.png` are derived from
them, again after every call, so a run can be trained fold by fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pipeline.base.errors import ConfigError, DataError, StopRequestedError
from pipeline.base.files import write_json
from pipeline.base.interrupt import Deadline, StopFlag
from pipeline.base.plots import plot_history
from pipeline.base.progress import told_to
from pipeline.data.dataset import Dataset
from pipeline.data.tables import load_train
from pipeline.records.config import Config
from pipeline.records.cv import cv_summary, metric_of, score_or_note
from pipeline.records.folds import Folds
from pipeline.records.machine import Machine
from pipeline.records.metrics import Metric
from pipeline.records.predictions import Predictions, join_folds, load_predictions, mean_predictions, save_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import FoldName, Run, Unit, Workspace, start_run
from pipeline.records.task import Source
from pipeline.stages.folding import fold_table
from pipeline.stages.machines import Wishes, resolve_machine
from pipeline.stages.units import train_units
from pipeline.training.device import require_compiler, threads
from pipeline.training.history import read_history
from pipeline.training.misfits import try_parts, warnings_of
from pipeline.training.origins import origin_hashes, read_labels
from pipeline.training.unit import dataset_of, load_unit, predict_unit

Say = Callable[[str], None]
Report = Callable[[Any], None]


def train_run(
    workspace: Workspace,
    config: Config,
    wishes: Wishes,
    say: Say,
    report: Report,
    which: Sequence[int] | Literal["all"] | None = None,
) -> Run:
    """Train the units of a config that are not finished yet, and derive OOF, test predictions and CV.

    Args:
        workspace: where everything lies.
        config: what to train.
        wishes: device, jobs, threads; what changes bits is saved when the run starts and restored when it goes on.
        say: gets messages, a line each.
        report: gets the events of the units.
        which: folds to train; None for every fold, `all` for a refit on every row (a run of its own, without CV).

    When the time that `wishes` gives is over, the run is returned as far as it is finished.

    Raises:
        ConfigError, DataError, MismatchError: before any training, with everything that is wrong.
        StopRequestedError: a signal came; the same command goes on.
    """
    deadline = Deadline(None if wishes.minutes is None else 60 * wishes.minutes)
    run, machine = begin_run(workspace, config, wishes, say, which)
    side_by_side = f"{machine.jobs} in turns," if machine.turns else f"{machine.jobs} x"
    say(f"run {run.folder}: {machine.device}, {machine.precision}, {side_by_side} {machine.threads} threads")
    asked = None if which == "all" else which
    try:
        run = train_units(workspace, run, machine, asked, say, report, lambda: deadline.is_over)
    except StopRequestedError:
        if not deadline.is_over:
            raise
        run = Run(run.folder)  # how batches are split may have changed
        done = len(run.done_units())
        say(f"{wishes.minutes:g} minutes are over: {done} of {len(run.units())} units are finished, the rest is saved")
    finish_run(workspace, run)
    return run


def begin_run(
    workspace: Workspace,
    config: Config,
    wishes: Wishes,
    say: Say,
    which: Sequence[int] | Literal["all"] | None = None,
    folds: Folds | None = None,
    data: Dataset | None = None,
) -> tuple[Run, Machine]:
    """Return the run of a config, started or as it was started, and the machine for its units; nothing is trained.

    Args:
        workspace: where everything lies.
        config: what will be trained.
        wishes: see `train_run`.
        say: gets messages.
        which: folds that will be trained; see `train_run`.
        folds: the fold table of the config, where it is open already.
        data: of a config with the same task and input, where they are open already.

    Raises:
        ConfigError, DataError, MismatchError: everything that can be known before the first step.
    """
    folds = folds or fold_table(workspace, config, say)
    if which == "all":
        config = replace(config, run_name=f"{config.run_name}-all")
    _check_folds_exist(which, folds)
    machine = resolve_machine(
        workspace, config, wishes, say, is_refit=which == "all"
    )  # refuses before files are decoded
    data = data or Dataset(
        config.task,
        config.experiment.input,
        workspace.data(config.task),
        workspace.cache,
        machine.workers,
        say,
        wishes.show,
        wishes.verify,
    )
    if config.experiment.train.compile:
        require_compiler(machine.device)
    refuse_before_training(workspace.root, config, data, folds, which == "all", say, which)
    for note in warnings_of(config.experiment):
        say(f"warning: {note}")
    starts = origin_hashes(workspace.root, config.experiment, ["all"] if which == "all" else range(folds.n_folds))
    return start_run(workspace, config, folds, machine, starts, is_refit=which == "all"), machine


def predict_run(
    workspace: Workspace, run: Run, say: Say, source: Source | None = None, out: Path | None = None
) -> Path:
    """Predict rows with every finished unit of a run and write their mean; return the file's path.

    Args:
        workspace: where everything lies.
        run: at least one unit is finished.
        say: gets messages.
        source: other rows than the task's test set.
        out: where the predictions go; by default the run's `test.parquet`.

    Raises:
        DataError: no unit is finished, or the rows cannot be read.
    """
    data = dataset_of(workspace, run, say)
    units = run.done_units()
    if not units:
        raise DataError(f"{run.folder}: no unit is finished yet; `podium train` goes on")
    rows, items = data.other(source, run.machine.device)
    parts = []
    with threads(run.machine.threads):
        for unit in units:
            model, scaling, digest = load_unit(run, unit, data.train.rows, items)
            parts.append(predict_unit(run, unit, rows, items, model, scaling, digest, StopFlag(), data.train.rows))
    path = out or run.folder / "test.parquet"
    save_predictions(path, _marked(mean_predictions(parts), run, _partial_note(run, units)))
    return path


def finish_run(workspace: Workspace, run: Run, rows: Rows | None = None) -> dict[str, Any]:
    """Derive OOF, test predictions, CV and curves from the finished units; return the CV as written to `cv.json`.

    `rows` are the labelled rows of the task, where they are read already.
    """
    rows = rows or load_train(run.task, workspace.data(run.task)).rows
    metric = metric_of(run.task, rows)
    with run.locked():
        done = run.done_units()
        tests = [load_predictions(path) for unit in done if (path := run.unit_folder(unit) / "test.parquet").is_file()]
        oof = None if run.is_refit or not done else _oof(run, done)
        partial = _partial_note(run, done)
        cv = score_run(run, oof, rows, metric) | {"partial": partial, "weights": run.experiment.train.weights}
        cv |= {"within": run.experiment.folds.within}
        if tests:
            save_predictions(run.folder / "test.parquet", _marked(mean_predictions(tests), run, partial))
        if oof is not None:
            save_predictions(run.folder / "oof.parquet", _marked(oof, run, partial))
        write_json(run.folder / "cv.json", cv)
        if done:
            histories = {unit.name: read_history(run.unit_folder(unit) / "history.csv") for unit in done}
            plot_history(run.folder / "curves.png", histories, metric.name)
    return cv


def score_run(run: Run, oof: Predictions | None, rows: Rows, metric: Metric) -> dict[str, Any]:
    """Return the scores of a run as `cv.json` holds them; see `cv_summary`."""
    lines = [_unit_score(run, unit, rows, metric) for unit in run.done_units() if unit.fold != "all"]
    return cv_summary(lines, oof, rows, metric, 0 if run.is_refit else run.record["folds"]["n_folds"])


def _unit_score(run: Run, unit: Unit, rows: Rows, metric: Metric) -> dict[str, Any]:
    heldout = load_predictions(run.unit_folder(unit) / "heldout.parquet")
    score, note = score_or_note(heldout, rows, metric)
    return {"fold": unit.fold, "seed": unit.seed, "score": score, "note": note, "n_rows": len(heldout)}


def _oof(run: Run, done: Sequence[Unit]) -> Predictions:
    """Return each held-out row once: the mean over the seeds of its fold, then the folds side by side."""
    by_fold: dict[Any, list[Predictions]] = {}
    for unit in done:
        by_fold.setdefault(unit.fold, []).append(load_predictions(run.unit_folder(unit) / "heldout.parquet"))
    return join_folds([mean_predictions(parts) for parts in by_fold.values()])


def _partial_note(run: Run, done: Sequence[Unit]) -> str | None:
    """Return `2 of 5 folds` for a run that is not whole; None for one that is."""
    if len(done) == len(run.units()):
        return None
    n_seeds = len(run.experiment.seeds)
    if n_seeds == 1:
        return f"{len(done)} of {len(run.units())} folds"
    return f"{len(done)} of {len(run.units())} units ({n_seeds} seeds)"


def _marked(predictions: Predictions, run: Run, partial: str | None) -> Predictions:
    return replace(predictions, meta={**predictions.meta, "run": run.name, "partial": partial})


def _check_folds_exist(which: Sequence[int] | Literal["all"] | None, folds: Folds) -> None:
    for fold in which if which not in (None, "all") else ():
        folds.split(int(fold))


def _asked(which: Sequence[int] | Literal["all"] | None, folds: Folds, is_refit: bool) -> Iterable[FoldName]:
    if is_refit or which == "all":
        return ["all"]
    return range(folds.n_folds) if which is None else which


def refuse_before_training(
    root: Path,
    config: Config,
    data: Dataset,
    folds: Folds,
    is_refit: bool,
    say: Say,
    which: Sequence[int] | Literal["all"] | None = None,
) -> None:
    """Raise for everything that can be known before the first step of the folds `which`, None for every fold."""
    metric_of(config.task, data.train.rows)
    if is_refit and config.experiment.train.weights == "best":
        raise ConfigError("train.weights: best is selected on a held-out fold, and a refit has none; use last or ema")
    if is_refit and config.experiment.train.early_stop is not None:
        raise ConfigError(
            "train.early_stop: looks at a held-out fold, and a refit has none; set train.epochs and early_stop: off"
        )
    fold: FoldName = "all" if is_refit else 0
    with told_to(say, "pipeline.models"):  # how much of the start weights fitted
        items = data.train_items("cpu")
        try_parts(config.task, config.experiment, items.shape, data.train.rows, fold, items.full_scale)
    if config.experiment.pseudo is not None:
        unlabelled, _ = data.unlabelled("cpu")
        for each in _asked(which, folds, is_refit):
            read_labels(root, config.task, config.experiment, each, folds.table_hash, data.train.rows, unlabelled)
    elif config.experiment.consistency is not None:
        data.unlabelled("cpu")
    if config.task.test is not None:
        data.other(None, "cpu")
