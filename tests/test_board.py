from __future__ import annotations

import json
import re

import numpy as np
import pytest
import scipy.stats

from pipeline.base.errors import DataError, MismatchError
from pipeline.base.files import sha256_file
from pipeline.stages.board.finals import difference
from pipeline.stages.board.lb_fit import find_outliers, fit_lb, outlier_bound, studentised_residuals
from pipeline.stages.board.lines import list_runs, list_submissions
from pipeline.stages.board.tables import board_tables, enter_lb, read_outlook


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def add_run(root, task, run, mean, higher=True, **cv):
    folder = root / "runs" / task / run
    write(folder / "run.json", {"created": "2026-01-01", "folds": {"n_folds": 5}})
    facts = {"metric": "m", "higher_is_better": higher, "mean": mean, "std": 0.1, "pooled": None, "folds": []}
    write(folder / "cv.json", {**facts, "n_folds": 5, "n_done": 5, "weights": "last", **cv})


def add_submission(root, task, stem, runs=("r",), **record):
    file = root / "submissions" / task / f"{stem}.csv"
    write(file, f"id,label\n{stem},1\n")
    write(file.with_suffix(".json"), {"file": file.name, "runs": runs, "sha256": sha256_file(file), **record})
    return file


def test_runs_are_read_from_their_folders(tmp_path):
    add_run(tmp_path, "t", "r", 0.9, pooled=0.91)
    write(tmp_path / "runs" / "t" / "new" / "run.json", {"folds": {"n_folds": 3}})
    (tmp_path / "runs" / "t" / "empty").mkdir()
    new, done = list_runs(tmp_path)
    assert (new.run, new.mean, new.n_folds, new.n_done, new.note) == ("new", None, 3, 0, "no CV yet")
    assert (done.task, done.run, done.metric, done.higher_is_better) == ("t", "r", "m", True)
    assert (done.mean, done.std, done.pooled, done.n_folds, done.n_done, done.weights) == (0.9, 0.1, 0.91, 5, 5, "last")


def test_an_empty_workspace_has_an_empty_board(tmp_path):
    runs, sent = board_tables(tmp_path)
    assert len(runs) == len(sent) == 0
    assert "mean" in runs.columns
    assert "public" in sent.columns


def test_runs_stand_by_task_and_the_best_first_in_the_direction_of_the_metric(tmp_path):
    for run, mean in (("low", 0.1), ("high", 0.9), ("none", None)):
        add_run(tmp_path, "b_up", run, mean, True)
        add_run(tmp_path, "a_down", run, mean, False)
    add_run(tmp_path, "b_up", "part", 0.95, True, n_done=2, partial="2 of 5 folds")
    runs, _ = board_tables(tmp_path)
    assert runs["task"].tolist() == ["a_down"] * 3 + ["b_up"] * 4
    assert runs["run"].tolist() == ["low", "high", "none", "high", "low", "none", "part"]
    assert runs["note"].tolist()[-1] == "2 of 5 folds"
    assert board_tables(tmp_path, "a_down")[0]["run"].tolist() == ["low", "high", "none"]


def test_the_pooled_score_stands_in_for_a_missing_mean(tmp_path):
    add_run(tmp_path, "t", "mean", 0.5)
    add_run(tmp_path, "t", "pooled", None, pooled=0.7)
    assert board_tables(tmp_path)[0]["run"].tolist() == ["pooled", "mean"]


def test_one_broken_record_does_not_hide_the_others(tmp_path):
    add_run(tmp_path, "t", "good", 0.5)
    add_run(tmp_path, "t", "bad", 0.5)
    write(tmp_path / "runs" / "t" / "bad" / "cv.json", "{")
    add_submission(tmp_path, "t", "s")
    write(tmp_path / "submissions" / "t" / "s.json", "[1]")
    bad, good = list_runs(tmp_path)
    assert "cv.json cannot be read" in bad.note
    assert (good.mean, good.note) == (0.5, "")
    assert list_submissions(tmp_path)[0].note == "s.json holds no record"


def test_submissions_show_cv_and_both_boards_by_cv_and_never_by_lb(tmp_path):
    add_run(tmp_path, "t", "r", 0.5, higher=False)
    add_submission(tmp_path, "t", "worse", cv=0.6, lb={"public": 0.1, "private": 0.2}, created="2026")
    add_submission(tmp_path, "t", "better", cv={"mean": 0.5}, lb={"public": 0.3})
    _, sent = board_tables(tmp_path)
    assert sent["file"].tolist() == ["better.csv", "worse.csv"]
    worse = list_submissions(tmp_path)[1]
    assert (worse.cv, worse.public, worse.private, worse.runs, worse.created) == (0.6, 0.1, 0.2, ("r",), "2026")
    assert worse.higher_is_better is False


