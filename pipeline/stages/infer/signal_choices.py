"""From what was measured on some signals to their preprocessing: a line for each thing that is clear, with its figure.

What may tell the labels is never taken away (see `telling`): a level that differs from item to item may be the posture
of a wrist, and a line at 50 Hz the speed of a motor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.data.robust import IQR_OF_NORMAL
from pipeline.stages.infer.signal_facts import MAINS_HZ, N_BANDS, Floats, SignalFacts
from pipeline.stages.infer.telling import may_tell

LEAST_ITEMS = 20
"""Fewer signals say nothing about the others."""
LINE_RATIO = 5.0
"""Power density of a line of the mains against what lies around it. Noise has 1, and a rhythm that is broader than
some 5 Hz little more."""
LINE_SHARE = 0.01
"""Of the power; a fainter line is nothing beside the rest that a net sees."""
DRIFT_SHARE = 0.95
"""Of the variance inside an item in a line and a curve. A random walk has about three quarters."""
LEVEL_RATIO = 3.0
"""How much more a channel's mean differs between items than the channel moves inside one; at 3, nine tenths of the
variance that normalisation sees are no movement."""
CLIP = 10.0
"""Robust deviations: Gaussian signals of a million values stay within 5, those with double-exponential tails within 10
up to some 10,000 values."""
FAR = 20.0
"""Robust deviations of a value that is no part of the signal, twice the clip: an electrode that moves may
leave hundreds."""
MOST_FAR = 0.25
"""Share of items with such values; if more have them they are what the signal is made of, as heart beats are."""
LONGEST = 2_048
"""Samples of an item that `eegnet` and `conv1d` are meant for."""
QUIET = 0.001
"""Share of the power that a lower rate may lose."""
_PASSED = 0.8
"""Of half of the new rate; what lies above is weakened by the filter of the new rate."""
COMMON_SHARE = 0.9
"""Of the variance in one signal that all channels have alike; below, much of it may be what neighbours see alike."""
LEAST_CHANNELS = 8
"""For a mean over channels that is not mostly the channel itself."""
OFFSET = 3.0
"""Typical distance of a channel from zero, in its deviations, from which on zeros that enter look like an event."""
_LEAST_SAMPLES = 64


@dataclass(frozen=True)
class Choice:
    """A line of the experiment and why it is there."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Chosen:
    """What is done to signals."""

    choices: tuple[Choice, ...] = ()
    n_samples: int | None = None
    """Of the longest item at its new rate; None where the rate stays."""
    offset: float = 0.0
    """How far from zero, in deviations, the signals still lie; 0 where it does not matter."""


def choose_steps(facts: SignalFacts | None) -> Chosen:
    """Return the preprocessing that the evidence is clear for.

    Args:
        facts: what was measured; None for nothing.
    """
    if facts is None or len(facts.shapes) < LEAST_ITEMS or not _alive(facts).any():
        return Chosen()
    reference, resample = _reference(facts), _resample(facts)
    centre = _drift(facts) or _level(facts)
    steps = [_notch(facts), centre, reference, resample]
    choices = [choice for choice in steps if choice is not None]
    n_samples = None
    if resample is not None and facts.rate_hz is not None:
        n_samples = math.ceil(_longest(facts) * resample.value / facts.rate_hz)
    return Chosen((*choices, *_outliers(facts, centre is not None)), n_samples, 0.0 if centre else _offset(facts))


def _notch(facts: SignalFacts) -> Choice | None:
    ratios = np.median(facts.lines, axis=0)  # (C, 2, 4)
    shares = np.median(facts.line_power, axis=0)
    is_line = (ratios[:, :, 0] >= LINE_RATIO) & (shares >= LINE_SHARE)
    if not is_line.any():
        return None
    place = int(np.where(is_line, ratios[:, :, 0], 0).max(axis=0).argmax())
    with_line = is_line[:, place]
    if may_tell((facts.line_power[:, :, place] * facts.power)[:, with_line], facts.labels):
        return None
    strongest = ratios[with_line, place].max(axis=0)
    hz = [MAINS_HZ[place] * (number + 1) for number, ratio in enumerate(strongest) if ratio >= LINE_RATIO]
    found = f"the mains: power at {MAINS_HZ[place]:g} Hz is {strongest[0]:,.0f} times that of what lies around it"
    return Choice("input.notch", {"hz": [_plain(each) for each in hz]}, f"{found}, and tells no label")


