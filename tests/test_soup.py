from __future__ import annotations

import json
import math
import os
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from toys import make_toy, train_toy

from pipeline import api
from pipeline.base.errors import ConfigError, DataError, LeakError, MismatchError
from pipeline.base.files import read_json, write_json
from pipeline.blending.soup import average_weights, greedy_soup, is_among, moved_norms, refresh_norms, uniform_soup
from pipeline.commands import run as command
from pipeline.models.weights import read_model_meta, read_weights, save_weights
from pipeline.records.folds import load_folds
from pipeline.records.predictions import load_predictions
from pipeline.records.runs import Run, Unit
from pipeline.stages import crossval, soup
from pipeline.training.history import read_history

NET = {"model": {"name": "cnn3", "width": 4, "dropout": 0.2}, "train": {"epochs": 2}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Without pictures, and without waiting for the disk."""
    monkeypatch.setattr(crossval, "plot_history", lambda *_: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def make_state(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64).to(dtype)
    return {"weight": weight, "n": torch.tensor(seed)}


def number(value):
    return {"w": torch.tensor(float(value), dtype=torch.float64)}


# -- averages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_floating_tensors_are_averaged_in_float64_and_counters_are_those_of_the_last(dtype):
    states = [make_state(seed, dtype) for seed in range(5)]
    copies = [{name: tensor.clone() for name, tensor in state.items()} for state in states]
    mean = average_weights(states)
    expected = np.mean([state["weight"].double().numpy() for state in states], axis=0)
    assert mean["weight"].dtype == dtype
    np.testing.assert_allclose(mean["weight"].double().numpy(), expected, atol=4 * torch.finfo(dtype).eps)
    assert mean["n"].item() == 4
    assert all(
        torch.equal(state[name], copy[name]) for state, copy in zip(states, copies, strict=True) for name in copy
    )


@pytest.mark.parametrize("n", [1, 2, 3, 7, 49])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_average_of_equal_states_has_their_bits(dtype, n):
    state = make_state(1, dtype)
    mean = average_weights([state] * n)
    assert all(torch.equal(mean[name], state[name]) for name in state)
    assert mean["weight"].data_ptr() != state["weight"].data_ptr()


def test_small_differences_of_large_weights_are_not_lost():
    states = [{"w": torch.tensor(2.0**24 + 2 * step)} for step in (0, 1, 2)]
    assert average_weights(states)["w"].item() == 2.0**24 + 2


def test_states_that_do_not_fit_each_other_are_refused_by_name():
    first, other = make_state(0), make_state(1)
    with pytest.raises(
        MismatchError, match=r"weights 1 and 3 cannot be averaged: only one of them has bias\. A soup is"
    ):
        average_weights([first, other, other | {"bias": torch.zeros(2)}])
    with pytest.raises(MismatchError, match=r"1 and 2 .* weight is \(3, 4\) float32 and \(4, 3\) float32"):
        average_weights([first, {**other, "weight": other["weight"].T}])
    with pytest.raises(MismatchError, match=r"weight is \(3, 4\) float32 and \(3, 4\) float64"):
        greedy_soup([first, {**other, "weight": other["weight"].double()}], lambda _: 0.0)
    with pytest.raises(MismatchError, match="at least one set of weights"):
        average_weights([])


# -- greedy ------------------------------------------------------------------------------------------------------------


def slow_greedy(values, score):
    """The algorithm on plain numbers, written out."""
    order = sorted(range(len(values)), key=lambda place: (-score(values[place]), place))
    kept: list[int] = []
    for place in order:
        with_it = [*kept, place]
        if not kept or score(np.mean([values[each] for each in with_it])) >= score(
            np.mean([values[each] for each in kept])
        ):
            kept = with_it
    return kept


def test_greedy_by_hand():
    """Target 0: 1 is best; with -2 the mean is -0.5, with 3 then 2/3, which is worse and stays out; with 4 likewise."""
    made = greedy_soup([number(value) for value in (3, -2, 4, 1)], lambda state: -abs(state["w"].item()))
    assert made.members == (3, 1)
    assert made.scores == (-1.0, -0.5)
    assert made.own == (-3.0, -2.0, -4.0, -1.0)
    assert made.weights["w"].item() == -0.5


def test_greedy_equals_the_plain_loop_and_never_falls_below_its_best_member():
    rng = np.random.default_rng(0)

    def score(value):
        return -math.floor(2 * abs(value) + 1e-9)  # coarse, so that ties are common

    for _ in range(200):
        values = rng.integers(-6, 7, 6).tolist()
        made = greedy_soup([number(value) for value in values], lambda state: score(state["w"].item()))
        assert list(made.members) == slow_greedy(values, score)
        assert made.scores[0] == max(made.own)
        assert list(made.scores) == sorted(made.scores)
        assert made.scores[-1] == score(made.weights["w"].item())


def test_an_equal_score_is_no_fall_and_the_first_of_equals_leads():
    made = greedy_soup([number(value) for value in (5, 6, 7)], lambda _: 0.5)
    assert made.members == (0, 1, 2)
    assert uniform_soup([number(5), number(6)]).members == (0, 1)


# -- batch norm --------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.drop, self.second = nn.BatchNorm1d(3), nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=0.3)

    def forward(self, x):
        return self.second(self.drop(self.first(x)))


def test_norms_are_measured_as_the_mean_over_batches_without_dropout_and_the_model_is_as_before():
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(8, 3, generator=generator) * 5 + 2 for _ in range(3)]
    for was_training in (True, False):
        model = Net().train(was_training)
        refresh_norms(model, ["first", "second"], batches)
        expected = torch.stack([batch.mean(0) for batch in batches]).mean(0)
        torch.testing.assert_close(model.first.running_mean, expected)
        torch.testing.assert_close(model.first.running_var, torch.stack([batch.var(0) for batch in batches]).mean(0))
        # Each batch leaves the first norm with mean zero and deviation one, as nothing is dropped.
        torch.testing.assert_close(model.second.running_mean, torch.zeros(3), atol=1e-6, rtol=0)
        torch.testing.assert_close(model.second.running_var, torch.full((3,), 8 / 7), atol=1e-4, rtol=0)
        assert [model.first.momentum, model.second.momentum] == [0.1, 0.3]
        assert {part.training for part in model.modules()} == {was_training}


def test_only_the_named_norms_move_and_without_names_no_batch_is_asked_for():
    model = Net()
    refresh_norms(model, ["second"], [torch.randn(4, 3, generator=torch.Generator().manual_seed(0))])
    assert torch.equal(model.first.running_mean, torch.zeros(3))
    assert not torch.equal(model.second.running_mean, torch.zeros(3))
    refresh_norms(model, [], (1 / 0 for _ in range(1)))


def test_norms_that_were_frozen_alike_are_not_moved():
    states = [{name: tensor.clone() for name, tensor in Net().state_dict().items()} for _ in range(3)]
    states[2]["second.running_var"] += 1
    assert moved_norms(Net(), states) == ["second"]
    assert moved_norms(Net(), states[:2]) == []
    assert not is_among(states[2], states[:2])
    assert is_among(states[2], states)


# -- toys --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Two runs of one net with batch norm and one seed, scored by log loss (lower is better), on targets of chance."""
    root = tmp_path_factory.mktemp("soup")
    config = make_toy(root, noise=True, metric="log_loss", format="per_class", n_train=60, n_test=12, net=NET)
    train_toy(root, config, name="a")
    train_toy(root, config, ["optimizer.lr=0.05", "augment={flip: {}}"], name="b")
    train_toy(root, config, ["optimizer.lr=0.001"], name="c")
    return root


def run_of(root, name):
    return Run(root / "runs/multiclass" / name)


def weights_of(run, unit):
    return read_weights(run.unit_folder(unit) / "weights.safetensors")[0]


def cv_of(run) -> dict[str, Any]:
    return dict(read_json(run.folder / "cv.json"))


def train_more(root, name, *overrides, **more):
    return train_toy(root, root / "configs/multiclass/net.yaml", list(overrides), name=name, **more)


def test_the_soup_of_identical_runs_is_the_run(toy):
    a = run_of(toy, "a")
    shutil.copytree(a.folder, a.folder.with_name("a-again"))
    made, scores = api.soup(["a", "a-again"], name="same", root=toy)
    for part in ("oof", "test"):
        old, new = (load_predictions(run.folder / f"{part}.parquet") for run in (a, made))
        np.testing.assert_array_equal(old.values, new.values)
        np.testing.assert_array_equal(old.ids, new.ids)
    assert [line["score"] for line in scores["folds"]] == [line["score"] for line in cv_of(a)["folds"]]
    for unit in a.units():
        old, new = weights_of(a, unit), weights_of(made, unit)
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)


