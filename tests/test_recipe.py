from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_units import CPU, make_experiment, make_task

from pipeline.base.errors import ConfigError
from pipeline.data.batches import Items
from pipeline.records.rows import Rows
from pipeline.training.misfits import refuse_misfits, try_parts, warnings_of
from pipeline.training.recipe import build_parts, new_model
from pipeline.training.scaling import Scaling, hard_labels, measure_scaling, soft_targets

REGRESSION = {"kind": "regression", "metric": "rmse"}


def make_rows(targets, names=("a", "b", "c"), files=1):
    ids = np.array([f"r{number}" for number in range(len(targets))], dtype=object)
    items = tuple(tuple(range(row * files, (row + 1) * files)) for row in range(len(targets)))
    return Rows(ids, items, names, np.asarray(targets))


def make_items(n, channels=2, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).integers(0, 255, (n, channels, 8, 8))
    return Items(values.astype(dtype), "cpu")


# -- what is measured ------------------------------------------------------------------------------------------------


def test_normalisation_is_measured_on_the_training_part_alone_per_channel():
    rows, items = make_rows([0, 1, 2, 0]), make_items(4)
    scaling = measure_scaling(make_task(), make_experiment(), rows, items, np.array([0, 2]))
    pixels = items.fetch(np.array([0, 2])).double()
    torch.testing.assert_close(scaling.mean, pixels.mean((0, 2, 3)).float())
    torch.testing.assert_close(scaling.std, pixels.std((0, 2, 3), correction=0).float())
    other = replace(rows, items=((0,), (3,), (2,), (3,)))  # held-out rows with other items
    again = measure_scaling(make_task(), make_experiment(), other, items, np.array([0, 2]))
    assert torch.equal(again.mean, scaling.mean)


def test_an_item_that_two_rows_share_counts_once():
    rows, items = replace(make_rows([0, 1, 2]), items=((0, 1), (1,), (1,))), make_items(2)
    scaling = measure_scaling(make_task(), make_experiment(), rows, items, np.arange(3))
    torch.testing.assert_close(scaling.mean, items.fetch(np.arange(2)).double().mean((0, 2, 3)).float())


def test_normalisation_can_be_given_or_left_out():
    rows, items = make_rows([0, 1]), make_items(2)

    def scaling(normalize):
        found = measure_scaling(
            make_task(), make_experiment({"input": {"normalize": normalize}}), rows, items, np.arange(2)
        )
        return found.mean.tolist(), found.std.tolist()

    assert scaling("none") == ([0, 0], [1, 1])
    assert scaling({"mean": (3.0,), "std": (2.0,)}) == ([3, 3], [2, 2])
    assert scaling({"mean": (3.0, 4.0), "std": (2.0,)}) == ([3, 4], [2, 2])
    with pytest.raises(ConfigError, match=r"input\.normalize\.mean: has 3 values, but items have 2 channels"):
        scaling({"mean": (1.0, 2.0, 3.0), "std": (2.0,)})


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 255), (np.uint16, 65535)])
def test_pretrained_statistics_come_in_the_units_of_the_store(dtype, scale):
    experiment = make_experiment({"model": {"name": "resnet18"}, "input": {"normalize": "pretrained"}})
    rows = make_rows([0, 1])
    rgb = measure_scaling(make_task(), experiment, rows, make_items(2, 3, dtype), np.arange(2))
    torch.testing.assert_close(rgb.mean, torch.tensor([0.485, 0.456, 0.406]) * scale)
    grey = measure_scaling(make_task(), experiment, rows, make_items(2, 1, dtype), np.arange(2))
    torch.testing.assert_close(grey.mean, torch.tensor([(0.485 + 0.456 + 0.406) / 3]) * scale)


def test_values_are_standardised_by_the_training_part_and_constants_left_alone():
    task = make_task(**REGRESSION)
    targets = np.array([[1, 5], [3, 5], [100, 7]], dtype=np.float32)
    rows = make_rows(targets, names=("u", "v"))
    scaling = measure_scaling(task, make_experiment(), rows, make_items(3), np.array([0, 1]))
    assert scaling.target_mean.tolist() == [2, 5]
    assert scaling.target_std.tolist() == [1, 1]
    assert soft_targets(task, rows, scaling).tolist() == [[-1, 0], [1, 0], [98, 2]]


