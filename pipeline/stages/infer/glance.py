"""A glance at some training items, for the choice of a first experiment: sizes, channels, what is missing, what
signals are like."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import PodiumError
from pipeline.base.keyed import make_key, permutation
from pipeline.data.forms import StoredForm, formed, stored_form
from pipeline.data.sources import FileItems, OpenItems, open_items
from pipeline.data.tables import load_train
from pipeline.records.experiment import Input
from pipeline.records.rows import Rows
from pipeline.records.task import Task
from pipeline.stages.infer.signal_facts import SignalFacts, SignalMeasure, measure_signal, signal_facts

T = TypeVar("T")

N_MEASURED = 200
"""Rows whose first item is opened at its full size."""
N_SEEN = 1_200
"""Rows whose first item is seen as a small picture."""
SIDE_PX = 24
"""Of the small pictures."""
_WORKERS = 4


@dataclass(frozen=True, eq=False)
class Glance:
    """What some training items look like."""

    shapes: tuple[tuple[int, ...], ...]
    """(C, H, W) or (C, T) of each measured item, as it lies in its file."""
    has_nan: bool
    is_file: bool
    """Whether items are files, which may differ in their channels."""
    pictures: NDArray[np.float32] | None
    """(N, C, 24, 24) in stored units; None of signals."""
    labels: NDArray[np.float32]
    """(N, L) what is known of each: one-hot, shares, labels, or values from 0 to 1 beside what they lack to it."""
    signals: SignalFacts | None = None
    """What was measured on signals; None of pictures."""

    @property
    def n_channels(self) -> int:
        """Return the channels that lose nothing: the most that an item has."""
        return max(shape[0] for shape in self.shapes)

    @property
    def has_one_shape(self) -> bool:
        """Say whether all measured items have one shape."""
        return len(set(self.shapes)) == 1

    def median(self, axis: int) -> int:
        """Return the median length of an axis."""
        return int(np.median([shape[axis] for shape in self.shapes]))


def glance(task: Task, data: Path, say: Callable[[str], None]) -> Glance:
    """Open some training items, chosen by chance but always the same; those that cannot be read are passed over.

    Raises:
        PodiumError: the rows cannot be read, or no item can.
    """
    train = load_train(task, data)
    is_file = isinstance(train.source, FileItems)
    chosen = permutation(make_key("glance"), len(train.rows))[:N_SEEN]
    first = [train.rows.items[row][0] for row in chosen]
    form = stored_form(task, Input(), None)
    opened = open_items(train.source, say, form)
    # Only what is measured is kept: two hundred photographs at their full size are gigabytes.
    rate_hz = task.sample_rate_hz

    def look(item: NDArray[Any]) -> _Measured:
        signal = measure_signal(item, rate_hz) if task.input == "signal" and item.size else None
        return _Measured(tuple(item.shape), _has_nan(item), signal)

    measured = _each(opened, form, first[:N_MEASURED], look)
    found = [each for each in measured if each is not None]
    if not found:
        formed(opened.read(first[0]), form, opened.name(first[0]))  # says what is wrong with it
        raise PodiumError(f"{data}: none of {len(measured)} training items can be read")
    shapes, has_nan = tuple(each.shape for each in found), any(each.has_nan for each in found)
    pictures, labels = None, _labels(task, train.rows)[chosen]
    places = [place for place, each in enumerate(measured) if each is not None and each.signal is not None]
    waves = [each.signal for each in found if each.signal is not None]
    signals = signal_facts(waves, labels[places], rate_hz)
    if task.input == "image":
        n_channels = max(shape[0] for shape in shapes)
        channels = n_channels if is_file and n_channels in (1, 3, 4) else None
        small = replace(form, size=(SIDE_PX, SIDE_PX), channels=channels, nan="zero")
        opened = open_items(train.source, say, small)
        seen = _each(opened, small, first, lambda item: np.asarray(item, dtype=np.float32))
        kept = [place for place, item in enumerate(seen) if item is not None and len(item) == n_channels]
        pictures = np.array([seen[place] for place in kept], dtype=np.float32)
        labels = labels[kept]
    return Glance(shapes, has_nan, is_file, pictures, labels, signals)


@dataclass(frozen=True)
class _Measured:
    """What is kept of one item."""

    shape: tuple[int, ...]
    has_nan: bool
    signal: SignalMeasure | None


def _each(
    opened: OpenItems, form: StoredForm, places: Iterable[int], look: Callable[[NDArray[Any]], T]
) -> list[T | None]:
    """Return what is seen of the items at some places, as they are stored; None for one that cannot be read."""

    def one(place: int) -> T | None:
        try:
            return look(formed(opened.read(place), form, opened.name(place)))
        except PodiumError:
            return None

    with ThreadPoolExecutor(_WORKERS) as executor:
        return list(executor.map(one, places))


def _has_nan(item: NDArray[Any]) -> bool:
    return item.dtype.kind == "f" and bool(np.isnan(item).any())


def _labels(task: Task, rows: Rows) -> NDArray[np.float32]:
    """Return what is known of each row as shares, (N, L)."""
    targets = np.asarray(rows.targets)
    if task.kind == "regression":
        columns = targets.reshape(len(rows), -1).astype(np.float64)
        ranks = columns.argsort(axis=0).argsort(axis=0) / max(1, len(rows) - 1)
        return np.concatenate([ranks, 1 - ranks], axis=1).astype(np.float32)
    if targets.ndim == 2:
        return targets.astype(np.float32)
    return np.eye(len(rows.names), dtype=np.float32)[targets.astype(np.int64)]
