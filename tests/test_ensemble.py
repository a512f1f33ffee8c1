"""Blends of runs: joined by id, fitted on OOF only where there is honest OOF, saved like runs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from toys import make_toy, train_toy

from pipeline import api
from pipeline.base.errors import ConfigError, MismatchError
from pipeline.blending import verdict
from pipeline.blending.blend import blend, partial_note
from pipeline.blending.greedy import greedy
from pipeline.blending.joined import join_members, problem_of
from pipeline.blending.methods import method_of
from pipeline.blending.nested import nested_values
from pipeline.records.cv import score_predictions
from pipeline.records.metrics import resolve_metric
from pipeline.records.predictions import Predictions, load_predictions, save_predictions
from pipeline.records.rows import Rows
from pipeline.records.task import MetricSpec

NAMES = ("cat", "dog")
ROWS = Rows(np.array(["a", "b"], dtype=object), ((0,), (1,)), NAMES, np.array([0, 1]))
METRIC = resolve_metric(MetricSpec(name="log_loss"), "multiclass", NAMES)
MEAN = method_of("mean")


def make(ids, probs, fold=None, **meta):
    values = np.array([[p, 1 - p] for p in probs], dtype=np.float32)
    fold = None if fold is None else np.array(fold, dtype=np.int64)
    meta = {"task": "t", "form": "probs", "folds_hash": "f", **meta}
    return Predictions(np.array(ids, dtype=object), NAMES, values, fold, meta)


def member(oof, test, **meta):
    return make(["a", "b"], oof, [0, 1], **meta), make(["x", "y"], test, **meta)


def mix(members, method=MEAN, rows=ROWS, metric=METRIC, test_rows=None):
    return blend(members, method, rows, metric, test_rows)


A, B = member([0.2, 0.4], [0.1, 0.3]), member([0.6, 0.8], [0.5, 0.7])


def many(n=240, m=4, n_folds=3, seed=0, n_bad=2):
    """Members of which the first `n_bad` know nothing; rows, and test rows without order."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"id{i:03d}" for i in range(n)], dtype=object)
    targets = rng.integers(0, 2, n)
    members = {}
    for number in range(m):
        known = 0 if number < n_bad else 2.0
        p = 1 / (1 + np.exp(-rng.normal(size=n) - known * (1 - 2 * targets)))
        q = rng.uniform(0.01, 0.99, 20)
        order = rng.permutation(n)
        oof = make(ids, p, np.arange(n) % n_folds).at(order)
        members[f"m{number}"] = (oof, make([f"t{i}" for i in range(20)], q).at(rng.permutation(20)))
    return members, Rows(ids, tuple((i,) for i in range(n)), NAMES, targets)


# -- joined by id ------------------------------------------------------------------------------------------------------


