"""Subjects and sessions: folds hold them out whole, and a split within them is asked for and shows both scores."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toys import make_toy, train_toy

from pipeline import api
from pipeline.base.errors import ConfigError, DataError, LeakError
from pipeline.base.files import read_json
from pipeline.commands.words import show_scores
from pipeline.data.tables import load_train
from pipeline.records.config import load_config
from pipeline.records.experiment import FoldSpec
from pipeline.records.folds import check_folds, make_folds
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Workspace, across_folder
from pipeline.records.subjects import kept_whole
from pipeline.records.task import Kind
from pipeline.stages.across import across_config


def strings(values: Any) -> np.ndarray:
    return np.array([str(value) for value in values], dtype=object)


def rows_of(n: int = 120, n_subjects: int = 4, n_sessions: int = 3, **more: Any) -> Rows:
    """Rows of subjects of different sizes, whose sessions are numbered anew for each."""
    rng = np.random.default_rng(0)
    subjects = np.sort(rng.integers(0, n_subjects, n) * (rng.random(n) < 0.8)).astype(int)
    columns = {"subjects": strings(subjects), "sessions": strings(rng.integers(0, n_sessions, n))} | more
    ids = strings(f"r{number:03d}" for number in range(n))
    return Rows(ids, tuple((number,) for number in range(n)), ("a", "b"), rng.integers(0, 2, n), **columns)


def folds_of(rows: Rows, kind: Kind = "multiclass", **spec: Any) -> tuple[np.ndarray, str]:
    folds = make_folds(rows, kind, FoldSpec(n_folds=3, **spec))
    check_folds(folds, rows, kind)
    return folds.aligned_to(rows.ids).fold, folds.name


def n_folds_of(units: np.ndarray, fold: np.ndarray) -> set[int]:
    return {len(set(fold[units == unit])) for unit in set(units)}


# -- folds -------------------------------------------------------------------------------------------------------------


def test_subjects_are_held_out_whole_by_default() -> None:
    rows = rows_of()
    fold, name = folds_of(rows)
    assert n_folds_of(rows.subjects, fold) == {1}
    assert name == "stratified_group3-seed0"


def test_sessions_are_held_out_whole_where_only_they_are_known() -> None:
    rows = rows_of(subjects=None, n_sessions=7)
    fold, _ = folds_of(rows)
    assert n_folds_of(rows.sessions, fold) == {1}


def test_within_subjects_every_fold_knows_all_and_sessions_stay_whole() -> None:
    rows = rows_of(n=400, n_sessions=8)
    fold, name = folds_of(rows, within="subject")
    assert n_folds_of(rows.subjects, fold) == {3}
    pairs = strings(f"{one}-{other}" for one, other in zip(rows.subjects, rows.sessions, strict=True))
    assert n_folds_of(pairs, fold) == {1}
    assert len(n_folds_of(rows.sessions, fold) - {1}) > 0  # session 0 of two subjects are two sessions
    assert name == "stratified_group3-seed0-within_subject"


@pytest.mark.parametrize("within", ["subject", "session"])
def test_a_random_split_deals_classes_and_subjects_evenly(within: Any) -> None:
    rows = rows_of(sessions=None) if within == "subject" else rows_of()
    fold, name = folds_of(rows, within=within)
    assert name == f"stratified3-seed0-within_{within}"
    counts = Counter(zip(rows.subjects, np.asarray(rows.targets).tolist(), fold.tolist(), strict=True))
    for subject in set(rows.subjects):
        for label in (0, 1):
            dealt = [counts[subject, label, number] for number in range(3)]
            assert max(dealt) - min(dealt) <= 1, (subject, label)


def test_few_rows_of_each_subject_are_balanced_by_class_alone() -> None:
    rows = rows_of(n=12, sessions=None, subjects=strings(range(12)))
    fold, _ = folds_of(rows, within="subject")
    assert sorted(np.bincount(fold)) == [4, 4, 4]


def test_values_are_dealt_evenly_within_subjects_too() -> None:
    rows = rows_of(sessions=None)
    rows = Rows(rows.ids, rows.items, ("y",), np.arange(120, dtype=np.float32)[:, None], subjects=rows.subjects)
    fold, name = folds_of(rows, "regression", within="subject", n_bins=2)
    assert name == "quantile3-seed0-within_subject"
    for subject in set(rows.subjects):
        sizes = np.bincount(fold[rows.subjects == subject], minlength=3)
        assert sizes.max() - sizes.min() <= 2


def test_groups_stay_whole_whatever_is_said_of_subjects() -> None:
    rows = rows_of(sessions=None, groups=strings(np.arange(120) // 2))
    fold, _ = folds_of(rows, within="subject")
    assert n_folds_of(rows.groups, fold) == {1}
    assert n_folds_of(rows.subjects, fold) == {3}


def test_a_scheme_that_tears_subjects_is_a_leak_until_it_is_asked_for() -> None:
    with pytest.raises(
        LeakError, match=r"groups stand in more than one fold, .* folds\.within asks for a random split"
    ):
        folds_of(rows_of(), scheme="stratified")
    folds_of(rows_of(), scheme="stratified", within="session")
    with pytest.raises(LeakError, match=r"groups stand in more than one fold"):
        folds_of(rows_of(), scheme="stratified", within="subject")  # which keeps sessions whole


def test_more_folds_than_subjects_are_refused_with_the_ways_out() -> None:
    few = rows_of(n_subjects=2)
    with pytest.raises(ConfigError, match=r"there are only 2 subjects to hold out in turn; .*folds\.within: subject\)"):
        folds_of(few)
    with pytest.raises(ConfigError, match=r"there are only 2 sessions to hold out in turn; .*folds\.within: session\)"):
        folds_of(rows_of(n_subjects=1, n_sessions=2), within="subject")


@pytest.mark.parametrize(
    ("columns", "within", "message"),
    [
        (
            {"subjects": None},
            "subject",
            r"folds\.within: subject needs the column of subjects.* no subject:; it has sess",
        ),
        (
            {"sessions": None},
            "session",
            r"folds\.within: session needs the column of sessions.* no session:; it has sub",
        ),
        ({"subjects": None, "sessions": None}, "subject", r"the task has no subject:$"),
    ],
)
def test_a_split_within_what_is_not_known_is_refused(columns: Any, within: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        folds_of(rows_of(**columns), within=within)


# -- a competition -----------------------------------------------------------------------------------------------------


SUBJECTS = {"subject": "group"}
"""The toy's column of ten groups."""
WITHIN = {"folds": {"n_folds": 3, "within": "subject"}, "train": {"epochs": 2}}


