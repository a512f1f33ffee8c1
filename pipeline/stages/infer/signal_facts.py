"""What a glance measures on each signal, for the choice of its preprocessing; the signals themselves are not kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.robust import IQR_OF_NORMAL

Floats = NDArray[np.float64]

MAINS_HZ = (50.0, 60.0)
MOST_HARMONICS = 4
N_BANDS = 64
"""Even parts of the frequencies from zero to half of the rate, in which power is added up."""
N_COMMON = 12
"""Numbers that say what the mean over all channels does."""

_MOST_VALUES = 2**19
"""Of an item that are looked at, from its start on: 64 channels of 8,192 samples take about a tenth of a second."""
_LINE_HZ, _AROUND_HZ = 1.0, 10.0
_ROUNDING = 1e-6
"""A channel that moves less, as a share of its mean, is constant but for the rounding of single precision."""
_LEAST_SEC = 1.0
"""Below, a line of the mains and what lies around it are the same few values of a spectrum."""


@dataclass(frozen=True, eq=False)
class SignalFacts:
    """What was measured on N signals of C channels; those that differ in their channels were passed over."""

    rate_hz: float | None
    shapes: tuple[tuple[int, int], ...]
    """(C, T) of each."""
    labels: NDArray[np.float32]
    """(N, L), as of a glance."""
    level: Floats
    """(N, C) mean over time."""
    deviation: Floats
    """(N, C) standard deviation around it."""
    spread: Floats
    """(N, C) interquartile range / 1.349."""
    largest: Floats
    """(N, C) largest distance of a value from the channel's median in the item."""
    slow: Floats
    """(N, C, 2) what of a parabola in time is in the signal: its line and its curve, in stored units."""
    slow_share: Floats
    """(N, C) share of the variance that these two make up."""
    bands: Floats
    """(N, C, 64) share of the power in each part of the frequencies, without the parabola."""
    power: Floats
    """(N, C) variance without the parabola."""
    lines: Floats
    """(N, C, 2, 4) power density within 1 Hz of a multiple of 50 and 60 Hz, against what lies up to 10 Hz around;
    0 where the rate is not known, or the signal does not hold it."""
    line_power: Floats
    """(N, C, 2) share of the power within 1 Hz of 50 and 60 Hz."""
    common_share: Floats
    """(N,) share of the variance that all channels have alike, 1 / C where they have nothing in common."""
    common: Floats
    """(N, 12) what the mean of the channels does: its strength, shape in time and bands."""

    @property
    def n_channels(self) -> int:
        """Return C."""
        return int(self.level.shape[1])


@dataclass(frozen=True, eq=False)
class SignalMeasure:
    """What was measured on one signal; the keys are those of `SignalFacts`."""

    shape: tuple[int, int]
    values: dict[str, Floats]


