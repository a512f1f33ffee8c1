"""Predictions of several runs as one array, joined by id, and what is made of it as predictions again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import MismatchError, listed
from pipeline.blending.paired import pair_rows
from pipeline.blending.problem import Problem
from pipeline.records.metrics import Metric
from pipeline.records.predictions import Predictions, average_by, mean_predictions
from pipeline.records.rows import Rows, Strings

_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Joined:
    """M runs on the same rows, as they would be submitted."""

    frame: Predictions
    """The rows by id, sorted, with what all runs state alike; its values are of no use."""
    members: NDArray[np.float32]
    """(M, N', K): rows of one submission id are averaged, so N' may be less than the rows of the frame."""
    place: NDArray[np.int64]
    """(N,) at which of the N' each row of the frame lies."""

    def predictions(self, values: NDArray[np.float32]) -> Predictions:
        """Return values (N', K) as predictions of all rows; those of one submission id get the same."""
        return replace(self.frame, values=values[self.place])


def join_members(parts: Mapping[str, Predictions], rows: Rows) -> Joined:
    """Return the predictions of several runs for the same rows, in the order of the runs.

    Args:
        parts: by the name of the run, rows in any order.
        rows: tells which rows share a submission id.

    Raises:
        MismatchError: two runs (both are named) differ in task, columns, ids or folds.
    """
    names = list(parts)
    frame = parts[names[0]].sorted()
    for name in names[1:]:
        frame = mean_predictions([frame, parts[name]], labels=[names[0], name])
    members, place = [], np.arange(len(frame))
    if rows.submission_ids is not None:
        key_of = dict(zip(rows.ids, rows.submission_ids, strict=True))
        keys = np.array([key_of[row_id] for row_id in frame.ids], dtype=object)
        place = np.unique(keys, return_inverse=True)[1]
    for part in parts.values():
        aligned = part.aligned_to(frame.ids)
        members.append((aligned if rows.submission_ids is None else average_by(aligned, keys)).values)
    return Joined(frame, np.stack(members), place)


def problem_of(joined: Joined, rows: Rows, metric: Metric) -> tuple[Problem, Strings | None]:
    """Return joined OOF with its truth, and the group of each row (None without groups).

    Raises:
        DataError: rows of one submission id have different targets.
    """
    paired = pair_rows([joined.frame], rows)
    fold = paired.folds[0]
    if fold is None:
        raise MismatchError("OOF without a fold column: weights cannot be scored without the fold of each row")
    form = joined.frame.meta.get("form", "probs")
    problem = Problem(joined.members, np.asarray(paired.targets), fold, metric, form, is_exclusive(joined, metric))
    return problem, paired.groups


def is_exclusive(joined: Joined, metric: Metric) -> bool:
    """Say whether the columns are classes whose probabilities sum to one, in every row of every run."""
    if metric.kind not in ("multiclass", "ordinal") or metric.n_columns < 2:
        return False
    return all(bool(np.abs(member.sum(axis=1) - 1).max(initial=0) <= _SUM_TOLERANCE) for member in joined.members)


def refuse_labels(parts: Mapping[str, Predictions], metric: Metric) -> None:
    """Raise MismatchError, naming the runs, where predictions are 0 and 1 only and the metric reads probabilities."""
    if metric.needs != "probs" or metric.kind == "regression":
        return
    decided = [name for name, part in parts.items() if len(part) > 1 and bool(np.isin(part.values, (0, 1)).all())]
    if decided:
        raise MismatchError(
            f"{metric.name} needs probabilities, and these runs hold decided labels, 0 and 1 only: {listed(decided)}; "
            "leave them out, or predict probabilities with them"
        )
