"""An exponential moving average of a model's weights, and a `with` block that puts other weights in for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.base.errors import MismatchError, listed


class Ema:
    """A moving average of everything in a model's state: average <- d * average + (1 - d) * weights.

    Floating buffers (the running statistics of batch norm) are averaged like the weights; integer ones (counters) are
    copied. Source: Polyak and Juditsky 1992; with warm-up as in TensorFlow's `ExponentialMovingAverage`.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool) -> None:
        """Start the average at the model's present weights, on its device.

        Args:
            model: left untouched.
            decay: share of the old average that a step keeps, in (0, 1).
            warmup: keep only (1 + step) / (10 + step) while that is less.
        """
        self._averages = {name: tensor.clone() for name, tensor in state_tensors(model).items()}
        self._decay = decay
        self._warmup = warmup

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step `step` (from 0); call it after the real step, never at SAM's w+e."""
        decay = min(self._decay, (1 + step) / (10 + step)) if self._warmup else self._decay
        pairs = [(self._averages[name], tensor) for name, tensor in state_tensors(model).items()]
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        with torch.no_grad():
            # One call for all tensors: on a GPU a few kernels instead of one per tensor.
            torch._foreach_lerp_([average for average, _ in floating], [new for _, new in floating], 1 - decay)
            for average, new in pairs:
                if not average.is_floating_point():
                    average.copy_(new)

    def state(self) -> dict[str, Tensor]:
        """Return the averages by name, as the model's state names them; they move with the next update."""
        return dict(self._averages)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from saved averages.

        Raises:
            MismatchError: names or shapes are not those of the model.
        """
        _copy_in(self._averages, tensors)


@contextmanager
def swapped(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Put `tensors` into the model inside the block; afterwards, also after an error, the old bits are back.

    Values are copied into the model's own memory, so that optimisers, compiled graphs and tied weights keep pointing
    at it. Whatever the block does to the model's state is undone too.

    Raises:
        MismatchError: names or shapes are not those of the model; it is left untouched.
    """
    own = state_tensors(model)
    saved = {name: tensor.clone() for name, tensor in own.items()}
    _copy_in(own, tensors)
    try:
        yield
    finally:
        _copy_in(own, saved)


def state_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model's state by name, sharing its memory; extra state of other types is left out."""
    return {name: value.detach() for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _copy_in(own: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    """Copy the values of `new` into the memory of `own`, after checking that they belong there."""
    odd = sorted(own.keys() ^ new.keys())
    odd = odd or [f"{name} {tuple(new[name].shape)}" for name in own if own[name].shape != new[name].shape]
    if odd:
        raise MismatchError(f"averaged weights are not those of this model; they differ in {listed(odd)}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(new[name])
