"""An experiment fitted to a time on this machine: size, width and epochs so that all folds end. Part of `podium auto`.

A few steps of it are tried (`podium plan`). Epochs take what there is of the time; where that is too few to learn
much, pictures become smaller, then the net narrower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.base.errors import PodiumError
from pipeline.base.files import write_text
from pipeline.base.interrupt import Deadline
from pipeline.base.progress import clock_text
from pipeline.models.image_nets import blocks_for
from pipeline.records.config import Config, load_config
from pipeline.records.runs import Workspace
from pipeline.stages.budget import Cost
from pipeline.stages.infer.yaml_lines import Told, entry, scalar
from pipeline.stages.machines import Wishes
from pipeline.stages.plan import Plan, plan_config

Say = Callable[[str], None]
Changes = dict[str, dict[str, Any]]

LEAST, MOST = 0.6, 1.5
"""Epochs that are worth training and that still gain, as shares of the baseline's."""
CLOSING_SEC = 12.0
"""For what comes after the training: adjustments, the submission and its check."""
USABLE = 0.9
"""Share of the time that is planned: training may go slower than its first steps."""
_PROBE_SEC = 6.0
_SIDES = (0.75, 0.5, 0.375)
_WIDTHS = (0.75, 0.5)
_SMALLEST_PX, _NARROWEST = 24, 8


@dataclass(frozen=True)
class Fit:
    """An experiment as it was fitted."""

    changes: Changes
    """What it does otherwise than the baseline, block by block."""
    plan: Plan
    """Of the experiment with the baseline's number of epochs."""
    seconds: float
    """What the run will take with the fitted number."""
    reasons: dict[str, str]


def fit_to_time(workspace: Workspace, path: Path, wishes: Wishes, left: Deadline, say: Say) -> Fit:
    """Return what an experiment has to do otherwise so that all of its folds end in time.

    Args:
        workspace: where everything lies.
        path: of the baseline.
        wishes: device, jobs and threads, as for training.
        left: the time for everything that is still to do, this fitting too.
        say: gets messages.

    Raises:
        PodiumError: not even one fold of one epoch ends in time; the message says how long it would take.
    """
    changes: Changes = {}
    reasons: dict[str, str] = {}
    config = load_config(path)
    plan = plan_config(workspace, config, wishes, say, None, _PROBE_SEC)
    wanted = max(1, round(LEAST * config.experiment.train.epochs))
    if plan.cost.epochs_within(training_seconds(left)) < wanted:
        changes = _smaller(config, plan.cost, training_seconds(left), wanted)
        if changes:
            reasons = dict.fromkeys(changes, f"else fewer than {wanted} epochs would fit")
            say(f"fitting: {_shown(changes)}, so that {wanted} epochs fit")
            config = load_config(path, overrides_of(changes))
            plan = plan_config(workspace, config, wishes, say, None, _PROBE_SEC)
    most = max(1, round(MOST * config.experiment.train.epochs))
    seconds = training_seconds(left)
    epochs = max(1, min(most, plan.cost.epochs_within(seconds)))
    cost = _with_epochs(plan.cost, epochs)
    if cost.units_within(seconds) == 0 and plan.cost.n_units:
        needed = cost.preparation + cost.unit
        raise PodiumError(
            f"{path}: one fold of one epoch takes about {clock_text(needed)}, and {clock_text(max(0.0, seconds))} are"
            " left for training; give --minutes more, or a smaller input.size or model in that file"
        )
    why = "all that gains" if epochs == most else "all that fit"
    reasons["train.epochs"] = f"{why}: about {clock_text(cost.run)} for {cost.n_units} folds"
    return Fit(changes | {"train": {"epochs": epochs}}, plan, cost.run, reasons)


def write_fit(path: Path, base: str, fit: Fit, minutes: float) -> None:
    """Write an experiment that inherits from another in the same folder and says what was fitted, and why."""
    machine = fit.plan.machine
    head = (
        f"# Fitted by `podium auto` to {minutes:g} minutes on {machine.device}, {machine.precision},"
        f" {machine.jobs} x {machine.threads} threads.\nbase: {scalar(base)}\n"
    )
    told = Told(lambda key: fit.reasons.get(key, ""), lambda _key, _value: False, lambda key: fit.reasons.get(key, ""))
    write_text(path, head + "".join(entry(key, value, told) for key, value in fit.changes.items()))


def training_seconds(left: Deadline) -> float:
    """Return how much of the time that is left may be planned for training."""
    return USABLE * (left.left_sec - CLOSING_SEC)


def overrides_of(changes: Changes) -> list[str]:
    """Return changes as `key=value`."""
    return [f"{block}.{key}={scalar(value)}" for block, keys in changes.items() for key, value in keys.items()]


def _smaller(config: Config, cost: Cost, seconds: float, wanted: int) -> Changes:
    """Return the first smaller version that leaves time for enough epochs, the smallest where none does."""
    changes: Changes = {}
    for smaller, share in _versions(config):
        changes = smaller
        less = replace(cost, epochs=tuple(share * each for each in cost.epochs), prediction=share * cost.prediction)
        if less.epochs_within(seconds) >= wanted:
            break
    return changes


def _versions(config: Config) -> Iterator[tuple[Changes, float]]:
    """Yield smaller versions of an experiment, each with about the share of the time that it takes."""
    size, options = config.experiment.input.size, config.experiment.model.options
    is_cnn, smallest, share = config.experiment.model.name == "cnn", {}, 1.0
    for factor in _SIDES if size is not None and min(size) > _SMALLEST_PX else ():
        assert size is not None
        sides = tuple(min(side, max(_SMALLEST_PX, 8 * round(factor * side / 8))) for side in size)
        smallest = {"input": {"size": sides[0] if len(set(sides)) == 1 else list(sides)}}
        if is_cnn:
            smallest["model"] = {"blocks": blocks_for(min(sides))}
        share = sides[0] * sides[1] / (size[0] * size[1])
        yield smallest, share
    width = options.get("width")
    for factor in _WIDTHS if is_cnn and isinstance(width, int) else ():
        assert isinstance(width, int)
        narrow = max(_NARROWEST, 8 * round(factor * width / 8))
        model = {**smallest.get("model", {}), "width": narrow}
        yield {**smallest, "model": model}, share * (narrow / width) ** 1.5


def _with_epochs(cost: Cost, epochs: int) -> Cost:
    return replace(cost, epochs=(sum(cost.epochs) / len(cost.epochs),) * epochs)


def _shown(changes: Changes) -> str:
    return ", ".join(overrides_of(changes))
