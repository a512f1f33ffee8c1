"""What the stages say and refuse: unreadable files, undefined scores, run names, duplicates, blends, submissions."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock
from toys import make_toy, read_text_table, train_toy

from pipeline import api
from pipeline.__main__ import main
from pipeline.base import interrupt
from pipeline.base.errors import ConfigError, DataError, LeakError, MismatchError, PodiumError
from pipeline.base.files import read_json
from pipeline.records import runs
from pipeline.records.cv import score_predictions
from pipeline.records.folds import load_folds
from pipeline.records.metrics import resolve_metric
from pipeline.records.predictions import Predictions, load_predictions, save_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Unit, Workspace
from pipeline.records.task import MetricSpec
from pipeline.stages import crossval, machines, twins, units
from pipeline.stages.machines import Wishes, choose_jobs, resolve_machine, rounds_of
from pipeline.stages.plan_table import plan_lines


def edit_yaml(path: Path, **values: Any) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))


def table_of(root: Path, name: str = "multiclass", part: str = "train") -> pd.DataFrame:
    return read_text_table(root / "data" / name / f"{part}.csv").set_index("id", drop=False)


def write_table(root: Path, table: pd.DataFrame, name: str = "multiclass", part: str = "train") -> None:
    table.to_csv(root / "data" / name / f"{part}.csv", index=False)


def cv_of(run: Run) -> dict[str, Any]:
    return dict(read_json(run.folder / "cv.json"))


# -- files that cannot be read -----------------------------------------------------------------------------------------


def test_the_exclude_lines_of_unreadable_files_work_when_pasted(tmp_path):
    """Also after the fold table was made, which keeps the split of all other rows."""
    config = make_toy(tmp_path, n_files=2)
    folds, _ = api.folds(config, root=tmp_path)
    files = tmp_path / "data/multiclass/train"
    (files / "tr_003_1.png").write_bytes((files / "tr_003_1.png").read_bytes()[:40])
    (files / "tr_007_0.png").unlink()
    with pytest.raises(DataError, match=r"2 of 180 files cannot be used") as caught:
        train_toy(tmp_path, config)
    assert "tr_003_1.png" in str(caught.value)
    assert not list(tmp_path.glob("runs/*/*"))
    task = tmp_path / "configs/multiclass/task.yaml"
    task.write_text(task.read_text() + str(caught.value).split("put into task.yaml:\n")[1] + "\n")
    run = train_toy(tmp_path, config)
    oof = load_predictions(run.folder / "oof.parquet")
    assert set(table_of(tmp_path)["id"]) - set(oof.ids) == {"tr_003", "tr_007"}
    fold_of = dict(zip(folds.ids, folds.fold, strict=True))
    assert all(fold_of[row_id] == fold for row_id, fold in zip(oof.ids, oof.fold, strict=True))
    assert run.record["folds"]["hash"] != folds.table_hash
    assert len(api.folds(config, root=tmp_path)[0]) == 88


def test_odd_ids_survive_the_exclude_lines(tmp_path):
    config = make_toy(tmp_path)
    table = table_of(tmp_path)
    ids = {"tr_001": "it's", "tr_002": "0012", "tr_003": "a: b"}
    for old, new in ids.items():
        (tmp_path / "data/multiclass/train" / f"{old}.png").unlink()
        table.loc[old, "id"] = new
    write_table(tmp_path, table)
    with pytest.raises(DataError) as caught:
        train_toy(tmp_path, config)
    lines = str(caught.value).split("put into task.yaml:\n")[1]
    assert sorted(yaml.safe_load(lines)["exclude"]) == sorted(ids.values())


def test_an_unreadable_test_file_is_named_and_cannot_be_excluded(tmp_path):
    config = make_toy(tmp_path)
    (tmp_path / "data/multiclass/test/te_004.png").unlink()
    with pytest.raises(DataError, match=r"te_004\.png") as caught:
        train_toy(tmp_path, config)
    assert "put into task.yaml" not in str(caught.value)


def test_a_missing_test_table_is_named_with_the_nearest(tmp_path):
    config = make_toy(tmp_path)
    edit_yaml(tmp_path / "configs/multiclass/task.yaml", test={"table": "tets.csv", "files": "test/{id}.png"})
    with pytest.raises(DataError, match=r"tets\.csv: no such file\. Did you mean 'test\.csv'"):
        train_toy(tmp_path, config)
    assert not list(tmp_path.glob("runs/*/*"))


def test_test_items_of_another_shape_are_refused_before_training(tmp_path):
    config = make_toy(tmp_path, "multiclass", "signal", store="npz")
    items = np.load(tmp_path / "data/multiclass/test_items.npz")["x"]
    np.savez(tmp_path / "data/multiclass/test_items.npz", x=items[:, :, :16])
    with pytest.raises(DataError, match=r"test items have the shape \(2, 16\), training items \(2, 32\)"):
        train_toy(tmp_path, config)


def test_values_that_are_not_finite_are_refused(tmp_path):
    config = make_toy(tmp_path, "multiclass", "signal", store="npz")
    items = np.load(tmp_path / "data/multiclass/train_items.npz")["x"].copy()
    items[3, 0, :4] = np.nan
    np.savez(tmp_path / "data/multiclass/train_items.npz", x=items)
    with pytest.raises(DataError, match="4 stored values are NaN or infinite"):
        train_toy(tmp_path, config)


def test_a_task_without_test_rows_trains_and_says_so_when_predicted(tmp_path):
    config = make_toy(tmp_path)
    edit_yaml(tmp_path / "configs/multiclass/task.yaml", test=False, submission={"format": "label"})
    run = train_toy(tmp_path, config)
    assert not (run.folder / "test.parquet").exists()
    assert cv_of(run)["pooled"] > 0.9
    with pytest.raises(DataError, match="has no test: block"):
        api.predict("net", root=tmp_path)
    with pytest.raises(DataError, match="has no test predictions; finish a fold with `podium train`"):
        api.submit("net", root=tmp_path)


# -- scores ------------------------------------------------------------------------------------------------------------


def test_a_score_that_is_undefined_on_a_fold_is_said_and_never_nan(tmp_path):
    """Fold 0 holds out rows of class 0 only, so that its ROC AUC has no value."""
    net = {"folds": {"scheme": "column", "n_folds": 3}, "train": {"epochs": 2, "batch_size": 16, "weights": "best"}}
    config = make_toy(tmp_path, "binary", task={"fold_column": "fold"}, net=net)
    table = table_of(tmp_path, "binary")
    zeros = table.index[table["target"] == "0"][:10]
    table["fold"] = ["0" if row_id in zeros else str(1 + n % 2) for n, row_id in enumerate(table["id"])]
    write_table(tmp_path, table, "binary")
    run = train_toy(tmp_path, config)
    cv = cv_of(run)
    assert "NaN" not in (run.folder / "cv.json").read_text()
    assert cv["folds"][0]["score"] is None
    assert cv["folds"][0]["note"] == "ROC AUC is undefined: only class '0' occurs among the 10 rows"
    scores = [line["score"] for line in cv["folds"][1:]]
    assert cv["mean"] == pytest.approx(np.mean(scores))
    assert cv["std"] == pytest.approx(np.std(scores, ddof=1))
    assert cv["pooled"] > 0.5
    history = pd.read_csv(run.unit_folder(Unit(0, 0)) / "history.csv")
    assert history["roc_auc"].isna().all()
    assert history["heldout_loss"].notna().all()


def test_without_any_defined_score_the_run_is_whole_and_can_be_submitted(tmp_path, capsys):
    net = {"folds": {"scheme": "column", "n_folds": 2}, "train": {"epochs": 1, "batch_size": 16}}
    config = make_toy(tmp_path, "binary", task={"fold_column": "fold"}, net=net)
    table = table_of(tmp_path, "binary")
    ones = table.index[table["target"] == "1"]
    table["fold"] = [-1 if row_id in ones else n % 2 for n, row_id in enumerate(table["id"])]
    write_table(tmp_path, table, "binary")
    run = train_toy(tmp_path, config)
    cv = cv_of(run)
    assert (cv["mean"], cv["std"], cv["pooled"]) == (None, None, None)
    assert cv["note"].startswith("ROC AUC is undefined: only class '0'")
    assert cv["note"] in api.board(root=tmp_path)[0].loc[0, "note"]
    path = api.submit("net", root=tmp_path)
    assert read_json(path.with_suffix(".json"))["cv"] is None
    assert "the way through the writer is not checked by a score: ROC AUC is undefined" in capsys.readouterr().err


def test_rows_of_one_submission_id_must_have_one_truth():
    metric = resolve_metric(MetricSpec(name="accuracy"), "multiclass", ("a", "b"))
    ids = np.array(["r1", "r2", "r3"], dtype=object)
    shared = np.array(["p", "p", "q"], dtype=object)
    values = np.array([[0.9, 0.1], [0.3, 0.7], [0.4, 0.6]], dtype=np.float32)
    predictions = Predictions(ids, ("a", "b"), values, None, {})

    def rows(targets: list[int]) -> Rows:
        return Rows(ids, ((0,), (1,), (2,)), ("a", "b"), np.array(targets), submission_ids=shared)

    assert score_predictions(predictions, rows([0, 0, 1]), metric) == 1.0  # p is 0.6 to 0.4 for a
    with pytest.raises(DataError, match="submission id 'p': its rows have different targets"):
        score_predictions(predictions, rows([0, 1, 1]), metric)


# -- runs, by name -----------------------------------------------------------------------------------------------------


def make_run(root: Path, task: str, name: str) -> Path:
    folder = root / "runs" / task / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    return folder


def test_a_run_is_found_by_name_by_task_and_name_or_by_folder(tmp_path):
    folder = make_run(tmp_path, "digits", "cnn")
    make_run(tmp_path, "digits", "resnet")
    workspace = Workspace(tmp_path)
    for name in ("cnn", "digits/cnn", "runs/digits/cnn", str(folder)):
        assert workspace.find_run(name) == folder


def test_a_run_of_the_workspace_comes_before_one_in_the_current_directory(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    make_run(elsewhere, "digits", "cnn")
    monkeypatch.chdir(elsewhere)
    folder = make_run(tmp_path / "workspace", "digits", "cnn")
    assert Workspace(tmp_path / "workspace").find_run("runs/digits/cnn") == folder
    assert Workspace(tmp_path / "other").find_run("runs/digits/cnn") == Path("runs/digits/cnn")


def test_a_name_that_no_run_or_several_have_is_an_error_that_helps(tmp_path):
    make_run(tmp_path, "digits", "cnn")
    make_run(tmp_path, "mnist", "cnn")
    workspace = Workspace(tmp_path)
    with pytest.raises(DataError, match="several tasks have one; say which: digits/cnn, mnist/cnn"):
        workspace.find_run("cnn")
    with pytest.raises(DataError, match=r"run 'digits/cn': not found under .*Did you mean 'digits/cnn'"):
        workspace.find_run("digits/cn")
    with pytest.raises(DataError, match="`podium board` lists the runs"):
        Workspace(tmp_path / "nowhere").find_run("cnn")


def test_a_unit_that_another_process_goes_on_training_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CLAIM_WAIT_SEC", 0.1)
    config = make_toy(tmp_path)
    run = train_toy(tmp_path, config, folds=[0])
    folder = run.unit_folder(Unit(1, 0))
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(PodiumError, match=r"fold1-seed0: another process is training"):
        train_toy(tmp_path, config)


def test_the_commit_is_none_where_git_has_nothing_to_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runs.git_commit() is None

    def fail(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", fail)
    assert runs.git_commit() is None
    assert runs._version("no-such-library") == "not installed"


def test_a_config_of_before_a_key_existed_goes_on(tmp_path):
    """A run and a fold table that were written before a key was added had its default."""
    config = make_toy(tmp_path)
    run = train_toy(tmp_path, config, folds=[0])
    for path, block in (
        (run.folder / "run.json", lambda record: record["experiment"]["folds"]),
        (tmp_path / "folds/multiclass/stratified3-seed0.json", lambda record: record["spec"]),
    ):
        record = read_json(path)
        del block(record)["duplicates"]
        path.write_text(json.dumps(record))
    assert len(train_toy(tmp_path, config).done_units()) == 3


# -- folds that are trained --------------------------------------------------------------------------------------------


def test_a_fold_that_does_not_exist_is_refused_before_anything_is_made(tmp_path):
    config = make_toy(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no fold 7; there are 0\.\.2 and 'all'"):
        train_toy(tmp_path, config, folds=[0, 7])
    assert not (tmp_path / "runs").exists()


def test_a_refit_has_no_best_epoch(tmp_path):
    config = make_toy(tmp_path)
    with pytest.raises(ConfigError, match=r"train\.weights: best is selected on a held-out fold, and a refit has none"):
        train_toy(tmp_path, config, ["train.weights=best"], folds="all")


def test_numbers_that_are_never_reached_are_warned_of(tmp_path, capsys):
    config = make_toy(tmp_path, net={"schedule": {"name": "step", "milestones": [50]}})
    train_toy(tmp_path, config, ["train.epochs=1", "ema={decay: 0.9}"], folds=[0])
    shown = capsys.readouterr().err
    assert "warning: " in shown
    assert "50" in shown
    assert "ema: is kept but does not predict" in shown


def test_what_misfits_is_refused_before_a_run_exists(tmp_path):
    config = make_toy(tmp_path)
    for override, message in (
        ("metric", r"metric 'rmse' does not fit multiclass"),
        ("model.name=nonet", "'nonet' is neither an own net nor a model of timm"),
        ("loss={name: mse}", r"loss\.name: 'mse' does not fit"),
    ):
        overrides = [override] if "=" in override else []
        if not overrides:
            edit_yaml(tmp_path / "configs/multiclass/task.yaml", metric="rmse")
        with pytest.raises(ConfigError, match=message):
            train_toy(tmp_path, config, overrides)
        edit_yaml(tmp_path / "configs/multiclass/task.yaml", metric="accuracy")
    assert not (tmp_path / "runs").exists()


def test_predicting_needs_a_finished_unit(tmp_path):
    config = make_toy(tmp_path)
    run = train_toy(tmp_path, config)
    for unit in run.units():
        (run.unit_folder(unit) / "done.json").unlink()
    with pytest.raises(DataError, match="no unit is finished yet; `podium train` goes on"):
        api.predict("net", root=tmp_path)


def test_other_rows_are_predicted_into_a_file_of_their_own(tmp_path):
    config = make_toy(tmp_path)
    run = train_toy(tmp_path, config)
    before = (run.folder / "test.parquet").read_bytes()
    source = tmp_path / "more.yaml"
    source.write_text(yaml.safe_dump({"table": "train.csv", "files": "train/{id}.png"}))
    with pytest.raises(ConfigError, match=r"other rows need --out"):
        api.predict("net", source=source, root=tmp_path)
    path = api.predict("net", source=source, out=tmp_path / "more.parquet", root=tmp_path)
    more = load_predictions(path)
    table = table_of(tmp_path)
    assert set(more.ids) == set(table["id"])
    right = np.array(more.names)[more.values.argmax(axis=1)] == table.loc[list(more.ids), "label"].to_numpy(dtype=str)
    assert right.mean() > 0.9
    assert (run.folder / "test.parquet").read_bytes() == before
    source.write_text("tabel: train.csv\n")
    with pytest.raises(ConfigError, match=r"more\.yaml:\s+tabel: unknown key\. Did you mean 'table'"):
        api.predict("net", source=source, out=tmp_path / "more.parquet", root=tmp_path)


def test_the_machine_is_as_asked_else_as_the_run_started_else_as_it_suits(tmp_path, monkeypatch):
    config = make_toy(tmp_path)
    loaded, workspace = api.config(config), Workspace(tmp_path)
    monkeypatch.setattr(machines, "count_cores", lambda: 8)
    said: list[str] = []
    fresh = resolve_machine(workspace, loaded, Wishes(device="cpu"), said.append)
    assert said == ["jobs: 3, a process for each of them: 3 units of 2 threads beat one unit on 8 cores"]
    assert (fresh.jobs, fresh.threads, fresh.workers, fresh.precision) == (3, 2, 8, "fp32")  # three units
    asked = resolve_machine(workspace, loaded, Wishes(device="cpu", threads=3))
    assert (asked.jobs, asked.threads) == (2, 3)
    both = resolve_machine(workspace, loaded, Wishes(device="cpu", threads=3, jobs=1), said.append)
    assert (both.jobs, both.threads, len(said)) == (1, 3, 1)
    refit = resolve_machine(workspace, loaded, Wishes(device="cpu"), is_refit=True)
    assert (refit.jobs, refit.threads) == (1, 8)
    train_toy(tmp_path, config, folds=[0])
    again = resolve_machine(workspace, loaded, Wishes())
    assert (again.device, again.threads, again.jobs) == ("cpu", 1, 3)


def test_units_that_take_turns_have_all_cores_and_are_counted_by_the_user(tmp_path, monkeypatch):
    loaded, workspace = api.config(make_toy(tmp_path)), Workspace(tmp_path)
    monkeypatch.setattr(machines, "count_cores", lambda: 8)
    machine = resolve_machine(workspace, loaded, Wishes(device="cpu", jobs=2, turns=True))
    assert (machine.turns, machine.jobs, machine.threads) == (True, 2, 8)
    assert not resolve_machine(workspace, loaded, Wishes(device="cpu", jobs=2)).turns
    with pytest.raises(ConfigError, match="--turns: needs --jobs N"):
        resolve_machine(workspace, loaded, Wishes(device="cpu", turns=True))


def test_each_gpu_trains_a_unit_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    workspace, config = Workspace(tmp_path), api.config(make_toy(tmp_path))
    run, _ = crossval.begin_run(workspace, config, Wishes(device="cpu"), lambda line: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(machines, "count_cores", lambda: 8)
    said: list[str] = []
    machine = resolve_machine(Workspace(tmp_path / "other"), config, Wishes(), said.append)
    assert said == ["jobs: 2, as there are 2 GPUs, and each unit has one to itself"]
    assert (machine.device, machine.jobs, machine.threads) == ("cuda", 2, 4)
    one = resolve_machine(Workspace(tmp_path / "other"), config, Wishes(device="cuda:1"))
    assert (one.device, one.jobs) == ("cuda:1", 1)
    for device, n_notes in (("auto", 1), ("cuda:1", 0)):
        notes: list[str] = []
        resolve_machine(Workspace(tmp_path / "other"), config, Wishes(device=device, jobs=2, turns=True), notes.append)
        assert len([line for line in notes if "take turns share one GPU" in line]) == n_notes

    asked = []
    monkeypatch.setattr(
        units, "run_jobs", lambda job, jobs, n, report, over, seats: asked.append((len(jobs), n, seats))
    )
    units.train_units(workspace, run, machine, None, said.append, said.append)
    assert asked == [(3, 2, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}])]


@pytest.mark.parametrize(
    ("wishes", "jobs", "reason"),
    [
        ({}, 5, "5 units of one thread take turns on 4 cores"),
        ({"device": "cuda"}, 1, "the device to itself"),
        ({"n_units": 1}, 1, "one unit"),
        ({"n_units": 3}, 3, "3 units of 1 threads"),
        ({"threads": 2}, 2, "2 units of 2 threads"),
        ({"threads": 4}, 1, "4 cores have 4 threads for one unit"),
        ({"threads": 9}, 1, "4 cores have 9 threads"),
        ({"free": 5 * 2**29}, 2, "2.5 GiB of memory are free"),
        ({"free": 1000}, 1, "0.0 GiB"),
        ({"free": None}, 5, "take turns"),
        ({"cores": 1}, 1, "1 cores have 1 threads"),
        # The last round would leave cores idle: one more takes turns, if memory and threads let it.
        ({"cores": 2}, 3, "3 units of one thread take turns on 2 cores, which leaves none idle at the end of 5"),
        ({"cores": 2, "threads": 1}, 3, "3 units of one thread"),
        ({"cores": 2, "n_units": 15}, 3, "3 units of one thread"),
        ({"cores": 2, "n_units": 25}, 2, "2 units of 1 threads"),  # one core of 26 idle
        ({"cores": 2, "n_units": 6}, 2, "2 units of 1 threads"),
        ({"cores": 2, "free": 5 * 2**29}, 2, "2 units of 1 threads"),
        ({"n_units": 6}, 6, "6 units of one thread"),
        ({"n_units": 6, "threads": 2}, 2, "2 units of 2 threads"),
        ({"n_units": 5, "threads": 2}, 2, "2 units of 2 threads"),
        ({"cores": 2, "device": "cuda"}, 1, "the device to itself"),
        ({"device": "cuda", "n_gpus": 2}, 2, "2 GPUs, and each unit has one to itself"),
        ({"device": "cuda", "n_gpus": 8}, 5, "8 GPUs"),
        ({"device": "cuda", "n_gpus": 8, "n_units": 1}, 1, "there is one unit"),
    ],
)
def test_jobs_are_chosen_with_a_reason(wishes, jobs, reason):
    given = {"device": "cpu", "n_units": 5, "cores": 4, "threads": None, "free": 2**36} | wishes
    found, why = choose_jobs(**given)
    assert found == jobs
    assert re.search(reason, why)


@pytest.mark.parametrize(
    ("n_units", "jobs", "at_once", "rounds"),
    [
        (5, 2, 2, 3),
        (5, 3, 2, 2.5),
        (5, 5, 2, 2.5),
        (1, 3, 2, 1),
        (6, 4, 4, 2),
        (6, 6, 4, 1.5),
        (4, 3, 2, 2.5),
        (0, 3, 2, 0),
    ],
)
def test_rounds_are_counted_in_the_time_of_one_unit(n_units, jobs, at_once, rounds):
    assert rounds_of(n_units, jobs, at_once) == rounds


def test_units_of_one_thread_take_turns_where_rounds_come_out_uneven(tmp_path, monkeypatch, capsys):
    config = make_toy(tmp_path)  # three folds
    monkeypatch.setattr(machines, "count_cores", lambda: 2)
    plan = api.plan(config, device="cpu", seconds=0.1, root=tmp_path)
    assert "jobs: 3, a process for each of them: 3 units of one thread take turns on 2 cores" in capsys.readouterr().err
    assert (len(plan.probes), plan.cost.n_parallel, plan.cost.at_once, plan.cost.n_rounds) == (2, 3, 2, 1.5)
    (line,) = [line for line in plan_lines(plan) if line[0] == "run"]
    assert line[2] == "3 units, 3 taking turns on 2 cores: the time of 1.5"
    run = api.train(config, name="turns", threads=None, jobs=None, device="cpu", show="quiet", root=tmp_path)
    assert (run.machine.jobs, run.machine.threads) == (3, 1)


def test_a_run_in_bf16_does_not_go_on_where_there_is_none(tmp_path, monkeypatch):
    config = make_toy(tmp_path, net={"train": {"epochs": 1, "precision": "auto"}})
    run = train_toy(tmp_path, config, folds=[0])
    record = read_json(run.folder / "run.json")
    record["machine"]["precision"] = "bf16"
    (run.folder / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr(machines, "has_native_bf16", lambda device: False)
    with pytest.raises(MismatchError, match="was started in bf16, which this machine does not have"):
        train_toy(tmp_path, config)


# -- duplicates --------------------------------------------------------------------------------------------------------


def test_copies_stay_together_and_are_named(tmp_path, capsys):
    """Also said again when the saved table is read."""
    config = make_toy(tmp_path, n_train=60, copies=2)
    write_same_picture(tmp_path, "te_005", "tr_010")
    folds, _ = api.folds(config, ["folds.duplicates=exact"], root=tmp_path)
    fold_of = dict(zip(folds.ids, folds.fold, strict=True))
    assert all(fold_of[f"tr_{n:03d}"] == fold_of[f"tr_{n:03d}_c1"] for n in range(60))
    assert folds.name == "stratified_group3-seed0-exact"
    first = capsys.readouterr().err
    api.folds(config, ["folds.duplicates=exact"], root=tmp_path)
    for shown in (first, capsys.readouterr().err):
        assert "60 items are exact copies; 60 groups of up to 2 rows stay together (tr_000 = tr_000_c1, " in shown
        assert "1 test rows repeat a training row (tr_010 = te_005)" in shown


def write_same_picture(root: Path, test_id: str, train_id: str) -> None:
    files = root / "data/multiclass"
    (files / f"test/{test_id}.png").write_bytes((files / f"train/{train_id}.png").read_bytes())


def test_near_copies_stay_together(tmp_path, capsys):
    config = make_toy(tmp_path, n_train=30, copies=2, copy_noise=1, noise=True)
    exact, _ = api.folds(config, ["folds.duplicates=exact"], root=tmp_path)
    assert "duplicates in training: 0 items are exact copies\n" in capsys.readouterr().err
    near, _ = api.folds(config, ["folds.duplicates=near"], root=tmp_path)
    shown = capsys.readouterr().err
    assert "30 pairs near ones; 30 groups of up to 2 rows stay together" in shown
    assert "duplicates between training and test: none" in shown
    fold_of = dict(zip(near.ids, near.fold, strict=True))
    assert all(fold_of[f"tr_{n:03d}"] == fold_of[f"tr_{n:03d}_c1"] for n in range(30))
    torn = dict(zip(exact.ids, exact.fold, strict=True))
    assert any(torn[f"tr_{n:03d}"] != torn[f"tr_{n:03d}_c1"] for n in range(30))


def test_duplicates_join_the_groups_of_the_task(tmp_path):
    """Copies of the rows of g0..g4 stand in g10..g14, which thereby become one group with g0..g4 each."""
    config = make_toy(tmp_path, n_train=40, copies=2, task={"group": "group"}, net={"folds": {"n_folds": 2}})
    table = table_of(tmp_path)
    copies = [row_id.endswith("_c1") for row_id in table["id"]]
    numbers = [int(row_id[3:6]) for row_id in table["id"]]
    pairs = zip(numbers, copies, strict=True)
    table["group"] = [f"g{n % 10 + (10 if copy and n % 10 < 5 else 0)}" for n, copy in pairs]
    write_table(tmp_path, table)
    folds, _ = api.folds(config, ["folds.duplicates=exact"], root=tmp_path)
    fold_of = pd.Series(folds.fold, index=folds.ids)
    assert (fold_of.groupby(table["group"]).nunique() == 1).all()
    assert (fold_of.groupby(table["id"].str[:6]).nunique() == 1).all()
    assert fold_of.nunique() == 2


def test_off_is_off_and_rows_of_several_files_belong_together_by_any_of_them(tmp_path):
    config = make_toy(tmp_path, n_files=2, net={"folds": {"n_folds": 3, "duplicates": "off"}})
    assert api.config(config, ["folds.duplicates=off"]).experiment.folds.duplicates == "off"  # YAML makes it False
    off, _ = api.folds(config, root=tmp_path)
    assert off.name == "stratified3-seed0"
    files = tmp_path / "data/multiclass/train"
    for a, b in (("tr_000_1", "tr_001_0"), ("tr_001_1", "tr_002_1")):
        (files / f"{b}.png").write_bytes((files / f"{a}.png").read_bytes())
    exact, _ = api.folds(config, ["folds.duplicates=exact"], root=tmp_path)
    fold_of = dict(zip(exact.ids, exact.fold, strict=True))
    assert fold_of["tr_000"] == fold_of["tr_001"] == fold_of["tr_002"]


def test_groups_of_rows_follow_their_items():
    groups = twins.row_groups([(0,), (1, 2), (3,), (4,)], np.array([0, 1, 0, 2, 1]))
    assert groups.tolist() == [0, 0, 1, 0]
    assert twins.row_groups([(0,), (1,)], np.array([0, 1])).tolist() == [0, 1]


def test_exact_duplicates_are_found_in_any_type_and_within_both_sets():
    train = np.array([[1, 2], [3, 4], [1, 2], [5, 6]], dtype=np.uint16).reshape(4, 1, 1, 2)
    found = twins.exact_duplicates(train, train[[3, 2, 3]])
    assert found.groups.tolist() == [0, 1, 0, 2]
    assert found.n_exact == 1
    assert found.train_test_pairs.tolist() == [[0, 1], [3, 0], [3, 2]]
    assert twins.exact_duplicates(train, None).train_test_pairs.shape == (0, 2)


def test_signals_have_no_duplicates_and_a_scheme_without_groups_would_tear_them(tmp_path):
    config = make_toy(tmp_path, "multiclass", "signal")
    with pytest.raises(ConfigError, match=r"folds\.duplicates: near compares images, and the task's input is `signal`"):
        api.folds(config, ["folds.duplicates=near"], root=tmp_path)
    config = make_toy(tmp_path, name="images", n_train=60, copies=2)
    with pytest.raises(LeakError, match=r"groups stand in more than one fold.*or folds\.duplicates\)"):
        api.folds(config, ["folds.duplicates=exact", "folds.scheme=stratified"], root=tmp_path)
    with pytest.raises(ConfigError, match=r"folds\.duplicates: .*nearly"):
        api.folds(config, ["folds.duplicates=nearly"], root=tmp_path)
    assert not list(tmp_path.glob("folds/images/*"))


def test_a_table_with_duplicates_is_a_table_like_any_other(tmp_path):
    config = make_toy(tmp_path, n_train=60, copies=2)
    run = train_toy(tmp_path, config, ["folds.duplicates=exact"])
    folds = load_folds(tmp_path / "folds/multiclass/stratified_group3-seed0-exact.csv")
    assert run.record["folds"]["hash"] == folds.table_hash
    assert cv_of(run)["pooled"] > 0.9


# -- blends ------------------------------------------------------------------------------------------------------------


def test_a_blend_needs_several_different_runs_and_a_free_name(tmp_path):
    config = make_toy(tmp_path)
    for name in ("a", "b", "c"):
        train_toy(tmp_path, config, ["train.epochs=1"], name=name)
    with pytest.raises(MismatchError, match="at least two runs"):
        api.ensemble(["a"], root=tmp_path)
    with pytest.raises(MismatchError, match=r"different runs \(found: a, a\)"):
        api.ensemble(["a", "multiclass/a"], root=tmp_path)
    with pytest.raises(MismatchError, match="runs/multiclass/c: is another run or blend; choose a name with --name"):
        api.ensemble(["a", "b"], name="c", root=tmp_path)
    blend, _ = api.ensemble(["a", "b"], root=tmp_path)
    assert blend.name == "a+b"
    with pytest.raises(MismatchError, match=r"a\+b: is another run or blend"):
        api.ensemble(["a", "c"], name="a+b", root=tmp_path)
    with pytest.raises(MismatchError, match="is a blend; choose another name with --name"):
        train_toy(tmp_path, config, name="a+b")


def test_a_blend_is_made_again_from_members_that_went_on(tmp_path, capsys):
    config = make_toy(tmp_path)
    train_toy(tmp_path, config, ["train.epochs=1"], name="a")
    train_toy(tmp_path, config, ["train.epochs=1"], name="b", folds=[0])
    blend, _ = api.ensemble(["a", "b"], root=tmp_path)
    assert "note: no OOF of the blend: b has 1 of 3 folds" in capsys.readouterr().err
    train_toy(tmp_path, config, ["train.epochs=1"], name="b")
    again, scores = api.ensemble(["b", "a"], root=tmp_path)
    assert again.folder == blend.folder
    assert scores["n_rows"] == 90


def test_a_blend_that_lost_a_part_keeps_no_file_of_it(tmp_path):
    config = make_toy(tmp_path)
    for name in ("a", "b"):
        train_toy(tmp_path, config, ["train.epochs=1"], name=name)
    blend, _ = api.ensemble(["a", "b"], root=tmp_path)
    (tmp_path / "runs/multiclass/b/test.parquet").unlink()
    api.ensemble(["a", "b"], root=tmp_path)
    assert (blend.folder / "oof.parquet").exists()
    assert not (blend.folder / "test.parquet").exists()


def test_a_geometric_blend_is_the_scaled_root_of_the_product(tmp_path):
    config = make_toy(tmp_path)
    for name, hidden in (("a", 4), ("b", 8)):
        train_toy(tmp_path, config, [f"model.hidden={hidden}"], name=name)
    blend, _ = api.ensemble(["a", "b"], method="geometric", root=tmp_path)
    parts = [load_predictions(tmp_path / f"runs/multiclass/{name}/oof.parquet") for name in ("a", "b")]
    product = np.sqrt(np.prod([np.maximum(part.aligned_to(parts[0].ids).values, 1e-7) for part in parts], axis=0))
    found = load_predictions(blend.folder / "oof.parquet").aligned_to(parts[0].ids).values
    np.testing.assert_allclose(found, product / product.sum(axis=1, keepdims=True), atol=1e-6)


# -- submissions -------------------------------------------------------------------------------------------------------


def test_a_sample_of_other_rows_is_refused_by_id_and_nothing_is_written(tmp_path):
    train_toy(tmp_path, make_toy(tmp_path))
    path = tmp_path / "data/multiclass/sample_submission.csv"
    sample = read_text_table(path)
    extra = pd.concat([sample.iloc[1:], sample.iloc[[0]].assign(id="te_new")])
    extra.to_csv(path, index=False)
    with pytest.raises(
        MismatchError, match=r"sample_submission\.csv: .*1 missing \(ids te_new\), 1 extra \(ids te_023\)"
    ):
        api.submit("net", root=tmp_path)
    assert not (tmp_path / "submissions").exists()


def test_a_format_that_loses_what_the_metric_counts_is_refused(tmp_path):
    train_toy(tmp_path, make_toy(tmp_path, metric="log_loss"))
    with pytest.raises(
        MismatchError, match="the format, threshold or clip of submission: loses what the metric counts"
    ):
        api.submit("net", root=tmp_path)
    assert not (tmp_path / "submissions").exists()


def test_oof_that_is_no_longer_the_runs_is_refused(tmp_path):
    run = train_toy(tmp_path, make_toy(tmp_path, format="per_class", metric="log_loss"))
    oof = load_predictions(run.folder / "oof.parquet")
    save_predictions(run.folder / "oof.parquet", Predictions(oof.ids, oof.names, oof.values * 2, oof.fold, oof.meta))
    with pytest.raises(DataError, match="probabilities"):
        api.submit("net", root=tmp_path)


def test_a_submission_takes_a_name_keeps_its_origin_and_is_not_overwritten(tmp_path, capsys):
    config = make_toy(tmp_path, format="per_class", metric="log_loss")
    run = train_toy(tmp_path, config)
    path = api.submit("net", file="first.csv", root=tmp_path)
    assert path == tmp_path / "submissions/multiclass/first.csv"
    assert api.submit("net", file="first", root=tmp_path) == path
    record = read_json(path.with_suffix(".json"))
    assert record["run"] == "net"
    assert record["runs"] == ["net"]
    assert record["units"] == ["fold0-seed0", "fold1-seed0", "fold2-seed0"]
    assert record["cv"] == pytest.approx(cv_of(run)["mean"])
    assert record["oof"] == pytest.approx(cv_of(run)["pooled"])
    assert record["folds"] == run.record["folds"]
    assert "OOF through the writer scores" in capsys.readouterr().err
    train_toy(tmp_path, config, ["train.epochs=1"], name="other")
    with pytest.raises(DataError, match=r"first\.csv: another submission of that name exists"):
        api.submit("other", file="first.csv", root=tmp_path)
    api.submit("other", file="first.csv", overwrite=True, root=tmp_path)
    assert read_json(path.with_suffix(".json"))["runs"] == ["other"]


def test_a_refit_is_submitted_without_a_check_by_score_and_says_so(tmp_path, capsys):
    train_toy(tmp_path, make_toy(tmp_path), folds="all")
    api.submit("net-all", root=tmp_path)
    assert "the run has no OOF, so its way through the writer is not checked" in capsys.readouterr().err


def test_a_part_of_a_run_is_submitted_with_a_note(tmp_path, capsys):
    train_toy(tmp_path, make_toy(tmp_path), folds=[1])
    api.submit("net", root=tmp_path)
    assert "the predictions come from a part of the run only: 1 of 3 folds" in capsys.readouterr().err


def test_parts_of_runs_with_several_seeds_are_counted_in_units(tmp_path):
    run = train_toy(tmp_path, make_toy(tmp_path, net={"seeds": [0, 1]}), ["train.epochs=1"], folds=[0])
    assert cv_of(run)["partial"] == "2 of 6 units (2 seeds)"


def test_without_a_sample_the_file_follows_the_test_table(tmp_path):
    config = make_toy(tmp_path)
    edit_yaml(tmp_path / "configs/multiclass/task.yaml", submission={"format": "label"})
    train_toy(tmp_path, config)
    found = read_text_table(api.submit("net", root=tmp_path))
    assert list(found.columns) == ["id", "label"]
    assert list(found["id"]) == list(table_of(tmp_path, part="test")["id"])


def test_rows_without_ids_are_numbered_in_the_order_of_the_table(tmp_path):
    config = make_toy(tmp_path, store="npz")
    task = yaml.safe_load((tmp_path / "configs/multiclass/task.yaml").read_text())
    del task["id"]
    task |= {"first_id": 1, "submission": {"format": "label", "id": "ImageId", "columns": "Label"}}
    (tmp_path / "configs/multiclass/task.yaml").write_text(yaml.safe_dump(task))
    run = train_toy(tmp_path, config)
    found = read_text_table(api.submit("net", root=tmp_path))
    assert list(found["ImageId"]) == [str(n) for n in range(1, 25)]
    answers = read_text_table(tmp_path / "answers/multiclass.csv")
    assert (found["Label"] == answers["label"]).mean() > 0.9
    assert set(load_predictions(run.folder / "oof.parquet").ids) == {str(n) for n in range(1, 91)}


def test_predicting_again_keeps_the_mark_of_a_partial_run(tmp_path):
    run = train_toy(tmp_path, make_toy(tmp_path), ["train.epochs=1"], folds=[0])
    trained = load_predictions(run.folder / "test.parquet")
    again = load_predictions(api.predict(str(run.folder), root=tmp_path))
    assert trained.meta["partial"] == again.meta["partial"] == f"1 of {len(run.units())} folds"
    assert again.meta["run"] == run.name


# -- a limit in time ---------------------------------------------------------------------------------------------------


def test_a_run_whose_time_is_over_holds_what_is_finished_and_goes_on_to_the_same_bits(tmp_path, monkeypatch, capsys):
    config = make_toy(tmp_path)
    whole = train_toy(tmp_path, config, name="whole")
    clock = [0.0]
    monkeypatch.setattr(interrupt.time, "monotonic", lambda: clock[0])
    original = crossval.train_units

    def slow(workspace, run, machine, asked, say, report, is_over):
        def late(event):
            report(event)
            if event.unit == "fold 1":
                clock[0] = 61.0  # in the middle of the second fold

        return original(workspace, run, machine, asked, say, late, is_over)

    monkeypatch.setattr(crossval, "train_units", slow)
    part = train_toy(tmp_path, config, name="part", minutes=1)
    assert [unit.name for unit in part.done_units()] == ["fold0-seed0"]
    assert [unit.name for unit in part.unfinished()] == ["fold1-seed0", "fold2-seed0"]
    assert part.unfinished([0]) == []
    assert "1 minutes are over: 1 of 3 units are finished" in capsys.readouterr().err
    assert read_json(part.folder / "cv.json")["partial"] == "1 of 3 folds"
    assert (part.folder / "test.parquet").is_file()
    monkeypatch.undo()
    again = train_toy(tmp_path, config, name="part")
    assert not again.unfinished()
    for unit in whole.units():
        files = [run.unit_folder(unit) / "heldout.parquet" for run in (whole, again)]
        assert np.array_equal(*(load_predictions(file).values for file in files))


def test_the_time_of_units_in_processes_ends_too(tmp_path):
    config = make_toy(tmp_path)
    made = train_toy(tmp_path, config, jobs=2, minutes=1e-4)
    assert made.done_units() == []
    assert len(made.unfinished()) == 3


def test_a_command_whose_time_is_over_ends_with_the_code_of_a_stop(tmp_path, monkeypatch):
    config = make_toy(tmp_path)
    words = ["train", str(config), "--root", str(tmp_path), "--minutes", "0.0001", "--jobs", "1", "--show", "quiet"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 75
