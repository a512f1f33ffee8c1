import numpy as np
import pytest
import torch

from pipeline.base.errors import ConfigError, MismatchError
from pipeline.records.experiment import AbsoluteError, BinaryCrossEntropy, CrossEntropy, Huber, SquaredError
from pipeline.training.losses import (
    activate,
    allowed_losses,
    balanced_class_weights,
    balanced_positive_weights,
    binary_cross_entropy,
    build_loss,
    default_loss,
    huber,
    l1,
    mse,
    n_outputs,
    smooth_multihot,
    smooth_targets,
    soft_cross_entropy,
    soft_targets,
)

NAMES = ("cat", "dog", "eel")
KINDS = [
    ("binary", "softmax", "bce", 1),
    ("multiclass", "softmax", "cross_entropy", 3),
    ("multilabel", "softmax", "bce", 3),
    ("ordinal", "softmax", "cross_entropy", 3),
    ("ordinal", "regression", "mse", 1),
    ("regression", "softmax", "mse", 3),
]


def make_batch(n=8, n_classes=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, n_classes, generator=generator, dtype=dtype) * 3
    targets = torch.rand(n, n_classes, generator=generator, dtype=dtype)
    return logits, targets / targets.sum(1, keepdim=True)


def slow_cross_entropy(logits, targets, weights):
    total = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        normaliser = sum(np.exp(value) for value in row)
        total -= sum(w * t * np.log(np.exp(v) / normaliser) for v, t, w in zip(row, target, weights, strict=True))
    return total / len(logits)


def slow_bce(logits, targets, weights):
    total = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        for value, goal, weight in zip(row, target, weights, strict=True):
            probability = 1 / (1 + np.exp(-value))
            total -= weight * goal * np.log(probability) + (1 - goal) * np.log(1 - probability)
    return total / logits.numel()


def test_soft_targets_are_one_hot_rows():
    assert soft_targets(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_smoothing_spreads_mass_over_all_classes_and_keeps_the_sum():
    smoothed = smooth_targets(soft_targets(torch.tensor([1]), 4), 0.1)
    assert smoothed[0].tolist() == pytest.approx([0.025, 0.925, 0.025, 0.025])
    assert smooth_targets(make_batch()[1], 0.3).sum(1).tolist() == pytest.approx([1.0] * 8)


def test_smoothing_equals_that_of_torch():
    logits, labels = make_batch()[0], torch.arange(8) % 3
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.2)
    assert soft_cross_entropy(logits, smooth_targets(soft_targets(labels, 3), 0.2)).item() == pytest.approx(expected)


def test_multihot_smoothing_moves_zero_and_one_by_half_eps():
    assert smooth_multihot(torch.tensor([[0.0, 1.0, 0.5]]), 0.2)[0].tolist() == pytest.approx([0.1, 0.9, 0.5])


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_soft_cross_entropy_equals_a_loop_and_torch(weights):
    logits, targets = make_batch()
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    loss = soft_cross_entropy(logits, targets, tensor).item()
    assert loss == pytest.approx(slow_cross_entropy(logits, targets, weights or [1] * 3), rel=1e-12)
    assert loss == pytest.approx(torch.nn.CrossEntropyLoss(weight=tensor)(logits, targets).item(), rel=1e-12)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_binary_cross_entropy_equals_a_loop(weights):
    logits, targets = make_batch()
    tensor = None if weights is None else torch.tensor(weights)
    loss = binary_cross_entropy(logits, targets, tensor).item()
    assert loss == pytest.approx(slow_bce(logits, targets, weights or [1] * 3), rel=1e-12)


def test_errors_of_values_follow_their_formulas():
    values, targets = torch.tensor([[0.0], [3.0]]), torch.tensor([[0.5], [0.0]])
    assert mse(values, targets).item() == pytest.approx((0.25 + 9) / 2)
    assert l1(values, targets).item() == pytest.approx(3.5 / 2)
    assert huber(values, targets, 2.0).item() == pytest.approx((0.125 + 2 * (3 - 1)) / 2)


