"""Max-norm: a limit on the weights that lead into one output, kept after every step of the optimiser.

The step in `training/train.py` lets a net that has such limits project its weights, before they are averaged. That is
the published method, where gradients are those at the weights themselves, and it keeps every copy honest: within a
limit weights form a convex set, so means over steps (EMA) and over trainings (soups) lie within it, and the weights in
a file are those that predict. A projection inside the forward pass would leave weights beyond the limit in files and
means, and change the gradient; a parametrisation would rename them too. SAM's displaced weights may lie beyond it for
one backward pass.

Source: Srivastava et al. 2014 (https://jmlr.org/papers/v15/srivastava14a.html), section 5.1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Constrained(Protocol):
    """A net of which some weights stay within limits."""

    def constrain(self) -> None:
        """Bring the weights back within their limits, in place; frozen ones stay as they are."""


class MaxNormNet(nn.Sequential):
    """Layers in a row, some of whose weights have a largest norm."""

    def __init__(self, layers: OrderedDict[str, nn.Module], max_norms: Mapping[str, float]) -> None:
        """Take the layers and, by the name of a parameter, the largest norm of the weights into each output."""
        super().__init__(layers)
        self.max_norms = dict(max_norms)

    def constrain(self) -> None:
        """Scale down the weights into each output whose norm is too large."""
        for name, max_norm in self.max_norms.items():
            limit_norms(self.get_parameter(name), max_norm)


@torch.no_grad()
def limit_norms(weight: nn.Parameter, max_norm: float) -> None:
    """Scale down, in place, the weights into each output whose L2 norm is above `max_norm`.

    Args:
        weight: (O, ...) of a linear layer or a convolution; norms are over all dimensions but the first. Left untouched
            where it is frozen.
        max_norm: > 0.
    """
    if weight.requires_grad:
        norms = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
        weight.mul_((max_norm / norms).clamp(max=1.0))
