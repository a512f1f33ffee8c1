"""The self-test passes a sound config of every kind and names the cause of each planted fault."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import make_toy

from pipeline import api, commands
from pipeline.base.errors import ConfigError
from pipeline.records.config import load_config
from pipeline.records.experiment import Experiment
from pipeline.records.folds import Folds
from pipeline.records.rows import Rows
from pipeline.records.runs import Workspace
from pipeline.stages import crossval
from pipeline.stages.check import CHECKS, Report, check_config
from pipeline.stages.checks import options, overfit, shuffled
from pipeline.stages.checks.choice import choose_rows
from pipeline.stages.checks.context import Context, Finding
from pipeline.stages.checks.options import READ, options_of
from pipeline.stages.checks.outputs import COMPLETE
from pipeline.stages.checks.overfit import OVERFIT
from pipeline.stages.checks.seen import LABELS, SAME
from pipeline.stages.checks.shuffled import SHUFFLED, p_value
from pipeline.stages.contact_sheet import SHEET
from pipeline.stages.machines import Wishes
from pipeline.training import predict, recipe, train
from pipeline.training import unit as training_unit

BUSY: dict[str, Any] = {
    "model": {"name": "cnn3", "width": 4, "dropout": 0.2},
    "augment": {"shift": {"max_px": 1, "fill": "edge"}, "flip": {}, "erasing": {"prob": 0.1}},
    "mix": {"mixup_alpha": 0.5, "cutmix_alpha": 1.0, "per": "sample", "off_epochs": 2},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1, "class_weights": "balanced"},
    "optimizer": {"name": "adamw", "lr": 0.02, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup_epochs": 1.0},
    "sam": {"rho": 0.1, "start_epoch": 3},
    "ema": {"decay": 0.4},
    "train": {"epochs": 8, "weights": "ema", "sampling": "balanced"},
}
"""Something in every block."""
SMALL: dict[str, Any] = {
    "augment": {"flip": {}},
    "mix": {"mixup_alpha": 0.5, "cutmix_alpha": 1.0},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "sam": {"rho": 0.1},
}
NAMES = [name for name, _ in CHECKS]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out curves.png and the wait for the disk, which would take most of the time, and learn by heart faster."""
    for module in (training_unit, crossval):
        monkeypatch.setattr(module, "plot_history", lambda *_: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(shuffled, "MAX_EPOCHS", 12)
    monkeypatch.setattr(overfit, "N_STEPS", 120)


def run_check(root: Path, config: Path, overrides: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> Report:
    wishes = Wishes(device="cpu", threads=1, workers=1, show="quiet")
    checks = [(name, check) for name, check in CHECKS if not only or name in only]
    loaded = load_config(config, overrides)
    return check_config(Workspace(root), loaded, wishes, lambda _: None, limit_sec=300.0, checks=checks)


def finding(report: Report, name: str) -> Finding:
    (found,) = [found for found in report.findings if found.name == name]
    return found


def words(found: Finding) -> str:
    return f"{found.detail} | {found.advice}"


# -- sound configs -----------------------------------------------------------------------------------------------------

SOUND: dict[str, dict[str, Any]] = {
    "images": {"channels": 3, "net": BUSY},
    "signals of several files": {
        "input": "signal",
        "n_files": 2,
        "net": {"augment": {"time_shift": {"max_samples": 2}, "sign_flip": True}, "mix": {"cutmix_alpha": 1.0}},
    },
    "multilabel": {"kind": "multilabel", "net": {"loss": {"name": "bce", "positive_weights": "balanced"}}},
    "regression": {"kind": "regression", "n_names": 2, "net": {"mix": {"mixup_alpha": 1.0}}},
    "rows that share a submission id": {
        "kind": "binary",
        "n_train": 120,
        "rows_per_id": 3,
        "store": "npz",
        "task": {"submission": {"format": "probability", "sample": "sample_submission.csv", "row_id": "patient"}},
    },
}


@pytest.mark.parametrize("toy", SOUND.values(), ids=SOUND.keys())
def test_a_sound_config_passes_every_check_and_leaves_nothing_but_the_picture(tmp_path, toy):
    config = make_toy(tmp_path, **{"n_train": 48, "n_test": 9, **toy})
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    report = run_check(tmp_path, config)
    assert [(found.name, found.verdict) for found in report.findings if found.verdict != "pass"] == []
    assert [found.name for found in report.findings] == [*NAMES, SHEET]
    name = toy.get("kind", "multiclass")
    picture = tmp_path / "runs" / name / "net-check" / "augmented.png"
    assert {path for path in tmp_path.rglob("*") if path.is_file()} - before == {picture}
    with Image.open(picture) as image:
        assert min(image.size) > 300


# -- planted faults: each fails the check that is meant, and no other --------------------------------------------------


def fails_alone(tmp_path: Path, name: str, toy: dict[str, Any] | None = None) -> str:
    """Return the words of the one check that fails, of all."""
    config = make_toy(tmp_path, n_train=48, n_test=9, **{"net": SMALL, **(toy or {})})
    report = run_check(tmp_path, config)
    assert [found.name for found in report.failed] == [name], report.findings
    return words(report.failed[0])


def test_labels_that_stay_behind_when_pixels_are_mixed_are_found(tmp_path, monkeypatch):
    honest = train.mix_batch

    def torn(inputs: torch.Tensor, targets: torch.Tensor, mix: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return honest(inputs, targets, mix)[0], honest(inputs, targets, replace(mix, partner=mix.partner[::-1].copy()))[
            1
        ]

    monkeypatch.setattr(train, "mix_batch", torn)
    text = fails_alone(tmp_path, LABELS)
    assert "mix: the target of row 'tr_" in text
    assert "augment/mixing.py" in text


def test_held_out_rows_that_reach_the_training_are_found(tmp_path, monkeypatch):
    honest = Folds.split

    def leaky(self: Folds, fold: Any) -> tuple[np.ndarray, np.ndarray]:
        _, heldout = honest(self, fold)
        return np.arange(len(self)), heldout

    monkeypatch.setattr(Folds, "split", leaky)
    text = fails_alone(tmp_path, SHUFFLED)
    assert "better than chance" in text
    assert "held-out rows reach the training of their fold" in text


def test_a_prediction_that_normalises_otherwise_than_training_is_found(tmp_path, monkeypatch):
    honest = predict.prepare
    monkeypatch.setattr(predict, "prepare", lambda batch, *more: honest(batch / 255, *more))
    text = fails_alone(tmp_path, SAME)
    assert "training sees (1, 8, 8) of mean" in text
    assert "prepared in two ways" in text


def test_a_fold_that_is_lost_from_oof_is_found(tmp_path, monkeypatch):
    honest = crossval.join_folds
    monkeypatch.setattr(crossval, "join_folds", lambda parts: honest(parts[:-1] if len(parts) == 3 else parts))
    text = fails_alone(tmp_path, COMPLETE, {"task": {"submission": {"format": "array", "sample": None}}})
    assert "16 of 48 rows are missing, of fold 2 (such as tr_" in text


@pytest.mark.parametrize("key", ["loss.label_smoothing", "sam"])
def test_an_option_that_is_dropped_on_the_way_is_found_and_named(tmp_path, monkeypatch, key):
    if key == "sam":
        monkeypatch.setattr(train, "is_sam_step", lambda *_: False)
    else:
        honest = recipe.build_loss
        monkeypatch.setattr(
            recipe, "build_loss", lambda spec, *more: honest(spec.model_copy(update={"label_smoothing": 0.0}), *more)
        )
    config = make_toy(tmp_path, n_train=48, net=SMALL)
    found = finding(run_check(tmp_path, config, only=(READ,)), READ)
    assert found.verdict == "fail"
    assert found.detail.startswith(f"{key}")
    assert "sampling" not in found.detail


def test_items_that_are_paired_with_the_rows_of_others_are_found(tmp_path, monkeypatch):
    from pipeline.data import dataset

    honest = dataset._canonical

    def shifted(row_set: Any) -> Any:
        made = honest(row_set)
        return replace(made, rows=replace(made.rows, items=(*made.rows.items[1:], made.rows.items[0])))

    monkeypatch.setattr(dataset, "_canonical", shifted)
    found = finding(run_check(tmp_path, make_toy(tmp_path, n_train=48), only=(LABELS,)), LABELS)
    assert found.verdict == "fail"
    assert "row 'tr_000' is trained with an item or label of another row" in found.detail


# -- one batch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "verdict", "cause"),
    [
        (("optimizer={name: sgd, lr: 1e5}",), "fail", "optimizer.lr: 100000 is too high"),
        (("optimizer={name: adam, lr: 1e-9}",), "fail", "optimizer.lr: 1e-09 is too low"),
        (("optimizer={name: adam, lr: 3e-5}", "train.epochs=5000"), "note", "optimizer.lr is low"),
    ],
)
def test_a_rate_that_cannot_learn_one_batch_is_told_from_a_broken_net(tmp_path, overrides, verdict, cause):
    config = make_toy(tmp_path, n_train=48)
    found = finding(run_check(tmp_path, config, overrides, only=(OVERFIT,)), OVERFIT)
    assert (found.verdict, cause in words(found)) == (verdict, True), found
    assert "but the net learns with" in found.detail


def test_a_net_that_learns_with_no_rate_is_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(overfit, "train_step", lambda *_: (torch.zeros(()), True))
    found = finding(run_check(tmp_path, make_toy(tmp_path, n_train=48), only=(OVERFIT,)), OVERFIT)
    assert found.verdict == "fail"
    assert "not the rate" in found.advice


def test_a_check_that_runs_out_of_time_says_so_and_passes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(overfit, "Deadline", lambda _: type("Over", (), {"is_over": True, "seconds": 0})())
    monkeypatch.setattr(Context, "samples_per_sec", 0.01)
    report = run_check(tmp_path, make_toy(tmp_path, n_train=48), only=(OVERFIT, SHUFFLED, COMPLETE))
    notes = [finding(report, name) for name in (OVERFIT, SHUFFLED, COMPLETE)]
    assert [found.verdict for found in notes] == ["note"] * 3
    assert ["out of time" in notes[0].detail, *("not tried" in found.detail for found in notes[1:])] == [True] * 3


# -- shuffled labels ---------------------------------------------------------------------------------------------------


def test_the_p_value_is_even_under_the_null_and_least_for_a_leak():
    rng = np.random.default_rng(0)
    fold, blocks = np.arange(60) % 3, np.arange(60)
    targets = np.eye(3)[rng.integers(0, 3, 60)]
    found = [p_value(rng.normal(size=(60, 3)), targets, fold, blocks) for _ in range(100)]
    assert np.quantile(found, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.15)
    assert p_value(targets + rng.normal(size=(60, 3)), targets, fold, blocks) == 1 / 5000


def test_rows_that_hold_the_same_item_in_two_folds_are_named_as_the_leak(tmp_path):
    config = make_toy(tmp_path, n_train=45, copies=2, net={"folds": {"scheme": "plain"}})
    found = finding(run_check(tmp_path, config, only=(SHUFFLED,)), SHUFFLED)
    assert found.verdict == "fail"
    assert "hold the same item and lie in different folds; set folds.duplicates=exact" in found.advice


# -- options -----------------------------------------------------------------------------------------------------------


def test_every_value_that_is_not_its_default_is_an_option_to_be_tried(tmp_path):
    config = load_config(make_toy(tmp_path, net=BUSY))
    found = {option.key: option.without for option in options_of(config.task, config.experiment)}
    wanted = {"augment.shift", "augment.shift.fill", "augment.flip", "augment.erasing", "augment.erasing.prob"}
    wanted |= {"mix", "mix.mixup_alpha", "mix.cutmix_alpha", "mix.per", "mix.off_epochs", "model.width"}
    wanted |= {"model.dropout", "loss", "loss.label_smoothing", "loss.class_weights", "optimizer.lr"} - {"loss"}
    wanted |= {"optimizer.weight_decay", "schedule.warmup_epochs", "sam", "sam.rho", "sam.start_epoch", "ema"}
    wanted |= {"ema.decay", "train.epochs", "train.batch_size", "train.sampling", "train.weights"}
    assert wanted - {"train.precision"} == found.keys() - {"train.precision"}
    assert found["ema"].train.weights == "last"
    assert found["mix.mixup_alpha"].mix.mixup_alpha is None


def test_keys_that_are_not_tried_exist(tmp_path):
    def exists(key: str) -> bool:
        block, *rest = key.split(".")
        field = Experiment.model_fields[block]
        kind = field.annotation
        return block == "model" or (hasattr(kind, "model_fields") and rest[0] in kind.model_fields)

    assert all(exists(key) for key in options.NOT_TRIED)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("note", 0), ("fail", 1)])
