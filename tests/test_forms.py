"""Signals and arrays as hosts lay them out: every layout, missing values and length ends in one stored form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toys import make_toy, train_toy

from pipeline.base.errors import ConfigError, DataError, PodiumError
from pipeline.data.dataset import Dataset
from pipeline.data.forms import StoredForm, cut_or_pad, fill_nan, formed, laid_out, likely_layout
from pipeline.data.sources import ArrayItems, FileItems, PixelItems
from pipeline.data.store import open_store, store_key
from pipeline.records.config import load_config
from pipeline.records.experiment import Input
from pipeline.records.record import tuples
from pipeline.records.runs import Workspace
from pipeline.records.task import Task
from pipeline.stages.checks.sample import take_sample
from pipeline.training.misfits import refuse_misfits

RNG = np.random.default_rng(0)
SIGNAL = RNG.normal(size=(3, 20)).astype(np.float32)
LAST = StoredForm("signal", layout="channels_last")


def silent(_: str) -> None:
    pass


def stored(item: np.ndarray, form: StoredForm) -> np.ndarray:
    return formed(laid_out(item, form), form, "item 7")


@pytest.mark.parametrize("layout", [None, "channels_first", "channels_last"])
@pytest.mark.parametrize("place", [None, 0, 1, 2])
def test_signals_of_every_layout_become_channels_by_time(layout: Any, place: int | None) -> None:
    item = SIGNAL.T if layout == "channels_last" else SIGNAL
    item = item if place is None else np.expand_dims(item, place)
    np.testing.assert_array_equal(stored(item, StoredForm("signal", layout=layout)), SIGNAL)


@pytest.mark.parametrize("layout", [None, "channels_last"])
def test_a_single_row_of_values_is_one_channel(layout: Any) -> None:
    form = StoredForm("signal", layout=layout)
    assert stored(SIGNAL[0], form).shape == (1, 20)
    assert stored(SIGNAL[:1], form).shape == (1, 20)
    assert stored(SIGNAL[:1].T, LAST).shape == (1, 20)


@pytest.mark.parametrize("shape", [(2, 3, 20), (1, 2, 3, 20)])
def test_signals_of_more_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"item 7: expected a signal of \(T,\), \(C, T\) or \(1, C, T\), found shape"):
        stored(np.zeros(shape), StoredForm("signal"))


def test_images_of_any_channel_count_follow_the_stated_layout() -> None:
    image = RNG.normal(size=(20, 30, 12)).astype(np.float32)
    np.testing.assert_array_equal(stored(image, StoredForm("image", layout="channels_last")), image.transpose(2, 0, 1))
    np.testing.assert_array_equal(stored(image, StoredForm("image", layout="channels_first")), image)
    narrow = RNG.normal(size=(12, 30, 3)).astype(np.float32)
    np.testing.assert_array_equal(stored(narrow, StoredForm("image")), narrow.transpose(2, 0, 1))
    np.testing.assert_array_equal(stored(narrow, StoredForm("image", layout="channels_first")), narrow)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(3, 100), (3, 120)], ("channels_first", True)),
        ([(100, 3), (120, 3)], ("channels_last", True)),
        ([(1, 100, 3), (1, 120, 3)], ("channels_last", True)),
        ([(3, 100), (3, 100)], ("channels_first", False)),
        ([(100, 3)], ("channels_last", False)),
        ([(1, 2, 750)], ("channels_first", False)),
        ([(271, 281)], (None, False)),
        ([(3, 100), (4, 120)], (None, False)),
        ([(2, 3, 4)], (None, False)),
        ([], (None, False)),
    ],
)
def test_the_layout_is_recognised_where_it_can_be(
    shapes: list[tuple[int, ...]], expected: tuple[str | None, bool]
) -> None:
    assert likely_layout(shapes) == expected


# -- missing values ----------------------------------------------------------------------------------------------------


def test_missing_values_become_the_mean_of_their_channel_or_zero() -> None:
    item = np.array([[1, np.nan, 3], [4, 5, np.nan]], np.float32)
    np.testing.assert_array_equal(fill_nan(item, "channel_mean", "a"), [[1, 2, 3], [4, 5, 4.5]])
    np.testing.assert_array_equal(fill_nan(item, "zero", "a"), [[1, 0, 3], [4, 5, 0]])
    np.testing.assert_array_equal(fill_nan(item, "error", "a"), item)
    assert np.isnan(item).sum() == 2
    assert fill_nan(item, "channel_mean", "a").dtype == np.float32
    picture = np.stack([item, item])
    np.testing.assert_allclose(fill_nan(picture, "channel_mean", "a")[1], [[1, 3.25, 3], [4, 5, 3.25]])


def test_infinite_values_are_never_filled_and_count_in_no_mean() -> None:
    item = np.array([[np.inf, np.nan, 3]], np.float32)
    np.testing.assert_array_equal(fill_nan(item, "channel_mean", "a"), [[np.inf, 3, 3]])


def test_a_channel_without_any_value_has_no_mean() -> None:
    item = np.array([[1, 2], [np.nan, np.nan]], np.float32)
    with pytest.raises(DataError, match=r"a\.npy: channel 1 has no values to take a mean of; take input\.nan: zero"):
        fill_nan(item, "channel_mean", "a.npy")
    np.testing.assert_array_equal(fill_nan(item, "zero", "a"), [[1, 2], [0, 0]])


def test_whole_numbers_are_left_alone() -> None:
    item = np.ones((2, 3), np.uint8)
    assert fill_nan(item, "channel_mean", "a") is item


# -- length ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "align", "expected"),
    [
        (5, "start", [1, 2, 3, 4, 5]),
        (3, "start", [1, 2, 3]),
        (3, "middle", [2, 3, 4]),
        (2, "middle", [2, 3]),
        (3, "end", [3, 4, 5]),
        (8, "start", [1, 2, 3, 4, 5, 0, 0, 0]),
        (8, "middle", [0, 1, 2, 3, 4, 5, 0, 0]),
        (8, "end", [0, 0, 0, 1, 2, 3, 4, 5]),
    ],
)
def test_signals_are_cut_and_padded_where_it_is_said(length: int, align: Any, expected: list[int]) -> None:
    signal = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]], np.float32)
    found = cut_or_pad(signal, length, align)
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], np.where(np.array(expected) > 0, np.array(expected) + 5, 0))
    assert found.dtype == np.float32


def test_unequal_lengths_are_an_error_that_says_how(tmp_path: Path) -> None:
    for number, length in enumerate((20, 25)):
        np.save(tmp_path / f"{number}.npy", np.zeros((3, length), np.float32))
        np.save(tmp_path / f"t{number}.npy", np.zeros((length, 3), np.float32))
    source = FileItems((tmp_path / "0.npy", tmp_path / "1.npy"))
    with pytest.raises(DataError, match=r"State input\.length: N to cut and pad all signals to N samples"):
        open_store(source, StoredForm("signal"), tmp_path, report=silent)
    turned = FileItems((tmp_path / "t0.npy", tmp_path / "t1.npy"))
    with pytest.raises(DataError, match=r"it is time and not channels: state layout: channels_last in the task"):
        open_store(turned, StoredForm("signal"), tmp_path, report=silent)
    np.save(tmp_path / "1.npy", np.zeros((4, 20), np.float32))
    np.save(tmp_path / "0.npy", np.zeros((3, 25), np.float32))
    with pytest.raises(DataError, match="They differ in their channels, which cannot be mended"):
        open_store(source, StoredForm("signal"), tmp_path, report=silent)


# -- the store ---------------------------------------------------------------------------------------------------------


def test_whatever_changes_what_is_stored_changes_its_key(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SIGNAL)
    source = FileItems((tmp_path / "a.npy",))
    forms = [
        StoredForm("signal"),
        LAST,
        StoredForm("signal", nan="zero"),
        StoredForm("signal", nan="channel_mean"),
        StoredForm("signal", length=8),
        StoredForm("signal", length=8, align="end"),
        StoredForm("signal", columns=("a",)),
        StoredForm("signal", columns=("b",)),
        StoredForm("signal", sample_rate_hz=100.0),
    ]
    assert len({store_key(source, form) for form in forms}) == len(forms)
    assert StoredForm("image", (4, 4)).plain() == {"input": "image", "size": (4, 4)}  # the rest is at its default


@pytest.mark.parametrize("suffix", ["npy", "npz", "pt"])
def test_one_array_of_all_items_in_every_layout(tmp_path: Path, suffix: str) -> None:
    signals = RNG.normal(size=(5, 3, 20)).astype(np.float32)
    array, path = signals.transpose(0, 2, 1)[:, None], tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, array)
    elif suffix == "npz":
        np.savez(path, signal=array)
    else:
        torch.save(torch.from_numpy(array.copy()), path)
    store = open_store(ArrayItems(path), LAST, tmp_path / "cache", report=silent)
    np.testing.assert_array_equal(store.array, signals)


def test_columns_of_a_table_in_every_layout(tmp_path: Path) -> None:
    cells = RNG.integers(0, 256, (5, 24))
    pd.DataFrame(cells, columns=[f"p{n}" for n in range(24)]).to_csv(tmp_path / "a.csv", index=False)
    source = PixelItems(tmp_path / "a.csv", tuple(f"p{n}" for n in range(24)), (2, 4, 3))
    store = open_store(source, StoredForm("image", layout="channels_last"), tmp_path / "cache", report=silent)
    np.testing.assert_array_equal(store.array, cells.reshape(5, 2, 4, 3).transpose(0, 3, 1, 2))


# -- a competition -----------------------------------------------------------------------------------------------------


def table_of(signal: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(signal.T, columns=["c3", "c4"])


def save_tensor(path: Path, signal: np.ndarray) -> None:
    torch.save(torch.from_numpy(signal), path)


def save_csv_with_more(path: Path, signal: np.ndarray) -> None:
    table = table_of(signal)[["c4", "c3"]]
    table.insert(0, "id", path.stem)
    table.to_csv(path, index=False)


VARIANTS: dict[str, tuple[str, Callable[[Path, np.ndarray], object], dict[str, Any]]] = {
    "turned": (".npy", lambda path, signal: np.save(path, signal.T), {"layout": "channels_last"}),
    "four axes": (".npz", lambda path, signal: np.savez(path, x=signal.T[None]), {"layout": "channels_last"}),
    "tensors": (".pt", save_tensor, {}),
    "CSV": (".csv", lambda path, signal: table_of(signal).to_csv(path, index=False), {}),
    "CSV with row numbers": (".csv", lambda path, signal: table_of(signal).to_csv(path), {}),
    "TSV without names": (".tsv", lambda path, signal: np.savetxt(path, signal.T, delimiter="\t"), {}),
    "text": (".txt", lambda path, signal: np.savetxt(path, signal.T, fmt="  %.9e"), {}),
    "Parquet": (".parquet", lambda path, signal: table_of(signal).to_parquet(path), {}),
    "named columns": (".csv", save_csv_with_more, {"channels": ["c3", "c4"]}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_competition_of_signals_is_the_same_in_every_layout(tmp_path: Path, variant: str) -> None:
    suffix, save, keys = VARIANTS[variant]
    config = make_toy(tmp_path, input="signal", n_train=6, n_test=3)
    plain = load_config(config)
    data = tmp_path / plain.task.data
    for path in data.glob("t*/*.npy"):
        other = data / "other" / path.parent.name / f"{path.stem}{suffix}"
        other.parent.mkdir(parents=True, exist_ok=True)
        save(other, np.load(path))
    blocks = plain.task.plain()
    for part in ("train", "test"):
        blocks[part]["files"] = [f"other/{part}/{{id}}{suffix}"]
    task = Task.model_validate(tuples(blocks | keys))
    found = [
        Dataset(each, Input(), data, tmp_path / "cache", 1, silent, "quiet").train_array()
        for each in (plain.task, task)
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


def test_gaps_and_lengths_are_mended_only_when_told(tmp_path: Path) -> None:
    config = make_toy(tmp_path, input="signal", n_train=60, n_test=6)
    data = tmp_path / "data/multiclass"
    paths = sorted(data.glob("train/*.npy"))
    with_gap, longer = np.load(paths[0]), np.load(paths[1])
    with_gap[0, 3] = np.nan
    np.save(paths[0], with_gap)
    with pytest.raises(DataError, match=r"1 stored values are NaN or infinite; input\.nan: channel_mean or zero fills"):
        train_toy(tmp_path, config)
    np.save(paths[1], np.concatenate([longer, longer], axis=1))
    with pytest.raises(DataError, match=r"State input\.length: N"):
        train_toy(tmp_path, config, ["input.nan=zero"])
    run = train_toy(tmp_path, config, ["input.nan=channel_mean", "input.length=32", "train.epochs=1"])
    assert len(run.done_units()) == 3


def test_the_copy_that_podium_check_takes_has_the_stored_form(tmp_path: Path) -> None:
    config = make_toy(tmp_path, input="signal", n_train=60, n_test=6, task={"layout": "channels_last"})
    for path in (tmp_path / "data/multiclass").glob("t*/*.npy"):
        np.save(path, np.load(path).T)
    loaded = load_config(config, ["input.length=20", "input.align=end", "input.nan=zero"])
    sample = take_sample(Workspace(tmp_path), loaded, tmp_path / "copy", 1, silent)
    assert sample.array.shape[1:] == (2, 20)
    refuse_misfits(sample.config.task, sample.config.experiment)
    copy = sample.config.experiment.input
    assert (copy.length, copy.align, copy.nan) == (None, "start", "error")
    written = np.load(tmp_path / "copy/data/train/0.npy")
    np.testing.assert_array_equal(written, sample.array[0])
    assert sample.config.task.layout == "channels_first"


# -- keys that are never read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "files", "message"),
    [
        ({"layout": "channels_last"}, "a/{id}.png", r"layout: is read only by items in arrays or columns"),
        ({"channels": ["a"]}, "a/{id}.csv", r"channels: is read only by input: signal with a table"),
        ({"channels": ["a"], "input": "signal"}, "a/{id}.npy", r"channels: is read only by input: signal with a table"),
        ({"dicom": {"bits": 8}}, "a/{id}.png", r"dicom: is read only by images in DICOM files"),
        ({"audio": {"sample_rate_hz": 8000.0, "seconds": 1.0}}, "a/{id}.png", r"audio: is read only by input: image"),
    ],
)
def test_keys_of_other_kinds_of_files_are_refused(keys: dict[str, Any], files: str, message: str) -> None:
    task = {"name": "a", "data": "a", "kind": "binary", "target": "y", "id": "id", "metric": "accuracy"}
    train = {"table": "a.csv", "files": files}
    with pytest.raises(ValueError, match=message):
        Task.model_validate(tuples({**task, "train": train, **keys}))


@pytest.mark.parametrize(
    ("keys", "suffix"),
    [
        ({"layout": "channels_last"}, ".npy"),
        ({"channels": ["a"], "input": "signal"}, ".csv"),
        ({"dicom": {"bits": 8}}, ".dcm"),
        ({"audio": {"sample_rate_hz": 8000.0, "seconds": 1.0}}, ".WAV"),
    ],
)
def test_keys_of_the_files_at_hand_are_taken(keys: dict[str, Any], suffix: str) -> None:
    task = {"name": "a", "data": "a", "kind": "binary", "target": "y", "id": "id", "metric": "accuracy"}
    for template in (f"a/{{id}}{suffix}", "{file}"):
        train = {"table": "a.csv", "files": template}
        found = Task.model_validate(tuples({**task, "train": train, **keys}))
        assert Task.model_validate(tuples(found.plain())) == found


def test_dicom_reads_its_own_windows_only_without_a_stated_one() -> None:
    task = {"name": "a", "data": "a", "kind": "binary", "target": "y", "id": "id", "metric": "accuracy"}
    dicom = {"window": (40.0, 400.0), "own_windows": False}
    with pytest.raises(ValueError, match=r"own_windows: is never read with window:"):
        Task.model_validate(tuples({**task, "train": {"table": "a.csv", "files": "{id}.dcm"}, "dicom": dicom}))


@pytest.mark.parametrize("keys", [{"align": "end"}, {"length": 0}, {"nan": "mean"}])
def test_settings_of_length_and_gaps_are_checked(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(keys))):
        Input(**keys)


def test_lengths_are_refused_for_images(tmp_path: Path) -> None:
    config = load_config(make_toy(tmp_path), ["input.length=5"])
    with pytest.raises(ConfigError, match=r"input\.length: is never read, because the task's input is `image`"):
        refuse_misfits(config.task, config.experiment)
    assert issubclass(ConfigError, PodiumError)
