"""Submission files: predictions joined by id to the host's rows, written, read again and checked (`podium submit RUN`).

Beside each file lies a JSON of the same name: what it is made of, its SHA-256, and later what it scored.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, MismatchError, listed, nearest
from pipeline.base.files import atomic_path, read_json, sha256_file, write_json
from pipeline.base.tables import read_table
from pipeline.records.layout import Layout
from pipeline.records.predictions import Predictions, check_same_ids, label_of
from pipeline.records.runs import now
from pipeline.records.task import Task
from pipeline.stages.codecs import from_cells, from_numbers, is_probs, settled, sums_to_one, to_columns

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Values = NDArray[np.float32]

SUM_TOLERANCE = 1e-9
"""How far from one the written probabilities of a row may sum."""
SCORE_TOLERANCE = 1e-6
"""How far the score of OOF through the writer may be from the score of OOF itself."""
_ARRAY_SUM_TOLERANCE = 1e-4
"""The same for arrays, which hold float32."""


def encode(predictions: Predictions, layout: Layout, task: Task, names: Sequence[str]) -> pd.DataFrame:
    """Return the submission as a table: the host's ids in the host's order, joined by id, cells as they are written.

    Args:
        predictions: one row for each id of the layout, in any order; binary has the one column `names[1]`.
        layout: the host's form.
        task: what is predicted.
        names: class, label or target names in order (binary: both).

    Raises:
        MismatchError: ids are missing or extra, or the columns are not those of the task.
        DataError: class predictions are no probabilities.
    """
    import pandas as pd

    check_same_ids(predictions.ids, layout.ids, f"{label_of(predictions)} against the submission")
    values = _matrix(predictions.aligned_to(layout.ids), task, names)
    columns = to_columns(values, layout, task, names)
    if layout.format == "array":
        return pd.DataFrame(np.stack(columns, axis=1).astype(np.float32), index=pd.Index(layout.ids, dtype=object))
    cells: dict[str, Any] = {layout.id_column: layout.ids}
    cells |= dict(zip(layout.value_columns, columns, strict=True))
    return pd.DataFrame(cells, columns=list(layout.columns))


def check_frame(frame: pd.DataFrame, layout: Layout, task: Task, names: Sequence[str], shown: str = "table") -> None:
    """Raise DataError, naming file, id and column, unless a table is exactly what the host wants.

    Refused: wrong columns; missing, extra or doubled ids; another order; empty cells and NaN; unknown labels; values
    out of range; rows of class probabilities that do not sum to one within 1e-9.
    """
    decode(frame, layout, task, names, shown)


def check_file(path: Path, layout: Layout, task: Task, names: Sequence[str]) -> None:
    """Raise DataError unless the file at `path`, read again, is exactly what the host wants; see `check_frame`."""
    decode(path, layout, task, names)


def decode(
    source: pd.DataFrame | Path, layout: Layout, task: Task, names: Sequence[str], shown: str | None = None
) -> Values:
    """Return what a grader can see in a submission as values, (N, K) float32 in the order of `layout.ids`.

    One-hot for labels, falling scores 1, 1/2, 1/3 for top-k; with fewer label columns than the training table has,
    the columns `sorted(layout.picks)`. Raises DataError, naming the file, for whatever `check_frame` refuses.
    """
    shown = shown or (str(source) if isinstance(source, Path) else "table")
    try:
        return _decoded(source, layout, task, names).astype(np.float32)
    except DataError as error:
        raise DataError(
            f"{shown}: {str(error).removeprefix(f'{source}: ' if isinstance(source, Path) else '')}"
        ) from None


def write_submission(
    path: Path,
    predictions: Predictions,
    layout: Layout,
    task: Task,
    names: Sequence[str],
    provenance: Mapping[str, Any],
    overwrite: bool = False,
) -> Path:
    """Write a checked submission and the JSON beside it; return the path of the submission.

    The file is written to a temporary name, read again and checked before it takes its own. The JSON holds
    `provenance` and file, format, rows, sha256; writing the same bytes again keeps the scores it has, and what was sent
    under this name stays known whatever the bytes.

    Raises:
        DataError: another file of that name exists and `overwrite` is false, or the suffix does not fit.
        MismatchError: see `encode`.
    """
    wanted = ".npy" if layout.format == "array" else ".csv"
    if path.suffix != wanted:
        raise DataError(f"{path}: a submission of format {layout.format} is a {wanted} file")
    _old_record(path)
    frame = encode(predictions, layout, task, names)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        _write(draft, frame, layout)
        decode(draft, layout, task, names, str(path))
        digest = sha256_file(draft)
        is_same = path.exists() and sha256_file(path) == digest
        if path.exists() and not is_same and not overwrite:
            raise DataError(f"{path}: another submission of that name exists; name another --file, or --overwrite it")
        if not is_same:
            with atomic_path(path) as temp:
                shutil.copyfile(draft, temp)
    facts = {"file": path.name, "format": layout.format, "rows": len(layout.ids), "sha256": digest}
    if layout.format != "array":
        facts["id_column"] = layout.id_column
    old = _old_record(path)  # again: meanwhile somebody may have sent it
    kept = {key: old[key] for key in (("created", "lb", "sent") if is_same else ("sent",)) if key in old}
    write_json(path.with_suffix(".json"), {"created": now(), **provenance, **facts, **kept})
    return path


def round_trip_score(
    oof: Predictions,
    targets: NDArray[Any],
    metric: Callable[[NDArray[Any], Values], float],
    layout: Layout,
    task: Task,
    names: Sequence[str],
) -> float:
    """Return the score of OOF after the way of a submission: encoded, written, read again, checked, decoded.

    Args:
        oof: out-of-fold predictions, one row for each submission id, in any order.
        targets: (N, ...) in the row order of `oof`.
        metric: a function of targets and (N, K) values. Where the host wants fewer labels than the training table
            has, both hold those columns only, `sorted(layout.picks)`.
        layout: the form of the real submission; its ids are replaced by those of OOF.
        task: what is predicted.
        names: class, label or target names.
    """
    own = replace(layout, ids=oof.ids)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("oof.npy" if layout.format == "array" else "oof.csv")
        _write(path, encode(oof, own, task, names), own)
        values = decode(path, own, task, names)
    return float(metric(wanted_targets(targets, layout, task), values))


def direct_score(
    oof: Predictions,
    targets: NDArray[Any],
    metric: Callable[[NDArray[Any], Values], float],
    layout: Layout,
    task: Task,
    names: Sequence[str],
) -> float:
    """Return the score of OOF as it stands, after clip and the label of empty rows, for `require_same_score`."""
    values = settled(_matrix(oof, task, names), layout, task)
    return float(metric(wanted_targets(targets, layout, task), values))


def wanted_targets(targets: NDArray[Any], layout: Layout, task: Task) -> NDArray[Any]:
    """Return the columns of multilabel targets that the host asks for, other targets as they are."""
    return targets[:, sorted(layout.picks)] if task.kind == "multilabel" and layout.format == "per_class" else targets


def require_same_score(direct: float, through: float) -> None:
    """Raise MismatchError unless OOF scores the same itself and through the writer of submissions, within 1e-6."""
    if not abs(direct - through) <= SCORE_TOLERANCE:
        raise MismatchError(
            f"OOF scores {direct:.8f}, but {through:.8f} once written as a submission and read again: the format, "
            "threshold or clip of submission: loses what the metric counts, so the file would not score like CV"
        )


def _decoded(source: pd.DataFrame | Path, layout: Layout, task: Task, names: Sequence[str]) -> Floats:
    if layout.format == "array":
        numbers = _read_array(source) if isinstance(source, Path) else source.to_numpy()
        return _checked(numbers.astype(np.float64), layout, task, _width(task, names))
    frame = read_table(source) if isinstance(source, Path) else source
    _check_form(frame, layout)
    if layout.texts:
        return from_cells(_texts(frame[layout.value_columns[0]]), layout, task, names)
    numbers = _checked(_numbers(frame, layout), layout, task, len(layout.value_columns))
    return from_numbers(numbers, layout, task, names)


def _width(task: Task, names: Sequence[str]) -> int:
    return 1 if task.kind == "binary" or (task.kind == "ordinal" and not is_probs(task)) else len(names)


def _matrix(predictions: Predictions, task: Task, names: Sequence[str]) -> Values:
    """Return the values with columns in the order of `names`; the columns of another task are an error."""
    who, meta = label_of(predictions), predictions.meta
    form = "probs" if is_probs(task) else "values"
    for key, wanted in (("task", task.name), ("form", form)):
        if meta.get(key, wanted) != wanted:
            raise MismatchError(f"{who}: {key} is {meta[key]!r}, the submission needs {wanted!r}")
    if task.kind == "ordinal" and form == "values" and len(predictions.names) == 1:
        return predictions.values
    wanted_names = list(names[1:]) if task.kind == "binary" else list(names)
    if set(predictions.names) != set(wanted_names):
        raise MismatchError(f"{who}: columns {listed(predictions.names)}; the task has {listed(wanted_names)}")
    order = [predictions.names.index(name) for name in wanted_names]
    return predictions.values[:, order]


def _write(path: Path, frame: pd.DataFrame, layout: Layout) -> None:
    if layout.format == "array":
        np.save(path, frame.to_numpy(), allow_pickle=False)
    else:
        # Floats in full length (repr): read again they are the same bits. Line ends alike on every system.
        frame.to_csv(path, index=False, lineterminator="\n")


def _read_array(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as an array: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise DataError(f"{path}: expected one float32 array")
    return array


def _check_form(frame: pd.DataFrame, layout: Layout) -> None:
    """Raise DataError unless header and ids are the host's, in the host's order, and no cell is empty."""
    header = tuple(str(name) for name in frame.columns)
    if header != layout.columns:
        extra = [name for name in header if name not in layout.columns]
        missing = [name for name in layout.columns if name not in header]
        near = nearest(extra[0], missing) if extra and missing else ""
        what = f"missing {listed(missing, 5)}; extra {listed(extra, 5)}.{near}" if missing or extra else "other order"
        raise DataError(f"wrong columns ({what}); the host wants {listed(layout.columns)}")
    ids = frame[layout.id_column].astype(object).to_numpy()
    try:
        check_same_ids([str(name) for name in ids], layout.ids, f"column '{layout.id_column}'")
    except MismatchError as error:
        raise DataError(str(error)) from None
    moved = np.flatnonzero(ids != layout.ids)
    if len(moved):
        row = int(moved[0])
        raise DataError(f"wrong order: row {row + 1} is id {ids[row]}, the host has id {layout.ids[row]} there")
    for name in layout.value_columns:
        empty = frame[name].isna() | (frame[name].astype(object) == "")
        if empty.any() and not (layout.texts and "" in layout.texts):
            raise DataError(f"id {ids[int(empty.to_numpy().argmax())]}, column '{name}': the cell is empty or NaN")


def _numbers(frame: pd.DataFrame, layout: Layout) -> Floats:
    """Return the value columns as (N, C) float64; a cell that is no number is an error."""
    numbers = np.empty((len(frame), len(layout.value_columns)))
    for position, name in enumerate(layout.value_columns):
        for row, cell in enumerate(frame[name].tolist()):
            try:
                numbers[row, position] = float(cell)
            except (TypeError, ValueError):
                raise DataError(f"id {layout.ids[row]}, column '{name}': '{cell}' is no number") from None
    return numbers


def _checked(numbers: Floats, layout: Layout, task: Task, width: int) -> Floats:
    """Return `numbers`, (N, C), or raise DataError for the first that is not finite or out of range."""
    if numbers.shape != (len(layout.ids), width):
        raise DataError(f"shape {numbers.shape}, the host wants {(len(layout.ids), width)}")
    low, high = _range(layout, task)
    bad = ~(np.isfinite(numbers) & (numbers >= low) & (numbers <= high))
    if bad.any():
        row, position = (int(axis[0]) for axis in np.nonzero(bad))
        column = f"{position}" if layout.format == "array" else f"'{layout.value_columns[position]}'"
        wanted = "a finite number" if np.isinf(high) else f"from {low:g} to {high:g}"
        raise DataError(f"id {layout.ids[row]}, column {column}: {numbers[row, position]} is not {wanted}")
    _check_sums(numbers, layout, task)
    return numbers


def _range(layout: Layout, task: Task) -> tuple[float, float]:
    # Shares of a whole are scaled to sum to one after they are cut, so only 0 and 1 bind them.
    is_scaled = layout.format == "per_class" and sums_to_one(task)
    if layout.spec.clip is not None and not is_scaled and not (layout.format == "per_class" and task.kind == "binary"):
        low, high = layout.spec.clip
        return (float(np.float32(low)), float(np.float32(high))) if layout.format == "array" else (low, high)
    is_prob = is_probs(task) and layout.format != "values"
    return (0.0, 1.0) if is_prob else (-np.inf, np.inf)


def _check_sums(numbers: Floats, layout: Layout, task: Task) -> None:
    if layout.format == "per_class" and task.kind != "multilabel":
        tolerance = SUM_TOLERANCE
    elif layout.format == "array" and sums_to_one(task) and layout.spec.clip is None:
        tolerance = _ARRAY_SUM_TOLERANCE
    else:
        return
    off = np.abs(numbers.sum(axis=1) - 1)
    if off.max(initial=0) > tolerance:
        row = int(off.argmax())
        raise DataError(f"id {layout.ids[row]}: the probabilities sum to {numbers[row].sum()!r}, not one")


def _texts(cells: pd.Series[Any]) -> NDArray[np.object_]:
    """Return cells as the text that stands in the file."""
    return np.array([str(cell) for cell in cells.tolist()], dtype=object)


def _old_record(path: Path) -> dict[str, Any]:
    """Return the JSON that lies beside a submission, or nothing; one that belongs to another file is an error."""
    beside = path.with_suffix(".json")
    record = dict(read_json(beside)) if beside.exists() else {}
    if record.get("file", path.name) != path.name:
        raise DataError(f"{beside}: belongs to {record['file']}; choose another name")
    return record
