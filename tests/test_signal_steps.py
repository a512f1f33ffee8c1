"""What is done to signals before they are stored, and what is measured on the training part of a fold alone."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toys import make_toy, train_toy

from pipeline.base.errors import ConfigError, DataError
from pipeline.data.batches import Items, channel_stats, samples_of
from pipeline.data.channel_faults import ChannelTally, describe_silent, silent_channels
from pipeline.data.dataset import Dataset
from pipeline.data.filters import change_rate, keep_band, take_out
from pipeline.data.forms import StoredForm, formed, stored_rate
from pipeline.data.preprocessing import apply_steps, center_on_window, refer_to_average
from pipeline.data.robust import robust_stats
from pipeline.data.sources import ArrayItems
from pipeline.data.store import open_store, store_key
from pipeline.models.weights import read_weights
from pipeline.records.config import load_config, validate
from pipeline.records.experiment import Experiment
from pipeline.records.signal_steps import BandPass, Notch, SignalSteps
from pipeline.records.task import Task
from pipeline.training.misfits import refuse_misfits
from pipeline.training.scaling import Scaling, prepare

RNG = np.random.default_rng(0)
RATE = 200.0
TIME = np.arange(600) / RATE


def silent(_: str) -> None:
    pass


def wave(*hz: float) -> np.ndarray:
    return np.sum([np.sin(2 * np.pi * each * TIME) for each in hz], axis=0)[None]


def middle(signal: np.ndarray) -> np.ndarray:
    """The part that the ends of a filter do not reach."""
    return signal[:, 200:400]


# -- filters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edges", "kept"),
    [
        ({"low_hz": 8.0, "high_hz": 30.0}, (15.0,)),
        ({"low_hz": 8.0}, (15.0, 70.0)),
        ({"high_hz": 30.0}, (2.0, 15.0)),
    ],
)
def test_a_band_keeps_its_frequencies_in_place_and_loses_the_others(
    edges: dict[str, float], kept: tuple[float, ...]
) -> None:
    found = keep_band(wave(2, 15, 70), BandPass(**edges), RATE)
    np.testing.assert_allclose(middle(found), middle(wave(*kept)), atol=0.02)


def test_at_an_edge_half_of_the_amplitude_is_left() -> None:
    at_edge = middle(keep_band(wave(20), BandPass(high_hz=20.0), RATE))
    np.testing.assert_allclose(at_edge, middle(wave(20)) / 2, atol=0.01)
    steep = np.abs(middle(keep_band(wave(25), BandPass(high_hz=20.0, order=8), RATE))).max()
    assert steep < np.abs(middle(keep_band(wave(25), BandPass(high_hz=20.0, order=2), RATE))).max() / 2


def test_a_notch_takes_its_frequencies_out_and_leaves_the_neighbours() -> None:
    long = np.arange(4000) / RATE
    tones = {hz: np.sin(2 * np.pi * hz * long)[None] for hz in (40.0, 50.0, 80.0)}
    found = take_out(sum(tones.values()), Notch(hz=(50.0, 80.0)), RATE)
    np.testing.assert_allclose(found[:, 1000:3000], tones[40.0][:, 1000:3000], atol=0.03)
    edge = take_out(np.sin(2 * np.pi * 51 * long)[None], Notch(hz=(50.0,), width_hz=2.0), RATE)
    assert np.abs(edge[:, 1000:3000]).max() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("wanted", [100.0, 128.0, 250.0])
def test_another_rate_gives_the_same_wave_and_no_alias(wanted: float) -> None:
    offset = 1e4  # as EEG amplifiers have: without care the filter would ring at both ends
    found = change_rate(wave(7, 95) + offset if wanted <= 200 else wave(7) + offset, RATE, wanted)
    assert found.shape == (1, math.ceil(600 * wanted / RATE))
    times = np.arange(found.shape[1]) / wanted
    inside = slice(found.shape[1] // 10, -found.shape[1] // 10)
    np.testing.assert_allclose(found[0, inside], np.sin(2 * np.pi * 7 * times[inside]) + offset, atol=0.03)
    assert np.abs(found - offset).max() < 3


def test_the_same_rate_changes_nothing() -> None:
    np.testing.assert_array_equal(change_rate(wave(7), RATE, RATE), wave(7))


def test_each_channel_is_filtered_by_itself() -> None:
    signal = RNG.normal(size=(3, 300))
    for change in (
        lambda part: keep_band(part, BandPass(low_hz=4.0), RATE),
        lambda part: take_out(part, Notch(hz=(50.0,)), RATE),
        lambda part: change_rate(part, RATE, 128.0),
    ):
        np.testing.assert_array_equal(change(signal)[1:2], change(signal[1:2]))


# -- reference and baseline --------------------------------------------------------------------------------------------


def test_the_average_reference_leaves_channels_that_add_up_to_nothing() -> None:
    signal = np.array([[1.0, 2.0], [3.0, 8.0]])
    np.testing.assert_array_equal(refer_to_average(signal), [[-1, -3], [1, 3]])
    with pytest.raises(ConfigError, match=r"input\.reference: average leaves nothing of signals of one channel"):
        refer_to_average(signal[:1])


def test_the_baseline_is_the_mean_of_a_window_in_seconds() -> None:
    signal = np.array([[1.0, 2.0, 3.0, 10.0], [0.0, 4.0, 4.0, 0.0]])
    np.testing.assert_array_equal(center_on_window(signal, (0.5, 1.5), 2.0), [[-1.5, -0.5, 0.5, 7.5], [-4, 0, 0, -4]])
    np.testing.assert_array_equal(center_on_window(signal, (0.0, 2.0), 2.0)[0], signal[0] - 4)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (
            (0.0, 2.5),
            r"input\.baseline_sec: 0\.\.2\.5 s reaches past the end of x\.npy, which lasts 2 s \(4 samples at 2",
        ),
        ((1.1, 1.2), r"input\.baseline_sec: 1\.1\.\.1\.2 s holds no sample at 2 Hz; make it longer than 0\.5 s"),
    ],
)
def test_a_window_without_samples_is_refused(window: tuple[float, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        center_on_window(np.zeros((1, 4)), window, 2.0, "x.npy")


# -- all steps ---------------------------------------------------------------------------------------------------------


def test_the_steps_are_made_in_the_order_of_the_record() -> None:
    signal = RNG.normal(size=(3, 400)).astype(np.float32) + 5
    steps = SignalSteps(
        notch=Notch(hz=(50.0,)),
        band_pass=BandPass(high_hz=45.0),
        reference="average",
        resample_hz=100.0,
        baseline_sec=(0.0, 0.5),
    )
    expected = keep_band(take_out(signal, Notch(hz=(50.0,)), RATE), BandPass(high_hz=45.0), RATE)
    expected = center_on_window(change_rate(refer_to_average(expected), RATE, 100.0), (0.0, 0.5), 100.0)
    before = signal.copy()
    found = apply_steps(signal, steps, RATE, "a")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    np.testing.assert_array_equal(signal, before)


def test_steps_come_after_missing_values_are_filled_and_before_the_length_is_made() -> None:
    item = np.array([[1, np.nan, 3, 6, 5, 5]], np.float32)
    steps = SignalSteps(baseline_sec=(1.0, 2.0))
    form = StoredForm("signal", nan="zero", length=3, sample_rate_hz=2.0, steps=steps)
    np.testing.assert_array_equal(formed(item, form, "a"), [[1 - 4.5, -4.5, 3 - 4.5]])
    refused = StoredForm("signal", sample_rate_hz=2.0, steps=steps)
    with pytest.raises(DataError, match=r"a: 1 values are NaN or infinite, which filters would spread; input\.nan:"):
        formed(item, refused, "a")


def test_whole_numbers_are_filtered_as_numbers() -> None:
    item = RNG.integers(0, 255, (2, 50)).astype(np.uint8)
    form = StoredForm("signal", sample_rate_hz=RATE, steps=SignalSteps(reference="average"))
    np.testing.assert_allclose(formed(item, form, "a"), item - item.mean(axis=0, keepdims=True), atol=1e-4)


def test_what_the_steps_are_is_part_of_the_key(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.normal(size=(2, 3, 200)))
    source = ArrayItems(tmp_path / "a.npy")
    steps: list[dict[str, Any]] = [
        {},
        {"reference": "average"},
        {"resample_hz": 100.0},
        {"baseline_sec": (0.0, 0.1)},
        {"band_pass": {"low_hz": 4.0}},
        {"band_pass": {"low_hz": 4.0, "order": 2}},
        {"notch": {"hz": (50.0,)}},
        {"notch": {"hz": (50.0,), "width_hz": 4.0}},
    ]
    forms = [StoredForm("signal", sample_rate_hz=RATE, steps=SignalSteps.model_validate(each).steps) for each in steps]
    forms.append(StoredForm("signal", sample_rate_hz=100.0, steps=forms[1].steps))
    assert len({store_key(source, form) for form in forms}) == len(forms)
    assert forms[0] == StoredForm("signal", sample_rate_hz=RATE)
    assert open_store(source, forms[2], tmp_path, report=silent).array.shape == (2, 3, 100)


# -- what does not fit -------------------------------------------------------------------------------------------------


def toy_with(root: Path, inputs: dict[str, Any], task: dict[str, Any] | None = None, **more: Any) -> Dataset:
    config = load_config(make_toy(root, input="signal", n_train=12, n_test=4, task=task, net={"input": inputs}, **more))
    data = root / config.task.data
    refuse_misfits(config.task, config.experiment)
    return Dataset(config.task, config.experiment.input, data, root / "cache", 1, silent, "quiet")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"band_pass": {"low_hz": 4.0, "high_hz": 70.0}},
            r"input\.band_pass\.high_hz: 70 Hz cannot be told apart at sample_rate_hz: 32, .*\. Allowed: below 16",
        ),
        ({"band_pass": {"low_hz": 16.0}}, r"input\.band_pass\.low_hz: 16 Hz .* Allowed: below 16"),
        ({"notch": {"hz": [4, 50]}}, r"input\.notch\.hz: 50 Hz .* Allowed: below 16"),
        ({"notch": {"hz": [1], "width_hz": 3}}, r"input\.notch\.width_hz: a gap of 3 Hz around 1 Hz .* below 2"),
        (
            {"band_pass": {"low_hz": 4.0, "high_hz": 8.0, "order": 12}},
            r"input\.band_pass\.order: 12 needs signals of 76 samples or more, .*\.npy has 32; lower it",
        ),
        ({"notch": {"hz": [2, 4, 6, 8, 10]}}, r"input\.notch\.hz: 5 frequencies need signals of 34 samples or more"),
        (
            {"baseline_sec": [0.5, 1.5]},
            r"input\.baseline_sec: 0\.5\.\.1\.5 s reaches past the end of .*, which lasts 1 s",
        ),
        (
            {"resample_hz": 0.01},
            r"input\.resample_hz: 0\.01 is in no ratio of whole numbers up to 1,000 to sample_rate",
        ),
        ({"resample_hz": 1e5}, r"input\.resample_hz: 100000 is in no ratio .*; such as 32000 are"),
    ],
)
def test_what_signals_of_this_rate_and_length_cannot_give_is_refused(
    tmp_path: Path, inputs: dict[str, Any], message: str
) -> None:
    data = toy_with(tmp_path, inputs, {"sample_rate_hz": 32.0})
    with pytest.raises(ConfigError, match=message):
        data.train_items("cpu")


def test_seconds_and_hz_need_a_rate_and_a_rate_is_above_zero(tmp_path: Path) -> None:
    for inputs in ({"band_pass": {"low_hz": 4.0}}, {"resample_hz": 16.0}, {"baseline_sec": [0, 1]}):
        with pytest.raises(ConfigError, match=rf"input\.{next(iter(inputs))}: is given in Hz or seconds, and the task"):
            toy_with(tmp_path, inputs).train_items("cpu")
    assert toy_with(tmp_path, {"reference": "average"}).train_items("cpu").shape == (2, 32)
    with pytest.raises(ConfigError, match=r"sample_rate_hz: must be > 0 \(found: 0\)"):
        toy_with(tmp_path, {}, {"sample_rate_hz": 0})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"resample_hz": 0}, r"input\.resample_hz: must be > 0"),
        ({"band_pass": {}}, r"input\.band_pass: low_hz, high_hz: at least one of them is needed"),
        (
            {"band_pass": {"low_hz": 9, "high_hz": 3}},
            r"input\.band_pass\.low_hz: must be below high_hz \(found: 9, 3\)",
        ),
        ({"baseline_sec": [1, 0.5]}, r"input\.baseline_sec: the start comes first \(found: 1, 0\.5\)"),
        ({"refrence": "average"}, r"input\.refrence: unknown key\. Did you mean 'reference'"),
    ],
)
def test_values_that_fit_no_signal_are_refused_in_the_file(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Experiment, {"model": {"name": "mlp"}, "input": inputs}, "x.yaml")


@pytest.mark.parametrize("inputs", [{"clip": 5}, {"reference": "average"}, {"band_pass": {"low_hz": 1}}])
def test_images_read_none_of_it(tmp_path: Path, inputs: dict[str, Any]) -> None:
    config = load_config(make_toy(tmp_path, n_train=12, n_test=4, net={"input": inputs}))
    with pytest.raises(ConfigError, match=rf"input\.{next(iter(inputs))}: is never read"):
        refuse_misfits(config.task, config.experiment)


def test_augmentation_goes_by_the_rate_that_is_stored(tmp_path: Path) -> None:
    config = load_config(
        make_toy(tmp_path, input="signal", task={"sample_rate_hz": 32.0}, net={"input": {"resample_hz": 16.0}})
    )
    assert stored_rate(config.task, config.experiment.input) == 16
    plain = config.experiment.input.model_copy(update={"resample_hz": None})
    assert stored_rate(config.task, plain) == 32


# -- channels that say nothing -----------------------------------------------------------------------------------------


def test_constant_and_empty_channels_are_found() -> None:
    signal = np.array([[1, 2, 3], [4, 4, 4], [np.nan] * 3, [5, np.nan, 5], [np.inf, 1, 1]], np.float32)
    assert silent_channels(signal) == ((2,), (1, 3, 4))
    assert silent_channels(signal[:2].astype(np.uint8)) == ((), (1,))
    assert silent_channels(signal[:, :1]) == ((), ())
    assert silent_channels(signal[1]) == ((), (0,))


def test_they_are_listed_by_number_with_the_items_they_occur_in() -> None:
    tally = ChannelTally()
    for item in ([[0, 0], [np.nan] * 2, [1, 2]], [[0, 0], [1, 2], [3, 3]]):
        tally.add(silent_channels(np.array(item)))
    assert describe_silent(tally.plain(), 2) == [
        "channels that are without a value, of 2 items: 1 in 1",
        "channels that are constant, of 2 items: 0 in all, 2 in 1",
    ]
    assert describe_silent(tally.plain(), 2, ("a", "b", "c"))[1].endswith("0 (a) in all, 2 (c) in 1")
    assert describe_silent({}, 2) == []


def test_the_user_is_told_of_them_before_training(tmp_path: Path) -> None:
    config = load_config(make_toy(tmp_path, input="signal", n_train=12, n_test=4, net={"input": {"nan": "zero"}}))
    data = tmp_path / config.task.data
    for number, path in enumerate(sorted((data / "train").glob("*.npy"))):
        item = np.load(path)
        item[1] = 7 if number % 2 else np.nan
        np.save(path, item)
    for times in range(2):  # when the store is built, and when it is there
        lines: list[str] = []
        Dataset(config.task, config.experiment.input, data, tmp_path / "cache", 1, lines.append).train_items("cpu")
        assert lines[-2:] == [
            "note: channels that are without a value, of 12 items: 1 in 6",
            "note: channels that are constant, of 12 items: 1 in 6",
        ], times
    refusing = config.experiment.input.model_copy(update={"nan": "error"})
    with pytest.raises(DataError, match=r"192 stored values are NaN(.|\n)*without a value, of 12 items: 1 in 6"):
        Dataset(config.task, refusing, data, tmp_path / "cache", 1, silent).train_items("cpu")


# -- what is fitted ----------------------------------------------------------------------------------------------------


def items_of(values: np.ndarray) -> tuple[Items, Any]:
    ids = np.array([f"r{number}" for number in range(len(values))], dtype=object)
    rows = tuple((number,) for number in range(len(values)))
    return Items(values, "cpu"), lambda train: samples_of(ids, rows, np.asarray(train))


def test_robust_statistics_are_median_and_quartiles_of_the_training_part() -> None:
    values = (
        RNG.normal(size=(40, 3, 25)).astype(np.float32) * np.array([1, 5, 0])[:, None] + np.array([0, 9, 4])[:, None]
    )
    values[3, 0, 4] = 1e6
    items, samples = items_of(values.astype(np.float32))
    median, spread = robust_stats(items, samples(range(30)))
    chosen = values[:30].astype(np.float32).transpose(1, 0, 2).reshape(3, -1).astype(np.float64)
    low, half, high = np.percentile(chosen, [25, 50, 75], axis=1)
    np.testing.assert_allclose(median, half)
    np.testing.assert_allclose(spread[:2], ((high - low) / 1.3489795)[:2])
    assert spread[2] == 1
    assert abs(float(median[0])) < 0.2


def test_large_sets_are_measured_on_items_that_follow_from_their_ids() -> None:
    values = RNG.normal(size=(40, 2, 10)).astype(np.float32)
    items, samples = items_of(values)
    few = robust_stats(items, samples(np.arange(40)), most_values=100)  # 5 items
    place = RNG.permutation(40)  # another order of the rows, and of the items in the store
    ids = np.array([f"r{number}" for number in place], dtype=object)
    other_samples = samples_of(ids, tuple((number,) for number in range(40)), np.arange(40))
    shuffled = robust_stats(Items(values[place], "cpu"), other_samples, most_values=100)
    assert all(torch.equal(one, other) for one, other in zip(few, shuffled, strict=True))
    assert not torch.equal(few[0], robust_stats(items, samples(np.arange(40)))[0])
    at_least_one = robust_stats(items, samples(np.arange(40)), most_values=1)
    assert at_least_one[0].isfinite().all()


def test_normalised_values_are_cut_to_the_limit() -> None:
    zeros, ones = torch.zeros(1), torch.ones(1)
    batch = torch.tensor([[[-9.0, -2.0, 0.5, 30.0]]])
    clipped = Scaling(ones, 2 * ones, zeros, ones, torch.tensor(3.0))
    assert prepare(batch, clipped).tolist() == [[[-3, -1.5, -0.25, 3]]]
    assert prepare(batch, Scaling(ones, 2 * ones, zeros, ones)).tolist() == [[[-5, -1.5, -0.25, 14.5]]]


@pytest.mark.parametrize("normalize", ["measured", "robust"])
def test_what_is_fitted_knows_nothing_of_the_rows_held_out(tmp_path: Path, normalize: str) -> None:
    inputs = {"normalize": normalize, "clip": 4, "band_pass": {"low_hz": 1, "order": 2}}
    net = {"input": inputs, "train": {"epochs": 1}}
    weights, columns = [], []
    for root in (tmp_path / "a", tmp_path / "b"):
        config = make_toy(root, input="signal", n_train=30, n_test=4, task={"sample_rate_hz": 32.0}, net=net)
        if root.name == "b":
            table = pd.read_csv(tmp_path / "a" / "folds" / "multiclass" / "stratified3-seed0.csv")
            for row_id in table.id[table.fold == 0]:
                path = root / "data" / "multiclass" / "train" / f"{row_id}.npy"
                np.save(path, 100 + 50 * np.load(path))
        run = train_toy(root, config, folds=[0])
        weights.append(read_weights(run.folder / "units" / "fold0-seed0" / "weights.safetensors")[0])
        columns.append(pd.read_parquet(run.folder / "units" / "fold0-seed0" / "heldout.parquet"))
    assert weights[0].keys() == weights[1].keys() >= {"scaling.mean", "scaling.std", "scaling.clip"}
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    assert not columns[0].equals(columns[1])  # the rows really were others


def test_prediction_scales_and_cuts_as_training_did(tmp_path: Path) -> None:
    net = {"input": {"normalize": "robust", "clip": 0.5, "resample_hz": 16}, "train": {"epochs": 2}}
    config = make_toy(tmp_path, input="signal", n_train=30, n_test=6, task={"sample_rate_hz": 32.0}, net=net)
    run = train_toy(tmp_path, config)
    before = pd.read_parquet(run.folder / "test.parquet")
    from pipeline import api

    api.predict(run.folder, root=tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(run.folder / "test.parquet"), before)


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_one_large_array_is_never_in_memory(tmp_path: Path, suffix: str) -> None:
    n_items, shape = 256, (32, 2048)  # 64 MB, of items of 256 kB
    path = tmp_path / f"a.{suffix}"
    values = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (n_items, *shape))
    values[5, 2, :9] = np.arange(9)
    if suffix == "npz":
        np.savez(path, other=np.arange(3), x=values)
    del values
    source = ArrayItems(path, "x" if suffix == "npz" else None)
    form = StoredForm("signal", sample_rate_hz=100.0, steps=SignalSteps(baseline_sec=(1.0, 2.0)))
    tracemalloc.start()
    try:
        store = open_store(source, form, tmp_path / "cache", report=silent, workers=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20  # a block of 8 MB while the one before is let go: not the array
    np.testing.assert_array_equal(store.array[5, 2, :9], np.arange(9))
    assert store.array.shape == (n_items, *shape)


def test_small_and_compressed_arrays_are_loaded_and_checked(tmp_path: Path) -> None:
    values = RNG.normal(size=(3, 2, 50))
    for name, save in (("small", np.savez), ("packed", np.savez_compressed)):
        save(tmp_path / f"{name}.npz", x=values)
        store = open_store(ArrayItems(tmp_path / f"{name}.npz"), StoredForm("signal"), tmp_path, report=silent)
        np.testing.assert_array_equal(store.array, values.astype(np.float32))
    content = bytearray((tmp_path / "small.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.npz").write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"bad\.npz: truncated or damaged \(Bad CRC"):
        open_store(ArrayItems(tmp_path / "bad.npz"), StoredForm("signal"), tmp_path, report=silent)


def test_statistics_hold_a_few_items_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = RNG.normal(size=(12, 64, 2**15)).astype(np.float32)  # 2**21 numbers in each item
    items, fetched = Items(values, "cpu"), []
    taken = Items._gathered
    monkeypatch.setattr(Items, "_gathered", lambda self, where: fetched.append(len(where)) or taken(self, where))
    mean, std = channel_stats(items, np.arange(12))
    assert max(fetched) == 4
    assert sum(fetched) == 12
    np.testing.assert_allclose(mean, values.mean(axis=(0, 2), dtype=np.float64), atol=1e-9)
    np.testing.assert_allclose(std, values.std(axis=(0, 2), dtype=np.float64), atol=1e-6)


def test_the_task_still_reads_its_rate_for_signals_only() -> None:
    with pytest.raises(ConfigError, match=r"sample_rate_hz: is read only by input: signal"):
        validate(
            Task,
            {
                "name": "a",
                "data": "a",
                "kind": "multiclass",
                "metric": "accuracy",
                "target": "y",
                "sample_rate_hz": 100.0,
                "train": {"table": "a.csv", "files": "{id}.png"},
            },
            "task.yaml",
        )