def test_oof_and_test_travel_together_by_id():
    shuffled = (B[0].aligned_to(["b", "a"]), B[1].aligned_to(["y", "x"]))
    mean = mix({"A": A, "B": shuffled})
    np.testing.assert_allclose(mean.oof.aligned_to("ab").values[:, 0], [0.4, 0.6], rtol=1e-6)
    np.testing.assert_allclose(mean.test.aligned_to("xy").values[:, 0], [0.3, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(mean.oof.aligned_to("ab").fold, [0, 1])
    assert mean.rule.record() == {"method": "mean", "weights": [0.5, 0.5]}
    assert mean.notes == ()


def test_given_weights_go_by_the_order_of_the_members():
    mean = mix({"A": A, "B": B}, method_of("mean", weights=[0.75, 0.25]))
    np.testing.assert_allclose(mean.oof.aligned_to("ab").values[:, 0], [0.3, 0.5], rtol=1e-6)
    np.testing.assert_allclose(mean.test.aligned_to("xy").values[:, 0], [0.2, 0.4], rtol=1e-6)


def test_geometric_blends_sum_to_one():
    mean = mix({"A": A, "B": B}, method_of("geometric"))
    np.testing.assert_allclose(mean.test.values.sum(axis=1), 1, rtol=1e-6)
    p, q = np.sqrt(0.1 * 0.5), np.sqrt(0.9 * 0.5)
    assert mean.test.aligned_to("xy").values[0, 0] == pytest.approx(p / (p + q), rel=1e-5)


def test_blends_nest():
    inner = mix({"A": A, "B": B})
    outer = mix({"inner": (inner.oof, inner.test), "A": A})
    np.testing.assert_allclose(outer.test.aligned_to("xy").values[:, 0], [0.2, 0.4], rtol=1e-6)


@pytest.mark.parametrize("name", ["greedy", "simplex", "stack"])
def test_the_order_of_rows_in_the_files_changes_no_bit(name):
    members, rows = many()
    shuffle = np.random.default_rng(1).permutation(240)
    other = {key: (oof.at(shuffle), test.sorted()) for key, (oof, test) in members.items()}
    one = mix(members, method_of(name), rows)
    two = mix(other, method_of(name), rows.at(shuffle))
    np.testing.assert_array_equal(one.oof.values, two.oof.aligned_to(one.oof.ids).values)
    np.testing.assert_array_equal(one.test.values, two.test.aligned_to(one.test.ids).values)


def test_rows_of_one_submission_id_are_averaged_before_anything_is_fitted():
    members, rows = many(n=240, n_folds=3)
    keys = np.array([f"k{i // 2:03d}" for i in range(240)], dtype=object)
    rows = replace(rows, submission_ids=keys, targets=np.repeat(rows.targets[::2], 2))
    folds = np.repeat(np.arange(120) % 3, 2)
    members = {
        name: (replace(oof.sorted(), fold=folds.astype(np.int64)), test) for name, (oof, test) in members.items()
    }
    test_ids = np.array([f"t{i}" for i in range(20)], dtype=object)
    test_keys = np.array([f"s{i // 4}" for i in range(20)], dtype=object)
    test_rows = Rows(test_ids, tuple((i,) for i in range(20)), NAMES, submission_ids=test_keys)
    found = mix(members, method_of("geometric"), rows, test_rows=test_rows)
    mean = {name: oof.values.reshape(120, 2, 2).mean(axis=1) for name, (oof, _) in members.items()}
    product = np.prod([values.astype(np.float64) for values in mean.values()], axis=0) ** (1 / 4)
    wanted = np.repeat(product / product.sum(axis=1, keepdims=True), 2, axis=0)
    np.testing.assert_allclose(found.oof.aligned_to(rows.ids).values, wanted, rtol=1e-5)
    assert score_predictions(found.oof, rows, METRIC) == pytest.approx(
        found.findings.verdict.entries[1].score, rel=1e-6
    )
    test = found.test.aligned_to(test_ids).values.reshape(5, 4, 2)
    assert np.all(test == test[:, :1])


# -- what is fitted ----------------------------------------------------------------------------------------------------


def test_the_saved_oof_is_nested_and_test_rows_get_the_rule_of_all_folds():
    members, rows = many()
    found = mix(members, method_of("greedy"), rows)
    joined = join_members({name: oof for name, (oof, _) in members.items()}, rows)
    problem, _ = problem_of(joined, rows, METRIC)
    np.testing.assert_array_equal(found.oof.values, nested_values(problem, greedy()))
    weights = greedy()(problem).weights
    assert found.rule.record()["weights"] == weights.tolist()
    tests = [test.aligned_to(found.test.ids).values.astype(np.float64) for _, test in members.values()]
    np.testing.assert_allclose(found.test.values, np.tensordot(weights, tests, axes=1), rtol=1e-6)
    assert found.findings.verdict.is_kept
    assert found.notes == ()


def test_weights_that_do_not_pay_give_way_to_the_uniform_mean_with_a_note():
    members, rows = many(n_bad=4, n=90)
    found = mix(members, method_of("greedy"), rows)
    plain = mix(members, MEAN, rows)
    np.testing.assert_array_equal(found.oof.values, plain.oof.values)
    np.testing.assert_array_equal(found.test.values, plain.test.values)
    assert found.notes[0].startswith("greedy is not kept, the uniform mean is saved: its nested score gains")


def test_adjustments_are_fitted_behind_the_blend_and_scored_nested():
    members, rows = many()
    sharp = {}
    for name, (oof, test) in members.items():
        parts = [np.clip(part.values.astype(np.float64), 1e-6, 1) ** 6 for part in (oof, test)]
        values = [(part / part.sum(axis=1, keepdims=True)).astype(np.float32) for part in parts]
        sharp[name] = (replace(oof, values=values[0]), replace(test, values=values[1]))
    found = mix(sharp, method_of("mean", adjust=["temperature"]), rows)
    names = [entry.name for entry in found.findings.adjusted]
    assert names == ["in-sample, with temperature", "nested, with temperature"]
    assert found.findings.adjusted[1].score < found.findings.verdict.entries[1].score
    assert score_predictions(found.oof, rows, METRIC) == pytest.approx(found.findings.adjusted[1].score, rel=1e-6)
    assert [one["name"] for one in found.rule.record()["adjustments"]] == ["temperature"]
    chosen = mix(sharp, method_of("mean", adjust=["auto"]), rows)
    np.testing.assert_array_equal(chosen.oof.values, found.oof.values)
    assert [trial.name for trial in chosen.findings.trials] == ["temperature"]


def test_a_score_that_is_undefined_leaves_a_mean_without_one():
    members, rows = many(n=30)
    metric = resolve_metric(MetricSpec(name="mean_column_auc"), "multiclass", NAMES)
    one_class = replace(rows, targets=np.zeros(30, dtype=np.int64))
    found = mix(members, MEAN, one_class, metric)
    assert found.findings is None
    assert found.notes[0].startswith("the blend has no score: ROC AUC is undefined")
    assert len(found.oof) == 30


# -- members that are not whole ----------------------------------------------------------------------------------------


def test_a_partial_run_blends_its_test_predictions_only():
    part = member([0.6, 0.8], [0.5, 0.7], partial="2 of 5 folds")
    mean = mix({"A": A, "B": part})
    assert mean.oof is None
    assert mean.findings is None
    np.testing.assert_allclose(mean.test.aligned_to("xy").values[:, 0], [0.3, 0.5], rtol=1e-6)
    assert mean.notes == ("no OOF of the blend: B has 2 of 5 folds",)
    assert partial_note((mean.oof, mean.test)) == "B: 2 of 5 folds"


def test_what_a_member_lacks_is_missing_and_noted():
    mean = mix({"A": A, "refit": (None, B[1])})
    assert mean.oof is None
    np.testing.assert_allclose(mean.test.aligned_to("xy").values[:, 0], [0.3, 0.5], rtol=1e-6)
    assert mean.notes == ("no OOF of the blend: refit has no OOF",)
    assert mix({"A": (A[0], None), "B": B}).notes == ("no test predictions of the blend: A has none",)
    assert mix({"A": (None, None), "B": (None, None)}).test is None


def test_refits_take_weights_by_hand():
    refits = {"A": (None, A[1]), "B": (None, B[1])}
    mean = mix(refits, method_of("mean", weights=[0.75, 0.25]))
    np.testing.assert_allclose(mean.test.aligned_to("xy").values[:, 0], [0.2, 0.4], rtol=1e-6)


@pytest.mark.parametrize("method", [method_of("greedy"), method_of("stack"), method_of("mean", adjust=["auto"])])
def test_nothing_is_fitted_without_whole_and_valid_oof_and_all_such_members_are_named(method):
    part = member([0.6, 0.8], [0.5, 0.7], partial="2 of 5 folds")
    leaky = member([0.6, 0.8], [0.5, 0.7], invalid="its labels were made by all folds")
    with pytest.raises(MismatchError) as caught:
        mix({"A": A, "part": part, "refit": (None, B[1]), "leaky": leaky}, method)
    assert (
        "needs whole OOF of every member: part has 2 of 5 folds; refit has no OOF; "
        "leaky has an OOF that is not valid (its labels were made by all folds)" in str(caught.value)
    )


def test_an_oof_that_is_not_valid_makes_none_of_the_blend():
    leaky = member([0.6, 0.8], [0.5, 0.7], invalid="its labels were made by all folds")
    mean = mix({"A": A, "leaky": leaky})
    assert mean.oof is None
    assert mean.notes[0].startswith("no OOF of the blend: leaky has an OOF that is not valid")


def test_no_weights_hold_for_a_partial_run():
    part = member([0.6, 0.8], [0.5, 0.7], partial="2 of 5 folds")
    with pytest.raises(MismatchError, match="no weights hold for a part of a run: B has 2 of 5 folds only"):
        mix({"A": A, "B": part}, method_of("mean", weights=[0.5, 0.5]))


# -- members that do not belong together -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [MEAN, method_of("greedy")])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meta": {"task": "u"}}, "A and B do not belong together: task 't' against 'u'"),
        ({"meta": {"folds_hash": "g"}}, "A and B do not belong together: folds hash 'f' against 'g'"),
        ({"meta": {"form": "values"}}, "A and B do not belong together: form 'probs' against 'values'"),
        ({"names": ("cat", "emu")}, r"A and B do not belong together: other columns \(only in the first: dog"),
        ({"names": ("dog", "cat")}, "the same names in another order"),
        ({"ids": np.array(["a", "z"], dtype=object)}, r"B against A: .*1 missing \(ids b\), 1 extra \(ids z\)"),
        ({"fold": np.array([1, 0])}, "A and B do not belong together: other folds for ids a, b"),
    ],
)
def test_members_that_do_not_belong_together_are_both_named(method, change, message):
    with pytest.raises(MismatchError, match=message):
        mix({"A": A, "B": (replace(B[0], **change), B[1])}, method)


