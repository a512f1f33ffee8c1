"""Make, check and save the table of folds that every experiment trains on. `podium folds CONFIG`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.base.errors import MismatchError
from pipeline.data.tables import load_train
from pipeline.records.config import Config
from pipeline.records.folds import Folds, balance_table, check_folds, load_folds, make_folds, save_folds
from pipeline.records.runs import Workspace

Say = Callable[[str], None]


def fold_table(workspace: Workspace, config: Config, say: Say) -> Folds:
    """Return the fold table of a config: the saved one, checked against the data, or a new one, which is then saved.

    Raises:
        MismatchError: the saved table no longer fits the data, or was made by another spec.
        LeakError, DataError: a group lies in two folds; a fold holds out a class that it never trains on.
    """
    rows = load_train(config.task, workspace.data(config.task)).rows
    path = workspace.folds(config.task, config.experiment.folds)
    if path.exists():
        folds = load_folds(path).aligned_to(rows.ids)
        wanted = config.experiment.folds.model_copy(update={"name": None}).plain()
        made_by = {key: folds.spec.get(key) for key in wanted} | {"name": None}
        if made_by != wanted:
            changed = [f"{key}: {made_by[key]} -> {wanted[key]}" for key in wanted if made_by[key] != wanted[key]]
            raise MismatchError(f"{path}: was made otherwise ({', '.join(changed)}); choose another folds.name")
        notes = check_folds(folds, rows, config.task.kind)
    else:
        folds = make_folds(rows, config.task.kind, config.experiment.folds)
        notes = check_folds(folds, rows, config.task.kind)
        save_folds(path, folds)
        say(f"wrote {path}")
    for note in notes:
        say(f"note: {note}")
    return folds


def fold_balance(workspace: Workspace, config: Config, folds: Folds) -> Any:
    """Return rows per fold, and per class or mean of the target, as a DataFrame."""
    rows = load_train(config.task, workspace.data(config.task)).rows
    return balance_table(folds.aligned_to(rows.ids), rows, config.task.kind)
