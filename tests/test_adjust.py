from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from pipeline.base.errors import ConfigError, DataError
from pipeline.blending.adjust import ADJUSTMENTS, accept, adjusted, candidates_of, from_record, named_adjustments
from pipeline.blending.class_weights import ClassWeights, weigh_classes
from pipeline.blending.clipping import Clip
from pipeline.blending.cut_points import CutPoints, best_cuts, move_cuts, spread_grades
from pipeline.blending.nested import nested_values, values_by_fold
from pipeline.blending.priors import PriorShift, correct_priors, estimate_priors
from pipeline.blending.problem import Problem
from pipeline.blending.temperature import Scaled, Temperature
from pipeline.blending.thresholds import Thresholds, move_thresholds
from pipeline.records.cv import metric_of
from pipeline.records.metrics import Metric, decide, resolve_metric
from pipeline.records.rows import Rows
from pipeline.records.task import MetricSpec, Task

LABELS = ("a", "b", "c", "d", "e")


def metric_for(name: str, kind: str, n: int = 3, ordinal: str = "softmax", threshold: float = 0.5) -> Metric:
    return resolve_metric(MetricSpec(name=name), kind, LABELS[:n], ordinal, threshold)


def rounded(rng: np.random.Generator, *shape: int, steps: int = 8) -> np.ndarray:
    """Probabilities with ties, 0 and 1 among them."""
    return (rng.integers(0, steps + 1, shape) / steps).astype(np.float32)


def dirichlet(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    return rng.dirichlet(np.ones(k), n).astype(np.float32)


def edges_of(values: np.ndarray) -> list[float]:
    """A threshold in every gap between values, and beyond both ends."""
    distinct = np.unique(values.astype(np.float64))
    return [-np.inf, *((distinct[1:] + distinct[:-1]) / 2).tolist(), np.inf]


def best_by_trying(values: np.ndarray, targets: np.ndarray, metric: Metric) -> float:
    """The best score of all combinations of one threshold for each column."""
    tried = itertools.product(*(edges_of(column) for column in values.T))
    return max(metric(targets, (values > np.array(line)).astype(np.float32)) for line in tried)


@dataclass(frozen=True)
class Mean:
    def apply(self, members: np.ndarray) -> np.ndarray:
        return members.mean(axis=0)

    def record(self) -> dict:
        return {"method": "mean"}


def fit_mean(problem: Problem) -> Mean:
    return Mean()


def problem_of(values: np.ndarray, targets: np.ndarray, metric: Metric, n_folds: int = 5, seed: int = 0) -> Problem:
    fold = np.random.default_rng(seed).permutation(len(values)) % n_folds
    form = "values" if metric.kind == "regression" or (metric.kind == "ordinal" and metric.n_columns == 1) else "probs"
    is_exclusive = form == "probs" and metric.kind not in ("binary", "multilabel")
    return Problem(values[None].astype(np.float32), targets, fold, metric, form, is_exclusive)


# Thresholds


@pytest.mark.parametrize("name", ["f1", "f1_macro", "f1_micro", "accuracy", "balanced_accuracy"])
@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.7])
def test_the_threshold_of_a_binary_task_is_as_good_as_the_best_of_all(name, threshold):
    metric = metric_for(name, "binary", 2, threshold=threshold)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        values, targets = rounded(rng, 12, 1), rng.integers(0, 2, 12)
        fitted = Thresholds().fit(values, targets, metric)
        plain = metric_for(name, "binary", 2)
        assert metric(targets, fitted.apply(values)) == pytest.approx(best_by_trying(values, targets, plain))


@pytest.mark.parametrize("name", ["f1_macro", "f1_micro"])
def test_thresholds_of_several_labels_are_as_good_as_the_best_of_all_combinations(name):
    metric = metric_for(name, "multilabel")
    for seed in range(2):
        rng = np.random.default_rng(seed)
        values, targets = rounded(rng, 9, 3, steps=4), (rng.random((9, 3)) < 0.4).astype(np.float32)
        fitted = Thresholds().fit(values, targets, metric)
        assert metric(targets, fitted.apply(values)) == pytest.approx(best_by_trying(values, targets, metric))


