"""The study of EEG nets: what it looks up on the test set is written beside what never saw it, and changes nothing."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import pytest

from pipeline.data.synthetic.eeg import EegSettings
from pipeline.models.weights import read_weights
from pipeline.records.predictions import load_predictions
from pipeline.records.runs import Run, Unit, Workspace
from pipeline.stages import crossval
from pipeline.stages.known_data.synthetic import prepare_synthetic
from pipeline.training import unit as training_unit

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import eeg

SIZE = eeg.Size(nets=("eegnet",), activations=("relu",), n_seeds=2, n_epochs=3, n_folds=2)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """No curves, and no waiting for the disk."""
    for module, name in ((training_unit, "plot_history"), (crossval, "plot_history"), (os, "fsync")):
        monkeypatch.setattr(module, name, lambda *_: None)


def prepare(root: Path) -> Path:
    settings = EegSettings(n_subjects=1, n_sessions=2, n_trials=16, depth=0.9)
    folder = root / "data" / eeg.DATA
    return prepare_synthetic(Workspace(root), eeg.DATA, folder, lambda _: None, settings=settings).experiment


def make_score(activation: str, seed: int, best: float, last: float, oof: float, once: float) -> eeg.Score:
    return eeg.Score("eegnet", activation, seed, best, 2, last, oof, once, 60.0)


def test_the_study_from_trainings_to_scores_and_once_more(tmp_path: Path) -> None:
    config = prepare(tmp_path)
    scores, curves = eeg.run_study(config, SIZE, 1, "cpu", tmp_path)
    folds, refit = (Run(tmp_path / "runs" / eeg.DATA / name) for name in ("eegnet-relu", "eegnet-relu-all"))
    assert [(score.net, score.activation, score.seed) for score in scores] == [("eegnet", "relu", n) for n in (0, 1)]
    for score, test in zip(scores, curves["eegnet", "relu"]["test"], strict=True):
        assert len(test) == 3
        assert (score.best_test, score.last_test) == (max(test), test[-1])
        assert test[score.best_epoch - 1] == score.best_test
        # What the kept weights of the last epoch predict is what the run itself predicts.
        own = load_predictions(refit.unit_folder(Unit("all", score.seed)) / "test.parquet")
        assert score.last_test == eeg.accuracy(own, eeg.answers(tmp_path))
        of_folds = [load_predictions(folds.unit_folder(Unit(fold, score.seed)) / "heldout.parquet") for fold in (0, 1)]
        parts = [eeg.accuracy(part, answers_of(part, tmp_path)) * len(part) for part in of_folds]
        assert score.oof == pytest.approx(sum(parts) / 32)
        assert score.seconds > 0
    assert not list(tmp_path.rglob("epoch-*"))
    assert len(curves["eegnet", "relu"]["held out"]) == 4
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("weights.safetensors")}
    assert len(weights) == 6
    again, _ = eeg.run_study(config, SIZE, 1, "cpu", tmp_path)
    assert again == scores
    assert {path: path.stat().st_mtime_ns for path in weights} == weights


def answers_of(part: object, root: Path) -> Path:
    """Write the labels of the rows of some predictions, as the whole training table holds more."""
    with (root / "data" / eeg.DATA / "train.csv").open() as file:
        label_of = {row["id"]: row["label"] for row in csv.DictReader(file)}
    path = root / "part.csv"
    path.write_text("id,label\n" + "".join(f"{name},{label_of[name]}\n" for name in part.ids))  # type: ignore[attr-defined]
    return path


def test_a_curve_is_made_epoch_by_epoch_from_the_kept_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = prepare(tmp_path)
    size = eeg.Size(nets=("eegnet",), activations=("relu",), n_seeds=1, n_epochs=2, n_folds=2)
    read: list[str] = []

    def noted(path: Path) -> object:
        read.append(path.name)
        return read_weights(path)

    monkeypatch.setattr(eeg, "read_weights", noted)
    eeg.run_study(config, size, 1, "cpu", tmp_path)
    assert read == ["epoch-00000.safetensors", "epoch-00001.safetensors"]


def test_the_table_shows_what_looking_brings() -> None:
    scores = [
        make_score("relu", 0, 0.88, 0.85, 0.83, 0.84),
        make_score("relu", 1, 0.86, 0.85, 0.81, 0.84),
        make_score("elu", 0, 0.80, 0.80, 0.70, 0.75),
        make_score("elu", 1, 0.80, 0.80, 0.70, 0.75),
    ]
    lines = eeg.markdown(scores, SIZE).splitlines()
    assert "3 epochs, 2 folds, 2 seeds" in lines[0]
    assert lines[4] == "| eegnet | relu | 87.00 ± 1.41 | 85.00 ± 0.00 | +2.00 | 82.00 ± 1.41 | 84.00 ± 0.00 |"
    assert lines[5] == "| eegnet | elu | 80.00 ± 0.00 | 80.00 ± 0.00 | +0.00 | 70.00 ± 0.00 | 75.00 ± 0.00 |"
    assert "took 4 minutes of one core" in lines[-1]


def test_csv_and_picture(tmp_path: Path) -> None:
    scores = [make_score("relu", 0, 0.88, 1 / 3, 0.83, 0.84), make_score("elu", 0, 0.8, 0.8, 0.7, 0.75)]
    eeg.write_csv(tmp_path / "eeg.csv", scores)
    with (tmp_path / "eeg.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["last_test"]) for row in rows] == [1 / 3, 0.8]
    curve = {"test": [[0.5, 0.88]], "held out": [[0.5, 0.8], [0.4, 0.7]], "training loss": [[0.7, 0.5], [0.7, 0.6]]}
    eeg.plot_curves(tmp_path / "eeg.png", {("eegnet", "relu"): curve, ("eegnet", "elu"): curve}, scores)
    assert (tmp_path / "eeg.png").read_bytes()[:4] == b"\x89PNG"
