"""Two final submissions: the best CV and, among those that are about as good, the one that differs most from it.

Two files that make the same mistakes win or lose together; of two that differ, the better one counts. The leaderboard
has no say: chosen by it, the luckiest would be final.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import MismatchError, PodiumError
from pipeline.base.tables import read_table
from pipeline.records.predictions import check_same_ids
from pipeline.stages.board.ledger import read_record
from pipeline.stages.board.lines import SubmissionLine

_NUMBERS = ("probability", "per_class", "values", "array")
"""Forms whose cells are amounts; the cells of the others are decisions."""


@dataclass(frozen=True)
class Final:
    """A submission that is proposed as final."""

    file: str
    cv: float
    sent: str | None
    """When it was sent; the host lets only sent files be final."""
    reason: str


def propose_finals(root: Path, lines: Sequence[SubmissionLine]) -> tuple[list[Final], list[str]]:
    """Return up to two finals of one task, each with its reason, and notes on what could not be considered.

    Only files that are there, unchanged, made of whole runs and with a CV in a known direction are considered.

    Args:
        root: the workspace.
        lines: the submissions of one task.
    """
    able = sorted(filter(_is_able, lines), key=_badness)
    if not able:
        return [], ["no finals: there is no unchanged file of a whole run with a CV"]
    best = able[0]
    finals = [Final(best.file, _cv(best), best.sent, "the best CV")]
    rivals = [line for line in able[1:] if line.sha256 != best.sha256]
    if not rivals:
        return finals, ["no second final: there is no other such file"]
    if best.cv_std is None:
        return finals, [f"no second final: the CV of {best.file} has no spread over folds to say what is as good"]
    near = [line for line in rivals if abs(_cv(line) - _cv(best)) <= best.cv_std]
    if not near:
        return finals, [f"no second final: no other file is within one spread ({best.cv_std:.5f}) of the best CV"]
    return _with_second(root, finals, best, near)


def difference(folder: Path, first: dict[str, Any], other: dict[str, Any]) -> tuple[float, str]:
    """Return how different two submission files are, 0 for alike, and the measure in words with `{}` for the number.

    Amounts (probabilities, values): 1 - Pearson's correlation, the mean over columns, 0..2. Decisions (labels): the
    share of cells that differ, 0..1. Rows are joined by id; those of arrays, which have none, by place.

    Args:
        folder: where both files lie.
        first: the record of one, with `file`, `format` and, where it is not the first column, `id_column`.
        other: the record of the other.

    Raises:
        MismatchError: they have other ids, columns, shapes or forms.
    """
    if first.get("format") != other.get("format"):
        raise MismatchError(f"{other['file']} has the format {other.get('format')}, {first['file']} another")
    ours, theirs = _joined_cells(folder, first, other)
    if first.get("format") in _NUMBERS:
        return _mean_decorrelation(ours.astype(np.float64), theirs.astype(np.float64)), "1 - correlation is {:.4f}"
    return float(np.mean(ours != theirs)), "{:.2%} of the decisions differ"


def _with_second(
    root: Path, finals: list[Final], best: SubmissionLine, near: Sequence[SubmissionLine]
) -> tuple[list[Final], list[str]]:
    folder = root / "submissions" / best.task
    first, _ = read_record((folder / best.file).with_suffix(".json"))
    notes: list[str] = []
    measured: list[tuple[float, SubmissionLine, str]] = []
    for line in near:
        other, _ = read_record((folder / line.file).with_suffix(".json"))
        try:
            value, words = difference(folder, first, other)
        except PodiumError as error:
            notes.append(f"{line.file} is not considered as a final: {error}")
            continue
        measured.append((value, line, words.format(value)))
    if not measured:
        return finals, notes
    value, second, words = max(measured, key=lambda item: item[0])  # of equals the first, whose CV is better
    if value <= 0:
        return finals, [*notes, f"no second final: the files within one spread of {best.file} predict the same"]
    reason = f"of {len(measured)} within one spread ({best.cv_std:.5f}) of the best CV, the most different: {words}"
    return [*finals, Final(second.file, _cv(second), second.sent, reason)], notes


def _joined_cells(folder: Path, first: dict[str, Any], other: dict[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the cells of two files as (N, C), rows and columns in the order of the first."""
    paths = [folder / str(record["file"]) for record in (first, other)]
    if first.get("format") == "array":
        ours, theirs = (np.load(path, allow_pickle=False) for path in paths)
        if ours.shape != theirs.shape:
            raise MismatchError(f"{paths[1].name} has shape {theirs.shape}, {paths[0].name} {ours.shape}")
        return ours, theirs
    tables = [read_table(path) for path in paths]
    ids = [
        str(record.get("id_column") or table.columns[0]) for record, table in zip((first, other), tables, strict=True)
    ]
    if set(tables[0].columns) != set(tables[1].columns) or ids[0] != ids[1]:
        raise MismatchError(f"{paths[1].name} and {paths[0].name} have other columns")
    check_same_ids(tables[1][ids[0]], tables[0][ids[0]], f"{paths[1].name} against {paths[0].name}")
    left, right = (table.set_index(ids[0]) for table in tables)
    return left.to_numpy(), right.loc[left.index, left.columns].to_numpy()


def _mean_decorrelation(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Return 1 - correlation over rows, the mean over columns; a constant column correlates with an equal one only."""
    parts = []
    for mine, its in zip(ours.T, theirs.T, strict=True):
        mine, its = mine - mine.mean(), its - its.mean()
        scale = float(np.sqrt((mine @ mine) * (its @ its)))
        alike = 1.0 if np.allclose(mine, its, rtol=0, atol=1e-12) else 0.0
        parts.append(1 - (float(mine @ its) / scale if scale > 0 else alike))
    return max(0.0, float(np.mean(parts)))


def _is_able(line: SubmissionLine) -> bool:
    return line.is_intact and not line.is_partial and line.cv is not None and line.higher_is_better is not None


def _badness(line: SubmissionLine) -> float:
    return -_cv(line) if line.higher_is_better else _cv(line)


def _cv(line: SubmissionLine) -> float:
    assert line.cv is not None  # `_is_able` came before
    return line.cv