def test_files_that_are_gone_or_changed_are_noted(tmp_path):
    add_submission(tmp_path, "t", "gone").unlink()
    add_submission(tmp_path, "t", "other").write_text("changed")
    add_submission(tmp_path, "t", "same")
    notes = {line.file: line.note for line in list_submissions(tmp_path)}
    assert notes == {
        "gone.csv": "the file is gone",
        "other.csv": "the file has changed since it was written",
        "same.csv": "",
    }


@pytest.mark.parametrize("name", ["s.v1.csv", "s.v1", "t/s.v1", "submissions/t/s.v1.csv", "s.v1.json"])
def test_a_leaderboard_score_is_entered_by_name_or_path(tmp_path, name):
    file = add_submission(tmp_path, "t", "s.v1", cv=0.5)
    add_submission(tmp_path, "t", "s")
    assert enter_lb(tmp_path, name, 0.71) == file.with_suffix(".json")
    enter_lb(tmp_path, str(file), 0.72, private=True)
    record = json.loads(file.with_suffix(".json").read_text())
    assert record["lb"] == {"public": 0.71, "private": 0.72}
    assert record["cv"] == 0.5
    assert list_submissions(tmp_path)[0].public is None


def test_unknown_doubled_and_impossible_entries_are_refused(tmp_path):
    add_submission(tmp_path, "t", "resnet")
    with pytest.raises(
        DataError, match=r"resnt\.csv: no such submission .*Did you mean 'resnet\.csv'.* Known: t/resnet"
    ):
        enter_lb(tmp_path, "resnt.csv", 0.5)
    add_submission(tmp_path, "u", "resnet")
    with pytest.raises(DataError, match="several tasks have it; say which: t/resnet, u/resnet"):
        enter_lb(tmp_path, "resnet", 0.5)
    with pytest.raises(DataError, match=r"a leaderboard score is a finite number \(found: nan\)"):
        enter_lb(tmp_path, "u/resnet", float("nan"))


# -- LB on CV ----------------------------------------------------------------------------------------------------------


def test_the_line_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    cv = rng.random(9)
    lb = 0.1 + 0.8 * cv + 0.01 * rng.standard_normal(9)
    fit = fit_lb(cv, lb)
    wanted = scipy.stats.linregress(cv, lb)
    assert (fit.slope, fit.intercept) == pytest.approx((wanted.slope, wanted.intercept))
    half = scipy.stats.t.ppf(0.975, 7) * wanted.stderr
    assert fit.slope_ends() == pytest.approx((wanted.slope - half, wanted.slope + half))


def test_the_interval_of_a_prediction_by_hand():
    """Points (0, 0), (1, 1), (2, 1), (3, 2): slope 0.6, intercept 0.1, residual variance 0.2 / 2."""
    fit = fit_lb([0, 1, 2, 3], [0, 1, 1, 2])
    value, low, high = fit.predict(4)
    half = 4.302652729911275 * (0.1 * (1 + 1 / 4 + 2.5**2 / 5)) ** 0.5
    assert (fit.slope, fit.intercept, fit.residual_std**2) == pytest.approx((0.6, 0.1, 0.1))
    assert (value, low, high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))


@pytest.mark.parametrize("n", [4, 6, 20])
def test_the_interval_holds_the_next_lb_in_95_of_100_cases(n):
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(1500):
        cv = rng.random(n + 1)
        lb = 0.3 + 0.5 * cv + 0.02 * rng.standard_normal(n + 1)
        _, low, high = fit_lb(cv[:n], lb[:n]).predict(cv[n])
        held += low <= lb[n] <= high
    assert 0.93 < held / 1500 < 0.97


def test_a_line_needs_four_points_with_different_cv():
    with pytest.raises(ValueError, match=r"needs at least 4 pairs of CV and LB \(found: 3, 3\)"):
        fit_lb([1, 2, 3], [1, 2, 3])
    with pytest.raises(ValueError, match=r"all 4 points have the CV 0\.5"):
        fit_lb([0.5] * 4, [1, 2, 3, 4])


