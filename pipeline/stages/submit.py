"""From a run or blend to a checked file in `submissions/`, with a record of what it is made of. `podium submit RUN`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import DataError
from pipeline.base.files import read_json
from pipeline.data.tables import load_test, load_train
from pipeline.records.cv import submitted
from pipeline.records.layout import Layout, read_layout
from pipeline.records.metrics import UndefinedMetricError, resolve_metric
from pipeline.records.predictions import Predictions, average_by, load_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Workspace, git_commit, versions
from pipeline.stages.submission import direct_score, require_same_score, round_trip_score, write_submission


def submit_run(workspace: Workspace, run: Run, file: str | None, overwrite: bool, say: Callable[[str], None]) -> Path:
    """Write the submission of a run or blend and the JSON beside it; return the path of the submission.

    Before that, OOF goes the same way through the same writer and must score what it scores by itself, within 1e-6.

    Raises:
        DataError: the run has no test predictions, or the file breaks a rule of the host's form; nothing is written.
        MismatchError: ids or columns are not those of the sample, or OOF scores differently through the writer.
    """
    if not (run.folder / "test.parquet").is_file():
        raise DataError(
            f"{run.folder}: has no test predictions; finish a fold with `podium train`, or `podium predict`"
        )
    task, data = run.task, workspace.data(run.task)
    train = load_train(task, data).rows
    test = load_predictions(run.folder / "test.parquet")
    test, ids = _by_submission_id(test, load_test(task, data, train.names).rows)
    layout = read_layout(task, data, train.names, ids)
    _check_way(run, train, layout, say)
    suffix = ".npy" if layout.format == "array" else ".csv"
    path = workspace.submissions(task) / f"{Path(file or run.name).name.removesuffix(suffix)}{suffix}"
    if test.meta.get("partial"):
        say(f"note: the predictions come from a part of the run only: {test.meta['partial']}")
    return write_submission(path, test, layout, task, train.names, _provenance(run, test), overwrite)


def _by_submission_id(test: Predictions, rows: Rows) -> tuple[Predictions, list[str]]:
    """Return predictions with one row for each submission id, and those ids in the order of the test table."""
    if rows.submission_ids is None:
        return test, [str(row_id) for row_id in rows.ids]
    averaged = average_by(test.aligned_to(rows.ids), rows.submission_ids)
    return averaged, list(dict.fromkeys(str(key) for key in rows.submission_ids))


def _check_way(run: Run, rows: Rows, layout: Layout, say: Callable[[str], None]) -> None:
    """Send OOF through the writer and compare the scores; say so where there is nothing to compare."""
    path = run.folder / "oof.parquet"
    if not path.is_file():
        say("note: the run has no OOF, so its way through the writer is not checked by a score")
        return
    task = run.task
    oof, targets = submitted(load_predictions(path), rows)
    names = [rows.names[pick] for pick in sorted(layout.picks)] if _is_narrowed(layout, rows) else rows.names
    metric = resolve_metric(task.metric, task.kind, names, task.ordinal, task.submission.threshold)
    try:
        direct = direct_score(oof, np.asarray(targets), metric, layout, task, rows.names)
        through = round_trip_score(oof, np.asarray(targets), metric, layout, task, rows.names)
    except UndefinedMetricError as error:
        say(f"note: the way through the writer is not checked by a score: {error}")
        return
    require_same_score(direct, through)
    say(f"OOF through the writer scores {through:.6f} {metric.name}, as it does by itself")


def _is_narrowed(layout: Layout, rows: Rows) -> bool:
    """Say whether the host asks for some of the labels only."""
    return layout.format == "per_class" and 1 < len(layout.picks) < len(rows.names)


def _provenance(run: Run, test: Predictions) -> dict[str, Any]:
    cv = read_json(run.folder / "cv.json") if (run.folder / "cv.json").is_file() else {}
    members = [member["run"] for member in run.record["blend"]["members"]] if run.is_blend else [run.name]
    return {
        "task": run.task.name,
        "run": run.name,
        "runs": members,
        "units": test.meta.get("units"),
        "partial": test.meta.get("partial"),
        "metric": run.task.metric.name,
        "higher_is_better": cv.get("higher_is_better"),
        "cv": cv.get("pooled") if cv.get("mean") is None else cv.get("mean"),
        "cv_std": cv.get("std"),
        "oof": cv.get("pooled"),
        "folds": run.record["folds"],
        "config_hash": run.record["config_hash"],
        "run_versions": run.record["versions"],
        "versions": versions(),
        "git_commit": git_commit(),
    }
