"""`podium data`: copies are checked and never written to; each set becomes a task that the pipeline reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import read_text_table

from pipeline import api
from pipeline.base.errors import ConfigError, DataError
from pipeline.base.files import read_json
from pipeline.commands import run as run_command
from pipeline.data.dataset import Dataset
from pipeline.data.synthetic.eeg import EegSettings
from pipeline.data.synthetic.meg import MegSettings
from pipeline.data.tables import load_test, load_train
from pipeline.records.config import load_config, load_task, read_yaml, validate
from pipeline.records.runs import Workspace
from pipeline.records.task import Source
from pipeline.stages.known_data import bci3b, things_meg
from pipeline.stages.known_data.checks import KnownArray, KnownFile, check_copies
from pipeline.stages.known_data.prepared import Prepared
from pipeline.stages.known_data.synthetic import answers_of, prepare_synthetic

SMALL_EEG = EegSettings(n_subjects=2, n_sessions=2, n_trials=8)
SMALL_MEG = MegSettings(n_subjects=2, n_classes=6, n_repeats=3, n_test_repeats=2, n_channels=5, n_samples=40)
SIZES = {"train": 12, "val": 5, "test": 4}


def quiet(_: str) -> None:
    pass


def columns(path: Path) -> dict[str, list[str]]:
    """Return the columns of a CSV with every cell as text."""
    return {str(name): cells.tolist() for name, cells in read_text_table(path).items()}


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Return what lies in a folder: times and contents of all files."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(folder.rglob("*"))
    }


# ---- BCI III-IIIb


def write_bci3b(folder: Path, n_trials: int = 110) -> tuple[KnownFile, ...]:
    """Write small stand-ins for the four files; return what they are, as the product's own table says it."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, known in enumerate(bci3b.FILES):
        rng = np.random.default_rng(number)
        signal = rng.normal(0, 8, (n_trials, 750, 2))
        signal[3, 10:15, 0] = np.nan
        labels = np.resize([1, 2, 2, 1], n_trials)
        np.savez(folder / known.name, signal=signal, label=labels)
        arrays = tuple(replace(array, shape=(n_trials, *array.shape[1:])) for array in known.arrays)
        digest = hashlib.sha256((folder / known.name).read_bytes()).hexdigest()
        files.append(KnownFile(known.name, arrays, digest))
    return tuple(files)


def prepare_bci3b(
    tmp_path: Path, say: Callable[[str], None] = quiet, files: tuple[KnownFile, ...] | None = None, **wishes: Any
) -> Prepared:
    files = files or write_bci3b(tmp_path / "copies")
    return bci3b.prepare_bci3b(Workspace(tmp_path), tmp_path / "copies", say, files=files, **wishes)


def test_the_published_files_are_known() -> None:
    assert [file.name for file in bci3b.FILES] == ["S4b_train.npz", "S4b_test.npz", "X11b_train.npz", "X11b_test.npz"]
    assert all(len(file.sha256 or "") == 64 for file in bci3b.FILES)
    assert len({file.sha256 for file in bci3b.FILES}) == 4
    assert {array.shape for file in bci3b.FILES for array in file.arrays} == {(540, 750, 2), (540,)}
    shapes = {file.name: file.arrays[0].shape for file in things_meg.FILES}
    assert shapes["train_X.pt"] == (65_728, 271, 281)
    assert shapes["test_subject_idxs.pt"] == (16_432,)
    assert "test_y.pt" not in shapes
    assert len(shapes) == 8


def test_bci3b_becomes_a_task_of_both_subjects_and_the_copies_stay_untouched(tmp_path: Path) -> None:
    files = write_bci3b(tmp_path / "copies")
    before = tree(tmp_path / "copies")
    made = prepare_bci3b(tmp_path, files=files)
    assert tree(tmp_path / "copies") == before
    task = load_task(made.task)
    assert (task.kind, task.input, task.sample_rate_hz, task.group) == ("multiclass", "signal", 125, "block")
    data = Workspace(tmp_path).data(task)
    train, test = load_train(task, data), load_test(task, data, ("1", "2"))
    assert len(train.rows) == len(test.rows) == 220
    assert train.rows.names == ("1", "2")
    assert train.rows.groups is not None
    assert set(train.rows.groups) == {f"{subject}_train_{n}" for subject in ("S4b", "X11b") for n in range(3)}
    signals = np.load(data / "train.npy")
    assert (signals.shape, signals.dtype) == ((220, 2, 750), np.float32)
    with np.load(tmp_path / "copies" / "X11b_train.npz") as content:
        place = train.rows.ids.tolist().index("X11b_train_007")
        np.testing.assert_array_equal(signals[place], content["signal"][7].T.astype(np.float32))
        assert train.rows.names[train.rows.targets[place]] == str(content["label"][7])
    answers = columns(tmp_path / "data" / "bci3b-answers" / "answers.csv")
    assert answers["id"] == test.rows.ids.tolist()
    assert answers["label"][:4] == ["1", "2", "2", "1"]
    assert "label" not in columns(data / "test.csv")
    assert ("missing values", "train 10, test 10") in made.facts


