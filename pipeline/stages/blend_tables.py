"""What `podium ensemble` prints: members, scores side by side, and the correlation of errors, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.base.files import read_json
from pipeline.blending.methods import MEANS
from pipeline.records.runs import Run

Table = tuple[str, list[str], list[list[object]]]
"""Title, columns and rows, as `print_table` takes them."""

_MOST_CORRELATED = 12
"""Members of a printed matrix; a larger one stands in `blend.json` alone."""


def blend_tables(made: Run, cv: Mapping[str, Any]) -> list[Table]:
    """Return the tables of a blend, from its folder and its scores as `cv.json` holds them."""
    path = made.folder / "blend.json"
    matrix = read_json(path)["correlation"] if path.is_file() else None
    tables = [_members(made, cv)]
    if cv["scores"]:
        tables.append(_scores(cv))
    if matrix is not None and len(matrix["members"]) <= _MOST_CORRELATED:
        tables.append(_correlation(matrix))
    return tables


def blend_lines(made: Run, cv: Mapping[str, Any]) -> list[str]:
    """Return what is said below the tables: that weights were kept (else a note has said so), and where the rest is."""
    method, lines = made.record["blend"]["method"], []
    if cv["is_kept"] and method not in MEANS:
        gain = f"nested gain over the uniform mean {cv['gain']:.2g}, standard error {cv['gain_se']:.2g}"
        lines.append(f"{method} is kept: {gain}")
    if cv["scores"]:
        lines.append(f"weights of each fold, correlations and the rest: {made.folder / 'blend.json'}")
    return lines


def _members(made: Run, cv: Mapping[str, Any]) -> Table:
    blended = made.record["blend"]
    rows: list[list[object]] = [
        [member["run"], member["pooled"], member["weight"], member["loss_without"], member["partial"] or ""]
        for member in cv["members"]
    ]
    rows.append([made.name, cv["pooled"], None, None, " + ".join([blended["method"], *blended["adjust"]])])
    return f"blend {made.folder}", ["run", f"pooled OOF {cv['metric']}", "weight", "lost without it", ""], rows


def _scores(cv: Mapping[str, Any]) -> Table:
    rows: list[list[object]] = [[entry["name"], entry["score"], entry["low"], entry["high"]] for entry in cv["scores"]]
    direction = "higher" if cv["higher_is_better"] else "lower"
    return f"{cv['metric']} on OOF ({direction} is better)", ["", cv["metric"], "95 % from", "to"], rows


def _correlation(matrix: Mapping[str, Any]) -> Table:
    names = matrix["members"]
    rows: list[list[object]] = [
        [name, *[None if value is None else round(value, 3) for value in line]]
        for name, line in zip(names, matrix["matrix"], strict=True)
    ]
    return f"correlation of the members' {matrix['of']}", ["", *names], rows
