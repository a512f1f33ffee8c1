"""Rectangles of training images: random sizes that fit, random erasing, cutout.

A rectangle is a row (top, left, height, width) of whole pixels; it may overhang the image.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from pipeline.augment.copies import can_copy, write_rectangles_
from pipeline.augment.noise import noise_seeds, uniform_noise
from pipeline.augment.pieces import in_pieces
from pipeline.records.augmentation import Cutout, Erasing

N_ATTEMPTS = 10
N_RECTANGLE_DRAWS = 2 * N_ATTEMPTS + 2
N_ERASING_DRAWS = 1 + N_RECTANGLE_DRAWS + 2


def random_rectangles(
    draws: Tensor, areas: tuple[float, float], aspects: tuple[float, float], height: int, width: int
) -> Tensor:
    """Return a random rectangle wholly inside the image for each sample, (B, 4) int64 as top, left, height, width.

    Area and the logarithm of the aspect are even in their ranges; the first of ten attempts whose sides, rounded to
    whole pixels (at least 1), fit into the image is taken, and its place is even among all places. All four are zero
    where no attempt fits.

    Args:
        draws: (B, 22) in [0, 1): area and aspect of each attempt, then the place from the top and from the left.
        areas: smallest and largest share of the image's area.
        aspects: smallest and largest height / width.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    area = (areas[0] + draws[:, 0 : 2 * N_ATTEMPTS : 2] * (areas[1] - areas[0])) * (height * width)
    low, high = math.log(aspects[0]), math.log(aspects[1])
    aspect = torch.exp(low + draws[:, 1 : 2 * N_ATTEMPTS : 2] * (high - low))
    heights = (area * aspect).sqrt().round().clamp(min=1).long()
    widths = (area / aspect).sqrt().round().clamp(min=1).long()
    fits = (heights <= height) & (widths <= width)
    first = fits.int().argmax(1, keepdim=True)
    tall, wide = heights.gather(1, first)[:, 0], widths.gather(1, first)[:, 0]
    top = (draws[:, 2 * N_ATTEMPTS] * (height - tall + 1)).floor().long()
    left = (draws[:, 2 * N_ATTEMPTS + 1] * (width - wide + 1)).floor().long()
    return torch.stack([top, left, tall, wide], dim=1) * fits.any(1, keepdim=True)


def rectangle_fits(areas: tuple[float, float], aspects: tuple[float, float], height: int, width: int) -> bool:
    """Return whether any rectangle of these areas and aspects fits into the image: the smallest, nearest to its shape.

    Takes the arguments of `random_rectangles`.
    """
    area = areas[0] * height * width
    aspect = min(max(height / width, aspects[0]), aspects[1])
    return round(math.sqrt(area * aspect)) <= height and round(math.sqrt(area / aspect)) <= width


def erase(images: Tensor, erasing: Erasing, draws: Tensor, full_scale: float, in_place: bool = False) -> Tensor:
    """Return the images, some with one random rectangle overwritten.

    The variant of the authors' code: sizes that do not fit are drawn again, the place is then even among those inside.

    Args:
        images: (B, C, H, W), uint8 or floating; left untouched unless `in_place`.
        erasing: how often, how large, with what.
        draws: (B, 25) in [0, 1): whether, 22 for the rectangle, two for the seed of the fill.
        full_scale: random fills are even over 0..full_scale.
        in_place: write into `images` and return them.

    Source: random erasing (Zhong et al. 2017, https://arxiv.org/abs/1708.04896).
    """
    areas, aspects = (erasing.min_area, erasing.max_area), (erasing.min_aspect, erasing.max_aspect)
    rectangles = random_rectangles(draws[:, 1:-2], areas, aspects, images.shape[2], images.shape[3])
    rectangles = rectangles * (draws[:, :1] < erasing.prob)
    if erasing.fill == "zero":
        return overwrite(images, rectangles, in_place=in_place)
    channels, height, width = images.shape[1:]
    shape = (channels, height, width) if erasing.fill == "pixel" else (channels, 1, 1)
    filled = partial(_random_values, shape=shape, full_scale=full_scale)
    values = in_pieces(filled, images, draws[:, -2:], into=images.new_empty(len(images), *shape))
    return overwrite(images, rectangles, values, in_place)


def cut_out(images: Tensor, cutout: Cutout, draws: Tensor, in_place: bool = False) -> Tensor:
    """Return the images with one square of zeros each, whose centre is even over all pixels, so it may overhang.

    Args:
        images: (B, C, H, W), uint8 or floating; left untouched unless `in_place`.
        cutout: how large.
        draws: (B, 2) in [0, 1): row and column of the centre.
        in_place: write into `images` and return them.

    Source: cutout (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552); an odd side reaches equally far both
    ways, where the authors' code makes it one pixel shorter.
    """
    centres = (draws[:, :2] * draws.new_tensor(images.shape[2:])).floor().long()
    sides = torch.full_like(centres, cutout.size_px)
    return overwrite(images, torch.cat([centres - cutout.size_px // 2, sides], dim=1), in_place=in_place)


def overwrite(images: Tensor, rectangles: Tensor, values: Tensor | None = None, in_place: bool = False) -> Tensor:
    """Return the images with the rectangle of each overwritten.

    Args:
        images: (B, C, H, W), any type; left untouched unless `in_place`.
        rectangles: (B, 4) int64 as top, left, height, width; may overhang, and changes nothing where a side is 0.
        values: what is written, of the images' type and of a shape that broadcasts to theirs; without it, zeros.
        in_place: write into `images` and return them.
    """
    images = images if in_place else images.clone()
    if can_copy(images):
        return write_rectangles_(images, rectangles, values)
    rows, columns = (_inside(rectangles[:, axis], rectangles[:, axis + 2], images.shape[axis + 2]) for axis in (0, 1))
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill_(inside, 0) if values is None else torch.where(inside, values, images, out=images)


def _inside(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Return which of 0..size-1 lie within the stretch of each sample, (B, size) bool."""
    distance = torch.arange(size, device=start.device) - start[:, None]
    return (distance >= 0) & (distance < length[:, None])


def _random_values(images: Tensor, draws: Tensor, shape: tuple[int, ...], full_scale: float) -> Tensor:
    """Return even random values (B, *shape) of the images' type; of uint8, all 256 equally often."""
    uniform = uniform_noise(noise_seeds(draws), shape)
    if images.is_floating_point():
        return (uniform * full_scale).to(images.dtype)
    return (uniform * 256).floor().to(images.dtype)
