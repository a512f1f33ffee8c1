"""What an item becomes before it is stored: its axes in order, no values missing, one size or length."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed
from pipeline.data import preprocessing
from pipeline.data.preprocessing import apply_steps, refuse_steps
from pipeline.data.readers import Resize, convert_channels, resize_image, version_of
from pipeline.records.decoding import Audio, Dicom
from pipeline.records.experiment import Input
from pipeline.records.record import Record
from pipeline.records.signal_steps import SignalSteps
from pipeline.records.task import Task

Array = NDArray[Any]
Layout = Literal["channels_first", "channels_last"]
Align = Literal["start", "middle", "end"]
Nan = Literal["error", "channel_mean", "zero"]


@dataclass(frozen=True)
class StoredForm:
    """What an item becomes before it is stored."""

    input: Literal["image", "signal"]
    size: tuple[int, int] | None = None
    """(h, w) of images; without it, all must have one size."""
    channels: int | None = None
    """1, 3 or 4 of images; without it, those of the first readable item."""
    resize: Resize = "squash"
    layout: Layout | None = None
    """Axes of items in arrays; without it (C, ...), or 1, 3 or 4 channels at the end of an image."""
    columns: tuple[str, ...] = ()
    """Channels of signals in one table each; without it all of its columns."""
    nan: Nan = "error"
    """What becomes of missing values; `error` leaves them for the store to count."""
    length: int | None = None
    """Samples of signals; without it, all must have one length."""
    align: Align = "start"
    dicom: Dicom | None = None
    """Of images in DICOM files; None for the defaults."""
    audio: Audio | None = None
    """Of images that are sound files."""
    sample_rate_hz: float | None = None
    """Of signals."""
    steps: SignalSteps | None = None
    """What is done to signals first; None for nothing."""

    def plain(self) -> dict[str, Any]:
        """Return what is not at its default, as JSON knows it: a new kind of form leaves the keys of others alone."""
        chosen = {each.name: getattr(self, each.name) for each in fields(self)}
        defaults = {each.name: each.default for each in fields(self)}
        kept = {
            name: value.plain() if isinstance(value, Record) else value
            for name, value in chosen.items()
            if value != defaults[name]
        }
        if self.steps is not None:
            kept["steps_by"] = [preprocessing.VERSION, *map(version_of, preprocessing.PACKAGES)]
        return kept


def stored_form(task: Task, inputs: Input, channels: int | None) -> StoredForm:
    """Return how the items of a task are stored.

    Args:
        task: what the files hold.
        inputs: what the model gets to see of them.
        channels: of images: 1, 3 or 4, or None for those of the first item.

    Raises:
        ConfigError: a step asks of the signals what their rate cannot give.
    """
    is_image = task.input == "image"
    steps = None if is_image else inputs.steps
    if steps is not None:
        refuse_steps(steps, task.sample_rate_hz)
    return StoredForm(
        task.input,
        size=inputs.size,
        channels=channels if is_image else None,
        resize=inputs.resize,
        layout=task.layout,
        columns=task.channels,
        nan=inputs.nan,
        length=inputs.length,
        align=inputs.align,
        dicom=task.dicom if task.dicom != Dicom() else None,
        audio=task.audio,
        sample_rate_hz=None if is_image else task.sample_rate_hz,
        steps=steps,
    )


def stored_rate(task: Task, inputs: Input) -> float | None:
    """Return the samples per second of the signals that are stored; None where the task does not say."""
    return inputs.resample_hz or task.sample_rate_hz


def laid_out(item: Array, form: StoredForm) -> Array:
    """Return an item of an array with its channels first, where the form says that they are last.

    Signals of three axes lose the first one that has length one, so (1, T, C), (T, C, 1) and (T, C) are alike, as are
    (1, C, T), (C, 1, T) and (C, T). A single row of values is one channel whatever the form says.
    """
    if form.input == "signal" and item.ndim == 3 and 1 in item.shape:
        item = item.squeeze(item.shape.index(1))
    n_axes = 2 if form.input == "signal" else 3
    is_last = form.layout == "channels_last" and item.ndim == n_axes
    return np.moveaxis(item, -1, 0) if is_last and not (n_axes == 2 and len(item) == 1) else item


def formed(item: Array, form: StoredForm, name: str) -> Array:
    """Return an item, its channels first as `laid_out` leaves it, in the form in which it is stored.

    Args:
        item: of any size and length.
        form: what it becomes: (C, H, W) or (C, T).
        name: of the item, for messages.

    Raises:
        DataError: it has other axes, its channels cannot be converted, or a channel to fill has no value at all.
        ConfigError: a step does not fit a signal of this length.
    """
    item = _signal(item, name) if form.input == "signal" else _image(item, form, name)
    item = fill_nan(item, form.nan, name) if form.nan != "error" else item
    if form.input == "signal":
        if form.steps is not None:
            item = apply_steps(item, form.steps, form.sample_rate_hz or 1.0, name)
        return item if form.length is None else cut_or_pad(item, form.length, form.align)
    try:
        item = item if form.channels is None else convert_channels(item, form.channels)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return item if form.size is None else resize_image(item, form.size, form.resize)


def fill_nan(item: Array, how: Nan, name: str) -> Array:
    """Return an item without NaN; infinite values stay, which no store takes.

    Args:
        item: (C, ...); left untouched.
        how: `zero`, or `channel_mean` of the finite values of the same channel of this item.
        name: of the item, for messages.

    Raises:
        DataError: a channel has no finite value to take the mean of.
    """
    missing = np.isnan(item) if item.dtype.kind == "f" else np.zeros(0, bool)
    if how == "error" or not missing.any():
        return item
    filled = np.where(missing, 0, item)
    if how == "channel_mean":
        axes = tuple(range(1, item.ndim))
        counts = np.isfinite(item).sum(axis=axes)
        if empty := np.flatnonzero(counts == 0).tolist():
            raise DataError(
                f"{name}: channel {listed(empty, 5)} has no values to take a mean of; take input.nan: zero, or leave"
                " the item out"
            )
        finite_sum = np.where(np.isfinite(item), item, 0).sum(axis=axes, dtype=np.float64)
        means = (finite_sum / counts).astype(item.dtype).reshape(-1, *[1] * len(axes))
        filled = np.where(missing, means, item)
    return filled


def cut_or_pad(signal: Array, length: int, align: Align) -> Array:
    """Return a signal of `length` samples: cut where it is longer, followed or led by zeros where it is shorter.

    Args:
        signal: (C, T); left untouched.
        length: wanted T, >= 1.
        align: `start` cuts and pads behind, `end` in front, `middle` on both sides, the odd sample behind.
    """
    excess = signal.shape[1] - length
    share = {"start": 0, "middle": abs(excess) // 2, "end": abs(excess)}[align]
    if excess >= 0:
        return signal[:, share : share + length]
    padded = np.zeros((signal.shape[0], length), signal.dtype)
    padded[:, share : share + signal.shape[1]] = signal
    return padded


def likely_layout(shapes: list[tuple[int, ...]]) -> tuple[Layout | None, bool]:
    """Return which axis of signals is likely that of channels, and whether it is certain.

    Certain where items differ in one axis only, which must be time. Likely where one axis is at least twice as long as
    the other: recordings have more samples than channels. Else nothing is known.

    Args:
        shapes: of some items, as they lie in their files; axes of length one in items of three are dropped.
    """
    pairs = [shape if len(shape) != 3 or 1 not in shape else _without_one(shape) for shape in shapes]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        return None, False
    n_rows, n_columns = ({pair[axis] for pair in pairs} for axis in (0, 1))
    if (len(n_rows) > 1) != (len(n_columns) > 1):
        return ("channels_last" if len(n_rows) > 1 else "channels_first"), True
    if len(n_rows) > 1:
        return None, False
    rows, columns = pairs[0]
    if max(rows, columns) < 2 * min(rows, columns):
        return None, False
    return ("channels_first" if columns > rows else "channels_last"), False


def _without_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    place = shape.index(1)
    return shape[:place] + shape[place + 1 :]


def _signal(item: Array, name: str) -> Array:
    item = item[None] if item.ndim == 1 else item
    if item.ndim == 3 and 1 in item.shape:
        item = item.squeeze(item.shape.index(1))
    if item.ndim != 2:
        raise DataError(f"{name}: expected a signal of (T,), (C, T) or (1, C, T), found shape {item.shape}")
    return item


def _image(item: Array, form: StoredForm, name: str) -> Array:
    item = item[None] if item.ndim == 2 else item
    if item.ndim != 3:
        raise DataError(f"{name}: expected an image of (H, W), (C, H, W) or (H, W, C), found shape {item.shape}")
    if form.layout is None and item.shape[0] not in (1, 3, 4) and item.shape[2] in (1, 3, 4):
        return np.moveaxis(item, -1, 0)
    return item
