"""A glance at some training items, for the choice of a first experiment: sizes, channels, what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import PodiumError
from pipeline.base.keyed import make_key, permutation
from pipeline.data.forms import StoredForm, formed, stored_form
from pipeline.data.sources import FileItems, open_items
from pipeline.data.tables import load_train
from pipeline.records.experiment import Input
from pipeline.records.rows import Rows
from pipeline.records.task import Task

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
    measured = _read(opened.read, form, opened.name, first[:N_MEASURED])
    found = [item for item in measured if item is not None]
    if not found:
        formed(opened.read(first[0]), form, opened.name(first[0]))  # says what is wrong with it
        raise PodiumError(f"{data}: none of {len(measured)} training items can be read")
    shapes = tuple(tuple(item.shape) for item in found)
    has_nan = any(item.dtype.kind == "f" and bool(np.isnan(item).any()) for item in found)
    pictures, labels = None, _labels(task, train.rows)[chosen]
    if task.input == "image":
        n_channels = max(shape[0] for shape in shapes)
        small = replace(form, size=(SIDE_PX, SIDE_PX), channels=n_channels if is_file else None, nan="zero")
        opened = open_items(train.source, say, small)
        seen = _read(opened.read, small, opened.name, first)
        kept = [place for place, item in enumerate(seen) if item is not None and len(item) == n_channels]
        pictures = np.stack([np.asarray(seen[place], dtype=np.float32) for place in kept])
        labels = labels[kept]
    return Glance(shapes, has_nan, is_file, pictures, labels)


def _read(
    read: Callable[[int], NDArray[Any]], form: StoredForm, name: Callable[[int], str], places: Iterable[int]
) -> list[NDArray[Any] | None]:
    """Return the items at some places, as they are stored; None for one that cannot be read."""

    def one(place: int) -> NDArray[Any] | None:
        try:
            return formed(read(place), form, name(place))
        except PodiumError:
            return None

    with ThreadPoolExecutor(_WORKERS) as executor:
        return list(executor.map(one, places))


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