@pytest.mark.parametrize("name", ["f1_samples", "accuracy"])
def test_where_labels_hang_together_no_single_threshold_can_be_bettered(name):
    metric = metric_for(name, "multilabel")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        values, targets = rounded(rng, 15, 3), (rng.random((15, 3)) < 0.4).astype(np.float32)
        chosen = Thresholds().fit(values, targets, metric).apply(values) >= 0.5
        score = metric(targets, chosen.astype(np.float32))
        assert score >= metric(targets, values)
        for label, edge in itertools.product(range(3), edges_of(values)):
            other = chosen.copy()
            other[:, label] = values[:, label] > edge
            assert metric(targets, other.astype(np.float32)) <= score + 1e-12


def test_a_threshold_that_cannot_be_bettered_stays_where_the_task_has_it():
    values, targets = np.array([[0.2], [0.4], [0.7], [0.9]], np.float32), np.array([0, 0, 1, 1])
    assert Thresholds().fit(values, targets, metric_for("f1", "binary", 2)).thresholds == (0.5,)
    at_edge = np.array([[0.7], [0.2]], np.float32)  # a float32 0.7 counts, although it is less than 0.7
    fitted = Thresholds().fit(at_edge, np.array([1, 0]), metric_for("f1", "binary", 2, threshold=0.7))
    assert fitted.thresholds == (float(np.float32(0.7)),)


def test_labels_that_the_host_does_not_ask_for_have_no_part_in_the_thresholds():
    rng = np.random.default_rng(0)
    values, targets = rounded(rng, 30, 3), (rng.random((30, 3)) < 0.3).astype(np.float32)
    source = {"array": {"file": "x.npy"}}
    task = Task(
        name="t", data=".", target=("a", "b", "c"), kind="multilabel", metric="f1_micro", train=source, test=source
    )
    rows = Rows(np.array(["1"], dtype=object), ((0,),), ("a", "b", "c"), wanted=(0, 2))
    metric = metric_of(task, rows)
    fitted = Thresholds().fit(values, targets, metric)
    alone = Thresholds().fit(values[:, [0, 2]], targets[:, [0, 2]], metric_for("f1_micro", "multilabel", 2))
    assert fitted.thresholds == (alone.thresholds[0], 0.5, alone.thresholds[1])


@pytest.mark.parametrize("target", [0.5, 0.3, 0.7, 1 / 3, 0.999])
def test_moved_probabilities_decide_like_the_thresholds_themselves(target):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        dtype = (np.float32, np.float64)[seed % 2]
        values = rng.random((40, 4)).astype(dtype)
        values[:5] = [[0], [1], [0.5], [1e-30], [1 - 1e-7]]
        thresholds = np.array([rng.random(), float(values[20, 1]), rng.random() ** 20, 1 - rng.random() ** 20])
        around = np.nextafter(thresholds, [[-1], [2]])
        values[5:7], values[7] = around, thresholds
        moved = move_thresholds(values, thresholds, target)
        for compared in (moved, moved.astype(np.float64)):
            assert (decide(compared, "multilabel", threshold=target) == (values >= thresholds)).all()
        assert moved.dtype == np.float32
        assert moved.min() == 0
        assert moved.max() == 1
        order = np.argsort(values, axis=0)
        assert (np.diff(np.take_along_axis(moved, order, axis=0), axis=0) >= 0).all()


def test_always_and_never_are_thresholds_too():
    values = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], np.float32)
    moved = move_thresholds(values, np.array([0.0, np.nextafter(1.0, 2)]), 0.5)
    assert (moved[:, 0] >= 0.5).all()
    assert (moved[:, 1] < 0.5).all()
    rare = np.array([[1.0], [0.2], [0.1]], np.float32)
    fitted = Thresholds().fit(rare, np.zeros(3, np.int64), metric_for("accuracy", "binary", 2))
    assert (fitted.apply(rare) < 0.5).all()