def test_each_unit_is_the_mean_of_the_units_of_its_fold_with_lineage_and_files_like_any_other(toy):
    made, scores = api.soup(["a", "b", "c"], root=toy)
    assert made.name == "soup-a+b+c"
    for unit in made.units():
        states = [weights_of(run_of(toy, name), unit) for name in "abc"]
        new = weights_of(made, unit)
        for name in [name for name in new if "running" not in name and "num_batches" not in name]:
            expected = torch.stack([state[name].double() for state in states]).mean(0).float()
            torch.testing.assert_close(new[name], expected, rtol=1e-6, atol=1e-9)
        meta = read_model_meta(made.unit_folder(unit) / "weights.safetensors")
        assert meta["lineage"] == {"left_out": unit.fold, "folds_hash": made.record["folds"]["hash"]}
        assert meta["members"] == [f"{name}/{unit.name}" for name in "abc"]
        assert {path.name for path in made.unit_folder(unit).iterdir()} >= {
            "done.json",
            "heldout.parquet",
            "test.parquet",
        }
    oof = load_predictions(made.folder / "oof.parquet")
    assert len(oof) == 60
    assert (scores["weights"], scores["note"], scores["partial"]) == ("uniform soup", None, None)
    assert [member["pooled"] for member in scores["members"]] == [cv_of(run_of(toy, name))["pooled"] for name in "abc"]
    before = load_predictions(made.folder / "test.parquet").values
    api.predict("soup-a+b+c", root=toy)
    np.testing.assert_array_equal(load_predictions(made.folder / "test.parquet").values, before)
    assert api.submit("soup-a+b+c", root=toy).is_file()