def measure_signal(signal: NDArray[Any], rate_hz: float | None) -> SignalMeasure:
    """Return what a signal (C, T) is like; gaps are filled with the channel's mean, infinite values taken for gaps."""
    n_channels, n_samples = signal.shape
    waves = _without_gaps(np.asarray(signal[:, : max(1, _MOST_VALUES // max(1, n_channels))], dtype=np.float64))
    low, median, high = np.percentile(waves, [25, 50, 75], axis=1)
    level = waves.mean(axis=1)
    around = np.where(waves.std(axis=1) > _ROUNDING * np.abs(level), waves.var(axis=1), 0.0)
    slow, rest = _parabola(np.where(around[:, None] > 0, waves - level[:, None], 0.0))
    power = rest.var(axis=1)
    spectrum = _spectrum(rest)
    lines, line_power = _mains(spectrum, rate_hz, waves.shape[1])
    shared = rest.mean(axis=0)
    values = {
        "level": level,
        "deviation": np.sqrt(around),
        "spread": (high - low) / IQR_OF_NORMAL,
        "largest": np.abs(waves - median[:, None]).max(axis=1),
        "slow": slow,
        "slow_share": 1 - _ratio(power, around, 1.0),
        "bands": _in_bands(spectrum),
        "power": power,
        "lines": lines,
        "line_power": line_power,
        "common_share": _ratio(n_channels * shared.var(), power.sum()),
        "common": _common(shared),
    }
    return SignalMeasure((n_channels, n_samples), values)


def signal_facts(
    measured: Sequence[SignalMeasure], labels: NDArray[np.float32], rate_hz: float | None
) -> SignalFacts | None:
    """Return what was measured as arrays, of the signals with the most usual number of channels; None for no signal.

    Args:
        measured: one or more signals.
        labels: (N, L), what is known of each.
        rate_hz: samples per second; None where it is not known.
    """
    if not measured:
        return None
    counts = [each.shape[0] for each in measured]
    usual = max(sorted(set(counts)), key=counts.count)
    kept = [place for place, count in enumerate(counts) if count == usual]
    stacked = {name: np.stack([measured[place].values[name] for place in kept]) for name in measured[0].values}
    shapes = tuple(measured[place].shape for place in kept)
    return SignalFacts(rate_hz=rate_hz, shapes=shapes, labels=labels[kept], **stacked)


def _without_gaps(waves: Floats) -> Floats:
    is_known = np.isfinite(waves)
    if is_known.all():
        return waves
    known = np.where(is_known, waves, 0.0)
    means = known.sum(axis=1) / np.maximum(is_known.sum(axis=1), 1)
    return np.asarray(np.where(is_known, waves, means[:, None]))


def _ratio(part: Any, whole: Any, otherwise: float = 0.0) -> Floats:
    """Return part / whole; what there is no whole of is `otherwise`."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    is_there = whole > 0
    return np.asarray(np.where(is_there, part / np.where(is_there, whole, 1.0), otherwise))


def _parabola(waves: Floats) -> tuple[Floats, Floats]:
    """Return how much of a line and of a curve is in centred waves (C, T), (C, 2), and the waves without, (C, T)."""
    n_samples = waves.shape[1]
    if n_samples < 3:
        return np.zeros((len(waves), 2)), waves
    times = np.linspace(-1.0, 1.0, n_samples)
    curve = times**2 - (times**2).mean()
    shapes = np.stack([times / np.sqrt((times**2).mean()), curve / np.sqrt((curve**2).mean())])
    amounts = waves @ shapes.T / n_samples
    return amounts, waves - amounts @ shapes


def _spectrum(waves: Floats) -> Floats:
    """Return the power of waves (C, T) at each frequency, under a Hann window, (C, T // 2 + 1)."""
    return np.asarray(np.abs(np.fft.rfft(waves * np.hanning(waves.shape[1]), axis=1)) ** 2)


def _in_bands(spectrum: Floats) -> Floats:
    """Return the share of the power in each of 64 even bands, (C, 64); zeros of a channel without power."""
    places = np.arange(spectrum.shape[1]) * N_BANDS // spectrum.shape[1]
    sums = np.stack([np.bincount(places, row, N_BANDS) for row in spectrum])
    return _ratio(sums, sums.sum(axis=1, keepdims=True))


def _mains(spectrum: Floats, rate_hz: float | None, n_samples: int) -> tuple[Floats, Floats]:
    """Return how far the mains and their harmonics stand out, (C, 2, 4), and their share of the power, (C, 2)."""
    found = np.zeros((len(spectrum), len(MAINS_HZ), MOST_HARMONICS))
    shares = np.zeros((len(spectrum), len(MAINS_HZ)))
    if rate_hz is None or n_samples < _LEAST_SEC * rate_hz:
        return found, shares
    step = rate_hz / n_samples
    frequencies = np.arange(spectrum.shape[1]) * step
    width = max(_LINE_HZ, 2 * step)
    for place, base in enumerate(MAINS_HZ):
        for number in range(MOST_HARMONICS):
            distance = np.abs(frequencies - base * (number + 1))
            is_line = distance <= width
            is_around = (distance > width + step) & (distance <= _AROUND_HZ)
            if base * (number + 1) + width >= rate_hz / 2 or is_around.sum() < 3:
                continue
            found[:, place, number] = _ratio(spectrum[:, is_line].mean(axis=1), spectrum[:, is_around].mean(axis=1))
            if number == 0:
                shares[:, place] = _ratio(spectrum[:, is_line].sum(axis=1), spectrum.sum(axis=1))
    return found, shares


def _common(shared: Floats) -> Floats:
    """Return strength, shape in seven parts of the time, and the power in four bands of a wave (T,), (12,)."""
    deviation = shared.std()
    parts = np.array([part.mean() if len(part) else 0.0 for part in np.array_split(shared, 7)])
    spectrum = _spectrum(shared[None])[0]
    bands = np.array([part.sum() for part in np.array_split(spectrum, 4)])
    return np.concatenate([[deviation], parts, bands])
