"""Scores of predictions, joined to the rows by id and taken as they will be submitted: of one fold, of pooled OOF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.records.metrics import Metric, UndefinedMetricError, resolve_metric
from pipeline.records.predictions import Predictions, average_by
from pipeline.records.rows import Rows
from pipeline.records.task import Task


def metric_of(task: Task, rows: Rows) -> Metric:
    """Return the metric of the task for the classes of the rows, without labels that the host does not ask for."""
    if rows.wanted is None:
        return resolve_metric(task.metric, task.kind, rows.names, task.ordinal, task.submission.threshold)
    names = [rows.names[position] for position in rows.wanted]
    inner = resolve_metric(task.metric, task.kind, names, task.ordinal, task.submission.threshold)
    score = partial(_score_columns, inner, list(rows.wanted))
    return replace(inner, score=score, names=rows.names, n_columns=len(rows.names))


def score_values(
    ids: NDArray[np.object_], values: NDArray[np.float32], rows: Rows, metric: Metric, task: Task
) -> float:
    """Return the metric of predictions for the rows with the given ids; rows of one submission id count as one."""
    predictions = Predictions(ids, prediction_names(task, rows.names), values, None, {})
    return score_predictions(predictions, rows, metric)


def score_predictions(predictions: Predictions, rows: Rows, metric: Metric) -> float:
    """Return the metric of predictions for some of the rows, joined by id.

    Rows that share a submission id are averaged first, as they will be in the submission.

    Raises:
        UndefinedMetricError: the metric has no value on these rows.
        DataError: rows of one submission id have different targets.
    """
    predictions, targets = submitted(predictions, rows)
    return metric(targets, predictions.values)


def submitted(predictions: Predictions, rows: Rows) -> tuple[Predictions, Any]:
    """Return predictions and targets as they are submitted: one row for each submission id."""
    place = {row_id: position for position, row_id in enumerate(rows.ids)}
    positions = np.array([place[row_id] for row_id in predictions.ids], dtype=np.int64)
    targets = np.asarray(rows.targets)[positions]
    if rows.submission_ids is None:
        return predictions, targets
    keys = rows.submission_ids[positions]
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    for position, key in enumerate(keys):
        if not np.array_equal(targets[position], targets[first[key]]):
            raise DataError(f"submission id '{key}': its rows have different targets, so it has no single truth")
    averaged = average_by(predictions, keys)
    return averaged, targets[[first[key] for key in averaged.ids]]


def cv_summary(
    lines: list[dict[str, Any]], oof: Predictions | None, rows: Rows, metric: Metric, n_folds: int
) -> dict[str, Any]:
    """Return fold scores, their mean and spread over folds, and the score of the pooled OOF, as `cv.json` holds them.

    Seeds of one fold are averaged before mean and spread (n - 1) are taken. A score that is undefined on its rows is
    None with a note that says why, and counts in no mean.

    Args:
        lines: one for each held-out set, with `fold` and `score`.
        oof: pooled held-out predictions; None for a run without.
        rows: the labelled rows.
        metric: the task's.
        n_folds: how many folds there are.
    """
    by_fold: dict[int, list[float]] = {}
    for line in lines:
        if line["score"] is not None:
            by_fold.setdefault(line["fold"], []).append(line["score"])
    means = [float(np.mean(scores)) for scores in by_fold.values()]
    pooled, note = score_or_note(oof, rows, metric) if oof is not None else (None, None)
    return {
        "metric": metric.name,
        "higher_is_better": metric.higher_is_better,
        "folds": lines,
        "mean": float(np.mean(means)) if means else None,
        "std": float(np.std(means, ddof=1)) if len(means) > 1 else None,
        "pooled": pooled,
        "note": note,
        "subjects": {} if oof is None else scores_of_subjects(oof, rows, metric),
        "n_rows": 0 if oof is None else len(oof),
        "n_folds": n_folds,
        "n_done": len({line["fold"] for line in lines}),
    }


def scores_of_subjects(oof: Predictions, rows: Rows, metric: Metric) -> dict[str, float]:
    """Return the score of each subject's rows in the OOF predictions, by name; none without a column of subjects.

    Subjects on whose rows the metric is undefined are left out.
    """
    if rows.subjects is None:
        return {}
    subject_of = dict(zip(rows.ids, rows.subjects, strict=True))
    subjects = np.array([subject_of[row_id] for row_id in oof.ids], dtype=object)
    scores = {}
    for name in sorted(set(subjects)):
        here = np.flatnonzero(subjects == name)
        part = replace(oof, ids=oof.ids[here], values=oof.values[here], fold=None)
        score, _ = score_or_note(part, rows, metric)
        if score is not None:
            scores[str(name)] = score
    return scores


def score_or_note(predictions: Predictions, rows: Rows, metric: Metric) -> tuple[float | None, str | None]:
    """Return the score, or None and the reason where it is undefined."""
    try:
        return score_predictions(predictions, rows, metric), None
    except UndefinedMetricError as error:
        return None, str(error)


def _score_columns(metric: Metric, columns: list[int], targets: Any, values: Any) -> float:
    return metric(targets[:, columns], values[:, columns])


def prediction_names(task: Task, names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a task's predictions: the positive class alone of two, one value of a regressed grade."""
    if task.kind == "binary":
        return (names[1],)
    if task.kind == "ordinal" and task.ordinal == "regression":
        return (task.target[0] if task.target else "grade",)
    return tuple(names)


def is_value(task: Task) -> bool:
    """Say whether predictions are values on the target's scale, not probabilities."""
    return task.kind == "regression" or (task.kind == "ordinal" and task.ordinal == "regression")
