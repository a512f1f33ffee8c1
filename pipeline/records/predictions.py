"""Predictions keyed by id: the only thing that stages exchange. Row order carries no meaning.

On disk a Parquet file: a string column `id`, one float32 column for each class or target, an int64 column `fold` in
held-out and out-of-fold sets only, and everything about their origin as JSON in the file's metadata. A class named
`id` or `fold`, or one that starts with `class:`, is written with `class:` before its name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, DivergedError, MismatchError, listed
from pipeline.base.files import atomic_path

Strings = NDArray[np.object_]
Floats = NDArray[np.float64]

SMALLEST_PROB = 1e-7
"""Where probabilities are cut before their logarithm is taken: one confident member must not decide alone."""

_ESCAPE = "class:"
_RESERVED = ("id", "fold")
_META_KEY = b"podium"
_SAME = {"task": "task", "form": "form", "folds_hash": "folds hash"}


@dataclass(frozen=True)
class Predictions:
    """Probabilities or values for a set of rows, checked when made: unique ids, one width, everything finite."""

    ids: Strings
    """(N,) unique strings, not empty."""
    names: tuple[str, ...]
    """(K) unique names of the columns: classes, labels or targets; binary has one, the positive class."""
    values: NDArray[np.float32]
    """(N, K) probabilities or values, finite."""
    fold: NDArray[np.int64] | None = None
    """(N,) the fold in which a row was held out; None for sets that no fold holds, such as test."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What JSON can hold: task, run, form ("probs" or "values"), folds_hash, config_hash, weights_hash, units, ..."""

    def __post_init__(self) -> None:
        _check_ids(self.ids)
        if len(set(self.names)) != len(self.names):
            raise MismatchError(f"{label_of(self)}: column names are doubled: {listed(_doubled(self.names), 5)}")
        _check_array("values", self.values, (len(self.ids), len(self.names)), np.float32)
        if self.fold is not None:
            _check_array("fold", self.fold, (len(self.ids),), np.int64)
        bad = self.ids[~np.isfinite(self.values).all(axis=1)]
        if len(bad):
            raise DivergedError(
                f"{label_of(self)}: NaN or infinite predictions for {len(bad)} of {len(self)} rows, "
                f"ids {listed(bad, 5)}. The training diverged or the input holds NaN."
            )

    def __len__(self) -> int:
        """Return N."""
        return len(self.ids)

    def aligned_to(self, ids: Iterable[str]) -> Predictions:
        """Return the same rows in the order of `ids`; raises MismatchError unless both hold the same set of ids."""
        wanted = np.array(list(ids), dtype=object)
        check_same_ids(self.ids, wanted, label_of(self))
        where = {name: row for row, name in enumerate(self.ids)}
        return self.at(np.array([where[name] for name in wanted], dtype=np.int64))

    def sorted(self) -> Predictions:
        """Return the same rows in the order of their ids as text."""
        return self.at(np.argsort(self.ids, kind="stable"))

    def at(self, rows: NDArray[np.intp] | NDArray[np.int64]) -> Predictions:
        """Return the rows at the given positions."""
        fold = None if self.fold is None else self.fold[rows]
        return replace(self, ids=self.ids[rows], values=self.values[rows], fold=fold)


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write predictions to a Parquet file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"id": pa.array(predictions.ids.tolist(), pa.string())}
    for position, name in enumerate(predictions.names):
        columns[_escaped(name)] = pa.array(np.ascontiguousarray(predictions.values[:, position]), pa.float32())
    if predictions.fold is not None:
        columns["fold"] = pa.array(predictions.fold, pa.int64())
    meta = json.dumps(predictions.meta, allow_nan=False).encode()
    table = pa.table(list(columns.values()), names=list(columns)).replace_schema_metadata({_META_KEY: meta})
    with atomic_path(path) as temp:
        pq.write_table(table, temp)


