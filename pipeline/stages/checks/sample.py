"""A small copy of the competition in a temporary workspace: some rows with their items as stored, and the user's folds.

So the checks run the real stages, files and all, in a minute and without a trace in the user's workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.keyed import make_key, permutation
from pipeline.base.tables import read_table
from pipeline.data.forms import StoredForm, formed, stored_form, stored_rate
from pipeline.data.sources import ArrayItems, FileItems, ItemSource, open_items
from pipeline.data.store import open_store
from pipeline.data.tables import RowSet, load_test, load_train
from pipeline.records.config import Config
from pipeline.records.decoding import Dicom
from pipeline.records.experiment import Experiment
from pipeline.records.folds import Folds, make_folds, save_folds
from pipeline.records.rows import Rows
from pipeline.records.runs import Workspace
from pipeline.records.signal_steps import SignalSteps
from pipeline.records.task import Source, Task
from pipeline.stages.checks.choice import MIN_OF_CLASS, choose_rows
from pipeline.stages.folding import fold_table
from pipeline.stages.twins import exact_duplicates, row_groups

Say = Callable[[str], None]
Array = NDArray[Any]
Ints = NDArray[np.int64]

N_ROWS, N_TEST = 240, 40
"""Labelled rows and test rows of the copy."""


@dataclass(frozen=True)
class Sample:
    """Some rows of the competition, with everything that the stages want to know of them."""

    root: Path
    """The temporary workspace."""
    config: Config
    """The user's, for the copy: items are stored already, so no size is asked for, and every key has a column."""
    rows: Rows
    """(N) labelled rows, by id; `items` are positions in `array`."""
    array: Array
    """The items of the rows, as stored."""
    folds: Folds
    """The user's folds of these rows, in their order."""
    n_all: int
    """Labelled rows of the competition."""

    @cached_property
    def contents(self) -> Ints:
        """Return a number for each row, (N,), the same for rows that hold an item alike in every value."""
        return np.asarray(row_groups(self.rows.items, exact_duplicates(self.array, None).groups), dtype=np.int64)


