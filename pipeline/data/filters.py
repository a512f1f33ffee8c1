"""Filters along time as pure functions on (C, T) signals, by scipy; they move nothing in time.

What is wrong with a request is said with the key of the experiment that makes it.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError
from pipeline.records.signal_steps import BandPass, Notch

Signal = NDArray[Any]
Waves = NDArray[np.float64]

_LARGEST_FACTOR = 1000
"""Of the whole numbers by which a signal is made longer and then shorter when its rate changes."""


def keep_band(signal: Signal, band: BandPass, sample_rate_hz: float, name: str = "the signal") -> Waves:
    """Return the signal without the frequencies outside a band, (C, T) float64.

    Butterworth in second-order sections, forwards and backwards: no delay, half of the amplitude at the edges, twice
    the order. The ends are continued by their point reflection, as `scipy.signal.sosfiltfilt` does.

    Args:
        signal: (C, T), finite; left untouched.
        band: its edges and the order of one run.
        sample_rate_hz: samples per second along T.
        name: of the signal, for messages.

    Raises:
        ConfigError: an edge is at or above half of the rate, or T is too short for the order.
    """
    from scipy.signal import butter, sosfiltfilt

    refuse_band(band, sample_rate_hz)
    kind = "highpass" if band.high_hz is None else "lowpass" if band.low_hz is None else "bandpass"
    edges = [edge for edge in (band.low_hz, band.high_hz) if edge is not None]
    sections = butter(band.order, edges if len(edges) == 2 else edges[0], kind, fs=sample_rate_hz, output="sos")
    n_needed = _reach(sections) + 1
    if signal.shape[1] < n_needed:
        raise ConfigError(
            f"input.band_pass.order: {band.order} needs signals of {n_needed} samples or more, {name} has"
            f" {signal.shape[1]}; lower it, or leave band_pass: out"
        )
    return np.asarray(sosfiltfilt(sections, signal.astype(np.float64), axis=1))


def take_out(signal: Signal, notch: Notch, sample_rate_hz: float, name: str = "the signal") -> Waves:
    """Return the signal without single frequencies, (C, T) float64, forwards and backwards as in `keep_band`.

    Args:
        signal: (C, T), finite; left untouched.
        notch: the frequencies, and how wide the gaps are.
        sample_rate_hz: samples per second along T.
        name: of the signal, for messages.

    Raises:
        ConfigError: a frequency is at or above half of the rate, or T is too short.
    """
    from scipy.signal import iirnotch, sosfiltfilt, tf2sos

    refuse_notch(notch, sample_rate_hz)
    # Each run leaves 1 / sqrt(2) at the edges, so both leave half, as the band-pass does.
    sections = np.concatenate([tf2sos(*iirnotch(hz, hz / notch.width_hz, sample_rate_hz)) for hz in notch.hz])
    n_needed = _reach(sections) + 1
    if signal.shape[1] < n_needed:
        raise ConfigError(
            f"input.notch.hz: {len(notch.hz)} frequencies need signals of {n_needed} samples or more, {name} has"
            f" {signal.shape[1]}; name fewer, or leave notch: out"
        )
    return np.asarray(sosfiltfilt(sections, signal.astype(np.float64), axis=1))


def change_rate(signal: Signal, sample_rate_hz: float, wanted_hz: float) -> Waves:
    """Return the signal at another rate, (C, ceil(T * wanted_hz / sample_rate_hz)) float64.

    A polyphase filter (a Kaiser window of 5.0) that cuts what the lower of both rates cannot hold. The line from the
    first to the last sample is taken off meanwhile: a large offset would make steps at the ends, and ripple.

    Args:
        signal: (C, T), finite; left untouched.
        sample_rate_hz: samples per second along T.
        wanted_hz: the new rate.

    Raises:
        ConfigError: the rates are in no ratio of whole numbers up to 1,000.
    """
    from scipy.signal import resample_poly

    ratio = rate_ratio(sample_rate_hz, wanted_hz)
    if ratio == 1:
        return signal.astype(np.float64)
    waves = signal.astype(np.float64)
    first, slope = waves[:, :1], (waves[:, -1:] - waves[:, :1]) / max(1, waves.shape[1] - 1)
    around_line = waves - (first + slope * np.arange(waves.shape[1]))
    changed = resample_poly(around_line, ratio.numerator, ratio.denominator, axis=1)
    return np.asarray(changed + first + slope * (np.arange(changed.shape[1]) / float(ratio)))


def rate_ratio(sample_rate_hz: float, wanted_hz: float) -> Fraction:
    """Return wanted_hz / sample_rate_hz in whole numbers; raises ConfigError where none up to 1,000 come near it."""
    wanted = wanted_hz / sample_rate_hz
    ratio = Fraction(wanted).limit_denominator(_LARGEST_FACTOR)
    if ratio.numerator > _LARGEST_FACTOR or abs(float(ratio) - wanted) > 1e-6 * wanted:
        near = [f"{sample_rate_hz * n / d:g}" for n, d in _near(wanted)]
        raise ConfigError(
            f"input.resample_hz: {wanted_hz:g} is in no ratio of whole numbers up to {_LARGEST_FACTOR:,} to"
            f" sample_rate_hz: {sample_rate_hz:g}; such as {' or '.join(near)} are"
        )
    return ratio


def refuse_band(band: BandPass, sample_rate_hz: float) -> None:
    """Raise a ConfigError for an edge that signals of this rate cannot hold."""
    for key, edge in (("low_hz", band.low_hz), ("high_hz", band.high_hz)):
        if edge is not None:
            _refuse_above_half(f"input.band_pass.{key}", edge, sample_rate_hz)


def refuse_notch(notch: Notch, sample_rate_hz: float) -> None:
    """Raise a ConfigError for a frequency that signals of this rate cannot hold, or a gap that reaches to zero."""
    for hz in notch.hz:
        _refuse_above_half("input.notch.hz", hz, sample_rate_hz)
        if notch.width_hz >= 2 * hz:
            raise ConfigError(
                f"input.notch.width_hz: a gap of {notch.width_hz:g} Hz around {hz:g} Hz reaches below zero. Allowed:"
                f" below {2 * hz:g}"
            )


def _refuse_above_half(key: str, hz: float, sample_rate_hz: float) -> None:
    if hz >= sample_rate_hz / 2:
        raise ConfigError(
            f"{key}: {hz:g} Hz cannot be told apart at sample_rate_hz: {sample_rate_hz:g}, whose signals hold"
            f" frequencies below half of it. Allowed: below {sample_rate_hz / 2:g}"
        )


def _reach(sections: NDArray[Any]) -> int:
    """Return by how many samples `sosfiltfilt` continues a signal at either end; a signal must be longer."""
    n_taps = 2 * len(sections) + 1
    n_taps -= min(int((sections[:, 2] == 0).sum()), int((sections[:, 5] == 0).sum()))
    return 3 * n_taps


def _near(wanted: float) -> list[tuple[int, int]]:
    """Return one or two ratios of whole numbers close to the wanted one."""
    close = [Fraction(wanted).limit_denominator(n) for n in (10, _LARGEST_FACTOR)]
    kept = [each for each in dict.fromkeys(close) if 0 < each.numerator <= _LARGEST_FACTOR]
    ends = [(1, _LARGEST_FACTOR)] if wanted < 1 else [(_LARGEST_FACTOR, 1)]
    return [(each.numerator, each.denominator) for each in kept] or ends