def test_the_written_experiment_reads_the_made_up_copies_without_missing_values(tmp_path: Path) -> None:
    made = prepare_bci3b(tmp_path)
    config = load_config(made.experiment)
    data = Dataset(config.task, config.experiment.input, tmp_path / config.task.data, tmp_path / ".cache", 1, quiet)
    items = data.train_items("cpu")
    assert items.shape == (2, 750)
    assert bool(items.fetch(np.arange(220)).isfinite().all())
    assert config.experiment.model.name == "eegnet"


def test_the_same_again_changes_nothing_and_an_edited_task_is_kept(tmp_path: Path) -> None:
    prepare_bci3b(tmp_path)
    task = tmp_path / "configs" / "bci3b" / "task.yaml"
    task.write_text(task.read_text().replace("metric: accuracy", "metric: log_loss"))
    said: list[str] = []
    prepare_bci3b(tmp_path, said.append)
    assert "log_loss" in task.read_text()
    assert [line for line in said if f"{task} says otherwise and was kept" in line]
    prepare_bci3b(tmp_path, overwrite=True)
    assert "log_loss" not in task.read_text()


def test_another_name_goes_everywhere(tmp_path: Path) -> None:
    made = prepare_bci3b(tmp_path, name="hands")
    assert load_task(made.task).name == "hands"
    assert made.task == tmp_path / "configs" / "hands" / "task.yaml"
    assert (tmp_path / "data" / "hands-answers" / "answers.csv").is_file()


def test_files_that_are_missing_are_named_with_the_place_where_they_are_published(tmp_path: Path) -> None:
    files = write_bci3b(tmp_path / "copies")
    (tmp_path / "copies" / "S4b_test.npz").rename(tmp_path / "copies" / "S4b_tset.npz")
    with pytest.raises(DataError) as error:
        bci3b.prepare_bci3b(Workspace(tmp_path), tmp_path / "copies", quiet, files=files)
    assert "1 of 4 files are not there" in str(error.value)
    assert f"{tmp_path / 'copies' / 'S4b_test.npz'}: missing. Did you mean 'S4b_tset.npz'?" in str(error.value)
    assert "https://www.bbci.de/competition/iii/" in str(error.value)
    assert not (tmp_path / "data").exists()
    with pytest.raises(DataError, match=r"nowhere: no such folder\. The recordings"):
        bci3b.prepare_bci3b(Workspace(tmp_path), tmp_path / "nowhere", quiet)


def test_wrong_shapes_and_types_are_named_all_at_once(tmp_path: Path) -> None:
    files = write_bci3b(tmp_path / "copies")
    np.savez(tmp_path / "copies" / "S4b_train.npz", signal=np.zeros((110, 2, 750)), label=np.zeros(110, int))
    np.savez(tmp_path / "copies" / "X11b_train.npz", signal=np.zeros((110, 750, 2), int), lable=np.zeros(110, int))
    with pytest.raises(DataError) as error:
        check_copies(tmp_path / "copies", files, "Get them there.", quiet, any_bytes=True)
    message = str(error.value)
    assert "S4b_train.npz: signal: expected shape (110, 750, 2), found (110, 2, 750)" in message
    assert "X11b_train.npz: signal: expected floating numbers, found int64" in message
    assert "no array 'label'" in message or "label" in message.split("X11b_train.npz")[-1]
    assert message.endswith("Get them there.")


def test_other_bytes_are_refused_unless_they_are_allowed(tmp_path: Path) -> None:
    files = write_bci3b(tmp_path / "copies")
    path = tmp_path / "copies" / "X11b_test.npz"
    with np.load(path) as content:
        np.savez_compressed(path, **content)
    said: list[str] = []
    with pytest.raises(DataError, match=rf"{path}: expected SHA-256 {files[3].sha256}, found [0-9a-f]{{64}}"):
        check_copies(tmp_path / "copies", files, "", said.append)
    assert not said
    check_copies(tmp_path / "copies", files, "", said.append, any_bytes=True)
    assert "other bytes than the known ones" in said[0]
    assert str(path) in said[0]