def test_studentised_residuals_are_those_of_a_line_without_the_point():
    rng = np.random.default_rng(1)
    cv, lb = rng.random(7), rng.random(7)
    for place in range(7):
        others = [other for other in range(7) if other != place]
        fit = fit_lb(cv[others], lb[others])
        value, low, high = fit.predict(cv[place])
        spread = (high - low) / 2 / scipy.stats.t.ppf(0.975, 4)
        assert studentised_residuals(cv, lb)[place] == pytest.approx((lb[place] - value) / spread)


def test_the_bound_of_outliers_is_students_t_shared_among_the_points():
    assert outlier_bound(10) == pytest.approx(scipy.stats.t.ppf(1 - 0.05 / 20, 7))


def test_outliers_are_found_also_two_and_seldom_where_none_is():
    rng = np.random.default_rng(2)
    cv = np.linspace(0.8, 0.9, 12)
    alarms = 0
    for _ in range(400):
        lb = cv + 0.001 * rng.standard_normal(12)
        alarms += bool(find_outliers(cv, lb))
    assert alarms / 400 < 0.08
    lb[[3, 8]] -= [0.03, 0.04]
    assert sorted(find_outliers(cv, lb)) == [3, 8]


def test_exact_points_are_no_outliers_and_one_beside_them_is():
    cv = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert find_outliers(cv, cv) == []
    assert find_outliers([0.1, 0.1, 0.1, 0.1, 0.5], [0.1, 0.11, 0.1, 0.11, 0.9]) == []  # it alone makes the slope
    assert find_outliers(cv, [0.1, 0.2, 0.3, 0.4, 0.7]) == [4]
    assert find_outliers(cv[:4], [0.1, 0.2, 0.9, 0.4]) == []


# -- the outlook -------------------------------------------------------------------------------------------------------


def add_scored(root, cv, lb, task="t", **more):
    for number, (mine, public) in enumerate(zip(cv, lb, strict=True)):
        add_submission(root, task, f"s{number}", cv=mine, cv_std=0.01, lb={"public": public}, **more)


CV = [0.80, 0.82, 0.84, 0.86, 0.88, 0.90]
LB = [0.751, 0.769, 0.791, 0.809, 0.831, 0.849]


def test_an_unsent_file_gets_the_lb_that_its_cv_promises(tmp_path):
    add_scored(tmp_path, CV, LB, higher_is_better=True)
    add_submission(tmp_path, "t", "new", cv=0.87, higher_is_better=True)
    add_submission(tmp_path, "t", "part", cv=0.87, partial="2 of 5 folds", higher_is_better=True)
    add_submission(tmp_path, "u", "new", cv=0.87)
    add_submission(tmp_path, "t", "none")
    _, sent = board_tables(tmp_path)
    row = sent.set_index(["task", "file"]).loc[("t", "new.csv")]
    value, low, high = fit_lb(CV, LB).predict(0.87)
    assert (row["predicted"], row["low"], row["high"]) == pytest.approx((value, low, high))
    assert value == pytest.approx(0.82, abs=0.002)
    assert sent["predicted"].notna().sum() == 1
    assert sent.set_index("file").loc["part.csv", "note"] == "2 of 5 folds"


def test_the_leaderboard_orders_nothing(tmp_path):
    add_scored(tmp_path, CV, LB, higher_is_better=True)
    before = board_tables(tmp_path)[1]["file"].tolist()
    finals = [final.file for final in read_outlook(tmp_path)[0].finals]
    add_scored(tmp_path, CV, LB[::-1], higher_is_better=True)
    assert board_tables(tmp_path)[1]["file"].tolist() == before == [f"s{number}.csv" for number in range(5, -1, -1)]
    assert [final.file for final in read_outlook(tmp_path)[0].finals] == finals


def test_too_few_scores_say_how_many_are_missing(tmp_path):
    add_scored(tmp_path, CV[:3], LB[:3])
    add_submission(tmp_path, "t", "part", cv=0.8, lb={"public": 0.7}, partial="1 of 5 folds")
    add_submission(tmp_path, "t", "blind", lb={"public": 0.7})
    (outlook,) = read_outlook(tmp_path)
    assert outlook.fit is None
    assert outlook.lines()[0] == (
        "no line from CV to LB yet: 3 of the 4 points that it needs "
        "(files of whole runs with CV and public LB), 1 missing"
    )
    add_scored(tmp_path / "same", [0.8] * 4, LB[:4])
    assert "all 4 files that have a public LB have the same CV, 0.8" in read_outlook(tmp_path / "same")[0].missing


