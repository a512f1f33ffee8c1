"""A split within subjects never stands alone: the same config is trained once more with whole subjects held out.

`podium train CONFIG folds.within=subject` trains the run and `<run>-across`, and shows both scores. The first says how
well known subjects are told apart, the second what a new one may expect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np

from pipeline.base.errors import PodiumError
from pipeline.data.tables import load_train
from pipeline.records.config import Config
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Workspace, across_folder
from pipeline.records.subjects import kept_whole
from pipeline.stages.crossval import train_run
from pipeline.stages.folding import fold_table
from pipeline.stages.machines import Wishes

Say = Callable[[str], None]
Report = Callable[[Any], None]


def train_with_subjects(
    workspace: Workspace,
    config: Config,
    wishes: Wishes,
    say: Say,
    report: Report,
    which: Sequence[int] | Literal["all"] | None = None,
) -> Run:
    """Train a config as `train_run` does and return its run; after a split within subjects also the run across them.

    The second run is left for later where only some folds were asked for, or the time is over; the same command without
    `--folds` trains what is missing.
    """
    began = monotonic()
    across = None if config.experiment.folds.within is None or which is not None else _possible(workspace, config, say)
    run = train_run(workspace, config, wishes, say, report, which)
    if across is None or len(run.done_units()) < len(run.units()):
        return run
    if wishes.minutes is not None:
        left = wishes.minutes - (monotonic() - began) / 60
        if left <= 0:
            say(f"the time is over before {across.run_name}, which holds out whole subjects; the same command does it")
            return run
        wishes = replace(wishes, minutes=left)
    say(f"run {across.run_name}: the same with whole subjects held out, {across.experiment.folds.n_folds} folds")
    train_run(workspace, across, wishes, say, report)
    return run


def _possible(workspace: Workspace, config: Config, say: Say) -> Config | None:
    """Return the config across subjects, its folds made; None, with the reason said, where it cannot be trained."""
    across = across_config(config, load_train(config.task, workspace.data(config.task)).rows)
    if across is None:
        say("note: there is one subject only, so nothing will be known of how others would score")
        return None
    experiment = config.experiment
    if experiment.pseudo is not None or "weights" in experiment.model.options:
        say("note: whole subjects are not held out too, as labels or start weights belong to the folds of this run")
        return None
    try:
        fold_table(workspace, across, say)
    except PodiumError as error:
        say(f"note: whole subjects cannot be held out too: {error}")
        return None
    return across


def across_config(config: Config, rows: Rows) -> Config | None:
    """Return the config with folds that hold out whole subjects, as many as there are at most; None for one subject.

    Args:
        config: with `folds.within`.
        rows: labelled.
    """
    units = kept_whole(rows, None)
    n_units = 0 if units is None else len(np.unique(units))
    if n_units < 2:
        return None
    spec = config.experiment.folds
    changes = {"within": None, "scheme": "auto", "name": None, "n_folds": min(spec.n_folds, n_units)}
    experiment = config.experiment.model_copy(update={"folds": spec.model_copy(update=changes)})
    return replace(config, experiment=experiment, run_name=across_folder(Path(config.run_name)).name)