def test_running_statistics_are_those_of_the_training_rows_alone(toy):
    """By torch's own update of batch norms, on a net without dropout and a loader of the fold's training rows."""
    for name, lr in (("plain-a", 0.02), ("plain-b", 0.05)):
        train_more(toy, name, "model.dropout=0", f"optimizer.lr={lr}", "train.batch_size=40")
    made, _ = api.soup(["plain-a", "plain-b"], name="plain", root=toy)
    workspace = soup.Workspace(toy)
    data = soup.dataset_of(workspace, made, lambda _: None)
    rows, items = data.train.rows, data.train_items("cpu")
    folds = load_folds(next(toy.glob("folds/multiclass/*.csv"))).aligned_to(rows.ids)
    for unit in made.units():
        train, _ = folds.split(unit.fold)
        model, scaling, _ = crossval.load_unit(made, unit, rows, items)
        saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        update_bn([soup.prepare(items.fetch(train), scaling)], model)  # 40 rows: one batch
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(saved[name], tensor, rtol=1e-5, atol=1e-6)
        running = [name for name in saved if "running" in name]
        members = [weights_of(run_of(toy, name), unit) for name in ("plain-a", "plain-b")]
        mean = average_weights(members)
        assert running
        assert not any(torch.equal(saved[name], mean[f"model.{name}"]) for name in running)