def test_copies_in_the_workspaces_data_folder_are_not_written_into(tmp_path: Path) -> None:
    files = write_bci3b(tmp_path / "data")
    before = tree(tmp_path / "data")
    with pytest.raises(DataError, match="would be written into it; move your copies"):
        bci3b.prepare_bci3b(Workspace(tmp_path), tmp_path / "data", quiet, files=files)
    assert tree(tmp_path / "data") == before


# ---- THINGS-MEG


def write_things_meg(folder: Path) -> tuple[KnownFile, ...]:
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for split, n_trials in SIZES.items():
        torch.save(torch.randn(n_trials, 3, 20, generator=generator), folder / f"{split}_X.pt")
        torch.save(torch.arange(n_trials) % 4, folder / f"{split}_subject_idxs.pt")
        if split != "test":
            torch.save(torch.arange(n_trials) * 7 % 12, folder / f"{split}_y.pt")
    return things_meg.known_files(SIZES, 3, 20)


def test_things_meg_reads_the_arrays_where_they_are(tmp_path: Path) -> None:
    files = write_things_meg(tmp_path / "copies")
    before = tree(tmp_path / "copies")
    said: list[str] = []
    made = things_meg.prepare_things_meg(Workspace(tmp_path), tmp_path / "copies", said.append, files=files)
    assert tree(tmp_path / "copies") == before
    assert "no checksum is published for train_X.pt" in said[0]
    config = load_config(made.experiment)
    task = config.task
    assert (task.metric.name, task.metric.options, task.format) == ("top_k_accuracy", {"k": 10}, "array")
    data = Dataset(task, config.experiment.input, tmp_path / task.data, tmp_path / ".cache", 1, quiet)
    assert data.train_items("cpu").shape == (3, 20)
    assert data.train.rows.ids.tolist() == [f"train_{n:05d}" for n in range(12)]
    assert [data.train.rows.names[target] for target in data.train.rows.targets] == [str(n * 7 % 12) for n in range(12)]
    val = validate(Source, read_yaml(made.task.with_name("val.yaml")), "val.yaml")
    rows, items = data.other(val, "cpu")
    assert len(rows) == 5
    stored = torch.load(tmp_path / "copies" / "val_X.pt", weights_only=True)
    assert torch.equal(items.fetch(np.arange(5)), stored)
    train = columns(tmp_path / task.data / "train.csv")
    assert train["subject"] == [str(n % 4) for n in range(12)]
    assert set(columns(tmp_path / task.data / "test.csv")) == {"id", "subject"}
    assert config.experiment.model.options == {"width": 512, "dropout": 0.4}


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    files = write_things_meg(tmp_path / "copies")
    torch.save(torch.tensor([0, 1, 2000, 3, -1]), tmp_path / "copies" / "val_y.pt")
    with pytest.raises(DataError, match=r"val_y\.pt: expected 0\.\.1853, found 2000, -1 \(2 rows\)"):
        things_meg.prepare_things_meg(Workspace(tmp_path), tmp_path / "copies", quiet, files=files)


def test_a_file_that_is_no_tensor_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "train_X.pt").write_bytes(b"not a tensor")
    with pytest.raises(DataError, match=r"train_X\.pt: "):
        check_copies(folder, [KnownFile("train_X.pt", (KnownArray((1,)),))], "", quiet)


# ---- made-up sets


@pytest.mark.parametrize(
    ("kind", "settings", "in_shape"),
    [("synthetic-eeg", SMALL_EEG, (2, 750)), ("synthetic-meg", SMALL_MEG, (5, 40))],
)
def test_a_made_up_set_is_a_competition_from_folds_to_submission(
    tmp_path: Path, kind: str, settings: EegSettings | MegSettings, in_shape: tuple[int, int]
) -> None:
    folder = tmp_path / "data" / "made-up"
    made = prepare_synthetic(Workspace(tmp_path), kind, folder, quiet, name="toy", settings=settings)
    task = load_task(made.task)
    assert (task.name, task.data) == ("toy", "data/made-up")
    small = ["model={name: conv1d, width: 4}", "train.epochs=1", "folds.n_folds=2"]
    run = api.train(made.experiment, small, name="try", device="cpu", jobs=1, threads=1, show="quiet", root=tmp_path)
    assert len(run.done_units()) == 2
    submission = api.submit("toy/try", root=tmp_path)
    answers = columns(answers_of(folder))
    if kind == "synthetic-eeg":
        assert columns(submission)["id"] == answers["id"]
        assert set(answers["label"]) == {"left", "right"}
    else:
        assert np.load(submission).shape == (len(answers["id"]), 6)
    assert np.load(folder / "train.npy").shape[1:] == in_shape
    assert "label" not in columns(folder / "test.csv")


