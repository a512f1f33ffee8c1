"""Is everything predicted once: OOF is a partition, test predictions hold every row, the submission reads back."""

from __future__ import annotations

import numpy as np

from pipeline.base.errors import listed
from pipeline.base.interrupt import Deadline
from pipeline.data.tables import load_test
from pipeline.records.folds import Folds
from pipeline.records.predictions import Predictions, load_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Workspace
from pipeline.stages.checks.choice import choose_rows
from pipeline.stages.checks.context import Context, Finding
from pipeline.stages.checks.sample import write_copy
from pipeline.stages.checks.trial import OutOfTimeError, run_trial
from pipeline.stages.crossval import predict_run
from pipeline.stages.submit import submit_run

COMPLETE = "predictions are complete"


def check_outputs(context: Context) -> Finding:
    """Run a whole cross-validation of one epoch on a copy of the sample, to its submission, and count what came out."""
    rows = _rows_in_time(context)
    if rows is None:
        speed = f"{context.samples_per_sec:.1f} samples a second"
        return Finding(COMPLETE, "note", f"not tried: at {speed} an epoch of every fold takes too long", "use a GPU")
    spec = context.experiment
    loop = spec.train.model_copy(update={"epochs": 1, "batch_size": min(spec.train.batch_size, 32), "accumulation": 1})
    experiment = spec.model_copy(update={"train": loop, "seeds": spec.seeds[:1]})
    has_test = context.task.test is not None
    workspace, config = write_copy(context.sample, "outputs", rows, experiment, has_test)
    deadline = Deadline(2 * context.limit_sec)
    try:
        run = run_trial(context, workspace, config, deadline)
    except OutOfTimeError:
        return Finding(COMPLETE, "note", f"out of time after {deadline.seconds:.0f} s", "use a GPU for a real answer")
    oof = load_predictions(run.folder / "oof.parquet")
    fault = missing_from_oof(oof, rows, context.sample.folds)
    if fault:
        return Finding(COMPLETE, "fail", f"OOF: {fault}", "look at how folds become OOF (stages/crossval.py)")
    return _test_and_submission(workspace, run, oof, rows) if has_test else _done(oof, rows, "no test rows")


def missing_from_oof(oof: Predictions, rows: Rows, folds: Folds) -> str:
    """Return in what OOF is no partition of the rows with a fold from 0, each by the model of its fold; empty if it is.

    Args:
        oof: out-of-fold predictions.
        rows: everything that was trained on or held out.
        folds: of these rows and perhaps others.
    """
    of_id = dict(zip(folds.ids, folds.fold, strict=True))
    wanted = {row_id: of_id[row_id] for row_id in rows.ids if of_id[row_id] >= 0}
    found = dict(zip(oof.ids, np.asarray(oof.fold), strict=True))
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        folds_hit = listed(sorted({int(wanted[row_id]) for row_id in missing}))
        return f"{len(missing)} of {len(wanted)} rows are missing, of fold {folds_hit} (such as {listed(missing, 3)})"
    extra = sorted(found.keys() - wanted.keys())
    if extra:
        return f"{len(extra)} rows are there that no fold holds out (such as {listed(extra, 3)})"
    wrong = [row_id for row_id, fold in wanted.items() if found[row_id] != fold]
    return f"{len(wrong)} rows were predicted by another fold (such as {listed(wrong, 3)})" if wrong else ""


def _rows_in_time(context: Context) -> Rows | None:
    """Return as many rows as one epoch of every fold has time for; None where that is too few."""
    n_folds = context.sample.folds.n_folds
    n_rows = int(context.samples_per_sec * context.limit_sec / max(1, n_folds - 1))
    if n_rows < min(8 * n_folds, len(context.rows)):
        return None
    return context.rows.at(np.sort(choose_rows(context.rows, context.sample.folds.fold, n_rows)))


def _test_and_submission(workspace: Workspace, run: Run, oof: Predictions, rows: Rows) -> Finding:
    test = load_predictions(run.folder / "test.parquet")
    wanted = set(_test_ids(workspace, run, rows))
    missing, extra = sorted(wanted - set(test.ids)), sorted(set(test.ids) - wanted)
    if missing or extra:
        detail = f"test predictions: {len(missing)} rows are missing and {len(extra)} belong to no test row"
        return Finding(
            COMPLETE, "fail", f"{detail} (such as {listed(missing or extra, 3)})", "look at stages/crossval.py"
        )
    again = load_predictions(predict_run(workspace, run, lambda _: None, out=run.folder / "again.parquet"))
    if not np.array_equal(again.aligned_to(test.ids).values, test.values):
        detail = "the saved models predict the test rows otherwise than they did when they were trained"
        return Finding(COMPLETE, "fail", detail, "look at what a unit saves and loads: weights, buffers, scaling")
    path = submit_run(workspace, run, None, True, lambda _: None)
    return _done(oof, rows, f"{len(test)} test rows, {path.suffix[1:]} file read back")


def _test_ids(workspace: Workspace, run: Run, rows: Rows) -> list[str]:
    """Return the ids of the test rows of a run's task."""
    return [str(row_id) for row_id in load_test(run.task, workspace.data(run.task), rows.names).rows.ids]


def _done(oof: Predictions, rows: Rows, test: str) -> Finding:
    return Finding(COMPLETE, "pass", f"OOF holds {len(oof)} of {len(rows)} rows once each; {test}")
