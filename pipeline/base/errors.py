"""Errors that a user can mend: each is shown as one message and ends the command with its own exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PodiumError(Exception):
    """A fault in what the user gave; the message says where, what was expected and what to do."""

    exit_code = 1


class ConfigError(PodiumError):
    """A key or value of a configuration is unknown, of the wrong type, out of range or never read."""


class DataError(PodiumError):
    """A table or file of the competition is missing, unreadable or contradicts the task."""


class MismatchError(PodiumError):
    """Things that must belong together (ids, classes, folds, configs) do not."""


class LeakError(PodiumError):
    """A row would be scored by a model that has seen it, or a label made from it."""


class DivergedError(DataError):
    """A training left the finite numbers: its loss, its weights or what it predicts."""


class StopRequestedError(PodiumError):
    """The work was asked to stop, saved itself and can be continued by the same command."""

    exit_code = 75  # EX_TEMPFAIL: schedulers requeue on it


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest of `known`, case aside, or an empty string when nothing is near."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean '{by_lower[close[0]]}'?" if close else ""


def listed(words: Iterable[object], most: int = 20) -> str:
    """Return the first `most` words joined by commas, and how many more there are."""
    all_words = [str(word) for word in words]
    more = f", ... ({len(all_words) - most} more)" if len(all_words) > most else ""
    return ", ".join(all_words[:most]) + more
