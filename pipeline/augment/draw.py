"""How augmentations get their random numbers: by name, so that switching one on leaves the draws of the others."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Draw = Callable[[str, int], Tensor]
"""(name, n) -> (B, n) float64 uniform draws in [0, 1) on the device of the batch, each row a function of (seed, epoch,
sample, occurrence, name); the first draws of a name do not change when more are asked for."""
