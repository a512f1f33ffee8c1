"""Soups: runs of one net averaged in their weights into a run of one net (`podium soup RUN RUN ...`).

The soup of fold k is made of nets that left fold k out, so its OOF is as honest as theirs. Two exceptions are marked
wherever the score is shown: a greedy soup chooses its members by the rows that score it, and one model of all folds has
no CV, as its members together have seen every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.base.errors import DataError, MismatchError, listed
from pipeline.base.files import hash_json, read_json, sha256_file, write_json
from pipeline.base.interrupt import StopFlag
from pipeline.blending.soup import (
    Soup,
    State,
    average_weights,
    greedy_soup,
    is_among,
    moved_norms,
    refresh_norms,
    uniform_soup,
)
from pipeline.data.batches import Items, even_slices, samples_of
from pipeline.data.dataset import Dataset
from pipeline.models.subjects import add_subjects
from pipeline.models.weights import read_model_meta, read_weights, save_weights
from pipeline.records.cv import metric_of, score_or_note
from pipeline.records.folds import Folds, load_folds
from pipeline.records.lineage import lineage_of, require_clean_start
from pipeline.records.metrics import Metric
from pipeline.records.predictions import Predictions, load_predictions, save_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Unit, Workspace, git_commit, now, versions
from pipeline.stages.crossval import finish_run
from pipeline.stages.soup_members import (
    Ingredient,
    Pots,
    pots_of,
    require_fitting_wishes,
    require_same_net,
    require_shared_start,
)
from pipeline.training.device import autocast, resolve_device, resolve_precision, threads
from pipeline.training.few_rows import few_rows
from pipeline.training.history import write_history
from pipeline.training.recipe import laid_out, new_model
from pipeline.training.scaling import Scaling, prepare
from pipeline.training.subjects import subjects_of
from pipeline.training.unit import MODEL, SCALING, dataset_of, predict_unit

How = Literal["uniform", "greedy"]

CHOSEN = "members chosen on the fold that scores them"
"""The mark of the score of a greedy soup."""


@dataclass(frozen=True)
class Wishes:
    """What the user asks of a soup."""

    how: How = "uniform"
    """`uniform` averages all; `greedy` takes in one after another while the score on the fold does not fall."""
    across_folds: bool = False
    """One model of all folds: test predictions, no CV."""
    n_epochs: int | None = None
    """Of one run: average the last epochs of each unit whose weights were kept."""
    name: str | None = None
    """Of the new run; by default made of the members' names."""
    device: str = "auto"
    """By default that of the first run."""


def soup_runs(
    workspace: Workspace, runs: Sequence[Run], wishes: Wishes, say: Callable[[str], None]
) -> tuple[Run, dict[str, Any]]:
    """Write the soup of finished runs of one net as a run folder; return it and its scores, as `cv.json` holds them.

    It predicts as the first run does (views, batch size). Running statistics of batch norms are measured anew, on the
    training rows of the fold as they are at prediction, unless the soup is one of its members, bit for bit.

    Raises:
        ConfigError: wishes exclude each other.
        DataError: a run is not finished or kept no epochs, or the metric of a greedy soup is undefined on a fold.
        LeakError: weights do not leave out the fold that they would be scored on.
        MismatchError: the runs do not share net or start, or the name is taken by something else.
    """
    require_same_net(runs)
    require_fitting_wishes(runs, wishes.how == "greedy", wishes.across_folds, wishes.n_epochs)
    pots = pots_of(runs, wishes.across_folds, wishes.n_epochs)
    data = dataset_of(workspace, runs[0], say)
    rows = data.train.rows
    items = data.train_items(resolve_device(runs[0].machine.device if wishes.device == "auto" else wishes.device))
    folds = _folds_of(workspace, runs[0], rows)
    for unit, pot in pots.items():
        _require_unseen(unit, pot, folds)
        require_shared_start(pot, lambda each: _start_of(each, items, rows))
    if wishes.across_folds and not {"weights", "pretrained"} & runs[0].experiment.model.options.keys():
        say(
            "note: the folds started from random weights, and nets trained long from there may leave each other's"
            " valley (https://arxiv.org/abs/1912.05671). No CV will tell; fine-tuned nets are the safer members"
        )
    run = _open_run(workspace, runs, pots, wishes, items.device)
    with threads(run.machine.threads):
        for unit, pot in pots.items():
            with run.claim(unit) as folder:
                if not run.is_done(unit):
                    say(f"{unit.name}: {wishes.how} soup of {listed([each.name for each in pot], 6)}")
                    _make_unit(_bench(run, unit, pot, data, items, folds), pot, wishes.how, data, folder)
    return run, _finish(workspace, run, runs, wishes.how, rows)