def take_sample(workspace: Workspace, config: Config, root: Path, workers: int, say: Say) -> Sample:
    """Return a sample of the competition under `root`; only its files are read.

    Rows are dealt evenly over folds and classes; rows of one submission id stay together. Without a saved fold table
    the one that `podium folds` would make is taken (found duplicates aside), and not saved.

    Raises:
        PodiumError: tables, files or folds are not as they should be.
    """
    train = load_train(config.task, workspace.data(config.task))
    folds = _folds(workspace, config, train.rows, say)
    chosen = choose_rows(train.rows, folds.aligned_to(train.rows.ids).fold, N_ROWS, N_ROWS // MIN_OF_CLASS)
    part = train.rows.at(chosen[np.argsort(train.rows.ids[chosen], kind="stable")])
    form = _form(config, train)
    rows, array = _stored(RowSet(part, train.source), form, root / "train", workers)
    copy = Config(_task_of_copy(config, rows, root), _experiment_of_copy(config), config.run_name)
    sample = Sample(root, copy, _without_rare_labels(rows, config), array, _restricted(folds, rows), len(train.rows))
    _write_items(root / "data", "train", array)
    if config.task.test is not None:
        _write_test(workspace, config, sample, form, workers)
    return sample


def write_copy(
    sample: Sample, name: str, rows: Rows, experiment: Experiment, has_test: bool
) -> tuple[Workspace, Config]:
    """Write a competition of some of the sample's rows, under their own targets or others; return where and what.

    Args:
        sample: whose rows these are.
        name: added to the task's name.
        rows: of the sample, perhaps with other targets.
        experiment: how to train on them.
        has_test: whether test rows are predicted.
    """
    import pandas as pd

    task = sample.config.task
    cells: dict[str, Any] = {"podium_id": rows.ids} | _target_cells(task, rows) | _item_cells(rows.items)
    for column, values in (
        ("podium_group", rows.groups),
        ("podium_subject", rows.subjects),
        ("podium_session", rows.sessions),
        ("podium_fold", rows.host_folds),
        ("podium_key", rows.submission_ids),
    ):
        cells |= {} if values is None else {column: values}
    pd.DataFrame(cells).to_csv(sample.root / "data" / f"{name}.csv", index=False)
    source = task.train.model_copy(update={"table": f"{name}.csv"})
    task = task.model_copy(update={"name": f"{task.name}-{name}", "train": source})
    if not has_test:
        submission = task.submission.model_copy(update={"sample": None})
        task = task.model_copy(update={"test": None, "submission": submission})
    workspace = Workspace(sample.root)
    save_folds(workspace.folds(task, experiment.folds), _restricted(sample.folds, rows))
    return workspace, Config(task, experiment, "check")


def _folds(workspace: Workspace, config: Config, rows: Rows, say: Say) -> Folds:
    """Return the saved table, checked against the data, or the one that would be made."""
    if workspace.folds(config.task, config.experiment.folds).exists():
        return fold_table(workspace, config, say)
    return make_folds(rows, config.task.kind, config.experiment.folds)


def _restricted(folds: Folds, rows: Rows) -> Folds:
    place = {row_id: position for position, row_id in enumerate(folds.ids)}
    positions = np.array([place[row_id] for row_id in rows.ids], dtype=np.int64)
    return replace(folds, ids=folds.ids[positions], fold=folds.fold[positions])


def _without_rare_labels(rows: Rows, config: Config) -> Rows:
    """Return the rows with labels left out that so few of them have that one fold may hold out all."""
    if config.task.kind != "multilabel":
        return rows
    targets = np.array(rows.targets)
    targets[:, targets.sum(axis=0) < MIN_OF_CLASS] = 0
    return replace(rows, targets=targets)


# -- items -------------------------------------------------------------------------------------------------------------


def _form(config: Config, train: RowSet) -> StoredForm:
    """Return how items are stored; the channels are those of the first file, as for the whole competition."""
    task, inputs = config.task, config.experiment.input
    form = stored_form(task, inputs, inputs.channels if isinstance(train.source, FileItems) else None)
    if task.input == "image" and isinstance(train.source, FileItems) and form.channels is None:
        first = train.rows.items[int(np.argmin(train.rows.ids))][0]
        raw = replace(form, size=None, resize="squash")
        opened = open_items(train.source, _unsaid, raw)
        form = replace(form, channels=len(formed(opened.read(first), raw, opened.name(first))))
    return form


def _stored(row_set: RowSet, form: StoredForm, folder: Path, workers: int) -> tuple[Rows, Array]:
    """Return the rows and their items alone, in the order of the rows."""
    place: dict[int, int] = {}
    items = tuple(tuple(place.setdefault(item, len(place)) for item in of_row) for of_row in row_set.rows.items)
    source = _part_of(row_set.source, list(place), folder)
    store = open_store(source, form, folder, report=_unsaid, workers=workers)
    return replace(row_set.rows, items=items), store.array


def _part_of(source: ItemSource, positions: Sequence[int], folder: Path) -> ItemSource:
    """Return a source of some items: their files, or an array of them alone."""
    if isinstance(source, FileItems):
        return FileItems(tuple(source.paths[position] for position in positions))
    opened = open_items(source, _unsaid)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "part.npy"
    np.save(path, np.stack([opened.read(position) for position in positions]))
    return ArrayItems(path)


def _unsaid(_: str) -> None:
    """Keep a message to itself."""


def _write_items(data: Path, which: str, array: Array) -> None:
    (data / which).mkdir(parents=True, exist_ok=True)
    for number, item in enumerate(array):
        np.save(data / which / f"{number}.npy", item)


def _item_cells(items: tuple[tuple[int, ...], ...]) -> dict[str, list[int]]:
    return {f"podium_item{number}": [of_row[number] for of_row in items] for number in range(len(items[0]))}


# -- the task of the copy ----------------------------------------------------------------------------------------------


def _task_of_copy(config: Config, rows: Rows, root: Path) -> Task:
    task = config.task
    has_classes = task.kind in ("binary", "multiclass", "ordinal")
    targets = tuple(_target_cells(task, rows))
    spec = task.submission
    file: dict[str, Any] = {"sample": None, "id": spec.id or task.id or "id"}
    if spec.sample is not None and task.test is not None:
        file = {"sample": Path(spec.sample).name}
    submission = spec.model_copy(update={"row_id": "podium_key" if spec.row_id else None} | file)
    return task.model_copy(
        update={
            "data": str((root / "data").absolute()),
            "id": "podium_id",
            "first_id": 0,
            "layout": "channels_first" if task.layout or task.input == "signal" else None,
            "sample_rate_hz": None if task.input == "image" else stored_rate(task, config.experiment.input),
            "channels": (),
            "dicom": Dicom(),
            "audio": None,
            "target": targets,
            "target_separator": None,
            "classes": rows.names if has_classes else (),
            "group": "podium_group" if task.group else None,
            "subject": "podium_subject" if task.subject else None,
            "session": "podium_session" if task.session else None,
            "fold_column": "podium_fold" if task.fold_column else None,
            "train": _source("train", len(rows.items[0])),
            "unlabelled": None,
            "test": None if task.test is None else _source("test", len(rows.items[0])),
            "submission": submission,
            "exclude": (),
        }
    )


def _source(which: str, n_files: int) -> Source:
    files = tuple(f"{which}/{{podium_item{number}}}.npy" for number in range(n_files))
    return Source(table=f"{which}.csv", files=files)


def _experiment_of_copy(config: Config) -> Experiment:
    """Return the experiment without what was done when the items were stored, or asks for files of its own."""
    experiment, inputs = config.experiment, config.experiment.input
    defaults = {
        name: type(inputs).model_fields[name].default
        for name in ("size", "channels", "resize", "length", "align", "nan", *SignalSteps.model_fields)
    }
    done = {name: default for name, default in defaults.items() if getattr(inputs, name) != default}
    inputs = inputs.model_copy(update=done) if done else inputs
    train = experiment.train.model_copy(update={"compile": False}) if experiment.train.compile else experiment.train
    # The lineage of start weights names the user's fold table, which the sample's is not.
    model = experiment.model.without_start() if "weights" in experiment.model.options else experiment.model
    others: dict[str, Any] = {"pseudo": None, "consistency": None}
    return experiment.model_copy(update={"input": inputs, "train": train, "model": model} | others)


def _target_cells(task: Task, rows: Rows) -> dict[str, list[Any]]:
    """Return the target columns; labels of one cell get a column each, as their names may hold anything."""
    targets = np.asarray(rows.targets)
    if targets.ndim == 2:
        return {name: [repr(float(value)) for value in targets[:, k]] for k, name in enumerate(rows.names)}
    return {task.target[0] if task.target else "target": [rows.names[position] for position in targets]}


def _write_test(workspace: Workspace, config: Config, sample: Sample, form: StoredForm, workers: int) -> None:
    """Write some test rows, and the host's sample of these."""
    import pandas as pd

    task, data = config.task, workspace.data(config.task)
    row_set = load_test(task, data, sample.rows.names)
    keys = row_set.rows.ids if row_set.rows.submission_ids is None else row_set.rows.submission_ids
    unique = list(dict.fromkeys(keys))
    wanted = {unique[place] for place in permutation(make_key("check test"), len(unique))[:N_TEST]}
    part = row_set.rows.at(np.flatnonzero([key in wanted for key in keys]))
    channels = sample.array.shape[1] if task.input == "image" and isinstance(row_set.source, FileItems) else None
    rows, array = _stored(RowSet(part, row_set.source), replace(form, channels=channels), sample.root / "test", workers)
    folder = sample.root / "data"
    _write_items(folder, "test", array)
    cells: dict[str, Any] = {"podium_id": rows.ids} | _item_cells(rows.items)
    cells |= {} if rows.submission_ids is None else {"podium_key": rows.submission_ids}
    pd.DataFrame(cells).to_csv(folder / "test.csv", index=False)
    file = task.submission.sample
    if file is not None:
        table = read_table(data / file)
        ids = table[task.submission.id or table.columns[0]]
        path = folder / Path(file).name
        table[ids.isin(wanted)].to_csv(path, index=False)
