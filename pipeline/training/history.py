"""`history.csv`: one row for each finished epoch of a unit; an interruption changes nothing in it but times."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.base.files import write_text

HistoryRow = Mapping[str, float | int | None]


def write_history(path: Path, rows: Sequence[HistoryRow]) -> None:
    """Write rows of the same keys as CSV; None becomes an empty cell, and numbers keep all their digits."""
    if rows:
        lines = [",".join(rows[0])]
        lines += [",".join("" if value is None else repr(value) for value in row.values()) for row in rows]
        write_text(path, "\n".join(lines) + "\n")


def read_history(path: Path) -> dict[str, list[float]]:
    """Return the columns of a `history.csv`; empty cells are NaN."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return {name: [float(line[name] or "nan") for line in lines] for name in lines[0]} if lines else {}
