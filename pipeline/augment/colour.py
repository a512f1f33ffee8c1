"""Changes of the colours of training images: brightness, contrast, saturation, hue, grey.

Every part has the definition of torchvision's `adjust_*` functions on floating values, with one factor per sample. The
whole block is computed in floating point and rounded once at its end, where torchvision cuts integers off at each step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.augment.pixels import like, per_sample, real
from pipeline.records.augmentation import Colour

GREY_WEIGHTS = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in grey: ITU-R BT.601 as torchvision writes it."""


def colour_images(images: Tensor, colour: Colour, draws: Tensor, full_scale: float) -> Tensor:
    """Return the images with brightness, contrast, saturation and hue changed in this order, then grey; see `Colour`.

    Args:
        images: (B, C, H, W), uint8 (the result is rounded) or floating; left untouched. C is 3 wherever
            `max_saturation`, `max_hue` or `grey_prob` is above 0.
        colour: the strengths; a part of strength 0 is skipped.
        draws: (B, 5) in [0, 1): brightness, contrast, saturation, hue, whether grey; 0.5 changes nothing.
        full_scale: the value of full white; brightness, contrast and saturation clip to 0..full_scale.
    """
    values = real(images)
    swing = 2 * draws - 1
    if colour.max_brightness:
        values = scale_brightness(values, 1 + colour.max_brightness * swing[:, 0], full_scale)
    if colour.max_contrast:
        values = scale_contrast(values, 1 + colour.max_contrast * swing[:, 1], full_scale)
    if colour.max_saturation:
        values = scale_saturation(values, 1 + colour.max_saturation * swing[:, 2], full_scale)
    if colour.max_hue:
        values = turn_hue(values, colour.max_hue * swing[:, 3])
    if colour.grey_prob:
        values = torch.where((draws[:, 4] < colour.grey_prob).view(-1, 1, 1, 1), grey(values), values)
    return like(values, images)


def scale_brightness(values: Tensor, factor: Tensor, full_scale: float) -> Tensor:
    """Return values (B, C, H, W) times `factor` (B,), clipped to 0..full_scale."""
    return (values * per_sample(factor, values)).clamp(0, full_scale)


def scale_contrast(values: Tensor, factor: Tensor, full_scale: float) -> Tensor:
    """Return values (B, C, H, W) whose distance to the image's mean grey is scaled by `factor` (B,), then clipped.

    The mean grey is that of all channels where they are not three.
    """
    shades = grey(values) if values.shape[1] == 3 else values
    # In float64, so that the order of summation, which follows the batch size and threads, cannot show.
    mean = shades.double().mean((1, 2, 3), keepdim=True).to(values.dtype)
    return _blend(values, mean, factor, full_scale)


def scale_saturation(values: Tensor, factor: Tensor, full_scale: float) -> Tensor:
    """Return RGB values (B, 3, H, W) whose distance to their own grey is scaled by `factor` (B,), then clipped."""
    return _blend(values, grey(values), factor, full_scale)


def turn_hue(values: Tensor, turn: Tensor) -> Tensor:
    """Return RGB values (B, 3, H, W) with the hue turned by shares `turn` (B,) of the circle, 1/3 takes red to green.

    Largest channel and range of the channels (value and chroma of the HSV model) stay. Source: the model of Smith
    (1978, https://doi.org/10.1145/965139.807361), with hue counted in sixths of the circle.
    """
    red, green, blue = values.unbind(1)
    low, high = torch.aminmax(values, dim=1)
    chroma = high - low
    divisor = torch.where(chroma == 0, 1, chroma)  # greys have no hue; chroma 0 below makes any hue do
    from_red, from_green, from_blue = (green - blue) / divisor, (blue - red) / divisor + 2, (red - green) / divisor + 4
    sixths = torch.where(high == red, from_red, torch.where(high == green, from_green, from_blue))
    sixths = sixths + 6 * turn.to(values.dtype).view(-1, 1, 1)
    return torch.stack([_channel(sixths + offset, high, chroma) for offset in (5, 3, 1)], dim=1)


def grey(values: Tensor) -> Tensor:
    """Return the grey of RGB values (B, 3, H, W), shape (B, 1, H, W)."""
    red, green, blue = values.unbind(1)
    return (red * GREY_WEIGHTS[0] + green * GREY_WEIGHTS[1] + blue * GREY_WEIGHTS[2])[:, None]


def _channel(sixths: Tensor, high: Tensor, chroma: Tensor) -> Tensor:
    """Return the channel that is lowest for two sixths of the circle, highest for two, and a ramp between them."""
    place = sixths.remainder(6)
    return high - chroma * torch.minimum(place, 4 - place).clamp(0, 1)


def _blend(values: Tensor, others: Tensor, factor: Tensor, full_scale: float) -> Tensor:
    share = per_sample(factor, values)
    return (values * share + others * (1 - share)).clamp(0, full_scale)
