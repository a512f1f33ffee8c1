import cmath
import math

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.augment.noise import gaussian_noise, noise_seeds, uniform_noise
from pipeline.augment.signals import (
    add_noise,
    augment_signals,
    drop_channels,
    flip_signs,
    mask_time,
    refuse_signal_augment,
    scale_signals,
    shift_signals,
    stop_band,
    turn_phases,
)
from pipeline.base.errors import ConfigError
from pipeline.base.keyed import hash_ids, make_key, uniforms
from pipeline.records.augmentation import Augment

RATE = 50.0
ALL = {
    "time_shift": {"max_sec": 0.2},
    "amplitude": {"max_scale": 0.3},
    "phase": {"max_angle_deg": 60.0},
    "band_stop": {"max_width_hz": 8.0},
    "signal_noise": {"max_std_frac": 0.5},
    "time_mask": {"max_sec": 0.4},
    "channel_dropout": {"drop_prob": 0.4},
    "sign_flip": True,
}


def make_signals(n=9, channels=3, times=41, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(4).normal(size=(n, channels, times))).to(dtype)


def draws_of(n, start=0):
    """Return the draws of samples start..start+n-1, keyed by name and sample as in training."""
    ids = hash_ids([str(number) for number in range(start, start + n)])
    return lambda name, count: torch.from_numpy(uniforms(make_key("augment", 0, 0, name), ids, count))


def fixed(**values):
    """Return draws that are the same for every sample of a batch of one."""
    return lambda name, count: torch.tensor([values[name]], dtype=torch.float64)[:, :count]


def augment_of(**blocks):
    return Augment.model_validate(blocks)


def slow_dft(wave):
    n = len(wave)
    return [sum(wave[t] * cmath.exp(-2j * math.pi * k * t / n) for t in range(n)) for k in range(n // 2 + 1)]


# -- noise -------------------------------------------------------------------------------------------------------------


def slow_hashes(seed, n):
    def mix(bits):
        bits = (bits + 0x9E3779B97F4A7C15) % 2**64
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) % 2**64
        return bits ^ (bits >> 31)

    return [mix((mix(seed % 2**64) + number * 0x9E3779B97F4A7C15) % 2**64) for number in range(1, n + 1)]


SEEDS = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), 123456789])


def test_noise_equals_whole_number_arithmetic_in_python():
    normals, evens = gaussian_noise(SEEDS, (3, 5)), uniform_noise(SEEDS, (3, 5))
    assert (normals.dtype, evens.dtype, normals.shape) == (torch.float32, torch.float32, (6, 3, 5))
    for seed, normal, even in zip(SEEDS.tolist(), normals, evens, strict=True):
        hashes = slow_hashes(seed, 15)
        assert even.flatten().tolist() == [(bits >> 40) / 2**24 for bits in hashes]
        expected = []
        for bits in hashes[:8]:
            radius = math.sqrt(-2 * math.log((bits % 2**32 + 0.5) / 2**32))
            angle = 2 * math.pi * (bits >> 32) / 2**32
            expected += [radius * math.cos(angle), radius * math.sin(angle)]
        np.testing.assert_allclose(normal.flatten().numpy(), expected[:15], atol=1e-5)


def test_normal_noise_is_normal_and_its_neighbours_are_unrelated():
    seeds = torch.arange(200)  # the worst seeds for a weak mixer
    noise = gaussian_noise(seeds, (501,)).numpy()
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert np.abs(noise).max() < 6.8
    for first, second in (
        (noise[:, :-1], noise[:, 1:]),
        (noise[:, ::2][:, :250], noise[:, 1::2]),
        (noise[1:], noise[:-1]),
    ):
        assert stats.pearsonr(first.ravel(), second.ravel()).pvalue > 1e-3
        assert stats.pearsonr(first.ravel() ** 2, second.ravel() ** 2).pvalue > 1e-3


