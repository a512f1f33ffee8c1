"""Pseudo-label tables: soft targets by id, and the units that made them. One table for each fold, or one of all folds.

A table is a predictions file whose metadata name its makers, so that training can refuse labels made by a model that
has seen the rows which it is scored on (contract of lineage).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, LeakError, MismatchError, listed
from pipeline.records.predictions import Predictions, load_predictions, save_predictions
from pipeline.records.rows import Strings
from pipeline.records.runs import FoldName

Protocol = Literal["per-fold", "final"]
_MAKER_KEYS = {"run", "unit", "left_out", "folds_hash", "weights_hash"}


@dataclass(frozen=True)
class PseudoLabels:
    """What earlier models say about rows without labels."""

    targets: Predictions
    """Probabilities (one-hot where labels are hard) or values, of the rows that are trusted."""
    makers: tuple[Mapping[str, Any], ...]
    """For each unit that had a say: run, unit, left_out (its fold, or `all`), folds_hash, weights_hash."""
    protocol: Protocol
    """`per-fold`: every maker left the same fold out; `final`: all folds had a say."""
    round: int = 1
    """How many generations of models stand behind them."""


def table_path(folder: Path, fold: FoldName) -> Path:
    """Return where the labels for a fold lie: `fold0.parquet`, or `all.parquet` for models without CV."""
    return folder / (f"{fold}.parquet" if fold == "all" else f"fold{fold}.parquet")


def save_labels(path: Path, labels: PseudoLabels) -> None:
    """Write a table, whole or not at all."""
    about = {"makers": [dict(maker) for maker in labels.makers], "protocol": labels.protocol, "round": labels.round}
    meta = {**labels.targets.meta, "pseudo": about}
    save_predictions(path, replace(labels.targets, meta=meta))


def load_labels(path: Path) -> PseudoLabels:
    """Return the labels of a table.

    Raises:
        DataError: the file is missing or broken, or it does not say who made it.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such label table; make it with `podium pseudo RUN`, see pseudo.labels")
    targets = load_predictions(path)
    about = targets.meta.get("pseudo")
    makers = about.get("makers") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not makers or any(not maker.keys() >= _MAKER_KEYS for maker in makers):
        raise DataError(f"{path}: does not say which units made it, so it cannot be trusted; use `podium pseudo`")
    return PseudoLabels(targets, tuple(makers), about["protocol"], int(about["round"]))


def require_clean_labels(labels: PseudoLabels, path: Path, fold: FoldName, folds_hash: str) -> None:
    """Raise LeakError if a unit that holds out `fold` would learn labels whose makers have seen those rows.

    Args:
        labels: of the table at `path`.
        path: for the message.
        fold: of the unit; `all` holds nothing out and has no CV, so it may learn from anything.
        folds_hash: of the table that the unit trains on.
    """
    if fold == "all":
        return
    for maker in labels.makers:
        if maker["folds_hash"] != folds_hash:
            raise LeakError(
                f"{path}: {maker['run']}/{maker['unit']} was trained on another fold table, so it may have seen the"
                f" rows of fold {fold}. Make the labels with runs on the same table"
            )
        if maker["left_out"] != fold:
            raise LeakError(
                f"{path}: {maker['run']}/{maker['unit']} left out fold {maker['left_out']} and has seen fold {fold},"
                " which this unit is scored on. Make the labels with `podium pseudo --protocol per-fold`, or train a"
                " model without CV on them with --folds all"
            )


def require_labels_fit(labels: PseudoLabels, path: Path, task_name: str, names: Sequence[str], form: str) -> None:
    """Raise MismatchError unless the labels are of this task, with its columns in their order and of its form."""
    meta = labels.targets.meta
    if meta.get("task") != task_name or meta.get("form") != form:
        found = f"{meta.get('task')} ({meta.get('form')})"
        raise MismatchError(f"{path}: holds labels of {found}, but the task is {task_name} ({form})")
    if labels.targets.names != tuple(names):
        raise MismatchError(f"{path}: its columns are {listed(labels.targets.names)}, but the task has {listed(names)}")


def positions_of(ids: Iterable[str], known: Sequence[str] | Strings, path: Path) -> NDArray[np.int64]:
    """Return where the labelled ids stand among the rows without labels.

    Raises:
        MismatchError: some are not there, or there are none.
    """
    place = {row_id: position for position, row_id in enumerate(known)}
    wanted = list(ids)
    if not wanted:
        raise MismatchError(f"{path}: holds no labels, so there is nothing to learn from; trust more rows")
    if missing := [row_id for row_id in wanted if row_id not in place]:
        raise MismatchError(
            f"{path}: {len(missing)} of {len(wanted)} ids are neither in the test set nor in unlabelled:"
            f" ({listed(missing, 5)}); make the labels again"
        )
    return np.array([place[row_id] for row_id in wanted], dtype=np.int64)
