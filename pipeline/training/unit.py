"""One unit of work from its claim to its marker: open the data, train, predict, write; models from what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.files import sha256_file, write_json
from pipeline.base.interrupt import StopFlag
from pipeline.base.plots import plot_history
from pipeline.base.progress import DisplayKind, Event
from pipeline.data.batches import Items, samples_of
from pipeline.data.dataset import Dataset
from pipeline.models.weights import read_weights, save_weights
from pipeline.records.cv import is_value, metric_of, prediction_names, score_values
from pipeline.records.folds import load_folds
from pipeline.records.lineage import lineage_of
from pipeline.records.machine import Machine
from pipeline.records.metrics import UndefinedMetricError
from pipeline.records.predictions import Predictions, save_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Unit, Workspace, now, versions
from pipeline.training.checkpoint import remove_checkpoints
from pipeline.training.device import threads
from pipeline.training.few_rows import few_rows
from pipeline.training.history import read_history
from pipeline.training.losses import activate
from pipeline.training.memory import freed_after
from pipeline.training.origins import load_unlabelled, require_clean_origins
from pipeline.training.predict import average_items, predict_views
from pipeline.training.recipe import Parts, build_parts, laid_out, new_model
from pipeline.training.scaling import Scaling, hard_labels, soft_targets
from pipeline.training.scoring import UnitData
from pipeline.training.state import final_weights, start_anew
from pipeline.training.subjects import subjects_of
from pipeline.training.train import train_unit

Report = Callable[[Any], None]

MODEL, SCALING = "model.", "scaling."
"""Before the names in a weight file; a later model that starts from it drops the first and passes over the second."""


@dataclass(frozen=True)
class UnitJob:
    """One unit to be trained, picklable: a worker process finds everything else in the files."""

    root: Path
    folder: Path
    unit: Unit
    machine: Machine
    data_of: Path | None = None
    """Folder of a run with the same task and input, whose data are open in this process while units of several runs
    follow each other; by default the unit's own run."""


@dataclass(frozen=True)
class OpenUnit:
    """A unit with everything that its training needs."""

    data: Dataset
    items: Items
    parts: Parts
    unit: UnitData
    heldout: NDArray[np.int64]
    """Which rows it is scored on."""


def train_unit_job(job: UnitJob, report: Report, stop: StopFlag) -> None:
    """Train, predict and finish one unit, and report the event of every step; see `unit_events`."""
    for event in unit_events(job, stop):
        report(event)


def unit_events(job: UnitJob, stop: StopFlag) -> Generator[Event, None, None]:
    """Train, predict and finish one unit: claim its folder, go on where it stood, write its marker last.

    Yields after every step, so that units of one process may take turns.

    Raises:
        StepMemoryError: a step does not fit into memory; what it held is free again.
        PodiumError: memory ran out elsewhere, or see `train_unit`.
    """
    events = _train_claimed(job, stop)
    while event := freed_after(lambda: next(events, None), job.unit.name, job.machine.device):
        yield event


def open_unit(job: UnitJob, run: Run) -> OpenUnit:
    """Return the data, new parts and samples of a unit of an opened run."""
    data = data_of_job(job)
    items, rows = data.train_items(job.machine.device), data.train.rows
    table = load_folds(Workspace(job.root).folds(run.task, run.experiment.folds))
    folds = table.without(run.task.exclude).aligned_to(rows.ids)
    require_clean_origins(job.root, run, job.unit, folds)
    train, heldout = folds.split(job.unit.fold)
    train = few_rows(rows, train, run.experiment.train.n_rows, job.unit.seed)
    parts = build_parts(run.task, run.experiment, job.machine, rows, items, train, job.unit.seed, job.unit.fold)
    unit = _unit_data(run, job.unit, rows, items, parts, train, heldout)
    extra = load_unlabelled(job.root, run, job.unit, data, parts.scaling, job.machine.device)
    return OpenUnit(data, items, parts, replace(unit, unlabelled=extra), heldout)


def data_of_job(job: UnitJob) -> Dataset:
    """Return the data of a job's run, or of the run that it names instead; kept open for the next job with the same."""
    source = Run(job.data_of or job.folder)
    return _dataset(job.root, source.folder, _stamps(Workspace(job.root), source))


def _train_claimed(job: UnitJob, stop: StopFlag) -> Iterator[Event]:
    run = Run(job.folder)
    with run.claim(job.unit) as folder, threads(job.machine.threads):
        run = Run(job.folder)  # as it stands now that the unit is ours
        if run.is_done(job.unit):
            return
        if (folder / "done.json").is_file():  # of batches that were split otherwise
            start_anew(folder)
        # Of the record, which another unit may have changed while this one waited for its turn.
        machine = job.machine.model_copy(update={"micro_batches": run.machine.micro_batches})
        opened = open_unit(job, run)
        yield from train_unit(opened.unit, opened.parts, run.experiment, machine, folder, stop)
        _finish_unit(run, job, opened, folder, stop)


def _unit_data(
    run: Run, unit: Unit, rows: Rows, items: Items, parts: Parts, train: NDArray[np.int64], heldout: NDArray[np.int64]
) -> UnitData:
    metric = metric_of(run.task, rows)
    has_classes = run.task.kind not in ("multilabel", "regression")

    def score_of(positions: NDArray[np.int64], values: NDArray[np.float32]) -> float | None:
        try:
            return score_values(rows.ids[positions], values, rows, metric, run.task)
        except UndefinedMetricError:
            return None

    return UnitData(
        name=f"fold {unit.fold}" + (f" seed {unit.seed}" if len(run.experiment.seeds) > 1 else ""),
        seed=unit.seed,
        ids=rows.ids,
        items=items,
        targets=soft_targets(run.task, rows, parts.scaling),
        labels=hard_labels(rows) if has_classes else None,
        train=samples_of(rows.ids, rows.items, train),
        heldout=samples_of(rows.ids, rows.items, heldout),
        score=partial(score_of, heldout),
        score_training=partial(score_of, train) if run.experiment.train.score_training else None,
        higher_is_better=metric.higher_is_better,
        metric=metric.name,
        subjects=subjects_of(run.experiment, rows, rows),
        lineage=lineage_of(unit.fold, run.record["folds"]["hash"]),
    )