def test_a_member_is_compared_even_where_the_other_lacks_that_part():
    other = replace(B[0], meta={"folds_hash": "g"})
    with pytest.raises(MismatchError, match="A and B do not belong together: folds hash"):
        mix({"A": (None, A[1]), "B": (other, None)})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"1 weights for 2 runs \(A, B\); give one for each"),
        ([0.7, 0.7], r"weights must sum to one, and these sum to 1.4: A 0.7, B 0.7"),
        ([0, 0], r"weights must sum to one, and these sum to 0: A 0, B 0"),
        ([-1, 2], r"weights must be numbers >= 0 \(found: A -1, B 2\)"),
        ([float("nan"), 1], r"weights must be numbers >= 0 \(found: A nan, B 1\)"),
    ],
)
def test_impossible_weights_are_refused_with_the_members(weights, message):
    with pytest.raises(MismatchError, match=message):
        mix({"A": A, "B": B}, method_of("mean", weights=weights))


def test_decided_labels_are_no_probabilities():
    decided = member([0.0, 1.0], [1.0, 0.0])
    with pytest.raises(
        MismatchError, match=r"log_loss needs probabilities, and these runs hold decided labels.*: L, M;"
    ):
        mix({"A": A, "L": decided, "M": decided})
    accuracy = resolve_metric(MetricSpec(name="accuracy"), "multiclass", NAMES)
    assert mix({"A": A, "L": decided}, metric=accuracy).oof is not None