# -- targets -----------------------------------------------------------------------------------------------------------


def bare(n_targets=1):
    return Scaling(torch.zeros(1), torch.ones(1), torch.zeros(n_targets), torch.ones(n_targets))


@pytest.mark.parametrize(
    ("kind", "more", "targets", "expected"),
    [
        ("multiclass", {}, [2, 0], [[0, 0, 1], [1, 0, 0]]),
        ("multiclass", {}, np.float32([[0.5, 0.25, 0.25]]), [[0.5, 0.25, 0.25]]),
        ("ordinal", {}, [1, 2], [[0, 1, 0], [0, 0, 1]]),
        ("ordinal", {"ordinal": "regression"}, [1, 2], [[1], [2]]),
        ("binary", {}, [1, 0], [[1], [0]]),
        ("multilabel", {}, np.float32([[1, 0, 1]]), [[1, 0, 1]]),
        ("regression", {}, np.float32([[1.5, 2, 3]]), [[1.5, 2, 3]]),
    ],
)
def test_the_loss_sees_one_form_of_targets_per_kind(kind, more, targets, expected):
    rows = make_rows(targets)
    n_targets = 3 if kind == "regression" else 1
    found = soft_targets(make_task(kind, **more), rows, bare(n_targets))
    assert found.dtype == torch.float32
    assert found.tolist() == expected


def test_unlabelled_rows_have_no_targets():
    with pytest.raises(ValueError, match="unlabelled"):
        soft_targets(make_task(), replace(make_rows([0]), targets=None), bare())


def test_the_class_of_soft_targets_is_the_heaviest():
    assert hard_labels(make_rows([2, 1])).tolist() == [2, 1]
    assert hard_labels(make_rows(np.float32([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]]))).tolist() == [1, 0]


# -- parts -------------------------------------------------------------------------------------------------------------


def test_initial_weights_are_a_function_of_the_seed_and_leave_the_generator():
    experiment, rows = make_experiment({"model": {"name": "mlp", "hidden": 4}}), make_rows([0, 1, 2])
    state = torch.get_rng_state()
    one, two, other = (new_model(make_task(), experiment.model, (1, 8, 8), rows, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one[1].weight, two[1].weight)
    assert not torch.equal(one[1].weight, other[1].weight)


def test_balanced_weights_come_from_the_training_part_and_the_heldout_loss_has_none():
    loss = {"name": "cross_entropy", "class_weights": "balanced", "label_smoothing": 0.3}
    rows = make_rows([0, 0, 0, 1, 1, 1, 1], names=("a", "b"))
    parts = build_parts(
        make_task(), make_experiment({"loss": loss}), CPU, rows, make_items(7), np.array([0, 1, 2, 3]), 0
    )
    logits, targets = torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    log_probs = logits.log_softmax(1)[0]
    expected = -(4 / (2 * 3) * 0.85 * log_probs[0] + 4 / (2 * 1) * 0.15 * log_probs[1])
    torch.testing.assert_close(parts.loss(logits, targets), expected)
    torch.testing.assert_close(parts.heldout_loss(logits, targets), -log_probs[0])


def test_images_become_channels_last_and_signals_do_not():
    rows = make_rows([0, 1, 2])
    experiment = make_experiment({"model": {"name": "cnn3", "width": 4}, "ema": {"decay": 0.9}})
    parts = build_parts(make_task(), experiment, CPU, rows, make_items(3), np.arange(3), 0)
    conv = next(module for module in parts.model.modules() if isinstance(module, torch.nn.Conv2d))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert parts.ema is not None
    signals = Items(np.zeros((3, 2, 16), dtype=np.float32), "cpu")
    parts = build_parts(make_task(input="signal"), make_experiment(), CPU, rows, signals, np.arange(3), 0)
    assert parts.ema is None


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "blocks", "message"),
    [
        ({}, {"augment": {"time_shift": {"max_samples": 3}}}, r"augment\.time_shift: is never read.*`image`"),
        ({"input": "signal"}, {"augment": {"flip": {}}}, r"augment\.flip: is never read.*`signal`"),
        ({"input": "signal"}, {"augment": {"shift": {"max_px": 1}}}, r"augment\.shift: is never read"),
        ({"input": "signal"}, {"input": {"size": 32}}, r"input\.size: is never read, because .*`signal`"),
        ({}, {"train": {"weights": "ema"}}, r"train\.weights: ema needs the ema: block"),
        (REGRESSION, {"train": {"sampling": "balanced"}}, r"balanced needs one class per row; .*regression"),
        ({}, {"train": {"accumulation": 11}}, r"train\.accumulation: 11 micro-batches .*batch_size: 10"),
    ],
)
def test_what_the_task_would_never_read_is_refused_by_name(task, blocks, message):
    with pytest.raises(ConfigError, match=message):
        refuse_misfits(make_task(**task), make_experiment(blocks))