# Class weights


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "f1_macro", "f1_micro", "quadratic_kappa"])
def test_no_single_class_weight_can_be_bettered(name):
    metric = metric_for(name, "multiclass")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        values, targets = dirichlet(rng, 25, 3), rng.choice(3, 25, p=[0.6, 0.3, 0.1])
        fitted = ClassWeights().fit(values, targets, metric)
        score = metric(targets, fitted.apply(values))
        assert score >= metric(targets, values)
        wide = values.astype(np.float64) * fitted.weights
        for label in range(3):
            others = np.delete(wide, label, axis=1).max(axis=1)
            for factor in np.exp(edges_of(np.log(others / wide[:, label]))[1:-1]):
                tried = np.eye(3)[(wide * np.where(np.arange(3) == label, factor, 1)).argmax(axis=1)]
                assert metric(targets, tried) <= score + 1e-9


def test_two_classes_find_the_best_of_all_borders():
    for seed, name in itertools.product(range(5), ["accuracy", "f1_macro", "balanced_accuracy"]):
        rng = np.random.default_rng(seed)
        second, targets = rng.random(15).astype(np.float32), rng.integers(0, 2, 15)
        values = np.stack([1 - second, second], axis=1)
        metric = metric_for(name, "multiclass", 2)
        best = max(metric(targets, np.eye(2)[(second > edge).astype(int)]) for edge in edges_of(second))
        fitted = ClassWeights().fit(values, targets, metric)
        assert metric(targets, fitted.apply(values)) == pytest.approx(best)


def test_weights_of_equal_probabilities_are_left_alone_where_they_cannot_be_bettered():
    values = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5]], np.float32)  # both right by the lower class, which no border says
    assert ClassWeights().fit(values, np.array([0, 1]), metric_for("accuracy", "multiclass")).weights == (1, 1, 1)


def test_weighted_probabilities_sum_to_one_and_have_the_same_largest_as_the_products():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        values = dirichlet(rng, 50, 4)
        values[:3] = [[0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0], [0, 0, 0.5, 0.5]]
        weights = np.exp(rng.normal(size=4))
        weights[1] = weights[0] * (1 + 1e-9)  # float32 cannot tell these products apart
        values[3:8, 1] = values[3:8, 0]
        weighted = weigh_classes(values, weights)
        assert (decide(weighted, "multiclass") == (values.astype(np.float64) * weights).argmax(axis=1)).all()
        np.testing.assert_allclose(weighted.sum(axis=1), 1, atol=1e-6)
        assert weighted.max() <= 1


# Cut points


def best_cuts_by_trying(grades: np.ndarray, targets: np.ndarray, metric: Metric) -> float:
    """The best score of all rising combinations of cuts between the values and beyond them."""
    tried = itertools.combinations_with_replacement(edges_of(grades), len(metric.names) - 1)
    return max(metric(targets, (grades[:, None] > np.array(cuts)).sum(axis=1, keepdims=True)) for cuts in tried)


@pytest.mark.parametrize("name", ["quadratic_kappa", "accuracy", "balanced_accuracy"])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_cuts_are_as_good_as_the_best_of_all(name, n):
    metric = metric_for(name, "ordinal", n, "regression")
    for seed in range(5):
        rng = np.random.default_rng(seed)
        targets = np.concatenate([[0, 1], rng.integers(0, n, 8)])
        grades = np.round(rng.normal(targets, 1.0) * 2) / 2
        fitted = CutPoints().fit(grades[:, None].astype(np.float32), targets, metric)
        reached = metric(targets, fitted.apply(grades[:, None]))
        assert reached == pytest.approx(best_cuts_by_trying(grades, targets, metric))


def test_planted_cuts_are_found():
    rng = np.random.default_rng(0)
    planted = np.array([0.8, 1.9, 2.2])
    grades = rng.uniform(0, 3, 4000).astype(np.float32)
    targets = np.searchsorted(planted, grades, side="left")
    fitted = CutPoints().fit(grades[:, None], targets, metric_for("quadratic_kappa", "ordinal", 4, "regression"))
    np.testing.assert_allclose(fitted.cuts, planted, atol=0.005)