def test_sessions_are_the_groups_of_eeg_and_test_sessions_are_new(tmp_path: Path) -> None:
    made = prepare_synthetic(Workspace(tmp_path), "synthetic-eeg", tmp_path / "eeg", quiet, settings=SMALL_EEG)
    table, _ = api.folds(made.experiment, ["folds.n_folds=2"], root=tmp_path)
    train = columns(tmp_path / "eeg" / "train.csv")
    test = columns(tmp_path / "eeg" / "test.csv")
    assert not set(train["session"]) & set(test["session"])
    fold_of: dict[str, set[int]] = {}
    for session, fold in zip(train["session"], table.aligned_to(train["id"]).fold.tolist(), strict=True):
        fold_of.setdefault(session, set()).add(fold)
    assert sorted(map(len, fold_of.values())) == [1, 1, 1, 1]


def test_the_same_seed_stays_as_it_is_and_another_is_refused_without_overwrite(tmp_path: Path) -> None:
    workspace, folder = Workspace(tmp_path), tmp_path / "eeg"
    prepare_synthetic(workspace, "synthetic-eeg", folder, quiet, settings=SMALL_EEG)
    before = tree(folder)
    prepare_synthetic(workspace, "synthetic-eeg", folder, quiet, settings=SMALL_EEG)
    assert tree(folder) == before
    with pytest.raises(DataError, match="eeg: holds something else already"):
        prepare_synthetic(workspace, "synthetic-eeg", folder, quiet, seed=1, settings=SMALL_EEG)
    assert tree(folder) == before
    prepare_synthetic(workspace, "synthetic-eeg", folder, quiet, seed=1, settings=SMALL_EEG, overwrite=True)
    note = read_json(folder / "made.json")
    assert note["seed"] == 1
    assert "no recordings" in note["what"]
    assert tree(folder)[str(folder / "train.npy")][1] != before[str(folder / "train.npy")][1]


def test_a_set_that_was_not_written_whole_is_written_again(tmp_path: Path) -> None:
    workspace, folder = Workspace(tmp_path), tmp_path / "meg"
    prepare_synthetic(workspace, "synthetic-meg", folder, quiet, settings=SMALL_MEG)
    answers = answers_of(folder).read_text()
    answers_of(folder).unlink()
    with pytest.raises(DataError, match="--overwrite"):
        prepare_synthetic(workspace, "synthetic-meg", folder, quiet, settings=SMALL_MEG)
    prepare_synthetic(workspace, "synthetic-meg", folder, quiet, settings=SMALL_MEG, overwrite=True)
    assert answers_of(folder).read_text() == answers


# ---- the command


def test_the_command_writes_and_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["data", "synthetic-meg", "--root", str(tmp_path), "--seed", "5"]) == 0
    out = capsys.readouterr().out
    assert "2,400" in out
    assert f"next: podium train {tmp_path / 'configs' / 'synthetic-meg' / 'meg_residual.yaml'}" in out
    assert read_json(tmp_path / "data" / "synthetic-meg" / "made.json")["seed"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synthetic-eg"], "is no known data set. Did you mean 'synthetic-"),
        (["bci3b"], "give the folder with your copies: podium data bci3b PATH. The recordings"),
        (["things-meg", ".", "--seed", "1"], "--seed: is read by made-up data only (synthetic-eeg, synthetic-meg)"),
        (["synthetic-eeg", "x", "--any-bytes"], "--any-bytes: is read by copies only (bci3b, things-meg)"),
        (["synthetic-eeg", "--seed", "-1"], "--seed -1: is below 0"),
    ],
)
def test_wishes_that_do_not_fit_are_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        run_command(["data", *arguments, "--root", str(tmp_path)])
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_eegnet_lands_at_80_to_90_percent_on_sessions_that_it_never_saw(tmp_path: Path) -> None:
    made = api.data("synthetic-eeg", root=tmp_path)
    run = api.train(made.experiment, folds=[0, 1], device="cpu", jobs=1, threads=1, show="quiet", root=tmp_path)
    scores = [line["score"] for line in read_json(run.folder / "cv.json")["folds"]]
    assert 0.8 < np.mean(scores) < 0.9