@pytest.mark.parametrize(("kind", "ordinal", "name", "n"), KINDS)
def test_each_kind_has_its_outputs_and_default_loss(kind, ordinal, name, n):
    assert n_outputs(kind, NAMES, ordinal) == n
    assert default_loss(kind, ordinal) == name
    assert default_loss(kind, ordinal) in allowed_losses(kind, ordinal)


@pytest.mark.parametrize(("kind", "ordinal", "name", "n"), KINDS)
def test_default_loss_is_built_without_a_spec(kind, ordinal, name, n):
    logits, targets = make_batch(n_classes=n)
    functions = {"bce": binary_cross_entropy, "cross_entropy": soft_cross_entropy, "mse": mse}
    loss = build_loss(None, kind, ordinal, NAMES, None)
    assert loss(logits, targets).item() == functions[name](logits, targets).item()


def test_activation_follows_the_kind():
    logits = make_batch()[0].to(torch.bfloat16)
    assert torch.equal(activate(logits, "multiclass", "softmax"), logits.float().softmax(1))
    assert torch.equal(activate(logits, "ordinal", "softmax"), logits.float().softmax(1))
    assert torch.equal(activate(logits, "binary", "softmax"), logits.float().sigmoid())
    assert torch.equal(activate(logits, "multilabel", "softmax"), logits.float().sigmoid())
    assert torch.equal(activate(logits, "regression", "softmax"), logits.float())
    assert torch.equal(activate(logits, "ordinal", "regression"), logits.float())


@pytest.mark.parametrize(
    ("spec", "kind", "ordinal", "message"),
    [
        (CrossEntropy(name="cross_entropy"), "binary", "softmax", "'cross_entropy' does not fit kind: binary.*: bce"),
        (BinaryCrossEntropy(name="bce"), "multiclass", "softmax", "'bce' does not fit kind: multiclass.*cross_entropy"),
        (SquaredError(name="mse"), "ordinal", "softmax", r"'mse' does not fit kind: ordinal \(softmax\)"),
        (CrossEntropy(name="cross_entropy"), "ordinal", "regression", "Allowed: mse, l1, huber"),
    ],
)
def test_a_loss_that_does_not_fit_the_kind_is_refused_and_the_fitting_ones_are_named(spec, kind, ordinal, message):
    with pytest.raises(ConfigError, match=message):
        build_loss(spec, kind, ordinal, NAMES, None)


def test_built_losses_smooth_exactly_once():
    logits, targets = make_batch()
    soft = build_loss(CrossEntropy(name="cross_entropy", label_smoothing=0.1), "multiclass", "softmax", NAMES, None)
    assert soft(logits, targets).item() == soft_cross_entropy(logits, smooth_targets(targets, 0.1)).item()
    hot = build_loss(BinaryCrossEntropy(name="bce", label_smoothing=0.1), "multilabel", "softmax", NAMES, None)
    assert hot(logits, targets).item() == binary_cross_entropy(logits, smooth_multihot(targets, 0.1)).item()


def test_built_value_losses_are_the_functions_of_their_names():
    values, targets = make_batch()
    for spec, expected in [
        (SquaredError(name="mse"), mse(values, targets)),
        (AbsoluteError(name="l1"), l1(values, targets)),
        (Huber(name="huber", delta=0.3), huber(values, targets, 0.3)),
    ]:
        assert build_loss(spec, "regression", "softmax", NAMES, None)(values, targets).item() == expected.item()


def test_balanced_class_weights_average_to_one_over_the_rows():
    labels = np.array([0, 0, 0, 1])
    weights = balanced_class_weights(labels, 2)
    assert weights.tolist() == pytest.approx([4 / (2 * 3), 4 / 2])
    assert weights[labels].mean() == pytest.approx(1)
    one_hot = np.eye(2, dtype=np.float32)[labels]
    assert balanced_class_weights(one_hot, 2).tolist() == pytest.approx(weights.tolist())


def test_balanced_weight_of_an_absent_class_is_zero():
    assert balanced_class_weights(np.array([0, 2, 2]), 3)[1] == 0