@dataclass(frozen=True)
class _Bench:
    """What one unit of a soup is made with."""

    run: Run
    """The soup."""
    unit: Unit
    rows: Rows
    """All labelled rows."""
    held: Rows
    """Those of the fold."""
    train: NDArray[np.int64]
    """(N,) positions of the training rows."""
    items: Items
    """Of the labelled rows."""
    states: list[State]
    """Of the pot, in its order."""
    scaling: Scaling
    metric: Metric

    def model_of(self, state: State) -> nn.Module:
        """Return the net with these weights, batch norms measured anew where the soup is none of its members."""
        run, shape = self.run, self.items.shape
        model = new_model(run.task, run.experiment.model.without_start(), shape, self.rows, seed=0)
        model.load_state_dict(dict(state))
        model = laid_out(model.to(run.machine.device), shape, run.machine)
        if not is_among(state, self.states):
            with autocast(run.machine.device, run.machine.precision):
                refresh_norms(model, moved_norms(model, self.states), self._inputs())
        return model

    def predict(self, model: nn.Module, rows: Rows, items: Items, digest: str) -> Predictions:
        """Return the predictions of the net as training makes them."""
        return predict_unit(self.run, self.unit, rows, items, model, self.scaling, digest, StopFlag(), self.rows)

    def score(self, state: State) -> float:
        """Return the score of weights on the fold, higher is better."""
        predictions = self.predict(self.model_of(state), self.held, self.items, "")
        score, note = score_or_note(predictions, self.rows, self.metric)
        if score is None:
            raise DataError(
                f"--greedy: {self.metric.name} is undefined on fold {self.unit.fold} ({note}), so no members can be"
                " chosen there; leave --greedy out"
            )
        return score if self.metric.higher_is_better else -score

    def _inputs(self) -> Iterator[Tensor]:
        """Yield the training items as they are at prediction, in batches of training's size."""
        samples = samples_of(self.rows.ids, self.rows.items, self.train)
        subjects = subjects_of(self.run.experiment, self.rows, self.rows)
        parts = even_slices(len(samples), self.run.experiment.train.batch_size)
        for part, stored in zip(parts, self.items.fetch_each([samples.item[part] for part in parts]), strict=True):
            inputs = prepare(stored, self.scaling, self.run.machine.channels_last)
            if subjects is not None:
                number = torch.from_numpy(subjects.number[samples.row[part]])
                inputs = add_subjects(inputs, number, subjects.n_subjects)
            yield inputs


def _bench(run: Run, unit: Unit, pot: Sequence[Ingredient], data: Dataset, items: Items, folds: Folds) -> _Bench:
    rows = data.train.rows
    train, heldout = folds.split(unit.fold)
    train = few_rows(rows, train, run.experiment.train.n_rows, unit.seed)
    held = replace(rows.at(heldout), targets=None)
    states, scalings = zip(*(_weights_of(each) for each in pot), strict=True)
    if unit.fold != "all":
        _require_same_scaling(pot, scalings)
    scaling = Scaling(**{name: tensor.to(items.device) for name, tensor in average_weights(scalings).items()})
    return _Bench(run, unit, rows, held, train, items, list(states), scaling, metric_of(run.task, rows))


