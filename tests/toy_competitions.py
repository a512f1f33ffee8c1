"""Competitions as hosts hand them out, made up along the axes of `toy_layouts`, and what must be concluded of each.

    for number, layout in enumerate(pairwise()):
        expected = make(layout, tmp_path / "data", seed=number)

`make` writes what a participant gets and returns what the issue of `podium init` asks to be understood. Where the files
leave two readings open, the expectation lists both; what it does not say is free.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from toy_expected import TOP_K, Expected, expect
from toy_files import (
    as_csv_bytes,
    one_array,
    pack_folders,
    write_arrays,
    write_decoys,
    write_files,
    write_zipped,
)
from toy_layouts import Layout, why_not
from toy_names import described_metric, id_name, sample_id_name, submission_ids, target_name, value_columns
from toy_pairs import pairwise
from toy_rows import SIZE_PX, Label, Row, floats, make_rows, names_of, picture

__all__ = ["Expected", "Layout", "make", "pairwise"]

SEPARATORS = {"space": " ", "comma": ",", "semicolon": ";", "pipe": "|"}
DELIMITERS = {"semicolon": ";", "tab": "\t", "pipe": "|"}


def make(layout: Layout, folder: Path, seed: int = 0) -> Expected:
    """Write a competition into a folder and return what is to be concluded of it.

    Args:
        layout: a sensible one, see `why_not`.
        folder: made if need be; nothing else lies there.
        seed: of ids, labels and items.
    """
    assert not why_not(layout), why_not(layout)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 13])
    train, test = make_rows(layout, seed)
    files = {"train": _write_items(folder, layout, train, "train", rng), "test": []}
    files["test"] = _write_items(folder, layout, test, "test", rng)
    _write_labels(folder, layout, train, files["train"], rng)
    _write_test_table(folder, layout, test, files["test"], rng)
    write_decoys(folder, layout, train, test, rng)
    if layout.archive != "none":
        pack_folders(folder, layout)
    if layout.sample == "yes":
        _write_sample(folder, layout, test)
    if layout.described == "yes":
        (folder / "README.md").write_text(_DESCRIPTION.format(described_metric(layout)[1]), encoding="utf-8")
    return expect(layout, train, test, files)


# -- items and tables --------------------------------------------------------------------------------------------------


def _write_items(
    folder: Path, layout: Layout, rows: Sequence[Row], which: str, rng: np.random.Generator
) -> list[list[str]]:
    """Write the items of a set that lie in files or in an array; return the files of each row."""
    if layout.items == "files":
        return write_files(folder, layout, rows, which, rng)
    if layout.items == "one_array":
        labels = (
            np.array([_number(row.label) for row in rows]) if which == "train" and layout.place == "array" else None
        )
        write_arrays(folder, layout, which, one_array(layout, rows, rng), labels)
    return [[] for _ in rows]


def _number(label: Label) -> int | float:
    return label if isinstance(label, float) else int(str(label))


def _write_labels(
    folder: Path, layout: Layout, rows: Sequence[Row], files: list[list[str]], rng: np.random.Generator
) -> None:
    """Write the table of the training rows, unless labels lie in names of files and folders or in an array."""
    if layout.place in ("csv", "several_csv"):
        table = _table(layout, rows, files, rng, is_train=True)
        write_table(folder / "train.csv", table, layout.dialect)
        if layout.decoy == "old":
            old = table.head(10).assign(**{id_name(layout): [f"old_{number}" for number in range(10)]})
            write_table(folder / "old_data.csv", old, layout.dialect)
        if layout.place == "several_csv":
            _write_other_tables(folder, layout, rows)
    elif layout.place == "records":
        write_json(folder / "train.json", _records(layout, rows, rng, is_train=True))
    elif layout.place == "coco":
        write_json(folder / "train.json", _coco(layout, rows, is_train=True))


def _write_test_table(
    folder: Path, layout: Layout, rows: Sequence[Row], files: list[list[str]], rng: np.random.Generator
) -> None:
    if layout.test_table == "no":
        return
    if layout.place == "records":
        write_json(folder / "test.json", _records(layout, rows, rng, is_train=False))
    elif layout.place == "coco":
        write_json(folder / "test.json", _coco(layout, rows, is_train=False))
    else:
        write_table(folder / "test.csv", _table(layout, rows, files, rng, is_train=False), layout.dialect)


def _table(
    layout: Layout, rows: Sequence[Row], files: list[list[str]], rng: np.random.Generator, is_train: bool
) -> pd.DataFrame:
    """Return the table of a set, as text and numbers, its columns in the layout's order."""
    if layout.items == "one_array":
        return _frame(_label_cells(layout, rows))
    columns: dict[str, list[Any]] = {} if layout.sample_id == "number" else {id_name(layout): [row.id for row in rows]}
    if layout.per_row == "rows":
        columns["product_id"] = [row.key for row in rows]
    if layout.per_row == "columns":
        columns |= {side: [Path(of_row[n]).name for of_row in files] for n, side in enumerate(("left", "right"))}
    if layout.group == "patient":
        columns["patient_id"] = [row.patient for row in rows]
    if layout.group == "fixing" and is_train:
        columns["chain"] = [row.category for row in rows]
    if layout.group == "host_split" and is_train:
        columns["split"] = ["valid" if row.is_valid else "train" for row in rows]
    labels = _label_cells(layout, rows) if is_train else {}
    pixels = _pixels(layout, rows, rng) if layout.items == "pixels" else {}
    place = {"first": 0, "middle": len(columns) // 2, "last": len(columns)}[layout.label_column]
    named = list(columns.items())
    parts = [*named[:place], *labels.items(), *named[place:]]
    ordered = [*parts, *pixels.items()] if layout.label_column != "last" else [*named, *pixels.items(), *labels.items()]
    return _frame(dict(ordered))


def _frame(columns: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    return pd.DataFrame(dict(columns), dtype=object)


def _pixels(layout: Layout, rows: Sequence[Row], rng: np.random.Generator) -> dict[str, list[Any]]:
    flat = np.stack([picture(row, replace(layout, depth="grey"), rng).ravel() for row in rows])
    return {f"pixel{number}": flat[:, number].tolist() for number in range(flat.shape[1])}


def _label_cells(layout: Layout, rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the label columns of a table."""
    names = names_of(layout)
    if layout.encoding == "one_hot":
        return {name: [int(row.label == name) for row in rows] for name in names}
    if layout.encoding == "shares":
        to_cell = int if layout.shares == "votes" else float
        return {name: [to_cell(row.label[n]) for row in rows] for n, name in enumerate(names)}  # type: ignore[index]
    if layout.encoding in ("columns", "extra"):
        return {name: [int(name in row.label) for row in rows] for name in names}  # type: ignore[operator]
    return {target_name(layout): [cell_of(layout, row.label) for row in rows]}


def cell_of(layout: Layout, label: Label) -> str | float:
    """Return a label as one cell."""
    if isinstance(label, frozenset):
        return SEPARATORS[layout.separator].join(sorted(label))
    assert not isinstance(label, tuple)
    return label


def write_table(path: Path, table: pd.DataFrame, dialect: str = "comma", index: bool = False) -> None:
    """Write a table with the delimiter, quotes and encoding of a dialect."""
    quoting = csv.QUOTE_ALL if dialect == "quoted" else csv.QUOTE_MINIMAL
    text = table.to_csv(index=index, sep=DELIMITERS.get(dialect, ","), quoting=quoting, lineterminator="\n")
    content = as_csv_bytes(text, dialect)
    if dialect == "zipped":
        write_zipped(path.with_name(path.name + ".zip"), content)
    else:
        path.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON as programs do, on one line."""
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_other_tables(folder: Path, layout: Layout, rows: Sequence[Row]) -> None:
    """Write tables of the same ids that hold no target: annotations of some rows, and measurements of all."""
    ids = [row.id for row in rows]
    drawn = {
        id_name(layout): ids[::2],
        "tag": ["tip", "end"] * (len(ids) // 4),
        "data": ["[[1, 2], [3, 4]]"] * len(ids[::2]),
    }
    write_table(folder / "train_annotations.csv", _frame(drawn))
    sizes = {id_name(layout): ids, "file_kb": [n % 7 + 1 for n in range(len(ids))]}
    write_table(folder / "train_metadata.csv", _frame(sizes))


def _records(layout: Layout, rows: Sequence[Row], rng: np.random.Generator, is_train: bool) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = _table(layout, rows, [], rng, is_train).to_dict("records")
    if layout.items == "bands":
        for record, row in zip(records, rows, strict=True):
            first, second = floats(row, rng)
            bands = {"band_1": first.ravel().tolist(), "band_2": second.ravel().tolist(), "angle": 38.5}
            record.update(bands)
    return records


def _coco(layout: Layout, rows: Sequence[Row], is_train: bool) -> dict[str, Any]:
    names = names_of(layout)
    images = [{"id": n + 1, "file_name": row.id, "width": SIZE_PX, "height": SIZE_PX} for n, row in enumerate(rows)]
    content: dict[str, Any] = {"info": {"year": 2026}, "images": images}
    if is_train:
        of_row = [(n + 1, row.label if isinstance(row.label, frozenset) else {row.label}) for n, row in enumerate(rows)]
        marks = [(image, names.index(str(label)) + 1) for image, labels in of_row for label in sorted(labels, key=str)]
        content["annotations"] = [
            {"id": n, "image_id": image, "category_id": category, "bbox": [1, 1, 4, 4]}
            for n, (image, category) in enumerate(marks)
        ]
        content["categories"] = [{"id": n + 1, "name": name} for n, name in enumerate(names)]
    return content


# -- what the host wants -----------------------------------------------------------------------------------------------


def _write_sample(folder: Path, layout: Layout, test: Sequence[Row]) -> None:
    keys = submission_ids(layout, test)
    cells = [""] * len(keys)
    columns = {sample_id_name(layout): keys} | {
        name: cells if layout.cells == "empty" else [placeholder(layout)] * len(keys) for name in value_columns(layout)
    }
    path = folder / layout.sample_name
    has_index = layout.sample_id == "index"
    if path.suffix == ".zip":
        write_table(path.with_suffix(""), _frame(columns), "zipped", has_index)
    else:
        write_table(path, _frame(columns), index=has_index)


def placeholder(layout: Layout) -> str | float:
    """Return what the sample predicts for every row."""
    names = names_of(layout)
    if layout.asks == "per_class":
        return 0.5 if layout.kind == "multilabel" else round(1 / len(names), 6)
    if layout.asks in ("probability", "values"):
        return 0.5 if layout.asks == "probability" else 50.0
    return " ".join(names[:TOP_K]) if layout.asks == "top_k" else names[0]


_DESCRIPTION = """# A made-up competition

Tell from each item what it is. The training data were collected over two years.

## Evaluation

Submissions are evaluated on {}.
"""
