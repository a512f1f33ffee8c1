from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from toys import make_toy

from pipeline import api, commands
from pipeline.base.errors import ConfigError, DataError, MismatchError
from pipeline.base.files import read_json, write_json
from pipeline.base.keyed import make_key, permutation
from pipeline.blending.bootstrap import bootstrap_scores, standard_error
from pipeline.blending.difference import SeedSpread, compare_pairs
from pipeline.blending.leaderboard import simulate_lb
from pipeline.blending.paired import pair_rows
from pipeline.records.config import load_config
from pipeline.records.metrics import UndefinedMetricError, resolve_metric
from pipeline.records.predictions import Predictions, mean_predictions, save_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Unit, Workspace
from pipeline.records.task import MetricSpec
from pipeline.stages.compare import compare_runs

ACCURACY = resolve_metric(MetricSpec(name="accuracy"), "multiclass", ("cat", "dog"))
MAE = resolve_metric(MetricSpec(name="mae"), "regression", ("y",))
AUC = resolve_metric(MetricSpec(name="roc_auc"), "binary", ("no", "yes"))
CLASSES = ("ant", "bee", "cat")


def rows_of(n, targets=None, names=("cat", "dog"), **more):
    ids = np.array([f"r{number:05d}" for number in range(n)], dtype=object)
    targets = np.zeros(n, dtype=np.int64) if targets is None else targets
    return Rows(ids, tuple((number,) for number in range(n)), names, targets, **more)


def oof_of(rows, values, n_folds=4, **meta):
    fold = np.arange(len(rows)) % n_folds
    meta = {"task": "t", "form": "probs", "folds_hash": "f", "run": "run"} | meta
    names = rows.names[1:] if values.shape[1] == 1 and len(rows.names) == 2 else rows.names
    return Predictions(rows.ids, names, values.astype(np.float32), fold, meta)


def right_where(is_right):
    """Return probabilities of two classes whose first, the true one, is decided where `is_right`."""
    return np.where(np.asarray(is_right)[:, None], [[0.9, 0.1]], [[0.2, 0.8]])


def two_runs(n=600, gain=0.0, seed=0, **more):
    """Return rows and the OOF of A, right on 80 %, and of B, which differs from A on a fifth of the rows."""
    rng = np.random.default_rng(seed)
    right_a = rng.random(n) < 0.8
    right_b = np.where(rng.random(n) < 0.2, rng.random(n) < 0.8 + 5 * gain, right_a)
    rows = rows_of(n, **more)
    return rows, [oof_of(rows, right_where(right)) for right in (right_a, right_b)]


def compare(rows, oofs, metric=ACCURACY, **more):
    return compare_pairs(pair_rows(oofs, rows, ["A", "B"]), metric, ("A", "B"), **more)


def shuffled(predictions, seed):
    return predictions.at(permutation(make_key("shuffle", seed), len(predictions)))


# -- the difference and its interval -----------------------------------------------------------------------------------


def test_a_planted_better_run_is_found_and_the_verdict_says_by_how_much():
    found = compare(*two_runs(gain=0.04))
    assert (found.winner, found.unit) == ("B", "points")
    assert 0 < found.low < found.difference < found.high
    assert found.difference == pytest.approx(found.score_b - found.score_a)
    expected = rf"B is better: \+{100 * found.difference:.2f} points, 95 % interval \+\d\.\d\d\.\.\+\d\.\d\d"
    assert re.fullmatch(expected, found.verdict)


def test_a_planted_worse_run_is_found_too():
    rows, (a, b) = two_runs(gain=0.04)
    found = compare(rows, [b, a])
    assert found.winner == "A"
    assert found.verdict.startswith("A is better: -")


def test_equal_runs_cannot_be_told_apart():
    rows, (a, b) = two_runs(gain=0.0, seed=11)
    found = compare(rows, [a, b])
    assert found.low < 0 < found.high
    assert found.winner is None
    assert found.verdict.startswith("cannot tell: ")
    same = compare(rows, [a, a])
    assert (same.low, same.high, same.standard_error) == (0, 0, 0)
    assert same.verdict == "cannot tell: +0.00 points, 95 % interval +0.00..+0.00"


