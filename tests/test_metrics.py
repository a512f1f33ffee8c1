from __future__ import annotations

import math
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as reference

from pipeline.base.errors import ConfigError, DataError, MismatchError
from pipeline.records.cv import metric_of
from pipeline.records.metrics import METRICS, Metric, UndefinedMetricError, decide, resolve_metric
from pipeline.records.rows import Rows
from pipeline.records.task import MetricSpec, Task

NAMES = ("a", "b", "c", "d")


def metric(name: str, kind: str, names=NAMES, higher=None, ordinal="softmax", threshold=0.5, **options) -> Metric:
    spec = MetricSpec(name=name, options=options, higher_is_better=higher)
    return resolve_metric(spec, kind, names, ordinal, threshold)


def probs_of(n: int, k: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(k), n).astype(np.float32)


def classes_of(n: int, k: int = 4, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, k, n)


PROBS, CLASSES = probs_of(60), classes_of(60)
PREDS = PROBS.argmax(axis=1)
BINARY, POSITIVE = classes_of(40, 2), probs_of(40, 2)[:, :1]
LABELS = (np.random.default_rng(2).random((50, 4)) < 0.4).astype(np.float32)
SCORES = np.random.default_rng(3).random((50, 4)).astype(np.float32)
PRESENT = SCORES >= 0.5
TRUE_VALUES = np.random.default_rng(4).normal(size=(30, 2)).astype(np.float32)
VALUES = TRUE_VALUES + np.random.default_rng(5).normal(size=(30, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "kind", "targets", "values", "expected"),
    [
        ("accuracy", "multiclass", CLASSES, PROBS, np.mean(CLASSES == PREDS)),
        ("accuracy", "multilabel", LABELS, SCORES, np.mean((LABELS == PRESENT).all(axis=1))),
        ("balanced_accuracy", "multiclass", CLASSES, PROBS, reference.balanced_accuracy_score(CLASSES, PREDS)),
        ("log_loss", "multiclass", CLASSES, PROBS, reference.log_loss(CLASSES, PROBS)),
        ("log_loss", "binary", BINARY, POSITIVE, reference.log_loss(BINARY, POSITIVE[:, 0])),
        (
            "log_loss",
            "multilabel",
            LABELS,
            SCORES,
            np.mean([reference.log_loss(t, p.astype(float)) for t, p in zip(LABELS.T, SCORES.T, strict=True)]),
        ),
        ("roc_auc", "binary", BINARY, POSITIVE, reference.roc_auc_score(BINARY, POSITIVE[:, 0])),
        ("roc_auc", "multiclass", CLASSES, PROBS, reference.roc_auc_score(CLASSES, PROBS, multi_class="ovr")),
        ("mean_column_auc", "multilabel", LABELS, SCORES, reference.roc_auc_score(LABELS, SCORES)),
        ("mean_column_auc", "multiclass", CLASSES, PROBS, reference.roc_auc_score(np.eye(4)[CLASSES], PROBS)),
        ("average_precision", "binary", BINARY, POSITIVE, reference.average_precision_score(BINARY, POSITIVE[:, 0])),
        ("average_precision", "multilabel", LABELS, SCORES, reference.average_precision_score(LABELS, SCORES)),
        ("f1", "binary", BINARY, POSITIVE, reference.f1_score(BINARY, POSITIVE[:, 0] >= 0.5)),
        ("f1_macro", "binary", BINARY, POSITIVE, reference.f1_score(BINARY, POSITIVE[:, 0] >= 0.5, average="macro")),
        ("f1_macro", "multiclass", CLASSES, PROBS, reference.f1_score(CLASSES, PREDS, average="macro")),
        ("f1_micro", "multiclass", CLASSES, PROBS, np.mean(CLASSES == PREDS)),
        ("f1_micro", "multilabel", LABELS, SCORES, reference.f1_score(LABELS, PRESENT, average="micro")),
        (
            "f1_samples",
            "multilabel",
            LABELS,
            SCORES,
            reference.f1_score(LABELS, PRESENT, average="samples", zero_division=0),
        ),
        (
            "quadratic_kappa",
            "multiclass",
            CLASSES,
            PROBS,
            reference.cohen_kappa_score(CLASSES, PREDS, weights="quadratic"),
        ),
        ("rmse", "regression", TRUE_VALUES, VALUES, np.sqrt(((TRUE_VALUES - VALUES) ** 2).mean(axis=0)).mean()),
        ("mae", "regression", TRUE_VALUES, VALUES, np.abs(TRUE_VALUES - VALUES).mean()),
        ("r2", "regression", TRUE_VALUES, VALUES, reference.r2_score(TRUE_VALUES, VALUES)),
    ],
)
def test_scores_equal_the_reference(name, kind, targets, values, expected):
    names = {"binary": NAMES[:2], "regression": NAMES[:2]}.get(kind, NAMES)
    assert metric(name, kind, names)(targets, values) == pytest.approx(float(expected), abs=1e-6)


