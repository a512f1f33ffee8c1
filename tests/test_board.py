from __future__ import annotations

import json

import pytest

from pipeline.base.errors import DataError
from pipeline.base.files import sha256_file
from pipeline.stages.board import board_tables, enter_lb, list_runs, list_submissions


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
