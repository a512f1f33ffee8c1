"""Which kinds of steps a training has, and how many of each: options that come, go or grow change what a step costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipeline.augment.resize import grown_size
from pipeline.records.experiment import Experiment
from pipeline.training.sam import is_sam_step

MAX_PLACES = 64
"""Steps that are remembered of each kind, to be tried."""


@dataclass(frozen=True)
class Phase:
    """Steps that cost the same."""

    is_sam: bool
    """They take SAM's second gradient."""
    has_unlabelled: bool
    """Rows without labels come on top of the batch."""
    is_frozen: bool
    """Some layers do not move."""
    size: tuple[int, int] | None
    """Height and width of growing images; None where all epochs have one size."""

    @property
    def area(self) -> int:
        """Return the pixels of an item, 1 where all epochs have one size."""
        return self.size[0] * self.size[1] if self.size else 1

    @property
    def weight(self) -> tuple[int, bool, bool, bool]:
        """Return what sorts phases by the memory that they want."""
        return self.area, self.has_unlabelled, not self.is_frozen, self.is_sam

    def name(self) -> str:
        """Return the phase as a user would call it; empty for a plain step."""
        named = {
            "SAM": self.is_sam,
            "rows without labels": self.has_unlabelled,
            "frozen layers": self.is_frozen,
            f"{self.size[0]} x {self.size[1]} px" if self.size else "": self.size is not None,
        }
        return ", ".join(name for name, is_on in named.items() if is_on)


@dataclass
class Steps:
    """The steps of one phase."""

    by_epoch: dict[int, int] = field(default_factory=dict)
    """How many, by epoch."""
    places: list[tuple[int, int]] = field(default_factory=list)
    """The first of them, as (epoch, step)."""


def phases_of(experiment: Experiment, in_shape: tuple[int, ...], n_steps: int) -> dict[Phase, Steps]:
    """Return the steps of a whole training by phase, in the order in which they come.

    Args:
        experiment: whose `sam`, `pseudo`, `consistency`, `train.freeze` and `input.gradual` are looked at.
        in_shape: of a stored item.
        n_steps: of an epoch.
    """
    found: dict[Phase, Steps] = {}
    for epoch in range(experiment.train.epochs):
        plain = _phase_of(experiment, in_shape, epoch)
        for is_sam, steps in _split_by_sam(experiment, epoch, n_steps).items():
            if steps:
                phase = found.setdefault(replace(plain, is_sam=is_sam), Steps())
                phase.by_epoch[epoch] = len(steps)
                phase.places += [(epoch, step) for step in steps[: MAX_PLACES - len(phase.places)]]
    return found


def to_be_measured(phases: Mapping[Phase, Steps]) -> list[Phase]:
    """Return the phases that are measured: of growing images the smallest and the largest, and all that do not grow."""
    groups: dict[Phase, list[Phase]] = {}
    for phase in phases:
        groups.setdefault(replace(phase, size=None), []).append(phase)
    ends = {end for group in groups.values() for end in (min(group, key=_area), max(group, key=_area))}
    return [phase for phase in phases if phase in ends]


def cost_of(phase: Phase, measured: Mapping[Phase, float]) -> float:
    """Return what a step of a phase costs: as measured, or between two sizes in proportion to the pixels."""
    if phase in measured:
        return measured[phase]
    alike = [each for each in measured if replace(each, size=None) == replace(phase, size=None)]
    small, large = min(alike, key=_area), max(alike, key=_area)
    share = (phase.area - small.area) / (large.area - small.area)
    return measured[small] + share * (measured[large] - measured[small])


def _phase_of(experiment: Experiment, in_shape: tuple[int, ...], epoch: int) -> Phase:
    """Return the phase of the plain steps of an epoch."""
    unlabelled, freeze = experiment.pseudo or experiment.consistency, experiment.train.freeze
    gradual = experiment.input.gradual if len(in_shape) == 3 else None
    return Phase(
        is_sam=False,
        has_unlabelled=unlabelled is not None and epoch >= unlabelled.start_epoch,
        is_frozen=freeze is not None and (freeze.n_epochs is None or epoch < freeze.n_epochs),
        size=grown_size(gradual, (in_shape[1], in_shape[2]), epoch) if gradual else None,
    )


def _split_by_sam(experiment: Experiment, epoch: int, n_steps: int) -> dict[bool, list[int]]:
    """Return the steps of an epoch without SAM's gradient, and those with it."""
    spec = experiment.sam
    if spec is None:
        return {False: list(range(n_steps))}
    with_sam = [step for step in range(n_steps) if is_sam_step(spec, epoch, epoch * n_steps + step)]
    return {False: sorted(set(range(n_steps)) - set(with_sam)), True: with_sam}


def _area(phase: Phase) -> int:
    return phase.area