def test_equal_runs_are_taken_for_different_in_about_one_of_twenty_cases():
    winners = [compare(*two_runs(200, 0.0, seed), n_draws=300).winner for seed in range(200)]
    assert 0.01 <= sum(winner is not None for winner in winners) / 200 <= 0.10


def test_the_difference_is_positive_for_the_better_run_where_lower_is_better():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(300, 1)).astype(np.float32)
    rows = rows_of(300, targets, ("y",))
    oofs = [oof_of(rows, targets + rng.normal(0, s, (300, 1)), form="values") for s in (1.0, 0.5)]
    found = compare(rows, oofs, MAE)
    assert found.score_a > found.score_b
    assert found.difference == found.score_a - found.score_b
    assert (found.winner, found.unit) == ("B", "")
    assert re.fullmatch(r"B is better: \+0\.\d+, 95 % interval \+0\.\d+\.\.\+0\.\d+", found.verdict)


def test_paired_differences_stray_less_than_unpaired_ones():
    rows, oofs = two_runs()
    pairs = pair_rows(oofs, rows)
    alone = [bootstrap_scores(pairs.targets, [v], ACCURACY, 1000, key)[:, 0] for key, v in enumerate(pairs.values)]
    assert compare(rows, oofs).standard_error < 0.7 * standard_error(alone[1] - alone[0])


@pytest.mark.parametrize("metric", [ACCURACY, AUC])
def test_swapping_the_runs_turns_every_sign_and_nothing_else(metric):
    rows, (a, b) = two_runs(300, 0.02)
    if metric is AUC:
        rng = np.random.default_rng(1)
        rows = rows_of(300, rng.integers(0, 2, 300), ("no", "yes"))
        a, b = (oof_of(rows, rng.random((300, 1))) for _ in range(2))
    one, other = compare(rows, [a, b], metric, n_draws=100), compare(rows, [b, a], metric, n_draws=100)
    assert (one.difference, one.low, one.high) == (-other.difference, -other.high, -other.low)
    assert one.standard_error == other.standard_error
    assert (one.score_a, one.score_b) == (other.score_b, other.score_a)
    assert [line.difference for line in one.folds] == [-line.difference for line in other.folds]


@pytest.mark.parametrize("groups", [None, np.array([f"g{n % 40}" for n in range(300)], dtype=object)])
def test_row_order_carries_no_meaning(groups):
    rows, (a, b) = two_runs(300, 0.02, groups=groups)
    mixed = compare(rows.at(permutation(3, 300)), [shuffled(a, 1), shuffled(b, 2)])
    assert mixed == compare(rows, [a, b])


def test_groups_widen_the_interval_when_their_rows_repeat():
    oofs = two_runs(100, 0.02)[1]
    again = np.repeat(np.arange(100), 5)
    more = rows_of(500, groups=np.array([f"g{n}" for n in again], dtype=object))
    repeated = [oof_of(more, oof.values[again]) for oof in oofs]
    by_group, by_row = compare(more, repeated), compare(replace(more, groups=None), repeated)
    assert by_group.standard_error / by_row.standard_error == pytest.approx(np.sqrt(5), rel=0.15)
    assert (by_group.n_groups, by_row.n_groups) == (100, None)
    assert by_group.difference == by_row.difference


