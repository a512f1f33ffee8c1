"""`search:` in a study: ranges, trials that are given up by their folds, and a journal that goes on."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from toys import make_toy

from pipeline import api
from pipeline.base.errors import ConfigError, MismatchError
from pipeline.stages import crossval, machines
from pipeline.stages.study import page as study_page
from pipeline.stages.study import search
from pipeline.stages.study.search import Range, parse_range
from pipeline.training import unit as training_unit


def test_ranges_are_read_and_wrong_ones_are_refused_by_name() -> None:
    assert parse_range("optimizer.lr", "log 1e-4 1e-1") == Range("log", 1e-4, 0.1)
    assert parse_range("model.hidden", "log_int 8 512") == Range("log_int", 8.0, 512.0)
    assert parse_range("ema", ("x", 1, False)) == Range("choice", choices=('"x"', "1", "false"))
    for value, message in (
        ("lgo 1 2", r"search\.k: expected `log 1e-4 1e-1`.*Did you mean 'log'\?"),
        ("log 1", r"search\.k: expected"),
        ("log a b", "must be numbers"),
        ("log 0 1", "begins above 0"),
        ("uniform 2 1", "lower end below the upper"),
        ("int 1.5 3", "whole where the form is int"),
        ([], "expected"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_range("k", value)


def test_a_missing_optuna_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_toy(tmp_path, n_train=30, n_test=6)
    path = config.with_name("s.yaml")
    path.write_text(yaml.safe_dump({"base": "net.yaml", "search": {"optimizer.lr": "log 1e-3 1e-1"}}))

    def missing(name: str) -> Any:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(search.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"needs optuna.*pip install 'podium\[optuna\]'"):
        api.study(path, root=tmp_path, device="cpu", jobs=1, threads=1)


@pytest.mark.filterwarnings("ignore::Warning")
def test_a_search_goes_on_from_its_journal_and_proposes_what_an_unbroken_one_does(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    config = make_toy(tmp_path, n_train=45, n_test=6, net={"train": {"epochs": 1}})

    def run(name: str, trials: int) -> Any:
        content = {
            "base": "net.yaml",
            "search": {"optimizer.lr": "log 1e-6 1e-1", "model.hidden": [4, 8]},
            "trials": trials,
            "seeds": [0],
        }
        path = config.with_name("s.yaml")
        path.write_text(yaml.safe_dump(content))
        with ExitStack() as stack:
            for module, attribute in ((training_unit, "plot_history"), (crossval, "plot_history"), (os, "fsync")):
                stack.enter_context(mock.patch.object(module, attribute))
            for attribute in ("_scores", "_curves", "_layers", "_confusions"):
                stack.enter_context(mock.patch.object(study_page, attribute, return_value=[]))
            return api.study(path, root=tmp_path, name=name, device="cpu", jobs=1, threads=1)

    whole = run("whole", 6)
    run("broken", 3)
    again = run("broken", 6)
    labels = [point.label for point in whole.result.points]
    assert [point.label for point in again.result.points] == labels
    assert 1 <= len(labels) <= 6
    assert len(list((tmp_path / "runs" / "multiclass").glob("whole-*"))) == 6 + 1  # runs, and the folder of the page
    with mock.patch.object(search, "train_run", side_effect=AssertionError("trained again")):
        assert [point.label for point in run("whole", 6).result.points] == labels
    journal = tmp_path / "runs" / "multiclass" / "whole-study" / "search.journal"
    assert journal.is_file()
    path = config.with_name("s.yaml")
    other = {"base": "net.yaml", "search": {"optimizer.lr": "log 1e-5 1e-1"}, "trials": 2, "seeds": [0]}
    path.write_text(yaml.safe_dump(other))
    with pytest.raises(MismatchError, match="is of another search"):
        api.study(path, root=tmp_path, name="whole", device="cpu", jobs=1, threads=1)


def test_a_search_trains_as_many_seeds_at_a_time_as_there_are_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    config = make_toy(tmp_path, n_train=30, n_test=6)
    path = config.with_name("s.yaml")
    content = {"base": "net.yaml", "search": {"optimizer.lr": "log 1e-3 1e-1"}, "trials": 1, "seeds": [0, 1, 2]}
    path.write_text(yaml.safe_dump(content))
    seen: list[Any] = []

    def tried(*given: Any) -> None:
        seen.append(given[-1])
        raise KeyError

    monkeypatch.setattr(search, "_tried", tried)
    monkeypatch.setattr(machines, "count_cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for n_gpus, name in ((1, "one"), (2, "two")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda n_gpus=n_gpus: n_gpus)
        with pytest.raises(KeyError):
            api.study(path, root=tmp_path, name=name)
    with pytest.raises(KeyError):
        api.study(path, root=tmp_path, name="asked", jobs=3)
    assert [(wishes.jobs, wishes.threads) for wishes in seen] == [(1, 8), (2, 4), (3, 2)]
