"""Label tables for rows without labels, one for each fold, that cannot leak. `podium pseudo RUN [RUN ...]`.

Protocol `per-fold`: the labels for fold k come only from units that left fold k out, so a student that is scored on
fold k has heard nothing of it, not even through its teachers. Protocol `final`: all units have a say; such labels may
train models without CV only (`podium train --folds all`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError, MismatchError, listed
from pipeline.base.files import hash_json, read_json, sha256_file, write_json
from pipeline.base.interrupt import StopFlag
from pipeline.blending.trust import (
    Trust,
    check_trust,
    harden,
    sharpen,
    trusted_multilabel,
    trusted_rows,
    trusted_values,
)
from pipeline.data.dataset import Dataset
from pipeline.records.cv import is_value, prediction_names
from pipeline.records.folds import load_folds
from pipeline.records.predictions import Predictions
from pipeline.records.pseudo_labels import Protocol, PseudoLabels, load_labels, save_labels, table_path
from pipeline.records.rows import Rows
from pipeline.records.runs import FoldName, Run, Unit, Workspace, now, versions
from pipeline.training.device import threads
from pipeline.training.origins import label_table
from pipeline.training.unit import dataset_of, load_unit, predict_unit

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What the labels shall be."""

    protocol: Protocol = "per-fold"
    is_hard: bool = False
    """The decided class instead of probabilities."""
    temperature: float = 1.0
    """Soft labels: below 1 sharpens them."""
    trust: Trust = field(default_factory=Trust)
    folds: tuple[int, ...] | None = None
    """Protocol per-fold: the folds that labels are made for; None for all."""


def make_labels(workspace: Workspace, runs: Sequence[Run], wanted: Wanted, name: str, say: Say) -> Path:
    """Write the label tables that runs of one task give the rows without labels; return their folder.

    They lie in `labels/<name>/` of the first run, with a summary `labels.json`.

    Args:
        workspace: where everything lies.
        runs: the teachers; on the same fold table.
        wanted: protocol, form and trust.
        name: of the folder.
        say: gets messages.

    Raises:
        ConfigError: the rules of the task forbid pseudo-labels, or a rule of trust does not fit the task.
        DataError: a fold is not finished, there are no rows without labels, or no row is trusted.
        MismatchError: the runs are of other tasks, classes or fold tables, or the folder holds other labels; labels
            that were made by the same units and rules are left as they are.
    """
    task = runs[0].task
    if task.rules.pseudo_labels == "forbidden":
        raise ConfigError(f"{task.name}: its rules forbid pseudo-labels (rules.pseudo_labels in task.yaml)")
    _check_teachers(runs, wanted)
    for run in runs:
        if run.experiment.train.weights == "best" or run.experiment.train.early_stop is not None:
            say(f"warning: the epochs of {run.name} were selected on their folds, so its labels know a little of them")
    data = dataset_of(workspace, runs[0], say)
    rows, _ = data.unlabelled("cpu")
    names = data.train.rows.names
    check_trust(wanted.trust, names, is_value(task), task.kind != "multilabel")
    if not wanted.temperature > 0 or (is_value(task) and (wanted.is_hard or wanted.temperature != 1)):
        raise ConfigError("--temperature: must be above 0; values have neither a temperature nor hard labels")
    folder = runs[0].folder / "labels" / name
    teachers = {fold: _teachers_of(fold, runs) for fold in _folds_of(runs[0], wanted)}
    made_from = hash_json(
        {"wanted": _plain(wanted), "makers": {str(k): list(map(_maker, v)) for k, v in teachers.items()}}
    )
    if (folder / "labels.json").is_file():
        if read_json(folder / "labels.json")["made_from"] == made_from:
            return folder
        raise MismatchError(
            f"{folder}: holds labels of other teachers or rules, which students may know; use --name NEW"
        )
    said = {run.folder: _unit_predictions(workspace, run, wanted, say) for run in runs}
    tables = {
        fold: _labels_for(workspace, of_fold, said, rows, _labelled_for(workspace, runs[0], data, fold), wanted)
        for fold, of_fold in teachers.items()
    }
    for fold, labels in tables.items():
        save_labels(table_path(folder, fold), labels)
    write_json(folder / "labels.json", _summary(tables, wanted, runs, len(rows)) | {"made_from": made_from})
    return folder