def test_a_grade_that_does_not_occur_keeps_its_distance_in_kappa():
    targets, values = np.array([0, 0, 3, 3, 1]), np.eye(4)[[0, 1, 3, 1, 1]]
    seen = np.array([0, 1, 3, 1, 1])
    weights = (np.arange(4)[:, None] - np.arange(4)) ** 2
    observed = np.mean([(t - p) ** 2 for t, p in zip(targets, seen, strict=True)])
    chance = np.mean([weights[t, p] for t in targets for p in seen])
    assert metric("quadratic_kappa", "ordinal")(targets, values) == pytest.approx(1 - observed / chance)


def test_log_loss_counts_the_probability_given_to_a_class_that_does_not_occur():
    values = np.array([[0.2, 0.2, 0.6, 0.0], [0.5, 0.5, 0.0, 0.0]])
    assert metric("log_loss", "multiclass")(np.array([0, 1]), values) == pytest.approx(-np.log([0.2, 0.5]).mean())


def test_balanced_accuracy_averages_over_the_classes_that_occur():
    assert metric("balanced_accuracy", "multiclass")(np.array([0, 0, 1]), np.eye(4)[[0, 3, 1]]) == 0.75


def test_log_loss_is_finite_at_zero_probability():
    assert metric("log_loss", "binary", NAMES[:2])(np.array([1]), np.array([[0.0]])) == pytest.approx(-math.log(1e-15))
    expected = -math.log(1e-15 / (1 + 3e-15))
    assert metric("log_loss", "multiclass")(np.array([1]), np.eye(4)[[0]]) == pytest.approx(expected)


def test_soft_targets_are_used_as_they_are_or_by_their_largest_share():
    soft = probs_of(60, seed=7)
    cross_entropy = -(soft * np.log(PROBS)).sum(axis=1).mean()
    entropy = -(soft * np.log(soft)).sum(axis=1).mean()
    assert metric("log_loss", "multiclass")(soft, PROBS) == pytest.approx(cross_entropy, rel=1e-5)
    assert metric("kl_divergence", "multiclass")(soft, PROBS) == pytest.approx(cross_entropy - entropy, rel=1e-5)
    for name in ("accuracy", "roc_auc", "map_at_k"):
        hard = metric(name, "multiclass")(soft.argmax(axis=1), PROBS)
        assert metric(name, "multiclass")(soft, PROBS) == hard


def test_the_divergence_of_a_distribution_from_itself_is_zero_also_with_zeros():
    soft = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0]], np.float32)
    assert metric("kl_divergence", "multiclass")(soft, soft) == pytest.approx(0, abs=1e-12)


def slow_map_at_k(truths, values, k):
    total = 0.0
    for true, row in zip(truths, values, strict=True):
        ranked = sorted(range(len(row)), key=lambda label, row=row: (-row[label], label))[:k]
        right, points = 0, 0.0
        for rank, label in enumerate(ranked, start=1):
            if label in true:
                right += 1
                points += right / rank
        total += points / min(len(true), k) if true else 0.0
    return total / len(truths)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_map_at_k_equals_the_loop_over_ranks(k):
    coarse = (SCORES * 3).round() / 3  # with ties
    truths = [set(np.flatnonzero(row)) for row in LABELS]
    assert metric("map_at_k", "multilabel", k=k)(LABELS, coarse) == pytest.approx(slow_map_at_k(truths, coarse, k))
    expected = slow_map_at_k([{label} for label in CLASSES], PROBS, k)
    assert metric("map_at_k", "multiclass", k=k)(CLASSES, PROBS) == pytest.approx(expected)


def test_top_k_accuracy_equals_the_reference_and_breaks_ties_to_the_lower_class():
    expected = reference.top_k_accuracy_score(CLASSES, PROBS, k=2, labels=range(4))
    assert metric("top_k_accuracy", "multiclass", k=2)(CLASSES, PROBS) == pytest.approx(expected)
    assert metric("top_k_accuracy", "multiclass", k=2)(np.array([0, 1, 2, 3]), np.full((4, 4), 0.25)) == 0.5


def test_most_probable_class_wins_and_ties_go_to_the_lower():
    assert decide(np.array([[0.2, 0.4, 0.4], [0.1, 0.2, 0.7]]), "multiclass").tolist() == [1, 2]


def test_a_label_is_present_from_the_threshold_upward_in_the_type_of_the_values():
    values = np.array([[0.7], [0.6999]], np.float32)
    assert decide(values, "binary", threshold=0.7).tolist() == [1, 0]
    assert decide(values, "multilabel", threshold=0.7).tolist() == [[1], [0]]


