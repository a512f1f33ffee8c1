"""Every run and every submission: its CV, its LB, and what it is made of (`podium board`). Derived, never stored.

Beside the tables stands what the leaderboard says about CV (`read_outlook`). It judges CV and orders nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import DataError
from pipeline.stages.board.finals import Final, propose_finals
from pipeline.stages.board.lb_fit import MIN_POINTS, LbFit, find_outliers, fit_lb
from pipeline.stages.board.ledger import amend, find_record, with_scores
from pipeline.stages.board.lines import RunLine, SubmissionLine, list_runs, list_submissions

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outlook:
    """What CV and LB of one task say about each other."""

    task: str
    fit: LbFit | None
    """The line through the sent files that are no outliers; None with `missing`."""
    missing: str
    """Why there is no line, in words; else empty."""
    outliers: tuple[tuple[str, str], ...]
    """File and what is odd about it."""
    finals: tuple[Final, ...]
    """Up to two."""
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return all of it in sentences."""
        return [*_fit_lines(self), *_outlier_lines(self), *_final_lines(self), *self.notes]


def enter_lb(root: Path, file: str, score: float, private: bool = False) -> Path:
    """Write a leaderboard score into the record of a submission and return the path of that record.

    Args:
        root: the workspace.
        file: a path, a file name or `task/name`, with or without its suffix.
        score: as the host shows it, finite.
        private: the private leaderboard instead of the public one.

    Raises:
        DataError: no submission has that name (the nearest are shown), several have it, or the score is no number.
    """
    if not math.isfinite(score):
        raise DataError(f"{file}: a leaderboard score is a finite number (found: {score})")
    path = find_record(root, file)
    amend(root, path, lambda record: with_scores(record, **{"private" if private else "public": float(score)}))
    return path


def board_tables(root: Path, task: str | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return runs and submissions as tables, by task and then the best CV first, in the direction of its metric.

    CV is the mean of folds, or else the pooled OOF. Runs of some folds only come after whole ones, and lines without
    a score last. The leaderboard does not order anything: chosen by it, the luckiest comes first.

    Args:
        root: the workspace.
        task: only this one; an unknown name gives empty tables.
    """
    import pandas as pd

    runs = [line for line in list_runs(root) if task in (None, line.task)]
    sent = _with_predictions([line for line in list_submissions(root) if task in (None, line.task)])
    runs.sort(key=lambda line: (line.task, line.n_done < line.n_folds, *_rank(_cv(line), line.higher_is_better)))
    sent.sort(key=lambda line: (line.task, *_rank(line.cv, line.higher_is_better)))
    tables = [
        pd.DataFrame([asdict(line) for line in lines], columns=[field.name for field in fields(kind)])
        for lines, kind in ((runs, RunLine), (sent, SubmissionLine))
    ]
    return tables[0], tables[1]


def read_outlook(root: Path, task: str | None = None) -> list[Outlook]:
    """Return the outlook of each task that has submissions, or of one task."""
    lines = [line for line in list_submissions(root) if task in (None, line.task)]
    return [_outlook(root, name, mine) for name, mine in _by_task(lines).items()]


def _outlook(root: Path, task: str, lines: Sequence[SubmissionLine]) -> Outlook:
    fit, off, missing = _fit(lines)
    finals, notes = propose_finals(root, lines)
    odd = tuple((line.file, _oddness(line, fit)) for line in off) if fit else ()
    return Outlook(task, fit, missing, odd, tuple(finals), tuple(notes))


def _fit(lines: Sequence[SubmissionLine]) -> tuple[LbFit | None, list[SubmissionLine], str]:
    """Return the line through CV and public LB, what lies off it, and, where there is no line, why.

    Points are the scored files of whole runs, the same bytes under two names once.
    """
    scored = [line for line in lines if line.cv is not None and line.public is not None and not line.is_partial]
    points = list({line.sha256 or line.file: line for line in scored}.values())
    cv, lb = [line.cv or 0.0 for line in points], [line.public or 0.0 for line in points]
    if len(points) < MIN_POINTS:
        have = f"{len(points)} of the {MIN_POINTS} points that it needs (files of whole runs with CV and public LB)"
        return None, [], f"{have}, {MIN_POINTS - len(points)} missing"
    if len(set(cv)) == 1:
        return None, [], f"all {len(points)} files that have a public LB have the same CV, {cv[0]:g}"
    off = find_outliers(cv, lb)
    kept = [place for place in range(len(points)) if place not in off]
    if len({cv[place] for place in kept}) == 1:
        return None, [], "without the file that lies off, all have the same CV"
    fit = fit_lb([cv[place] for place in kept], [lb[place] for place in kept])
    return fit, [points[place] for place in off], ""


def _with_predictions(lines: Sequence[SubmissionLine]) -> list[SubmissionLine]:
    """Return the lines, those of whole runs without a public score with the one that their CV promises."""
    made = []
    for mine in _by_task(lines).values():
        fit, _, _ = _fit(mine)
        for line in mine:
            if fit is not None and line.cv is not None and line.public is None and not line.is_partial:
                value, low, high = fit.predict(line.cv)
                line = replace(line, predicted=value, low=low, high=high)
            made.append(line)
    return made


def _oddness(line: SubmissionLine, fit: LbFit) -> str:
    promised, low, high = fit.predict(line.cv or 0.0)
    gap = (line.public or 0.0) - promised
    side = "above" if gap > 0 else "below"
    what = f"LB {line.public:g} is {abs(gap):.5f} {side} what its CV promises ({low:.5f} to {high:.5f})"
    if line.higher_is_better is None:
        return what
    is_worse = (gap < 0) == line.higher_is_better
    return f"{what}: {'a leak in its folds, or other test rows' if is_worse else 'folds that are too hard, or luck'}"


def _fit_lines(outlook: Outlook) -> list[str]:
    fit = outlook.fit
    if fit is None:
        return [f"no line from CV to LB yet: {outlook.missing}"]
    low, high = fit.slope_ends()
    lines = [
        f"LB = {fit.intercept:.5f} + {fit.slope:.3f} x CV over {fit.n} files (slope {low:.3f} to {high:.3f} at 95%), "
        f"points lie {fit.residual_std:.5f} off it (standard deviation)"
    ]
    return lines if low > 0 else [*lines, "LB may not follow CV: the interval of the slope holds 0 or less"]


def _outlier_lines(outlook: Outlook) -> list[str]:
    return [f"off the line: {file}: {what}" for file, what in outlook.outliers]


def _final_lines(outlook: Outlook) -> list[str]:
    odd = {file for file, _ in outlook.outliers}
    lines = []
    for number, final in enumerate(outlook.finals, 1):
        state = "sent" if final.sent else f"not sent: podium submit submissions/{outlook.task}/{final.file} --send"
        warning = "; it lies off the line, so look at its folds first" if final.file in odd else ""
        lines.append(f"final {number}: {final.file}, CV {final.cv:.5f}: {final.reason} ({state}){warning}")
    return lines


def _by_task(lines: Sequence[SubmissionLine]) -> dict[str, list[SubmissionLine]]:
    tasks = sorted({line.task for line in lines})
    return {task: [line for line in lines if line.task == task] for task in tasks}


def _cv(line: RunLine) -> float | None:
    return line.pooled if line.mean is None else line.mean


def _rank(score: float | None, higher_is_better: bool | None) -> tuple[bool, float]:
    """Return a key that sorts the best score first and a missing one last."""
    if score is None:
        return True, 0.0
    return False, -score if higher_is_better else score
