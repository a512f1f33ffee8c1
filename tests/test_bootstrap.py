from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from pipeline.base.errors import DataError, MismatchError
from pipeline.base.keyed import make_key
from pipeline.blending import bootstrap
from pipeline.blending import row_scores as sums
from pipeline.blending.bootstrap import bootstrap_scores, draw_counts, interval, standard_error
from pipeline.blending.row_scores import row_scores
from pipeline.records.cv import metric_of
from pipeline.records.metrics import Metric, UndefinedMetricError, resolve_metric
from pipeline.records.rows import Rows
from pipeline.records.task import MetricSpec, Task

CLASSES = ("ant", "bee", "cat", "dog")


def metric_for(name, kind, names=CLASSES, ordinal="softmax", **options):
    return resolve_metric(MetricSpec(name=name, options=options), kind, names, ordinal)


def rows_for(kind, n=60, seed=0, soft=False, ordinal="softmax"):
    """Return targets and two entries of predictions, some of them certain and wrong or right."""
    rng = np.random.default_rng(seed)
    if kind == "regression":
        targets = rng.normal(size=(n, 4)).astype(np.float32)
        return targets, [(targets + rng.normal(0, s, (n, 4))).astype(np.float32) for s in (0.3, 0.6)]
    if kind == "multilabel":
        targets = (rng.random((n, 4)) < 0.4).astype(np.float32)
        entries = [np.round(rng.random((n, 4)), 1).astype(np.float32) for _ in range(2)]
    elif kind == "binary":
        targets = rng.integers(0, 2, n)
        entries = [np.round(rng.random((n, 1)), 1).astype(np.float32) for _ in range(2)]
    else:
        targets = rng.dirichlet(np.ones(4), n).astype(np.float32) if soft else rng.integers(0, 4, n)
        entries = [rng.dirichlet(np.full(4, 0.3), n).astype(np.float32) for _ in range(2)]
        entries[0][0] = [1, 0, 0, 0]
    if soft:
        targets[0] = [0, 1, 0, 0]
    if ordinal == "regression":
        entries = [3 * entry[:, :1] for entry in entries]
    return targets, entries


FAST = {
    "accuracy binary": (metric_for("accuracy", "binary", CLASSES[:2]), rows_for("binary")),
    "accuracy multiclass": (metric_for("accuracy", "multiclass"), rows_for("multiclass")),
    "accuracy soft": (metric_for("accuracy", "multiclass"), rows_for("multiclass", soft=True)),
    "accuracy multilabel": (metric_for("accuracy", "multilabel"), rows_for("multilabel")),
    "accuracy ordinal": (metric_for("accuracy", "ordinal"), rows_for("ordinal")),
    "accuracy regressed grade": (
        metric_for("accuracy", "ordinal", ordinal="regression"),
        rows_for("ordinal", ordinal="regression"),
    ),
    "log_loss binary": (metric_for("log_loss", "binary", CLASSES[:2]), rows_for("binary")),
    "log_loss multiclass": (metric_for("log_loss", "multiclass"), rows_for("multiclass")),
    "log_loss soft": (metric_for("log_loss", "multiclass"), rows_for("multiclass", soft=True)),
    "log_loss multilabel": (metric_for("log_loss", "multilabel"), rows_for("multilabel")),
    "kl_divergence": (metric_for("kl_divergence", "multiclass"), rows_for("multiclass", soft=True)),
    "mae": (metric_for("mae", "regression"), rows_for("regression")),
    "rmse": (metric_for("rmse", "regression"), rows_for("regression")),
    "top_k_accuracy": (metric_for("top_k_accuracy", "multiclass", k=2), rows_for("multiclass")),
    "map_at_k multiclass": (metric_for("map_at_k", "multiclass", k=3), rows_for("multiclass")),
    "map_at_k multilabel": (metric_for("map_at_k", "multilabel", k=3), rows_for("multilabel")),
}


def hidden(metric: Metric) -> Metric:
    """Return the same metric as a function of which nothing is known."""
    return replace(metric, score=lambda targets, values: metric.score(targets, values))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", FAST)
def test_sums_over_rows_equal_the_metric_itself(name, grouped):
    metric, (targets, entries) = FAST[name]
    groups = np.arange(len(targets)) // 7 if grouped else None
    assert row_scores(metric, targets, entries[0]) is not None
    assert row_scores(hidden(metric), targets, entries[0]) is None
    fast = bootstrap_scores(targets, entries, metric, 20, groups=groups)
    slow = bootstrap_scores(targets, entries, hidden(metric), 20, groups=groups)
    np.testing.assert_allclose(fast, slow, rtol=1e-10, atol=1e-12)
    assert len(np.unique(slow[:, 0])) > 5