def _finish_unit(run: Run, job: UnitJob, opened: OpenUnit, folder: Path, stop: StopFlag) -> None:
    """Write weights, predictions and curves of a trained unit, then its marker, then drop its checkpoints."""
    data, items, parts, heldout = opened.data, opened.items, opened.parts, opened.heldout
    which = run.experiment.train.weights
    parts.model.load_state_dict(final_weights(folder, parts, which))
    weights = {f"{MODEL}{name}": tensor for name, tensor in parts.model.state_dict().items()}
    scaling = {f"{SCALING}{name}": tensor for name, tensor in parts.scaling.tensors.items()}
    meta: dict[str, Any] = {
        "task": run.task.name,
        "run": run.name,
        "unit": job.unit.name,
        "weights": which,
        "versions": versions(),
    }
    meta["lineage"] = lineage_of(job.unit.fold, run.record["folds"]["hash"])
    digest = save_weights(folder / "weights.safetensors", {**weights, **scaling}, meta)
    rows = data.train.rows
    if len(heldout):
        predictions = predict_unit(
            run, job.unit, rows.at(heldout), items, parts.model, parts.scaling, digest, stop, rows
        )
        fold = np.full(len(heldout), job.unit.fold, dtype=np.int64)
        save_predictions(folder / "heldout.parquet", replace(predictions, fold=fold))
    if run.task.test is not None:
        test_rows, test_items = data.other(None, job.machine.device)
        predictions = predict_unit(run, job.unit, test_rows, test_items, parts.model, parts.scaling, digest, stop, rows)
        save_predictions(folder / "test.parquet", predictions)
    history = read_history(folder / "history.csv")
    plot_history(folder / "curves.png", {job.unit.name: history}, metric_of(run.task, rows).name)
    files = sorted(path for path in folder.glob("*.parquet"))
    marker = {"finished": now(), "sha256": {path.name: sha256_file(path) for path in files}}
    write_json(folder / "done.json", marker | {"micro_batches": run.machine.micro_batches})
    remove_checkpoints(folder)


def dataset_of(workspace: Workspace, run: Run, say: Callable[[str], None], show: DisplayKind = "auto") -> Dataset:
    """Return the data of a run as it was told to read them."""
    data = workspace.data(run.task)
    return Dataset(run.task, run.experiment.input, data, workspace.cache, run.machine.workers, say, show)


def predict_unit(
    run: Run,
    unit: Unit,
    rows: Rows,
    items: Items,
    model: torch.nn.Module,
    scaling: Scaling,
    weights_hash: str,
    stop: StopFlag,
    labelled: Rows | None = None,
) -> Predictions:
    """Return the predictions of one unit for rows in any order, with their provenance.

    `labelled` are all labelled rows, which number the subjects; without them, nobody's subject is known.
    """
    samples = samples_of(rows.ids, rows.items, np.arange(len(rows)))
    spec = run.experiment.predict
    subjects = None if labelled is None else subjects_of(run.experiment, labelled, rows)
    outputs = predict_views(
        model,
        items,
        samples.item,
        scaling,
        run.machine,
        spec.batch_size,
        spec.views,
        spec.average,
        lambda logits: activate(logits, run.task.kind, run.task.ordinal),
        stop,
        None if subjects is None else subjects.at(samples.row),
    )
    meta = {
        "task": run.task.name,
        "run": run.name,
        "units": [unit.name],
        "form": "values" if is_value(run.task) else "probs",
        "folds_hash": run.record["folds"]["hash"],
        "config_hash": run.record["config_hash"],
        "weights_hash": weights_hash,
        "versions": versions(),
    }
    values = average_items(outputs, samples, len(rows), scaling)
    return Predictions(rows.ids, prediction_names(run.task, rows.names), values, None, meta)


def _stamps(workspace: Workspace, run: Run) -> tuple[int, ...]:
    """Return when the run was started and its tables were written, in nanoseconds: another time is other data."""
    tables = [source.table for source in (run.task.train, run.task.test) if source is not None and source.table]
    paths = [run.folder / "run.json", *(workspace.data(run.task) / table for table in tables)]
    return tuple(path.stat().st_mtime_ns for path in paths)


@lru_cache(maxsize=1)
def _dataset(root: Path, folder: Path, _stamps: tuple[int, ...]) -> Dataset:
    """Return the data of a run, kept while units of the same run follow each other in one process."""
    run = Run(folder)
    return dataset_of(Workspace(root), run, lambda _: None, "quiet")


def load_unit(run: Run, unit: Unit, rows: Rows, items: Items) -> tuple[torch.nn.Module, Scaling, str]:
    """Return the model and scaling that a finished unit saved, and the hash of its weights; `rows` are the labelled."""
    path = run.unit_folder(unit) / "weights.safetensors"
    tensors, _ = read_weights(path)
    model = new_model(run.task, run.experiment.model.without_start(), items.shape, rows, seed=0)
    model.load_state_dict(_under(MODEL, tensors))
    model = laid_out(model.to(run.machine.device), items.shape, run.machine)
    scaling = {name: tensor.to(items.device) for name, tensor in _under(SCALING, tensors).items()}
    return model, Scaling(**scaling), sha256_file(path)


def _under(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
