"""How long a run takes, and how much of it fits into a quota: sums over what a probe measured, on plain numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.base.errors import ConfigError
from pipeline.stages.machines import rounds_of
from pipeline.training.phases import Phase, Steps, cost_of

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


@dataclass(frozen=True)
class Cost:
    """What a run costs in seconds."""

    preparation: float
    """Before the first unit: tables and stores opened, the config tried, worker processes started."""
    opening: float
    """Of each unit: data opened, the model made, what its first step takes more than the next."""
    epochs: tuple[float, ...]
    """Of each unit: the steps of each epoch, its scoring and its checkpoint."""
    prediction: float
    """Of each unit, in the end: held-out and test rows with all views."""
    n_units: int
    """Units to be trained."""
    n_parallel: int
    """Units side by side."""
    at_once: int
    """Of those, units that there are cores for; more take turns."""

    @property
    def unit(self) -> float:
        """Return the seconds of a unit that takes no turns, from its opening to its predictions."""
        return self.opening + sum(self.epochs) + self.prediction

    @property
    def n_rounds(self) -> float:
        """Return the time of all units in that of one; see `rounds_of`."""
        return rounds_of(self.n_units, self.n_parallel, self.at_once)

    @property
    def run(self) -> float:
        """Return the seconds of the whole run; 0 where no unit is left."""
        return self.preparation + self.n_rounds * self.unit if self.n_units else 0.0

    def units_within(self, seconds: float) -> int:
        """Return how many units end within the given time."""
        rounds = max(0.0, (seconds - self.preparation) / self.unit)
        if rounds >= self.n_rounds:
            return self.n_units
        return min(self.n_units, int(rounds / max(1.0, self.n_parallel / self.at_once)) * self.n_parallel)

    def epochs_within(self, seconds: float) -> int:
        """Return how many epochs of mean cost every unit may have so that the run ends within the given time."""
        each = (seconds - self.preparation) / max(1.0, self.n_rounds) - self.opening - self.prediction
        return max(0, int(each / (sum(self.epochs) / len(self.epochs))))


def step_seconds(phases: Mapping[Phase, Steps], measured: Mapping[Phase, float], n_epochs: int) -> list[float]:
    """Return the seconds that the steps of each epoch take together."""
    seconds = [0.0] * n_epochs
    for phase, steps in phases.items():
        cost = cost_of(phase, measured)
        for epoch, n in steps.by_epoch.items():
            seconds[epoch] += n * cost
    return seconds


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as 9h, 45m, 1h30m or 90s.

    Raises:
        ConfigError: it is none, or zero.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    )
    if seconds <= 0:
        raise ConfigError(f"--quota {text}: expected a duration such as 9h, 45m or 1h30m")
    return seconds
