"""Samples mixed with others of their batch, targets by the same share: mixup, CutMix, swapped windows of time.

The draws are a small table made on the CPU from (seed, epoch, step, place in the batch), so they are the same on every
device; the functions that mix draw nothing. The target is always soft, (B, K), also for one class per row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.keyed import betas, make_key, permutation, uniforms
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
    """Return the mixing of a batch of `n` samples as a function of (seed, epoch, step).

    Draws have names of their own, and sample number i has the same ones in a batch of any size. Only who is mixed with
    whom depends on the size, as partners are a permutation of the batch.
    """
    ids = np.arange(n if spec.per == "sample" else 1, dtype=np.uint64)
    keys = {name: make_key("mix", seed, epoch, step, name) for name in ("partner", "patch", "prob", "centre", "share")}
    is_patch = uniforms(keys["patch"], ids, 1)[:, 0] < _patch_prob(spec)
    is_mixed = uniforms(keys["prob"], ids, 1)[:, 0] < spec.prob
    blended, cut = (_shares(keys["share"], ids, alpha) for alpha in (spec.mixup_alpha, spec.cutmix_alpha))
    share = np.where(is_mixed, np.where(is_patch, cut, blended), 1.0)
    return Mix(
        partner=permutation(keys["partner"], n),
        share=np.broadcast_to(share, n).copy(),
        is_patch=np.broadcast_to(is_patch, n).copy(),
        centre=np.broadcast_to(uniforms(keys["centre"], ids, 2), (n, 2)).copy(),
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
    shape = tuple(inputs.shape[2:])
    boxes = patch_boxes(mix, shape)
    kept = np.where(mix.is_patch, kept_shares(boxes, shape), mix.share)
    kept = np.where(mix.partner == np.arange(len(kept)), 1.0, kept)  # x * s + x * (1 - s) is not x in floating point
    share, partner, where, is_patch = (
        torch.from_numpy(part).to(inputs.device) for part in (kept, mix.partner, boxes, mix.is_patch)
    )
    by_sample = (-1, *(1,) * (inputs.ndim - 1))
    own, is_patch = share.to(inputs.dtype).view(by_sample), is_patch.view(by_sample)
    others, mixed = inputs[partner], inputs
    if not mix.is_patch.all():
        # Where nothing is blended, a partner that is not finite must not come in as 0 * inf.
        mixed = torch.where(is_patch | (own == 1), inputs, inputs * own + others * (1 - own))
    if mix.is_patch.any():
        mixed = torch.where(is_patch & _inside(where, shape), others, mixed)
    weight = share.to(targets.dtype)[:, None]
    return mixed, targets * weight + targets[partner] * (1 - weight)


def patch_boxes(mix: Mix, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the first place and the one after the last of each sample's patch, (B, D, 2), cut at the border.

    Args:
        mix: centres and shares.
        shape: (H, W) or (T,), of length D.
    """
    sides = np.sqrt(1 - mix.share) if len(shape) == 2 else 1 - mix.share
    lengths = np.array(shape)
    centres = mix.centre[:, -len(shape) :] * lengths
    halves = sides[:, None] * lengths / 2
    edges = np.stack([centres - halves, centres + halves], axis=2)
    return np.clip(np.floor(edges + 0.5), 0, lengths[:, None]).astype(np.int64)


def kept_shares(boxes: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the share of its own area that each sample keeps, (B,), when its box (B, D, 2) is exchanged."""
    areas: NDArray[np.int64] = np.prod(boxes[:, :, 1] - boxes[:, :, 0], axis=1)
    return 1 - areas / math.prod(shape)


def _inside(boxes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return where the boxes (B, D, 2) are, (B, 1, *shape) bool."""
    inside = torch.ones(len(boxes), 1, *(1 for _ in shape), dtype=torch.bool, device=boxes.device)
    for axis, length in enumerate(shape):
        places = torch.arange(length, device=boxes.device)
        within = (places >= boxes[:, axis, :1]) & (places < boxes[:, axis, 1:])
        inside = inside & within.view(len(boxes), 1, *(length if axis == other else 1 for other in range(len(shape))))
    return inside


def _patch_prob(spec: MixSpec) -> float:
    """Return how often a patch is exchanged: always or never where only one kind of mixing is on."""
    if spec.mixup_alpha is None or spec.cutmix_alpha is None:
        return 1.0 if spec.mixup_alpha is None else 0.0
    return spec.switch_prob


def _shares(key: int, ids: NDArray[np.uint64], alpha: float | None) -> NDArray[np.float64]:
    """Return the shares of one kind of mixing; a sample is mixed in one way only, so both kinds may read one draw."""
    return np.ones(len(ids)) if alpha is None else betas(key, ids, alpha, alpha, 1)[:, 0]
