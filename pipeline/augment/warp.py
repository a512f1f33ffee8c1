"""Affine moves and enlarged parts of training images, both in one warp with one bilinear resampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.augment.patches import random_rectangles
from pipeline.augment.pixels import like, real
from pipeline.records.augmentation import Affine, ResizedCrop


def warp_images(images: Tensor, moves: Tensor | None, parts: Tensor | None) -> Tensor:
    """Return each image sheared, then rotated, then scaled about its centre, and a part of that enlarged to full size.

    With x to the right, y down and the origin in the middle, a point moves to
    `scale * R(rotate) * (x + tan(shear) * y, y)`, where a positive rotation turns anticlockwise on the screen. Black
    (zero) enters from outside. Of the part, its own edge pixels are repeated where half a pixel more is asked for, as
    in torchvision's `resized_crop` without antialiasing.

    Args:
        images: (B, C, H, W), uint8 (the result is rounded, half to even) or floating; left untouched.
        moves: (B, 3): rotation in degrees, scale > 0 (above 1 enlarges), shear in degrees between -90 and 90; without
            it the images stay where they are.
        parts: (B, 4) top, left, height, width in whole pixels, within the image; without it the whole image.
    """
    values, (height, width) = real(images), images.shape[2:]
    y = _source_places(None if parts is None else parts[:, 0::2], height, images)
    x = _source_places(None if parts is None else parts[:, 1::2], width, images)
    grid = _source_grid(x, y, None if moves is None else _inverse_maps(moves.double()))
    grid = grid * grid.new_tensor([2 / width, 2 / height])
    grid = grid.expand(len(images), -1, -1, -1).to(values.dtype)
    return like(F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False), images)


def affine_parameters(affine: Affine, draws: Tensor) -> Tensor:
    """Return the moves (B, 3) of `warp_images` for uniform `draws` (B, 3); 0.5 changes nothing."""
    rotate, scale, shear = (2 * draws - 1).unbind(1)
    moves = [rotate * affine.max_rotate_deg, 1 + scale * affine.max_scale, shear * affine.max_shear_deg]
    return torch.stack(moves, dim=1)


def crop_parameters(crop: ResizedCrop, draws: Tensor, height: int, width: int) -> Tensor:
    """Return the parts (B, 4) of `warp_images` for uniform `draws` (B, 22); the whole image where ten attempts misfit.

    Source: the crops of Inception (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842).
    """
    areas = (crop.min_area, crop.max_area)
    parts = random_rectangles(draws, areas, crop_aspects(crop, height, width), height, width)
    return torch.where(parts[:, 2:3] > 0, parts, parts.new_tensor([0, 0, height, width]))


def crop_aspects(crop: ResizedCrop, height: int, width: int) -> tuple[float, float]:
    """Return smallest and largest height / width of the part in pixels; `crop` states width / height of the image's."""
    return height / width / crop.max_aspect, height / width / crop.min_aspect


def _source_places(stretch: Tensor | None, size: int, images: Tensor) -> Tensor:
    """Return where each of `size` places lies within the stretch (start, length) of each sample, (B, size) float64.

    Counted from the middle of the image; (1, size) for the whole of it.
    """
    places = torch.arange(size, device=images.device, dtype=torch.float64)[None]
    if stretch is not None:
        start, length = stretch.double().unsqueeze(2).unbind(1)
        places = torch.minimum((places + 0.5) * (length / size) - 0.5, length - 1).clamp(min=0) + start
    return places - (size - 1) / 2


def _source_grid(x: Tensor, y: Tensor, maps: Tensor | None) -> Tensor:
    """Return the points (x, y) of all pixels after the maps, (B, H, W, 2), in pixels from the middle.

    Written element by element: a matrix product, as `affine_grid` makes, would be rounded to bf16 under autocast and
    to TF32 where that is allowed.
    """
    if maps is None:
        shape = (len(x), y.shape[1], x.shape[1])
        return torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)
    return maps[:, None, None, :, 0] * x[:, None, :, None] + maps[:, None, None, :, 1] * y[:, :, None, None]


def _inverse_maps(moves: Tensor) -> Tensor:
    """Return (B, 2, 2) maps from a point of the result to the point of the image that it shows."""
    angle, shear = moves[:, 0] * (math.pi / 180), moves[:, 2] * (math.pi / 180)
    cos, sin, tan = angle.cos(), angle.sin(), shear.tan()
    # Inverse of scale * [[cos, sin], [-sin, cos]] * [[1, tan], [0, 1]], written out.
    first = torch.stack([cos - tan * sin, -sin - tan * cos], dim=1)
    second = torch.stack([sin, cos], dim=1)
    return torch.stack([first, second], dim=1) / moves[:, 1, None, None]