def test_labels_that_the_host_does_not_ask_for_are_left_out():
    targets, entries = rows_for("multilabel")
    ids = np.array([str(n) for n in range(60)], dtype=object)
    rows = Rows(ids, tuple((n,) for n in range(60)), CLASSES, targets, wanted=(0, 2))
    task = Task(
        name="t",
        data="d",
        kind="multilabel",
        target=CLASSES,
        metric={"name": "log_loss"},
        train={"table": "t.csv", "files": ("{id}.png",)},
    )
    metric = metric_of(task, rows)
    assert row_scores(metric, targets, entries[0]) is not None
    slow = bootstrap_scores(targets, entries, hidden(metric), 10)
    np.testing.assert_allclose(bootstrap_scores(targets, entries, metric, 10), slow, rtol=1e-10)


def test_a_metric_whose_sums_disagree_takes_the_slow_road(monkeypatch):
    metric, (targets, entries) = FAST["mae"]
    right = bootstrap_scores(targets, entries, metric, 10)
    monkeypatch.setitem(sums._PARTS, "mae", sums._rmse)
    assert row_scores(metric, targets, entries[0]) is None
    np.testing.assert_allclose(bootstrap_scores(targets, entries, metric, 10), right, rtol=1e-10)


def test_the_metric_is_asked_for_the_drawn_rows():
    """A slow obvious reference: the rows of each draw, listed one by one."""
    targets, entries = rows_for("binary", 40)
    metric = metric_for("roc_auc", "binary", CLASSES[:2])
    counts = np.concatenate(list(draw_counts(40, 15, make_key("k"))))
    expected = []
    for line in counts.astype(int):
        rows = [row for row, count in enumerate(line) for _ in range(count)]
        expected.append([metric(targets[rows], entry[rows]) for entry in entries])
    assert counts.sum(axis=1).tolist() == [40] * 15
    np.testing.assert_array_equal(bootstrap_scores(targets, entries, metric, 15, make_key("k")), expected)


def test_every_entry_is_scored_on_the_same_rows():
    metric, (targets, entries) = FAST["log_loss multiclass"]
    both = bootstrap_scores(targets, [entries[0], entries[1], entries[0]], metric, 50)
    np.testing.assert_array_equal(both[:, 0], both[:, 2])
    np.testing.assert_array_equal(both[:, 1], bootstrap_scores(targets, [entries[1]], metric, 50)[:, 0])


def test_draws_are_a_function_of_the_key_and_the_first_ones_stay():
    metric, (targets, entries) = FAST["mae"]
    scores = bootstrap_scores(targets, entries, metric, 60, make_key("a"))
    np.testing.assert_array_equal(bootstrap_scores(targets, entries, metric, 60, make_key("a")), scores)
    assert (bootstrap_scores(targets, entries, metric, 60, make_key("b")) != scores).any()
    np.testing.assert_allclose(bootstrap_scores(targets, entries, metric, 20, make_key("a")), scores[:20], rtol=1e-12)


def test_draws_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    whole = np.concatenate(list(draw_counts(11, 30, 5)))
    monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", 25)
    chunks = list(draw_counts(11, 30, 5))
    assert len(chunks) == 15
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


