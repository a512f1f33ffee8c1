"""What a unit learns from beside its own rows, start weights and pseudo-labels: unchanged, and clean of its fold."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from pipeline.base.errors import MismatchError
from pipeline.base.files import sha256_file
from pipeline.data.batches import samples_of
from pipeline.data.dataset import Dataset
from pipeline.models.weights import read_model_meta
from pipeline.records.cv import is_value, prediction_names
from pipeline.records.experiment import Experiment
from pipeline.records.folds import Folds
from pipeline.records.lineage import require_clean_start
from pipeline.records.pseudo_labels import (
    PseudoLabels,
    load_labels,
    positions_of,
    require_clean_labels,
    require_labels_fit,
    table_path,
)
from pipeline.records.rows import Rows
from pipeline.records.runs import FoldName, Run, Unit
from pipeline.records.task import Task
from pipeline.training.scaling import Scaling
from pipeline.training.unlabelled import Unlabelled


def start_weights(experiment: Experiment, fold: FoldName) -> Path | None:
    """Return the file that the units of a fold start from; None where they start from their own initialisation."""
    weights = experiment.model.started_for(fold).options.get("weights")
    return Path(weights) if isinstance(weights, str) else None


def label_table(experiment: Experiment, fold: FoldName) -> Path | None:
    """Return the label table of a fold, relative to the workspace; None without `pseudo:`."""
    spec = experiment.pseudo
    return None if spec is None or spec.labels is None else table_path(Path(spec.labels), fold)


def origin_hashes(root: Path, experiment: Experiment, folds: Iterable[FoldName]) -> dict[str, str]:
    """Return the SHA-256 of all start weights and label tables: a path alone does not say what a run learnt from.

    Keys are paths as the config has them, those of tables relative to the workspace, so that it may be moved.
    """
    paths = {key: path for fold in folds for key, path in _origins(root, experiment, fold).items()}
    return {key: sha256_file(path) for key, path in sorted(paths.items()) if path.is_file()}


def require_clean_origins(root: Path, run: Run, unit: Unit, folds: Folds) -> None:
    """Raise unless a unit's fold table and origins are those that the run started with, and have not seen its fold.

    Raises:
        MismatchError: the fold table, the start weights or the labels are not what the run was started on.
        LeakError: the start weights have seen the rows that this unit is scored on.
    """
    if folds.table_hash != run.record["folds"]["hash"]:
        raise MismatchError(
            f"{run.folder}: was started on another fold table than '{folds.name}' now holds. Bring the old table back,"
            " or start a run of its own with --name NEW"
        )
    known = run.record.get("start_weights", {})
    for key, path in _origins(root, run.experiment, unit.fold).items():
        if key in known and (not path.is_file() or sha256_file(path) != known[key]):
            raise MismatchError(
                f"{path}: is not what {run.folder} was started on. Bring the old file back, or start a run of its own"
                " with --name NEW"
            )
    start = start_weights(run.experiment, unit.fold)
    if start is not None and start.with_suffix(".json").is_file():
        require_clean_start(read_model_meta(start), start, unit.fold, folds.table_hash)


def read_labels(
    root: Path, task: Task, experiment: Experiment, fold: FoldName, folds_hash: str, labelled: Rows, unlabelled: Rows
) -> tuple[PseudoLabels, Rows]:
    """Return the pseudo-labels for a fold, and the rows without labels that they are for, in their order.

    Raises:
        LeakError: the makers of the labels have seen the rows of this fold.
        DataError, MismatchError: the table is missing, of another task, or names rows that are not there.
    """
    table = label_table(experiment, fold)
    if table is None:
        raise ValueError("the experiment names no labels")
    path = root / table
    labels = load_labels(path)
    names = prediction_names(task, labelled.names)
    require_labels_fit(labels, path, task.name, names, "values" if is_value(task) else "probs")
    require_clean_labels(labels, path, fold, folds_hash)
    return labels, unlabelled.at(positions_of(labels.targets.ids, unlabelled.ids, path))


def load_unlabelled(
    root: Path, run: Run, unit: Unit, data: Dataset, scaling: Scaling, device: str
) -> Unlabelled | None:
    """Return the rows without labels that a unit learns from, with their pseudo-labels where it is given any.

    Raises:
        LeakError, DataError, MismatchError: see `read_labels`.
    """
    if run.experiment.pseudo is None and run.experiment.consistency is None:
        return None
    rows, items = data.unlabelled(device)
    if run.experiment.pseudo is None:
        return Unlabelled(items, samples_of(rows.ids, rows.items, np.arange(len(rows))), None)
    folds_hash = run.record["folds"]["hash"]
    labels, rows = read_labels(root, run.task, run.experiment, unit.fold, folds_hash, data.train.rows, rows)
    samples = samples_of(rows.ids, rows.items, np.arange(len(rows)))
    targets = torch.from_numpy(labels.targets.values.copy()).to(scaling.mean.device)
    return Unlabelled(items, samples, scaling.standardised(targets))


def _origins(root: Path, experiment: Experiment, fold: FoldName) -> dict[str, Path]:
    weights, table = start_weights(experiment, fold), label_table(experiment, fold)
    paths = {} if weights is None else {str(weights): weights}
    return paths if table is None else paths | {table.as_posix(): root / table}