def test_what_a_saved_experiment_spells_out_is_not_taken_for_the_users_wish():
    rows = make_rows([0, 1, 2])
    experiment = make_experiment({"input": {"normalize": "none"}})
    spelled = type(experiment).model_validate(experiment.model_dump())
    signals = Items(np.zeros((3, 2, 16), dtype=np.float32), "cpu")
    build_parts(make_task(input="signal"), spelled, CPU, rows, signals, np.arange(3), 0)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"model": {"name": "mlp", "hiden": 3}}, r"hiden: unknown option of 'mlp'.*'hidden'"),
        ({"model": {"name": "cnn3"}}, "cnn3"),
        ({"optimizer": {"name": "adamm"}}, r"optimizer\.name: 'adamm'"),
        ({"loss": {"name": "mse"}}, r"loss\.name: 'mse' does not fit kind: multiclass"),
        ({"loss": {"name": "cross_entropy", "class_weights": {"z": 2.0}}}, "'z' is no class here"),
        ({"train": {"weights": "ema"}}, "ema needs the ema: block"),
    ],
)
def test_a_trial_finds_misfits_before_any_work(blocks, message):
    task, rows = make_task(input="signal"), make_rows([0, 1, 2])
    with pytest.raises(ConfigError, match=message):
        try_parts(task, make_experiment(blocks), (2, 16), rows)


def test_a_model_that_does_not_take_the_items_is_refused_with_their_shape():
    experiment = make_experiment({"model": {"name": "resnet18", "pretrained": False}})
    with pytest.raises(ConfigError, match=r"'resnet18' needs images .* are \(2, 16\)"):
        try_parts(make_task(input="signal"), experiment, (2, 16), make_rows([0, 1, 2]))


def test_a_trial_returns_the_model_and_leaves_no_gradient():
    model = try_parts(make_task(), make_experiment(), (2, 8, 8), make_rows([0, 1, 2]))
    assert all(param.grad is None for param in model.parameters())


def test_averages_that_never_predict_are_a_warning():
    assert warnings_of(make_experiment()) == []
    assert "ema: is kept but does not predict" in warnings_of(make_experiment({"ema": {"decay": 0.9}}))[0]
    late = make_experiment({"schedule": {"name": "step", "milestones": (9,)}})
    assert "milestones" in warnings_of(late)[0]


@pytest.mark.parametrize(
    ("block", "note"),
    [
        ({"optimizer": {"name": "adadelta"}}, "optimizer.lr: 0.1 scales the steps of adadelta"),
        ({"pseudo": {"labels": "x", "start_epoch": 2}}, "pseudo.start_epoch: 2 is never reached in 2 epochs"),
        ({"train": {"keep_epochs": 3}}, "train.keep_epochs: 3 of 2 epochs, so all are kept"),
        ({"train": {"early_stop": {"patience": 1}}}, "predicts with the epoch that training stopped at"),
        (
            {
                "consistency": {"strong": {"flip": {}}},
                "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
                "ema": {},
            },
            "consistency.threshold: 0.95 is hardly ever reached with label_smoothing: 0.1",
        ),
    ],
)
def test_numbers_that_do_little_are_noted(block, note):
    block = {**block, "optimizer": {"lr": 0.01, **block.get("optimizer", {})}}
    assert any(note.replace("0.1 scales", "0.01 scales") in line for line in warnings_of(make_experiment(block)))
    assert not any(note[:20] in line for line in warnings_of(make_experiment()))