def describe_labels(folder: Path) -> list[list[Any]]:
    """Return a line for each table: fold, rows trusted, their share, mean certainty, and classes by count."""
    about = read_json(folder / "labels.json")
    return [
        [line["fold"], line["n_rows"], line["n_rows"] / about["n_unlabelled"], line["certainty"], line["classes"]]
        for line in about["tables"]
    ]


def _plain(wanted: Wanted) -> dict[str, Any]:
    """Return what was wanted as labels that are older than `folds` have it."""
    values = asdict(wanted)
    return values if wanted.folds is not None else {key: value for key, value in values.items() if key != "folds"}


def _check_teachers(runs: Sequence[Run], wanted: Wanted) -> None:
    for run in runs:
        if run.is_blend:
            raise MismatchError(f"{run.folder}: is a blend, which has no units that left a fold out; name its members")
        if run.task.name != runs[0].task.name:
            raise MismatchError(f"{run.folder} and {runs[0].folder}: are of different tasks")
        if wanted.protocol == "per-fold" and run.is_refit:
            raise MismatchError(
                f"{run.folder}: learnt from every row, so it has left no fold out; it may teach with --protocol final"
            )
        if run.record["folds"]["hash"] != runs[0].record["folds"]["hash"]:
            raise MismatchError(f"{run.folder} and {runs[0].folder}: were trained on different fold tables")
        missing = [unit.name for unit in _asked(run, wanted) if not run.is_done(unit)]
        if missing:
            raise DataError(f"{run.folder}: {listed(missing)} are not finished; `podium train` goes on with them")


def _asked(run: Run, wanted: Wanted) -> list[Unit]:
    """Return the units that the labels ask."""
    return [unit for unit in run.units() if wanted.folds is None or unit.fold in wanted.folds]


def _folds_of(run: Run, wanted: Wanted) -> list[FoldName]:
    if wanted.protocol == "final":
        return ["all"]
    return [fold for fold in range(run.record["folds"]["n_folds"]) if wanted.folds is None or fold in wanted.folds]


def _teachers_of(fold: FoldName, runs: Sequence[Run]) -> list[tuple[Run, Unit]]:
    """Return the units that may have a say in the labels for a fold: they left it out, or nothing is scored."""
    return [(run, unit) for run in runs for unit in run.units() if fold in ("all", unit.fold)]


def _labelled_for(workspace: Workspace, run: Run, data: Dataset, fold: FoldName) -> Rows:
    """Return the labelled rows that the labels for a fold may know of: those outside of it."""
    rows = data.train.rows
    table = load_folds(workspace.folds(run.task, run.experiment.folds)).without(run.task.exclude).aligned_to(rows.ids)
    return rows.at(table.split(fold)[0])


def _unit_predictions(workspace: Workspace, run: Run, wanted: Wanted, say: Say) -> dict[Unit, Predictions]:
    """Return what every unit of a run that is asked predicts for all rows without labels, its own views included."""
    data = dataset_of(workspace, run, say)
    rows, _ = data.unlabelled(run.machine.device)
    found = {}
    with threads(run.machine.threads):
        for unit in _asked(run, wanted):
            found[unit] = _predict_all(run, unit, data).aligned_to(rows.ids)
            say(f"{run.name}/{unit.name}: {len(rows)} rows without labels")
    return found


def _predict_all(run: Run, unit: Unit, data: Dataset) -> Predictions:
    sets = data.unlabelled_sets(run.machine.device)
    model, scaling, digest = load_unit(run, unit, data.train.rows, sets[0][1])
    labelled = data.train.rows
    parts = [predict_unit(run, unit, rows, items, model, scaling, digest, StopFlag(), labelled) for rows, items in sets]
    ids = np.concatenate([part.ids for part in parts])
    return replace(parts[0], ids=ids, values=np.concatenate([part.values for part in parts]))