def test_greedy_never_scores_worse_than_its_best_member_and_says_that_it_chose(toy, capsys):
    assert command(["soup", "a", "b", "c", "--greedy", "--name", "greedy", "--root", str(toy)]) == 0
    made = run_of(toy, "greedy")
    cv, shown = cv_of(made), capsys.readouterr().out
    assert not cv["higher_is_better"]
    for line in cv["folds"]:
        unit = Unit(line["fold"], line["seed"])
        own = {name: cv_of(run_of(toy, name))["folds"][unit.fold]["score"] for name in "abc"}
        assert line["score"] <= min(own.values())
        chosen = cv["soups"][unit.name]
        assert chosen["own_scores"] == {f"{name}/{unit.name}": pytest.approx(own[name], abs=1e-7) for name in "abc"}
        assert chosen["members"][0] == f"{min(own, key=own.__getitem__)}/{unit.name}"
        history = read_history(made.unit_folder(unit) / "history.csv")
        assert history["n_members"] == list(range(1, len(chosen["members"]) + 1))
        assert history["log_loss"] == sorted(history["log_loss"], reverse=True)
        assert history["log_loss"][-1] == pytest.approx(line["score"], abs=1e-7)
    note = "members chosen on the fold that scores them"
    assert cv["note"] == made.record["soup"]["selection"] == note
    assert shown.count(note) == 2
    assert "greedy soup weights" in shown
    assert api.board(root=toy)[0].set_index("run").loc["greedy", "note"] == note


def test_a_greedy_unit_that_keeps_one_member_is_that_member(toy, monkeypatch):
    monkeypatch.setattr(soup, "greedy_soup", lambda states, score: greedy_soup(states[:1], score))
    made, _ = api.soup(["a", "b"], how="greedy", name="alone", root=toy)
    old, new = (load_predictions(run.folder / "oof.parquet").values for run in (run_of(toy, "a"), made))
    np.testing.assert_array_equal(old, new)


def test_epochs_chosen_on_the_fold_are_said_to_be(toy):
    train_more(toy, "best-a", "train.weights=best")
    made, scores = api.soup(["best-a", "a"], name="with-best", root=toy)
    assert scores["note"] == made.record["soup"]["selection"] == "epochs of best-a chosen on the fold that scores them"


def test_a_metric_that_is_undefined_on_a_fold_can_choose_nothing(toy, monkeypatch):
    monkeypatch.setattr(soup, "score_or_note", lambda *_: (None, "one class only"))
    with pytest.raises(DataError, match=r"--greedy: log_loss is undefined on fold 0 \(one class only\), so no members"):
        api.soup(["a", "b"], how="greedy", name="undefined", root=toy)


# -- what goes together ------------------------------------------------------------------------------------------------


def test_runs_of_the_same_seeds_give_a_soup_for_each_seed(toy):
    for name, lr in (("two-a", 0.02), ("two-b", 0.01)):
        train_more(toy, name, "seeds=[3, 1]", f"optimizer.lr={lr}")
    made, scores = api.soup(["two-a", "two-b"], name="two", root=toy)
    assert made.experiment.seeds == (1, 3)
    assert len(scores["folds"]) == 6
    assert scores["soups"]["fold2-seed3"]["members"] == ["two-a/fold2-seed3", "two-b/fold2-seed3"]


def test_seeds_that_start_from_one_file_go_into_one_soup_and_those_that_do_not_are_refused(toy):
    path = "runs/multiclass/a/units/fold{fold}-seed0/weights.safetensors"
    start = f"model.weights={toy / path}"
    train_more(toy, "tuned", start, "seeds=[5, 6]", "train.epochs=1")
    made, scores = api.soup(["tuned"], root=toy)
    assert [unit.name for unit in made.units()] == [f"fold{fold}-seed5" for fold in range(3)]
    assert scores["soups"]["fold1-seed5"]["members"] == ["tuned/fold1-seed5", "tuned/fold1-seed6"]
    assert made.record["experiment"]["seeds"] == [5]

    train_more(toy, "apart", "seeds=[5, 6]", "train.epochs=1")
    with pytest.raises(
        MismatchError,
        match=r"apart/fold0-seed5 and apart/fold0-seed6 do not share their start: seeds 5 and 6 initialise .*weight.*"
        r" differently\. Nets that start apart end in different valleys of the loss.* `podium ensemble`",
    ):
        api.soup(["apart"], root=toy)
    with pytest.raises(
        MismatchError, match=r"tuned/fold0-seed5 and apart/fold0-seed5 do not share their start: .*weights"
    ):
        api.soup(["tuned", "apart"], root=toy)
    with pytest.raises(
        MismatchError, match=r"tuned/fold0-seed5 and tuned/fold1-seed5 do not share their start: .*fold0"
    ):
        api.soup(["tuned"], across_folds=True, root=toy)