def _make_unit(bench: _Bench, pot: Sequence[Ingredient], how: How, data: Dataset, folder: Path) -> None:
    """Choose, average, predict and write one unit as training does, its marker last."""
    run, unit = bench.run, bench.unit
    soup = greedy_soup(bench.states, bench.score) if how == "greedy" else uniform_soup(bench.states)
    model = bench.model_of(soup.weights)
    digest = _save(bench, soup, pot, model, folder / "weights.safetensors")
    score = None
    if len(bench.held):
        predictions = bench.predict(model, bench.held, bench.items, digest)
        fold = np.full(len(bench.held), unit.fold, dtype=np.int64)
        save_predictions(folder / "heldout.parquet", replace(predictions, fold=fold))
        score = score_or_note(predictions, bench.rows, bench.metric)[0]
    if run.task.test is not None:
        save_predictions(folder / "test.parquet", bench.predict(model, *data.other(None, bench.items.device), digest))
    sign = 1 if bench.metric.higher_is_better else -1
    steps: list[float | None] = [sign * reached for reached in soup.scores] or [score]
    first = len(soup.members) - len(steps) + 1
    history = [{"n_members": number, bench.metric.name: reached} for number, reached in enumerate(steps, first)]
    write_history(folder / "history.csv", history)
    files = sorted(folder.glob("*.parquet"))
    write_json(folder / "done.json", {"finished": now(), "sha256": {path.name: sha256_file(path) for path in files}})


