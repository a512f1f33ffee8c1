"""Promises between the parts, each kept by a whole run of a toy: ids, folds, leaks, order, files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score
from toys import make_toy, read_text_table, train_toy

from pipeline import api
from pipeline.base.errors import MismatchError
from pipeline.data import sources
from pipeline.models.weights import read_weights
from pipeline.records.predictions import load_predictions
from pipeline.records.runs import Run, Unit, Workspace

HOST_FOLDS = {"folds": {"scheme": "column", "n_folds": 3}}
MEMORY = {"model": {"name": "mlp", "hidden": 64}, "train": {"epochs": 25, "batch_size": 16, "precision": "fp32"}}


def weights_of(run: Run, fold: int, seed: int = 0) -> dict[str, torch.Tensor]:
    tensors, _ = read_weights(run.unit_folder(Unit(fold, seed)) / "weights.safetensors")
    return tensors


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def oof_of(run: Run) -> pd.DataFrame:
    return pd.read_parquet(run.folder / "oof.parquet").set_index("id")


def train_table(root: Path, name: str) -> pd.DataFrame:
    return read_text_table(root / "data" / name / "train.csv").set_index("id", drop=False)


def oof_auc(root: Path, run: Run) -> float:
    oof = oof_of(run)
    return float(roc_auc_score(train_table(root, run.task.name).loc[oof.index, "target"].astype(int), oof["1"]))


def scramble(root: Path, name: str, row_ids: Iterable[str], part: str = "train") -> None:
    """Give rows other pictures and, in training, other targets: all of one class, or far away."""
    folder = root / "data" / name
    rng = np.random.default_rng(7)
    row_ids = list(row_ids)
    for row_id in row_ids:
        cv2.imwrite(str(folder / part / f"{row_id}.png"), rng.integers(0, 256, (8, 8), dtype=np.uint8))
    if part == "train":
        table = train_table(root, name)
        (target,) = [column for column in table.columns if column in ("target", "label", "y0")]
        table.loc[row_ids, target] = {"target": "1", "label": "bee", "y0": "100"}[target]
        table.to_csv(folder / "train.csv", index=False)


# -- 1: predictions are keyed by id ------------------------------------------------------------------------------------


def test_each_unit_writes_its_own_predictions_and_those_of_the_run_follow_from_them(tmp_path):
    run = train_toy(tmp_path, make_toy(tmp_path))
    held, tests = [], []
    for unit in run.units():
        for which, parts, columns in (("heldout", held, ["fold"]), ("test", tests, [])):
            path = run.unit_folder(unit) / f"{which}.parquet"
            schema = pq.read_schema(path)
            assert schema.names == ["id", "ant", "bee", "cat", *columns]
            assert [str(schema.field(name).type) for name in schema.names[:4]] == ["string", *["float"] * 3]
            meta = load_predictions(path).meta
            assert (meta["task"], meta["run"], meta["form"], meta["units"]) == (
                "multiclass",
                "net",
                "probs",
                [unit.name],
            )
            assert meta["folds_hash"] == run.record["folds"]["hash"]
            assert meta["config_hash"] == run.record["config_hash"]
            assert len(meta["weights_hash"]) == 64
            assert "torch" in meta["versions"]
            parts.append(pd.read_parquet(path).set_index("id").sort_index())
    pd.testing.assert_frame_equal(oof_of(run).sort_index(), pd.concat(held).sort_index())
    mean = sum(part.astype(np.float64) for part in tests) / len(tests)
    test = pd.read_parquet(run.folder / "test.parquet").set_index("id").sort_index()
    pd.testing.assert_frame_equal(test, mean.astype(np.float32))


@pytest.mark.parametrize("more", [{}, {"store": "npz"}, {"store": "pixels"}, {"n_files": 2}, {"input": "signal"}])
def test_the_order_of_the_tables_changes_no_byte(tmp_path, more):
    """Train and test rows shuffled; the sample decides the order of the file, so shuffled it gives the same lines."""
    net = {"train": {"epochs": 3, "batch_size": 16, "sampling": "balanced", "precision": "fp32"}}
    net |= {"augment": {"time_shift": {"max_samples": 2}} if more.get("input") == "signal" else {"flip": {}}}
    lines, oofs = {}, []
    for number, shuffle in enumerate((None, 1, 2)):
        root = tmp_path / str(number)
        config = make_toy(root, shuffle=shuffle, net=net, format="per_class", metric="log_loss", **more)
        if shuffle == 2:
            sample = read_text_table(root / "data/multiclass/sample_submission.csv")
            sample.sample(frac=1, random_state=3).to_csv(root / "data/multiclass/sample_submission.csv", index=False)
        run = train_toy(root, config)
        oofs.append(oof_of(run).sort_index())
        lines[number] = api.submit("net", root=root).read_text().splitlines()
    assert (
        train_table(tmp_path / "0", "multiclass")["id"].tolist()
        != train_table(tmp_path / "1", "multiclass")["id"].tolist()
    )
    assert lines[0] == lines[1]
    assert lines[0] != lines[2]
    assert sorted(lines[0]) == sorted(lines[2])
    for oof in oofs[1:]:
        pd.testing.assert_frame_equal(oofs[0], oof, check_exact=True)


# -- 2: OOF is a partition by models that never saw the row ------------------------------------------------------------


def test_what_only_a_seen_row_can_know_stays_at_chance_in_oof(tmp_path):
    """Every picture is noise of its own and labels are random: a row is known by heart or not at all."""
    run = train_toy(tmp_path, make_toy(tmp_path, "binary", noise=True, n_train=120, net=MEMORY))
    source = tmp_path / "train.yaml"
    source.write_text(yaml.safe_dump({"table": "train.csv", "files": "train/{id}.png"}))
    seen = pd.read_parquet(api.predict("net", source=source, out=tmp_path / "seen.parquet", root=tmp_path)).set_index(
        "id"
    )
    truth = train_table(tmp_path, "binary").loc[seen.index, "target"].astype(int)
    assert roc_auc_score(truth, seen["1"]) > 0.95  # two of three models know each row
    assert 0.35 < oof_auc(tmp_path, run) < 0.65


@pytest.mark.parametrize(("how", "copy_noise"), [("exact", 0), ("near", 1)])
def test_copies_in_several_folds_leak_unless_duplicates_are_grouped(tmp_path, how, copy_noise):
    toy = {"noise": True, "n_train": 60, "copies": 2, "copy_noise": copy_noise, "net": MEMORY}
    config = make_toy(tmp_path, "binary", **toy)
    leaky = train_toy(tmp_path, config)
    grouped = train_toy(tmp_path, config, [f"folds.duplicates={how}"], name="grouped")
    assert oof_auc(tmp_path, leaky) > 0.8
    assert 0.3 < oof_auc(tmp_path, grouped) < 0.7
    fold = oof_of(grouped)["fold"]
    assert (
        fold.loc[[f"tr_{n:03d}" for n in range(60)]].to_numpy() == fold.loc[[f"tr_{n:03d}_c1" for n in range(60)]]
    ).all()


def test_a_group_is_in_no_model_that_predicts_it(tmp_path):
    """Here the group decides the target and shows in every picture of it, so that knowing it is a leak."""
    config = make_toy(tmp_path, "binary", noise=True, n_train=100, task={"group": "group"}, net=MEMORY)
    rng = np.random.default_rng(3)
    pictures = {f"g{n}": rng.integers(0, 256, (8, 8), dtype=np.uint8) for n in range(10)}
    table = train_table(tmp_path, "binary")
    table["target"] = [int(group[1:]) % 2 for group in table["group"]]
    table.to_csv(tmp_path / "data/binary/train.csv", index=False)
    for row_id, group in table["group"].items():
        cv2.imwrite(str(tmp_path / "data/binary/train" / f"{row_id}.png"), pictures[group])
    run = train_toy(tmp_path, config)
    fold = oof_of(run)["fold"]
    assert (fold.groupby(table.loc[fold.index, "group"]).nunique() == 1).all()
    assert oof_auc(tmp_path, run) < 0.9


@pytest.mark.parametrize(
    ("kind", "net"),
    [
        ("binary", {"loss": {"name": "bce", "positive_weights": "balanced"}}),
        ("multiclass", {"loss": {"name": "cross_entropy", "class_weights": "balanced"}}),
        ("regression", {}),
    ],
)
def test_what_a_fold_holds_out_changes_no_weight_of_its_model(tmp_path, kind, net):
    """Pictures and targets of fold 0 are others: its normalisation, class weights and target scale must not see it."""
    toy = {"task": {"fold_column": "fold"}, "net": HOST_FOLDS | net, "n_names": 1 if kind == "regression" else 3}
    runs = []
    for root in (tmp_path / "a", tmp_path / "b"):
        config = make_toy(root, kind, **toy)
        if root.name == "b":
            table = train_table(root, kind)
            scramble(root, kind, table.index[table["fold"] == "0"])
        runs.append(train_toy(root, config))
    assert same(weights_of(runs[0], 0), weights_of(runs[1], 0))
    assert not same(weights_of(runs[0], 1), weights_of(runs[1], 1))
    tests = [load_predictions(run.unit_folder(Unit(0, 0)) / "test.parquet").values for run in runs]
    np.testing.assert_array_equal(*tests)


def test_the_holdout_changes_nothing_at_all(tmp_path):
    runs = []
    for root in (tmp_path / "a", tmp_path / "b"):
        config = make_toy(root, task={"fold_column": "fold"}, net=HOST_FOLDS)
        table = train_table(root, "multiclass")
        table["fold"] = [-2 if n % 5 == 0 else n % 3 for n in range(len(table))]
        table.to_csv(root / "data/multiclass/train.csv", index=False)
        if root.name == "b":
            scramble(root, "multiclass", table.index[table["fold"] == -2])
        runs.append(train_toy(root, config))
    assert all(same(weights_of(runs[0], fold), weights_of(runs[1], fold)) for fold in range(3))
    pd.testing.assert_frame_equal(oof_of(runs[0]), oof_of(runs[1]), check_exact=True)
    scores = [json.loads((run.folder / "cv.json").read_text()) for run in runs]
    assert scores[0] == scores[1]
    assert scores[0]["n_rows"] == 72


def test_rows_that_always_train_do_train(tmp_path):
    runs = []
    for root in (tmp_path / "a", tmp_path / "b"):
        config = make_toy(root, task={"fold_column": "fold"}, net=HOST_FOLDS)
        table = train_table(root, "multiclass")
        table["fold"] = [-1 if n % 5 == 0 else n % 3 for n in range(len(table))]
        table.to_csv(root / "data/multiclass/train.csv", index=False)
        if root.name == "b":
            scramble(root, "multiclass", table.index[table["fold"] == -1])
        runs.append(train_toy(root, config))
    assert not any(same(weights_of(runs[0], fold), weights_of(runs[1], fold)) for fold in range(3))


def test_the_test_set_changes_no_weight(tmp_path):
    runs = []
    for root in (tmp_path / "a", tmp_path / "b"):
        config = make_toy(root)
        if root.name == "b":
            scramble(root, "multiclass", [f"te_{n:03d}" for n in range(24)], "test")
        runs.append(train_toy(root, config))
    assert all(same(weights_of(runs[0], fold), weights_of(runs[1], fold)) for fold in range(3))
    assert not np.array_equal(*[load_predictions(run.folder / "test.parquet").values for run in runs])


def test_oof_is_the_mean_over_seeds_and_each_unit_keeps_its_own(tmp_path):
    run = train_toy(tmp_path, make_toy(tmp_path, net={"seeds": [0, 1]}, noise=True))
    assert len(run.done_units()) == 6
    oof = oof_of(run)
    for fold in range(3):
        parts = [
            pd.read_parquet(run.unit_folder(Unit(fold, seed)) / "heldout.parquet").set_index("id").drop(columns="fold")
            for seed in (0, 1)
        ]
        assert not parts[0].equals(parts[1])
        mean = (parts[0].astype(np.float64) + parts[1]) / 2
        pd.testing.assert_frame_equal(oof.loc[mean.index].drop(columns="fold"), mean.astype(np.float32))
    cv = json.loads((run.folder / "cv.json").read_text())
    assert {(line["fold"], line["seed"]) for line in cv["folds"]} == {(f, s) for f in range(3) for s in (0, 1)}
    by_fold = [np.mean([line["score"] for line in cv["folds"] if line["fold"] == fold]) for fold in range(3)]
    assert cv["mean"] == pytest.approx(np.mean(by_fold))
    assert cv["std"] == pytest.approx(np.std(by_fold, ddof=1))


def test_some_folds_predict_and_submit_marked_as_a_part_and_join_no_oof_of_a_blend(tmp_path):
    config = make_toy(tmp_path, net={"folds": {"n_folds": 5}})
    whole = train_toy(tmp_path, config, name="whole")
    part = train_toy(tmp_path, config, folds=[0, 3], name="part")
    cv = json.loads((part.folder / "cv.json").read_text())
    assert (cv["partial"], cv["n_done"], cv["n_folds"]) == ("2 of 5 folds", 2, 5)
    assert set(oof_of(part)["fold"]) == {0, 3}
    assert cv["n_rows"] == len(oof_of(part))
    path = api.submit("part", root=tmp_path)
    assert json.loads(path.with_suffix(".json").read_text())["partial"] == "2 of 5 folds"
    assert "2 of 5 folds" in api.board(root=tmp_path)[0].set_index("run").loc["part", "note"]
    blend, scores = api.ensemble(["whole", "part"], root=tmp_path)
    assert not (blend.folder / "oof.parquet").exists()
    assert scores["pooled"] is None
    assert load_predictions(blend.folder / "test.parquet").meta["partial"] == "part: 2 of 5 folds"
    record = json.loads(api.submit(blend.name, root=tmp_path).with_suffix(".json").read_text())
    assert record["partial"] == "part: 2 of 5 folds"
    train_toy(tmp_path, config, name="part")  # the same run goes on and becomes whole
    assert json.loads((part.folder / "cv.json").read_text())["partial"] is None
    pd.testing.assert_frame_equal(oof_of(part).sort_index(), oof_of(whole).sort_index(), check_exact=True)


def test_a_refit_on_every_row_has_no_cv_and_is_blended_for_the_test_rows(tmp_path):
    config = make_toy(tmp_path)
    run = train_toy(tmp_path, config)
    refit = train_toy(tmp_path, config, folds="all")
    assert [unit.fold for unit in refit.units()] == ["all"]
    assert not (refit.folder / "oof.parquet").exists()
    assert not list(refit.folder.glob("units/*/heldout.parquet"))
    cv = json.loads((refit.folder / "cv.json").read_text())
    assert (cv["folds"], cv["mean"], cv["pooled"], cv["n_rows"]) == ([], None, None, 0)
    blend, scores = api.ensemble([run.name, refit.name], root=tmp_path)
    assert scores["pooled"] is None
    parts = [load_predictions(one.folder / "test.parquet") for one in (run, refit)]
    mean = load_predictions(blend.folder / "test.parquet").aligned_to(parts[0].ids).values
    np.testing.assert_allclose(mean, (parts[0].values + parts[1].aligned_to(parts[0].ids).values) / 2, atol=1e-7)
    assert api.submit(refit.name, root=tmp_path).is_file()


def test_the_holdout_is_in_no_refit(tmp_path):
    runs = []
    for root in (tmp_path / "a", tmp_path / "b"):
        config = make_toy(root, task={"fold_column": "fold"}, net=HOST_FOLDS)
        table = train_table(root, "multiclass")
        table["fold"] = [-2 if n % 5 == 0 else n % 3 for n in range(len(table))]
        table.to_csv(root / "data/multiclass/train.csv", index=False)
        if root.name == "b":
            scramble(root, "multiclass", table.index[table["fold"] == -2])
        runs.append(train_toy(root, config, folds="all"))
    folders = [run.unit_folder(Unit("all", 0)) / "weights.safetensors" for run in runs]
    assert same(*[read_weights(path)[0] for path in folders])


def test_an_edited_fold_table_is_refused_by_name(tmp_path):
    config = make_toy(tmp_path)
    api.folds(config, root=tmp_path)
    path = tmp_path / "folds/multiclass/stratified3-seed0.csv"
    lines = path.read_text().splitlines()
    name, fold = lines[1].split(",")
    path.write_text("\n".join([lines[0], f"{name},{(int(fold) + 1) % 3}", *lines[2:]]) + "\n")
    with pytest.raises(MismatchError, match=r"stratified3-seed0\.csv: the table was edited after it was made"):
        train_toy(tmp_path, config)


def test_data_that_changed_under_a_fold_table_are_refused_by_id_and_way_out(tmp_path):
    config = make_toy(tmp_path)
    api.folds(config, root=tmp_path)
    table = train_table(tmp_path, "multiclass")
    more = table.iloc[[0]].assign(id="tr_new")
    pd.concat([table, more]).to_csv(tmp_path / "data/multiclass/train.csv", index=False)
    shutil.copy(tmp_path / "data/multiclass/train/tr_000.png", tmp_path / "data/multiclass/train/tr_new.png")
    with pytest.raises(MismatchError, match=r"1 ids are not in the table \(tr_new\).* the JSON beside it are removed"):
        train_toy(tmp_path, config)
    for path in (tmp_path / "folds/multiclass").iterdir():
        path.unlink()
    assert "tr_new" in oof_of(train_toy(tmp_path, config)).index


def test_folds_made_by_another_spec_are_refused(tmp_path):
    config = make_toy(tmp_path, net={"folds": {"n_folds": 3, "name": "ours"}})
    api.folds(config, root=tmp_path)
    with pytest.raises(MismatchError, match=r"ours\.csv: was made otherwise \(seed: 0 -> 1\); choose another"):
        api.folds(config, ["folds.seed=1"], root=tmp_path)


# -- blends ------------------------------------------------------------------------------------------------------------


def test_runs_of_other_folds_classes_rows_and_tasks_do_not_blend(tmp_path):
    config = make_toy(tmp_path)
    train_toy(tmp_path, config, name="first")
    train_toy(tmp_path, config, ["folds.seed=1"], name="folds")
    train_toy(tmp_path, make_toy(tmp_path, name="elsewhere"), name="task")
    data = tmp_path / "data/multiclass"
    test = read_text_table(data / "test.csv")
    test.iloc[1:].to_csv(data / "test.csv", index=False)
    train_toy(tmp_path, config, name="rows")
    test.to_csv(data / "test.csv", index=False)
    text = (data / "train.csv").read_text()
    (data / "train.csv").write_text(text.replace(",ant,", ",asp,"))
    train_toy(tmp_path, config, name="classes")
    (data / "train.csv").write_text(text)
    for other, message in (
        ("folds", "first and folds do not belong together: folds hash"),
        ("task", "first and task do not belong together: task 'multiclass' against 'elsewhere'"),
        ("rows", r"rows against first: .*1 missing \(ids te_000\)"),
        ("classes", "first and classes do not belong together: other columns .*only in the first: ant"),
    ):
        with pytest.raises(MismatchError, match=message):
            api.ensemble(["first", other], root=tmp_path)
    assert not list(tmp_path.glob("runs/*/*+*"))


def test_blends_of_blends_are_submitted_and_name_their_members(tmp_path):
    config = make_toy(tmp_path)
    for name, hidden in (("a", 4), ("b", 8), ("c", 16)):
        train_toy(tmp_path, config, [f"model.hidden={hidden}"], name=name)
    api.ensemble(["a", "b"], name="ab", root=tmp_path)
    blend, scores = api.ensemble(["ab", "c"], name="abc", root=tmp_path)
    values = {
        run: oof_of(Run(tmp_path / "runs/multiclass" / run)).drop(columns="fold") for run in ("a", "b", "c", "abc")
    }
    wanted = (values["a"] + values["b"].loc[values["a"].index]) / 4 + values["c"].loc[values["a"].index] / 2
    pd.testing.assert_frame_equal(values["abc"].loc[wanted.index], wanted, atol=1e-6)
    assert [member["run"] for member in scores["members"]] == ["ab", "c"]
    assert json.loads(api.submit("abc", root=tmp_path).with_suffix(".json").read_text())["runs"] == ["ab", "c"]
    assert blend.is_blend


# -- 5: decode once ----------------------------------------------------------------------------------------------------


def test_other_folds_epochs_and_experiments_decode_nothing(tmp_path, monkeypatch):
    config = make_toy(tmp_path)
    train_toy(tmp_path, config)
    assert len(list((tmp_path / ".cache/store").iterdir())) == 2  # train and test

    def refuse(path: Path) -> Any:
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(sources, "reader_for", refuse)
    train_toy(tmp_path, config, ["folds.seed=1", "model.hidden=4", "augment={flip: {}}"])
    for part in ("train", "test"):  # nor does another order of the rows
        path = tmp_path / f"data/multiclass/{part}.csv"
        read_text_table(path).sample(frac=1, random_state=0).to_csv(path, index=False)
    train_toy(tmp_path, config, name="shuffled")
    assert len(list((tmp_path / ".cache/store").iterdir())) == 2


# -- 6: what is not whole is made again --------------------------------------------------------------------------------


def test_a_unit_without_its_marker_is_trained_again_and_no_other(tmp_path):
    config = make_toy(tmp_path)
    run = train_toy(tmp_path, config)
    before = oof_of(run)
    times = {unit: (run.unit_folder(unit) / "weights.safetensors").stat().st_mtime_ns for unit in run.units()}
    (run.unit_folder(Unit(1, 0)) / "done.json").unlink()
    for name in ("oof.parquet", "test.parquet", "cv.json"):
        (run.folder / name).unlink()
    train_toy(tmp_path, config)
    changed = {
        unit
        for unit, time in times.items()
        if (run.unit_folder(unit) / "weights.safetensors").stat().st_mtime_ns != time
    }
    assert changed == {Unit(1, 0)}
    pd.testing.assert_frame_equal(oof_of(run), before, check_exact=True)


def test_a_finished_run_keeps_no_checkpoints_and_no_parts(tmp_path):
    run = train_toy(tmp_path, make_toy(tmp_path), fast=False)
    names = {path.name for path in run.folder.rglob("*") if path.is_file() and path.name != ".lock"}
    unit = {"done.json", "heldout.parquet", "history.csv", "test.parquet", "curves.png", "weights.safetensors"}
    assert names == unit | {"weights.json", "run.json", "cv.json", "oof.parquet"}


# -- 7: what ran is saved whole ----------------------------------------------------------------------------------------


def test_what_ran_is_saved_whole_and_comes_back_equal(tmp_path):
    config = make_toy(tmp_path)
    loaded = api.config(config, ["train.epochs=2", "ema={decay: 0.9}"])
    run = train_toy(tmp_path, config, ["train.epochs=2", "ema={decay: 0.9}"])
    again = Run(run.folder)
    assert again.experiment == loaded.experiment
    assert again.task == loaded.task
    assert run.name == "net-train.epochs=2-ema=_decay_0.9_"
    assert again.record["experiment"]["optimizer"]["weight_decay"] == 0.0  # defaults too
    assert {"torch", "numpy", "python"} <= set(again.record["versions"])


def test_a_name_stands_for_one_config_and_one_machine_setting(tmp_path):
    config = make_toy(tmp_path)
    train_toy(tmp_path, config, folds=[0])
    message = (
        r"(?s)runs/multiclass/net: was started with another config:.*experiment\.train\.epochs: 8 -> 2.*--name NEW"
    )
    with pytest.raises(MismatchError, match=message):
        train_toy(tmp_path, config, ["train.epochs=2"], name="net")
    with pytest.raises(MismatchError, match=r"was started on another machine setting \(threads: 1 -> 2\)"):
        train_toy(tmp_path, config, threads=2)
    assert len(train_toy(tmp_path, config, threads=None).done_units()) == 3  # as it started


# -- 8 is tested in test_submission and test_stages; 9: nothing is unpickled -------------------------------------------


def test_no_stage_unpickles_anything(tmp_path, monkeypatch):
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    run = train_toy(tmp_path, make_toy(tmp_path))
    api.predict("net", root=tmp_path)
    api.submit("net", root=tmp_path)
    suffixes = {path.suffix for path in run.folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert suffixes <= {".json", ".parquet", ".safetensors", ".csv", ".png"}


def test_workspaces_hold_everything_under_their_root(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    root = tmp_path / "workspace"
    run = train_toy(root, make_toy(root))
    api.submit(run.name, root=root)
    assert not list(elsewhere.iterdir())
    assert Workspace(root).find_run("net") == run.folder