def test_a_blend_of_nothing_is_refused():
    with pytest.raises(MismatchError, match="at least one run"):
        mix({})


# -- saved like a run --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three runs of one toy, the first two hardly trained."""
    root = tmp_path_factory.mktemp("ensemble")
    config = make_toy(root, metric="log_loss", format="per_class")
    train_toy(root, config, ["train.epochs=1", "model.hidden=4"], name="a")
    train_toy(root, config, ["train.epochs=1"], name="b")
    train_toy(root, config, ["seeds=[1]"], name="c")
    return root


def read(path):
    return json.loads(path.read_text())


def test_a_fitted_blend_is_saved_with_its_honest_score_beside_the_others(trained):
    made, cv = api.ensemble(["c", "a", "b"], method="greedy", root=trained)
    assert made.name == "a+b+c-greedy"
    assert cv == read(made.folder / "cv.json")
    assert [entry["name"] for entry in cv["scores"]] == ["in-sample", "nested", "uniform mean", "best single: c"]
    assert cv["is_kept"]
    assert cv["gain"] > cv["gain_se"] > 0
    assert cv["pooled"] == pytest.approx(cv["scores"][1]["score"])
    assert [line["run"] for line in cv["members"]] == ["a", "b", "c"]
    assert cv["members"][2]["weight"] > 0.8
    assert cv["members"][2]["loss_without"] > 0
    details = read(made.folder / "blend.json")
    assert details["rule"]["weights"] == {line["run"]: line["weight"] for line in cv["members"]}
    assert sorted(details["rule_without_fold"]) == ["0", "1", "2"]
    assert set(details["weight_spread"]) == {"a", "b", "c"}
    np.testing.assert_allclose(np.diag(details["correlation"]["matrix"]), 1)
    assert made.record["blend"]["method"] == "greedy"
    assert [one["run"] for one in made.record["blend"]["members"]] == ["a", "b", "c"]
    assert api.submit(made.name, root=trained).is_file()


