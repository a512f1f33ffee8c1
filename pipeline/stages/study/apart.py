"""Predictions of a unit for the rows kept apart (fold -2), which it has never seen and nothing was chosen by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import sha256_file
from pipeline.base.interrupt import StopFlag
from pipeline.records.folds import HOLDOUT, load_folds
from pipeline.records.predictions import load_predictions, save_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Unit, Workspace
from pipeline.training.device import threads
from pipeline.training.unit import UnitJob, data_of_job, load_unit, predict_unit

FILE = "apart.parquet"
"""Beside a unit's `heldout.parquet`."""


def predict_apart(job: UnitJob, stop: StopFlag) -> None:
    """Write the predictions of a finished unit for the rows kept apart, unless its weights have made them before."""
    run = Run(job.folder)
    if has_apart(run, job.unit):
        return
    data = data_of_job(job)
    rows, items = data.train.rows, data.train_items(job.machine.device)
    held = rows.at(rows_apart(Workspace(job.root), run, rows))
    with threads(job.machine.threads):
        model, scaling, digest = load_unit(run, job.unit, rows, items)
        predictions = predict_unit(run, job.unit, held, items, model, scaling, digest, stop)
    save_predictions(run.unit_folder(job.unit) / FILE, predictions)


def has_apart(run: Run, unit: Unit) -> bool:
    """Say whether a unit's predictions for the rows kept apart are there, made by the weights that it has."""
    folder = run.unit_folder(unit)
    if not (folder / FILE).is_file() or not run.is_done(unit):
        return False
    return load_predictions(folder / FILE).meta.get("weights_hash") == sha256_file(folder / "weights.safetensors")


def rows_apart(workspace: Workspace, run: Run, rows: Rows) -> NDArray[np.int64]:
    """Return the positions of the rows kept apart among the labelled rows; empty where the folds have no holdout."""
    table = load_folds(workspace.folds(run.task, run.experiment.folds)).without(run.task.exclude).aligned_to(rows.ids)
    return np.flatnonzero(table.fold == HOLDOUT)
