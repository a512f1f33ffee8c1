"""Sharpness-aware minimisation: what stands around the second backward pass; the loop in `train` holds the `if`.

SAM (Foret et al. 2020, https://arxiv.org/abs/2010.01412): e = rho * g / ||g||, the norm taken over all parameters
together; the gradient is taken at w + e, and the base optimiser steps from w. ASAM (Kwon et al. 2021,
https://arxiv.org/abs/2102.11600) measures in the scale of each weight: e = rho * w^2 g / || |w| g ||; its rho is about
ten times SAM's. Second-order terms are dropped, as in both papers; weight decay is no part of e.

With `ascent_frac` below 1, e comes from the first rows of the batch alone and the gradient at w + e from all of them, a
cheaper and noisier direction (ESAM, Du et al. 2021, https://arxiv.org/abs/2110.03141, takes a part of the batch for the
other pass). The first pass is then one over those rows in all that it does: its mean loss is the one that is reported,
batch statistics follow it, and its dropout masks are its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.records.experiment import SamSpec

TINY = 1e-12
"""Keeps a zero gradient from dividing by zero, as in the reference of the paper."""


def is_sam_step(spec: SamSpec, epoch: int, step: int) -> bool:
    """Say whether a step, counted from 0 over all epochs, takes SAM's gradient rather than the plain one."""
    return epoch >= spec.start_epoch and step % spec.every == 0


def ascent_rows(spec: SamSpec, n: int) -> int:
    """Return how many of a batch's `n` rows, from its start, SAM's first pass takes; two at least, for batch norm."""
    return max(min(n, 2), math.ceil(n * spec.ascent_frac - 1e-9))


@contextmanager
def perturbed(model: nn.Module, rho: float, adaptive: bool = False) -> Iterator[None]:
    """Move the weights by SAM's e, made of their present gradients, inside the block; then their old bits are back.

    Gradients are dropped on the way in, so that those of the block are what the optimiser sees. They may be scaled for
    fp16: e does not depend on a common factor. Where the gradient is not finite, nothing is moved.

    Args:
        model: has gradients from a backward pass; parameters without one stay.
        rho: length of e, > 0; for ASAM in units of the weights.
        adaptive: ASAM instead of SAM.
    """
    weights = [weight.detach() for weight in model.parameters() if weight.grad is not None]
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    saved = [weight.clone() for weight in weights]
    torch._foreach_add_(weights, ascent(weights, gradients, rho, adaptive))
    model.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        torch._foreach_copy_(weights, saved)  # from the copy: w + e - e is not w in floating point


def ascent(weights: list[Tensor], gradients: list[Tensor], rho: float, adaptive: bool) -> list[Tensor]:
    """Return e for each weight, of its shape; all zeros when a gradient is not finite."""
    scales = torch._foreach_abs(weights) if adaptive else None
    scaled = torch._foreach_mul(gradients, scales) if scales is not None else gradients
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part.double()) for part in scaled]))
    directions = torch._foreach_mul(scaled, scales) if scales is not None else gradients
    factor = rho / (norm + TINY)
    # Asked on the device: to read the norm here would hold up a GPU between the two passes.
    return [torch.where(norm.isfinite(), part * factor.to(part.dtype), 0.0) for part in directions]


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Put the model's buffers back after the block: batch-norm statistics and counters follow the first pass alone."""
    saved = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, old in zip(model.buffers(), saved, strict=True):
            buffer.copy_(old)
