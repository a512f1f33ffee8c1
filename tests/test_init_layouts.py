"""What `podium init` concludes of competitions in every layout that the generator knows, and of broken ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_broken import BROKEN, Broken
from toy_competitions import Expected, Layout, make, pairwise
from toy_rows import Label

from pipeline import api
from pipeline.base.errors import PodiumError
from pipeline.data.forms import formed, stored_form
from pipeline.data.sources import FileItems, open_items
from pipeline.data.tables import RowSet, load_test, load_train
from pipeline.records.config import load_task
from pipeline.records.experiment import Input
from pipeline.records.layout import read_layout
from pipeline.records.task import Task

LAYOUTS = pairwise()


@pytest.mark.parametrize("number", range(len(LAYOUTS)), ids=lambda number: LAYOUTS[number].title)
def test_what_is_concluded(tmp_path: Path, number: int) -> None:
    assert disagreements(tmp_path, LAYOUTS[number], number) == []


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_bad_input_is_refused_in_words(tmp_path: Path, broken: Broken) -> None:
    folder = tmp_path / "toy"
    broken.spoil(folder)
    with pytest.raises(PodiumError) as error:
        api.init(folder, root=tmp_path / "work")
    message = str(error.value).lower()
    assert [word for word in broken.words if word.lower() not in message] == []
    found = [word for word in broken.one_of if word.lower() in message]
    assert not broken.one_of or len(found) >= broken.n_of, message
    assert not list(tmp_path.glob("work/configs/*/task.yaml"))


def disagreements(root: Path, layout: Layout, seed: int) -> list[str]:
    """Return what `podium init` concludes otherwise than expected, one line each."""
    folder = root / "toy"
    expected = make(layout, folder, seed)
    before = _snapshot(folder)
    api.init(folder, root=root / "work")
    task = load_task(root / "work/configs/toy/task.yaml")
    data = root / "work" / task.data
    found = _of_task(task, expected, layout)
    found += [] if _snapshot(folder) == before else ["the host's folder was written to"]
    train = load_train(task, data)
    test = load_test(task, data, train.rows.names)
    return found + _of_train(task, train, data, expected) + _of_test(task, test, data, expected)


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def _differ(what: str, found: Any, expected: Any, is_same: bool | None = None) -> list[str]:
    same = found == expected if is_same is None else is_same
    return [] if same else [f"{what}: found {found!r}, expected {expected!r}"]


def _of_task(task: Task, expected: Expected, layout: Layout) -> list[str]:
    reading = (task.kind, task.format, task.metric.name)
    allowed = [(one.kind, one.format, metric) for one in expected.readings for metric in one.metrics]
    found = _differ("kind, format, metric", reading, allowed, reading in allowed)
    found += _differ("input", task.input, expected.input)
    if expected.targets:
        found += _differ("target", task.target, expected.targets, set(task.target) in expected.targets)
    if expected.ids:
        found += _differ("id", task.id, expected.ids, task.id in expected.ids)
    groups = {expected.group} | ({"product_id"} if layout.per_row == "rows" else set())
    found += _differ("group", task.group, expected.group, task.group in groups)
    if expected.k is not None:
        found += _differ("k", task.submission.k, expected.k)
    if expected.clip is not None:
        clip = task.submission.clip
        found += _differ("clip", clip, expected.clip, clip is not None and np.allclose(clip, expected.clip))
    return found


def _of_train(task: Task, train: RowSet, data: Path, expected: Expected) -> list[str]:
    rows = train.rows
    labels = [label_at(rows.targets, row, rows.names, task) for row in range(len(rows))]
    found = _differ("training rows", len(rows), len(expected.train))
    if expected.names:
        is_same = expected.names == set(rows.names) or set(rows.names) == set(expected.columns)
        found += _differ("names", rows.names, sorted(expected.names), is_same)
    if expected.order:
        found += _differ("order of classes", rows.names, expected.order)
    item = open_items(train.source, lambda _: None, form := stored_form(task, Input(), None)).read(rows.items[0][0])
    shape = formed(item, form, "the first item").shape
    fits = len(shape) == len(expected.item_shape) and all(
        wanted in (None, side) for side, wanted in zip(shape, expected.item_shape, strict=True)
    )
    found += _differ("shape of an item", shape, expected.item_shape, fits)
    if isinstance(train.source, FileItems):
        paths = [files_at(train, row, data) for row in range(len(rows))]
        by_files = {tuple(sorted(files)): (n, label) for n, (files, label) in enumerate(expected.train)}
        found += _differ("training files", set(paths) - set(by_files), set(), set(paths) == set(by_files))
        at = [by_files.get(path, (-1, None)) for path in paths]
    else:
        at = [(n, label) for n, (_, label) in enumerate(expected.train)][: len(rows)]
    wrong = [
        (label, truth)
        for label, (_, truth) in zip(labels, at, strict=False)
        if not is_same_label(label, truth, rows.names)
    ]
    found += _differ("labels", wrong[:3], [])
    if expected.valid:
        folds = rows.host_folds
        held = None if folds is None else {n for (n, _), fold in zip(at, folds.tolist(), strict=False) if fold >= 0}
        found += _differ("the host's validation rows", held, set(expected.valid))
    return found


def _of_test(task: Task, test: RowSet, data: Path, expected: Expected) -> list[str]:
    rows = test.rows
    keys = [str(key) for key in (rows.ids if rows.submission_ids is None else rows.submission_ids)]
    of_key: dict[str, tuple[str, ...]] = {}
    for row, key in enumerate(keys):
        of_key[key] = of_key.get(key, ()) + (files_at(test, row, data) if isinstance(test.source, FileItems) else ())
    files = {key: tuple(sorted(paths)) for key, paths in of_key.items()}
    wanted = {key: tuple(sorted(paths)) for key, paths in expected.test.items()}
    if not expected.has_sample:
        return _differ("test files", sorted(files.values())[:3], sorted(wanted.values())[:3], _alike(files, wanted))
    layout = read_layout(task, data, rows.names, list(of_key))
    named = tuple(name for name in layout.value_columns if name and not name.startswith("Unnamed"))
    found = _differ("test rows", _some(files, wanted), _some(wanted, files), files == wanted)
    found += _differ(
        "order of the submission", list(layout.ids)[:3], list(expected.test)[:3], list(layout.ids) == list(wanted)
    )
    found += _differ("id column of the submission", layout.id_column, expected.id_column)
    return found + _differ("columns of the submission", named, expected.columns)


def _alike(files: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    return sorted(map(str, files.values())) == sorted(map(str, wanted.values()))


def _some(these: Mapping[str, object], those: Mapping[str, object]) -> list[object]:
    return [(key, value) for key, value in these.items() if those.get(key) != value][:3]


def files_at(rows: RowSet, row: int, data: Path) -> tuple[str, ...]:
    """Return the files of a row as the host names them, sorted: archives as if they lay unpacked."""
    assert isinstance(rows.source, FileItems)
    names = [rows.source.paths[item].relative_to(data).as_posix() for item in rows.rows.items[row]]
    return tuple(sorted(name.removeprefix("original/").removeprefix("unpacked/") for name in names))


def label_at(targets: Any, row: int, names: Sequence[str], task: Task) -> Label:
    """Return the label of a row in the generator's form."""
    value = targets[row]
    if task.kind == "regression":
        return float(value[0])
    if task.kind == "multilabel":
        return frozenset(np.array(names)[value > 0.5])
    if value.ndim:
        return tuple(float(share) for share in value)
    return names[int(value)]


def is_same_label(found: Label, expected: Label | None, names: Sequence[str]) -> bool:
    """Return whether two labels mean the same: shares whatever their sum, and labels as far as they are asked for."""
    if isinstance(expected, float):
        return isinstance(found, float) and abs(found - expected) < 1e-3
    if isinstance(expected, tuple):
        order = [("spiral", "disk", "star").index(name) for name in names]
        shares = np.array(expected)[order] / sum(expected)
        return isinstance(found, tuple) and bool(np.allclose(found, shares, atol=1e-4))
    if isinstance(expected, frozenset):
        return found == expected & set(names)
    if isinstance(found, tuple):  # one-hot columns
        return expected == names[int(np.argmax(found))] and max(found) == 1
    return found == expected