def table_name(root: Path, config: Path) -> str:
    loaded = load_config(config)
    return Workspace(root).folds(loaded.task, loaded.experiment.folds).stem


def test_the_columns_are_read_and_must_be_filled(tmp_path: Path) -> None:
    config = load_config(make_toy(tmp_path, input="signal", task={"subject": "group", "session": "fold"}))
    data = tmp_path / config.task.data
    rows = load_train(config.task, data).rows
    assert set(rows.subjects) == {f"g{number}" for number in range(10)}
    assert set(rows.sessions) == {"0", "1", "2"}
    table = pd.read_csv(data / "train.csv")
    table.loc[4, "group"] = None
    table.to_csv(data / "train.csv", index=False)
    with pytest.raises(DataError, match=r"subject: is empty for tr_004"):
        load_train(config.task, data)


def test_the_table_is_found_again_under_its_name(tmp_path: Path) -> None:
    for name, task, folds in (
        ("a", SUBJECTS, {}),
        ("b", SUBJECTS, {"within": "subject"}),
        ("c", SUBJECTS | {"session": "fold"}, {"within": "subject"}),
        ("d", {"session": "group"}, {}),
    ):
        config = make_toy(tmp_path, input="signal", name=name, task=task, net={"folds": folds})
        made, _ = api.folds(config, root=tmp_path)
        assert made.name == table_name(tmp_path, config), name
        again, _ = api.folds(config, root=tmp_path)
        assert again.table_hash == made.table_hash