def test_rows_of_one_submission_id_are_averaged_and_count_as_one():
    keys = np.array([f"p{n // 2:03d}" for n in range(400)], dtype=object)
    rows, oofs = two_runs(400, 0.02, submission_ids=keys)
    oofs = [replace(oof, fold=np.arange(400) // 2 % 4) for oof in oofs]
    found = compare(rows, oofs)
    decided = [oof.values.reshape(200, 2, 2).mean(axis=1).argmax(axis=1) == 0 for oof in oofs]
    assert found.n_rows == 200
    assert (found.score_a, found.score_b) == pytest.approx([right.mean() for right in decided])


def test_folds_of_both_runs_stand_side_by_side():
    rows, oofs = two_runs(400, 0.02)
    found = compare(rows, oofs)
    assert [line.fold for line in found.folds] == [0, 1, 2, 3]
    assert [line.n_rows for line in found.folds] == [100] * 4
    for line in found.folds:
        held = np.arange(400) % 4 == line.fold
        scores = [float((oof.values[held, 0] > 0.5).mean()) for oof in oofs]
        assert [line.score_a, line.score_b] == scores
        assert line.difference == pytest.approx(scores[1] - scores[0])
    assert np.mean([line.difference for line in found.folds]) == pytest.approx(found.difference)


def test_a_fold_without_a_score_says_why():
    rng = np.random.default_rng(0)
    rows = rows_of(80, np.where(np.arange(80) % 4 == 1, 0, rng.integers(0, 2, 80)), ("no", "yes"))
    found = compare(rows, [oof_of(rows, rng.random((80, 1))) for _ in range(2)], AUC, n_draws=50)
    assert (found.folds[1].score_a, found.folds[1].difference) == (None, None)
    assert "only class 'no' occurs" in found.folds[1].note
    assert found.folds[0].difference is not None


def test_only_common_rows_are_compared():
    rows, (a, b) = two_runs(400, 0.02)
    a, b = a.at(np.arange(300)), b.at(np.arange(100, 400))
    pairs = pair_rows([a, b], rows)
    assert pairs.row_ids.tolist() == rows.ids[100:300].tolist()
    assert compare(rows, [a, b]) == compare(rows, [a.at(np.arange(100, 300)), b.at(np.arange(200))])


def test_runs_that_do_not_belong_together_are_refused_by_name():
    rows, (a, b) = two_runs(40)
    with pytest.raises(MismatchError, match=r"no row is common to A and B .*\(A holds 10, B holds 10 rows\)"):
        pair_rows([a.at(np.arange(10)), b.at(np.arange(20, 30))], rows, ["A", "B"])
    with pytest.raises(MismatchError, match="A and B do not belong together: other columns"):
        pair_rows([a, replace(b, names=("cat", "cow"))], rows, ["A", "B"])
    with pytest.raises(MismatchError, match="A and B do not belong together: task 't' against 'u'"):
        pair_rows([a, replace(b, meta=b.meta | {"task": "u"})], rows, ["A", "B"])
    one_class = rows_of(40, names=("no", "yes"))
    with pytest.raises(UndefinedMetricError, match="only class 'no' occurs"):
        compare(one_class, [oof_of(one_class, np.ones((40, 1)))] * 2, AUC)


# -- seeds -------------------------------------------------------------------------------------------------------------


def test_seed_noise_is_the_spread_of_a_difference_of_means_over_seeds():
    rows, oofs = two_runs(gain=0.04)
    two, three = SeedSpread.of({0: 0.80, 1: 0.82}), SeedSpread.of({0: 0.8, 1: 0.8, 2: 0.83})
    found = compare(rows, oofs, seeds=(two, three))
    assert found.seed_noise == pytest.approx(np.sqrt(0.02**2 / 2 / 2 + 0.03**2 / 3 / 3))
    one = compare(rows, oofs, seeds=(two, SeedSpread.of({0: 0.8})))
    assert one.seed_noise == pytest.approx(np.sqrt(0.02**2 / 2 / 2 + 0.02**2 / 2))


def test_a_difference_is_held_against_seed_noise():
    rows, oofs = two_runs(gain=0.04)
    calm, wild = SeedSpread.of({0: 0.8, 1: 0.801}), SeedSpread.of({0: 0.7, 1: 0.9})
    exceeds = "the difference exceeds 2 standard deviations of seed noise (0.07 points each)"
    assert exceeds in compare(rows, oofs, seeds=(calm, calm)).notes
    assert any("does not exceed 2 standard" in note for note in compare(rows, oofs, seeds=(wild, wild)).notes)
    assert any("seed noise is not known" in note for note in compare(rows, oofs).notes)


# -- the simulated leaderboard -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_test", [None, 300, 1000])
def test_a_public_score_strays_from_the_private_one_as_the_closed_form_says(n_test):
    rows = rows_of(500)
    oof = oof_of(rows, right_where(np.arange(500) % 5 > 0))
    board = simulate_lb([oof], rows, ACCURACY, 0.3, 4000, n_test=n_test)
    n = n_test or 500
    assert (board.n_public, board.n_private) == (0.3 * n, 0.7 * n)
    assert (board.size_of, board.is_repeated) == ("test set" if n_test else "OOF", n > 500)
    expected = np.sqrt(0.8 * 0.2 * (1 / (0.3 * n) + 1 / (0.7 * n)))
    assert board.runs[0].std == pytest.approx(expected, rel=0.04)
    low, high = board.runs[0].from_private
    assert (low, high) == pytest.approx((-1.96 * expected, 1.96 * expected), rel=0.12)
    assert board.runs[0].from_whole == pytest.approx((0.7 * low, 0.7 * high), abs=0.15 * high)
    assert (board.n_draws, board.n_undefined, board.flip_prob) == (4000, 0, None)


def test_a_slow_metric_has_the_same_splits():
    rows, oofs = two_runs(200)
    slow = replace(ACCURACY, score=lambda targets, values: ACCURACY.score(targets, values))
    fast, by_metric = (simulate_lb(oofs, rows, metric, 0.5, 120) for metric in (ACCURACY, slow))
    assert by_metric.flip_prob == fast.flip_prob
    assert by_metric.runs[1].std == pytest.approx(fast.runs[1].std, rel=1e-9)
    assert simulate_lb(oofs, rows, slow, 0.5, 120, limit_sec=0).n_draws == 100


def test_public_and_private_boards_order_level_runs_by_chance_and_different_ones_alike():
    rows, right = rows_of(1000), np.random.default_rng(0).random(1000) < 0.8
    level = [oof_of(rows, right_where(np.roll(right, shift))) for shift in (0, 1)]
    by_chance = simulate_lb(level, rows, ACCURACY, 0.3, n_test=4000).flip_prob
    assert by_chance == pytest.approx(0.5, abs=0.06)  # two draws of independent signs, few of them ties
    different = two_runs(1000, 0.04)[1]
    for oofs in (different, different[::-1]):
        assert simulate_lb(oofs, rows, ACCURACY, 0.3, n_test=4000).flip_prob < 0.05


def test_groups_lie_on_one_side_of_the_split():
    rows, (a, _) = two_runs(100)
    again = np.repeat(np.arange(100), 4)
    more = rows_of(400, groups=np.array([f"g{n}" for n in again], dtype=object))
    board = simulate_lb([oof_of(more, a.values[again])], more, ACCURACY, 0.25, 2000)
    assert (board.units, board.n_public, board.n_private) == ("groups", 25, 75)
    assert board.runs[0].std == pytest.approx(simulate_lb([a], rows, ACCURACY, 0.25, 2000).runs[0].std, rel=0.1)


def test_impossible_splits_are_refused():
    rows, (a, _) = two_runs(40)
    for frac in (0.0, 1.0, 30.0):
        with pytest.raises(ConfigError, match=f"--simulate-lb {frac:g}: expected the public share"):
            simulate_lb([a], rows, ACCURACY, frac)
    with pytest.raises(DataError, match="40 rows or groups leave a side of the split empty"):
        simulate_lb([a], rows, ACCURACY, 0.01)


# -- runs on disk ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A toy competition of 120 rows and the positions of their classes, by id."""
    root = tmp_path_factory.mktemp("toy")
    config = make_toy(root, n_train=120, store="npz")
    table = np.genfromtxt(root / "data" / "multiclass" / "train.csv", delimiter=",", dtype=str, skip_header=1)
    return root, config, {row[0]: CLASSES.index(row[1]) for row in table}


def write_run(toy, name, share, seeds=(0,), weights="last", n_folds=3, folds_hash="f", **record):
    """Write a run that is right on about a share of the rows, as `podium train` leaves it; return it."""
    root, path, truth = toy
    config = load_config(path, [f"seeds=[{','.join(map(str, seeds))}]"])
    folder = root / "runs" / "multiclass" / name
    folds = {"name": "folds", "hash": folds_hash, "n_folds": n_folds}
    made = {"task": config.task.plain(), "experiment": config.experiment.plain(), "folds": folds} | record
    write_json(folder / "run.json", made)
    by_seed = []
    for seed in seeds:
        oof = _oof(truth, share, seed, n_folds, {"task": "multiclass", "form": "probs", "folds_hash": folds_hash})
        by_seed.append(oof)
        for fold in range(n_folds):
            unit = Run(folder).unit_folder(Unit(fold, seed))
            unit.mkdir(parents=True, exist_ok=True)
            save_predictions(unit / "heldout.parquet", oof.at(np.flatnonzero(oof.fold == fold)))
            write_json(unit / "done.json", {})
    mean = mean_predictions(by_seed)
    save_predictions(folder / "oof.parquet", replace(mean, meta=mean.meta | {"run": name}))
    write_json(folder / "cv.json", {"weights": weights})
    return Run(folder)


def _oof(truth, share, seed, n_folds, meta):
    rng = np.random.default_rng([seed, round(1000 * share)])
    ids = np.array(sorted(truth), dtype=object)
    labels = np.array([truth[row_id] for row_id in ids])
    decided = np.where(rng.random(len(ids)) < share, labels, (labels + 1) % 3)
    return Predictions(
        ids, CLASSES, (0.8 * np.eye(3)[decided] + 0.2 / 3).astype(np.float32), np.arange(len(ids)) % n_folds, meta
    )


def _right(truth, oof):
    return np.array([truth[row_id] for row_id in oof.ids]) == oof.values.argmax(axis=1)


def test_two_runs_are_compared_through_their_files(toy):
    a, b = write_run(toy, "poor", 0.6), write_run(toy, "good", 0.9)
    found = compare_runs(Workspace(toy[0]), a, b, public_frac=0.3)
    assert (found.a, found.b, found.task, found.n_rows, found.winner) == ("poor", "good", "multiclass", 120, "B")
    assert len(found.folds) == 3
    assert found.lb is not None
    assert (found.lb.size_of, found.lb.n_public, found.lb.n_private) == ("test set", 7, 17)
    assert not any(note.startswith("warning") for note in found.notes)


def test_each_seed_is_scored_alone(toy):
    a, b = write_run(toy, "one", 0.7), write_run(toy, "three", 0.8, seeds=(0, 1, 2))
    found = compare_runs(Workspace(toy[0]), a, b)
    expected = [_right(toy[2], _oof(toy[2], 0.8, seed, 3, {})).mean() for seed in range(3)]
    assert list(found.seeds_b.scores.values()) == pytest.approx(expected)
    assert found.seeds_b.std == pytest.approx(np.std(expected, ddof=1))
    assert (found.seeds_a.std, len(found.seeds_a.scores)) == (None, 1)
    (b.unit_folder(Unit(1, 2)) / "done.json").unlink()
    unfinished = compare_runs(Workspace(toy[0]), a, b)
    assert unfinished.seeds_b.std != found.seeds_b.std  # over the two folds that every seed has finished


def test_other_folds_are_allowed_and_said_loudly(toy):
    a, b = write_run(toy, "thirds", 0.7), write_run(toy, "quarters", 0.7, n_folds=4, folds_hash="g")
    found = compare_runs(Workspace(toy[0]), a, b)
    assert found.folds == ()
    assert any(note.startswith("warning: the folds differ: the same rows were predicted by") for note in found.notes)
    c = write_run(toy, "same-rows", 0.7, folds_hash="g")
    alike = compare_runs(Workspace(toy[0]), a, c)
    assert len(alike.folds) == 3
    assert any(note.startswith("warning: the fold tables differ, though not on") for note in alike.notes)


def test_rows_that_only_one_run_has_are_counted(toy):
    a, b = write_run(toy, "whole", 0.7, seeds=(0, 1)), write_run(toy, "part", 0.8)
    oof = _oof(toy[2], 0.8, 0, 3, {"task": "multiclass", "form": "probs", "partial": "2 of 3 folds"})
    save_predictions(b.folder / "oof.parquet", oof.at(np.flatnonzero(oof.fold < 2)))
    found = compare_runs(Workspace(toy[0]), a, b)
    assert found.n_rows == 80
    assert "80 common rows are compared, of 120 of whole and 80 of part" in found.notes
    assert "part has 2 of 3 folds" in found.notes
    assert [line.fold for line in found.folds] == [0, 1]
    of_seed = _oof(toy[2], 0.7, 1, 3, {})
    assert found.seeds_a.scores[1] == pytest.approx(_right(toy[2], of_seed)[of_seed.fold < 2].mean())


def test_selected_oof_is_warned_of_also_inside_a_blend(toy):
    a, b = write_run(toy, "last", 0.7), write_run(toy, "best", 0.8, weights="best")
    warned = "warning: the OOF of best is selected on its own rows, which flatters it: "
    assert warned + "best predicts with `weights: best`" in compare_runs(Workspace(toy[0]), a, b).notes
    mixed = write_run(toy, "mixed", 0.8, weights="blend", blend={"members": [{"run": "last"}, {"run": "best"}]})
    notes = compare_runs(Workspace(toy[0]), a, mixed).notes
    assert any(note.startswith("warning: the OOF of mixed is selected") for note in notes)
    soup = write_run(toy, "soup", 0.8, weights="greedy soup", soup={"selection": "its members were chosen"})
    notes = compare_runs(Workspace(toy[0]), a, soup).notes
    assert warned.replace("best", "soup") + "soup: its members were chosen" in notes


def test_runs_that_cannot_be_compared_say_why(toy):
    workspace = Workspace(toy[0])
    a, b = write_run(toy, "here", 0.7), write_run(toy, "there", 0.7)
    with pytest.raises(MismatchError, match="here and here cannot be compared: they are one run"):
        compare_runs(workspace, a, Run(a.folder))
    other = write_run(toy, "elsewhere", 0.7, task=a.task.plain() | {"name": "other"})
    with pytest.raises(MismatchError, match="task 'multiclass' against 'other'"):
        compare_runs(workspace, a, other)
    scored = write_run(toy, "scored", 0.7, task=a.task.plain() | {"metric": {"name": "log_loss"}})
    with pytest.raises(MismatchError, match=r"metric .*accuracy.* against .*log_loss"):
        compare_runs(workspace, a, scored)
    (b.folder / "oof.parquet").unlink()
    with pytest.raises(DataError, match="there: has no OOF, as no fold of it is finished"):
        compare_runs(workspace, a, b)
    refit = write_run(toy, "refit", 0.7, is_refit=True)
    (refit.folder / "oof.parquet").unlink()
    with pytest.raises(DataError, match="refit: has no OOF, as it is a refit on every row"):
        compare_runs(workspace, a, refit)


def test_the_command_prints_the_tables_and_the_verdict_and_writes_the_numbers(toy, capsys):
    a, b = write_run(toy, "weak", 0.6, seeds=(0, 1)), write_run(toy, "strong", 0.9)
    found = api.compare("weak", "multiclass/strong", simulate_lb=0.3, json=toy[0] / "one.json", root=toy[0])
    capsys.readouterr()
    arguments = ["compare", a.name, b.name, "--simulate-lb", "0.3", "--json", str(toy[0] / "two.json")]
    assert commands.run([*arguments, "--root", str(toy[0])]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "multiclass: accuracy (higher is better)" in lines
    pooled = f"pooled OOF 120 {found.score_a:.5g} {found.score_b:.5g} {100 * found.difference:+.2f} "
    assert any(line.startswith(pooled) for line in lines)
    assert any(line.startswith(f"fold 2 40 {found.folds[2].score_a:.5g} ") for line in lines)
    assert any(line.startswith(f"seed 1 {found.seeds_a.scores[1]:.5g}") for line in lines)
    board = "simulated leaderboard: 7 public and 17 private rows (as many as the test set has), 1000 draws"
    assert board in lines
    assert lines[-2].endswith("of the draws the public board orders the two runs unlike the private one")
    assert lines[-1] == found.verdict
    written = read_json(toy[0] / "two.json")
    assert written == read_json(toy[0] / "one.json")
    assert (written["difference"], written["low"], written["winner"]) == (found.difference, found.low, "B")
    assert written["seeds_a"]["scores"] == {"0": found.seeds_a.scores[0], "1": found.seeds_a.scores[1]}
    assert written["lb"]["flip_prob"] == found.lb.flip_prob
