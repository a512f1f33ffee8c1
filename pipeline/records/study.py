"""What a study trains: points, each a base experiment with some of its keys changed. Read from a YAML file.

base: ../conv5x5.yaml            # an experiment
grid:                            # every combination
  model.activation: [relu, tanh]
  model.init: {small: {name: gaussian, std: 0.01}, he: he}    # values under names of your own
list:                            # and, or instead, variants by name
  plain: {}
  smooth: {loss: {name: cross_entropy, label_smoothing: 0.1}}
seeds: [0, 1, 2]
folds: [0]
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.base.errors import ConfigError, listed, nearest
from pipeline.records.config import read_yaml, validate
from pipeline.records.experiment import off_word
from pipeline.records.record import Block, Distinct, Record

Axis = tuple[Any, ...] | dict[str, Any]
FoldChoice = Annotated[tuple[int, ...], Field(min_length=1), Distinct] | Literal["all"]

POINT_KEY = "study"
"""Within a variant: the block that is about the point, not about its training."""


class PointSpec(Record):
    """What a variant says of itself beside the keys that it changes."""

    after: str | None = None
    """The variant whose changes it takes over, and with which it is compared."""
    folds: FoldChoice | None = None
    """Which folds it trains, where other ones than the study's."""
    teacher: str | None = None
    """The variant whose models label the rows without labels for this one (`podium pseudo`, per fold)."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """With a teacher: smallest probability of a trusted row's class."""
    mean_of: tuple[str, ...] = ()
    """Trains nothing: the mean of the predictions of these variants, seed by seed."""


class Study(Record):
    """The content of a study file."""

    base: str
    """An experiment, beside this file or by its path from here."""
    about: str = ""
    """What is asked and what was reported elsewhere: text of the page."""
    grid: dict[str, Axis] = Field(default_factory=dict)
    """For each config key the values it takes: a list, or a block of name and value; all combinations are points."""
    list: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Variants by name, each with the keys it changes; with a grid too, each variant at each of its points."""
    chain: bool = False
    """Each variant of the list adds to the one before it, and is compared with it."""
    baseline: str | None = None
    """The point that the others are compared with; by default none, or in a chain the one before."""
    seeds: Annotated[tuple[int, ...], Distinct] = ()
    """Each point is trained once for each seed; by default the experiment's."""
    folds: FoldChoice = "all"
    """Which folds are trained."""
    search: Block[dict[str, Any]] = None
    """Instead of points: config keys and the ranges to search, such as `log 1e-4 1e-1`, `uniform 0 0.5`, `int 1 4` or
    a list of values; needs optuna."""
    trials: Annotated[int, Field(ge=1)] = 30
    """With search: how many settings are tried."""
    layer_statistics: bool = False
    """Watch activations and gradients of each layer, epoch by epoch."""
    moving_average: Annotated[int, Field(ge=1)] = 1
    """Epochs over which the learning curves are averaged."""
    confusion: Annotated[Literal["best", "all", "off"], BeforeValidator(off_word)] = "best"
    """Of which points confusion matrices are drawn."""
    reported: dict[str, float] = Field(default_factory=dict)
    """Figures of others by point, shown beside ours."""
    reported_seconds: dict[str, float] = Field(default_factory=dict)
    """How long theirs took."""


@dataclass(frozen=True)
class Point:
    """One setting of a study."""

    label: str
    """Such as `smooth, tanh, he`."""
    axes: Mapping[str, str]
    """The name of its value on each key of the grid, after `variant` where there is a list."""
    overrides: tuple[str, ...]
    """What it changes in the base experiment, as `key=value`."""
    spec: PointSpec = field(default_factory=PointSpec)

    @property
    def slug(self) -> str:
        """Return the label as part of a run's name."""
        return re.sub(r"[^A-Za-z0-9._=+]+", "-", self.label).strip("-") or "base"


