"""Changes of training signals as pure functions on (B, C, T) batches, on any device.

Every parameter is a tensor with one value per sample, so the functions draw nothing; `augment_signals` draws them by
the name of their block. What entered or was silenced is zero, so signals are best centred before. Nothing here turns
time round or exchanges channels: the side (C3 against C4) is often the label itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.augment.draw import Draw
from pipeline.augment.noise import gaussian_noise, noise_seeds, uniform_noise
from pipeline.base.errors import ConfigError
from pipeline.records.augmentation import Augment


def augment_signals(signals: Tensor, augment: Augment, draw: Draw, sample_rate_hz: float | None = None) -> Tensor:
    """Return the signals changed as `augment` says, in the order of its blocks.

    Args:
        signals: (B, C, T), floating; left untouched, and returned as it is when nothing is switched on.
        augment: which changes, and how large; `refuse_signal_augment` says whether they fit.
        draw: uniform draws of this batch by name.
        sample_rate_hz: samples per second along T; read by what is given in seconds or Hz.
    """
    n_times = signals.shape[2]
    if augment.time_shift is not None:
        most = _n_samples(augment.time_shift.max_samples, augment.time_shift.max_sec, sample_rate_hz)
        signals = shift_signals(signals, _below(draw("time_shift", 1)[:, 0], 2 * most + 1) - most)
    if augment.amplitude is not None:
        signals = scale_signals(signals, 1 + _balanced(draw("amplitude", 1)[:, 0]) * augment.amplitude.max_scale)
    if augment.phase is not None:
        turns = uniform_noise(noise_seeds(draw("phase", 2)), (n_times // 2 + 1,))
        signals = turn_phases(signals, _balanced(turns) * math.radians(augment.phase.max_angle_deg))
    if augment.band_stop is not None:
        low, high = _band(draw("band_stop", 2), augment.band_stop.max_width_hz, _rate(sample_rate_hz))
        signals = stop_band(signals, low, high, _rate(sample_rate_hz))
    if augment.signal_noise is not None:
        draws = draw("signal_noise", 3)
        signals = add_noise(signals, draws[:, 0] * augment.signal_noise.max_std_frac, noise_seeds(draws[:, 1:]))
    if augment.time_mask is not None:
        most = _n_samples(None, augment.time_mask.max_sec, sample_rate_hz)
        signals = mask_time(signals, *_stretch(draw("time_mask", 2), most, n_times))
    if augment.channel_dropout is not None:
        draws = draw("channel_dropout", signals.shape[1])
        signals = drop_channels(signals, _dropped(draws, augment.channel_dropout.drop_prob))
    if augment.sign_flip:
        signals = flip_signs(signals, draw("sign_flip", 1)[:, 0] < 0.5)
    return signals


def refuse_signal_augment(augment: Augment, shape: tuple[int, int], sample_rate_hz: float | None) -> None:
    """Raise a ConfigError for a change that does not fit signals of `shape` (C, T), with what would be allowed."""
    n_channels, n_times = shape
    if augment.time_shift is not None:
        in_sec = augment.time_shift.max_sec is not None
        key = "augment.time_shift." + ("max_sec" if in_sec else "max_samples")
        _refuse_length(key, augment.time_shift.max_samples, augment.time_shift.max_sec, n_times, sample_rate_hz)
    if augment.phase is not None and n_times < 3:
        raise ConfigError(f"augment.phase: signals of {n_times} samples have no phase to turn; at least 3 are needed")
    if augment.band_stop is not None:
        key, width = "augment.band_stop.max_width_hz", augment.band_stop.max_width_hz
        limit = _needed_rate(key, width, sample_rate_hz) / 2
        if width > limit:
            raise ConfigError(
                f"{key}: {width:g} Hz is wider than all that the signals hold: 0..{limit:g} Hz, half of sample_rate_hz:"
                f" {sample_rate_hz:g}. Allowed: at most {limit:g}"
            )
    if augment.time_mask is not None:
        _refuse_length("augment.time_mask.max_sec", None, augment.time_mask.max_sec, n_times, sample_rate_hz)
    if augment.channel_dropout is not None and n_channels < 2:
        raise ConfigError("augment.channel_dropout: the signals have one channel, and one always stays; switch it off")


def shift_signals(signals: Tensor, shift: Tensor) -> Tensor:
    """Return each signal (B, C, T) moved later by `shift` (B,) whole samples, zeros entering; negative is earlier."""
    n_times = signals.shape[2]
    source = torch.arange(n_times, device=signals.device) - shift[:, None]
    moved = signals.gather(2, source.clamp(0, n_times - 1)[:, None].expand_as(signals))
    return moved.masked_fill_(((source < 0) | (source >= n_times))[:, None], 0)


def scale_signals(signals: Tensor, factor: Tensor) -> Tensor:
    """Return each signal (B, C, T) times its `factor` (B,), the same for all channels."""
    return signals * _by_sample(factor, signals)


def turn_phases(signals: Tensor, angles: Tensor) -> Tensor:
    """Return signals of the same amplitude spectra with each frequency's phase turned, alike in all channels.

    So the phase between channels stays. The mean and, for an even length, the Nyquist frequency are left, as they have
    no phase: real signals come back.

    Args:
        signals: (B, C, T), real.
        angles: (B, T // 2 + 1) radians; the first is not read, and for even T neither is the last.

    Source: FT surrogates (Schwabedal et al. 2018, https://arxiv.org/abs/1806.08675), with a largest angle as in
    Rommel et al. 2021, https://arxiv.org/abs/2106.13695.
    """
    n_times = signals.shape[2]
    spectrum = _spectrum(signals)
    turns = angles.to(spectrum.real.dtype, copy=True)
    turns[:, 0] = 0
    if n_times % 2 == 0:
        turns[:, -1] = 0
    turned = spectrum * torch.polar(torch.ones_like(turns), turns)[:, None]
    return _waves(turned, signals)


def stop_band(signals: Tensor, low_hz: Tensor, high_hz: Tensor, sample_rate_hz: float) -> Tensor:
    """Return each signal without the frequencies above `low_hz` up to and with `high_hz`, in all channels alike.

    The edges are sharp: a frequency of the discrete Fourier transform (a multiple of sample_rate_hz / T) is taken out
    whole or left as it is. As low_hz >= 0 the mean always stays; a band between two such frequencies changes nothing.

    Args:
        signals: (B, C, T), real.
        low_hz: (B,), >= 0.
        high_hz: (B,), >= low_hz.
        sample_rate_hz: samples per second along T.
    """
    n_times = signals.shape[2]
    # Not rfftfreq, whose float32 would move a frequency across an edge on one device and not on the other.
    places = torch.arange(n_times // 2 + 1, device=signals.device, dtype=torch.float64)
    frequencies = places * sample_rate_hz / n_times
    stopped = (frequencies > low_hz.double()[:, None]) & (frequencies <= high_hz.double()[:, None])
    kept = _spectrum(signals).masked_fill(stopped[:, None], 0)
    return _waves(kept, signals)


def add_noise(signals: Tensor, std_frac: Tensor, seeds: Tensor) -> Tensor:
    """Return each signal with Gaussian noise on every value, as a share of its own deviation.

    That deviation is taken about each channel's own mean and over all channels together, so that offsets between
    channels do not count, and quiet channels get as much noise as loud ones.

    Args:
        signals: (B, C, T), real.
        std_frac: (B,) deviation of the noise / deviation of the signal, >= 0.
        seeds: (B,) int64, of `gaussian_noise`.
    """
    own = (signals - signals.mean(dim=2, keepdim=True)).square().mean(dim=(1, 2)).sqrt()
    noise = gaussian_noise(seeds, tuple(signals.shape[1:])).to(signals.dtype)
    return signals + noise * (own * std_frac.to(own.dtype))[:, None, None]


def mask_time(signals: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """Return each signal (B, C, T) with zeros in all channels for `length` (B,) samples from `start` (B,) on.

    Source: the time mask of SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779), on the raw wave.
    """
    times = torch.arange(signals.shape[2], device=signals.device)
    masked = (times >= start[:, None]) & (times < (start + length)[:, None])
    return signals.masked_fill(masked[:, None], 0)


def drop_channels(signals: Tensor, dropped: Tensor) -> Tensor:
    """Return the signals (B, C, T) with zeros in the channels where `dropped` (B, C); the others are not enlarged."""
    return signals.masked_fill(dropped[:, :, None], 0)


def flip_signs(signals: Tensor, flipped: Tensor) -> Tensor:
    """Return the signals (B, C, T) upside down where `flipped` (B,)."""
    return torch.where(flipped[:, None, None], -signals, signals)


def _balanced(draws: Tensor) -> Tensor:
    """Return draws of [0, 1) as values of [-1, 1)."""
    return 2 * draws - 1


def _below(draws: Tensor, n: Tensor | int) -> Tensor:
    """Return an integer of 0..n-1 for each uniform draw, all equally likely, int64."""
    return (draws * n).floor().long()


def _band(draws: Tensor, max_width_hz: float, sample_rate_hz: float) -> tuple[Tensor, Tensor]:
    """Return low and high edge (B,) of a band of even width up to the largest, anywhere in 0..sample_rate_hz / 2."""
    width = draws[:, 0] * max_width_hz
    low = draws[:, 1] * (sample_rate_hz / 2 - width)
    return low, low + width


def _stretch(draws: Tensor, most: int, n_times: int) -> tuple[Tensor, Tensor]:
    """Return start and length (B,) of a stretch of 0..most samples, each length and each place equally likely."""
    length = _below(draws[:, 0], most + 1)
    return _below(draws[:, 1], n_times - length + 1), length


def _dropped(draws: Tensor, drop_prob: float) -> Tensor:
    """Return which channels fall silent, (B, C) bool; where all would, the one with the largest draw stays."""
    return (draws < drop_prob).scatter(1, draws.argmax(dim=1, keepdim=True), False)


def _spectrum(signals: Tensor) -> Tensor:
    """Return the Fourier transform along time, (B, C, T // 2 + 1), at least in single precision."""
    spectrum: Tensor = torch.fft.rfft(signals if signals.dtype == torch.float64 else signals.float(), dim=2)
    return spectrum


def _waves(spectrum: Tensor, signals: Tensor) -> Tensor:
    """Return the signals of a spectrum, in length and type as `signals`."""
    waves: Tensor = torch.fft.irfft(spectrum, n=signals.shape[2], dim=2)
    return waves.to(signals.dtype)


def _by_sample(values: Tensor, signals: Tensor) -> Tensor:
    return values.to(signals.dtype)[:, None, None]


def _n_samples(samples: int | None, seconds: float | None, sample_rate_hz: float | None) -> int:
    """Return a length in whole samples, rounded down; a length in seconds needs the rate."""
    if samples is not None:
        return samples
    # 0.3 s at 10 Hz are 3 samples, though 0.3 * 10 may fall short of 3 by its last bit.
    return math.floor((seconds or 0.0) * _rate(sample_rate_hz) * (1 + 1e-12))


def _rate(sample_rate_hz: float | None) -> float:
    if sample_rate_hz is None:
        raise ValueError("a change in seconds or Hz needs sample_rate_hz; refuse_signal_augment says so to users")
    return sample_rate_hz


def _needed_rate(key: str, value: float, sample_rate_hz: float | None) -> float:
    if sample_rate_hz is None:
        raise ConfigError(f"{key}: {value:g} needs sample_rate_hz: in the task, which is not given there")
    return sample_rate_hz


def _refuse_length(
    key: str, samples: int | None, seconds: float | None, n_times: int, sample_rate_hz: float | None
) -> None:
    """Raise a ConfigError for a length that is no sample at all, or the whole signal."""
    rate = 1.0 if samples is not None else _needed_rate(key, seconds or 0.0, sample_rate_hz)
    most = _n_samples(samples, seconds, sample_rate_hz)
    if not 1 <= most < n_times:
        unit = "samples" if samples is not None else f"s ({most} samples at {rate:g} Hz)"
        raise ConfigError(
            f"{key}: {samples or seconds:g} {unit} does not fit signals of {n_times} samples."
            f" Allowed: {1 / rate:g} to {(n_times - 1) / rate:g}"
        )