def test_a_start_file_without_the_head_does_not_make_two_seeds_alike(toy):
    tensors = weights_of(run_of(toy, "a"), Unit(0, 0))
    head = next(name for name, tensor in tensors.items() if tensor.ndim == 2).rpartition(".")[0]
    path = toy / "body.safetensors"
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith(head)}
    save_weights(path, body, {})
    train_more(toy, "body", f"model.weights={path}", "seeds=[0, 1]", "train.epochs=1")
    with pytest.raises(MismatchError, match=f"seeds 0 and 1 initialise {head.removeprefix('model.')}"):
        api.soup(["body"], root=toy)
    path.unlink()
    with pytest.raises(MismatchError, match=r"their seeds differ, and .*body\.safetensors is gone"):
        api.soup(["body"], root=toy)


def test_one_model_of_all_folds_has_no_cv_and_may_not_start_a_fold(toy, capsys):
    made, scores = api.soup(["a", "b"], across_folds=True, name="all", root=toy)
    assert made.is_refit
    assert not (made.folder / "oof.parquet").exists()
    assert (scores["mean"], scores["pooled"], scores["folds"], scores["note"]) == (None, None, [], None)
    assert "nets trained long from there may leave each other's valley" in capsys.readouterr().err
    states = [weights_of(run_of(toy, name), Unit(fold, 0)) for name in "ab" for fold in range(3)]
    mean, new = average_weights(states), weights_of(made, Unit("all", 0))
    for name in [name for name in new if "running" not in name and "num_batches" not in name]:
        assert torch.equal(new[name], mean[name])  # the scaling of the items, which each fold measured, among them
    assert len(load_predictions(made.folder / "test.parquet")) == 12
    assert command(["soup", "a", "b", "--across-folds", "--name", "all", "--root", str(toy)]) == 0
    assert "trained on every row, so there is no CV" in capsys.readouterr().out
    with pytest.raises(LeakError, match=r"left out fold all and has seen fold 0"):
        train_more(toy, "leak", f"model.weights={made.unit_folder(Unit('all', 0)) / 'weights.safetensors'}")


def test_refits_on_every_row_are_averaged_like_folds(toy):
    for name, lr in (("r-a", 0.02), ("r-b", 0.01)):
        train_more(toy, name, f"optimizer.lr={lr}", folds="all")
    made, scores = api.soup(["r-a-all", "r-b-all"], root=toy)
    assert made.is_refit
    assert list(scores["soups"]) == ["foldall-seed0"]
    with pytest.raises(ConfigError, match=r"--greedy: chooses by held-out rows, and r-a-all is a refit on every row"):
        api.soup(["r-a-all", "r-b-all"], how="greedy", root=toy)
    with pytest.raises(ConfigError, match=r"--across-folds: r-a-all has no folds"):
        api.soup(["r-a-all", "r-b-all"], across_folds=True, root=toy)


def write_epochs(run, n):
    """Leave the weights of some epochs as training would: names of the model's state, numbers from 0."""
    for unit in run.units():
        tensors = weights_of(run, unit)
        state = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
        for epoch in range(n):
            moved = {
                name: tensor * (1 + epoch / 10) if tensor.is_floating_point() else tensor
                for name, tensor in state.items()
            }
            save_weights(run.unit_folder(unit) / f"epoch-{epoch:05d}.safetensors", moved, {"epoch": epoch})