@pytest.mark.parametrize("ordinal", ["softmax", "regression"])
def test_cuts_never_lower_the_kappa_that_they_are_fitted_on(ordinal):
    metric = metric_for("quadratic_kappa", "ordinal", 5, ordinal)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        targets = np.concatenate([[0, 4], rng.integers(0, 5, 48)])
        values = dirichlet(rng, 50, 5) if ordinal == "softmax" else rng.normal(2, 2, (50, 1)).astype(np.float32)
        assert metric(targets, CutPoints().fit(values, targets, metric).apply(values)) >= metric(targets, values)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_recut_predictions_decide_like_the_cuts_themselves(n):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        cuts = np.sort(rng.uniform(-0.5, n - 0.5, n - 1))
        cuts[-1] = cuts[max(n - 3, 0)]  # two may coincide: nobody gets the grade between
        cuts = np.array([1e-310]) if n == 2 and seed % 3 == 0 else np.sort(cuts)
        grades = rng.uniform(0, n - 1, 60)
        grades[:4] = [0, n - 1, 0.5, n - 1.5]
        inside = np.clip(cuts, 0, n - 1)
        grades = np.concatenate([grades, inside, np.nextafter(inside, n), np.nextafter(inside, -1).clip(0)])
        wanted = (grades[:, None] > cuts).sum(axis=1)
        moved = move_cuts(grades, cuts)
        assert (decide(moved[:, None], "ordinal", "regression", n_classes=n) == wanted).all()
        probs = spread_grades(moved, n)
        assert (decide(probs, "ordinal", "softmax") == wanted).all()
        assert (probs.astype(np.float64).sum(axis=1) == 1).all()
        assert (np.diff(moved[np.argsort(grades)]) >= 0).all()
        beyond = move_cuts(np.array([-1e6, 1e6]), cuts)
        assert decide(beyond[:, None], "ordinal", "regression", n_classes=n).tolist() == [0, n - 1]


def test_values_beyond_the_grades_keep_their_distance():
    moved = move_cuts(np.array([-2.0, 0.0, 2.0, 4.5]), np.array([0.25, 1.75]))
    assert moved.tolist() == [-2, 0, 2, 4.5]


def test_a_cut_fits_between_two_neighbouring_floats():
    for start in np.random.default_rng(0).uniform(1, 2, 20):
        grades, cost = np.array([start, np.nextafter(start, 2)]), np.array([[0.0, 1.0], [1.0, 0.0]])
        (cut,) = best_cuts(grades, cost, np.ones(2))
        assert (grades > cut).tolist() == [False, True]


def test_softmax_predictions_are_cut_by_the_expected_grade_that_decide_takes():
    rng = np.random.default_rng(3)
    values, targets = dirichlet(rng, 200, 4), rng.integers(0, 4, 200)
    fitted = CutPoints().fit(values, targets, metric_for("quadratic_kappa", "ordinal", 4))
    expected = values.astype(np.float64) @ np.arange(4.0)
    assert (decide(fitted.apply(values), "ordinal") == (expected[:, None] > fitted.cuts).sum(axis=1)).all()


# Temperature