def load_predictions(path: Path) -> Predictions:
    """Return the predictions of a Parquet file; raises DataError when it is missing, broken or another kind of file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; train or predict first") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error}); delete it and make it again") from None
    try:
        return _from_table(table)
    except (DataError, MismatchError) as error:
        raise type(error)(f"{path}: {error}") from None


def join_folds(parts: Sequence[Predictions]) -> Predictions:
    """Return the rows of several held-out sets as one set, OOF: a row twice, or other classes or folds, is an error."""
    labels = _labels(parts, None)
    for label, part in zip(labels, parts, strict=True):
        if part.fold is None:
            raise MismatchError(f"{label}: has no fold column, so it is no held-out set")
        check_alike(parts[0], part, (labels[0], label))
    ids = np.concatenate([part.ids for part in parts])
    if doubled := _doubled(ids):
        raise MismatchError(
            f"{len(doubled)} rows are held out more than once (ids {listed(doubled, 5)}): a row belongs to one fold"
        )
    folds = [part.fold for part in parts if part.fold is not None]
    values = np.concatenate([part.values for part in parts])
    return Predictions(ids, parts[0].names, values, np.concatenate(folds), _shared_meta(parts))


def mean_predictions(
    parts: Sequence[Predictions],
    weights: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
) -> Predictions:
    """Return the weighted mean of several predictions for the same rows, in the row order of the first.

    Args:
        parts: members with the same ids (in any order), names, form, task, folds hash (the latter three where both
            state one) and fold of each row.
        weights: one per member, >= 0, scaled to sum to one; equal when left out.
        labels: names of the members for messages; by default their runs.

    Raises:
        MismatchError: members do not belong together.
    """
    labels = _labels(parts, labels)
    shares = _shares(weights, len(parts))
    for label, part in zip(labels, parts, strict=True):
        check_alike(parts[0], part, (labels[0], label))
    aligned = [_align(part, parts[0], (labels[0], label)) for label, part in zip(labels, parts, strict=True)]
    stacked = np.stack([part.values for part in aligned]).astype(np.float64)
    mean = np.tensordot(shares, stacked, axes=1)
    return replace(aligned[0], values=mean.astype(np.float32), meta=_shared_meta(parts))


def average_by(predictions: Predictions, keys: Strings) -> Predictions:
    """Return one row for each key, the mean of its rows, in the order of the keys as text.

    Args:
        predictions: several rows may share a key (the files of one patient, the crops of one image).
        keys: (N,) strings in the row order of `predictions`; they become the ids.

    Raises:
        MismatchError: the rows of a key were held out in different folds.
    """
    # Sums in floating point depend on the order: by key and id, so that shuffled rows give the same bits.
    order = np.lexsort((predictions.ids, keys))
    rows = predictions.at(order)
    unique, starts, counts = np.unique(keys[order], return_index=True, return_counts=True)
    sums = np.add.reduceat(rows.values.astype(np.float64), starts, axis=0)
    fold = None if rows.fold is None else rows.fold[starts]
    if fold is not None:
        torn = np.repeat(fold, counts) != rows.fold
        if torn.any():
            raise MismatchError(
                f"rows that share an id lie in different folds: {listed(np.unique(keys[order][torn]), 5)}"
            )
    return Predictions(unique, rows.names, (sums / counts[:, None]).astype(np.float32), fold, rows.meta)


def label_of(predictions: Predictions) -> str:
    """Return what messages call a set of predictions: its task and run as far as it states them."""
    parts = [str(predictions.meta[key]) for key in ("task", "run") if predictions.meta.get(key)]
    return "/".join(parts) or "predictions"


def check_same_ids(found: Iterable[str], wanted: Iterable[str], who: str) -> None:
    """Raise MismatchError, naming up to five ids of each kind, unless both hold the same ids, each once."""
    found, wanted = list(found), list(wanted)
    for ids in (found, wanted):
        if doubled := _doubled(ids):
            raise MismatchError(f"{who}: {len(doubled)} ids occur more than once: {listed(doubled, 5)}")
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or extra:
        facts = [
            f"{len(ids)} {word} (ids {listed(ids, 5)})" for ids, word in ((missing, "missing"), (extra, "extra")) if ids
        ]
        raise MismatchError(f"{who}: not the rows that are wanted: {', '.join(facts)}")


def check_alike(first: Predictions, other: Predictions, labels: tuple[str, str]) -> None:
    """Raise MismatchError, naming both, unless two sets have one task, form, split and set of columns."""
    between = f"{labels[0]} and {labels[1]} do not belong together"
    if first.names != other.names:
        only = [sorted(set(a) - set(b)) for a, b in ((first.names, other.names), (other.names, first.names))]
        what = f"only in the first: {listed(only[0], 5)}; only in the second: {listed(only[1], 5)}"
        raise MismatchError(f"{between}: other columns ({what if any(only) else 'the same names in another order'})")
    for key, word in _SAME.items():
        ours, theirs = first.meta.get(key), other.meta.get(key)
        if None not in (ours, theirs) and ours != theirs:
            raise MismatchError(f"{between}: {word} {ours!r} against {theirs!r}")


def _from_table(table: Any) -> Predictions:
    """Return predictions from an Arrow table, or raise DataError for what our writer would not have written."""
    content = (table.schema.metadata or {}).get(_META_KEY)
    if content is None or "id" not in table.column_names:
        raise DataError("is Parquet, but holds no predictions (no id column, or no record of its origin)")
    columns = [name for name in table.column_names if name not in _RESERVED]
    wrong = [name for name in columns if str(table.schema.field(name).type) != "float"]
    if wrong:
        raise DataError(f"columns are not float32: {listed(wrong, 5)}")
    values = np.empty((table.num_rows, len(columns)), dtype=np.float32)
    for position, name in enumerate(columns):
        values[:, position] = table[name].to_numpy()
    ids = np.array(table["id"].to_pylist(), dtype=object)
    fold = table["fold"].to_numpy().copy() if "fold" in table.column_names else None
    return Predictions(ids, tuple(name.removeprefix(_ESCAPE) for name in columns), values, fold, json.loads(content))


def _escaped(name: str) -> str:
    return _ESCAPE + name if name in _RESERVED or name.startswith(_ESCAPE) else name


def _check_ids(ids: Strings) -> None:
    if ids.ndim != 1 or ids.dtype != object or not all(isinstance(name, str) and name for name in ids):
        wrong = [name for name in ids.ravel() if not (isinstance(name, str) and name)]
        raise MismatchError(
            f"ids must be a (N,) object array of strings that are not empty (found: {listed(wrong, 5)})"
        )
    if doubled := _doubled(ids):
        raise MismatchError(f"{len(doubled)} ids occur more than once: {listed(doubled, 5)}; average such rows first")


def _check_array(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: type) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise MismatchError(
            f"{name} must be {np.dtype(dtype)} of shape {shape} (found: {array.dtype} of shape {array.shape})"
        )


def _align(part: Predictions, first: Predictions, labels: tuple[str, str]) -> Predictions:
    """Return `part` in the row order of `first`; other rows, or rows held out in other folds, are an error."""
    try:
        aligned = part.aligned_to(first.ids)
    except MismatchError as error:
        raise MismatchError(f"{labels[1]} against {labels[0]}: {error}") from None
    if (aligned.fold is None) != (first.fold is None):
        raise MismatchError(f"{labels[0]} and {labels[1]} do not belong together: only one of them has a fold column")
    if aligned.fold is not None and first.fold is not None and (aligned.fold != first.fold).any():
        torn = first.ids[aligned.fold != first.fold]
        raise MismatchError(
            f"{labels[0]} and {labels[1]} do not belong together: other folds for ids {listed(torn, 5)}"
        )
    return aligned


def _shares(weights: Sequence[float] | None, n_members: int) -> Floats:
    shares = np.ones(n_members) if weights is None else np.asarray(weights, dtype=np.float64)
    if shares.shape != (n_members,) or not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() <= 0:
        raise MismatchError(f"weights must be {n_members} numbers >= 0 with a positive sum (found: {weights})")
    return np.asarray(shares / shares.sum())


def _labels(parts: Sequence[Predictions], labels: Sequence[str] | None) -> list[str]:
    if not parts:
        raise MismatchError("no predictions given; at least one member is needed")
    return list(labels) if labels else [f"{label_of(part)} (number {n})" for n, part in enumerate(parts, start=1)]


def _shared_meta(parts: Sequence[Predictions]) -> dict[str, Any]:
    """Return what all members state alike, and all their units."""
    first = parts[0].meta
    shared = {key: value for key, value in first.items() if all(part.meta.get(key) == value for part in parts)}
    units = [unit for part in parts for unit in part.meta.get("units", [])]
    return shared | ({"units": [unit for n, unit in enumerate(units) if unit not in units[:n]]} if units else {})


def _doubled(words: Iterable[str]) -> list[str]:
    """Return the words that occur more than once, sorted."""
    return sorted(word for word, count in Counter(words).items() if count > 1)
