"""Changes of single values of training images: Gaussian blur, Gaussian noise; and the type in which they are made."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.augment.noise import gaussian_noise, noise_seeds
from pipeline.records.augmentation import Blur, Noise


def blur_images(images: Tensor, sigma_px: Tensor, radius: int) -> Tensor:
    """Return each image blurred with a Gaussian of its own width, the border reflected without its edge pixel.

    Args:
        images: (B, C, H, W), uint8 (the result is rounded) or floating; left untouched.
        sigma_px: (B,) deviations in pixels, >= 0; 0 leaves the image as it is, exactly.
        radius: where the Gaussian is cut off, in pixels, alike for the batch; the rest is scaled to a sum of 1.
    """
    values = real(images)
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float64)
    # Below a thousandth of a pixel every neighbour has the weight exp(-500000) = 0.
    bells = torch.exp(-0.5 * (taps / sigma_px.double().clamp(min=1e-3)[:, None]).square())
    weights = (bells / bells.sum(1, keepdim=True)).to(values.dtype)
    for axis in (2, 3):
        values = _weighted_neighbours(values, weights, axis)
    return like(values, images)


def blur_parameters(blur: Blur, draws: Tensor) -> tuple[Tensor, int]:
    """Return deviations (B,) in pixels, 0 where a sample is not blurred, and the radius, for uniform `draws` (B, 2)."""
    return blur.max_sigma_px * draws[:, 1] * (draws[:, 0] < blur.prob), math.ceil(3 * blur.max_sigma_px)


def add_noise(images: Tensor, std: Tensor, seeds: Tensor) -> Tensor:
    """Return the images plus Gaussian noise, independent for each pixel and channel.

    Args:
        images: (B, C, H, W), uint8 (the result is rounded and held within 0..255) or floating (not clipped); left
            untouched.
        std: (B,) deviation in the unit of the values, >= 0.
        seeds: (B,) int64, one per sample, from `noise_seeds`.
    """
    values = real(images)
    normals = gaussian_noise(seeds, tuple(images.shape[1:])).to(values.dtype)
    return like(values + normals * per_sample(std, values), images)


def noise_parameters(noise: Noise, draws: Tensor, full_scale: float) -> tuple[Tensor, Tensor]:
    """Return deviations (B,), 0 where no noise is added, and seeds (B,) for uniform `draws` (B, 4)."""
    return noise.max_std_frac * full_scale * draws[:, 1] * (draws[:, 0] < noise.prob), noise_seeds(draws[:, 2:4])


def reflected(index: Tensor, size: int) -> Tensor:
    """Return the position within 0..size-1 that stands at `index` when the edge pixels are mirrors, at any distance."""
    period = max(2 * (size - 1), 1)  # one pixel has nothing to reflect and repeats itself
    folded = index.remainder(period)
    return torch.minimum(folded, period - folded).clamp(max=size - 1)


def real(images: Tensor) -> Tensor:
    """Return the values in float32, or in float64 where they already are."""
    return images if images.dtype == torch.float64 else images.float()


def like(values: Tensor, images: Tensor) -> Tensor:
    """Return the values in the type of `images`: rounded half to even and held within 0..255 where that is uint8."""
    return (values if images.is_floating_point() else values.round().clamp(0, 255)).to(images.dtype)


def per_sample(numbers: Tensor, values: Tensor) -> Tensor:
    """Return one number per sample, (B,), as (B, 1, 1, 1) in the type of `values`."""
    return numbers.to(values.dtype).view(-1, 1, 1, 1)


def _weighted_neighbours(values: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Return the sum of neighbours along `axis`, weighted by (B, 2 * radius + 1).

    Tap by tap, because a convolution would be rounded to bf16 under autocast and may differ with the batch size.
    """
    size, radius = values.shape[axis], weights.shape[1] // 2
    places = torch.arange(-radius, size + radius, device=values.device)
    wide = values.index_select(axis, reflected(places, size))
    total = torch.zeros_like(values)
    for tap in range(weights.shape[1]):
        total.addcmul_(wide.narrow(axis, tap, size), weights[:, tap].view(-1, 1, 1, 1))
    return total
