"""What `podium init` does to signals: each rule on both sides of its limit, on signals whose right answer is known."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from infer_hosts import initiate, table

from pipeline.data.preprocessing import apply_steps
from pipeline.records.config import load_config
from pipeline.records.signal_steps import SignalSteps
from pipeline.stages.infer.signal_choices import CLIP, LEAST_ITEMS, Chosen, choose_steps
from pipeline.stages.infer.signal_facts import SignalFacts, measure_signal, signal_facts
from pipeline.stages.infer.telling import may_tell

RATE_HZ = 200.0
N, T = 64, 600
IS_ONE = np.arange(N) % 2 == 1
TIMES = np.arange(T) / RATE_HZ


def noise(n_channels: int = 3, n_samples: int = T, n: int = N, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (n, n_channels, n_samples))


def facts_of(signals: Any, rate_hz: float | None = RATE_HZ, is_one: np.ndarray | None = None) -> SignalFacts:
    is_one = np.arange(len(signals)) % 2 == 1 if is_one is None else is_one
    measured = [measure_signal(signal, rate_hz) for signal in signals]
    found = signal_facts(measured, np.eye(2, dtype=np.float32)[is_one.astype(int)], rate_hz)
    assert found is not None
    return found


def chosen(signals: Any, rate_hz: float | None = RATE_HZ, is_one: np.ndarray | None = None) -> dict[str, Any]:
    return {choice.key: choice.value for choice in choose_steps(facts_of(signals, rate_hz, is_one)).choices}


def uneven(low: float, high: float, seed: int = 5) -> np.ndarray:
    """Return a number for each item, (N, 1, 1)."""
    return np.random.default_rng(seed).uniform(low, high, (N, 1, 1))


def wave(hz: float, times: np.ndarray = TIMES) -> np.ndarray:
    """Return a sine of another phase for each item, (N, 1, T)."""
    return np.sin(2 * np.pi * hz * times + uneven(0, 2 * np.pi))


def drift(n_channels: int = 3) -> np.ndarray:
    """Return a slope and a bend for each channel of each item, (N, C, T)."""
    line, bend = np.random.default_rng(7).normal(0, 1, (2, N, n_channels, 1))
    return line * TIMES / 3 + bend * (TIMES / 3) ** 2


def test_plain_noise_is_left_as_it_is():
    assert chosen(noise()) == {}
    assert chosen(noise().cumsum(axis=2)[:, :, ::2]) == {}


# -- the mains ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "also", "hz"), [(50.0, None, [50]), (60.0, None, [60]), (30.0, None, None), (25.0, 75.0, None)]
)
def test_a_line_of_the_mains_is_taken_out_and_no_other(base, also, hz):
    signals = noise() + wave(base) + (0 if also is None else wave(also))
    assert chosen(signals).get("input.notch") == (None if hz is None else {"hz": hz})


def test_harmonics_that_the_signals_hold_are_taken_out_with_it():
    times = np.arange(3 * 512) / 512
    signals = noise(1, len(times)) + sum(wave(hz, times) for hz in (50, 100, 200))
    assert chosen(signals, 512.0) == {"input.notch": {"hz": [50, 100, 200]}}


@pytest.mark.parametrize(("amplitude", "is_taken"), [(0.25, False), (0.6, True)])
def test_a_faint_line_stays(amplitude, is_taken):
    # Noise has 1/100 of its power in each hertz, so 2 Hz hold 0.02, and a sine of amplitude a has a**2 / 2.
    assert ("input.notch" in chosen(noise() + amplitude * wave(50))) == is_taken


def test_a_broad_rhythm_at_50_hz_stays():
    spectrum = np.fft.rfft(noise(2))
    frequencies = np.fft.rfftfreq(T, 1 / RATE_HZ)
    rhythm = np.fft.irfft(spectrum * np.exp(-0.5 * ((frequencies - 50) / 5) ** 2), T)
    assert "input.notch" not in chosen(noise(2, seed=1) + 5 * rhythm)


def test_a_line_whose_strength_tells_the_label_stays():
    strength = uneven(0.9, 1.1) + 0.3 * IS_ONE[:, None, None]
    assert chosen(noise() + strength * wave(50)) == {}
    assert chosen(noise() + strength * wave(50), is_one=np.arange(N) % 4 >= 2) == {"input.notch": {"hz": [50]}}


def test_without_a_rate_nothing_is_chosen_that_needs_one():
    signals = noise() + 3 * wave(50) + uneven(-50, 50)
    assert set(chosen(signals)) == {"input.notch", "input.baseline_sec"}
    assert chosen(signals, None) == {}


def test_too_short_signals_have_no_line():
    short = noise(n_samples=190) + wave(50)[:, :, :190]
    assert "input.notch" not in chosen(short)


# -- levels and drifts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deviation", "is_taken"), [(2.0, False), (5.0, True)])
def test_levels_are_subtracted_where_they_differ_by_much_more_than_the_signals_move(deviation, is_taken):
    levels = deviation * np.random.default_rng(6).normal(0, 1, (N, 3, 1))
    assert chosen(noise() + levels) == ({"input.baseline_sec": [0, 3]} if is_taken else {})


def test_levels_that_tell_the_label_stay():
    levels = uneven(-10, 10) + np.where(IS_ONE, 15, 0)[:, None, None]
    assert chosen(noise() + levels) == {}
    far_away = np.where(IS_ONE, 20, 5)[:, None, None] * np.sign(uneven(-1, 1))  # alike on average
    assert chosen(noise() + far_away) == {}


def test_the_whole_length_fits_what_the_filter_counts():
    for rate_hz, n_samples in ((125.0, 750), (200.0, 281), (256.0, 333), (1000 / 3, 400)):
        levels = 50 * np.random.default_rng(6).normal(0, 1, (N, 3, 1))
        signals = noise(n_samples=n_samples) + levels
        steps = SignalSteps(baseline_sec=tuple(chosen(signals, rate_hz)["input.baseline_sec"]))
        assert apply_steps(signals[0], steps, rate_hz, "it").mean(axis=1) == pytest.approx(0, abs=1e-4)


def test_drifts_are_filtered_where_little_else_moves_and_levels_go_with_them():
    assert chosen(0.05 * noise() + drift() + uneven(-50, 50)) == {"input.band_pass": {"low_hz": 0.67}}
    assert chosen(0.5 * noise() + drift()) == {}
    towards = np.where(IS_ONE, 1, -1)[:, None, None] * TIMES
    assert chosen(0.05 * noise() + 3 * towards + drift()) == {}


def test_items_of_different_lengths_have_no_whole_length():
    levels = uneven(-50, 50)
    signals = [(noise() + levels)[row, :, : T - row % 2] for row in range(N)]
    assert chosen(signals) == {}


# -- single values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "every", "is_cut"), [(100, 10, True), (100, 64, True), (15, 10, False)])
def test_few_single_values_far_away_are_cut(height, every, is_cut):
    signals = noise()
    signals[::every, 1, 300] = height
    assert chosen(signals) == ({"input.normalize": "robust", "input.clip": CLIP} if is_cut else {})


@pytest.mark.parametrize("every", [1, 3])
def test_peaks_of_many_items_are_signal(every):
    beats = noise()
    beats[::every, :, 50::200] += 100
    assert chosen(beats) == {}


def test_items_that_are_strong_as_a_whole_are_not_cut():
    strong = noise()
    strong[::8] *= 100
    assert chosen(strong) == {}
    strong[1, 0, 5] = 1_000
    assert chosen(strong) == {}


def test_channels_that_are_mostly_at_rest_are_not_measured_by_their_quartiles():
    rare = np.where(np.random.default_rng(0).random((N, 2, T)) < 0.05, noise(2), 0)
    rare[3, 0, 7] = 500
    assert chosen(rare) == {}


# -- a common signal, a lower rate -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_channels", "strength", "is_taken"), [(10, 10.0, True), (10, 1.0, False), (7, 10.0, False)])
def test_what_all_channels_have_alike_is_subtracted_where_little_else_moves(n_channels, strength, is_taken):
    signals = noise(n_channels) + strength * noise(1, seed=1)
    assert chosen(signals, None) == ({"input.reference": "average"} if is_taken else {})


def test_a_common_signal_that_tells_the_label_stays():
    common = 10 * noise(1, seed=1) * np.where(IS_ONE, 1.5, 1)[:, None, None]
    assert chosen(noise(10) + common, None) == {}


def slow_noise(n_samples: int, cut_frac: float) -> np.ndarray:
    """Return noise without power above a share of half of the rate."""
    spectrum = np.fft.rfft(noise(2, n_samples))
    spectrum[:, :, int(cut_frac * spectrum.shape[2]) :] = 0
    return np.fft.irfft(spectrum, n_samples)


@pytest.mark.parametrize(
    ("n_samples", "cut_frac", "rate_hz", "wanted"),
    [
        (4_000, 0.3, 1000.0, 500),
        (4_000, 0.7, 1000.0, None),
        (2_048, 0.1, 1000.0, None),
        (7_000, 0.05, 500.0, 125),
        (5_000, 0.1, 250.5, None),
    ],
)
def test_long_items_get_a_lower_rate_where_nothing_is_lost(n_samples, cut_frac, rate_hz, wanted):
    signals = slow_noise(n_samples, cut_frac)
    assert chosen(signals, rate_hz).get("input.resample_hz") == wanted
    found = choose_steps(facts_of(signals, rate_hz))
    assert found.n_samples == (None if wanted is None else n_samples * wanted / rate_hz)


# -- what tells --------------------------------------------------------------------------------------------------------


def test_numbers_that_tell_are_told_from_those_that_do_not():
    rng = np.random.default_rng(0)
    labels = np.eye(4, dtype=np.float32)[np.arange(200) % 4]
    chance = [may_tell(np.random.default_rng(seed).normal(0, 1, (200, 20)), labels) for seed in range(40)]
    assert sum(chance) <= 6
    numbers = rng.normal(0, 1, (200, 20))
    numbers[:, 3] += 1.5 * labels[:, 2]
    assert may_tell(numbers, labels)
    around = np.where(labels[:, :1] == 1, 3, 1) * np.sign(rng.normal(0, 1, (200, 1)))
    assert may_tell(around, labels)
    values = rng.random((200, 1)).astype(np.float32)
    assert may_tell(values.astype(np.float64) ** 3 + 1, np.hstack([values, 1 - values]))
    assert not may_tell(np.ones((200, 3)), labels)
    assert may_tell(rng.normal(0, 1, (200, 1)), np.eye(200, dtype=np.float32))  # too few of each to know


# -- odd signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [None, 0.5, 100.0, 20_000.0])
@pytest.mark.parametrize(
    "odd",
    [
        *("constant", "one constant", "large constant", "gaps", "no value", "infinite", "integers", "bytes"),
        *("one sample", "two samples", "single", "short"),
    ],
)
def test_odd_signals_make_no_warning(odd, rate_hz):
    signals = {
        "constant": np.full((N, 2, 100), 0.1, np.float32),
        "one constant": noise(2) * np.array([[1], [0]]),
        "large constant": np.full((N, 2, 101), 1e9 / 3) + np.spacing(1e9) * noise(2, 101),
        "gaps": np.where(noise() > 1, np.nan, noise()),
        "no value": noise() * np.array([[1], [np.nan], [1]]),
        "infinite": np.where(noise() > 3, np.inf, noise()),
        "integers": (100 * noise()).astype(np.int16),
        "bytes": (30 * noise() + 120).clip(0, 255).astype(np.uint8),
        "one sample": noise(n_samples=1),
        "two samples": noise(n_samples=2),
        "single": noise(n=1),
        "short": noise(n_samples=9),
    }[odd]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = choose_steps(facts_of(signals, rate_hz))
    assert found.choices == ()
    assert np.isfinite(found.offset)


def test_few_items_say_nothing_and_other_channels_are_passed_over():
    signals = noise() + 3 * wave(50)
    assert choose_steps(facts_of(signals[: LEAST_ITEMS - 1])) == Chosen()
    assert choose_steps(None) == Chosen()
    mixed = facts_of([*signals, signals[0][:1]], is_one=np.append(IS_ONE, True))
    assert mixed.n_channels == 3
    assert len(mixed.shapes) == len(mixed.labels) == N
    assert choose_steps(mixed).choices


def test_gaps_are_filled_with_the_mean_of_their_channel():
    signal = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]])
    assert measure_signal(signal, None).values["level"].tolist() == [2.0, 5.0]


# -- from files to both YAML files -------------------------------------------------------------------------------------


def test_what_was_seen_stands_in_the_experiment_with_its_figures(tmp_path):
    rng = np.random.default_rng(3)
    host, n_test = tmp_path / "host", 12
    host.mkdir()
    long = np.arange(3_000) / 1000
    times = np.tile(long, (N + n_test, 1, 1))
    signals = np.sin(2 * np.pi * 20 * times + rng.uniform(0, 6, (N + n_test, 2, 1)))
    signals += np.sin(2 * np.pi * 50 * times + rng.uniform(0, 6, (N + n_test, 1, 1))) + rng.normal(
        0, 30, (N + n_test, 2, 1)
    )
    signals = signals.astype(np.float32)
    signals[5, 0, 100:102] = 5_000
    np.savez(host / "train.npz", X=signals[:N], y=IS_ONE.astype(int))
    np.savez(host / "test.npz", X=signals[N:])
    (host / "README.md").write_text("Two channels, sampled at 1 kHz.")
    table(host / "sample_submission.csv", "id,label", [(number, 0) for number in range(n_test)])
    made = initiate(host, "submission.format=label")
    text, task = made.baseline.read_text(), made.written.path.read_text()
    assert "sample_rate_hz: 1000" in task
    assert "1000 Hz in README.md" in task
    experiment = load_config(made.baseline).experiment
    assert experiment.input.notch is not None
    assert experiment.input.notch.hz == (50,)
    assert experiment.input.baseline_sec == (0, 3)
    assert experiment.input.resample_hz == 500
    assert (experiment.input.normalize, experiment.input.clip) == ("robust", 10)
    assert experiment.model.name == "eegnet"  # 1,500 samples
    assert experiment.augment.time_shift is not None
    assert experiment.augment.time_shift.max_samples == 75
    assert "1 of 64 items have single values" in text
    assert max(map(len, text.splitlines())) <= 120


def test_signals_that_lie_far_from_zero_are_not_moved_in_time(tmp_path):
    host = tmp_path / "host"
    host.mkdir()
    np.savez(host / "train.npz", X=noise().astype(np.float32) + 9, y=IS_ONE.astype(int))
    np.savez(host / "test.npz", X=noise(seed=1)[:6].astype(np.float32) + 9)
    table(host / "sample_submission.csv", "id,label", [(number, 0) for number in range(6)])
    made = initiate(host, "submission.format=label")
    assert load_config(made.baseline).experiment.augment.time_shift is None
    assert "not moved in time: signals lie 9 deviations away" in made.baseline.read_text()
