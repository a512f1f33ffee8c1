"""Changes of training images as pure functions on whole batches, on any device; here those by whole pixels.

The functions draw nothing: `augment_images` asks for uniform draws by the name of each change, so that switching one on
or off leaves the draws of the others as they were, and maps them to one value per sample. Moves by whole pixels are
exact copies of pixels; rotation, scale, shear and enlarged parts are one warp with one resampling.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pipeline.augment.colour import colour_images
from pipeline.augment.copies import can_copy, change_groups_, shift_by_windows
from pipeline.augment.draw import Draw
from pipeline.augment.limits import largest_moves, refuse_image_augment
from pipeline.augment.patches import N_ERASING_DRAWS, N_RECTANGLE_DRAWS, cut_out, erase
from pipeline.augment.pieces import in_pieces
from pipeline.augment.pixels import add_noise, blur_images, blur_parameters, noise_parameters, reflected
from pipeline.augment.warp import affine_parameters, crop_parameters, warp_images
from pipeline.base.errors import ConfigError, nearest
from pipeline.records.augmentation import Augment

FILLS = ("zero", "reflect", "edge")

_Moves = tuple[Tensor, Tensor]
_Mirrors = tuple[Tensor | None, Tensor | None]
_Group = tuple[Tensor, Callable[[Tensor], Tensor]]


def augment_images(
    images: Tensor, augment: Augment, draw: Draw, lasting_draw: Draw, epoch: int = 0, full_scale: float = 255.0
) -> Tensor:
    """Return the images changed as `augment` says, in the order in which it lists the changes.

    Args:
        images: (B, C, H, W), uint8 or floating; left untouched, and returned as it is when nothing is switched on.
        augment: which changes, and how large.
        draw: keyed by (seed, epoch, sample, occurrence); asked once per change, by the key of its block.
        lasting_draw: keyed by (seed, sample) alone, the same in every epoch; asked for `flip_alternate`.
        epoch: from 0; what the alternating flip counts.
        full_scale: the value of full white: 255 for 8-bit images, 65535 for 16-bit ones, else 1.

    Raises:
        ConfigError: a change does not fit images of this shape.
    """
    channels, height, width = images.shape[1:]
    refuse_image_augment(augment, (channels, height, width))
    stored = images
    images = _warped(images, augment, draw)
    images = _rearranged(images, augment, draw, lasting_draw, epoch)
    if augment.colour is not None:
        coloured = partial(colour_images, colour=augment.colour, full_scale=full_scale)
        images = in_pieces(lambda part, draws: coloured(part, draws=draws), images, draw("colour", 5))
    if augment.blur is not None:
        sigma_px, radius = blur_parameters(augment.blur, draw("blur", 2))
        images = in_pieces(partial(blur_images, radius=radius), images, sigma_px)
    if augment.noise is not None:
        images = in_pieces(add_noise, images, *noise_parameters(augment.noise, draw("noise", 4), full_scale))
    if augment.erasing is not None:
        draws = draw("erasing", N_ERASING_DRAWS)
        images = erase(images, augment.erasing, draws, full_scale, in_place=images is not stored)
    if augment.cutout is not None:
        images = cut_out(images, augment.cutout, draw("cutout", 2), in_place=images is not stored)
    return images


def shift_images(images: Tensor, dy: Tensor, dx: Tensor, fill: str) -> Tensor:
    """Return each image moved down by `dy` and right by `dx` whole pixels, exactly.

    The same as a padded crop. Works at any size of the move.

    Args:
        images: (B, C, H, W), any type; left untouched.
        dy: (B,) integers; negative moves up.
        dx: (B,) integers; negative moves left.
        fill: what enters at the border: `zero`, `reflect` (mirrored at the edge pixel, which is not repeated) or `edge`
            (the edge pixel repeated).

    Raises:
        ConfigError: `fill` is another word.
    """
    if fill not in FILLS:
        raise ConfigError(f"fill: '{fill}' is not known.{nearest(fill, FILLS)} Allowed: {', '.join(FILLS)}")
    if can_copy(images) and (dy.abs() < images.shape[2]).all() and (dx.abs() < images.shape[3]).all():
        return shift_by_windows(images, dy, dx, fill)
    return _pick(images, _moved(_own_index(images, 2), dy, fill), _moved(_own_index(images, 3), dx, fill))


def turn_images(images: Tensor, quarters: Tensor) -> Tensor:
    """Return the square images turned anticlockwise by `quarters` (B,) of 0..3 times 90 degrees, exactly."""
    if can_copy(images):
        return change_groups_(images.clone(), _groups_by_turn(quarters))
    rows, columns = _turned(_own_index(images, 2), _own_index(images, 3), quarters)
    return _pick(_transposed(images, quarters), rows, columns)


def flip_images(images: Tensor, horizontal: Tensor, vertical: Tensor) -> Tensor:
    """Return the images mirrored left-right where `horizontal` and top-bottom where `vertical`, both (B,) bool."""
    if can_copy(images):
        return change_groups_(images.clone(), _groups_by_mirror(horizontal, vertical))
    rows, columns = _own_index(images, 2), _own_index(images, 3)
    return _pick(images, _mirrored(rows, vertical), _mirrored(columns, horizontal))


def whole_moves(draws: Tensor, most: int) -> Tensor:
    """Return an integer of -most..most for each uniform draw, all equally likely, int64."""
    return (draws * (2 * most + 1)).floor().long() - most


def _warped(images: Tensor, augment: Augment, draw: Draw) -> Tensor:
    moves = parts = None
    if augment.affine is not None:
        moves = affine_parameters(augment.affine, draw("affine", 3))
    if augment.resized_crop is not None:
        draws = draw("resized_crop", N_RECTANGLE_DRAWS)
        parts = crop_parameters(augment.resized_crop, draws, images.shape[2], images.shape[3])
    return images if moves is None and parts is None else in_pieces(warp_images, images, moves, parts)


def _rearranged(images: Tensor, augment: Augment, draw: Draw, lasting_draw: Draw, epoch: int) -> Tensor:
    """Return the images shifted, then turned, then mirrored."""
    moves = quarters = mirrors = None
    if augment.shift is not None:
        most = largest_moves(augment.shift, images.shape[2], images.shape[3])
        down, across = draw("shift", 2).unbind(1)
        moves = whole_moves(down, most[0]), whole_moves(across, most[1])
    if augment.turn_90:
        quarters = (draw("turn_90", 1)[:, 0] * 4).floor().long()
    if augment.flip is not None:
        horizontal, vertical = (draw("flip", 2) < 0.5).unbind(1)
        if augment.flip.alternate:
            horizontal = (lasting_draw("flip_alternate", 1)[:, 0] < 0.5) ^ (epoch % 2 == 1)
        mirrors = (horizontal if augment.flip.horizontal else None), (vertical if augment.flip.vertical else None)
    if moves is None and quarters is None and mirrors is None:
        return images
    way = _one_by_one if can_copy(images) else _in_one_pass
    return way(images, moves, augment.shift.fill if augment.shift else "zero", quarters, mirrors)


def _one_by_one(
    images: Tensor, moves: _Moves | None, fill: str, quarters: Tensor | None, mirrors: _Mirrors | None
) -> Tensor:
    """Return the images after those steps that are given, each by copies."""
    images = images.clone() if moves is None else shift_images(images, *moves, fill)
    if quarters is not None:
        change_groups_(images, _groups_by_turn(quarters))
    return images if mirrors is None else change_groups_(images, _groups_by_mirror(*mirrors))


def _in_one_pass(
    images: Tensor, moves: _Moves | None, fill: str, quarters: Tensor | None, mirrors: _Mirrors | None
) -> Tensor:
    """Return the same by an index of the pixels: all the steps only choose them, so one choice does for all."""
    rows, columns = _own_index(images, 2), _own_index(images, 3)
    if moves is not None:
        rows, columns = _moved(rows, moves[0], fill), _moved(columns, moves[1], fill)
    if quarters is not None:
        images = _transposed(images, quarters)
        rows, columns = _turned(rows, columns, quarters)
    if mirrors is not None:
        horizontal, vertical = mirrors
        rows = rows if vertical is None else _mirrored(rows, vertical)
        columns = columns if horizontal is None else _mirrored(columns, horizontal)
    return _pick(images, rows, columns)


def _own_index(images: Tensor, axis: int) -> Tensor:
    """Return for each sample the positions 0..n-1 along `axis`, shape (B, n): where each output pixel comes from."""
    return torch.arange(images.shape[axis], device=images.device).expand(images.shape[0], -1)


def _moved(index: Tensor, move: Tensor, fill: str) -> Tensor:
    """Return the index (B, n) after a move by (B,) places; -1 where zero enters."""
    last = index.shape[1] - 1
    source = index - move.to(index.device)[:, None]
    if fill == "zero":
        return source.masked_fill((source < 0) | (source > last), -1)
    if fill == "edge":
        return source.clamp(0, last)
    return reflected(source, last + 1)


def _mirrored(index: Tensor, flags: Tensor) -> Tensor:
    return torch.where(flags[:, None], index.flip(1), index)


def _groups_by_turn(quarters: Tensor) -> list[_Group]:
    return [(quarters == number, partial(torch.rot90, k=number, dims=(2, 3))) for number in (1, 2, 3)]


def _groups_by_mirror(horizontal: Tensor | None, vertical: Tensor | None) -> list[_Group]:
    ways: list[tuple[Tensor | None, tuple[int, ...]]] = [(horizontal, (3,)), (vertical, (2,))]
    if horizontal is not None and vertical is not None:
        ways = [(horizontal & ~vertical, (3,)), (vertical & ~horizontal, (2,)), (horizontal & vertical, (2, 3))]
    return [(chosen, partial(torch.flip, dims=axes)) for chosen, axes in ways if chosen is not None]


def _transposed(images: Tensor, quarters: Tensor) -> Tensor:
    """Return the images with rows and columns exchanged where `quarters` is odd; `_turned` does the rest."""
    return torch.where((quarters % 2 == 1).view(-1, 1, 1, 1), images.transpose(2, 3), images)


def _turned(rows: Tensor, columns: Tensor, quarters: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rows and columns come from after the turn, as indices into the images that `_transposed` gives.

    A quarter anticlockwise is an exchange of the axes, then a mirror image top-bottom; two are both mirror images.
    """
    is_odd = (quarters % 2 == 1)[:, None]
    rows, columns = torch.where(is_odd, columns, rows), torch.where(is_odd, rows, columns)
    return _mirrored(rows, (quarters == 1) | (quarters == 2)), _mirrored(columns, quarters >= 2)


def _pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return pixel (rows[b, y], columns[b, x]) of image b at (y, x); zero where either index is -1.

    Whole rows first, as one memory copy each, then the columns within them: 0.7 million 3x32x32 images per second on
    one core, ten times what indexing with four broadcast tensors gives.
    """
    batch, channels, height, width = images.shape
    planes = torch.arange(batch * channels, device=images.device).view(batch, channels, 1) * height
    lines = (planes + rows.clamp(min=0)[:, None, :]).view(-1)
    picked = images.reshape(-1, width).index_select(0, lines).view(batch, channels, height, width)
    across = columns.clamp(min=0)[:, None, None, :].expand(batch, channels, height, width)
    outside = (rows < 0)[:, None, :, None] | (columns < 0)[:, None, None, :]
    return picked.gather(3, across).masked_fill_(outside, 0)