def test_the_same_bytes_under_two_names_are_one_point(tmp_path):
    add_scored(tmp_path, CV[:4], LB[:4])
    file = tmp_path / "submissions" / "t" / "s3.csv"
    for end in (".csv", ".json"):
        copy = file.with_name(f"copy{end}")
        copy.write_text(file.with_suffix(end).read_text().replace("s3.csv", "copy.csv"))
    copy = file.with_name("copy.csv")
    copy.write_bytes(file.read_bytes())
    assert read_outlook(tmp_path)[0].fit.n == 4


@pytest.mark.parametrize(
    ("higher", "shift", "told"),
    [
        (True, -0.05, r"LB 0\.759 is 0\.05\d+ below what its CV promises .*: a leak in its folds, or other test rows"),
        (True, 0.05, r"LB 0\.859 is 0\.04\d+ above .*: folds that are too hard, or luck"),
        (False, 0.05, r"LB 0\.859 is 0\.04\d+ above .*: a leak in its folds"),
        (None, 0.05, r"LB 0\.859 is 0\.04\d+ above what its CV promises \(0\.\d+ to 0\.\d+\)$"),
    ],
)
def test_a_file_off_the_line_is_named_and_does_not_bend_it(tmp_path, higher, shift, told):
    lb = [score + shift * (place == 3) for place, score in enumerate(LB)]
    add_scored(tmp_path, CV, lb, higher_is_better=higher)
    (outlook,) = read_outlook(tmp_path)
    ((file, what),) = outlook.outliers
    assert file == "s3.csv"
    assert re.search(told, what)
    kept = [place for place in range(6) if place != 3]
    assert outlook.fit == fit_lb([CV[place] for place in kept], [LB[place] for place in kept])
    assert any(line.startswith("off the line: s3.csv: LB 0.") for line in outlook.lines())


def test_a_slope_that_may_be_nothing_is_said_to_be(tmp_path):
    add_scored(tmp_path, CV, LB)
    assert not any("may not follow" in line for line in read_outlook(tmp_path)[0].lines())
    add_scored(tmp_path, CV, [0.8, 0.7, 0.8, 0.7, 0.8, 0.7])
    assert any("LB may not follow CV" in line for line in read_outlook(tmp_path)[0].lines())


# -- finals ------------------------------------------------------------------------------------------------------------


def add_answers(root, stem, labels, cv, std=0.01, form="label", ids="abcdefghij", higher=True, **more):
    file = root / "submissions" / "t" / f"{stem}.csv"
    write(file, "id,label\n" + "".join(f"{name},{label}\n" for name, label in zip(ids, labels, strict=True)))
    facts = {"file": file.name, "sha256": sha256_file(file), "cv": cv, "cv_std": std, "format": form}
    write(file.with_suffix(".json"), {**facts, "higher_is_better": higher, **more})
    return file


def test_the_finals_are_the_best_cv_and_the_most_different_of_the_good_ones(tmp_path):
    add_answers(tmp_path, "best", "0123456789", 0.95)
    add_answers(tmp_path, "alike", "0123456780", 0.949)
    add_answers(tmp_path, "apart", "0123456000", 0.941)
    add_answers(tmp_path, "worse", "9999999999", 0.939)  # most different, but not within one spread
    (outlook,) = read_outlook(tmp_path)
    best, second = outlook.finals
    assert (best.file, best.cv, best.reason) == ("best.csv", 0.95, "the best CV")
    assert second.file == "apart.csv"
    assert second.reason == (
        "of 2 within one spread (0.01000) of the best CV, the most different: 30.00% of the decisions differ"
    )
    assert outlook.lines()[1] == (
        "final 1: best.csv, CV 0.95000: the best CV (not sent: podium submit submissions/t/best.csv --send)"
    )


def test_lower_may_be_better(tmp_path):
    for stem, labels, cv in (("high", "01", 0.5), ("low", "10", 0.495), ("mid", "00", 0.497)):
        add_answers(tmp_path, stem, labels, cv, ids="ab", higher=False)
    assert [final.file for final in read_outlook(tmp_path)[0].finals] == ["low.csv", "high.csv"]


def test_finals_are_whole_unchanged_files_and_say_whether_they_were_sent(tmp_path):
    file = add_answers(tmp_path, "best", "0123456789", 0.95)
    sent = {"time": "2026", "sha256": sha256_file(file), "ref": 1}
    add_answers(tmp_path, "best", "0123456789", 0.95, sent=[sent])
    add_answers(tmp_path, "gone", "1111111111", 0.96).unlink()
    add_answers(tmp_path, "other", "2222222222", 0.96).write_text("edited")
    add_answers(tmp_path, "part", "3333333333", 0.96, partial="2 of 5 folds")
    add_answers(tmp_path, "blind", "4444444444", None)
    add_answers(tmp_path, "odd", "5555555555", 0.96, higher=None)
    add_answers(tmp_path, "twin", "0123456789", 0.95)
    (outlook,) = read_outlook(tmp_path)
    assert [(final.file, final.sent) for final in outlook.finals] == [("best.csv", "2026")]
    assert outlook.lines()[1:] == [
        "final 1: best.csv, CV 0.95000: the best CV (sent)",
        "no second final: there is no other such file",
    ]


