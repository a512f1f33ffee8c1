"""A first experiment for a task, with a reason for each line: `configs/<name>/baseline.yaml`.

A plain net on pictures of moderate size, or EEGNet on signals, with the changes of training samples that what was seen
of the items allows. How much of it a machine can do in a given time is another question: see `stages/fitting.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.base.files import write_text
from pipeline.models.image_nets import blocks_for
from pipeline.records.task import Task
from pipeline.stages.infer import yaml_lines
from pipeline.stages.infer.conclude import Facts
from pipeline.stages.infer.glance import Glance, glance
from pipeline.stages.infer.mirrors import MIN_PICTURES, Told, tell_from_mirrored
from pipeline.stages.infer.signal_choices import LONGEST, OFFSET, choose_steps
from pipeline.stages.infer.yaml_lines import entry

Say = Callable[[str], None]
Block = dict[str, Any]

FEW, MANY = 5_000, 50_000
"""Rows from which on epochs are fewer."""
SMALLEST_PX, LARGEST_PX = 24, 64
_MOST_EEG_CHANNELS = 64

_HEAD = (
    "# A first experiment, made by `podium init` from what it saw of the items. Every line can be changed; another\n"
    "# experiment beside it may begin with `base: baseline.yaml` and say only what it does otherwise.\n"
)


@dataclass
class Baseline:
    """Blocks of an experiment, and why each is as it is."""

    values: Block = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, value: Any, reason: str) -> None:
        """Set a key of the experiment (`input.size`, `model`) and its reason."""
        block, _, inner = key.rpartition(".")
        (self.values.setdefault(block, {}) if block else self.values)[inner] = value
        self.reasons[key] = reason

    def text(self) -> str:
        """Return the YAML file."""
        told = yaml_lines.Told(self._reason, _is_leaf, self._reason)
        return f"{_HEAD}task: task.yaml\n" + "".join(entry(key, value, told) for key, value in self.values.items())

    def _reason(self, key: str) -> str:
        return self.reasons.get(key, "")


def write_baseline(path: Path, task: Task, data: Path, facts: Facts, say: Say, overwrite: bool = False) -> bool:
    """Write a first experiment beside a task, unless there is one; return whether it was written.

    Raises:
        PodiumError: no item can be read.
    """
    if path.exists() and not overwrite:
        return False
    seen = glance(task, data, say)
    write_text(path, baseline(task, facts, seen, _mirrors(seen, say)).text())
    return True


def baseline(task: Task, facts: Facts, seen: Glance, mirrors: tuple[Told, Told] | None) -> Baseline:
    """Return a first experiment.

    Args:
        task: what is asked.
        facts: what was counted on the labelled rows.
        seen: some of their items.
        mirrors: how well pictures are told from those mirrored left-right and upside down; None where it is not known.
    """
    made = Baseline()
    _add_folds(made, task, facts)
    if seen.has_nan:
        made.add("input.nan", "channel_mean", "some values are missing")
    if task.input == "signal":
        _add_signal(made, task, seen)
    else:
        _add_picture(made, task, seen, mirrors)
    if facts.is_heavy_tailed:
        made.add("loss", {"name": "mse", "log_target": True}, "few values are far larger than the rest")
    _add_training(made, task, facts)
    return made


def _mirrors(seen: Glance, say: Say) -> tuple[Told, Told] | None:
    if seen.pictures is None or len(seen.pictures) < MIN_PICTURES:
        return None
    say(f"trying on {len(seen.pictures):,} pictures whether they can be told from their mirror images")
    return tell_from_mirrored(seen.pictures, seen.labels)


def _add_folds(made: Baseline, task: Task, facts: Facts) -> None:
    if task.fold_column is not None and facts.n_host_folds is not None:
        reason = f"the column {task.fold_column} deals the rows"
        made.add("folds", {"scheme": "column", "n_folds": facts.n_host_folds}, reason)
    elif facts.n_groups is not None and facts.n_groups < 5:
        origin = task.group or task.subject or task.session
        made.add("folds", {"n_folds": max(2, facts.n_groups)}, f"there are {facts.n_groups} values of {origin}")


def _add_picture(made: Baseline, task: Task, seen: Glance, mirrors: tuple[Told, Told] | None) -> None:
    height, width = seen.median(1), seen.median(2)
    side = math.sqrt(height * width)
    size: int | tuple[int, int] = _moderate(side)
    if seen.has_one_shape and (side <= LARGEST_PX and min(height, width) >= 8):
        size, reason = (height, width), "as the pictures are"
    else:
        reason = f"pictures are {height} x {width} px in the middle; larger shows more and takes longer"
    made.add("input.size", list(size) if isinstance(size, tuple) and size[0] != size[1] else _one(size), reason)
    if seen.is_file and len({shape[0] for shape in seen.shapes}) > 1:
        made.add("input.channels", 3, "some files are in colour, some are not")
    smallest = min(size) if isinstance(size, tuple) else size
    made.add(
        "model",
        {"name": "cnn", "blocks": blocks_for(smallest), "width": 32, "dropout": 0.1},
        "each block halves the map; the last is a few px wide",
    )
    if task.audio is None:
        made.add("augment.affine", {"max_rotate_deg": 10, "max_scale": 0.1}, "objects do not lie exactly alike")
    made.add("augment.shift", {"max_px": max(1, smallest // 10), "fill": "reflect"}, "nor at the same place")
    _add_flip(made, seen, mirrors)


def _add_flip(made: Baseline, seen: Glance, mirrors: tuple[Told, Told] | None) -> None:
    if mirrors is None:
        made.reasons["augment"] = "not mirrored: too few pictures to try whether a mirror shows"
        return
    left_right, upside_down = mirrors
    found = f"a net told {left_right.share:.0%} of {left_right.n_pairs} pictures from their mirror images"
    by_class = f", and up to {left_right.worst:.0%} of a class" if left_right.worst is not None else ""
    if left_right.is_told:
        made.reasons["augment"] = f"not mirrored: {found}{by_class}, 50 % is by chance"
        return
    flip = {"horizontal": True} | ({} if upside_down.is_told else {"vertical": True})
    up = f"; {upside_down.share:.0%} of those upside down" if upside_down.is_told else ", nor from those upside down"
    made.add("augment.flip", flip, f"{found}{by_class}{up}, 50 % is by chance")
    views = ["identity", "horizontal"] if upside_down.is_told else ["identity", "horizontal", "vertical", "turn_180"]
    made.add("predict", {"views": views}, "as training sees them")


def _add_signal(made: Baseline, task: Task, seen: Glance) -> None:
    chosen = choose_steps(seen.signals)
    for choice in chosen.choices:
        made.add(choice.key, choice.value, choice.reason)
    n_channels, longest = seen.n_channels, max(shape[1] for shape in seen.shapes)
    n_samples = longest if chosen.n_samples is None else chosen.n_samples
    if not seen.has_one_shape:
        made.add("input.length", n_samples, f"they differ; the longest of {len(seen.shapes)} has {longest:,} samples")
    shown = f"{n_channels} channels of {n_samples:,} samples"
    if n_samples < 8:
        made.add("model", {"name": "mlp"}, f"{shown} are few")
    elif 32 <= n_samples <= LONGEST and 1 < n_channels <= _MOST_EEG_CHANNELS:
        made.add("model", {"name": "eegnet"}, shown)
    else:
        made.add("model", {"name": "conv1d", "width": 64, "dropout": 0.2}, shown)
    if chosen.offset < OFFSET:
        made.add("augment.time_shift", {"max_samples": max(1, n_samples // 20)}, "events do not begin exactly alike")
        made.add("augment.amplitude", {"max_scale": 0.2}, "nor are they equally strong")
        return
    why = f"signals lie {chosen.offset:.0f} deviations away from the zeros that would enter"
    made.reasons["augment"] = f"not moved in time: {why}"
    made.add("augment.amplitude", {"max_scale": 0.2}, "events are not equally strong")


def _add_training(made: Baseline, task: Task, facts: Facts) -> None:
    n = facts.n_train
    epochs, batch = (40, 64) if n < FEW else (20, 128) if n < MANY else (10, 128)
    lr = 2e-3 if task.input == "signal" else 4e-3
    made.add("optimizer", {"name": "adamw", "lr": lr, "weight_decay": 0.02}, "learns quickly, with few surprises")
    made.add("schedule", {"name": "one_cycle", "rise_frac": 0.2}, "ends where it is cold, however long it is")
    made.add("train", {"epochs": epochs, "batch_size": batch, "weights": "ema"}, f"for {n:,} rows")
    made.add("ema", {"decay": 0.99}, "the mean over the last hundred steps or so predicts better than the last one")


def _moderate(side: float) -> int:
    return int(max(SMALLEST_PX, min(LARGEST_PX, 8 * round(side / 8))))


def _one(size: int | tuple[int, int]) -> int:
    return size if isinstance(size, int) else size[0]


def _is_leaf(key: str, value: Mapping[str, Any]) -> bool:
    """Say whether a block stands on one line: all but those of which each key has its own reason."""
    return key not in ("input", "augment")