def test_expected_grades_are_rounded_with_halves_down_and_cut_to_the_scale():
    probs = np.array([[0.5, 0, 0.5, 0], [0.5, 0.5, 0, 0], [0, 0.25, 0, 0.75]])
    assert decide(probs, "ordinal").tolist() == [1, 0, 2]
    values = np.array([[-3.0], [0.5], [0.51], [9.0]])
    assert decide(values, "ordinal", "regression", n_classes=4).tolist() == [0, 0, 1, 3]
    with pytest.raises(ValueError, match="needs n_classes"):
        decide(values, "ordinal", "regression")


def test_regressed_grades_are_scored_by_what_is_decided():
    targets, values = np.array([0, 1, 2, 3]), np.array([[0.4], [1.2], [1.6], [5.0]])
    assert metric("accuracy", "ordinal", ordinal="regression")(targets, values) == 1
    assert metric("quadratic_kappa", "ordinal", ordinal="regression")(targets, values) == 1


def test_the_threshold_of_the_task_decides():
    values, targets = np.array([[0.3], [0.1]]), np.array([1, 0])
    assert metric("f1", "binary", NAMES[:2], threshold=0.3)(targets, values) == 1
    assert metric("f1", "binary", NAMES[:2])(targets, values) == 0


def test_f1_is_zero_where_nothing_is_true_or_decided():
    assert metric("f1", "binary", NAMES[:2])(np.array([0, 0]), np.array([[0.1], [0.2]])) == 0
    assert metric("f1_samples", "multilabel")(np.zeros((2, 4), np.float32), np.zeros((2, 4))) == 0


@pytest.mark.parametrize(
    ("name", "kind", "targets", "values", "message"),
    [
        ("roc_auc", "binary", np.zeros(12, int), np.full((12, 1), 0.3), "only class 'a' occurs among the 12 rows"),
        ("roc_auc", "binary", np.ones(3, int), np.full((3, 1), 0.3), "only class 'b' occurs among the 3 rows"),
        ("average_precision", "binary", np.zeros(3, int), np.full((3, 1), 0.3), "AP is undefined: 'b' has no positive"),
        ("roc_auc", "multiclass", np.array([0, 1, 2]), PROBS[:3], "'d' has no positive among the 3 rows"),
        ("mean_column_auc", "multilabel", np.eye(4)[:3], SCORES[:3], "'d' has no positive among the 3 rows"),
        ("mean_column_auc", "multilabel", np.ones((3, 4)), SCORES[:3], "'a' is positive in all of the 3 rows"),
        ("quadratic_kappa", "ordinal", np.array([1, 1]), np.eye(4)[[1, 1]], "all 2 rows have .* the class 'b'"),
        ("r2", "regression", np.full((3, 2), 2.0), np.zeros((3, 2)), "the target 'a' is 2.0 in all 3 rows"),
    ],
)
def test_an_undefined_score_says_why(name, kind, targets, values, message):
    names = NAMES[:2] if kind in ("binary", "regression") else NAMES
    with pytest.raises(UndefinedMetricError, match=message):
        metric(name, kind, names)(targets, values)


def test_average_precision_of_all_positives_is_one():
    assert metric("average_precision", "binary", NAMES[:2])(np.ones(3, int), np.full((3, 1), 0.3)) == 1


def test_what_is_not_finite_is_refused_by_row():
    values = PROBS.copy()
    values[[4, 9], 2] = np.nan
    with pytest.raises(DataError, match=r"2 of 60 values are not finite \(rows 4, 9\)"):
        metric("accuracy", "multiclass")(CLASSES, values)
    targets = TRUE_VALUES.copy()
    targets[1, 0] = np.inf
    with pytest.raises(DataError, match="1 of 30 targets are not finite"):
        metric("rmse", "regression", NAMES[:2])(targets, VALUES)


