"""Pseudo-labels: which rows are trusted, what a table holds, and that nothing leaks through the teachers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from toys import make_toy, train_toy

from pipeline import api
from pipeline.base.errors import ConfigError, DataError, LeakError, MismatchError
from pipeline.blending.trust import (
    Trust,
    check_trust,
    harden,
    sharpen,
    trusted_multilabel,
    trusted_rows,
    trusted_values,
)
from pipeline.data.tables import load_train
from pipeline.records.config import load_task
from pipeline.records.folds import load_folds
from pipeline.records.predictions import load_predictions, mean_predictions
from pipeline.records.pseudo_labels import load_labels, save_labels, table_path
from pipeline.records.runs import Run, Workspace
from pipeline.stages import pseudo as stage
from pipeline.stages.pseudo import Wanted, describe_labels, make_labels

NAMES = ("a", "b", "c")
PRIOR = np.array([0.5, 0.25, 0.25])
PROBS = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.2, 0.8, 0.0], [0.1, 0.5, 0.4], [0.0, 0.1, 0.9], [0.7, 0.2, 0.1]])


# -- which rows --------------------------------------------------------------------------------------------------------


def trusted(**rules: Any) -> list[int]:
    return trusted_rows(PROBS, Trust(**rules), NAMES, PRIOR).tolist()


def test_rules_choose_the_surest_rows_of_each_decided_class() -> None:
    assert trusted() == [0, 1, 2, 3, 4, 5]
    assert trusted(threshold=0.7) == [0, 2, 4, 5]
    assert trusted(threshold=0.7, class_thresholds={"a": 0.8, "b": 0.4}) == [0, 2, 3, 4]
    assert trusted(top_n=1) == [0, 2, 4]
    assert trusted(proportion=2 / 3) == [0, 2, 4, 5]  # 4 rows: 2 of a, 1 of b, 1 of c
    assert trusted(top_n=1, threshold=0.85) == [0, 4]


def test_top_n_is_that_of_a_plain_search_on_random_rows() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4), 200)
    found = trusted_rows(probs, Trust(top_n=7, threshold=0.4), list("abcd"), np.full(4, 0.25)).tolist()
    wanted = []
    for label in range(4):
        rows = [row for row in range(200) if probs[row].argmax() == label and probs[row].max() >= 0.4]
        wanted += sorted(rows, key=lambda row: -probs[row].max())[:7]
    assert found == sorted(wanted)


def test_a_row_of_several_labels_is_as_sure_as_its_least_sure_label() -> None:
    probs = np.array([[0.99, 0.05], [0.99, 0.5], [0.9, 0.1]])
    assert trusted_multilabel(probs, Trust(threshold=0.9)).tolist() == [0, 2]


def test_values_are_trusted_where_the_teachers_agree() -> None:
    values = np.array([[[0.0], [1.0], [2.0], [3.0]], [[0.1], [2.0], [2.0], [3.5]]])
    assert trusted_values(values, 0.5).tolist() == [0, 2]
    assert trusted_values(values, None).tolist() == [0, 1, 2, 3]
    assert trusted_values(values[:1], None).tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="there is one only; train the run with two seeds"):
        trusted_values(values[:1], 0.5)


def test_sharpening_is_softmax_of_logs_over_temperature_and_survives_zeros() -> None:
    np.testing.assert_allclose(sharpen(PROBS, 1.0), PROBS, atol=1e-9)
    sharp = sharpen(PROBS, 0.5)
    np.testing.assert_allclose(sharp, PROBS**2 / (PROBS**2).sum(1, keepdims=True), atol=1e-9)
    np.testing.assert_allclose(sharpen(np.array([[1.0, 0.0]]), 0.1), [[1.0, 0.0]], atol=1e-9)
    assert harden(np.array([[0.5, 0.5], [0.2, 0.8]])).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("trust", "kind", "message"),
    [
        (Trust(threshold=1.2), {}, r"--threshold: must lie above 0 and not above 1 \(found: 1.2\)"),
        (Trust(top_n=0), {}, "--top-n: must be at least 1"),
        (Trust(class_thresholds={"d": 0.5}), {}, "--thresholds: 'd' is no class"),
        (Trust(keep_frac=0.5), {}, "--keep-frac: is for values"),
        (Trust(threshold=0.5), {"is_value": True}, "only --keep-frac fits"),
        (Trust(top_n=3), {"is_exclusive": False}, "only --threshold fits"),
    ],
)
def test_rules_that_do_not_fit_are_refused(trust: Trust, kind: dict[str, bool], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_trust(trust, NAMES, **({"is_value": False, "is_exclusive": True} | kind))


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Run]]:
    root = tmp_path_factory.mktemp("pseudo")
    config = make_toy(root)
    options = ["train.epochs=1", "folds.n_folds=3"]
    made = [
        train_toy(root, config, [*options, seeds], name=n)
        for n, seeds in (("one", "seeds=[0]"), ("two", "seeds=[0,1]"))
    ]
    return root, config, made


def quiet(_: str) -> None:
    pass


def test_the_labels_of_a_fold_are_the_mean_of_the_units_that_left_it_out(runs: Any) -> None:
    root, _, (one, two) = runs
    folder = make_labels(Workspace(root), [one, two], Wanted(), "both", quiet)
    assert folder == one.folder / "labels" / "both"
    for fold in range(3):
        labels = load_labels(table_path(folder, fold))
        units = [(one, f"fold{fold}-seed0"), (two, f"fold{fold}-seed0"), (two, f"fold{fold}-seed1")]
        assert [(maker["run"], maker["unit"], maker["left_out"]) for maker in labels.makers] == [
            (run.name, unit, fold) for run, unit in units
        ]
        parts = [load_predictions(run.folder / "units" / unit / "test.parquet") for run, unit in units]
        mean = mean_predictions(parts).aligned_to(labels.targets.ids)
        np.testing.assert_allclose(labels.targets.values, mean.values, atol=1e-6)
        assert labels.round == 1
        assert labels.protocol == "per-fold"
    lines = describe_labels(folder)
    assert [line[0] for line in lines] == [0, 1, 2]
    assert all(line[1] == 24 and line[2] == 1.0 for line in lines)


def test_final_labels_come_from_all_folds_and_teach_models_without_cv_only(runs: Any) -> None:
    root, config, (one, _) = runs
    folder = make_labels(Workspace(root), [one], Wanted("final", is_hard=True), "final", quiet)
    labels = load_labels(table_path(folder, "all"))
    assert {maker["left_out"] for maker in labels.makers} == {0, 1, 2}
    assert set(np.unique(labels.targets.values)) == {0.0, 1.0}
    spec = f"pseudo.labels={folder.relative_to(root).as_posix()}"
    refit = train_toy(root, config, ["train.epochs=1", "folds.n_folds=3", spec], name="last", folds="all")
    cv = json.loads((refit.folder / "cv.json").read_text())
    assert cv["pooled"] is None
    assert cv["mean"] is None
    for fold in range(3):  # somebody renames the table to make it teach folds
        save_labels(table_path(folder, fold), labels)
    with pytest.raises(LeakError, match="has seen fold 0, which this unit is scored on"):
        train_toy(root, config, ["train.epochs=1", "folds.n_folds=3", spec], name="naive")


def test_rounds_go_on_from_student_to_student_and_keep_their_lineage(runs: Any) -> None:
    root, config, (one, _) = runs
    options = ["train.epochs=1", "folds.n_folds=3", "pseudo={weight: 0.5}"]
    made = api.pseudo(
        [str(one.folder)],
        student=config,
        overrides=options,
        rounds=2,
        student_name="net",
        jobs=1,
        root=root,
        show="quiet",
    )
    assert [run.name for run in made] == [f"{config.stem}-round1", f"{config.stem}-round2"]
    last = load_labels(table_path(root / made[1].experiment.pseudo.labels, 0))
    assert last.round == 2
    assert last.makers[0]["run"] == made[0].name
    assert made[1].experiment.pseudo.weight == 0.5
    again = api.pseudo(
        [str(one.folder)],
        student=config,
        overrides=options,
        rounds=2,
        student_name="net",
        jobs=1,
        root=root,
        show="quiet",
    )
    assert [run.folder for run in again] == [run.folder for run in made]


def test_the_command_writes_tables_and_says_how_to_go_on(runs: Any, capsys: Any, monkeypatch: Any) -> None:
    from pipeline.commands import run

    root, _, _ = runs
    words = ["pseudo", "multiclass/one", "--threshold", "0.2", "--hard", "--name", "cli", "--root", str(root)]
    assert run(words) == 0
    out = capsys.readouterr().out
    assert "labels/cli" in out
    assert "pseudo.labels=runs/multiclass/one/labels/cli" in out


def test_labels_are_made_once_and_never_replaced_by_others(runs: Any) -> None:
    root, _, (one, two) = runs
    workspace = Workspace(root)
    folder = make_labels(workspace, [one], Wanted(), "once", quiet)
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert make_labels(workspace, [one], Wanted(), "once", quiet) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    for teachers, wanted in (([one], Wanted(is_hard=True)), ([one, two], Wanted())):
        with pytest.raises(MismatchError, match=r"labels/once: holds labels of other teachers or rules"):
            make_labels(workspace, teachers, wanted, "once", quiet)


def test_the_proportion_of_a_fold_knows_nothing_of_its_own_rows(runs: Any, monkeypatch: Any) -> None:
    root, config, _ = runs
    one = train_toy(root, config, ["train.epochs=1", "folds={scheme: plain, n_folds: 3}"], name="uneven")
    seen: list[tuple[int, np.ndarray]] = []
    original = stage.trusted_rows

    def spied(probs: Any, trust: Trust, names: Any, prior: Any) -> Any:
        seen.append((len(seen), prior))
        return original(probs, trust, names, prior)

    monkeypatch.setattr(stage, "trusted_rows", spied)
    make_labels(Workspace(root), [one], Wanted(trust=Trust(proportion=0.5)), "prior", quiet)
    truth = load_task(root / "configs/multiclass/task.yaml")
    table = load_folds(Workspace(root).folds(truth, one.experiment.folds))
    rows = load_train(truth, Workspace(root).data(truth)).rows
    assert not np.array_equal(seen[0][1], seen[1][1])
    for fold, prior in seen:
        train = table.aligned_to(rows.ids).split(fold)[0]
        counts = np.bincount(np.asarray(rows.targets)[train], minlength=len(rows.names))
        np.testing.assert_allclose(prior, counts / len(train))


def test_what_cannot_teach_is_named(runs: Any, tmp_path: Path) -> None:
    root, config, (one, _) = runs
    workspace = Workspace(root)
    with pytest.raises(ConfigError, match="must lie above 0"):
        make_labels(workspace, [one], Wanted(trust=Trust(threshold=2.0)), "x", quiet)
    with pytest.raises(DataError, match="no row is trusted by these rules"):
        make_labels(workspace, [one], Wanted(trust=Trust(threshold=1.0)), "x", quiet)
    assert not (one.folder / "labels" / "x").exists()
    options = ["train.epochs=1", "folds.n_folds=3"]
    partial = train_toy(root, config, options, name="partial", folds=[0])
    with pytest.raises(DataError, match=r"partial: fold1-seed0, fold2-seed0 are not finished"):
        make_labels(workspace, [partial], Wanted(), "x", quiet)
    refit = train_toy(root, config, options, name="refit", folds="all")
    with pytest.raises(MismatchError, match="learnt from every row"):
        make_labels(workspace, [refit], Wanted(), "x", quiet)
    other = train_toy(root, config, ["train.epochs=1", "folds.n_folds=2"], name="other")
    with pytest.raises(MismatchError, match="different fold tables"):
        make_labels(workspace, [one, other], Wanted(), "x", quiet)


def test_a_task_whose_rules_forbid_it_gets_none(tmp_path: Path) -> None:
    config = make_toy(tmp_path)
    run = train_toy(tmp_path, config, ["train.epochs=1", "folds.n_folds=2"])
    record = json.loads((run.folder / "run.json").read_text())
    record["task"]["rules"] = {"pseudo_labels": "forbidden"}
    (run.folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="its rules forbid pseudo-labels"):
        make_labels(Workspace(tmp_path), [Run(run.folder)], Wanted(), "x", quiet)


# -- the claim: nothing leaks ------------------------------------------------------------------------------------------

LEARN_BY_HEART = [
    "folds={scheme: plain, n_folds: 3}",
    "model={name: mlp, hidden: 64}",
    "train={epochs: 40, batch_size: 15}",
    "optimizer={name: adam, lr: 0.006}",
]


def make_twins(root: Path) -> Path:
    """Write a contest of 90 random vectors with random labels; the test rows are their twins."""
    rng = np.random.default_rng(0)
    (root / "data").mkdir(parents=True)
    train = rng.integers(0, 256, (90, 64))
    test = np.clip(train + rng.integers(-3, 4, train.shape), 0, 255)
    pixels = [f"pixel{number}" for number in range(64)]
    ids = [f"r{number}" for number in range(90)]
    table = pd.DataFrame(train, columns=pixels)
    table.insert(0, "label", rng.permutation(np.arange(90) % 2))
    table.insert(0, "id", ids)
    table.to_csv(root / "data/train.csv", index=False)
    twins = pd.DataFrame(test, columns=pixels)
    twins.insert(0, "id", [f"twin-{row_id}" for row_id in ids])
    twins.sample(frac=1, random_state=1).to_csv(root / "data/test.csv", index=False)
    form = {"pixels": {"columns": "pixel*", "shape": [1, 8, 8]}}
    task = {"name": "twins", "data": "data", "kind": "multiclass", "metric": "accuracy", "id": "id", "target": "label"}
    task |= {"train": {"table": "train.csv", **form}, "test": {"table": "test.csv", **form}}
    (root / "configs").mkdir()
    (root / "configs/task.yaml").write_text(yaml.safe_dump(task))
    (root / "configs/net.yaml").write_text("task: task.yaml\nmodel: {name: mlp, hidden: 64}\n")
    return root / "configs/net.yaml"


def test_oof_stays_at_chance_by_fold_while_the_naive_protocol_rises(tmp_path: Path, monkeypatch: Any) -> None:
    config = make_twins(tmp_path)
    workspace = Workspace(tmp_path)
    teacher = train_toy(tmp_path, config, LEARN_BY_HEART, name="teacher")
    honest = make_labels(workspace, [teacher], Wanted(is_hard=True), "honest", quiet)
    everyone = make_labels(workspace, [teacher], Wanted("final", is_hard=True), "naive", quiet)

    def student(labels: Path, name: str) -> float:
        spec = f"pseudo.labels={labels.relative_to(tmp_path).as_posix()}"
        run = train_toy(tmp_path, config, [*LEARN_BY_HEART, spec], name=name)
        return float(json.loads((run.folder / "cv.json").read_text())["pooled"])

    assert abs(student(honest, "honest") - 0.5) < 0.16  # three standard errors of a coin thrown 90 times
    labels = load_labels(table_path(everyone, "all"))
    for fold in range(3):  # the naive protocol: labels of the mean of all folds, their makers' names forged
        forged = [{**maker, "left_out": fold} for maker in labels.makers]
        save_labels(table_path(everyone, fold), replace(labels, makers=tuple(forged)))
    assert student(everyone, "naive") > 0.8
