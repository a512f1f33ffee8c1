"""The rows and decoded items of a task as an experiment wants them, each opened when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed
from pipeline.base.progress import DisplayKind, count_progress
from pipeline.data.batches import Items, JoinedItems
from pipeline.data.channel_faults import describe_silent
from pipeline.data.forms import stored_form
from pipeline.data.sources import FileItems
from pipeline.data.store import Store, UnreadableError, open_store
from pipeline.data.tables import RowSet, load_test, load_train
from pipeline.records.experiment import Input
from pipeline.records.rows import Rows, joined_rows
from pipeline.records.task import Source, Task

Say = Callable[[str], None]


class Dataset:
    """The rows and stores of a task as an experiment wants them, opened when first needed."""

    def __init__(
        self,
        task: Task,
        inputs: Input,
        data: Path,
        cache: Path,
        workers: int,
        say: Say,
        show: DisplayKind = "auto",
        verify: bool = False,
    ) -> None:
        """Read the labelled rows.

        Args:
            task: what the rows are.
            inputs: what the model gets to see of an item.
            data: the host's folder.
            cache: where decoded items are kept.
            workers: threads that decode.
            say: gets messages.
            show: how the progress of decoding is shown.
            verify: check decoded items against their checksum before they are used.
        """
        self._task, self._inputs, self._data, self._cache = task, inputs, data, cache
        self._workers, self._say, self._show, self._verify = workers, say, show, verify
        self.train = _canonical(load_train(task, data))
        self._train_items: Items | None = None
        self._others: dict[tuple[str, str], tuple[Rows, Items]] = {}

    def train_items(self, device: str) -> Items:
        """Return the items of the labelled rows."""
        if self._train_items is None:
            self._train_items = Items(self.train_array(), device)
        return self._train_items

    def train_array(self) -> NDArray[Any]:
        """Return the items of the labelled rows as they are stored, read-only: (N, C, H, W) or (N, C, T)."""
        return self._open(self.train, self._inputs.channels).array

    def other(self, source: Source | None, device: str) -> tuple[Rows, Items]:
        """Return rows and items of the test set, or of another source, in the form that training has."""
        key = repr(source), device
        if key in self._others:
            return self._others[key]
        train_shape = self.train_items(device).shape
        rows, array = self.other_array(source, train_shape)
        self._others[key] = rows, Items(array, device)
        return self._others[key]

    def unlabelled(self, device: str) -> tuple[Rows, JoinedItems]:
        """Return the rows without labels, those of the test set and of `unlabelled:`, and their items.

        Raises:
            DataError: there are none, two sets share an id, or a file is that of a labelled row too.
        """
        sets = self.unlabelled_sets(device)
        if not sets:
            raise DataError(f"{self._task.name}: has no rows without labels; the task needs test: or unlabelled:")
        rows = joined_rows([rows for rows, _ in sets], [len(items) for _, items in sets])
        return rows, JoinedItems([items for _, items in sets])

    def unlabelled_sets(self, device: str) -> list[tuple[Rows, Items]]:
        """Return rows and items of the test set and of `unlabelled:`, as far as the task has them.

        Rows that are numbered, for want of an id column, have `unlabelled-` before their number in the second set.
        """
        sets = [] if self._task.test is None else [self.other(None, device)]
        if self._task.unlabelled is not None:
            self._refuse_labelled_files(self._task.unlabelled)
            rows, items = self.other(self._task.unlabelled, device)
            if self._task.id is None:
                rows = replace(rows, ids=np.array([f"unlabelled-{row_id}" for row_id in rows.ids], dtype=object))
            sets.append((rows, items))
        return sets

    def _refuse_labelled_files(self, source: Source) -> None:
        """Raise DataError where a set without labels holds files of labelled rows: held-out ones would be learnt."""
        train = self._task.train
        if (source.array is not None and source.array == train.array) or (
            source.pixels is not None and source.table == train.table
        ):
            raise DataError(
                "unlabelled: is the training set itself, so a fold would learn from the rows it is scored on"
            )
        found = load_test(self._task, self._data, self.train.rows.names, source).source
        if not isinstance(found, FileItems) or not isinstance(self.train.source, FileItems):
            return
        known = {path.resolve() for path in self.train.source.paths}
        if shared := [str(path) for path in found.paths if path.resolve() in known]:
            raise DataError(
                f"unlabelled: {len(shared)} of its files belong to labelled rows too ({listed(shared, 5)}), so a fold"
                " would learn from the rows that it is scored on; leave them out of its table"
            )

    def other_array(self, source: Source | None, train_shape: tuple[int, ...]) -> tuple[Rows, NDArray[Any]]:
        """Return rows and items of the test set, or of another source, as they are stored.

        Args:
            source: None for the test set.
            train_shape: of one training item; others must have it.
        """
        row_set = _canonical(load_test(self._task, self._data, self.train.rows.names, source))
        array = self._open(row_set, train_shape[0] if len(train_shape) == 3 else None).array
        if array.shape[1:] != train_shape:
            raise DataError(
                f"test items have the shape {array.shape[1:]}, training items {train_shape}; set input.size:"
            )
        known = self._train_items
        train_type = self.train_array().dtype if known is None else known.source.dtype
        if array.dtype != train_type:
            raise DataError(
                f"test items are stored as {array.dtype}, training items as {train_type}, so their values do not have"
                " one scale; bring the files to one depth"
            )
        return row_set.rows, array

    def _open(self, row_set: RowSet, channels: int | None) -> Store:
        inputs, task = self._inputs, self._task
        is_file = isinstance(row_set.source, FileItems) and task.input == "image"
        form = stored_form(task, inputs, channels if is_file else None)
        try:
            with count_progress("decoding", self._show) as progress:
                store = open_store(
                    row_set.source,
                    form,
                    self._cache,
                    report=self._say,
                    progress=progress,
                    workers=self._workers,
                    verify=self._verify,
                )
        except UnreadableError as error:
            raise _with_exclude_lines(error, row_set) from None
        silent = describe_silent(store.meta.get("silent_channels", {}), store.meta["n_items"], task.channels)
        if store.meta.get("n_nonfinite"):
            lines = [
                f"{store.meta['n_nonfinite']} stored values are NaN or infinite; input.nan: channel_mean or zero fills"
                " what is NaN, infinite values must be mended in the files",
                *silent,
            ]
            raise DataError("\n  ".join(lines))
        for line in silent:
            self._say(f"note: {line}")
        return store


def _canonical(row_set: RowSet) -> RowSet:
    """Return the rows sorted by id and, of files, only those that a row names, in the order of the rows.

    So the order of a table changes neither a bit of the results nor the store, and files of excluded rows are not read.
    """
    rows = row_set.rows.at(np.argsort(row_set.rows.ids, kind="stable"))
    if not isinstance(row_set.source, FileItems):
        return RowSet(rows, row_set.source)
    place: dict[int, int] = {}
    items = tuple(tuple(place.setdefault(item, len(place)) for item in of_row) for of_row in rows.items)
    return RowSet(replace(rows, items=items), FileItems(tuple(row_set.source.paths[item] for item in place)))


def _with_exclude_lines(error: UnreadableError, row_set: RowSet) -> DataError:
    """Add the lines to paste into the task, for unreadable files of labelled rows."""
    if row_set.rows.targets is None or not isinstance(row_set.source, FileItems):
        return error
    bad = {position for position, path in enumerate(row_set.source.paths) if path in set(error.paths)}
    ids = [row_id for row_id, items in zip(row_set.rows.ids, row_set.rows.items, strict=True) if bad & set(items)]
    lines = "\n".join(f"  - {row_id!r}" for row_id in ids)
    return DataError(f"{error}\nTo leave these training rows out, put into task.yaml:\nexclude:\n{lines}")
