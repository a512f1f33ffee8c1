"""Pictures of a study: bars, learning curves, a heat map of a grid, and what happens inside the layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.plots import colour_of, new_figure, plain_text, save_figure

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Epochs (E,) and values (E, U), one column for each unit."""


def moving_average(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the mean over each value and up to `width - 1` before it, along the first axis; NaN counts in no mean."""
    means = np.full(values.shape, math.nan)
    for end in range(len(values)):
        part = values[max(0, end + 1 - width) : end + 1]
        known = np.isfinite(part)
        counts = known.sum(axis=0)
        sums = np.where(known, part, 0.0).sum(axis=0)
        means[end] = np.divide(sums, counts, out=np.full(sums.shape, math.nan), where=counts > 0)
    return means


def draw_bars(path: Path, bars: Sequence[tuple[str, Sequence[float], float | None]], label: str, title: str) -> None:
    """Draw a bar for each mean, with its number; dots are seeds, whiskers their deviation.

    The axis begins where the smallest value is still seen, but for values so far off that nothing would be told of the
    others: see `shown_range`. Of these only the number tells, and an arrow which way they lie.

    Args:
        path: of the picture.
        bars: (name, one value per seed, a figure reported elsewhere or None), from top to bottom.
        label: of the values.
        title: of the picture.
    """
    figure = new_figure(8.5, 1.5 + 0.32 * len(bars))
    axes = figure.subplots()
    known = [value for _, values, _ in bars for value in values]
    low, high = shown_range(known + [reported for _, _, reported in bars if reported is not None])
    for place, (_, values, reported) in enumerate(bars):
        if values:
            mean, spread = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            axes.barh(place, mean, xerr=spread, height=0.6, color=colour_of(0), alpha=0.6, capsize=3)
            axes.plot(values, [place] * len(values), "o", markersize=3, color="black")
            arrow = "\N{LEFTWARDS ARROW} " if mean < low else "\N{RIGHTWARDS ARROW} " if mean > high else ""
            right = axes.get_yaxis_transform()  # axes across, bars down
            axes.text(1.01, place, f"{arrow}{mean:.4g}", transform=right, va="center", fontsize=9)
        if reported is not None:
            axes.plot([reported], [place], "D", markersize=6, color=colour_of(3), label="reported elsewhere")
    axes.set_xlim(low, high)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles[:1], labels[:1], loc="outside lower right", frameon=False)
    axes.set_yticks(range(len(bars)), [plain_text(name) for name, _, _ in bars])
    axes.invert_yaxis()
    axes.set_title(plain_text(title), loc="left", fontsize=11)
    axes.set_xlabel(plain_text(label))
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def shown_range(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis that shows values with a margin; 0 to 1 for none.

    Left out are values that lie further from the quartiles than ten times their distance, if they are few: at most a
    quarter on one side.
    """
    if not values:
        return 0.0, 1.0
    first, third = np.quantile(values, [0.25, 0.75])
    reach = 10 * (third - first)
    near = [value for value in values if first - reach <= value <= third + reach]
    low, high = min(near), max(near)
    margin = 0.1 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin


def draw_curves(path: Path, panels: Mapping[str, Mapping[str, Curve]], width: int = 1) -> None:
    """Draw a panel for each quantity with a line for each point: the mean over its units, and from least to most.

    Args:
        path: of the picture.
        panels: by title, then by point.
        width: epochs of the moving average; 1 for none.
    """
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    n_rows = math.ceil(len(panels) / 2)
    figure = new_figure(12.5, 1 + 3.6 * n_rows + 0.1 * len(names) * (len(names) > 12))
    grid = figure.subplots(n_rows, min(2, len(panels)), squeeze=False).ravel()
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        for name, (epochs, values) in curves.items():
            number = names.index(name)
            means = moving_average(values, width)
            style: Any = {"color": colour_of(number), "linestyle": ("-", "--", ":", "-.")[number // 10 % 4]}
            known = np.isfinite(means).any(axis=1)
            if not known.any():
                continue
            axes.plot(epochs[known], np.nanmean(means[known], axis=1), linewidth=1.5, label=plain_text(name), **style)
            if means.shape[1] > 1:
                low, high = np.nanmin(means[known], axis=1), np.nanmax(means[known], axis=1)
                axes.fill_between(epochs[known], low, high, color=colour_of(number), alpha=0.12, linewidth=0)
        averaged = f", moving average of {width}" if width > 1 else ""
        axes.set_title(plain_text(title + averaged), loc="left", fontsize=11)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))), frameon=False)
    save_figure(figure, path)


def draw_heat(
    path: Path,
    values: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    names: tuple[str, str],
    title: str,
) -> None:
    """Draw a map of the means over a grid of two keys, each with its number; a cell without a value stays empty.

    Args:
        path: of the picture.
        values: (R, C), NaN where there is none.
        rows: R names.
        columns: C names.
        names: of the two keys.
        title: of the picture.
    """
    figure = new_figure(2.2 + 1.05 * len(columns), 1.8 + 0.55 * len(rows))
    axes = figure.subplots()
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    figure.colorbar(image, ax=axes, shrink=0.9)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    for row, column in np.argwhere(np.isfinite(values)):
        value = float(values[row, column])
        is_dark = high == low or (value - low) / (high - low) < 0.6
        axes.text(column, row, f"{value:.4g}", ha="center", va="center", color="white" if is_dark else "black")
    axes.set_xticks(range(len(columns)), [plain_text(name) for name in columns], rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), [plain_text(name) for name in rows])
    axes.set(xlabel=plain_text(names[1]), ylabel=plain_text(names[0]))
    axes.set_title(plain_text(title), loc="left", fontsize=11)
    save_figure(figure, path)


def draw_layers(
    path: Path, points: Mapping[str, NDArray[np.float64]], title: str, is_log: bool, n_columns: int | None = None
) -> None:
    """Draw a small panel for each point: the value in each layer from the input on, a line for each epoch.

    Args:
        path: of the picture.
        points: by name (E, L), a row for each epoch from before training (pale) to the last (dark).
        title: of the picture.
        is_log: whether the values stand on a logarithmic scale, where zeros are left out.
        n_columns: panels side by side; by default as many as make the picture about square.
    """
    from matplotlib import colormaps

    n_columns = n_columns or min(6, max(1, math.ceil(math.sqrt(len(points)))))
    n_rows = math.ceil(len(points) / n_columns)
    figure = new_figure(2.3 * n_columns, 0.6 + 1.9 * n_rows)
    figure.suptitle(plain_text(title), x=0.01, ha="left", fontsize=11)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    for axes, (name, values) in zip(grid, points.items(), strict=False):
        for epoch, of_epoch in enumerate(values):
            shown = np.where(of_epoch > 0, of_epoch, math.nan) if is_log else of_epoch
            colour = colormaps["viridis_r"](0.1 + 0.9 * epoch / max(1, len(values) - 1))
            axes.plot(range(1, len(shown) + 1), shown, marker="o", markersize=2.5, linewidth=1, color=colour)
        if is_log and (values > 0).any():
            axes.set_yscale("log")
        axes.set_title(plain_text(name), fontsize=8, loc="left")
        axes.set_xticks(range(1, values.shape[1] + 1))
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    for axes in grid[len(points) :]:
        axes.set_axis_off()
    save_figure(figure, path)
