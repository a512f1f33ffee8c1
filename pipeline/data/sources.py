"""Where items lie (files, table columns, one array), and the form in which they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed, nearest
from pipeline.data.audio import read_log_mel, read_wave, sound_facts
from pipeline.data.dicom import read_dicom
from pipeline.data.forms import StoredForm, laid_out
from pipeline.data.number_tables import read_number_table
from pipeline.data.readers import Resize, load_array, read_image, reader_for, storable
from pipeline.records.suffixes import ARRAY_SUFFIXES

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
class OpenItems:
    """A source that is ready to be read, item by item, from any thread."""

    n: int
    title: str
    read: Callable[[int], Array]
    name: Callable[[int], str]
    paths: tuple[Path, ...] = ()
    """Of files only: the file of each item."""
    is_array: bool = False
    """Items lie in arrays, whose axes may stand in another order than they are taken for."""


def open_items(source: ItemSource, report: Report, form: StoredForm | None = None) -> OpenItems:
    """Return a source ready to be read; tables and compressed arrays are loaded here, once.

    With `form`, what items become next, they have their channels first, and a large picture may be read at a smaller
    size: see `fit` of `read_image`. Without it they are as they lie in their array or file.
    """
    if isinstance(source, FileItems):
        paths = source.paths
        title = f"decoding {len(paths):,} files"
        fit = None if form is None or form.size is None else (form.size, form.resize)
        is_array = bool(paths) and paths[0].suffix.lower() in ARRAY_SUFFIXES
        return OpenItems(
            len(paths), title, lambda i: _read_file(paths[i], form, fit), lambda i: str(paths[i]), paths, is_array
        )
    if isinstance(source, PixelItems):
        report(f"reading {source.table}")
        path, array = source.table, _read_pixels(source)
    else:
        path, array = source.path, load_array(source.path, source.key)
    if array.ndim < 2:
        raise DataError(f"{path}: expected an array whose first axis counts the items, found shape {array.shape}")

    def read(index: int) -> Array:
        item = storable(array[index], str(path))
        return item if form is None else laid_out(item, form)

    is_array = isinstance(source, ArrayItems)
    title = f"storing {len(array):,} items of {path}"
    return OpenItems(len(array), title, read, lambda i: f"{path}: item {i}", is_array=is_array)


def _read_file(path: Path, form: StoredForm | None, fit: tuple[tuple[int, int], Resize] | None) -> Array:
    """Return the item of a file, channels first; readers that a task can steer get what it says."""
    reader = reader_for(path)
    if reader is read_image:
        return read_image(path, fit=fit)
    form = form or StoredForm("image")
    if reader is read_dicom:
        return read_dicom(path, form.dicom)
    if reader is read_wave:
        return _read_sound(path, form)
    if reader is read_number_table:
        rows = read_number_table(path, form.columns)
        return rows.T if form.input == "signal" else rows
    return laid_out(reader(path), form)


def _read_sound(path: Path, form: StoredForm) -> Array:
    """Return sound as a picture (1, n_mels, T), or as a wave (C, T)."""
    if form.input == "signal" and form.sample_rate_hz is not None:
        return read_wave(path, form.sample_rate_hz)
    if form.input == "image" and form.audio is not None:
        return read_log_mel(path, form.audio)
    facts = sound_facts(path)
    found = f"{path}: is sound of {facts.seconds:.3g} s at {facts.sample_rate_hz:g} Hz"
    if form.input == "signal":
        raise DataError(f"{found}; state sample_rate_hz: in the task, to which all files are brought")
    advice = f"audio: {{sample_rate_hz: {facts.sample_rate_hz:g}, seconds: {facts.seconds:.3g}}}"
    raise DataError(f"{found}; state in the task how it becomes a picture, such as {advice}")


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
