"""Where items lie (files, table columns, one array), and the form in which they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed, nearest
from pipeline.data.readers import (
    Resize,
    convert_channels,
    load_array,
    read_image,
    reader_for,
    resize_image,
    storable,
)

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]
Report = Callable[[str], None]


@dataclass(frozen=True)
class FileItems:
    """One item per file."""

    paths: tuple[Path, ...]


@dataclass(frozen=True)
class PixelItems:
    """One item per row of a CSV or Parquet table, its values in columns."""

    table: Path
    columns: tuple[str, ...]
    shape: tuple[int, ...]
    """(H, W), (C, H, W), or (C, T) for signals."""


@dataclass(frozen=True)
class ArrayItems:
    """One item per entry of the first axis of an array."""

    path: Path
    key: str | None = None


ItemSource = FileItems | PixelItems | ArrayItems


@dataclass(frozen=True)
class StoredForm:
    """What an item becomes before it is stored."""

    input: Literal["image", "signal"]
    size: tuple[int, int] | None = None
    """(h, w) of images; without it, all must have one size."""
    channels: int | None = None
    """1, 3 or 4 of images; without it, those of the first readable item."""
    resize: Resize = "squash"


@dataclass(frozen=True)
class OpenItems:
    """A source that is ready to be read, item by item, from any thread."""

    n: int
    title: str
    read: Callable[[int], Array]
    name: Callable[[int], str]
    paths: tuple[Path, ...] = ()
    """Of files only: the file of each item."""


def open_items(source: ItemSource, report: Report, form: StoredForm | None = None) -> OpenItems:
    """Return a source ready to be read; tables and compressed arrays are loaded here, once.

    With `form`, what items become next, a large picture may be read at a smaller size: see `fit` of `read_image`.
    """
    if isinstance(source, FileItems):
        paths = source.paths
        title = f"decoding {len(paths):,} files"
        fit = None if form is None or form.size is None else (form.size, form.resize)

        def read(index: int) -> Array:
            reader = reader_for(paths[index])
            return read_image(paths[index], fit=fit) if reader is read_image else reader(paths[index])

        return OpenItems(len(paths), title, read, lambda i: str(paths[i]), paths)
    if isinstance(source, PixelItems):
        report(f"reading {source.table}")
        path, array = source.table, _read_pixels(source)
    else:
        path, array = source.path, load_array(source.path, source.key)
    if array.ndim < 2:
        raise DataError(f"{path}: expected an array whose first axis counts the items, found shape {array.shape}")
    title = f"storing {len(array):,} items of {path}"
    return OpenItems(len(array), title, lambda i: storable(array[i], str(path)), lambda i: f"{path}: item {i}")


def _read_pixels(source: PixelItems) -> Array:
    """Return the columns of a table as (N, *shape), in the smallest of uint8, uint16 and float32 that holds them."""
    import pandas as pd

    if len(source.columns) != np.prod(source.shape):
        raise DataError(f"{source.table}: {len(source.columns)} columns do not make items of shape {source.shape}")
    try:
        if source.table.suffix == ".parquet":
            return _narrow(pd.read_parquet(source.table), source).reshape(-1, *source.shape)
        # In parts, as 60,000 rows of 784 columns would take 400 MB as the integers that pandas reads.
        with pd.read_csv(source.table, chunksize=4096) as tables:
            parts = [_narrow(table, source) for table in tables]
    except (OSError, ValueError) as error:
        raise DataError(f"{source.table}: cannot be read as a table ({error})") from None
    return np.concatenate(parts).reshape(-1, *source.shape)


def _narrow(table: pd.DataFrame, source: PixelItems) -> Array:
    """Return the source's columns as (n, columns), uint8 or uint16 where all values are such, else float32."""
    missing = [name for name in source.columns if name not in table]
    if missing:
        raise DataError(f"{source.table}: no column {listed(missing)}.{nearest(missing[0], map(str, table.columns))}")
    chosen = table[list(source.columns)]
    if not len(chosen):
        return np.empty(chosen.shape, np.uint8)
    texts = [str(name) for name, dtype in chosen.dtypes.items() if dtype.kind not in "buif"]
    if texts:
        raise DataError(f"{source.table}: pixels must be numbers; these columns hold something else: {listed(texts)}")
    values = chosen.to_numpy()
    if values.dtype.kind in "bui" and values.min(initial=0) >= 0 and values.max(initial=0) <= 65535:
        return values.astype(np.uint8 if values.max(initial=0) <= 255 else np.uint16)
    return storable(values, str(source.table))


def formed(item: Array, form: StoredForm, name: str) -> Array:
    """Return an item in the form in which it is stored: (C, H, W) or (C, T)."""
    if form.input == "signal":
        item = item[None] if item.ndim == 1 else item[0] if item.ndim == 3 and len(item) == 1 else item
        if item.ndim != 2:
            raise DataError(f"{name}: expected a signal of (T,), (C, T) or (1, C, T), found shape {item.shape}")
        return item
    item = item[None] if item.ndim == 2 else item
    if item.ndim != 3:
        raise DataError(f"{name}: expected an image of (H, W), (C, H, W) or (H, W, C), found shape {item.shape}")
    if item.shape[0] not in (1, 3, 4) and item.shape[2] in (1, 3, 4):
        item = np.moveaxis(item, -1, 0)
    try:
        item = item if form.channels is None else convert_channels(item, form.channels)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return item if form.size is None else resize_image(item, form.size, form.resize)
