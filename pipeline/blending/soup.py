"""Soups: several sets of weights of one net averaged into one net, which predicts at the cost of one.

It works where the sets share their start, so that they lie in one valley of the loss: fine-tunings of the same weights,
or the epochs of one training. Source: model soups (Wortsman et al. 2022, https://arxiv.org/abs/2203.05482).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.base.errors import MismatchError, listed

State = Mapping[str, Tensor]
"""Everything that a net's `state_dict` names."""


@dataclass(frozen=True)
class Soup:
    """An average of some sets of weights."""

    weights: dict[str, Tensor]
    """The average."""
    members: tuple[int, ...]
    """Positions of the sets that went in; in a greedy soup the best comes first."""
    scores: tuple[float, ...] = ()
    """Greedy: score of the soup after each member; it never falls."""
    own: tuple[float, ...] = ()
    """Greedy: score of every set by itself, also of those left out."""


def average_weights(states: Sequence[State]) -> dict[str, Tensor]:
    """Return the mean of several states: floating tensors summed in float64 and cast back, counters of the last one.

    Running statistics of batch norms are averaged like weights, which is not what the averaged net would measure; see
    `refresh_norms`. Equal states give their own bits.

    Args:
        states: at least one; left untouched, and of the same names, shapes and types.

    Raises:
        MismatchError: a name, shape or type differs between two states; both are named by position.
    """
    _require_alike(states)
    return {name: _mean([state[name] for state in states]) for name in states[0]}


def uniform_soup(states: Sequence[State]) -> Soup:
    """Return the soup of all states; see `average_weights`."""
    return Soup(average_weights(states), tuple(range(len(states))))


def greedy_soup(states: Sequence[State], score: Callable[[State], float]) -> Soup:
    """Return the soup that takes in the states from the best to the worst, each only if the score does not fall.

    The recipe of the paper (its Algorithm 1). The soup never scores below its best member, on what scores it; that is a
    choice by these rows, so the score flatters there. Equal scores keep the order of `states`.

    Args:
        states: at least one.
        score: of a set of weights, higher is better, finite; called for each state and for each soup that is tried.

    Raises:
        MismatchError: the states do not fit each other.
    """
    _require_alike(states)
    own = [score(state) for state in states]
    order = sorted(range(len(states)), key=lambda position: -own[position])
    members, scores, weights = [order[0]], [own[order[0]]], average_weights([states[order[0]]])
    for position in order[1:]:
        tried = average_weights([states[member] for member in (*members, position)])
        reached = score(tried)
        if reached >= scores[-1]:
            members, scores, weights = [*members, position], [*scores, reached], tried
    return Soup(weights, tuple(members), tuple(scores), tuple(own))


def is_among(state: State, states: Iterable[State]) -> bool:
    """Say whether `state` is one of `states`, bit for bit."""
    return any(all(torch.equal(state[name], other[name]) for name in state) for other in states)


def moved_norms(model: nn.Module, states: Sequence[State]) -> list[str]:
    """Return the names of the batch norms whose running statistics differ between the states.

    Those that are alike were frozen in training, and stay as they are.
    """
    norms = [name for name, part in model.named_modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    return [name for name in norms if any(_stats_differ(name, states[0], state) for state in states[1:])]


def refresh_norms(model: nn.Module, names: Sequence[str], batches: Iterable[Tensor]) -> None:
    """Measure the running statistics of some batch norms anew, in place: means over the batches, all weighing the same.

    The averaged net sends other values through its norms than any member did. All other layers predict meanwhile, so
    that dropout disturbs nothing. Source: as after stochastic weight averaging (Izmailov et al. 2018,
    https://arxiv.org/abs/1803.05407, section 3.2), which soups with batch norm need for the same reason.

    Args:
        model: its mode comes back.
        names: of the norms, as `model.named_modules()` has them; without any, nothing is done.
        batches: inputs as the model takes them, at least one batch.
    """
    if not names:
        return
    norms = [model.get_submodule(name) for name in names]
    momenta, was_training = [norm.momentum for norm in norms], model.training
    model.eval()
    for norm in norms:
        norm.reset_running_stats()  # type: ignore[operator]
        norm.momentum = None  # type: ignore[assignment]
        norm.train()
    try:
        with torch.no_grad():
            for inputs in batches:
                model(inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was_training)


def _require_alike(states: Sequence[State]) -> None:
    """Raise a MismatchError unless there are states and all have the same names, shapes and types."""
    if not states:
        raise MismatchError("a soup needs at least one set of weights")
    first = states[0]
    for number, other in enumerate(states[1:], 2):
        odd = sorted(first.keys() ^ other.keys())
        what = f"only one of them has {listed(odd, 5)}"
        if not odd:
            odd = [name for name in first if _form(first[name]) != _form(other[name])]
            what = listed([f"{name} is {_form(first[name])} and {_form(other[name])}" for name in odd], 5)
        if odd:
            raise MismatchError(
                f"sets of weights 1 and {number} cannot be averaged: {what}. A soup is made of one net of one shape"
            )


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    if not tensors[0].is_floating_point():
        return tensors[-1].clone()
    # Step by step rather than sum over count: equal values then stay what they are, in every type.
    mean = tensors[0].double()
    for number, tensor in enumerate(tensors[1:], 2):
        mean = mean + (tensor.double() - mean) / number
    return mean.to(tensors[0].dtype) if len(tensors) > 1 else tensors[0].clone()


def _stats_differ(norm: str, first: State, other: State) -> bool:
    parts = [f"{norm}.{part}" if norm else part for part in ("running_mean", "running_var")]
    return any(not torch.equal(first[part], other[part]) for part in parts)
