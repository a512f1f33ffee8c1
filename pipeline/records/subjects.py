"""Subjects and sessions: what a fold holds out whole by default, and what a split within them leaves together.

Trials of one subject, and more so of one session, are alike in much that has nothing to do with the question. A model
that has seen a subject scores better on the subject's other trials than it will on a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError
from pipeline.records.experiment import FoldSpec
from pipeline.records.rows import Rows, Strings
from pipeline.records.task import Task

Within = Literal["subject", "session"] | None


def keeps_whole(task: Task, within: Within) -> bool:
    """Say whether folds of this task keep subjects or sessions whole."""
    if within is None:
        return task.subject is not None or task.session is not None
    return within == "subject" and task.session is not None


def kept_whole(rows: Rows, within: Within) -> Strings | None:
    """Return what no two folds may share of subjects and sessions, (N,), or None.

    Subjects by default, or sessions where only these are known; `within` a subject its sessions; within a session
    nothing.

    Raises:
        ConfigError: `within` names a column that the task has not.
    """
    if within is not None and getattr(rows, f"{within}s") is None:
        other = "session" if within == "subject" else "subject"
        known = f"; it has {other}:" if getattr(rows, f"{other}s") is not None else ""
        raise ConfigError(f"folds.within: {within} needs the column of {within}s, and the task has no {within}:{known}")
    if within is None:
        return rows.sessions if rows.subjects is None else rows.subjects
    return None if within == "session" or rows.sessions is None else paired(rows.subjects, rows.sessions)


def subject_names(rows: Rows) -> list[str]:
    """Return the subjects of labelled rows in the order of their names; none without such a column."""
    return [] if rows.subjects is None else sorted(set(rows.subjects.tolist()))


def subject_numbers(rows: Rows, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each row's subject, (N,): its place in `names` from 1 on, 0 for one that is not there."""
    if rows.subjects is None:
        return np.zeros(len(rows), dtype=np.int64)
    place = {name: number for number, name in enumerate(names, start=1)}
    return np.array([place.get(name, 0) for name in rows.subjects], dtype=np.int64)


def refuse_few_subjects(rows: Rows, scheme: str, spec: FoldSpec) -> None:
    """Raise a ConfigError where a scheme with groups has fewer subjects or sessions than folds."""
    units = kept_whole(rows, spec.within)
    if units is None or "group" not in scheme or (n_units := len(np.unique(units))) >= spec.n_folds:
        return
    what = "subjects" if spec.within is None and rows.subjects is not None else "sessions"
    within = "session" if spec.within is not None or rows.subjects is None else "subject"
    raise ConfigError(
        f"folds.n_folds = {spec.n_folds}, but there are only {n_units} {what} to hold out in turn; lower it, or ask for"
        f" a random split within them (folds.within: {within}), whose score says nothing of new {what}"
    )


def balanced_units(rows: Rows, within: Within) -> Strings | None:
    """Return what a split within subjects deals evenly over the folds beside the classes, (N,), or None."""
    return None if within is None else rows.sessions if rows.subjects is None else rows.subjects


def paired(first: Strings | None, second: Strings) -> Strings:
    """Return (N,) names of pairs: sessions are often numbered anew for each subject."""
    if first is None:
        return second
    return np.array([f"{one} / {other}" for one, other in zip(first, second, strict=True)], dtype=object)