@pytest.mark.parametrize("planted", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_a_planted_temperature_is_found(kind, planted):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (8000, 1 if kind == "binary" else 3))
    if kind == "multiclass":
        true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        targets = (rng.random((8000, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(0, 2)
        values = np.exp(logits * planted) / np.exp(logits * planted).sum(axis=1, keepdims=True)
    else:
        targets = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
        values = 1 / (1 + np.exp(-logits * planted))
    targets = targets[:, 0].astype(np.int64) if kind == "binary" else targets
    metric = metric_for("log_loss", kind, 2 if kind == "binary" else 3)
    fitted = Temperature().fit(values.astype(np.float32), targets, metric)
    assert fitted.temperature == pytest.approx(planted, rel=0.08)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_the_temperature_has_the_least_loss_of_a_grid_and_survives_certain_predictions(kind):
    rng = np.random.default_rng(1)
    width = 1 if kind == "binary" else 3
    values = dirichlet(rng, 60, 3)[:, :width]
    values[:3] = np.eye(3, dtype=np.float32)[:, :width]
    targets = (rng.random((60, 3)) < 0.4).astype(np.float32) if kind == "multilabel" else rng.integers(0, 2, 60)
    metric = metric_for("log_loss", kind, 2 if kind == "binary" else 3)
    fitted = Temperature().fit(values, targets, metric)
    grid = [Scaled(float(t), kind == "multiclass").apply(values) for t in np.geomspace(0.05, 20, 400)]
    assert np.isfinite(fitted.apply(values)).all()
    assert metric(targets, fitted.apply(values)) <= min(metric(targets, tried) for tried in grid) + 1e-7


def test_temperature_takes_soft_targets_and_keeps_what_is_most_probable():
    rng = np.random.default_rng(2)
    values, shares = dirichlet(rng, 500, 3), dirichlet(rng, 500, 3)
    metric = metric_for("kl_divergence", "multiclass")
    fitted = Temperature().fit(values, shares, metric)
    assert metric(shares, fitted.apply(values)) < metric(shares, values)
    assert (fitted.apply(values).argmax(axis=1) == values.argmax(axis=1)).all()
    even = np.full((4, 3), 1 / 3, np.float32)
    assert Temperature().fit(even, np.array([0, 1, 2, 0]), metric_for("log_loss", "multiclass")).temperature == 1


# Clipping and priors


def test_clipping_keeps_each_target_in_its_own_range():
    targets = np.array([[0, -5], [1, 5], [0.5, 0]], np.float32)
    values = np.array([[-1, -1], [2, 9], [0.7, -9]], np.float32)
    metric = resolve_metric(MetricSpec(name="rmse"), "regression", ("a", "b"))
    assert Clip().fit(values, targets, metric).apply(values).tolist() == [[0, -1], [1, 5], [np.float32(0.7), -5]]


def test_corrected_priors_follow_the_rule_of_bayes():
    exact = correct_priors(np.array([[0.8, 0.2]]), np.array([0.5, 0.5]), np.array([0.1, 0.9]), True)
    np.testing.assert_allclose(exact, [[0.08 / 0.26, 0.18 / 0.26]], rtol=1e-6)
    one = correct_priors(np.array([[0.2]]), np.array([0.5]), np.array([0.9]), False)
    np.testing.assert_allclose(one, [[0.18 / 0.26]], rtol=1e-6)
    values = dirichlet(np.random.default_rng(0), 20, 3)
    shares = np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(correct_priors(values, shares, shares, True), values, atol=1e-6)


def test_a_class_without_training_rows_and_a_row_without_any_share_stay_finite():
    values = np.array([[0.5, 0.3, 0.2], [0, 0, 1]], np.float32)
    corrected = correct_priors(values, np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.3, 0.5]), True)
    np.testing.assert_allclose(corrected, [np.array([0.2, 0.18, 0.2]) / 0.58, [0, 0, 1]], rtol=1e-6)
    nothing = correct_priors(values, np.full(3, 1 / 3), np.array([0.5, 0.5, 0.0]), True)
    np.testing.assert_array_equal(nothing[1], values[1])


@pytest.mark.parametrize("is_exclusive", [True, False])
def test_shifted_shares_are_estimated_from_predictions_alone(is_exclusive):
    rng = np.random.default_rng(0)
    means = np.array([0.0, 1.5, 3.0] if is_exclusive else [0.0, 2.0])
    training = np.full(len(means), 1 / len(means))
    shares = np.array([0.6, 0.1, 0.3] if is_exclusive else [0.85, 0.15])
    x = rng.normal(means[rng.choice(len(means), 20000, p=shares)], 1)
    densities = training * np.exp(-((x[:, None] - means) ** 2) / 2)
    probs = densities / densities.sum(axis=1, keepdims=True)
    columns = slice(None) if is_exclusive else slice(1, 2)
    found = estimate_priors(probs[:, columns].astype(np.float32), training[columns], is_exclusive)
    np.testing.assert_allclose(found, shares[columns], atol=0.02)


def test_the_shares_of_a_user_are_checked_and_never_a_candidate():
    metric, values = metric_for("log_loss", "multiclass"), dirichlet(np.random.default_rng(0), 6, 3)
    targets = np.array([0, 0, 0, 1, 1, 2])
    moved = PriorShift((0.2, 0.2, 0.6)).fit(values, targets, metric)
    np.testing.assert_allclose(moved.training, [1 / 2, 1 / 3, 1 / 6])
    for wrong, text in [((0.5, 0.5), "give 3 shares"), ((0.5, 0.5, 0.5), "sum to one"), ((2, -1, 0), "in 0..1")]:
        with pytest.raises(ConfigError, match=text):
            PriorShift(wrong).fit(values, targets, metric)
    assert "prior" not in ADJUSTMENTS


# Fitted with the blend, accepted by the nested score


@pytest.mark.parametrize(
    ("name", "kind", "ordinal", "expected"),
    [
        ("log_loss", "binary", "softmax", ["temperature"]),
        ("kl_divergence", "multiclass", "softmax", ["temperature"]),
        ("log_loss", "ordinal", "softmax", ["temperature"]),
        ("f1", "binary", "softmax", ["thresholds"]),
        ("f1_samples", "multilabel", "softmax", ["thresholds"]),
        ("accuracy", "multiclass", "softmax", ["class_weights"]),
        ("quadratic_kappa", "multiclass", "softmax", ["class_weights"]),
        ("quadratic_kappa", "ordinal", "softmax", ["cut_points"]),
        ("quadratic_kappa", "ordinal", "regression", ["cut_points"]),
        ("f1_macro", "ordinal", "softmax", []),
        ("rmse", "regression", "softmax", ["clip"]),
        ("roc_auc", "binary", "softmax", []),
        ("map_at_k", "multiclass", "softmax", []),
    ],
)
def test_each_metric_has_the_candidates_that_can_help_it(name, kind, ordinal, expected):
    metric = metric_for(name, kind, 2 if kind == "binary" else 3, ordinal)
    problem = problem_of(np.zeros((1, 1)), np.zeros(1), metric)
    assert [known.name for known in candidates_of(metric, problem.form, problem.is_exclusive)] == expected


def test_an_adjustment_that_cannot_help_is_refused_by_name():
    metric = metric_for("f1", "binary", 2)
    assert [known.name for known in named_adjustments(["thresholds"], metric, "probs", False)] == ["thresholds"]
    for names, text in [
        (["treshold"], "adjustment 'treshold': unknown. Did you mean 'thresholds'"),
        (["clip"], "adjustment 'clip' cannot help f1: binary predictions .*; these can: thresholds"),
        (["thresholds", "thresholds"], "comes twice"),
    ]:
        with pytest.raises(ConfigError, match=text):
            named_adjustments(names, metric, "probs", False)
    assert Thresholds().misfit(metric_for("f1", "binary", 2, threshold=1.0), "probs", False) is not None


def planted_binary(seed: int, n: int, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn with probability p, and p with its odds raised to `power`: 1 is calibrated."""
    rng = np.random.default_rng(seed)
    odds = np.exp(rng.normal(0, 1.5, n))
    targets = (rng.random(n) < odds / (1 + odds)).astype(np.int64)
    return (odds**power / (1 + odds**power)).astype(np.float32)[:, None], targets


@pytest.mark.parametrize("name", ["log_loss", "accuracy"])
def test_on_calibrated_predictions_adjustments_are_mostly_refused(name):
    metric = metric_for(name, "binary", 2)
    accepted = 0
    for seed in range(30):
        values, targets = planted_binary(seed, 400, 1.0)
        problem = problem_of(values, targets, metric, seed=seed)
        _, trials = accept(problem, fit_mean, candidates_of(metric, "probs", False), n_draws=100)
        accepted += trials[0].is_accepted
    assert accepted <= 10


def test_a_planted_miscalibration_is_accepted_with_its_gain_and_error():
    metric = metric_for("log_loss", "binary", 2)
    for seed in range(5):
        values, targets = planted_binary(seed, 600, 3.0)
        problem = problem_of(values, targets, metric, seed=seed)
        accepted, (trial,) = accept(problem, fit_mean, candidates_of(metric, "probs", False))
        assert [known.name for known in accepted] == ["temperature"]
        assert trial.before == problem.score(values)
        assert trial.after == problem.score(nested_values(problem, adjusted(fit_mean, accepted)))
        assert trial.gain == pytest.approx(trial.before - trial.after)
        assert trial.gain > 2 * trial.std_error > 0


def test_planted_borders_are_accepted_for_every_kind_of_decision():
    rng = np.random.default_rng(0)
    second, binary = planted_binary(0, 800, 1.0)
    classes = rng.integers(0, 3, 800)
    shy = np.exp(rng.normal(0, 1, (800, 3)) + 2 * np.eye(3)[classes]) * [1, 1, 0.05]
    grades = (classes * 0.6 + rng.normal(0, 0.2, 800))[:, None]
    low = second**2
    for metric, values, targets in [
        (metric_for("f1", "binary", 2), low, binary),
        (metric_for("accuracy", "multiclass"), shy / shy.sum(axis=1, keepdims=True), classes),
        (metric_for("quadratic_kappa", "ordinal", 3, "regression"), grades, classes),
        (metric_for("mae", "regression", 1), np.exp(grades) * 5, classes[:, None].astype(np.float32)),
    ]:
        problem = problem_of(values, targets, metric)
        candidates = candidates_of(metric, problem.form, problem.is_exclusive)
        accepted, trials = accept(problem, fit_mean, candidates, n_draws=100)
        assert accepted == candidates
        assert trials[0].gain > trials[0].std_error > 0


def test_the_held_out_fold_has_no_part_in_its_own_adjustment():
    metric = metric_for("f1", "binary", 2)
    values, targets = planted_binary(0, 200, 1.0)
    problem = problem_of(values, targets, metric)
    held = problem.fold == 2
    fit = adjusted(fit_mean, [Thresholds()])
    turned = replace(problem, targets=np.where(held, 1 - targets, targets))
    np.testing.assert_array_equal(nested_values(problem, fit)[held], nested_values(turned, fit)[held])


def test_adjustments_follow_each_other_and_the_record_gives_back_the_same_map():
    metric = metric_for("log_loss", "multiclass")
    rng = np.random.default_rng(0)
    values, targets = dirichlet(rng, 90, 3), rng.integers(0, 3, 90)
    problem = problem_of(values, targets, metric)
    fitted = adjusted(fit_mean, [Temperature(), PriorShift((0.5, 0.25, 0.25))])(problem)
    first = Temperature().fit(values, targets, metric)
    second = PriorShift((0.5, 0.25, 0.25)).fit(first.apply(values), targets, metric)
    np.testing.assert_array_equal(fitted.apply(problem.members), second.apply(first.apply(values)))
    record = json.loads(json.dumps(fitted.record()))
    assert record["method"] == "mean"
    assert [part["name"] for part in record["adjustments"]] == ["temperature", "prior"]
    assert adjusted(fit_mean, []) is fit_mean


@dataclass(frozen=True)
class Lower:
    """An adjustment and its map in one: values less a constant, and what they were when it was fitted."""

    name: str
    by: float
    seen: np.ndarray | None = None

    def misfit(self, metric: Metric, form: str, is_exclusive: bool) -> None:
        return None

    def fit(self, values: np.ndarray, targets: np.ndarray, metric: Metric) -> Lower:
        return replace(self, seen=values)

    def apply(self, values: np.ndarray) -> np.ndarray:
        return values - np.float32(self.by)

    def record(self) -> dict:
        return {"name": self.name}


def test_each_adjustment_is_tried_behind_those_accepted_before_it():
    metric = metric_for("rmse", "regression", 1)
    targets = np.arange(40, dtype=np.float32)[:, None]
    problem = problem_of(targets + 3, targets, metric)
    candidates = [Lower("one", 1), Lower("away", -5), Lower("two", 2)]
    accepted, trials = accept(problem, fit_mean, candidates, n_draws=100)
    assert [known.name for known in accepted] == ["one", "two"]
    assert [(trial.before, trial.after) for trial in trials] == [(3, 2), (2, 7), (2, 0)]


@dataclass(frozen=True)
class Centred:
    """A blend that depends on the set of rows, as ranks do."""

    def apply(self, members: np.ndarray) -> np.ndarray:
        return members[0] - members[0].mean(axis=0)

    def record(self) -> dict:
        return {}


def test_an_adjustment_sees_the_blend_fold_by_fold_and_after_those_before_it():
    metric = metric_for("rmse", "regression", 1)
    values = np.random.default_rng(0).normal(size=(20, 1)).astype(np.float32)
    problem = problem_of(values, values, metric)
    first, second = adjusted(lambda _: Centred(), [Lower("one", 1), Lower("two", 2)])(problem).adjusters
    np.testing.assert_array_equal(first.seen, values_by_fold(problem, Centred()))
    np.testing.assert_array_equal(second.seen, first.seen - 1)


def fitted_examples() -> list[tuple[object, np.ndarray]]:
    rng = np.random.default_rng(0)
    probs, classes = dirichlet(rng, 30, 3), rng.integers(0, 3, 30)
    labels = (rng.random((30, 3)) < 0.5).astype(np.float32)
    grades = rng.normal(1, 1, (30, 1)).astype(np.float32)
    return [
        (Temperature().fit(probs, classes, metric_for("log_loss", "multiclass")), probs),
        (Temperature().fit(probs, labels, metric_for("log_loss", "multilabel")), probs),
        (Thresholds().fit(probs, labels, metric_for("f1_macro", "multilabel")), probs),
        (ClassWeights().fit(probs, classes, metric_for("f1_macro", "multiclass")), probs),
        (CutPoints().fit(probs, classes, metric_for("quadratic_kappa", "ordinal")), probs),
        (CutPoints().fit(grades, classes, metric_for("quadratic_kappa", "ordinal", 3, "regression")), grades),
        (Clip().fit(grades, grades / 2, metric_for("mae", "regression", 1)), grades),
        (PriorShift((0.5, 0.2, 0.3)).fit(probs, classes, metric_for("log_loss", "multiclass")), probs),
    ]


def test_every_map_comes_back_from_its_record_through_json():
    for fitted, values in fitted_examples():
        again = from_record(json.loads(json.dumps(fitted.record())))
        assert again == fitted
        assert fitted.apply(values).dtype == np.float32
        np.testing.assert_array_equal(again.apply(values), fitted.apply(values))


def test_a_record_that_no_adjustment_wrote_is_refused():
    with pytest.raises(DataError, match="name is 'magic'; known: temperature, "):
        from_record({"name": "magic"})
    with pytest.raises(DataError, match="record of the adjustment 'temperature'"):
        from_record({"name": "temperature", "temprature": 2.0})


def test_constant_predictions_missing_labels_and_a_single_class_leave_all_finite():
    same = np.full((6, 3), 1 / 3, np.float32)
    one_class, no_labels = np.zeros(6, np.int64), np.zeros((6, 3), np.float32)
    for name, kind, values, targets in [
        *((name, "multilabel", same, no_labels) for name in ("f1_macro", "f1_micro", "f1_samples", "log_loss")),
        *((name, "multilabel", same, 1 - no_labels) for name in ("f1_macro", "accuracy", "log_loss")),
        *((name, "binary", same[:, :1], one_class) for name in ("f1", "f1_macro", "accuracy", "balanced_accuracy")),
        *((name, "multiclass", same, one_class) for name in ("accuracy", "f1_macro", "quadratic_kappa", "log_loss")),
        *((name, "ordinal", same, one_class) for name in ("quadratic_kappa", "accuracy", "balanced_accuracy")),
    ]:
        metric = metric_for(name, kind, 2 if kind == "binary" else 3)
        problem = problem_of(values, targets, metric)
        (candidate,) = candidates_of(metric, problem.form, problem.is_exclusive)
        assert np.isfinite(candidate.fit(values, targets, metric).apply(values)).all()
    kept = Thresholds().fit(same, no_labels, metric_for("f1_macro", "multilabel"))
    assert kept.thresholds == (0.5, 0.5, 0.5)
    cuts = CutPoints().fit(same, one_class, metric_for("quadratic_kappa", "ordinal"))
    assert cuts.cuts == (0.5, 1.5)


def test_a_class_that_one_fold_lacks_does_not_stop_the_nested_loop():
    metric = metric_for("f1_macro", "multiclass")
    rng = np.random.default_rng(0)
    values, targets = dirichlet(rng, 40, 3), rng.integers(0, 2, 40)
    problem = problem_of(values, targets, metric)
    targets[problem.fold == 0] = 2
    _, trials = accept(problem, fit_mean, candidates_of(metric, "probs", True), n_draws=100)
    assert trials[0].after is not None


def test_metrics_of_the_user_have_no_candidates():
    own = partial(lambda targets, values: 0.0)
    metric = replace(metric_for("log_loss", "multiclass"), name="own:score", score=own)
    assert candidates_of(metric, "probs", True) == ()