@pytest.mark.parametrize(
    ("targets", "values", "error", "message"),
    [
        (CLASSES, PROBS[:, :3], MismatchError, r"expected values of shape \(N, 4\), found \(60, 3\)"),
        (CLASSES[:9], PROBS, MismatchError, r"expected targets of shape \(60,\) or \(60, 4\), found \(9,\)"),
        (CLASSES[:0], PROBS[:0], DataError, "there are no rows to score"),
        (CLASSES + 1, PROBS, DataError, r"class indices go from 0 to 3, found 1\.\.4"),
        (CLASSES, PROBS * 9, DataError, "are these logits"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(targets, values, error, message):
    with pytest.raises(error, match=message):
        metric("log_loss", "multiclass")(targets, values)


def test_an_unknown_name_gets_the_nearest_and_those_that_fit():
    with pytest.raises(ConfigError, match=r"'acuracy': unknown\. Did you mean 'accuracy'\? For regression tasks: rmse"):
        metric("acuracy", "regression")


def test_a_metric_of_another_kind_is_refused_with_those_that_fit():
    with pytest.raises(ConfigError, match="'rmse' does not fit multilabel tasks; these do: accuracy, log_loss"):
        metric("rmse", "multilabel")
    with pytest.raises(ConfigError, match="'log_loss' does not fit ordinal tasks with ordinal: regression"):
        metric("log_loss", "ordinal", ordinal="regression")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "accuracy",
            {"k": 3},
            r"'accuracy': unknown option 'k'; it takes none \('k' belongs to top_k_accuracy, map_at_k",
        ),
        ("map_at_k", {"kk": 3}, "'map_at_k': unknown option 'kk'; it takes k"),
        ("map_at_k", {"k": 0}, r"option k must be a whole number from 1 \(found: 0\)"),
        ("map_at_k", {"k": True}, r"option k must be a whole number from 1 \(found: True\)"),
        ("top_k_accuracy", {"k": 4}, "k = 4 is always right with 4 classes"),
    ],
)
def test_options_are_checked(name, options, message):
    with pytest.raises(ConfigError, match=message):
        metric(name, "multiclass", **options)


def test_a_needless_direction_is_refused():
    with pytest.raises(ConfigError, match="higher_is_better is read only with module:function"):
        metric("accuracy", "multiclass", higher=True)


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_knows_its_direction_and_survives_pickling(name):
    info = METRICS[name]
    kind = info.kinds[0]
    made = metric(name, kind, NAMES[:2] if kind == "binary" else NAMES, **dict.fromkeys(info.options, 2))
    assert made.better(2.0, 1.0) is info.higher_is_better
    assert made.better(1.0, 2.0) is not info.higher_is_better
    assert not made.better(1.0, 1.0)
    assert pickle.loads(pickle.dumps(made)).name == name
    assert info.higher_is_better is (name not in ("log_loss", "rmse", "mae", "kl_divergence"))


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    code = "def mean_gap(targets, values, power=1):\n    return abs(values[:, 0] - targets[:, 0]).mean() ** power\n"
    (tmp_path / "own_scores.py").write_text(code + "def broken(targets, values):\n    return 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_scores", None)


@pytest.mark.usefixtures("own_module")
def test_a_function_of_a_module_in_the_current_folder_is_a_metric():
    made = metric("own_scores:mean_gap", "regression", ("t",), higher=False, power=2)
    assert made(np.zeros((3, 1)), np.full((3, 1), 3.0)) == 9
    assert made.better(1, 2)
    assert pickle.loads(pickle.dumps(made)).name == "own_scores:mean_gap"


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("name", "higher", "options", "message"),
    [
        ("own_scores:mean_gap", None, {}, "state its direction: higher_is_better"),
        ("own_scores:gap", True, {}, "has no attribute 'gap'"),
        ("no_scores:gap", True, {}, r"No module named 'no_scores'; is no_scores\.py in "),
        ("own_scores:mean_gap", True, {"pow": 2}, "unexpected keyword argument 'pow'"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused(name, higher, options, message):
    with pytest.raises(ConfigError, match=message):
        metric(name, "regression", ("t",), higher, **options)


@pytest.mark.usefixtures("own_module")
def test_a_function_that_fails_or_gives_no_number_is_named():
    one = np.ones((1, 1))
    with pytest.raises(DataError, match="'own_scores:broken' failed on 1 rows: ZeroDivisionError"):
        metric("own_scores:broken", "regression", ("t",), higher=True)(one, one)
    with pytest.raises(UndefinedMetricError, match="own is undefined on the 1 rows: the score is nan"):
        Metric("own", True, lambda t, v: math.nan, "preds", "regression", ("t",), 1)(one, one)


def test_labels_that_the_host_does_not_ask_for_do_not_count():
    task = Task.model_validate(
        {
            "name": "t",
            "data": "d",
            "kind": "multilabel",
            "target": ("a", "b", "c"),
            "metric": "mean_column_auc",
            "train": {"table": "t.csv", "files": "{id}.png"},
        }
    )
    targets = np.array([[0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 1, 0]], dtype=np.float32)
    values = np.array([[0.1, 0.2, 0.9], [0.8, 0.6, 0.1], [0.3, 0.4, 0.2], [0.9, 0.7, 0.8]], dtype=np.float32)
    rows = Rows(np.array(["p", "q", "r", "s"], dtype=object), ((0,), (1,), (2,), (3,)), ("a", "b", "c"), targets)
    some = metric_of(task, replace(rows, wanted=(0, 1)))(targets, values)
    assert some == pytest.approx(
        (reference.roc_auc_score(targets[:, 0], values[:, 0]) + reference.roc_auc_score(targets[:, 1], values[:, 1]))
        / 2
    )
    assert some != pytest.approx(metric_of(task, rows)(targets, values))
