"""A line for each run and each submission, as their files say it.

A run is what `runs/<task>/<run>/` says in `run.json` and `cv.json`, a submission what the JSON beside its file says.
A file that cannot be read becomes a note in its line, so that one broken record does not hide the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.files import sha256_file
from pipeline.stages.board.ledger import last_sent, read_record, record_paths


@dataclass(frozen=True)
class RunLine:
    """One run on the board; None stands for what it does not have."""

    task: str
    run: str
    metric: str | None = None
    higher_is_better: bool | None = None
    mean: float | None = None
    """Mean of the scores of the folds."""
    std: float | None = None
    """Their spread."""
    pooled: float | None = None
    """Score of the pooled OOF."""
    n_folds: int = 0
    n_done: int = 0
    weights: str | None = None
    """Which weights predict; `best` flatters the CV."""
    created: str | None = None
    note: str = ""


@dataclass(frozen=True)
class SubmissionLine:
    """One submission on the board; None stands for what it does not have."""

    task: str
    file: str
    runs: tuple[str, ...] = ()
    """What it is made of."""
    cv: float | None = None
    cv_std: float | None = None
    """Spread of the CV over folds."""
    public: float | None = None
    """Score on the public leaderboard."""
    private: float | None = None
    predicted: float | None = None
    """Where there is no public score: the one that its CV promises, by the line through the others."""
    low: float | None = None
    """The ends of the 95% interval of that."""
    high: float | None = None
    sent: str | None = None
    """When the file was sent last, as it is now."""
    created: str | None = None
    sha256: str = ""
    higher_is_better: bool | None = None
    """Direction of the scores: as stated, else that of its runs."""
    is_partial: bool = False
    """Made of some folds only, so that its CV covers some rows only."""
    is_intact: bool = True
    """The file exists and is what the record says."""
    note: str = ""


def list_runs(root: Path) -> list[RunLine]:
    """Return a line for each folder `runs/<task>/<run>/` that holds a `run.json` or `cv.json`, by name."""
    files = [*root.glob("runs/*/*/run.json"), *root.glob("runs/*/*/cv.json")]
    return [_run_line(folder) for folder in sorted({file.parent for file in files})]


def list_submissions(root: Path) -> list[SubmissionLine]:
    """Return a line for each record `submissions/<task>/*.json`, by name; a file that is gone or changed is noted."""
    directions = {(line.task, line.run): line.higher_is_better for line in list_runs(root)}
    return [_submission_line(record, directions) for record in record_paths(root)]


def _run_line(folder: Path) -> RunLine:
    run, run_trouble = read_record(folder / "run.json")
    cv, cv_trouble = read_record(folder / "cv.json")
    n_folds = cv.get("n_folds", _mapping(run.get("folds")).get("n_folds"))
    notes = [cv.get("note"), cv.get("partial"), run_trouble]
    notes += [cv_trouble] if (folder / "cv.json").exists() else ["no CV yet"]
    return RunLine(
        task=folder.parent.name,
        run=folder.name,
        metric=cv.get("metric"),
        higher_is_better=cv.get("higher_is_better"),
        mean=_number(cv.get("mean")),
        std=_number(cv.get("std")),
        pooled=_number(cv.get("pooled")),
        n_folds=int(n_folds or 0),
        n_done=int(cv.get("n_done") or 0),
        weights=cv.get("weights"),
        created=run.get("created"),
        note=_joined(notes),
    )


def _submission_line(path: Path, directions: dict[tuple[str, str], bool | None]) -> SubmissionLine:
    record, trouble = read_record(path)
    task, boards = path.parent.name, _mapping(record.get("lb"))
    runs = tuple(str(name) for name in record.get("runs") or ())
    known = [directions.get((task, Path(name).name)) for name in runs]
    file = path.parent / str(record.get("file", path.stem))
    sent = last_sent(record) or {}
    state = trouble or _state_of(file, record.get("sha256"))
    return SubmissionLine(
        task=task,
        file=file.name,
        runs=runs,
        cv=_number(_mapping(record.get("cv")).get("mean", record.get("cv"))),
        cv_std=_number(record.get("cv_std")),
        public=_number(boards.get("public")),
        private=_number(boards.get("private")),
        sent=sent.get("time"),
        created=record.get("created"),
        sha256=str(record.get("sha256", "")),
        higher_is_better=record.get("higher_is_better", next((way for way in known if way is not None), None)),
        is_partial=bool(record.get("partial")),
        is_intact=not state,
        note=_joined([state, record.get("partial"), _state_of_sending(sent)]),
    )


def _state_of(file: Path, digest: str | None) -> str:
    if not file.is_file():
        return "the file is gone"
    return "" if digest is None or sha256_file(file) == digest else "the file has changed since it was written"


def _state_of_sending(entry: dict[str, Any]) -> str:
    if entry.get("error"):
        return f"the host could not score it: {entry['error']}"
    return "whether it arrived is not known" if entry and entry.get("ref") is None else ""


def _joined(notes: list[Any]) -> str:
    return "; ".join(str(note) for note in notes if note)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