def load_study(path: Path) -> Study:
    """Return the study that a file describes.

    Raises:
        ConfigError: an unknown key (with the nearest), a wrong value, nothing to train, or a name that is no point.
    """
    values = read_yaml(path)
    if "task" in values and "base" not in values:
        raise ConfigError(f"{path}: looks like an experiment; a study names one, such as `base: {path.name}`")
    study = validate(Study, values, str(path))
    if study.search is not None and (study.grid or study.list):
        raise ConfigError(f"{path}: search: finds its own points; give it without grid: and list:")
    if study.search is not None and not study.search:
        raise ConfigError(f"{path}: search: names no key, such as `search: {{optimizer.lr: log 1e-4 1e-1}}`")
    if study.search is None and not (study.grid or study.list):
        raise ConfigError(f"{path}: has nothing to train; give grid:, list: or search:")
    for key, axis in study.grid.items():
        if not axis:
            raise ConfigError(f"{path}: grid.{key}: has no values")
    points_of(study, str(path))
    return study


def points_of(study: Study, where: str = "study") -> list[Point]:
    """Return the points of a study in order: the variants of its list, each at all combinations of its grid.

    Raises:
        ConfigError: two points have one name, or a point names one that is not there (the nearest is shown).
    """
    if study.search is not None:
        return []
    variants = _variants(study, where)
    points = []
    for name, (overrides, spec) in variants.items():
        for combination in product(*(_named(axis) for axis in study.grid.values())):
            chosen = dict(zip(study.grid, combination, strict=True))
            axes = ({"variant": name} if study.list else {}) | {key: label for key, (label, _) in chosen.items()}
            grid = [f"{key}={json.dumps(value)}" for key, (_, value) in chosen.items()]
            points.append(Point(", ".join(axes.values()) or name, axes, (*overrides, *grid), spec))
    _require_distinct(points, where)
    labels = [point.label for point in points]
    for key, names in (("reported", study.reported), ("reported_seconds", study.reported_seconds)):
        _require_known(names, labels, f"{where}: {key}")
    _require_known([] if study.baseline is None else [study.baseline], labels, f"{where}: baseline")
    return points


def _variants(study: Study, where: str) -> dict[str, tuple[tuple[str, ...], PointSpec]]:
    """Return for each variant what it changes, with what it takes over, and what it says of itself."""
    if not study.list:
        return {"base": ((), PointSpec())}
    found: dict[str, tuple[tuple[str, ...], PointSpec]] = {}
    before: str | None = None
    for name, changes in study.list.items():
        block = changes.get(POINT_KEY, {})
        if not isinstance(block, dict):
            raise ConfigError(f"{where}: list.{name}.{POINT_KEY}: must be a block of keys (found: {block!r})")
        spec = validate(PointSpec, block, f"{where}: list.{name}.{POINT_KEY}")
        if study.chain and spec.after is None and before is not None and not spec.mean_of:
            spec = spec.model_copy(update={"after": before})
        named = [each for each in (spec.after, spec.teacher, *spec.mean_of) if each is not None]
        if named and study.grid:
            raise ConfigError(f"{where}: list.{name}: a chain, a teacher or a mean needs a study without grid:")
        _require_known(named, list(found), f"{where}: list.{name}.{POINT_KEY} (of the variants before it)")
        own = tuple(f"{key}={json.dumps(value)}" for key, value in changes.items() if key != POINT_KEY)
        if spec.mean_of and own:
            raise ConfigError(f"{where}: list.{name}: a mean trains nothing, so it changes no key")
        if spec.threshold is not None and spec.teacher is None:
            raise ConfigError(f"{where}: list.{name}.{POINT_KEY}.threshold: is read only with a teacher")
        found[name] = ((*found[spec.after][0], *own) if spec.after else own, spec)
        before = name
    return found


def _named(axis: Axis) -> list[tuple[str, Any]]:
    """Return the values of an axis with their names."""
    if isinstance(axis, dict):
        return list(axis.items())
    return [(_name_of(value), value) for value in axis]


def _name_of(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(_name_of(part) for part in value.values())
    if isinstance(value, list | tuple):
        return "x".join(_name_of(part) for part in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _require_distinct(points: list[Point], where: str) -> None:
    seen: dict[str, str] = {}
    for point in points:
        if point.slug.lower() in seen:
            other = seen[point.slug.lower()]
            raise ConfigError(f"{where}: '{other}' and '{point.label}' would be one run; give them other names")
        seen[point.slug.lower()] = point.label


def _require_known(names: Any, known: list[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: there is no '{name}'.{nearest(name, known)} Known: {listed(known, 40)}")
