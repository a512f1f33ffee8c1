"""Rows without labels in training: which a step takes, what they weigh, who teaches, and whose labels are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_units import (
    CPU,
    N_EXTRA,
    assert_resumes,
    bits_of,
    make_experiment,
    make_extra,
    make_task,
    make_unit,
    same_bits,
    train_all,
)
from toys import make_toy, train_toy

from pipeline.base.errors import ConfigError, DataError, LeakError, MismatchError
from pipeline.base.interrupt import StopFlag
from pipeline.data.batches import Items, JoinedItems
from pipeline.data.dataset import Dataset
from pipeline.data.pages import Pages
from pipeline.data.stream import Stream
from pipeline.records.config import validate
from pipeline.records.experiment import Input
from pipeline.records.predictions import Predictions, load_predictions
from pipeline.records.pseudo_labels import PseudoLabels, load_labels, positions_of, save_labels, table_path
from pipeline.records.runs import Run, Unit
from pipeline.records.task import Task
from pipeline.records.unlabelled import PseudoSpec
from pipeline.training.losses import soft_cross_entropy
from pipeline.training.misfits import refuse_misfits
from pipeline.training.teacher import teach
from pipeline.training.train import StepAt, epoch_batches, make_batch, step_inputs
from pipeline.training.unit import UnitJob, train_unit_job
from pipeline.training.unlabelled import ExtraRows, Unlabelled, joined, rows_at, share_at

PSEUDO: dict[str, Any] = {"pseudo": {"labels": "labels", "ratio": 0.5, "weight": 2.0}}
FIXMATCH: dict[str, Any] = {
    "consistency": {"strong": {"erasing": {"prob": 1.0}}, "threshold": 0.35, "ratio": 0.5},
    "ema": {"decay": 0.8},
    "augment": {"shift": {"max_px": 1}},
}


def with_extra(experiment: Any, extra: Unlabelled | None) -> tuple[Any, Any]:
    unit, parts = make_unit(experiment)
    return replace(unit, unlabelled=extra), parts


def batch_of(experiment: Any, unit: Any, parts: Any, step: int = 0, epoch: int = 0) -> Any:
    order, batches = epoch_batches(unit, experiment, epoch)
    at = StepAt(epoch, step, len(batches), batches[step])
    inputs = next(step_inputs(Stream(unit.items, None, 0), unit, parts, order, [at.part], at.epoch))
    return make_batch(unit, parts, experiment, order, at, inputs)


# -- which rows, and how much they weigh -------------------------------------------------------------------------------


def test_every_row_is_taken_equally_often_whatever_the_steps_length() -> None:
    for n in (1, 5, 7, 30):
        taken = np.concatenate([rows_at(7, n, step, seed=3).sample for step in range(7 * 10 // n if n < 8 else 7)])
        counts = np.bincount(taken, minlength=7)
        assert counts.max() - counts.min() <= 1
    order = rows_at(7, 30, 2, seed=3)
    assert order.occurrence.tolist() == [place // 7 for place in range(60, 90)]


def test_rows_of_a_step_follow_from_seed_and_step_alone() -> None:
    first = rows_at(50, 20, 4, seed=3)
    rows_at(50, 20, 9, seed=8)
    assert np.array_equal(first.sample, rows_at(50, 20, 4, seed=3).sample)
    assert not np.array_equal(first.sample, rows_at(50, 20, 4, seed=4).sample)


def test_the_weight_starts_late_and_rises_linearly() -> None:
    spec = PseudoSpec(labels="x", weight=3.0, start_epoch=1, ramp_epochs=2.0)
    shares = [share_at(spec, epoch, step, 2) for epoch in range(4) for step in range(2)]
    assert shares == [0.0, 0.0, 0.0, 0.75, 1.5, 2.25, 3.0, 3.0]
    assert share_at(PseudoSpec(labels="x", start_epoch=1), 1, 0, 2) == 1.0


def test_the_loss_is_the_sum_of_both_means_whatever_their_sizes() -> None:
    logits, targets = torch.randn(7, 3), torch.eye(3)[torch.arange(7) % 3]
    extra = ExtraRows(torch.randn(5, 3), torch.eye(3)[torch.arange(5) % 3], torch.tensor([2.0, 0.0, 2.0, 2.0, 0.0]))
    inputs, all_targets, weights = joined(logits, targets, extra)
    found = soft_cross_entropy(inputs, all_targets, None, weights)
    own = soft_cross_entropy(logits, targets)
    each = -(extra.targets * extra.inputs.log_softmax(1)).sum(1)
    torch.testing.assert_close(found, own + (extra.weights * each).sum() / 5)
    assert joined(logits, targets, None) == (logits, targets, None)


def test_items_of_several_stores_come_in_the_order_asked_for() -> None:
    arrays = [np.arange(start, start + n, dtype=np.uint8).reshape(n, 1, 1) for start, n in ((0, 3), (10, 4))]
    items = JoinedItems([Items(array, "cpu") for array in arrays])
    assert items.fetch(np.array([5, 0, 3, 2, 6])).flatten().tolist() == [12, 0, 10, 2, 13]


def test_items_of_several_stores_are_asked_for_by_their_own_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    items = JoinedItems([Items(np.zeros((n, 1, 1), np.uint8), "cpu") for n in (3, 2, 4)])
    asked: list[list[int]] = []
    monkeypatch.setattr(Pages, "ask", lambda _, positions: asked.append(positions.tolist()))
    items.ask(np.array([7, 0, 5, 2, 8]))
    assert asked == [[0, 2], [2, 0, 3]]


def test_the_rows_of_the_next_step_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = make_experiment(PSEUDO)
    unit, parts = make_unit(experiment)
    unit = replace(unit, unlabelled=make_extra())
    asked: list[list[int]] = []
    monkeypatch.setattr(Pages, "ask", lambda _, positions: asked.append(positions.tolist()))
    for step in range(3):
        asked.clear()
        batch_of(experiment, unit, parts, step)
        mine, following = (rows_at(N_EXTRA, 5, each, unit.seed).sample.tolist() for each in (step, step + 1))
        assert asked[-2:] == [mine, following]


# -- pseudo-labels in the step -----------------------------------------------------------------------------------------


def test_pseudo_labelled_rows_stand_behind_the_labelled_ones_with_their_targets() -> None:
    experiment = make_experiment(PSEUDO)
    unit, parts = make_unit(experiment)
    extra = make_extra(with_targets=True)
    plain = batch_of(experiment, unit, parts)
    batch = batch_of(experiment, replace(unit, unlabelled=extra), parts)
    assert torch.equal(batch.inputs[:10], plain.inputs)
    taken = rows_at(N_EXTRA, 5, 0, unit.seed).sample
    assert extra.targets is not None
    assert torch.equal(batch.targets[10:], extra.targets[taken])
    stored = extra.items.fetch(taken)
    torch.testing.assert_close(batch.inputs[10:], (stored - parts.scaling.mean) / parts.scaling.std)
    assert batch.weights.tolist() == [1.5] * 10 + [6.0] * 5


def test_pseudo_labels_change_what_is_learnt_and_resume_bitwise(tmp_path: Path) -> None:
    experiment = make_experiment(PSEUDO, {"mix": {"mixup_alpha": 0.4}, "train": {"accumulation": 3}})
    unit, parts = make_unit(experiment)
    train_all(unit, parts, experiment, tmp_path / "plain")
    plain = bits_of(parts)
    unit, parts = make_unit(experiment)
    unit = replace(unit, unlabelled=make_extra(with_targets=True))
    train_all(unit, parts, experiment, tmp_path / "whole")
    unbroken = bits_of(parts)
    assert not same_bits(plain, unbroken)
    extra = unit.unlabelled
    assert_resumes(lambda: with_extra(experiment, extra), experiment, tmp_path, 4)


# -- the teacher -------------------------------------------------------------------------------------------------------


def test_the_teacher_is_the_averaged_model_on_the_weak_view_and_only_sure_rows_count() -> None:
    experiment = make_experiment(FIXMATCH, {"model": {"name": "mlp", "hidden": ()}})
    unit, parts = make_unit(experiment)
    unit = replace(unit, unlabelled=make_extra(with_targets=False))
    assert parts.ema is not None
    for tensor in parts.ema.state().values():
        tensor.mul_(-3.0)  # so that the average decides otherwise than the model
    batch = batch_of(experiment, unit, parts)
    weight, bias = parts.ema.state().values()
    plain_experiment = make_experiment({"augment": FIXMATCH["augment"], **PSEUDO})
    pseudo_unit = replace(unit, unlabelled=make_extra(with_targets=True))
    weak = batch_of(plain_experiment, pseudo_unit, parts).inputs[10:]
    probs = (weak.flatten(1) @ weight.T + bias).softmax(1)
    assert torch.equal(batch.targets[10:].argmax(1), probs.argmax(1))
    is_sure = probs.max(1).values >= 0.35
    assert torch.equal(batch.weights[10:] > 0, is_sure)
    strict = replace(parts, teach=lambda inputs: (torch.zeros(5, 3), torch.zeros(5)))
    assert batch_of(experiment, unit, strict).weights[10:].tolist() == [0.0] * 5


def test_a_teacher_of_two_classes_is_sure_of_either() -> None:
    net = torch.nn.Linear(1, 1)
    weights = {"weight": torch.ones(1, 1), "bias": torch.zeros(1)}
    logits = torch.tensor([[4.0], [0.1], [-0.1], [-4.0]])
    targets, is_sure = teach(net, weights, torch.sigmoid, 0.95, CPU, logits)
    assert targets.flatten().tolist() == [1.0, 1.0, 0.0, 0.0]
    assert is_sure.tolist() == [1.0, 0.0, 0.0, 1.0]


def test_the_strong_view_has_changes_and_draws_of_its_own() -> None:
    experiment = make_experiment(FIXMATCH)
    unit, parts = make_unit(experiment)
    unit = replace(unit, unlabelled=make_extra(with_targets=False))
    strong = batch_of(experiment, unit, parts).inputs[10:]
    black = (0 - parts.scaling.mean) / parts.scaling.std
    assert bool((strong == black).flatten(1).any(1).all())  # every row has an erased part
    same = make_experiment({**FIXMATCH, "consistency": {"strong": {"shift": {"max_px": 3}}, "ratio": 0.5}})
    unit_too, parts_too = make_unit(same)
    moved = batch_of(same, replace(unit_too, unlabelled=unit.unlabelled), parts_too).inputs[10:]
    plain = make_experiment({"augment": {"shift": {"max_px": 3}}, **PSEUDO})
    unit_weak, parts_weak = make_unit(plain)
    weak = batch_of(plain, replace(unit_weak, unlabelled=make_extra(True)), parts_weak).inputs[10:]
    assert not torch.equal(moved, weak)


def test_consistency_trains_finite_and_resumes_bitwise_with_sam_and_batch_norm(tmp_path: Path) -> None:
    net = {"model": {"name": "cnn3", "width": 4, "dropout": 0.2}, "sam": {"rho": 0.05}}
    experiment = make_experiment(FIXMATCH, net)
    unit, parts = make_unit(experiment)
    unit = replace(unit, unlabelled=make_extra(with_targets=False))
    train_all(unit, parts, experiment, tmp_path / "whole")
    unbroken = bits_of(parts)
    assert all(bool(tensor.isfinite().all()) for tensor in unbroken.values())
    assert_resumes(lambda: with_extra(experiment, unit.unlabelled), experiment, tmp_path, 4)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "task", "message"),
    [
        ({**PSEUDO, **FIXMATCH}, {}, "pseudo: and consistency: both learn from unlabelled rows"),
        (PSEUDO, {"rules": {"pseudo_labels": "forbidden"}}, "pseudo: the rules of the task forbid it"),
        ({**FIXMATCH, "ema": None}, {"test": {"table": "t.csv"}}, "consistency: needs the ema: block"),
        (FIXMATCH, {}, "consistency: needs rows without labels"),
        (PSEUDO, {}, "pseudo: needs rows without labels"),
        ({"pseudo": {}}, {"test": {"table": "t.csv"}}, "pseudo.labels: is missing"),
        (FIXMATCH, {"kind": "regression", "metric": "rmse", "test": {}}, "consistency: needs one class per row"),
    ],
)
def test_what_cannot_be_learnt_is_refused(blocks: dict[str, Any], task: dict[str, Any], message: str) -> None:
    if "test" in task:
        task = task | {"test": {"table": "test.csv", "array": {"file": "x.npy"}}}
    with pytest.raises(ConfigError, match=message):
        refuse_misfits(make_task(**task), make_experiment(blocks))


# -- tables of labels --------------------------------------------------------------------------------------------------


def label_run(root: Path, run: Run, change: Any = None) -> None:
    """Write a label table for every fold from the test predictions of its own unit."""
    for unit in run.done_units():
        predictions = load_predictions(run.unit_folder(unit) / "test.parquet")
        maker = {
            "run": run.name,
            "unit": unit.name,
            "left_out": unit.fold,
            "folds_hash": run.record["folds"]["hash"],
            "weights_hash": predictions.meta["weights_hash"],
        }
        labels = PseudoLabels(predictions, (maker,), "per-fold")
        save_labels(table_path(root / "labels", unit.fold), change(labels) if change else labels)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Run]:
    root = tmp_path_factory.mktemp("teacher")
    config = make_toy(root)
    return root, config, train_toy(root, config, ["train.epochs=1", "folds.n_folds=2"], name="teacher")


def test_a_student_learns_from_label_tables_and_they_are_part_of_what_it_is(teacher: Any) -> None:
    root, config, run = teacher
    label_run(root, run)
    options = ["train.epochs=1", "folds.n_folds=2", "pseudo.labels=labels"]
    student = train_toy(root, config, options, name="student")
    ours = load_predictions(student.folder / "oof.parquet").sorted()
    theirs = load_predictions(run.folder / "oof.parquet").sorted()
    assert not np.array_equal(ours.values, theirs.values)
    assert any(path.endswith("labels/fold0.parquet") for path in student.record["start_weights"])

    def softened(labels: PseudoLabels) -> PseudoLabels:
        values = (labels.targets.values * 0.5 + 0.5 / labels.targets.values.shape[1]).astype(np.float32)
        return replace(labels, targets=replace(labels.targets, values=values))

    label_run(root, run, softened)
    with pytest.raises(MismatchError):
        train_toy(root, config, options, name="student")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("left_out", 5, "left out fold 5 and has seen fold"),
        ("left_out", "all", "left out fold all and has seen fold"),
        ("folds_hash", "other", "was trained on another fold table"),
    ],
)
def test_a_forged_lineage_is_refused(teacher: Any, key: str, value: Any, message: str) -> None:
    root, config, run = teacher
    label_run(root, run, lambda labels: replace(labels, makers=({**labels.makers[0], key: value},)))
    with pytest.raises(LeakError, match=message):
        train_toy(root, config, ["train.epochs=1", "folds.n_folds=2", "pseudo.labels=labels"], name=f"forged-{value}")


def test_labels_of_another_fold_are_refused(teacher: Any) -> None:
    root, config, run = teacher
    label_run(root, run)
    first, second = (table_path(root / "labels", fold) for fold in (0, 1))
    swapped = load_labels(first), load_labels(second)
    save_labels(first, swapped[1])
    save_labels(second, swapped[0])
    with pytest.raises(LeakError, match=r"fold0.parquet: .*left out fold 1 and has seen fold 0"):
        train_toy(root, config, ["train.epochs=1", "folds.n_folds=2", "pseudo.labels=labels"], name="swapped")


def test_a_table_that_changed_under_a_running_student_is_refused(teacher: Any, monkeypatch: Any) -> None:
    root, config, run = teacher
    label_run(root, run)
    options = ["train.epochs=1", "folds.n_folds=2", "pseudo.labels=labels"]
    student = train_toy(root, config, options, name="late", folds=[0])
    labels = load_labels(table_path(root / "labels", 1))
    values = np.roll(labels.targets.values, 1, axis=1)
    save_labels(table_path(root / "labels", 1), replace(labels, targets=replace(labels.targets, values=values)))
    job = UnitJob(root, student.folder, Unit(1, 0), student.machine)
    with pytest.raises(MismatchError, match=r"labels/fold1.parquet: is not what .*late was started on"):
        train_unit_job(job, lambda _: None, StopFlag())


def test_kept_epochs_state_which_fold_they_left_out(teacher: Any) -> None:
    root, config, _ = teacher
    run = train_toy(root, config, ["train={epochs: 2, keep_epochs: 1}", "folds.n_folds=2"], name="kept")
    kept = run.folder / "units/fold0-seed0/epoch-00001.safetensors"
    with pytest.raises(LeakError, match="left out fold 0 and has seen fold 1"):
        train_toy(root, config, ["train.epochs=1", "folds.n_folds=2", f"model.weights={kept}"], name="from-kept")


def test_micro_batches_hold_both_kinds_of_rows() -> None:
    experiment = make_experiment(PSEUDO, {"train": {"accumulation": 3}})
    unit, parts = make_unit(experiment)
    batch = batch_of(experiment, replace(unit, unlabelled=make_extra()), parts)
    own = batch.weights == 1.5
    assert own.sum() == 10
    assert not own[:10].all()


def test_numbered_rows_of_both_sets_have_names_of_their_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, n in (("train", 12), ("test", 5), ("more", 6)):
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 255, (n, 1, 8, 8), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(12) % 3)
    source = {"array": {"file": "train.npy"}, "labels": {"file": "labels.npy"}}
    task = {"name": "numbers", "data": ".", "kind": "multiclass", "metric": "accuracy", "train": source}
    task |= {"test": {"array": {"file": "test.npy"}}, "unlabelled": {"array": {"file": "more.npy"}}}

    def dataset(**more: Any) -> Dataset:
        checked = validate(Task, task | more, "test")
        return Dataset(checked, Input(), tmp_path, tmp_path / "cache", 1, lambda _: None, "quiet")

    opened = dataset()
    rows, items = opened.unlabelled("cpu")
    twice = [[part for _, part in opened.unlabelled_sets("cpu")] for _ in range(2)]
    assert all(one is other for one, other in zip(*twice, strict=True))  # units in one process hold them once
    assert twice[0][0] is not twice[0][1]
    assert rows.ids.tolist() == [*map(str, range(5)), *(f"unlabelled-{number}" for number in range(6))]
    more = np.load(tmp_path / "more.npy")
    assert np.array_equal(items.fetch(np.array([5, 10])).numpy(), more[[0, 5]])
    with pytest.raises(DataError, match="unlabelled: is the training set itself"):
        dataset(unlabelled={"array": {"file": "train.npy"}}).unlabelled("cpu")
    np.save(tmp_path / "deep.npy", rng.integers(0, 60000, (5, 1, 8, 8)).astype(np.uint16))
    with pytest.raises(DataError, match="test items are stored as uint16, training items as uint8"):
        dataset(test={"array": {"file": "deep.npy"}}).unlabelled("cpu")


def test_tables_that_do_not_fit_are_named(teacher: Any, tmp_path: Path) -> None:
    root, config, run = teacher
    with pytest.raises(DataError, match=r"nowhere/fold0.parquet: no such label table; make it with `podium pseudo"):
        train_toy(root, config, ["folds.n_folds=2", "pseudo.labels=nowhere"], name="nowhere")
    label_run(root, run)
    labels = load_labels(table_path(root / "labels", 0))
    path = tmp_path / "fold0.parquet"
    with pytest.raises(MismatchError, match=r"1 of 1 ids are neither in the test set nor in unlabelled: \(x\)"):
        positions_of(["x"], labels.targets.ids, path)
    with pytest.raises(MismatchError, match="holds no labels"):
        positions_of([], labels.targets.ids, path)
    save_labels(path, replace(labels, makers=({"run": "a"},)))
    with pytest.raises(DataError, match="does not say which units made it"):
        load_labels(path)


def test_a_plain_run_of_toys_trains_with_consistency(teacher: Any) -> None:
    root, config, _ = teacher
    strong = "consistency={strong: {erasing: {prob: 1.0}}, ratio: 1.0, threshold: 0.4}"
    run = train_toy(root, config, ["train.epochs=1", "folds.n_folds=2", "ema={}", strong], name="fixmatch", folds=[0])
    assert isinstance(load_predictions(run.folder / "test.parquet"), Predictions)
    assert CPU.loaders == 0
