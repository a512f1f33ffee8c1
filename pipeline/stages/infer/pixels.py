"""Items that lie in the columns of a table: which columns, and as what shape."""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.stages.infer.columns import PixelColumns

MIN_COLUMNS = 36
"""Fewer numbered columns are measurements or labels, not an item."""
_NUMBERED = re.compile(r"(.*?)(\d+)(?:x(\d+))?$")

Values = NDArray[np.float32]


def numbered_columns(header: Sequence[str]) -> PixelColumns | None:
    """Return the columns of a header that are numbered alike (`pixel0`, ...; `1x1`, ...), if they are many."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in header:
        found = _NUMBERED.fullmatch(name)
        if found is not None:
            groups[found.group(1)].append(name)
    prefix, names = max(groups.items(), key=lambda group: len(group[1]), default=("", []))
    if len(names) < MIN_COLUMNS:
        return None
    escaped = re.sub(r"([*?\[])", r"[\1]", prefix)
    for pattern in (f"{escaped}*", f"{escaped}[0-9]*") if prefix else ("[0-9]*",):
        if [name for name in header if fnmatch.fnmatchcase(name, pattern)] == names:
            return PixelColumns(tuple(names), pattern)
    return None


def read_pixels(path: Path, pixels: PixelColumns, n_rows: int | None = None) -> NDArray[Any]:
    """Return the pixel columns of a table, (N, columns), in the smallest of uint8, uint16 and float32.

    Args:
        path: a CSV or Parquet table.
        pixels: which columns.
        n_rows: only so many rows from the first.
    """
    import pandas as pd

    names = list(pixels.names)
    if path.suffix == ".parquet":
        table = pd.read_parquet(path, columns=names).head(n_rows) if n_rows else pd.read_parquet(path, columns=names)
    else:
        table = pd.read_csv(path, usecols=names, nrows=n_rows)[names]
    values = table.to_numpy()
    is_whole = values.dtype.kind in "iu" and values.min(initial=0) >= 0 and values.max(initial=0) <= 65535
    kind = np.float32 if not is_whole else np.uint8 if values.max(initial=0) <= 255 else np.uint16
    return values.astype(kind)


def item_shape(values: Values) -> tuple[tuple[int, ...], bool, str]:
    """Return the shape of flat items, whether colours lie innermost (so that it is (H, W, 3)), and why.

    A square number of values is a picture, unless they are real and likeness falls with distance as in a signal. Whole
    numbers that are three or four times a square are colour, in the order in which neighbours are more alike. All else
    is a signal, (1, T).

    Args:
        values: (N, length), some rows.
    """
    length = values.shape[1]
    side, is_whole = isqrt(length), bool((values % 1 == 0).all() and values.min(initial=0) >= 0)
    if side * side == length and (is_whole or not _is_smooth_in_time(values, side)):
        return (side, side), False, f"{length} = {side} x {side}"
    for channels in (3, 4):
        side = isqrt(length // channels)
        if side * side * channels == length and (is_whole or values.min(initial=0) >= 0):
            is_last = _alike(values, channels) > _alike(values, 1)
            shape = (side, side, channels) if is_last else (channels, side, side)
            return shape, is_last, f"{length} = {channels} x {side} x {side}"
    return (1, length), False, f"{length} values in a row"


def _is_smooth_in_time(values: Values, side: int) -> bool:
    """Say whether neighbours are alike, and values a row of a picture apart no more so than half a row apart."""
    near, half, whole = (_alike(values, distance) for distance in (1, max(1, side // 2), side))
    return near > 0.5 and (whole < 0.5 * near or whole <= half)


def _alike(values: Values, distance: int) -> float:
    """Return the correlation of values that lie so far apart in their row, each row less its mean."""
    level = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
    first, second = level[:, :-distance].ravel(), level[:, distance:].ravel()
    spread = float(first.std() * second.std())
    return float((first * second).mean() / spread) if spread else 0.0