def test_a_hash_of_zeros_gives_the_largest_value_and_not_infinity():
    def undo(bits, by):
        back = bits
        for _ in range(64 // by):
            back = bits ^ (back >> by)
        return back

    def unmix(bits):
        bits = undo(bits, 31) * pow(0x94D049BB133111EB, -1, 2**64) % 2**64
        bits = undo(bits, 27) * pow(0xBF58476D1CE4E5B9, -1, 2**64) % 2**64
        return (undo(bits, 30) - 0x9E3779B97F4A7C15) % 2**64

    seed = unmix((unmix(0) - 0x9E3779B97F4A7C15) % 2**64)
    assert slow_hashes(seed, 1) == [0]
    signed = seed - 2**64 if seed >= 2**63 else seed
    largest, other = gaussian_noise(torch.tensor([signed]), (2,))[0].tolist()
    assert (largest, other) == (pytest.approx(math.sqrt(66 * math.log(2))), 0)


def test_even_noise_is_even_and_lies_in_the_half_open_interval():
    noise = uniform_noise(torch.arange(200), (500,)).numpy()
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-3
    assert noise.min() >= 0
    assert noise.max() < 1


def test_seeds_take_all_bits_of_two_draws():
    ends = torch.tensor([[0, 0], [0.5, 0], [0, 2.0**-32], [1 - 2.0**-53, 1 - 2.0**-53]], dtype=torch.float64)
    assert noise_seeds(ends).tolist() == [0, -(2**63), 1, -1]
    assert len(set(noise_seeds(draws_of(5000)("x", 2)).tolist())) == 5000


def test_noise_of_no_samples_is_empty():
    assert gaussian_noise(SEEDS[:0], (2, 3)).shape == (0, 2, 3)
    assert uniform_noise(SEEDS[:0], (2, 3)).shape == (0, 2, 3)


# -- each change against a slow one ------------------------------------------------------------------------------------


def test_signals_move_in_time_with_zeros_entering():
    signals = make_signals(5, 2, 6)
    moves = [0, 2, -1, 6, -9]
    for signal, result, move in zip(signals, shift_signals(signals, torch.tensor(moves)), moves, strict=True):
        expected = torch.zeros_like(signal)
        for time in range(6):
            if 0 <= time - move < 6:
                expected[:, time] = signal[:, time - move]
        assert torch.equal(result, expected)


def test_amplitude_is_one_factor_for_all_channels():
    signals = make_signals(2)
    scaled = scale_signals(signals, torch.tensor([0.5, 1.25]))
    assert torch.equal(scaled, torch.stack([signals[0] * 0.5, signals[1] * 1.25]))


@pytest.mark.parametrize("times", [12, 13])
def test_turned_phases_equal_a_slow_fourier_transform(times):
    signals = make_signals(2, 2, times)
    angles = torch.from_numpy(np.random.default_rng(0).uniform(-3, 3, (2, times // 2 + 1)))
    before = angles.clone()
    turned = turn_phases(signals, angles)
    assert torch.equal(angles, before)
    for sample in range(2):
        for channel in range(2):
            old, new = (slow_dft(waves[sample, channel].tolist()) for waves in (signals, turned))
            for place, (was, now) in enumerate(zip(old, new, strict=True)):
                is_fixed = place == 0 or 2 * place == times
                angle = 0.0 if is_fixed else angles[sample, place].item()
                assert abs(now - was * cmath.exp(1j * angle)) < 1e-9


def test_turned_phases_keep_amplitudes_and_the_phase_between_channels():
    signals = make_signals(4, 3, 50)
    draw = draws_of(4)
    turned = augment_signals(signals, augment_of(phase={"max_angle_deg": 180.0}), draw)
    old, new = torch.fft.rfft(signals), torch.fft.rfft(turned)
    torch.testing.assert_close(new.abs(), old.abs())
    torch.testing.assert_close(new[:, 0] * new[:, 1].conj(), old[:, 0] * old[:, 1].conj())
    assert (turned - signals).abs().max() > 0.1


def test_phase_angles_span_their_range_and_differ_between_frequencies_and_samples():
    impulse = torch.zeros(300, 1, 64, dtype=torch.float64)
    impulse[:, :, 0] = 1  # whose phases are all zero
    turned = augment_signals(impulse, augment_of(phase={"max_angle_deg": 30.0}), draws_of(300))
    angles = torch.fft.rfft(turned)[:, 0, 1:-1].angle().rad2deg().numpy()
    assert np.abs(angles).max() <= 30 + 1e-4
    assert stats.kstest(angles.ravel(), stats.uniform(-30, 60).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(angles[:, 3], angles[:, 4])[0, 1]) < 0.2


@pytest.mark.parametrize("times", [20, 21])
def test_a_stopped_band_equals_a_slow_mask_with_its_upper_edge_taken_out(times):
    signals = make_signals(4, 2, times)
    step = RATE / times
    low = torch.tensor([2 * step, 0.0, 1.5 * step, 3 * step], dtype=torch.float64)
    high = torch.tensor([5 * step, 25.0, 1.7 * step, 3 * step], dtype=torch.float64)
    stopped = stop_band(signals, low, high, RATE)
    for sample in range(4):
        for channel in range(2):
            old, new = (slow_dft(waves[sample, channel].tolist()) for waves in (signals, stopped))
            for place, (was, now) in enumerate(zip(old, new, strict=True)):
                is_out = low[sample] < place * RATE / times <= high[sample]
                assert abs(now - (0 if is_out else was)) < 1e-9
    torch.testing.assert_close(stopped.mean(2), signals.mean(2))
    torch.testing.assert_close(stopped[2:], signals[2:])


def test_a_band_is_anywhere_below_the_nyquist_frequency():
    impulse = torch.zeros(2000, 1, 50, dtype=torch.float64)
    impulse[:, :, 0] = 1
    stopped = augment_signals(impulse, augment_of(band_stop={"max_width_hz": 10.0}), draws_of(2000), RATE)
    is_out = torch.fft.rfft(stopped)[:, 0].abs() < 0.5
    widths = is_out.sum(1)
    assert widths.max() == 10  # frequencies stand 1 Hz apart
    assert widths.double().mean().item() == pytest.approx(5, abs=0.2)
    assert not is_out[:, 0].any()
    assert is_out[:, 1:25].any(0).all()
    edges = (is_out.int().diff(dim=1) != 0).sum(1)
    assert edges.max() <= 2  # one band, not several
    place = is_out.int().argmax(1) / (25 - widths)
    assert abs(np.corrcoef(place[widths > 2], widths[widths > 2])[0, 1]) < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_a_share_of_the_deviation_about_each_channels_mean(dtype):
    signals = make_signals(4, 3, 2000, dtype)
    signals[:, 1] += 1000  # an offset between channels is no deviation
    signals[2] *= 5
    seeds = noise_seeds(draws_of(4)("x", 2))
    noisy = add_noise(signals, torch.tensor([0.0, 0.1, 0.1, 0.5]), seeds)
    own = [math.sqrt(np.mean([np.var(channel) for channel in signal])) for signal in signals.double().numpy()]
    added = (noisy - signals).double()
    assert torch.equal(noisy[0], signals[0])
    for sample, share in enumerate([0.0, 0.1, 0.1, 0.5]):
        expected = gaussian_noise(seeds, (3, 2000))[sample].double() * share * own[sample]
        torch.testing.assert_close(added[sample], expected, atol=2e-3 if dtype == torch.float32 else 1e-9, rtol=1e-4)
    assert added[2].std().item() == pytest.approx(0.5, rel=0.05)


def test_a_time_mask_silences_all_channels_from_start_on():
    signals = make_signals(3, 2, 8)
    masked = mask_time(signals, torch.tensor([0, 3, 6]), torch.tensor([0, 2, 2]))
    expected = signals.clone()
    expected[1, :, 3:5] = 0
    expected[2, :, 6:8] = 0
    assert torch.equal(masked, expected)


def test_time_masks_have_every_length_and_reach_both_ends():
    signals = torch.ones(4000, 2, 10)
    masked = augment_signals(signals, augment_of(time_mask={"max_sec": 0.06}), draws_of(4000), RATE)
    is_out = (masked == 0).all(1)
    assert torch.equal(is_out, (masked == 0).any(1))
    lengths, counts = torch.unique(is_out.sum(1), return_counts=True)
    assert lengths.tolist() == [0, 1, 2, 3]
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    starts = is_out[is_out.sum(1) == 3].int().argmax(1)
    assert torch.unique(starts).tolist() == list(range(8))
    assert stats.chisquare(torch.bincount(starts).numpy()).pvalue > 1e-3


def test_channels_are_silenced_at_the_asked_rate_and_one_always_stays():
    signals = torch.ones(4000, 3, 2)
    out = augment_signals(signals, augment_of(channel_dropout={"drop_prob": 0.2}), draws_of(4000))
    silent = (out == 0).all(2)
    assert torch.equal(silent, (out == 0).any(2))
    # Where all three would go (0.2^3), one stays.
    assert silent.double().mean().item() == pytest.approx(0.2 - 0.2**3 / 3, abs=0.01)
    harsh = augment_signals(signals, augment_of(channel_dropout={"drop_prob": 0.99}), draws_of(4000))
    kept = (harsh != 0).all(2)
    assert kept.any(1).all()
    only = kept[kept.sum(1) == 1].int().argmax(1)
    assert stats.chisquare(torch.bincount(only).numpy()).pvalue > 1e-3  # any channel may be the one


def test_dropped_channels_and_flipped_signs_are_those_of_the_flags():
    signals = make_signals(2, 2, 4)
    dropped = drop_channels(signals, torch.tensor([[True, False], [False, False]]))
    assert torch.equal(dropped, torch.stack([signals[0] * torch.tensor([[0.0], [1.0]]), signals[1]]))
    assert torch.equal(flip_signs(signals, torch.tensor([True, False])), torch.stack([-signals[0], signals[1]]))


def test_signs_flip_half_of_the_time():
    flipped = augment_signals(torch.ones(4000, 1, 1), augment_of(sign_flip=True), draws_of(4000))
    assert torch.unique(flipped).tolist() == [-1, 1]
    assert flipped.mean().item() == pytest.approx(0, abs=0.06)


# -- from config and draws to parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [{"max_samples": 3}, {"max_sec": 0.3}, {"max_sec": 0.399}])
def test_time_shifts_reach_every_step_equally_often_in_samples_or_seconds(block):
    ramp = torch.arange(1.0, 21)[None, None].repeat(7000, 1, 1)
    moved = augment_signals(ramp, augment_of(time_shift=block), draws_of(7000), 10.0)
    moves, counts = torch.unique(10 - moved[:, 0, 9], return_counts=True)
    assert moves.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_the_largest_draws_stay_inside_the_signal():
    top = 1 - 2.0**-53
    draw = lambda name, count: torch.full((1, count), top, dtype=torch.float64)  # noqa: E731
    out = augment_signals(torch.ones(1, 2, 10), augment_of(time_mask={"max_sec": 0.18}), draw, RATE)
    assert out[0, 0].tolist() == [1.0] + [0.0] * 9
    moved = augment_signals(torch.ones(1, 1, 10), augment_of(time_shift={"max_samples": 9}), draw)
    assert moved[0, 0].tolist() == [0.0] * 9 + [1.0]


def test_a_length_in_seconds_is_not_cut_short_by_its_last_bit():
    assert 0.29 * 100 < 29
    moved = augment_signals(
        torch.ones(1, 1, 40), augment_of(time_shift={"max_sec": 0.29}), fixed(time_shift=[0.0]), 100.0
    )
    assert (moved == 0).sum().item() == 29


def test_half_a_draw_changes_neither_place_nor_amplitude():
    signals = make_signals(1)
    still = fixed(time_shift=[0.5], amplitude=[0.5], sign_flip=[0.5])
    blocks = {name: ALL[name] for name in ("time_shift", "amplitude", "sign_flip")}
    assert torch.equal(augment_signals(signals, augment_of(**blocks), still, RATE), signals)


def test_amplitude_factors_span_their_range():
    out = augment_signals(torch.ones(5000, 2, 1), augment_of(amplitude={"max_scale": 0.3}), draws_of(5000))
    assert torch.equal(out[:, 0], out[:, 1])
    assert stats.kstest(out[:, 0, 0].numpy(), stats.uniform(0.7, 0.6).cdf).pvalue > 1e-3


def test_the_deviation_of_the_noise_spans_its_range():
    signals = make_signals(500, 2, 400)
    noisy = augment_signals(signals, augment_of(signal_noise={"max_std_frac": 0.4}), draws_of(500))
    own = signals.var(2, correction=0).mean(1).sqrt()
    share = ((noisy - signals).flatten(1).std(1) / own).numpy()
    assert share.max() < 0.45
    assert share.mean() == pytest.approx(0.2, abs=0.02)


def test_blocks_run_in_the_order_in_which_they_stand():
    signals, draw = make_signals(), draws_of(9)
    expected = signals
    for name in Augment.model_fields:
        if name in ALL:
            expected = augment_signals(expected, augment_of(**{name: ALL[name]}), draw, RATE)
    assert torch.equal(augment_signals(signals, augment_of(**ALL), draw, RATE), expected)


@pytest.mark.parametrize("name", ALL)
def test_switching_another_block_on_leaves_the_draws_of_a_block(name):
    asked = []

    def draw(what, count):
        asked.append((what, count))
        return draws_of(9)(what, count)

    augment_signals(make_signals(), augment_of(**{name: ALL[name]}), draw, RATE)
    assert [what for what, _ in asked] == [name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("times", [40, 41])
@pytest.mark.parametrize("size", [1, 7])
def test_a_sample_is_the_same_alone_in_seven_or_in_a_batch_of_64(dtype, times, size):
    signals = make_signals(64, 3, times, dtype)
    augment = augment_of(**ALL)
    whole = augment_signals(signals, augment, draws_of(64), RATE)
    assert (whole.dtype, whole.shape) == (dtype, signals.shape)
    parts = []
    for start in range(0, 64, size):
        part = signals[start : start + size]
        parts.append(augment_signals(part, augment, draws_of(len(part), start), RATE))
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [*ALL, "all"])
def test_inputs_are_left_untouched_and_the_type_stays(name):
    augment = augment_of(**(ALL if name == "all" else {name: ALL[name]}))
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        signals = make_signals(dtype=dtype)
        before = signals.clone()
        out = augment_signals(signals, augment, draws_of(9), RATE)
        assert torch.equal(signals, before)
        assert (out.dtype, out.shape) == (dtype, signals.shape)
        assert out.isfinite().all()
        assert not torch.equal(out, before)


def test_nothing_switched_on_returns_the_signals_and_draws_nothing():
    signals = make_signals()
    assert augment_signals(signals, Augment(), fixed()) is signals


def test_an_empty_batch_stays_empty():
    assert augment_signals(make_signals()[:0], augment_of(**ALL), draws_of(0), RATE).shape == (0, 3, 41)


# -- what cannot fit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "shape", "rate", "message"),
    [
        ({"time_shift": {"max_sec": 0.5}}, (2, 40), None, "augment.time_shift.max_sec: 0.5 needs sample_rate_hz"),
        ({"time_mask": {"max_sec": 0.5}}, (2, 40), None, "augment.time_mask.max_sec: 0.5 needs sample_rate_hz"),
        ({"band_stop": {"max_width_hz": 4.0}}, (2, 40), None, "augment.band_stop.max_width_hz: 4 needs sample_rate_hz"),
        (
            {"time_shift": {"max_samples": 40}},
            (2, 40),
            None,
            "max_samples: 40 samples does not fit signals of 40 samples. Allowed: 1 to 39",
        ),
        (
            {"time_shift": {"max_sec": 0.5}},
            (2, 40),
            100.0,
            "max_sec: 0.5 s (50 samples at 100 Hz) does not fit signals of 40 samples. Allowed: 0.01 to 0.39",
        ),
        ({"time_shift": {"max_sec": 0.005}}, (2, 40), 100.0, "(0 samples at 100 Hz) does not fit"),
        (
            {"time_mask": {"max_sec": 0.4}},
            (2, 40),
            100.0,
            "augment.time_mask.max_sec: 0.4 s (40 samples at 100 Hz) does not fit",
        ),
        (
            {"band_stop": {"max_width_hz": 51.0}},
            (2, 40),
            100.0,
            "max_width_hz: 51 Hz is wider than all that the signals hold: 0..50 Hz, half of sample_rate_hz: 100",
        ),
        ({"channel_dropout": {"drop_prob": 0.1}}, (1, 40), None, "channel_dropout: the signals have one channel"),
        ({"phase": {"max_angle_deg": 90.0}}, (1, 2), None, "signals of 2 samples have no phase to turn"),
    ],
)
def test_what_cannot_fit_is_refused_with_its_limit(blocks, shape, rate, message):
    with pytest.raises(ConfigError) as error:
        refuse_signal_augment(augment_of(**blocks), shape, rate)
    assert message in str(error.value)


def test_what_just_fits_is_not_refused_and_runs():
    edge = {"time_shift": {"max_sec": 0.39}, "time_mask": {"max_sec": 0.39}, "band_stop": {"max_width_hz": 50.0}}
    augment = augment_of(**(ALL | edge))
    refuse_signal_augment(augment, (2, 40), 100.0)
    out = augment_signals(make_signals(50, 2, 40), augment, draws_of(50), 100.0)
    assert out.isfinite().all()
    refuse_signal_augment(augment_of(time_shift={"max_samples": 39}, sign_flip=True), (1, 40), None)
    refuse_signal_augment(Augment(), (1, 1), None)


def test_a_change_in_seconds_without_a_rate_is_a_fault_of_the_caller():
    with pytest.raises(ValueError, match="needs sample_rate_hz"):
        augment_signals(make_signals(1), augment_of(time_mask={"max_sec": 0.1}), draws_of(1))


@pytest.mark.gpu
def test_cuda_gives_the_bits_of_the_cpu_for_even_noise_and_nearly_so_for_signals():
    seeds = noise_seeds(draws_of(64)("x", 2))
    assert torch.equal(uniform_noise(seeds.cuda(), (3, 50)).cpu(), uniform_noise(seeds, (3, 50)))
    torch.testing.assert_close(
        gaussian_noise(seeds.cuda(), (3, 50)).cpu(), gaussian_noise(seeds, (3, 50)), atol=1e-5, rtol=0
    )
    signals, augment = make_signals(64, dtype=torch.float32), augment_of(**ALL)
    there = augment_signals(signals.cuda(), augment, lambda name, n: draws_of(64)(name, n).cuda(), RATE)
    torch.testing.assert_close(there.cpu(), augment_signals(signals, augment, draws_of(64), RATE), atol=1e-4, rtol=0)
