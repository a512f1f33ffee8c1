"""Ways of blending on arrays: means, greedy selection, weights on the simplex, stacks, and their nested scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from pipeline.base.errors import ConfigError, MismatchError
from pipeline.blending.averages import average
from pipeline.blending.greedy import greedy, greedy_path
from pipeline.blending.losses import AbsoluteErrors, LogLoss, RootSquares, ScoreLoss, loss_of, signed
from pipeline.blending.methods import METHODS, fit_of, method_of
from pipeline.blending.nested import fit_nested, nested_values, values_by_fold
from pipeline.blending.problem import Problem
from pipeline.blending.running import LogLossSum, RightSum, ScoredSum, SquaresSum, empty_sum
from pipeline.blending.simplex import simplex, simplex_weights
from pipeline.blending.stacking import stack
from pipeline.blending.verdict import error_correlation, judge, leave_one_out, scored
from pipeline.records.metrics import resolve_metric
from pipeline.records.task import MetricSpec

KINDS = {
    "log_loss": "multiclass",
    "accuracy": "multiclass",
    "balanced_accuracy": "multiclass",
    "kl_divergence": "multiclass",
    "roc_auc": "binary",
    "mean_column_auc": "multilabel",
    "rmse": "regression",
    "mae": "regression",
    "r2": "regression",
}


def metric_named(name, kind, n_columns):
    names = ["no", "yes"] if kind == "binary" else [f"c{k}" for k in range(n_columns)]
    return resolve_metric(MetricSpec(name=name), kind, names)


def problem_with(metric="log_loss", kind=None, m=5, n=60, k=3, seed=0, skill=1.0, soft=False):
    """Members that know the truth more or less: the later ones more."""
    kind = kind or KINDS[metric]
    k = 1 if kind == "binary" else k
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(m, n, k))
    known = skill * np.linspace(0.3, 1.3, m)[:, None, None]
    if kind == "multiclass":
        targets = rng.integers(0, k, n)
        members = softmax(noise + known * np.eye(k)[targets], axis=2)
        targets = rng.dirichlet(np.ones(k), n).astype(np.float32) if soft else targets
    elif kind == "regression":
        targets = rng.normal(size=(n, k)).astype(np.float32)
        members = targets + noise / known
    else:
        targets = rng.integers(0, 2, (n, k))
        members = expit(noise + known * (2 * targets - 1))
        targets = targets[:, 0] if kind == "binary" else targets.astype(np.float32)
    form = "values" if kind == "regression" else "probs"
    found = metric_named(metric, kind, k)
    return Problem(members.astype(np.float32), targets, np.arange(n) % 3, found, form, kind == "multiclass")


def loss_of_mean(problem, members):
    mean = np.mean([problem.members[member].astype(np.float64) for member in members], axis=0)
    return round(signed(problem, problem.score(mean.astype(np.float32))), 6)


def brute_force_path(problem, candidates, n_picks, n_start):
    """Greedy selection as the paper has it, every mean taken anew."""
    ranked = sorted(candidates, key=lambda member: (loss_of_mean(problem, [member]), member))[:n_start]
    starts = [loss_of_mean(problem, ranked[: n + 1]) for n in range(len(ranked))]
    picks = ranked[: starts.index(min(starts)) + 1]
    losses = starts[: len(picks)]
    while len(picks) < n_picks:
        options = [(loss_of_mean(problem, [*picks, new]), new not in picks, new) for new in candidates]
        picks = [*picks, min(options)[2]]
        losses.append(min(options)[0])
    return tuple(picks[: losses.index(min(losses)) + 1]), losses


# -- greedy selection --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        ("log_loss", "multiclass"),
        ("log_loss", "binary"),
        ("log_loss", "multilabel"),
        ("accuracy", "multiclass"),
        ("balanced_accuracy", "multiclass"),
        ("roc_auc", "binary"),
        ("rmse", "regression"),
        ("mae", "regression"),
    ],
)
@pytest.mark.parametrize(("n_start", "seed"), [(1, 0), (4, 1)])
def test_greedy_selection_equals_brute_force(metric, kind, n_start, seed):
    problem = problem_with(metric, kind, seed=seed)
    for candidates in (range(5), [0, 2, 3]):
        path = greedy_path(problem, candidates, 8, n_start)
        picks, losses = brute_force_path(problem, list(candidates), 8, n_start)
        assert path.picks == picks
        np.testing.assert_allclose(path.losses, losses, atol=2e-6)


@pytest.mark.parametrize(
    ("metric", "kind", "soft", "sums"),
    [
        ("log_loss", "multiclass", False, LogLossSum),
        ("log_loss", "multiclass", True, LogLossSum),
        ("kl_divergence", "multiclass", True, LogLossSum),
        ("log_loss", "binary", False, LogLossSum),
        ("log_loss", "multilabel", False, LogLossSum),
        ("accuracy", "multiclass", False, RightSum),
        ("rmse", "regression", False, SquaresSum),
        ("mae", "regression", False, ScoredSum),
        ("accuracy", "binary", False, ScoredSum),
    ],
)
def test_running_sums_score_every_candidate_as_the_metric_does(metric, kind, soft, sums):
    problem = problem_with(metric, kind, soft=soft)
    running = empty_sum(problem)
    assert type(running) is sums
    for picks in ([], [2], [2, 0], [2, 0, 2]):
        wanted = [loss_of_mean(problem, [*picks, new]) for new in range(5)]
        np.testing.assert_allclose(running.losses(range(5)), wanted, atol=3e-6)
        running.pick([2, 0, 2, 1][len(picks)])
    running.clear()
    np.testing.assert_allclose(running.losses([3]), [loss_of_mean(problem, [3])], atol=3e-6)


def test_level_classes_go_to_the_lower_one_as_the_metric_has_it():
    problem = problem_with("accuracy", m=4, n=200)
    coarse = replace(problem, members=np.eye(3, dtype=np.float32)[problem.members.argmax(axis=2)])
    running = empty_sum(coarse)
    running.pick(0)
    assert running.losses(range(4)) == pytest.approx(
        [-coarse.score((coarse.members[0] + m) / 2) for m in coarse.members]
    )


def test_where_the_host_asks_for_some_labels_no_shortcut_is_taken():
    problem = problem_with("log_loss", "multilabel")
    inner = problem.metric
    two = replace(inner, score=lambda targets, values: inner.score(targets[:, :2], values[:, :2]))
    problem = replace(problem, metric=two)
    assert type(empty_sum(problem)) is ScoredSum
    assert greedy_path(problem, range(5), 6, 1).picks == brute_force_path(problem, range(5), 6, 1)[0]


def test_ties_go_to_a_member_already_in_and_then_to_the_lower_position():
    problem = problem_with(m=2)
    twins = replace(problem, members=problem.members[[1, 1, 1]])
    assert greedy_path(twins, range(3), 5, 1).picks == (0,)
    right, wrong = np.float32([[1, 0]] * 4), np.float32([[0, 1]] * 4)
    metric = metric_named("accuracy", "multiclass", 2)
    members = np.stack([wrong, right, right])
    level = Problem(members, np.zeros(4, dtype=np.int64), np.arange(4) % 2, metric, "probs", True)
    # By itself member 1 is best by position; afterwards it stays, being in.
    assert greedy_path(level, range(3), 1, 3).picks == (1,)
    tried = empty_sum(level)
    tried.pick(2)
    assert tried.losses([1, 2]) == [-1, -1]


def test_a_pick_that_is_level_with_another_is_the_one_already_in():
    # After member 1, both 0 and 1 leave accuracy as it is; 0 has the lower position, 1 is in.
    members = np.float32([[[0.6, 0.4], [0.4, 0.6]], [[0.9, 0.1], [0.9, 0.1]]])
    members[0, 1] = [0.45, 0.55]
    problem = Problem(members, np.array([0, 0]), np.arange(2), metric_named("accuracy", "multiclass", 2), "probs", True)
    path = greedy_path(problem, range(2), 4, 1)
    assert path.losses == (-1, -1, -1, -1)
    assert path.picks == (1,)
    problem = replace(problem, members=members[[0, 1]], targets=np.array([0, 1]))
    assert brute_force_path(problem, range(2), 4, 1)[0] == greedy_path(problem, range(2), 4, 1).picks


def test_a_path_ends_at_its_best_prefix():
    path = greedy_path(problem_with("accuracy", n=40, seed=3), range(5), 30, 1)
    assert len(path.losses) == 30
    assert path.losses[len(path.picks) - 1] == min(path.losses)
    assert min(path.losses[: len(path.picks) - 1], default=np.inf) > min(path.losses)


def test_greedy_weights_are_shares_of_the_picks():
    problem = problem_with()
    picks = greedy_path(problem, range(5), 20, 5).picks
    weights = greedy(20, 5)(problem).weights
    np.testing.assert_allclose(weights, [picks.count(member) / len(picks) for member in range(5)])


def test_bags_are_keyed_and_hold_their_share_of_the_members():
    problem = problem_with(m=6)
    one = greedy(n_bags=1, seed=1)(problem)
    assert np.array_equal(one.weights, greedy(seed=2)(problem).weights)
    bagged = greedy(n_bags=4, bag_share=0.5)(problem)
    assert bagged.weights.sum() == pytest.approx(1)
    assert np.array_equal(bagged.weights, greedy(n_bags=4, bag_share=0.5)(problem).weights)
    assert not np.array_equal(bagged.weights, greedy(n_bags=4, bag_share=0.5, seed=1)(problem).weights)
    single = greedy(n_bags=2, bag_share=0.01)(problem).weights
    assert set(single.tolist()) <= {0.0, 0.5, 1.0}
    assert np.array_equal(greedy(n_bags=3, bag_share=1.0)(problem).weights, one.weights)


# -- weights on the simplex --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "kind", "soft", "loss"),
    [
        ("log_loss", "multiclass", False, LogLoss),
        ("log_loss", "multiclass", True, LogLoss),
        ("kl_divergence", "multiclass", True, LogLoss),
        ("log_loss", "multilabel", False, LogLoss),
        ("rmse", "regression", False, RootSquares),
        ("mae", "regression", False, AbsoluteErrors),
        ("r2", "regression", False, ScoreLoss),
    ],
)
def test_losses_of_weights_are_the_metric_and_their_slopes_its_slopes(metric, kind, soft, loss):
    problem = problem_with(metric, kind, soft=soft)
    found = loss_of(problem)
    weights = np.array([0.1, 0.3, 0.2, 0.25, 0.15])
    assert type(found) is loss
    mean = np.tensordot(weights, problem.members, axes=1)
    assert found.value(weights) == pytest.approx(signed(problem, problem.score(mean)), rel=1e-5)
    if loss is not ScoreLoss:
        step = np.array([2e-3, -2e-3, 0, 0, 0])
        slope = (found.value(weights + step) - found.value(weights - step)) / 2
        assert found.gradient(weights) @ step == pytest.approx(slope, rel=0.05)


def test_two_regressors_get_the_weights_of_the_closed_form():
    problem = problem_with("rmse", m=2, k=1, n=500)
    a, b = (member[:, 0].astype(np.float64) for member in problem.members)
    y = problem.targets[:, 0]
    share = np.dot(y - b, a - b) / np.dot(a - b, a - b)
    np.testing.assert_allclose(simplex_weights(problem), [share, 1 - share], atol=1e-4)
    np.testing.assert_allclose(
        simplex_weights(replace(problem, metric=metric_named("r2", "regression", 1))), [share, 1 - share], atol=1e-3
    )


def test_log_loss_weights_equal_those_of_expectation_maximisation():
    problem = problem_with(m=6, n=300, seed=2)
    true = problem.members[:, np.arange(300), problem.targets].astype(np.float64)
    weights = np.full(6, 1 / 6)
    for _ in range(20_000):
        weights = weights * (true / (weights @ true)).mean(axis=1)
    np.testing.assert_allclose(simplex_weights(problem), weights, atol=2e-3)
    assert loss_of(problem).value(simplex_weights(problem)) <= loss_of(problem).value(weights) + 1e-6


@pytest.mark.parametrize("scale", [1e-4, 1e6])
def test_weights_do_not_depend_on_the_unit_of_the_target(scale):
    problem = problem_with("rmse", m=3, n=200)
    scaled = replace(problem, members=problem.members * np.float32(scale), targets=problem.targets * np.float32(scale))
    np.testing.assert_allclose(simplex_weights(scaled), simplex_weights(problem), atol=1e-3)


@pytest.mark.parametrize("metric", ["log_loss", "rmse", "mae", "kl_divergence"])
def test_simplex_weights_are_shares_and_no_worse_than_equal_ones(metric):
    problem = problem_with(metric, soft=metric == "kl_divergence")
    weights, loss = simplex_weights(problem), loss_of(problem)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    others = np.vstack([np.full(5, 0.2), np.eye(5), np.random.default_rng(0).dirichlet(np.ones(5), 200)])
    assert loss.value(weights) <= min(loss.value(other) for other in others) + 1e-5


def test_the_simplex_refuses_scores_that_go_in_steps():
    with pytest.raises(
        MismatchError, match=r"'simplex' needs a smooth metric .*and accuracy goes in steps: use 'greedy'"
    ):
        simplex()(problem_with("accuracy"))


# -- means -------------------------------------------------------------------------------------------------------------


def test_means_have_their_closed_forms():
    problem = problem_with(m=2)
    p, q = problem.members.astype(np.float64)
    shares = np.array([0.25, 0.75])
    found = {name: average(name, shares)(problem).apply(problem.members) for name in ("mean", "geometric", "logits")}
    np.testing.assert_allclose(found["mean"], 0.25 * p + 0.75 * q, rtol=1e-5)
    product = p**0.25 * q**0.75
    np.testing.assert_allclose(found["geometric"], product / product.sum(axis=1, keepdims=True), rtol=1e-5)
    odds = expit(0.25 * logit(p) + 0.75 * logit(q))
    np.testing.assert_allclose(found["logits"], odds / odds.sum(axis=1, keepdims=True), rtol=1e-5)
    assert average("mean")(problem).record() == {"method": "mean", "weights": [0.5, 0.5]}


def test_of_single_columns_the_geometric_mean_is_that_of_log_odds():
    problem = problem_with("log_loss", "binary")
    geometric, logits = (average(name)(problem).apply(problem.members) for name in ("geometric", "logits"))
    np.testing.assert_allclose(geometric, logits, rtol=1e-5)
    np.testing.assert_allclose(geometric, expit(logit(problem.members.astype(np.float64)).mean(axis=0)), rtol=1e-5)


def test_a_member_that_is_sure_does_not_decide_alone():
    problem = problem_with("log_loss", "binary", m=2, n=2)
    members = np.float32([[[0.0], [1.0]], [[0.5], [0.5]]])
    for name in ("geometric", "logits"):
        values = average(name)(problem).apply(members)
        assert 1e-4 < values[0, 0] < 1e-3
        assert 1e-4 < 1 - values[1, 0] < 1e-3


def test_ranks_see_the_order_only_and_are_taken_within_each_fold():
    problem = problem_with("mean_column_auc", n=30)
    bent = replace(problem, members=problem.members**3)
    rule = average("ranks")(problem)
    np.testing.assert_array_equal(rule.apply(problem.members), rule.apply(bent.members))
    np.testing.assert_allclose(
        average("ranks")(problem).apply(np.float32([[[0.1], [0.7], [0.7], [0.2]]] * 5))[:, 0],
        [1 / 8, 3 / 4, 3 / 4, 3 / 8],
    )
    shifted = problem.members + np.float32(100) * (problem.fold == 1)[None, :, None]
    np.testing.assert_array_equal(
        values_by_fold(problem, rule), values_by_fold(replace(problem, members=shifted), rule)
    )


@pytest.mark.parametrize(
    ("name", "metric", "message"),
    [
        ("geometric", "rmse", "method 'geometric' needs probabilities; these are values: use 'mean'"),
        ("logits", "rmse", "method 'logits' needs probabilities"),
        ("ranks", "log_loss", "'ranks' keeps the order of rows only, and log_loss needs more; it is for roc_auc"),
    ],
)
def test_means_that_do_not_fit_are_refused(name, metric, message):
    with pytest.raises(MismatchError, match=message):
        average(name)(problem_with(metric))


def test_ranks_of_classes_that_sum_to_one_are_refused():
    problem = problem_with("log_loss")
    problem = replace(problem, metric=metric_named("mean_column_auc", "multiclass", 3))
    with pytest.raises(MismatchError, match="ranks of classes do not sum to one"):
        average("ranks")(problem)


# -- stacks ------------------------------------------------------------------------------------------------------------


def test_a_stack_of_values_finds_scale_and_offset():
    problem = problem_with("rmse", m=2, k=2, n=400)
    exact = np.stack([3 * problem.targets + 5, problem.members[1]]).astype(np.float32)
    rule = stack()(replace(problem, members=exact))
    np.testing.assert_allclose(rule.apply(exact), problem.targets, atol=0.05)
    assert len(rule.record()["parts"]) == 2
    assert rule.record()["estimator"] == "sklearn.linear_model:Ridge"


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_stack_does_not_depend_on_the_unit_of_the_target(scale):
    problem = problem_with("rmse", m=3, n=100)
    scaled = replace(problem, members=problem.members * np.float32(scale), targets=problem.targets * np.float32(scale))
    wanted = stack()(problem).apply(problem.members)
    np.testing.assert_allclose(stack()(scaled).apply(scaled.members) / scale, wanted, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("metric", "kind"), [("log_loss", "multiclass"), ("log_loss", "binary"), ("log_loss", "multilabel")]
)
def test_a_stack_of_probabilities_mends_members_that_are_too_sure(metric, kind):
    problem = problem_with(metric, kind, n=600)
    sure = expit(4 * logit(problem.members.astype(np.float64))).astype(np.float32)
    if problem.is_exclusive:
        sure /= sure.sum(axis=2, keepdims=True)
    problem = replace(problem, members=sure)
    values = nested_values(problem, stack())
    assert problem.score(values) < problem.score(nested_values(problem, average("mean")))
    if problem.is_exclusive:
        np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-5)


def test_soft_targets_are_learnt_by_their_shares():
    problem = problem_with("kl_divergence", soft=True, m=1, n=500)
    members = problem.targets[None] ** 2
    problem = replace(problem, members=(members / members.sum(axis=2, keepdims=True)).astype(np.float32))
    assert problem.score(stack()(problem).apply(problem.members)) < 0.5 * problem.score(problem.members[0])


def test_any_estimator_is_taken_by_name_and_seeded():
    problem = problem_with(n=120)
    forest = stack("sklearn.ensemble:RandomForestClassifier", {"n_estimators": 5, "max_depth": 3})
    rule = forest(problem)
    assert rule.record()["arguments"] == {"n_estimators": 5, "max_depth": 3}
    np.testing.assert_array_equal(rule.apply(problem.members), forest(problem).apply(problem.members))


def test_a_class_or_label_that_a_fold_lacks_is_no_fault():
    problem = problem_with("log_loss", "multilabel", n=30)
    targets = problem.targets.copy()
    targets[:, 0] = 0
    rule = stack()(replace(problem, targets=targets))
    np.testing.assert_allclose(rule.apply(problem.members)[:, 0], problem.members[:, :, 0].mean(axis=0), rtol=1e-5)
    classes = problem_with(n=60, k=4)
    fewer = classes.at(classes.targets != 2)
    probs = stack()(fewer).apply(classes.members)
    assert probs.shape == (60, 4)
    assert np.all(probs[:, 2] == 0)


@pytest.mark.parametrize(
    ("estimator", "arguments", "message"),
    [
        ("sklearn.linear_model:Rigde", {}, "estimator 'sklearn.linear_model:Rigde': .*give module:Class"),
        ("nothing.at.all:Ridge", {}, "estimator 'nothing.at.all:Ridge': No module named 'nothing'"),
        ("sklearn.linear_model:Ridge", {"alhpa": 1}, "unexpected keyword argument 'alhpa'"),
        ("pathlib:Path", {}, "is no estimator"),
        ("no-colon", {}, "estimator 'no-colon'"),
    ],
)
def test_estimators_that_do_not_exist_are_refused_at_once(estimator, arguments, message):
    with pytest.raises(ConfigError, match=message):
        stack(estimator, arguments)


def test_estimators_that_cannot_do_the_task_are_refused():
    with pytest.raises(ConfigError, match="estimator Ridge: gives no probabilities"):
        stack("sklearn.linear_model:Ridge")(problem_with())
    with pytest.raises(ConfigError, match="estimator KNeighborsClassifier: cannot be fitted"):
        stack("sklearn.neighbors:KNeighborsClassifier")(problem_with("log_loss", soft=True))


# -- nested scores -----------------------------------------------------------------------------------------------------

FITS = {"greedy": greedy(20), "simplex": simplex(), "stack": stack(), "mean": average("mean")}


@pytest.mark.parametrize("name", FITS)
def test_nested_values_of_a_fold_come_from_a_fit_on_the_other_folds(name):
    problem, fit = problem_with(), FITS[name]
    values = nested_values(problem, fit)
    for fold in range(3):
        held = np.flatnonzero(problem.fold == fold)
        others = np.flatnonzero(problem.fold != fold)
        wanted = fit(problem.at(others)).apply(problem.members[:, held])
        np.testing.assert_allclose(values[held], wanted, rtol=1e-5)


@pytest.mark.parametrize("name", FITS)
def test_the_truth_of_a_fold_does_not_reach_its_nested_values(name):
    problem, fit = problem_with(), FITS[name]
    turned = np.where(problem.fold == 1, (problem.targets + 1) % 3, problem.targets)
    before, after = nested_values(problem, fit), nested_values(replace(problem, targets=turned), fit)
    np.testing.assert_array_equal(before[problem.fold == 1], after[problem.fold == 1])
    if name != "mean":
        assert np.abs(before - after).max() > 1e-3


@pytest.mark.parametrize("name", FITS)
def test_the_order_of_rows_and_members_changes_nothing(name):
    problem, fit = problem_with(n=90), FITS[name]
    rows, members = np.random.default_rng(1).permutation(90), np.array([3, 1, 4, 0, 2])
    other = replace(problem.at(rows), members=problem.members[members][:, rows])
    np.testing.assert_allclose(nested_values(other, fit), nested_values(problem, fit)[rows], atol=2e-3)


@pytest.mark.parametrize("name", ["greedy", "stack"])
def test_on_random_members_the_nested_score_stays_at_chance_while_the_in_sample_score_climbs(name):
    nested, in_sample = [], []
    for seed in range(4):
        problem = problem_with("accuracy", m=25, n=150, k=2, seed=seed, skill=0.0)
        fit = greedy() if name == "greedy" else stack()
        verdict = judge(problem, [str(n) for n in range(25)], fit, is_fitted=True)
        in_sample.append(verdict.entries[0].score)
        nested.append(verdict.entries[1].score)
    assert np.mean(in_sample) > 0.6
    assert np.mean(nested) == pytest.approx(0.5, abs=0.05)


def test_one_fold_leaves_nothing_to_fit_on():
    problem = problem_with()
    with pytest.raises(MismatchError, match="at least two folds"):
        fit_nested(replace(problem, fold=np.zeros(60, dtype=np.int64)), greedy())


# -- the verdict -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "rmse"])
def test_weights_that_gain_more_than_a_standard_error_are_kept(metric):
    problem = problem_with(metric, m=4, n=400)
    poor = problem.members.copy()
    poor[:3] = poor[:3, ::-1]  # three members that know nothing of their rows
    problem = replace(problem, members=poor)
    verdict = judge(problem, list("abcd"), greedy(), is_fitted=True)
    names = [entry.name for entry in verdict.entries]
    assert names == ["in-sample", "nested", "uniform mean", "best single: d"]
    assert verdict.is_kept
    assert verdict.gain > verdict.gain_se > 0
    assert verdict.gain == pytest.approx(abs(verdict.entries[1].score - verdict.entries[2].score))
    assert verdict.rule.record()["weights"][3] > 0.7
    assert all(entry.low <= entry.score <= entry.high for entry in verdict.entries)
    np.testing.assert_array_equal(verdict.nested.values, nested_values(problem, greedy()))


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_weights_that_gain_less_give_way_to_the_uniform_mean(metric):
    problem = problem_with(metric, m=25, n=150, k=2, skill=0.0)
    verdict = judge(problem, [str(n) for n in range(25)], greedy(), is_fitted=True)
    assert not verdict.is_kept
    assert verdict.rule.record() == {"method": "mean", "weights": [1 / 25] * 25}
    np.testing.assert_allclose(verdict.nested.values, problem.members.mean(axis=0), rtol=1e-5)
    assert problem.score(verdict.nested.values) == verdict.entries[2].score


def test_a_mean_fits_nothing_and_is_kept_as_it_is_asked_for():
    problem = problem_with("log_loss", n=20)
    verdict = judge(problem, list("abcde"), average("geometric"), is_fitted=False)
    assert verdict.is_kept
    assert verdict.entries[0].score == verdict.entries[1].score
    assert verdict.rule.record()["method"] == "geometric"


def test_the_interval_of_one_more_entry_is_on_the_same_draws():
    problem = problem_with()
    verdict = judge(problem, list("abcde"), greedy(), is_fitted=True)
    again = scored(problem, "again", verdict.nested.values)
    kept = verdict.entries[1 if verdict.is_kept else 2]
    assert (again.score, again.low, again.high) == pytest.approx((kept.score, kept.low, kept.high))


def test_correlations_are_those_of_the_errors():
    problem = problem_with(n=50)
    errors = (problem.members - np.eye(3)[problem.targets]).reshape(5, -1)
    np.testing.assert_allclose(error_correlation(problem), np.corrcoef(errors), atol=1e-6)
    binary = problem_with("log_loss", "binary")
    np.testing.assert_allclose(
        error_correlation(binary), np.corrcoef(binary.members[:, :, 0] - binary.targets), atol=1e-6
    )
    exact = replace(problem, members=np.stack([np.eye(3, dtype=np.float32)[problem.targets]] * 2))
    assert np.isnan(error_correlation(exact)).all()


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_leaving_a_member_out_of_the_uniform_mean_leaves_the_mean_of_the_others(metric):
    problem = problem_with(metric)
    effects = leave_one_out(problem, fit_nested(problem, average("mean")))
    whole = signed(problem, problem.score(problem.members.mean(axis=0)))
    for member, effect in enumerate(effects):
        others = np.delete(problem.members, member, axis=0).mean(axis=0)
        assert effect == pytest.approx(signed(problem, problem.score(others)) - whole, abs=1e-6)
    assert leave_one_out(replace(problem, members=problem.members[:1]), fit_nested(problem, greedy())) == [None]


# -- methods by name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in METHODS if name != "ranks"])
def test_every_method_is_a_fit(name):
    problem = problem_with()
    values = fit_of(method_of(name))(problem).apply(problem.members)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "greddy"}, "--method greddy: unknown. Did you mean 'greedy'\\? Allowed: mean, geometric"),
        ({"name": "greedy", "options": {"n_pick": 5}}, "--method greedy: n_pick: unknown key. Did you mean 'n_picks'"),
        ({"name": "greedy", "options": {"n_picks": 0}}, "n_picks: must be >= 1"),
        ({"name": "greedy", "options": {"bag_share": 1.5}}, "bag_share: must be <= 1"),
        ({"name": "mean", "options": {"n_picks": 5}}, "--method mean: n_picks: unknown key"),
        ({"name": "simplex", "weights": (0.5, 0.5)}, "--method simplex: fits its weights, so none can be given"),
        ({"name": "stack", "options": {"estimator": "a:B"}}, "estimator 'a:B'"),
        ({"name": "mean", "adjust": ("auto", "clip")}, "--adjust auto,clip: auto chooses by itself"),
    ],
)
def test_wrong_methods_and_options_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        method_of(**arguments)
