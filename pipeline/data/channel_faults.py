"""Channels of signals that say nothing: constant, or without a single value; by number, and in how many items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import listed

Fault = Literal["missing", "constant"]

_WORDS: dict[Fault, str] = {"missing": "without a value", "constant": "constant"}
_MOST = 12
"""Channels that a message names."""


class SilentChannels(NamedTuple):
    """Channels of one item, by number from 0."""

    missing: tuple[int, ...] = ()
    """No value is finite."""
    constant: tuple[int, ...] = ()
    """All finite values are the same."""


def silent_channels(signal: NDArray[Any]) -> SilentChannels:
    """Return the channels of a signal, (C, T) or (T,), that say nothing; one sample alone is not called constant."""
    signal = signal[None] if signal.ndim == 1 else signal
    if signal.ndim != 2 or signal.shape[1] < 2:
        return SilentChannels()
    if signal.dtype.kind != "f":
        return SilentChannels((), _numbers(signal.min(axis=1) == signal.max(axis=1)))
    finite = np.isfinite(signal)
    least = np.where(finite, signal, np.inf).min(axis=1)
    most = np.where(finite, signal, -np.inf).max(axis=1)
    return SilentChannels(_numbers(least > most), _numbers(least == most))


class ChannelTally:
    """In how many items each channel says nothing."""

    def __init__(self) -> None:
        self._counts: dict[Fault, Counter[int]] = {"missing": Counter(), "constant": Counter()}

    def add(self, silent: SilentChannels) -> None:
        """Count the channels of one item."""
        self._counts["missing"].update(silent.missing)
        self._counts["constant"].update(silent.constant)

    def plain(self) -> dict[str, dict[str, int]]:
        """Return the counts by fault and channel number, as JSON knows them."""
        return {
            fault: {str(channel): n for channel, n in sorted(counts.items())}
            for fault, counts in self._counts.items()
            if counts
        }


def describe_silent(counts: Mapping[str, Mapping[str, int]], n_items: int, names: Sequence[str] = ()) -> list[str]:
    """Return a line for each kind of fault, with the channels by number, from 0, and in how many items.

    Args:
        counts: as `ChannelTally.plain` gives them.
        n_items: how many items were looked at.
        names: of the channels, where the task has them.
    """
    lines = []
    for fault, word in _WORDS.items():
        found = {int(channel): n for channel, n in counts.get(fault, {}).items()}
        if not found:
            continue
        shown = [
            f"{channel}{f' ({names[channel]})' if names else ''} in {'all' if n == n_items else f'{n:,}'}"
            for channel, n in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
        ]
        lines.append(f"channels that are {word}, of {n_items:,} items: {listed(shown, _MOST)}")
    return lines


def _numbers(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())
