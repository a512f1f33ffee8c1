"""Whether grades are grades, seen on OOF: they are mostly taken for their neighbours; classes for any other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import write_json
from pipeline.base.plots import plot_history
from pipeline.data.tables import load_train
from pipeline.records.predictions import load_predictions
from pipeline.records.runs import Run, Workspace
from pipeline.records.task import Task
from pipeline.stages.crossval import finish_run
from pipeline.training.history import read_history

MIN_CONFUSED = 10
"""With fewer confused rows nothing is said."""


def are_grades(workspace: Workspace, run: Run) -> bool | None:
    """Return whether the classes of a run are mostly taken for their neighbours out of fold; None if OOF cannot say."""
    path = run.folder / "oof.parquet"
    if not path.is_file():
        return None
    oof, rows = load_predictions(path), load_train(run.task, workspace.data(run.task)).rows
    place = {row_id: position for position, row_id in enumerate(rows.ids)}
    at = np.array([place[row_id] for row_id in oof.ids], dtype=np.int64)
    return confuses_neighbours(np.asarray(rows.targets)[at], oof.values)


def read_as_classes(workspace: Workspace, run: Run, task: Task) -> Run:
    """Write the run of an ordinal task anew as one of the same task with classes; return it.

    A softmax over grades learns as one over classes does, so nets and predictions stay as they are; what is derived
    from them (`cv.json`, OOF, test predictions) follows the new task. The curves stay in the old metric.
    """
    metric = run.task.metric.name
    write_json(run.folder / "run.json", run.record | {"task": task.plain()})
    now = Run(run.folder)
    finish_run(workspace, now)
    histories = {unit.name: read_history(now.unit_folder(unit) / "history.csv") for unit in now.done_units()}
    plot_history(now.folder / "curves.png", histories, metric)
    return now


def confuses_neighbours(targets: NDArray[np.int64], probs: NDArray[np.floating[Any]]) -> bool | None:
    """Return whether classes are mostly taken for the ones beside them, as grades are.

    For each class that is confused at all, the class that its rows are most often taken for must be its neighbour;
    classes count as often as they are confused. None where too few rows are confused to say so.

    Args:
        targets: (N,) class index of each row.
        probs: (N, K) out-of-fold probabilities of the classes in their order.
    """
    n_classes = probs.shape[1]
    chosen = probs.argmax(axis=1)
    confused = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confused, (targets, chosen), 1)
    np.fill_diagonal(confused, 0)
    n_confused = confused.sum(axis=1)
    if n_confused.sum() < MIN_CONFUSED or n_classes < 3:
        return None
    nearest = confused.argmax(axis=1)
    is_beside = np.abs(nearest - np.arange(n_classes)) == 1
    return bool((n_confused * is_beside).sum() > 0.5 * n_confused.sum())