def _save(bench: _Bench, soup: Soup, pot: Sequence[Ingredient], model: nn.Module, path: Path) -> str:
    """Write the weights with their lineage and what they are made of; return their SHA-256."""
    run, sign = bench.run, 1 if bench.metric.higher_is_better else -1
    meta = {
        "task": run.task.name,
        "run": run.name,
        "unit": bench.unit.name,
        "weights": "soup",
        "members": [pot[position].name for position in soup.members],
        "own_scores": {each.name: sign * own for each, own in zip(pot, soup.own, strict=False)},
        "versions": versions(),
        "lineage": lineage_of(bench.unit.fold, run.record["folds"]["hash"]),
    }
    weights = {f"{MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    scaling = {f"{SCALING}{name}": tensor for name, tensor in bench.scaling.tensors.items()}
    return save_weights(path, {**weights, **scaling}, meta)


def _finish(workspace: Workspace, run: Run, runs: Sequence[Run], how: How, rows: Rows) -> dict[str, Any]:
    """Derive OOF, test predictions and CV as of any run, and say beside the score what was selected."""
    cv = finish_run(workspace, run)
    metric, members = metric_of(run.task, rows), []
    for each in runs:
        path = each.folder / "oof.parquet"
        pooled = score_or_note(load_predictions(path), rows, metric)[0] if path.is_file() else None
        members.append({"run": each.name, "pooled": pooled})
    metas = {unit.name: read_model_meta(run.unit_folder(unit) / "weights.safetensors") for unit in run.done_units()}
    notes = [note for note in (cv["note"], run.record["soup"]["selection"]) if note]
    cv |= {
        "note": "; ".join(notes) or None,
        "weights": f"{how} soup",
        "members": members,
        "soups": {name: {"members": meta["members"], "own_scores": meta["own_scores"]} for name, meta in metas.items()},
    }
    write_json(run.folder / "cv.json", cv)
    return cv


# -- the record --------------------------------------------------------------------------------------------------------


def _open_run(workspace: Workspace, runs: Sequence[Run], pots: Pots, wishes: Wishes, device: str) -> Run:
    """Return the run of a soup: a new folder, or the old one when the same weights made it in the same way."""
    first, paths = runs[0], {each.weights for pot in pots.values() for each in pot}
    hashes = {str(path): sha256_file(path) for path in sorted(paths)}
    made_of = {each.run.name: each.run.record["config_hash"] for pot in pots.values() for each in pot}
    soup = {
        "how": wishes.how,
        "pots": {unit.name: [each.name for each in pot] for unit, pot in pots.items()},
        "weights": {each.name: sha256_file(each.epoch or each.weights) for pot in pots.values() for each in pot},
        "members": made_of,
        "selection": _selection(runs, pots, wishes.how),
    }
    precision = resolve_precision(first.machine.precision, device)
    record = {
        "task": first.record["task"],
        "experiment": first.record["experiment"] | {"seeds": sorted({unit.seed for unit in pots})},
        "config_hash": hash_json(soup),
        "folds": first.record["folds"],
        "is_refit": any(unit.fold == "all" for unit in pots),
        "machine": first.machine.model_copy(
            update={"device": device, "precision": precision, "micro_batches": 1}  # of a training, which this is not
        ).plain(),
        "created": now(),
        "versions": versions(),
        "git_commit": git_commit(),
        # Also for `podium train --name`: no config starts from its own members, so none goes on with a soup's folder.
        "start_weights": first.record.get("start_weights", {}) | hashes,
        "soup": soup,
    }
    folder = workspace.run(first.task, wishes.name or _default_name(runs, wishes))
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    with run.locked():
        if not (folder / "run.json").is_file():
            write_json(folder / "run.json", record)
        elif read_json(folder / "run.json").get("soup") != soup:
            raise MismatchError(f"{folder}: is another run, blend or soup; choose a name with --name")
    return run


def _default_name(runs: Sequence[Run], wishes: Wishes) -> str:
    """Return a name that tells the soups of the same runs apart."""
    kind = "greedy-soup" if wishes.how == "greedy" else "soup"
    more = f"-last{wishes.n_epochs}" if wishes.n_epochs else "-all" if wishes.across_folds else ""
    return f"{kind}-{'+'.join(run.name for run in runs)}{more}"


def _selection(runs: Sequence[Run], pots: Pots, how: How) -> str | None:
    """Return which choices looked at the fold that scores them; None where there is no such score, or no choice."""
    if all(unit.fold == "all" for unit in pots):
        return None
    flattered = [run.name for run in runs if run.experiment.train.weights == "best" or run.experiment.train.early_stop]
    epochs = f"epochs of {listed(flattered)} chosen on the fold that scores them" if flattered else None
    return "; ".join(note for note in (CHOSEN if how == "greedy" else None, epochs) if note) or None


# -- members -----------------------------------------------------------------------------------------------------------


def _weights_of(each: Ingredient) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state and the scaling of a set of weights, on the CPU."""
    tensors = read_weights(each.weights)[0]
    state, scaling = (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in (MODEL, SCALING)
    )
    return (state if each.epoch is None else read_weights(each.epoch)[0]), scaling


def _start_of(each: Ingredient, items: Items, rows: Rows) -> dict[str, Tensor]:
    """Return the weights that a unit started from, made again."""
    spec = each.run.experiment.model.started_for(each.unit.fold)
    return dict(new_model(each.run.task, spec, items.shape, rows, each.unit.seed).state_dict())


def _folds_of(workspace: Workspace, run: Run, rows: Rows) -> Folds:
    """Return the fold table of the members, in the order of the rows."""
    table = load_folds(workspace.folds(run.task, run.experiment.folds))
    if table.table_hash != run.record["folds"]["hash"]:
        raise MismatchError(f"{run.folder}: was trained on another fold table than '{table.name}' now holds")
    return table.without(run.task.exclude).aligned_to(rows.ids)


def _require_unseen(unit: Unit, pot: Sequence[Ingredient], folds: Folds) -> None:
    for each in pot:
        require_clean_start(read_model_meta(each.weights), each.weights, unit.fold, folds.table_hash)


def _require_same_scaling(pot: Sequence[Ingredient], scalings: Sequence[dict[str, Tensor]]) -> None:
    """Refuse members of one fold whose items or targets were scaled otherwise: their weights mean other things."""
    for each, scaling in zip(pot, scalings, strict=True):
        odd = [name for name in scaling if not torch.allclose(scaling[name], scalings[0][name], rtol=1e-5, atol=0)]
        if odd:
            raise MismatchError(
                f"{pot[0].name} and {each.name} scale {listed(odd)} differently, though they left the same fold out:"
                " the files or the table have changed between the two trainings. Train both on the same data"
            )