def _drift(facts: SignalFacts) -> Choice | None:
    shortest = min(length for _, length in facts.shapes)
    share = float(np.median(np.median(facts.slow_share, axis=0)[_alive(facts)]))
    if facts.rate_hz is None or share < DRIFT_SHARE or shortest < _LEAST_SAMPLES:
        return None
    if may_tell(
        np.concatenate([facts.level[:, :, None], facts.slow], axis=2).reshape(len(facts.level), -1), facts.labels
    ):
        return None
    low_hz = float(f"{2 * facts.rate_hz / shortest:.2g}")
    reason = f"{share:.0%} of what moves inside an item is a slow drift, which tells no label"
    return Choice("input.band_pass", {"low_hz": _plain(low_hz)}, reason)


def _level(facts: SignalFacts) -> Choice | None:
    if facts.rate_hz is None or len(set(facts.shapes)) > 1:
        return None
    low, high = np.percentile(facts.level, [25, 75], axis=0)
    alive = _alive(facts)
    ratio = float(np.median(((high - low) / IQR_OF_NORMAL)[alive] / np.median(facts.deviation, axis=0)[alive]))
    if ratio < LEVEL_RATIO or may_tell(facts.level, facts.labels):
        return None
    whole = round(_longest(facts) / facts.rate_hz, 6)
    reason = f"the mean of a channel differs between items {ratio:.1f} times as much as it moves inside one"
    return Choice("input.baseline_sec", [0, _plain(whole)], f"{reason}, and tells no label")


def _reference(facts: SignalFacts) -> Choice | None:
    share = float(np.median(facts.common_share))
    if facts.n_channels < LEAST_CHANNELS or share < COMMON_SHARE or may_tell(facts.common, facts.labels):
        return None
    reason = f"{share:.0%} of what moves is alike in all {facts.n_channels} channels, and tells no label"
    return Choice("input.reference", "average", reason)


def _resample(facts: SignalFacts) -> Choice | None:
    n_samples = _longest(facts)
    wanted = None if facts.rate_hz is None else _lower_rate(facts.rate_hz, n_samples)
    if wanted is None or facts.rate_hz is None:
        return None
    above = facts.bands[:, :, math.floor(_PASSED * wanted / facts.rate_hz * N_BANDS) :].sum(axis=2)
    share = float(np.median(above, axis=0).max())
    if share > QUIET or may_tell(above * facts.power, facts.labels):
        return None
    reason = f"{share:.2%} of the power lies above; {n_samples:,} samples are more than the net is meant for"
    return Choice("input.resample_hz", _plain(wanted), reason)


def _outliers(facts: SignalFacts, is_centred: bool) -> Iterator[Choice]:
    """Yield what limits single values, where few items have some and the others stay within the limit."""
    alive = _alive(facts)
    typical = np.median(facts.spread, axis=0)[alive]
    if (typical < 0.2 * np.median(facts.deviation, axis=0)[alive]).any():
        return  # mostly at rest: the range between quartiles says nothing about the rest
    spread, largest = facts.spread[:, alive], facts.largest[:, alive]
    far = (largest / np.maximum(spread, typical)).max(axis=1)
    is_far = far > FAR
    away = 0.0 if is_centred else np.abs(facts.level - np.median(facts.level, axis=0))[:, alive]
    size = ((largest + away) / typical).max(axis=1)[~is_far]
    if not 0 < is_far.mean() <= MOST_FAR or np.quantile(size, 0.95) > CLIP:
        return
    reason = f"{is_far.sum()} of {len(far)} items have single values up to {far.max():,.0f} deviations away"
    yield Choice("input.normalize", "robust", reason)
    yield Choice("input.clip", _plain(CLIP), f"the others stay within {np.quantile(size, 0.95):.0f}")


def _offset(facts: SignalFacts) -> float:
    alive = _alive(facts)
    deviation = np.median(facts.deviation, axis=0)[alive]
    return float(np.median(np.median(np.abs(facts.level), axis=0)[alive] / deviation))


def _alive(facts: SignalFacts) -> Floats:
    """Return which channels move in most items, (C,)."""
    return np.asarray(np.median(facts.deviation, axis=0) > 0)


def _longest(facts: SignalFacts) -> int:
    return max(length for _, length in facts.shapes)


def _lower_rate(rate_hz: float, n_samples: int) -> float | None:
    """Return the highest whole rate at which an item is not too long, at most twice as low as it has to be."""
    least = math.ceil(n_samples / LONGEST)
    if least < 2:
        return None
    return next((rate_hz / by for by in range(least, 2 * least + 1) if (rate_hz / by).is_integer()), None)


def _plain(number: float) -> int | float:
    return int(number) if float(number).is_integer() else number