def test_a_second_final_that_is_missing_has_a_reason(tmp_path):
    assert read_outlook(tmp_path) == []
    add_submission(tmp_path, "t", "blind")
    assert read_outlook(tmp_path)[0].notes == ("no finals: there is no unchanged file of a whole run with a CV",)
    add_answers(tmp_path, "best", "0123456789", 0.95, std=None)
    add_answers(tmp_path, "far", "1111111111", 0.90)
    assert "has no spread over folds" in read_outlook(tmp_path)[0].notes[0]
    add_answers(tmp_path, "best", "0123456789", 0.95)
    assert "no other file is within one spread (0.01000)" in read_outlook(tmp_path)[0].notes[0]
    file = add_answers(tmp_path, "same", "0123456789", 0.949)
    file.write_text(file.read_text() + "\n")  # other bytes, the same answers
    record = json.loads(file.with_suffix(".json").read_text())
    write(file.with_suffix(".json"), {**record, "sha256": sha256_file(file)})
    assert "within one spread of best.csv predict the same" in read_outlook(tmp_path)[0].notes[0]
    add_answers(tmp_path, "fewer", "012345678", 0.949, ids="abcdefghi")
    assert "fewer.csv is not considered as a final: fewer.csv against best.csv" in read_outlook(tmp_path)[0].notes[0]


def test_a_final_off_the_line_carries_a_warning(tmp_path):
    add_scored(tmp_path, [*CV, 0.92], [*LB, 0.7], higher_is_better=True)
    lines = read_outlook(tmp_path)[0].lines()
    assert any(line.startswith("final 1: s6.csv") and "look at its folds first" in line for line in lines)


def record(file, **more):
    return {"file": file, **more}


def test_differences_are_joined_by_id_and_column(tmp_path):
    write(tmp_path / "a.csv", "x,row,y\n0.1,r1,5\n0.2,r2,7\n0.4,r3,6\n")
    write(tmp_path / "b.csv", "row,y,x\nr3,6,0.4\nr1,5,0.1\nr2,7,0.2\n")
    facts = {"format": "per_class", "id_column": "row"}
    value, words = difference(tmp_path, record("a.csv", **facts), record("b.csv", **facts))
    assert value == pytest.approx(0, abs=1e-12)
    assert words.format(value) == "1 - correlation is 0.0000"
    facts["format"] = "label"
    assert difference(tmp_path, record("a.csv", **facts), record("b.csv", **facts))[0] == 0
    write(tmp_path / "c.csv", "x,row,z\n0.1,r1,5\n0.2,r2,7\n0.4,r3,6\n")
    with pytest.raises(MismatchError, match=r"c\.csv and a\.csv have other columns"):
        difference(tmp_path, record("a.csv", **facts), record("c.csv", **facts))
    with pytest.raises(MismatchError, match="has the format None"):
        difference(tmp_path, record("a.csv", **facts), record("c.csv"))


def test_amounts_differ_by_correlation_and_arrays_by_place(tmp_path):
    rng = np.random.default_rng(3)
    first, other = rng.random((20, 3)).astype(np.float32), rng.random((20, 3)).astype(np.float32)
    other[:, 2] = 0.5  # constant: correlates with nothing
    np.save(tmp_path / "a.npy", first)
    np.save(tmp_path / "b.npy", other)
    wanted = np.mean([*(1 - np.corrcoef(first[:, c], other[:, c])[0, 1] for c in (0, 1)), 1])
    a, b = record("a.npy", format="array"), record("b.npy", format="array")
    assert difference(tmp_path, a, b)[0] == pytest.approx(wanted, rel=1e-5)
    assert difference(tmp_path, a, a)[0] == pytest.approx(0, abs=1e-12)
    assert difference(tmp_path, b, b)[0] == pytest.approx(0, abs=1e-12)
    np.save(tmp_path / "b.npy", other[:5])
    with pytest.raises(MismatchError, match="has shape"):
        difference(tmp_path, a, b)
