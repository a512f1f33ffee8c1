"""Make, check and save the table of folds that every experiment trains on. `podium folds CONFIG`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.base.errors import MismatchError
from pipeline.data.tables import load_train
from pipeline.records.config import Config
from pipeline.records.experiment import FoldSpec
from pipeline.records.folds import Folds, balance_table, check_folds, load_folds, make_folds, merge_groups, save_folds
from pipeline.records.rows import Rows
from pipeline.records.runs import Workspace
from pipeline.stages.twins import find_twins

Say = Callable[[str], None]


def fold_table(workspace: Workspace, config: Config, say: Say) -> Folds:
    """Return the fold table of a config: the saved one, checked against the data, or a new one, which is then saved.

    Duplicates are looked for when the table is made; what was found then is saved with it and said again.

    Raises:
        MismatchError: the saved table no longer fits the data, or was made by another spec.
        LeakError, DataError: a group lies in two folds; a fold holds out a class that it never trains on.
    """
    rows = load_train(config.task, workspace.data(config.task)).rows
    path = workspace.folds(config.task, config.experiment.folds)
    if path.exists():
        folds = _saved(path, rows, config)
        notes = check_folds(folds, rows, config.task.kind)
    else:
        folds, notes = _made(workspace, config, rows, say)
        save_folds(path, folds)
        say(f"wrote {path}")
    for note in [*notes, *folds.spec.get("duplicates_found", ())]:
        say(f"note: {note}")
    return folds


def fold_balance(workspace: Workspace, config: Config, folds: Folds) -> Any:
    """Return rows per fold, and per class or mean of the target, as a DataFrame."""
    rows = load_train(config.task, workspace.data(config.task)).rows
    return balance_table(folds.aligned_to(rows.ids), rows, config.task.kind)


def _saved(path: Path, rows: Rows, config: Config) -> Folds:
    """Return the table at `path` in the order of the rows; other rows, or another spec, are an error.

    Rows that were excluded after the table was made are left out of it.
    """
    folds = load_folds(path).without(config.task.exclude)
    wanted = config.experiment.folds.model_copy(update={"name": None}).plain()
    # A key that is younger than the table had its default when the table was made.
    old = FoldSpec().plain() | folds.spec
    changed = [f"{key}: {old[key]} -> {wanted[key]}" for key in wanted if key != "name" and old[key] != wanted[key]]
    if changed:
        raise MismatchError(f"{path}: was made otherwise ({', '.join(changed)}); choose another folds.name")
    try:
        return folds.aligned_to(rows.ids)
    except MismatchError as error:
        raise MismatchError(f"{path}: {error}, once this file and the JSON beside it are removed") from None


def _made(workspace: Workspace, config: Config, rows: Rows, say: Say) -> tuple[Folds, list[str]]:
    """Return a new table and what the user should know of it; duplicates, where they are looked for, stay together."""
    found: tuple[str, ...] = ()
    if config.experiment.folds.duplicates != "off":
        twins = find_twins(workspace, config, config.experiment.folds.duplicates, say)
        group_of = dict(zip(twins.ids, twins.groups, strict=True))
        groups = rows.ids.copy()
        groups[:] = [group_of[row_id] for row_id in rows.ids]
        rows, found = replace(rows, groups=merge_groups(rows.groups, groups)), twins.notes
    folds = make_folds(rows, config.task.kind, config.experiment.folds)
    notes = check_folds(folds, rows, config.task.kind)
    return (replace(folds, spec={**folds.spec, "duplicates_found": list(found)}) if found else folds), notes
