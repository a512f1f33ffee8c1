"""What is done to a signal before it is stored: filters, reference, rate and baseline, each a pure function.

None of it is fitted, so none of it knows of folds: the store keeps what comes out, under a key that the steps are part
of. What is fitted (`input.normalize`, `input.clip`) belongs to the training part of a fold, in `training/scaling`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError
from pipeline.data.filters import change_rate, keep_band, rate_ratio, refuse_band, refuse_notch, take_out
from pipeline.records.signal_steps import SignalSteps

Signal = NDArray[Any]

PACKAGES = ("scipy",)
"""Whose versions decide the values."""
VERSION = "1"
"""Part of the key of what is stored: raise it when a change here or in `filters` changes a value."""


def apply_steps(signal: Signal, steps: SignalSteps, sample_rate_hz: float, name: str) -> Signal:
    """Return the signal after all steps, in the order of the record, (C, T') float32.

    Args:
        signal: (C, T); left untouched.
        steps: at least one.
        sample_rate_hz: samples per second along T.
        name: of the signal, for messages.

    Raises:
        DataError: values are NaN or infinite, which a filter would spread.
        ConfigError: a step does not fit a signal of this length and rate.
    """
    if n_bad := int(signal.size - np.isfinite(signal).sum()):
        raise DataError(
            f"{name}: {n_bad} values are NaN or infinite, which filters would spread; input.nan: channel_mean or zero"
            " fills what is NaN, infinite values must be mended in the files"
        )
    changed = signal.astype(np.float64)
    if steps.notch is not None:
        changed = take_out(changed, steps.notch, sample_rate_hz, name)
    if steps.band_pass is not None:
        changed = keep_band(changed, steps.band_pass, sample_rate_hz, name)
    if steps.reference == "average":
        changed = refer_to_average(changed)
    if steps.resample_hz is not None:
        changed = change_rate(changed, sample_rate_hz, steps.resample_hz)
        sample_rate_hz = steps.resample_hz
    if steps.baseline_sec is not None:
        changed = center_on_window(changed, steps.baseline_sec, sample_rate_hz, name)
    return changed.astype(np.float32)


def refer_to_average(signal: Signal) -> Signal:
    """Return the signal (C, T) less the mean over its channels at each time (common average reference).

    Raises:
        ConfigError: there is one channel only, of which nothing would be left.
    """
    if len(signal) < 2:
        raise ConfigError("input.reference: average leaves nothing of signals of one channel; leave it out")
    return np.asarray(signal - signal.mean(axis=0))


def center_on_window(
    signal: Signal, window_sec: tuple[float, float], sample_rate_hz: float, name: str = "the signal"
) -> Signal:
    """Return the signal (C, T), each channel less its mean in a window (baseline correction).

    Args:
        signal: (C, T); left untouched.
        window_sec: start and end in seconds from the first sample, rounded to whole samples; the end is not included.
        sample_rate_hz: samples per second along T.
        name: of the signal, for messages.

    Raises:
        ConfigError: the window reaches past the end, or holds no sample.
    """
    start, end = (round(seconds * sample_rate_hz) for seconds in window_sec)
    if end > signal.shape[1]:
        raise ConfigError(
            f"input.baseline_sec: {window_sec[0]:g}..{window_sec[1]:g} s reaches past the end of {name}, which lasts"
            f" {signal.shape[1] / sample_rate_hz:g} s ({signal.shape[1]} samples at {sample_rate_hz:g} Hz)"
        )
    if end == start:
        raise ConfigError(
            f"input.baseline_sec: {window_sec[0]:g}..{window_sec[1]:g} s holds no sample at {sample_rate_hz:g} Hz; make"
            f" it longer than {1 / sample_rate_hz:g} s"
        )
    return np.asarray(signal - signal[:, start:end].mean(axis=1, keepdims=True))


def refuse_steps(steps: SignalSteps, sample_rate_hz: float | None) -> None:
    """Raise a ConfigError for what signals of this rate cannot be put through, before any is read."""
    in_hz_or_sec = ("notch", "band_pass", "resample_hz", "baseline_sec")
    asked = [key for key in in_hz_or_sec if getattr(steps, key) is not None]
    if asked and sample_rate_hz is None:
        raise ConfigError(
            f"input.{asked[0]}: is given in Hz or seconds, and the task states no sample_rate_hz:; state it there"
        )
    if sample_rate_hz is None:
        return
    if steps.band_pass is not None:
        refuse_band(steps.band_pass, sample_rate_hz)
    if steps.notch is not None:
        refuse_notch(steps.notch, sample_rate_hz)
    if steps.resample_hz is not None:
        rate_ratio(sample_rate_hz, steps.resample_hz)