def test_a_fitted_blend_is_a_member_like_a_run(trained):
    inner, _ = api.ensemble(["a", "c"], method="simplex", name="inner", root=trained)
    outer, cv = api.ensemble(["inner", "b"], method="greedy", name="outer", root=trained)
    assert [line["run"] for line in cv["members"]] == ["b", "inner"]
    assert cv["members"][1]["pooled"] == pytest.approx(read(inner.folder / "cv.json")["pooled"])
    assert load_predictions(outer.folder / "oof.parquet").fold is not None


def test_given_weights_follow_their_runs(trained):
    made, cv = api.ensemble(["c", "a"], weights=[0.9, 0.1], name="by-hand", root=trained)
    assert {line["run"]: line["weight"] for line in cv["members"]} == {"a": 0.1, "c": 0.9}
    parts = {name: load_predictions(trained / f"runs/multiclass/{name}/test.parquet").sorted() for name in "ac"}
    wanted = 0.1 * parts["a"].values + 0.9 * parts["c"].values
    np.testing.assert_allclose(load_predictions(made.folder / "test.parquet").sorted().values, wanted, atol=1e-6)


def test_the_same_blend_again_gives_the_same_bits_and_another_method_needs_another_name(trained):
    made, _ = api.ensemble(["a", "b"], method="greedy", options={"n_bags": 3}, name="bits", root=trained)
    before = {path.name: path.read_bytes() for path in made.folder.glob("*.parquet")}
    cv = (made.folder / "cv.json").read_bytes()
    api.ensemble(["b", "a"], method="greedy", options={"n_bags": 3}, name="bits", root=trained)
    assert {path.name: path.read_bytes() for path in made.folder.glob("*.parquet")} == before
    assert (made.folder / "cv.json").read_bytes() == cv
    for other in ({"method": "greedy"}, {"method": "simplex"}, {}):
        with pytest.raises(MismatchError, match="bits: is another run or blend; choose a name with --name"):
            api.ensemble(["a", "b"], name="bits", root=trained, **other)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "ranks"}, MismatchError, "'ranks' keeps the order of rows only"),
        ({"method": "gredy"}, ConfigError, "--method gredy: unknown. Did you mean 'greedy'"),
        ({"weights": [0.5, 0.6]}, MismatchError, "these sum to 1.1: a 0.5, b 0.6"),
        ({"adjust": ["thresholds"]}, ConfigError, "adjustment 'thresholds' cannot help log_loss"),
        ({"method": "stack", "options": {"estimator": "sklearn.linear_model:Ridge"}}, ConfigError, "no probabilities"),
    ],
)
def test_an_error_leaves_nothing_behind(trained, arguments, error, message):
    before = sorted(trained.rglob("*"))
    with pytest.raises(error, match=message):
        api.ensemble(["a", "b"], name="nothing", root=trained, **arguments)
    assert sorted(trained.rglob("*")) == before


def test_a_member_whose_oof_lacks_a_row_is_named_with_the_row(trained):
    path = trained / "runs/multiclass/b/oof.parquet"
    whole = load_predictions(path)
    save_predictions(path, whole.at(np.arange(1, len(whole))))
    try:
        with pytest.raises(MismatchError, match=rf"b against a: .*1 missing \(ids {whole.ids[0]}\)"):
            api.ensemble(["a", "b"], method="greedy", name="nothing", root=trained)
    finally:
        save_predictions(path, whole)
    assert not (trained / "runs/multiclass/nothing").exists()


def test_many_long_names_need_a_name_for_the_blend(trained):
    api.ensemble(["a", "b"], name="x" * 60, root=trained)
    api.ensemble(["a", "c"], name="y" * 60, root=trained)
    with pytest.raises(MismatchError, match="the names of 2 runs make no short name for their blend; choose one"):
        api.ensemble(["x" * 60, "y" * 60], root=trained)