def test_a_split_within_subjects_shows_both_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_toy(tmp_path, input="signal", task=SUBJECTS, net=WITHIN)
    run = train_toy(tmp_path, config)
    across = Run(across_folder(run.folder))
    loaded = load_config(config)
    rows = load_train(loaded.task, tmp_path / loaded.task.data).rows
    held = pd.read_parquet(across.folder / "oof.parquet").set_index("id").fold.reindex(rows.ids).to_numpy()
    assert n_folds_of(rows.subjects, held) == {1}
    known = pd.read_parquet(run.folder / "oof.parquet").set_index("id").fold.reindex(rows.ids).to_numpy()
    assert n_folds_of(rows.subjects, known) == {3}
    show_scores(run.folder)
    lines = capsys.readouterr().out.splitlines()
    own, other = (read_json(each.folder / "cv.json") for each in (run, across))
    assert any("CV, mean of folds" in line and "known subjects, in random folds" in line for line in lines)
    (both,) = [line for line in lines if "whole subjects held out" in line]
    assert f"{other['mean']:.5g}" in both
    assert "net-across" in both
    assert own["within"] == "subject"
    assert other["within"] is None
    before = (across.folder / "run.json").read_bytes()
    train_toy(tmp_path, config)  # goes on where it stood: nothing is left to do
    assert (across.folder / "run.json").read_bytes() == before


def test_only_some_folds_leave_the_other_score_for_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_toy(tmp_path, input="signal", task=SUBJECTS, net=WITHIN)
    run = train_toy(tmp_path, config, folds=[0])
    assert not across_folder(run.folder).exists()
    assert [path.stem for path in (tmp_path / "folds").glob("*/*.csv")] == ["stratified3-seed0-within_subject"]
    show_scores(run.folder)
    assert any(
        "whole subjects held out" in line and "not trained" in line for line in capsys.readouterr().out.split("\n")
    )


def test_folds_that_hold_out_subjects_need_no_second_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_toy(tmp_path, input="signal", task=SUBJECTS, net={"train": {"epochs": 1}}, noise=True)
    run = train_toy(tmp_path, config)
    assert not across_folder(run.folder).exists()
    show_scores(run.folder)
    out = capsys.readouterr().out
    assert "OOF, mean of 10 subjects" in out
    assert "whole subjects held out" not in out
    scores = read_json(run.folder / "cv.json")["subjects"]
    loaded = load_config(config)
    rows = load_train(loaded.task, tmp_path / loaded.task.data).rows
    oof = pd.read_parquet(run.folder / "oof.parquet").set_index("id").reindex(rows.ids)
    right = oof[list(rows.names)].to_numpy().argmax(axis=1) == rows.targets
    assert len(set(scores.values())) > 1
    assert scores == pytest.approx({name: float(right[rows.subjects == name].mean()) for name in set(rows.subjects)})


def test_the_run_across_has_no_more_folds_than_subjects(tmp_path: Path) -> None:
    config = load_config(make_toy(tmp_path, input="signal", task=SUBJECTS, net=WITHIN))
    for n_subjects, expected in ((2, 2), (3, 3), (9, 3)):
        across = across_config(config, rows_of(subjects=strings(np.arange(120) % n_subjects)))
        assert across is not None
        assert across.experiment.folds == FoldSpec(n_folds=expected)
        assert across.run_name == "net-across"
    assert across_config(config, rows_of(subjects=strings([1] * 120))) is None


def test_a_single_subject_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_toy(tmp_path, input="signal", n_train=30, task=SUBJECTS, net=WITHIN)
    path = tmp_path / "data" / "multiclass" / "train.csv"
    pd.read_csv(path).assign(group="x").to_csv(path, index=False)
    said: list[str] = []
    monkeypatch.setattr(api, "say", said.append)
    run = train_toy(tmp_path, config)
    assert not across_folder(run.folder).exists()
    assert "note: there is one subject only, so nothing will be known of how others would score" in said


def test_classes_that_one_subject_alone_has_stop_the_second_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_toy(tmp_path, input="signal", n_train=60, task=SUBJECTS, net=WITHIN)
    path = tmp_path / "data" / "multiclass" / "train.csv"
    table = pd.read_csv(path)
    table["group"] = table.label  # the classes themselves
    table.to_csv(path, index=False)
    said: list[str] = []
    monkeypatch.setattr(api, "say", said.append)
    run = train_toy(tmp_path, config)
    assert len(run.done_units()) == 3
    assert not across_folder(run.folder).exists()
    assert any(line.startswith("note: whole subjects cannot be held out too: ") for line in said)


def test_kept_whole_names_pairs_of_subject_and_session() -> None:
    rows = rows_of(n=4, subjects=strings("aabb"), sessions=strings("0101"))
    assert kept_whole(rows, "subject").tolist() == ["a / 0", "a / 1", "b / 0", "b / 1"]
    assert kept_whole(rows, "session") is None
    assert kept_whole(rows, None) is rows.subjects