def test_groups_are_drawn_whole():
    groups = np.array(["b", "a", "b", "c", "a", "b"], dtype=object)
    counts = np.concatenate(list(draw_counts(6, 200, 1, groups)))
    for rows in ([0, 2, 5], [1, 4]):
        assert (counts[:, rows] == counts[:, rows[:1]]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()  # as many groups as there are
    assert len(np.unique(counts.sum(axis=1))) > 1


def test_repeated_rows_widen_the_interval_by_the_root_of_their_number_when_groups_are_drawn():
    rng = np.random.default_rng(3)
    once = rng.normal(size=(150, 1)).astype(np.float32)
    targets, groups = np.repeat(once, 4, axis=0), np.repeat(np.arange(150), 4)
    metric, entry = metric_for("mae", "regression", ("y",)), np.zeros((600, 1), dtype=np.float32)
    by_row = standard_error(bootstrap_scores(targets, [entry], metric, 2000)[:, 0])
    by_group = standard_error(bootstrap_scores(targets, [entry], metric, 2000, groups=groups)[:, 0])
    assert by_group / by_row == pytest.approx(2, rel=0.1)


def test_the_standard_error_of_accuracy_is_the_closed_form():
    targets = np.zeros(400, dtype=np.int64)
    values = np.eye(4, dtype=np.float32)[np.arange(400) % 5 // 4]  # four of five are right
    draws = bootstrap_scores(targets, [values], metric_for("accuracy", "multiclass"), 4000)[:, 0]
    assert standard_error(draws) == pytest.approx(np.sqrt(0.8 * 0.2 / 400), rel=0.05)
    assert draws.mean() == pytest.approx(0.8, abs=0.002)


def test_intervals_cover_the_truth_in_95_of_100_data_sets():
    """Accuracy differences of 200 rows; 400 data sets have a standard error of 1.1 % of their own."""
    rng, metric = np.random.default_rng(11), metric_for("accuracy", "multiclass", CLASSES[:2])
    covered = 0
    for number in range(400):
        right_a = rng.random(200) < 0.8
        right_b = np.where(rng.random(200) < 0.3, rng.random(200) < 0.9, right_a)  # truth: 0.3 * 0.9 + 0.7 * 0.8
        entries = [np.eye(2, dtype=np.float32)[1 - right.astype(int)] for right in (right_a, right_b)]
        draws = bootstrap_scores(np.zeros(200, dtype=np.int64), entries, metric, 300, make_key("cover", number))
        low, high = interval(draws[:, 1] - draws[:, 0])
        covered += low <= 0.03 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_an_interval_ends_at_draws_and_turns_round_with_their_sign():
    draws = np.random.default_rng(0).normal(size=1000)
    low, high = interval(draws)
    assert (low, high) == (np.sort(draws)[24], np.sort(draws)[975])
    assert interval(-draws) == (-high, -low)
    assert interval(np.arange(99.0), 0.9) == (4.0, 94.0)
    assert interval(np.arange(5.0)) == (0.0, 4.0)


def test_draws_without_a_score_are_nan_and_left_out():
    targets = np.array([1, 0, 0, 0])
    entry = np.array([[0.9], [0.1], [0.2], [0.95]], dtype=np.float32)
    draws = bootstrap_scores(targets, [entry], metric_for("roc_auc", "binary", CLASSES[:2]), 400, 9)[:, 0]
    counts = np.concatenate(list(draw_counts(4, 400, 9)))
    np.testing.assert_array_equal(np.isnan(draws), (counts[:, 0] == 0) | (counts[:, 0] == 4))
    assert 0.2 < np.isnan(draws).mean() < 0.45
    low, high = interval(draws)
    assert 0 <= low < high <= 1
    assert standard_error(draws) == pytest.approx(np.nanstd(draws, ddof=1))


def test_too_few_defined_draws_are_no_sample():
    draws = np.array([0.5, 0.6] + [np.nan] * 3)
    for take in (interval, standard_error):
        with pytest.raises(UndefinedMetricError, match="undefined on 3 of 5 draws"):
            take(draws)


def test_a_metric_that_fails_on_a_draw_alone_is_undefined_there():
    def needs_the_first_row(targets, values):
        if 7 not in values:
            raise DataError("the first row is missing")
        return 1.0

    metric = replace(metric_for("mae", "regression", ("y",)), score=partial(needs_the_first_row))
    entry = np.array([[7], [1], [2]], dtype=np.float32)
    draws = bootstrap_scores(np.zeros((3, 1), dtype=np.float32), [entry], metric, 50)[:, 0]
    assert np.isnan(draws).any()
    assert (draws == 1).any()


def test_a_slow_metric_makes_the_least_number_of_draws():
    targets, entries = rows_for("binary", 30)
    metric = metric_for("roc_auc", "binary", CLASSES[:2])
    all_of_them = bootstrap_scores(targets, entries, metric, 130)
    some = bootstrap_scores(targets, entries, metric, 130, limit_sec=0)
    assert (len(all_of_them), len(some)) == (130, bootstrap.MIN_DRAWS)
    np.testing.assert_array_equal(some, all_of_them[: len(some)])


def test_errors_name_what_is_wrong():
    metric, (targets, entries) = FAST["mae"]
    with pytest.raises(MismatchError, match=r"rows differ in number: .*'entry 2': 59"):
        bootstrap_scores(targets, [entries[0], entries[1][1:]], metric)
    with pytest.raises(MismatchError, match="'groups': 3"):
        bootstrap_scores(targets, entries, metric, groups=np.arange(3))
    with pytest.raises(ValueError, match="n_draws=0, 2 entries"):
        bootstrap_scores(targets, entries, metric, 0)
    auc = metric_for("roc_auc", "binary", CLASSES[:2])
    with pytest.raises(UndefinedMetricError, match="only class 'ant' occurs"):
        bootstrap_scores(np.zeros(5, dtype=np.int64), [np.ones((5, 1), dtype=np.float32)], auc)