@pytest.mark.parametrize("kind", ["binary", "multilabel", "ordinal", "regression"])
def test_every_kind_of_task_is_blended_by_every_method_that_fits_it(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(verdict, "N_SLOW_DRAWS", 20)
    config = make_toy(tmp_path, kind)
    for name, hidden in (("a", 4), ("b", 8)):
        train_toy(tmp_path, config, ["train.epochs=2", f"model.hidden={hidden}"], name=name)
    fitting = {"binary": ["ranks", "logits"], "regression": ["simplex"]}.get(kind, ["geometric"])
    for method in ["mean", "greedy", "stack", *fitting]:
        made, cv = api.ensemble(["a", "b"], method=method, root=tmp_path)
        assert len(cv["scores"]) == 4
        assert api.submit(made.name, root=tmp_path).is_file()


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        ("multiclass", {"rows_per_id": 3, "metric": "log_loss", "format": "per_class"}),
        ("multilabel", {"metric": "log_loss", "format": "per_class", "n_names": 4, "wanted": ["dog", "bee"]}),
        ("multiclass", {"soft": True, "metric": "kl_divergence", "format": "per_class"}),
    ],
)
def test_what_counts_is_what_is_submitted(tmp_path, kind, case):
    config = make_toy(tmp_path, kind, **case)
    for name, epochs in (("a", 1), ("b", 6)):
        train_toy(tmp_path, config, [f"train.epochs={epochs}"], name=name)
    for method in ("geometric", "greedy", "simplex", "stack"):
        made, cv = api.ensemble(["a", "b"], method=method, root=tmp_path)
        kept = cv["scores"][1 if cv["is_kept"] else 2]["score"]
        assert cv["pooled"] == pytest.approx(kept, rel=1e-6)
        singles = {f"best single: {line['run']}": line["pooled"] for line in cv["members"]}
        assert cv["scores"][3]["score"] == pytest.approx(singles[cv["scores"][3]["name"]], rel=1e-6)
        assert api.submit(made.name, root=tmp_path).is_file()  # scores the OOF through the writer again


# -- other shares of the classes in the test set -----------------------------------------------------------------------


def test_given_shares_move_the_test_predictions_alone():
    plain = mix({"A": A, "B": B})
    moved = mix({"A": A, "B": B}, method_of("mean", prior=[0.9, 0.1]))
    np.testing.assert_array_equal(moved.oof.values, plain.oof.values)
    before, after = (made.test.aligned_to("xy").values.astype(np.float64) for made in (plain, moved))
    odds = before * np.array([0.9, 0.1]) / 0.5  # both classes have one training row
    np.testing.assert_allclose(after, odds / odds.sum(axis=1, keepdims=True), rtol=1e-5)
    assert "moved to the shares 0.900, 0.100; OOF keeps those of training" in moved.notes[0]


def test_shares_are_estimated_from_the_test_predictions():
    members, rows = many()
    made = mix(members, method_of("mean", prior="estimate"), rows)
    assert "test predictions are moved to the shares" in made.notes[0]
    assert not np.array_equal(made.test.values, mix(members, MEAN, rows).test.values)


def test_shares_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"give 2 shares in 0..1"):
        mix({"A": A, "B": B}, method_of("mean", prior=[0.2, 0.3, 0.5]))
    with pytest.raises(ConfigError, match="--adjust cannot stand beside it"):
        method_of("mean", adjust=["temperature"], prior="estimate")


def test_one_run_alone_may_be_adjusted_but_not_blended(tmp_path):
    config = make_toy(tmp_path)
    run = train_toy(tmp_path, config, ["train.epochs=1", "folds.n_folds=2"], name="one")
    with pytest.raises(MismatchError, match="needs at least two runs; one alone may have --adjust or --prior"):
        api.ensemble([str(run.folder)], root=tmp_path)
    made, cv = api.ensemble([str(run.folder)], prior="estimate", root=tmp_path)
    assert made.name == "one-adjusted"
    assert cv["pooled"] is not None
    assert made.record["blend"]["prior"] == "estimate"