def test_the_last_epochs_of_each_unit_are_averaged_and_a_choice_among_them_is_said(toy):
    a = run_of(toy, "a")
    shutil.copytree(a.folder, a.folder.with_name("kept"))
    kept = run_of(toy, "kept")
    write_epochs(kept, 12)
    made, scores = api.soup(["kept"], n_epochs=2, root=toy)
    assert made.name == "soup-kept-last2"
    assert scores["soups"]["fold0-seed0"]["members"] == [f"kept/fold0-seed0/epoch-{epoch:05d}" for epoch in (10, 11)]
    old, new = (weights_of(run, Unit(0, 0)) for run in (kept, made))
    for name in [name for name in old if name.startswith("model.") and name.endswith("weight")]:
        torch.testing.assert_close(new[name], old[name] * 2.05)
    made, scores = api.soup(["kept"], n_epochs=12, how="greedy", root=toy)
    assert scores["note"] == "members chosen on the fold that scores them"
    assert all(line["score"] <= old["score"] for line, old in zip(scores["folds"], cv_of(a)["folds"], strict=True))
    with pytest.raises(DataError, match=r"--epochs 13: .*fold0-seed0 holds the weights of 12 epochs"):
        api.soup(["kept"], n_epochs=13, root=toy)
    with pytest.raises(ConfigError, match="--epochs: takes the epochs of one run"):
        api.soup(["kept", "a"], n_epochs=2, root=toy)
    with pytest.raises(ConfigError, match="--epochs 1: a soup needs at least two"):
        api.soup(["kept"], n_epochs=1, root=toy)
    with pytest.raises(ConfigError, match="--epochs and --across-folds: choose one"):
        api.soup(["kept"], n_epochs=2, across_folds=True, root=toy)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_wishes_that_exclude_each_other_and_too_few_members_are_refused(toy):
    with pytest.raises(ConfigError, match="--greedy: chooses by held-out rows, and with --across-folds there are none"):
        api.soup(["a", "b"], how="greedy", across_folds=True, root=toy)
    with pytest.raises(MismatchError, match=r"for fold0-seed0 there is a/fold0-seed0 alone"):
        api.soup(["a"], root=toy)
    with pytest.raises(MismatchError, match=r"different runs \(found: a, a\)"):
        api.soup(["a", "a"], root=toy)
    with pytest.raises(MismatchError, match=r"different runs \(found: none\)"):
        api.soup([], root=toy)
    assert not list(toy.glob("runs/multiclass/soup-a"))


def test_blends_and_unfinished_runs_are_refused(toy):
    shutil.copytree(run_of(toy, "a").folder, toy / "runs/multiclass/blended")
    record = run_of(toy, "blended").record
    write_json(toy / "runs/multiclass/blended/run.json", record | {"blend": {"members": []}})
    with pytest.raises(MismatchError, match="blended: is a blend of predictions and has no weights"):
        api.soup(["a", "blended"], root=toy)
    train_more(toy, "half", folds=[1])
    with pytest.raises(DataError, match="half: not finished: fold0-seed0, fold2-seed0"):
        api.soup(["a", "half"], root=toy)


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("model.width=8", r"model\.width: 4 -> 8"),
        ("folds.seed=1", r"folds\.name: 'stratified3-seed0' -> 'stratified3-seed1'"),
        ("input.normalize=none", r"input\.normalize: 'measured' -> 'none'"),
    ],
)
def test_another_net_other_folds_or_another_input_are_refused_with_both_values(toy, override, shown):
    name = override.replace("=", "-")
    train_more(toy, name, override, "train.epochs=1")
    with pytest.raises(MismatchError, match=rf"a and {name} are no trainings of one net:\n(.*\n)*?  {shown}\n"):
        api.soup(["a", name], root=toy)


def test_runs_of_two_tasks_are_refused(toy):
    config = make_toy(toy, name="other", n_train=60, n_test=12, metric="log_loss", net=NET)
    train_toy(toy, config, name="d")
    with pytest.raises(MismatchError, match=r"task\.name: 'multiclass' -> 'other'"):
        api.soup(["a", "d"], root=toy)


def test_data_that_changed_between_the_trainings_are_refused(toy):
    b = run_of(toy, "b")
    shutil.copytree(b.folder, b.folder.with_name("scaled"))
    path = run_of(toy, "scaled").unit_folder(Unit(1, 0)) / "weights.safetensors"
    tensors, meta = read_weights(path)
    save_weights(path, {**tensors, "scaling.mean": tensors["scaling.mean"] * 1.01}, meta)
    with pytest.raises(MismatchError, match=r"a/fold1-seed0 and scaled/fold1-seed0 scale mean differently"):
        api.soup(["a", "scaled"], root=toy)