def _labels_for(
    workspace: Workspace,
    teachers: Sequence[tuple[Run, Unit]],
    said: Mapping[Path, Mapping[Unit, Predictions]],
    rows: Rows,
    labelled: Rows,
    wanted: Wanted,
) -> PseudoLabels:
    """Return the trusted labels of one fold: the mean of its teachers, made hard or sharp."""
    task = teachers[0][0].task
    parts = [said[run.folder][unit] for run, unit in teachers]
    if other := [part for part in parts if part.names != parts[0].names]:
        raise MismatchError(f"teachers have other classes: {listed(parts[0].names)} and {listed(other[0].names)}")
    stacked = np.stack([part.values for part in parts]).astype(np.float64)
    mean = stacked.mean(axis=0)
    if is_value(task):
        chosen, targets = trusted_values(stacked, wanted.trust.keep_frac), mean
    elif task.kind == "multilabel":
        chosen = trusted_multilabel(mean, wanted.trust)
        targets = (mean >= 0.5).astype(np.float64) if wanted.is_hard else _both(mean, wanted.temperature)
    else:
        probs = np.hstack([1 - mean, mean]) if mean.shape[1] == 1 else mean
        chosen = trusted_rows(probs, wanted.trust, labelled.names, _prior(labelled))
        targets = harden(probs) if wanted.is_hard else sharpen(probs, wanted.temperature)
        targets = targets[:, 1:] if mean.shape[1] == 1 else targets
    if not len(chosen):
        raise DataError("no row is trusted by these rules; lower --threshold, or raise --top-n or --proportion")
    meta = {"task": task.name, "form": "values" if is_value(task) else "probs", "versions": versions()}
    names = prediction_names(task, labelled.names)
    table = Predictions(rows.ids[chosen], names, targets[chosen].astype(np.float32), None, meta)
    rounds = [_round(workspace, run, unit.fold) for run, unit in teachers]
    return PseudoLabels(table, tuple(map(_maker, teachers)), wanted.protocol, 1 + max(rounds))


def _both(probs: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return each label's probability with its odds raised to 1/T."""
    pairs = np.stack([1 - probs.ravel(), probs.ravel()], axis=1)
    return sharpen(pairs, temperature)[:, 1].reshape(probs.shape)


def _prior(labelled: Rows) -> NDArray[np.float64]:
    """Return the share of each class among the labelled rows, (K,)."""
    targets = np.asarray(labelled.targets)
    if targets.ndim == 2:
        return np.asarray(targets.mean(axis=0, dtype=np.float64))
    return np.bincount(targets, minlength=len(labelled.names)) / len(targets)


def _maker(teacher: tuple[Run, Unit]) -> dict[str, Any]:
    run, unit = teacher
    return {
        "run": run.name,
        "unit": unit.name,
        "left_out": unit.fold,
        "folds_hash": run.record["folds"]["hash"],
        "weights_hash": sha256_file(run.unit_folder(unit) / "weights.safetensors"),
    }


def _round(workspace: Workspace, run: Run, fold: FoldName) -> int:
    """Return how many generations of pseudo-labels a unit has learnt from: 0 for one of labelled rows alone."""
    table = label_table(run.experiment, fold)
    path = None if table is None else workspace.root / table
    return load_labels(path).round if path is not None and path.is_file() else 0


def _summary(
    tables: Mapping[FoldName, PseudoLabels], wanted: Wanted, runs: Sequence[Run], n_unlabelled: int
) -> dict[str, Any]:
    return {
        "protocol": wanted.protocol,
        "hard": wanted.is_hard,
        "temperature": wanted.temperature,
        "trust": {key: value for key, value in vars(wanted.trust).items() if value},
        "runs": [run.name for run in runs],
        "n_unlabelled": n_unlabelled,
        "tables": [_line(fold, labels) for fold, labels in tables.items()],
        "created": now(),
    }


def _line(fold: FoldName, labels: PseudoLabels) -> dict[str, Any]:
    targets = labels.targets
    is_classes = targets.meta["form"] == "probs" and len(targets.names) > 1
    counts = np.bincount(targets.values.argmax(axis=1), minlength=len(targets.names)) if is_classes else None
    shown = (
        ", ".join(f"{name} {n}" for name, n in zip(targets.names, counts, strict=True)) if counts is not None else ""
    )
    return {
        "fold": fold,
        "n_rows": len(targets),
        "certainty": float(targets.values.max(axis=1).mean()) if is_classes else None,
        "classes": shown,
        "makers": [f"{maker['run']}/{maker['unit']}" for maker in labels.makers],
        "round": labels.round,
    }
