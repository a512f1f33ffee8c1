"""Ways of blending by name, with their options: from what the user writes to a fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pipeline.base.errors import ConfigError, listed, nearest
from pipeline.blending.averages import average
from pipeline.blending.greedy import greedy
from pipeline.blending.problem import Fit
from pipeline.blending.simplex import simplex
from pipeline.blending.stacking import stack
from pipeline.records.config import validate
from pipeline.records.record import Record

_Count = Annotated[int, Field(ge=1)]
_Part = Annotated[float, Field(gt=0, le=1)]


class Averaging(Record):
    """Options of the means: none, as nothing is fitted."""


class Greedy(Record):
    """Options of greedy selection; see `greedy`."""

    n_picks: _Count = 50
    """Length of a path of picks, those of the start included."""
    n_start: _Count = 5
    """From how many of the best members the start is chosen."""
    n_bags: _Count = 1
    """Paths over random subsets of the members, whose weights are averaged; 1: one path over all of them."""
    bag_share: _Part = 0.5
    """Which part of the members a bag holds."""
    seed: int = 0
    """Of the bags."""


class Simplex(Record):
    """Options of weights on the simplex; see `simplex`."""

    max_steps: _Count = 200
    """After how many steps the search ends."""


class Stack(Record):
    """Options of a stack; see `stack`."""

    estimator: str | None = None
    """`module:Class`; by default logistic regression, or ridge regression of values."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Of that class."""


Options = Averaging | Greedy | Simplex | Stack
MeanName = Literal["mean", "geometric", "logits", "ranks"]
MethodName = Literal["mean", "geometric", "logits", "ranks", "greedy", "simplex", "stack"]

MEANS: tuple[MeanName, ...] = ("mean", "geometric", "logits", "ranks")
"""Methods that fit nothing."""

_OPTIONS: dict[MethodName, type[Options]] = {
    "mean": Averaging,
    "geometric": Averaging,
    "logits": Averaging,
    "ranks": Averaging,
    "greedy": Greedy,
    "simplex": Simplex,
    "stack": Stack,
}
METHODS = tuple(_OPTIONS)
"""The names of all methods."""


@dataclass(frozen=True)
class Method:
    """A way of blending, checked."""

    name: MethodName
    options: Options
    weights: tuple[float, ...] | None = None
    """Given weights of a mean in the order of the members; None: equal, or fitted."""
    adjust: tuple[str, ...] = ()
    """What is fitted after averaging, in order, by name; `auto` alone: whatever gains on nested OOF."""
    prior: tuple[float, ...] | Literal["estimate"] | None = None
    """Shares of the classes in the test set, given or to be estimated; moves the test predictions alone."""

    @property
    def is_fitted(self) -> bool:
        """Say whether the method learns weights from OOF, so that its score on the same OOF is too good."""
        return self.name not in MEANS


def method_of(
    name: str = "mean",
    options: dict[str, Any] | None = None,
    weights: Sequence[float] | None = None,
    adjust: Sequence[str] = (),
    prior: Sequence[float] | Literal["estimate"] | None = None,
) -> Method:
    """Return the method that a user names.

    Args:
        name: one of `METHODS`.
        options: of the method.
        weights: in the order of the members, >= 0 and with the sum one; for the means only.
        adjust: what is fitted after averaging, or `auto` alone.
        prior: shares of the classes in the test set, or `estimate`; not together with `adjust`.

    Raises:
        ConfigError: an unknown name or option, a value out of range, or weights for a method that fits its own.
    """
    if name not in _OPTIONS:
        raise ConfigError(f"--method {name}: unknown.{nearest(name, METHODS)} Allowed: {listed(METHODS)}")
    if weights is not None and name not in MEANS:
        raise ConfigError(f"--method {name}: fits its weights, so none can be given; they are for {listed(MEANS)}")
    if "auto" in adjust and len(adjust) > 1:
        raise ConfigError(f"--adjust {','.join(adjust)}: auto chooses by itself, so nothing stands beside it")
    if prior is not None and adjust:
        raise ConfigError("--prior: moves probabilities as the models give them, so --adjust cannot stand beside it")
    shares = None if weights is None else tuple(float(weight) for weight in weights)
    known = next(known for known in METHODS if known == name)
    block = validate(_OPTIONS[known], options or {}, f"--method {name}")
    expected = prior if prior is None or prior == "estimate" else tuple(float(share) for share in prior)
    method = Method(known, block, shares, tuple(adjust), expected)
    fit_of(method)  # an estimator that does not exist is refused here, before anything is read
    return method


def fit_of(method: Method) -> Fit:
    """Return the fit of a method."""
    options = method.options
    match options:
        case Greedy():
            return greedy(options.n_picks, options.n_start, options.n_bags, options.bag_share, options.seed)
        case Simplex():
            return simplex(options.max_steps)
        case Stack():
            return stack(options.estimator, options.arguments)
    scale = next(mean for mean in MEANS if mean == method.name)
    return average(scale, None if method.weights is None else np.array(method.weights))
