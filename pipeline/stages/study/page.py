"""What is written of a study: tables as CSV and Markdown, pictures, and one page that holds them all."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import write_text
from pipeline.base.plots import plot_confusion
from pipeline.records.study import Study
from pipeline.stages.report.page import Picture, Section, Table, markdown_table, write_page
from pipeline.stages.report.pictures import Curve, draw_bars, draw_curves, draw_heat, draw_layers
from pipeline.stages.study.results import PointResult, StudyResult, confusion

LAYER_VALUES = {
    "std": ("Deviation of the activations, layer by layer", False),
    "mean": ("Mean of the activations, layer by layer", False),
    "zero_share": ("Share of activations that are zero, layer by layer", False),
    "gradient_norm": ("Norm of the gradient at the weights, layer by layer", True),
}


@dataclass(frozen=True)
class Origin:
    """How a study was made."""

    name: str
    command: str
    machine: str
    made: str
    """Date, versions, commit."""


def write_study(folder: Path, study: Study, result: StudyResult, origin: Origin) -> Path:
    """Write everything that is shown of a study into a folder and return the path of its page, `index.html`.

    Beside it `table.csv` and `table.md`, `curves.csv`, with layer statistics `layers.csv`, and the pictures.
    """
    table = study_table(study, result)
    title = f"Study {origin.name}"
    notes = _notes(result)
    how = f"Command: {origin.command}\n\n{origin.machine}\n\n{origin.made}"
    about = [study.about] if study.about else []
    parts = [title, *about, markdown_table(table).rstrip(), *notes, *how.split("\n\n")]
    write_text(folder / "table.md", "\n\n".join(parts) + "\n")
    write_text(folder / "table.csv", _csv(_table_lines(study, result)))
    write_text(folder / "curves.csv", _csv(_curve_lines(result)))
    layers = _layer_lines(result)
    if len(layers) > 1:
        write_text(folder / "layers.csv", _csv(layers))
    sections = [Section("Scores", [*about, table, *notes, *_scores(folder, study, result)])]
    curves = _curves(folder, study, result)
    sections += [Section("Learning curves", curves)] if curves else []
    inside = _layers(folder, result)
    sections += [Section("Inside the layers", inside)] if inside else []
    matrices = _confusions(folder, study, result)
    sections += [Section("Confusion", matrices)] if matrices else []
    sections.append(Section("How it was made", [how]))
    write_page(folder / "index.html", title, sections)
    return folder / "index.html"


def study_table(study: Study, result: StudyResult) -> Table:
    """Return the table of a study: a line for each point, with what applies to any of them."""
    points, name = result.points, result.metric.name
    columns: list[tuple[str, Any]] = [
        (f"{name}, mean", lambda point: _number(point.mean)),
        ("std over seeds", lambda point: _number(point.std)),
        ("seeds", lambda point: str(len(point.known))),
    ]
    if any(point.gain for point in points):
        columns += [
            ("against", lambda point: point.gain.over if point.gain else ""),
            ("difference", lambda point: _gain(point)),
            ("", lambda point: point.gain.verdict if point.gain else ""),
        ]
    if any(point.n_diverged for point in points):
        columns.append(("diverged", lambda point: f"{point.n_diverged} of {point.n_diverged + point.n_units}"))
    if any(point.heldout is not None for point in points):
        columns.append(("held-out folds", lambda point: _number(point.heldout)))
    if any(point.training is not None for point in points):
        columns.append(("training rows", lambda point: _number(point.training)))
    if study.reported:
        columns.append(("reported elsewhere", lambda point: _number(study.reported.get(point.label))))
    columns.append(("s per unit", lambda point: "" if point.seconds is None else f"{point.seconds:.1f}"))
    if study.reported_seconds:
        columns.append(("s reported", lambda point: f"{study.reported_seconds.get(point.label, 0) or '':}"))
    return Table(
        ["point", *(heading for heading, _ in columns)],
        [[point.label, *(str(cell(point)) for _, cell in columns)] for point in points],
    )


def _notes(result: StudyResult) -> list[str]:
    direction = "higher" if result.metric.higher_is_better else "lower"
    notes = [
        f"{result.metric.name} ({direction} is better), scored on {result.scored_on}. The spread is the standard"
        " deviation over seeds (n - 1); every point has the same seeds."
    ]
    if any(point.gain for point in result.points):
        notes.append(
            "Difference: in pairs of the same seed, positive is better, with half of the 95 % interval, for which seeds"
            " and scored rows count as drawn by chance. helps and hurts: the interval leaves out zero."
        )
    return notes


def _scores(folder: Path, study: Study, result: StudyResult) -> list[Picture]:
    bars = [(point.label, point.known, study.reported.get(point.label)) for point in result.points]
    draw_bars(folder / "bars.png", bars, result.metric.name, f"{result.metric.name}, {result.scored_on}")
    pictures = [Picture(folder / "bars.png", "mean, deviation and seeds of each point")]
    keys = list(result.points[0].axes)
    if len(keys) == 2:
        rows, columns = (list(dict.fromkeys(point.axes[key] for point in result.points)) for key in keys)
        values = np.full((len(rows), len(columns)), np.nan)
        for point in result.points:
            place = rows.index(point.axes[keys[0]]), columns.index(point.axes[keys[1]])
            values[place] = np.nan if point.mean is None else point.mean
        if np.isfinite(values).any():
            names = (keys[0], keys[1])
            draw_heat(folder / "heat.png", values, rows, columns, names, f"{result.metric.name}, mean over seeds")
            pictures.append(Picture(folder / "heat.png", f"{keys[0]} by {keys[1]}"))
    return pictures


def _curves(folder: Path, study: Study, result: StudyResult) -> list[str | Picture | Table]:
    name = result.metric.name
    quantities = {
        f"{name} on the held-out fold": name,
        f"{name} on the training rows": f"train_{name}",
        "training loss": "train_loss",
        "held-out loss": "heldout_loss",
    }
    panels = {title: _curves_of(result, key) for title, key in quantities.items()}
    panels = {title: curves for title, curves in panels.items() if curves}
    if not panels:
        return []
    draw_curves(folder / "curves.png", panels, study.moving_average)
    caption = "Lines: mean over the units (folds and seeds) of a point; bands: from the least to the most."
    return [Picture(folder / "curves.png", caption), caption]


def _curves_of(result: StudyResult, key: str) -> dict[str, Curve]:
    """Return the curves of each point that has the quantity; units that ended early have NaN behind their end."""
    found = {}
    for point in result.points:
        of_units = [history[key] for history in point.histories.values() if key in history]
        if not of_units:
            continue
        length = max(map(len, of_units))
        values = np.full((length, len(of_units)), np.nan)
        for number, column in enumerate(of_units):
            values[: len(column), number] = column
        found[point.label] = (np.arange(1, length + 1, dtype=np.float64), values)
    return found


def _layers(folder: Path, result: StudyResult) -> list[str | Picture | Table]:
    parts: list[str | Picture | Table] = []
    for key, (title, is_log) in LAYER_VALUES.items():
        points = {
            point.label: values
            for point in result.points
            if (values := _layer_values(point, key)) is not None and np.isfinite(values).any()
        }
        if points:
            path = folder / f"layers-{key.replace('_', '-')}.png"
            keys = list(result.points[0].axes)
            is_whole_grid = len(keys) == 2 and len(points) == len(result.points)
            n_columns = len({point.axes[keys[1]] for point in result.points}) if is_whole_grid else None
            draw_layers(path, points, title, is_log, n_columns if n_columns and n_columns <= 8 else None)
            parts.append(Picture(path, title))
    if parts:
        parts.append(
            "Mean over the units of a point. One line for each epoch: pale before training, dark after the last;"
            " layers count from the input on. Measured on the first 256 training rows, as the net predicts."
        )
    return parts


def _layer_values(point: PointResult, key: str) -> NDArray[np.float64] | None:
    """Return the mean over units of a quantity, (epochs, layers that have it); None where no unit was watched."""
    units = []
    for lines in point.layers.values():
        names = list(dict.fromkeys(line["layer"] for line in lines if line[key] is not None))
        epochs = sorted({line["epoch"] for line in lines})
        values = np.full((len(epochs), len(names)), np.nan)
        for line in lines:
            if line[key] is not None:
                values[epochs.index(line["epoch"]), names.index(line["layer"])] = line[key]
        units.append(values)
    if not units or not units[0].size:
        return None
    length = min(map(len, units))
    return np.asarray(np.mean([values[:length] for values in units], axis=0))


def _confusions(folder: Path, study: Study, result: StudyResult) -> list[str | Picture | Table]:
    best = result.best()
    chosen = {"off": [], "all": result.points, "best": [best] if best else []}[study.confusion]
    parts: list[str | Picture | Table] = []
    for number, point in enumerate(chosen):
        counts = confusion(result, point)
        if counts is not None:
            path = folder / ("confusion.png" if study.confusion == "best" else f"confusion-{number:02d}.png")
            plot_confusion(path, counts, result.rows.names)
            parts += [f"{point.label}, all seeds together", Picture(path, f"confusion matrix of {point.label}")]
    return parts


def _table_lines(study: Study, result: StudyResult) -> list[list[Any]]:
    keys = list(dict.fromkeys(key for point in result.points for key in point.axes))
    seeds = list(dict.fromkeys(seed for point in result.points for seed in point.scores))
    heads = [
        "mean",
        "std",
        "against",
        "difference",
        "half_width",
        "verdict",
        "heldout",
        "training",
        "seconds",
        "diverged",
        "reported",
    ]
    lines: list[list[Any]] = [["point", "run", *keys, *(f"seed{seed}" for seed in seeds), *heads]]
    for point in result.points:
        gain = point.gain
        lines.append(
            [
                point.label,
                point.run,
                *(point.axes.get(key) for key in keys),
                *(point.scores.get(seed) for seed in seeds),
                point.mean,
                point.std,
                *((gain.over, gain.value, gain.half_width, gain.verdict) if gain else (None,) * 4),
                point.heldout,
                point.training,
                point.seconds,
                point.n_diverged,
                study.reported.get(point.label),
            ]
        )
    return lines


def _curve_lines(result: StudyResult) -> list[list[Any]]:
    columns = list(
        dict.fromkeys(name for point in result.points for history in point.histories.values() for name in history)
    )
    lines: list[list[Any]] = [["point", "unit", *columns]]
    for point in result.points:
        for unit, history in point.histories.items():
            n_epochs = len(next(iter(history.values()), ()))
            lines += [
                [point.label, unit, *(_cell(history[name][row]) if name in history else None for name in columns)]
                for row in range(n_epochs)
            ]
    return lines


def _layer_lines(result: StudyResult) -> list[list[Any]]:
    heads = ["epoch", "layer", "mean", "std", "zero_share", "gradient_norm"]
    lines: list[list[Any]] = [["point", "unit", *heads]]
    for point in result.points:
        for unit, found in point.layers.items():
            lines += [[point.label, unit, *(line[head] for head in heads)] for line in found]
    return lines


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _cell(value: float) -> float | None:
    return None if np.isnan(value) else value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _gain(point: PointResult) -> str:
    if point.gain is None:
        return ""
    half = "" if point.gain.half_width is None else f" +- {point.gain.half_width:.4f}"
    return f"{point.gain.value:+.4f}{half}"