def test_balanced_positive_weights_are_negatives_over_positives_and_one_without_either():
    targets = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=np.float32)
    assert balanced_positive_weights(targets).tolist() == [2, 1, 1]
    assert balanced_positive_weights(np.array([0, 1, 1, 1])).tolist() == pytest.approx([1 / 3])


def test_built_losses_use_balanced_weights_of_the_training_part():
    logits, targets = make_batch()
    spec = CrossEntropy(name="cross_entropy", class_weights="balanced")
    loss = build_loss(spec, "multiclass", "softmax", NAMES, np.array([0, 1, 1, 2]))
    expected = soft_cross_entropy(logits, targets, torch.tensor([4 / 3, 2 / 3, 4 / 3], dtype=torch.float64))
    assert loss(logits, targets).item() == pytest.approx(expected.item(), rel=1e-6)
    one = make_batch(n_classes=1)
    binary = build_loss(
        BinaryCrossEntropy(name="bce", positive_weights="balanced"),
        "binary",
        "softmax",
        ("no", "yes"),
        np.arange(4) % 4 // 3,
    )
    assert binary(*one).item() == pytest.approx(binary_cross_entropy(*one, torch.tensor([3.0])).item(), rel=1e-6)


def test_weights_by_name_take_the_order_of_the_classes_and_one_elsewhere():
    logits, targets = make_batch()
    spec = CrossEntropy(name="cross_entropy", class_weights={"eel": 3.0})
    expected = soft_cross_entropy(logits, targets, torch.tensor([1.0, 1.0, 3.0]))
    assert build_loss(spec, "multiclass", "softmax", NAMES, None)(logits, targets).item() == expected.item()


def test_a_weight_for_an_unknown_class_is_refused_with_the_nearest():
    spec = CrossEntropy(name="cross_entropy", class_weights={"dgo": 3.0})
    with pytest.raises(ConfigError, match=r"loss.class_weights: 'dgo' is no class here. Did you mean 'dog'\?"):
        build_loss(spec, "multiclass", "softmax", NAMES, None)
    positive = BinaryCrossEntropy(name="bce", positive_weights={"no": 3.0})
    with pytest.raises(ConfigError, match=r"loss.positive_weights: 'no' is no class here.* Known: yes"):
        build_loss(positive, "binary", "softmax", ("no", "yes"), None)


def test_balanced_without_targets_is_refused():
    spec = CrossEntropy(name="cross_entropy", class_weights="balanced")
    with pytest.raises(ConfigError, match="balanced needs the targets"):
        build_loss(spec, "multiclass", "softmax", NAMES, None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_losses_of_half_precision_logits_are_float32(dtype):
    logits, targets = make_batch()
    for spec, kind in [(None, "multiclass"), (None, "multilabel"), (None, "regression")]:
        loss = build_loss(spec, kind, "softmax", NAMES, None)(logits.to(dtype), targets.float())
        assert loss.dtype == torch.float32
        expected = build_loss(spec, kind, "softmax", NAMES, None)(logits.to(dtype).float(), targets.float())
        assert torch.equal(loss, expected)


def test_micro_batches_add_up_to_the_batch_also_with_class_weights():
    logits, targets = make_batch(n=9)
    spec = CrossEntropy(name="cross_entropy", label_smoothing=0.1, class_weights={"cat": 5.0})
    loss = build_loss(spec, "multiclass", "softmax", NAMES, None)
    parts = [loss(logits[at : at + 4], targets[at : at + 4]) * (len(logits[at : at + 4]) / 9) for at in (0, 4, 8)]
    assert sum(part.item() for part in parts) == pytest.approx(loss(logits, targets).item(), rel=1e-12)


def test_targets_of_another_shape_are_refused_instead_of_broadcast():
    loss = build_loss(None, "binary", "softmax", ("no", "yes"), None)
    with pytest.raises(MismatchError, match=r"\(4, 1\) meet targets of \(4,\)"):
        loss(torch.zeros(4, 1), torch.zeros(4))