def test_the_command_prints_every_finding_and_exits_with_one_when_a_check_fails(monkeypatch, capsys, verdict, code):
    report = Report((Finding("a check", verdict, "what was found", "what to do"),), 240, 5000, 31.0)
    monkeypatch.setattr(api, "check", lambda *_, **__: report)
    assert commands.run(["check", "configs/toy/net.yaml"]) == code
    printed = capsys.readouterr().out
    assert [word in printed for word in (verdict, "a check", "what was found", "what to do", "240 of 5000")] == [
        True
    ] * 5


# -- the sample --------------------------------------------------------------------------------------------------------


def test_rows_are_chosen_evenly_from_folds_and_classes():
    n = 600
    labels = np.r_[np.zeros(400), np.ones(150), np.full(46, 2), np.full(4, 3)].astype(np.int64)
    ids = np.array([f"r{row:03d}" for row in range(n)], dtype=object)
    rows = Rows(ids, tuple((row,) for row in range(n)), ("a", "b", "c", "d"), labels)
    fold = np.arange(n) % 5
    chosen = choose_rows(rows, fold, 60, n_classes=20)
    assert len(set(chosen)) == 60
    assert np.bincount(fold[chosen]).tolist() == [12] * 5
    assert np.bincount(labels[chosen]).tolist() == [20, 20, 20]  # not the class of four rows
    assert np.bincount(fold[chosen[:10]]).tolist() == [2] * 5
    assert set(labels[choose_rows(rows, np.zeros(n, dtype=np.int64), 4)]) == {0, 1, 2, 3}


def test_what_cannot_be_tried_at_all_is_an_error(tmp_path):
    config = make_toy(tmp_path, n_train=48)
    with pytest.raises(ConfigError, match=r"augment\.sign_flip: is never read"):
        run_check(tmp_path, config, ("augment.sign_flip=true",))
