"""Pictures of a run, drawn without a display and written whole or not at all (PNG, or what the suffix says)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Mapping[str, Sequence[float]]

_DPI = 120
_MOST_NAMED_CLASSES = 40  # beyond it neither names nor counts can be read


def plot_history(path: Path, histories: Mapping[str, History], metric_name: str) -> None:
    """Draw the curves of all units in one picture: losses on the left, the metric on the right, a colour per unit.

    Training is dashed and thin, held-out solid. A column that no unit has leaves its curves out; NaN makes a gap.

    Args:
        path: of the picture.
        histories: per unit (`fold 0`) lists of one length with the keys `epoch` (from 1), `train_loss`,
            `heldout_loss` and the metric's name; any of them may be missing, and without `epoch` rows are
            counted.
        metric_name: key and label of the metric.
    """
    figure = new_figure(11, 4.2)
    losses, metric = figure.subplots(1, 2)
    for index, (unit, history) in enumerate(histories.items()):
        colour = colour_of(index)
        _draw_curve(losses, history, "train_loss", color=colour, linestyle="--", linewidth=1, alpha=0.7)
        _draw_curve(losses, history, "heldout_loss", color=colour, linewidth=1.8)
        _draw_curve(metric, history, metric_name, color=colour, linewidth=1.8, label=unit)
    _label(losses, "Loss (dashed: training, solid: held out)", "epoch", "loss")
    _label(metric, f"{metric_name} on held-out rows", "epoch", metric_name)
    if metric.lines:
        figure.legend(loc="outside right upper", frameon=False)
    save_figure(figure, path)


def plot_confusion(path: Path, matrix: NDArray[Any], names: Sequence[str]) -> None:
    """Draw a confusion matrix: colours are shares of the true class (each row sums to one), numbers are counts.

    Args:
        path: of the picture.
        matrix: (K, K) counts, rows true and columns predicted; a row of zeros stays empty.
        names: K class names.
    """
    counts = np.asarray(matrix)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = min(14.0, 3.5 + 0.45 * len(names))
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    if len(names) <= _MOST_NAMED_CLASSES:
        _write_counts(axes, counts, shares)
        axes.set_xticks(range(len(names)), [plain_text(name) for name in names], rotation=90)
        axes.set_yticks(range(len(names)), [plain_text(name) for name in names])
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set(title=f"{counts.sum():,} rows, {accuracy:.2%} on the diagonal", xlabel="predicted", ylabel="true")
    save_figure(figure, path)


def plot_samples(path: Path, images: NDArray[np.uint8], captions: Sequence[str]) -> None:
    """Draw images in a grid, each under its caption.

    Args:
        path: of the picture.
        images: (N, C, H, W) uint8; of C channels 1 is grey, 3 RGB, 4 RGBA, and of any other number the first is shown.
        captions: N short texts.
    """
    n_columns = max(1, math.ceil(math.sqrt(len(images) * 1.5)))
    n_rows = max(1, math.ceil(len(images) / n_columns))
    figure = new_figure(1.4 * n_columns, 1.6 * n_rows)
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, caption in zip(grid, images, captions, strict=False):
        seen = image.transpose(1, 2, 0) if len(image) in (3, 4) else image[0]
        axes.imshow(seen, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(plain_text(caption), fontsize=8)
    save_figure(figure, path)


def plot_sheet(path: Path, columns: Sequence[str], rows: Sequence[Sequence[tuple[NDArray[Any], str]]]) -> None:
    """Draw a grid of images or signals, each under its caption, with a heading over each column.

    Args:
        path: of the picture.
        columns: headings, one for each column.
        rows: tiles of an item and its caption; images (C, H, W) of 0..1, beyond which values are cut, drawn as in
            `plot_samples`; signals (C, T) of about -1..1, of which up to six channels are drawn.
    """
    figure = new_figure(1.15 * len(columns) + 0.3, 1.35 * len(rows) + 0.5)
    axes = figure.subplots()
    for top, tiles in enumerate(rows):
        for left, (item, caption) in enumerate(tiles):
            _draw_tile(axes, item, left, 1.2 * top)
            axes.text(left + 0.47, 1.2 * top + 0.13, plain_text(caption), ha="center", va="bottom", fontsize=6)
    for left, heading in enumerate(columns):
        axes.text(left + 0.47, -0.12, plain_text(heading), ha="center", va="bottom", fontsize=8, fontweight="bold")
    axes.set(xlim=(0, len(columns)), ylim=(1.2 * len(rows), -0.3))
    axes.set_axis_off()
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of its own (inches), outside pyplot: that would need a display and keep every figure alive."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all."""
    with atomic_path(path) as temp:
        figure.savefig(temp)


def _draw_tile(axes: Axes, item: NDArray[Any], left: float, top: float) -> None:
    """Draw an image or a signal into a cell of the sheet, below the place of its caption."""
    if item.ndim == 3:
        seen = np.clip(item.transpose(1, 2, 0) if len(item) in (3, 4) else item[0], 0, 1)
        box = (left, left + 0.94, top + 1.1, top + 0.16)
        axes.imshow(seen, extent=box, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        return
    picked = item[np.unique(np.linspace(0, len(item) - 1, 6).astype(int))]
    times = np.linspace(left, left + 0.94, item.shape[1])
    height = 0.94 / len(picked)
    for number, channel in enumerate(picked):
        middle = top + 0.16 + height * (number + 0.5)
        axes.plot(times, middle - np.clip(channel, -1, 1) * height / 2, linewidth=0.5, color=colour_of(number))


def _draw_curve(axes: Axes, history: History, key: str, **style: Any) -> None:
    """Draw one column over the epochs, if the history has it; a single point gets a marker, as it has no line."""
    if key not in history:
        return
    values = [math.nan if value is None else value for value in history[key]]
    epochs = history.get("epoch", range(1, len(values) + 1))
    axes.plot(epochs, values, marker="o" if len(values) == 1 else "", **style)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(plain_text(title), loc="left", fontsize=11)
    axes.set(xlabel=x, ylabel=plain_text(y))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _write_counts(axes: Axes, counts: NDArray[Any], shares: NDArray[np.float64]) -> None:
    size = 9 if len(counts) <= 15 else 6
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", color=colour, fontsize=size)


def colour_of(index: int) -> Any:
    """Return the colour of a unit: ten that are told apart easily, then again."""
    from matplotlib import colormaps

    return colormaps["tab10"](index % 10)


def plain_text(text: str) -> str:
    """Return the text with dollar signs escaped, which matplotlib would read as mathematics."""
    return str(text).replace("$", r"\$")
