"""Points found by optuna instead of listed: trained fold by fold, given up where the folds so far score badly.

The journal `search.journal` holds every trial, so the same command goes on where it stopped; a run that was cut off is
taken up again with its settings. What is proposed depends on the trials before it and the number of the trial alone.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError, MismatchError, nearest
from pipeline.base.files import hash_json, read_json
from pipeline.base.interrupt import StopFlag
from pipeline.base.keyed import make_key
from pipeline.records.config import Config
from pipeline.records.runs import Run, Workspace
from pipeline.records.study import Point, Study
from pipeline.stages.crossval import train_run
from pipeline.stages.machines import Wishes, wishes_of_all
from pipeline.stages.study.apart import predict_apart
from pipeline.stages.study.points import config_of, folds_of
from pipeline.training.unit import UnitJob

Say = Callable[[str], None]
N_UNPRUNED = 4
"""Trials that are never given up, so that there is something to compare with."""
_FORMS = ("log", "uniform", "int", "log_int")


@dataclass(frozen=True)
class Range:
    """What a key may be."""

    form: str
    """log, uniform, int, log_int, or choice."""
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()
    """As JSON, which optuna takes where it would not take lists and blocks."""

    def suggest(self, trial: Any, key: str) -> str:
        """Return a value for a key as it stands in an override."""
        if self.form == "choice":
            return str(trial.suggest_categorical(key, self.choices))
        is_log = self.form.startswith("log")
        if self.form.endswith("int"):
            return json.dumps(trial.suggest_int(key, int(self.low), int(self.high), log=is_log))
        return json.dumps(trial.suggest_float(key, self.low, self.high, log=is_log))


def parse_range(key: str, value: Any) -> Range:
    """Return the range that a study writes as `log 1e-4 1e-1`, `uniform 0 0.5`, `int 1 4`, `log_int 8 512` or a list.

    Raises:
        ConfigError: it is none of these, or empty.
    """
    if isinstance(value, list | tuple) and value:
        return Range("choice", choices=tuple(json.dumps(each) for each in value))
    words = value.split() if isinstance(value, str) else []
    shape = "expected `log 1e-4 1e-1`, `uniform 0 0.5`, `int 1 4`, `log_int 8 512` or a list of values"
    if len(words) != 3 or words[0] not in _FORMS:
        hint = nearest(words[0], _FORMS) if words else ""
        raise ConfigError(f"search.{key}: {shape} (found: {value!r}).{hint}")
    try:
        low, high = float(words[1]), float(words[2])
    except ValueError:
        raise ConfigError(f"search.{key}: {words[1]} and {words[2]} must be numbers; {shape}") from None
    is_whole = not words[0].endswith("int") or (low == int(low) and high == int(high))
    if not (math.isfinite(low) and math.isfinite(high) and low < high and is_whole):
        raise ConfigError(f"search.{key}: {value}: needs a lower end below the upper one, whole where the form is int")
    if words[0].startswith("log") and low <= 0:
        raise ConfigError(f"search.{key}: {value}: a logarithmic range begins above 0")
    return Range(words[0], low, high)


def search_points(
    workspace: Workspace,
    study: Study,
    file: Path,
    wishes: Wishes,
    say: Say,
    name: str,
    overrides: Sequence[str] = (),
) -> tuple[list[Point], dict[str, Config], dict[str, Run]]:
    """Try settings until the study has as many trials as it wants; return those that trained every fold.

    Raises:
        ConfigError: optuna is not there, or a range is wrong.
        MismatchError: the journal is of another search.
        StopRequestedError: a signal came; the same call goes on.
    """
    optuna = _optuna()
    ranges = {key: parse_range(key, value) for key, value in (study.search or {}).items()}
    base = config_of(study, file, Point("base", {}, ()), name, overrides)
    wishes, _ = wishes_of_all(wishes, len(base.experiment.seeds))
    search = _opened(optuna, workspace, study, base, name, _direction(workspace, base))
    kept: dict[str, tuple[Point, Config, Run]] = {}
    finished = {trial.number for trial in search.trials if trial.state.is_finished() and trial.state.name != "FAIL"}
    for trial in search.trials:
        if trial.state.name == "COMPLETE":
            point = _point(name, {key: str(value) for key, value in trial.user_attrs["overrides"].items()})
            config = config_of(study, file, point, name, overrides)
            kept[point.label] = (point, config, Run(workspace.run(config.task, config.run_name)))
    while len(finished) < study.trials:
        search.sampler = optuna.samplers.TPESampler(seed=make_key("search", len(search.trials)) % 2**32)
        trial = search.ask()
        chosen = {key: each.suggest(trial, key) for key, each in ranges.items()}
        trial.set_user_attr("overrides", chosen)
        point = _point(name, chosen)
        config = config_of(study, file, point, name, overrides)
        run, score = _tried(workspace, study, point, config, trial, wishes)
        state = optuna.trial.TrialState.PRUNED if score is None else optuna.trial.TrialState.COMPLETE
        search.tell(trial, score, state=state)
        finished.add(trial.number)
        end = "given up" if score is None else f"{score:.4f}"
        say(f"{len(finished)}/{study.trials}  {point.label}: {end}")
        if score is not None:
            kept[point.label] = (point, config, run)
    if not kept:
        raise ConfigError(f"{file}: no trial trained every fold")
    best = _point(name, search.best_trial.user_attrs["overrides"])
    say(f"best on the held-out folds, by which it was chosen: {best.label}, {search.best_value:.4f}")
    for _, config, run in kept.values():
        _score_apart(workspace, config, run)
    return (
        [point for point, _, _ in kept.values()],
        {label: config for label, (_, config, _) in kept.items()},
        {label: run for label, (_, _, run) in kept.items()},
    )


def _tried(
    workspace: Workspace, study: Study, point: Point, config: Config, trial: Any, wishes: Wishes
) -> tuple[Run, float | None]:
    """Train a setting fold by fold; return its run and the mean of its folds, None where it was given up."""
    folds = folds_of(study, point) or tuple(range(config.experiment.folds.n_folds))
    score = None
    for number, fold in enumerate(folds):
        run = train_run(workspace, config, wishes, lambda line: None, lambda event: None, [fold])
        score = read_json(run.folder / "cv.json")["mean"]
        if score is None:
            raise ConfigError(f"{run.folder}: the metric is undefined on fold {fold}, so nothing can be searched by it")
        trial.report(score, number)
        if number + 1 < len(folds) and trial.should_prune():
            return run, None
    return run, score


def _opened(optuna: Any, workspace: Workspace, study: Study, base: Config, name: str, direction: str) -> Any:
    """Return the search as its journal has it, with trials that were cut off queued again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = workspace.run(base.task, f"{name}-study") / "search.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    search = optuna.create_study(
        study_name=name,
        storage=storage,
        direction=direction,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=N_UNPRUNED),
        load_if_exists=True,
    )
    what = hash_json([base.task.plain(), base.experiment.plain(), study.search, study.folds])
    if search.user_attrs.setdefault("what", what) != what:
        raise MismatchError(f"{path}: is of another search; choose another --name, or delete it to begin again")
    search.set_user_attr("what", what)
    for trial in search.trials:
        if trial.state.name == "RUNNING":
            search.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            search.enqueue_trial(trial.params)
    return search


def _point(name: str, chosen: Mapping[str, str]) -> Point:
    shown = {key: _short(value) for key, value in chosen.items()}
    label = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in shown.items())
    # The digits that are shown may be those of two settings; all of them are in the hash.
    return Point(f"{label} ({hash_json(dict(chosen))[:6]})", shown, tuple(f"{k}={v}" for k, v in chosen.items()))


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value.strip('"')


def _direction(workspace: Workspace, base: Config) -> str:
    from pipeline.data.tables import load_train
    from pipeline.records.cv import metric_of

    rows = load_train(base.task, workspace.data(base.task)).rows
    return "maximize" if metric_of(base.task, rows).higher_is_better else "minimize"


def _score_apart(workspace: Workspace, config: Config, run: Run) -> None:
    if config.experiment.folds.holdout_frac > 0:
        for unit in run.done_units():
            predict_apart(UnitJob(workspace.root, run.folder, unit, run.machine), StopFlag())


def _optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
        importlib.import_module("optuna.storages.journal")
    except ImportError as error:
        raise ConfigError(
            f"search: needs optuna, which is not installed ({error}): pip install 'podium[optuna]'"
        ) from None
    return optuna
