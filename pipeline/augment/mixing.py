"""Samples mixed with others of their batch, targets by the same share: mixup, CutMix, swapped windows of time.

The draws are a small table made on the CPU from (seed, epoch, step), so they are the same on every device; the
functions that mix draw nothing. The target is always soft, (B, K), also for one class per row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.keyed import make_key, permutation
from pipeline.records.augmentation import MixSpec


@dataclass(frozen=True)
class Mix:
    """How the samples of one batch are mixed."""

    partner: NDArray[np.int64]
    """(B,) which sample of the batch each is mixed with; a permutation, so odd batches are nothing special."""
    share: NDArray[np.float64]
    """(B,) how much of itself a sample keeps, 0..1."""
    is_patch: NDArray[np.bool_]
    """(B,) whether a patch is exchanged (CutMix) rather than the whole blended (mixup)."""
    centre: NDArray[np.float64]
    """(B, 2) centre of the patch, as shares of height and width; the second is that of time for signals."""


def draw_mix(spec: MixSpec, n: int, seed: int, epoch: int, step: int) -> Mix:
    """Return the mixing of a batch of `n` samples as a function of (seed, epoch, step)."""
    key = make_key("mix", seed, epoch, step)
    generator = np.random.Generator(np.random.Philox(key=key))
    n_draws = n if spec.per == "sample" else 1
    is_patch = generator.random(n_draws) < _patch_prob(spec)
    is_mixed = generator.random(n_draws) < spec.prob
    centre = generator.random((n_draws, 2))
    blended, cut = (_shares(generator, alpha, n_draws) for alpha in (spec.mixup_alpha, spec.cutmix_alpha))
    share = np.where(is_mixed, np.where(is_patch, cut, blended), 1.0)
    return Mix(
        partner=permutation(key, n),
        share=np.broadcast_to(share, n).copy(),
        is_patch=np.broadcast_to(is_patch, n).copy(),
        centre=np.broadcast_to(centre, (n, 2)).copy(),
    )


def mix_batch(inputs: Tensor, targets: Tensor, mix: Mix) -> tuple[Tensor, Tensor]:
    """Return mixed inputs and targets; the share of a patch is its real area, after it was cut at the border.

    Args:
        inputs: (B, C, H, W) images or (B, C, T) signals, floating; left untouched.
        targets: (B, K), soft, multi-hot, or standardised values.
        mix: of this batch.

    Source: mixup (Zhang et al. 2017, https://arxiv.org/abs/1710.09412) and CutMix (Yun et al. 2019,
    https://arxiv.org/abs/1905.04899), whose box has sides sqrt(1 - lambda) of the image's. For signals the window
    has the length (1 - lambda) of the signal and spans all channels.
    """
    partner = torch.from_numpy(mix.partner).to(inputs.device)
    others = inputs[partner]
    masks, kept = patch_masks(mix, tuple(inputs.shape[2:]))
    share = torch.from_numpy(np.where(mix.is_patch, kept, mix.share)).to(inputs.device, inputs.dtype)
    by_sample = share.view(-1, *(1,) * (inputs.ndim - 1))
    mixed = inputs * by_sample + others * (1 - by_sample)
    if mix.is_patch.any():
        patch = torch.from_numpy(masks).to(inputs.device).view(len(inputs), 1, *inputs.shape[2:])
        is_patch = torch.from_numpy(mix.is_patch).to(inputs.device).view(by_sample.shape)
        mixed = torch.where(is_patch, torch.where(patch, others, inputs), mixed)
    weight = share.to(targets.dtype)[:, None]
    return mixed, targets * weight + targets[partner] * (1 - weight)


def patch_masks(mix: Mix, shape: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return where each sample takes its partner's values, (B, *shape) bool, and the share that it keeps, (B,).

    Args:
        mix: centres and shares.
        shape: (H, W) or (T,).
    """
    side = np.sqrt(1 - mix.share) if len(shape) == 2 else 1 - mix.share
    masks = np.ones((len(mix.share), *shape), dtype=bool)
    for axis, length in enumerate(shape):
        centre = mix.centre[:, axis - len(shape)] * length
        half = side * length / 2
        start = np.clip(np.floor(centre - half + 0.5), 0, length).astype(np.int64)
        end = np.clip(np.floor(centre + half + 0.5), 0, length).astype(np.int64)
        places = np.arange(length)
        inside = (places >= start[:, None]) & (places < end[:, None])
        masks &= inside.reshape(len(inside), *(length if other == axis else 1 for other in range(len(shape))))
    return masks, 1 - masks.reshape(len(masks), -1).mean(axis=1)


def _patch_prob(spec: MixSpec) -> float:
    """Return how often a patch is exchanged: always or never where only one kind of mixing is on."""
    if spec.mixup_alpha is None or spec.cutmix_alpha is None:
        return 1.0 if spec.mixup_alpha is None else 0.0
    return spec.switch_prob


def _shares(generator: np.random.Generator, alpha: float | None, n: int) -> NDArray[np.float64]:
    return np.ones(n) if alpha is None else generator.beta(alpha, alpha, n)