def test_weights_that_have_seen_the_fold_are_refused(toy):
    b = run_of(toy, "b")
    shutil.copytree(b.folder, b.folder.with_name("swapped"))
    swapped = run_of(toy, "swapped")
    for end in (".safetensors", ".json"):
        shutil.copy(b.unit_folder(Unit(1, 0)) / f"weights{end}", swapped.unit_folder(Unit(0, 0)) / f"weights{end}")
    with pytest.raises(LeakError, match=r"left out fold 1 and has seen fold 0"):
        api.soup(["a", "swapped"], root=toy)
    assert (
        not list(toy.glob("runs/multiclass/*swapped/run.json")) or not (toy / "runs/multiclass/soup-a+swapped").exists()
    )


def test_another_fold_table_of_the_same_name_is_refused(toy, monkeypatch):
    table = load_folds(next(toy.glob("folds/multiclass/*seed0.csv")))
    monkeypatch.setattr(soup, "load_folds", lambda _: table.without(table.ids[:1].tolist()))
    with pytest.raises(MismatchError, match="was trained on another fold table"):
        api.soup(["a", "b"], name="retabled", root=toy)


# -- the folder --------------------------------------------------------------------------------------------------------


def test_a_soup_that_was_interrupted_goes_on_and_is_not_made_twice(toy, monkeypatch):
    made, _ = api.soup(["a", "c"], name="resumed", root=toy)
    whole = {path.name: path.read_bytes() for path in made.folder.rglob("weights.safetensors")}
    oof = load_predictions(made.folder / "oof.parquet").values
    for name in ("done.json", "weights.json"):
        (made.unit_folder(Unit(1, 0)) / name).unlink()
    units = []
    keep = soup._make_unit
    monkeypatch.setattr(soup, "_make_unit", lambda bench, *more: (units.append(bench.unit.name), keep(bench, *more)))
    api.soup(["a", "c"], name="resumed", root=toy)
    assert units == ["fold1-seed0"]
    assert {path.name: path.read_bytes() for path in made.folder.rglob("weights.safetensors")} == whole
    np.testing.assert_array_equal(load_predictions(made.folder / "oof.parquet").values, oof)


def test_a_taken_name_is_refused_and_no_training_goes_on_in_the_folder_of_a_soup(toy):
    made, _ = api.soup(["b", "c"], name="taken", root=toy)
    with pytest.raises(MismatchError, match="taken: is another run, blend or soup; choose a name with --name"):
        api.soup(["b", "c"], how="greedy", name="taken", root=toy)
    with pytest.raises(MismatchError, match="a: is another run, blend or soup"):
        api.soup(["b", "c"], name="a", root=toy)
    (made.unit_folder(Unit(1, 0)) / "done.json").unlink()
    with pytest.raises(MismatchError, match="was started with another config"):
        train_more(toy, "taken", "optimizer.lr=0.05", "augment={flip: {}}")


def test_soups_nest_as_they_share_the_start_of_their_members(toy):
    api.soup(["a", "b"], name="inner", root=toy)
    made, _ = api.soup(["inner", "c"], name="outer", root=toy)
    parts = [weights_of(run_of(toy, name), Unit(0, 0)) for name in ("inner", "c")]
    name = next(name for name in parts[0] if name.endswith("weight"))
    torch.testing.assert_close(weights_of(made, Unit(0, 0))[name], (parts[0][name] + parts[1][name]) / 2)


def test_targets_on_a_scale_are_predicted_on_it(tmp_path):
    config = make_toy(tmp_path, "regression", n_train=45, n_test=9, net={"train": {"epochs": 4}})
    for name, lr in (("a", 0.02), ("b", 0.03)):
        train_toy(tmp_path, config, [f"optimizer.lr={lr}"], name=name)
    _, scores = api.soup(["a", "b"], how="greedy", root=tmp_path)
    assert scores["pooled"] < 2 * min(member["pooled"] for member in scores["members"])
    assert all(
        line["score"]
        <= min(
            json.loads((tmp_path / f"runs/regression/{name}/cv.json").read_text())["folds"][at]["score"]
            for name in "ab"
        )
        for at, line in enumerate(scores["folds"])
    )
