"""Every run and every submission: its CV, its LB, and what it is made of (`podium board`). Derived, never stored.

A run is what `runs/<task>/<run>/` says in `run.json` and `cv.json`, a submission what the JSON beside its file says.
A file that cannot be read becomes a note in its line, so that one broken record does not hide the others.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.errors import DataError, listed, nearest
from pipeline.base.files import read_json, sha256_file, write_json

if TYPE_CHECKING:
    import pandas as pd


_SUFFIXES = (".csv", ".npy", ".json")


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
    public: float | None = None
    """Score on the public leaderboard."""
    private: float | None = None
    created: str | None = None
    sha256: str = ""
    higher_is_better: bool | None = None
    """Direction of the scores: as stated, else that of its runs."""
    note: str = ""


def list_runs(root: Path) -> list[RunLine]:
    """Return a line for each folder `runs/<task>/<run>/` that holds a `run.json` or `cv.json`, by name."""
    files = [*root.glob("runs/*/*/run.json"), *root.glob("runs/*/*/cv.json")]
    return [_run_line(folder) for folder in sorted({file.parent for file in files})]


def list_submissions(root: Path) -> list[SubmissionLine]:
    """Return a line for each record `submissions/<task>/*.json`, by name; a file that is gone or changed is noted."""
    directions = {(line.task, line.run): line.higher_is_better for line in list_runs(root)}
    return [_submission_line(record, directions) for record in sorted(root.glob("submissions/*/*.json"))]


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
    path = _find_record(root, file)
    record, trouble = _read(path)
    if trouble:
        raise DataError(f"{path}: {trouble}")
    boards = _mapping(record.get("lb")) | {"private" if private else "public": float(score)}
    write_json(path, {**record, "lb": boards})
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
    sent = [line for line in list_submissions(root) if task in (None, line.task)]
    runs.sort(key=lambda line: (line.task, line.n_done < line.n_folds, *_rank(_cv(line), line.higher_is_better)))
    sent.sort(key=lambda line: (line.task, *_rank(line.cv, line.higher_is_better)))
    tables = [
        pd.DataFrame([asdict(line) for line in lines], columns=[field.name for field in fields(kind)])
        for lines, kind in ((runs, RunLine), (sent, SubmissionLine))
    ]
    return tables[0], tables[1]


def _run_line(folder: Path) -> RunLine:
    run, run_trouble = _read(folder / "run.json")
    cv, cv_trouble = _read(folder / "cv.json")
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
        note="; ".join(str(note) for note in notes if note),
    )


def _submission_line(path: Path, directions: dict[tuple[str, str], bool | None]) -> SubmissionLine:
    record, trouble = _read(path)
    task, boards = path.parent.name, _mapping(record.get("lb"))
    runs = tuple(str(name) for name in record.get("runs") or ())
    known = [directions.get((task, Path(name).name)) for name in runs]
    file = path.parent / str(record.get("file", path.stem))
    return SubmissionLine(
        task=task,
        file=file.name,
        runs=runs,
        cv=_number(_mapping(record.get("cv")).get("mean", record.get("cv"))),
        public=_number(boards.get("public")),
        private=_number(boards.get("private")),
        created=record.get("created"),
        sha256=str(record.get("sha256", "")),
        higher_is_better=record.get("higher_is_better", next((way for way in known if way is not None), None)),
        note=trouble or _state_of(file, record.get("sha256")),
    )


def _state_of(file: Path, digest: str | None) -> str:
    if not file.is_file():
        return "the file is gone"
    return "" if digest is None or sha256_file(file) == digest else "the file has changed since it was written"


def _find_record(root: Path, file: str) -> Path:
    """Return the record of a submission given by path, name or `task/name`."""
    records = sorted(root.glob("submissions/*/*.json"))
    wanted = Path(file)
    found = [path for path in records if wanted.name in (path.stem, *(path.stem + end for end in _SUFFIXES))]
    if len(wanted.parts) > 1:
        found = [path for path in found if path.parent.name == wanted.parent.name]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{file}: several tasks have it; say which: {listed(_two_names(path) for path in found)}")
    near = nearest(wanted.name, [path.stem for path in records] + [f"{path.stem}.csv" for path in records])
    known = listed([_two_names(path) for path in records]) or "none yet"
    raise DataError(f"{file}: no such submission under {root / 'submissions'}.{near} Known: {known}")


def _two_names(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """Return the content of a JSON record and what is wrong with it; a missing one is empty and nothing is wrong."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, f"{path.name} cannot be read: {error}"
    return (content, "") if isinstance(content, dict) else ({}, f"{path.name} holds no record")


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _cv(line: RunLine) -> float | None:
    return line.pooled if line.mean is None else line.mean


def _rank(score: float | None, higher_is_better: bool | None) -> tuple[bool, float]:
    """Return a key that sorts the best score first and a missing one last."""
    if score is None:
        return True, 0.0
    return False, -score if higher_is_better else score
