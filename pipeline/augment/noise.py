"""Random values in bulk, made where they are used: one per pixel or sample of time, from one 64-bit seed per picture.

A table of draws on the CPU would be as large as the batch itself, so these values are hashed on the device: value
number i of a seed is the SplitMix64 finaliser of the scrambled seed plus i steps of the golden ratio, as in
`pipeline.base.keyed`. They depend on (seed, i) alone. Hashes and uniforms have the same bits on every device; normal
values pass through logarithm and cosine, which devices round differently, and agree to 1e-5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # two's complement: torch has no arithmetic on uint64, and int64 wraps alike
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_LOW_32 = 2**32 - 1


def noise_seeds(draws: Tensor) -> Tensor:
    """Return a 64-bit seed for each row, (B,) int64, from two uniform draws in [0, 1), (B, 2) float64."""
    halves = (draws * 2.0**32).long()
    return (halves[:, 0] << 32) | halves[:, 1]


def uniform_noise(seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return even values in [0, 1) with 24 random bits, (B, *shape) float32, the same bits on every device.

    Args:
        seeds: (B,) int64; equal seeds give equal values.
        shape: of one sample; for the same seed a longer shape begins with the values of a shorter one.
    """
    values = _shifted(_hashes(seeds, math.prod(shape)), 40).float() * 2.0**-24
    return values.view(len(seeds), *shape)


def gaussian_noise(seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal values, (B, *shape) float32, on the device of `seeds`; none is beyond 6.8.

    Two values come from one hash, by its two halves (Box and Muller 1958, https://doi.org/10.1214/aoms/1177706645).
    Devices agree to 1e-5; a sample alone and the same sample in a batch agree to that too.

    Args:
        seeds: (B,) int64; equal seeds give equal values.
        shape: of one sample.
    """
    n = math.prod(shape)
    n_pairs = -(-n // 2)
    bits = _hashes(seeds, n_pairs)
    # Half a step up, so that the logarithm never meets zero.
    radius = (((bits & _LOW_32).float() + 0.5) * 2.0**-32).log_().mul_(-2).clamp_(min=0).sqrt_()
    angle = _shifted(bits, 32).float() * (2 * math.pi * 2.0**-32)
    values = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).view(len(seeds), 2 * n_pairs)
    return values[:, :n].reshape(len(seeds), *shape)


def _hashes(seeds: Tensor, n: int) -> Tensor:
    """Return n hashes of each seed, (B, n) int64 with 64 random bits."""
    steps = torch.arange(1, n + 1, device=seeds.device) * _GOLDEN
    return _scrambled(_scrambled(seeds)[:, None] + steps)


def _scrambled(bits: Tensor) -> Tensor:
    """Return each 64-bit number scrambled so that neighbours become unrelated."""
    bits = bits + _GOLDEN
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Return the bits moved right with zeros entering; `>>` alone would repeat the sign."""
    return torch.bitwise_and(bits >> by, 2 ** (64 - by) - 1)
