"""How a CPU moves, mirrors and overwrites pixels: by copies of rectangles, not by an index for every pixel.

The same bits as the indexing that other devices do, in a third of its time at 32 pixels and a tenth at 224. A device
with a queue has no use for it: it would wait for the number of images in each group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.augment.pieces import pieces

Array = NDArray[np.generic]


def can_copy(images: Tensor) -> bool:
    """Return whether these functions take the images: on a CPU, and of a type that numpy knows."""
    return images.device.type == "cpu" and images.dtype != torch.bfloat16


def shift_by_windows(images: Tensor, dy: Tensor, dx: Tensor, fill: str) -> Tensor:
    """Return each image moved down by `dy` and right by `dx`: a window of itself with a border around it.

    Args:
        images: (B, C, H, W); left untouched.
        dy: (B,) integers, nearer to 0 than H.
        dx: (B,) integers, nearer to 0 than W.
        fill: what the border holds: `zero`, `reflect` or `edge`, as in `shift_images`.
    """
    stored = images.numpy()
    n, channels, height, width = stored.shape
    far_y, far_x = (int(np.abs(move.numpy()).max(initial=0)) for move in (dy, dx))
    top, left = far_y - dy.numpy(), far_x - dx.numpy()
    parts = list(pieces(images, images.element_size()))
    length = parts[0].stop if n else 0
    # One bordered copy serves all pieces: its border of zeros stays what it is.
    wide = np.zeros((length, channels, height + 2 * far_y, width + 2 * far_x), stored.dtype)
    inner = wide[:, :, far_y : far_y + height, far_x : far_x + width]
    windows = np.lib.stride_tricks.sliding_window_view(wide, (height, width), (2, 3))
    moved = []
    for part in parts:
        n_here = part.stop - part.start
        inner[:n_here] = stored[part]
        if fill != "zero":
            _continue_across(wide.swapaxes(2, 3)[:n_here, :, :, far_y : far_y + height], far_x, fill)
            _continue_across(wide[:n_here], far_y, fill)
        moved.append(windows[np.arange(n_here), :, top[part], left[part]])
    return torch.from_numpy(np.concatenate(moved) if len(moved) > 1 else moved[0])


def change_groups_(images: Tensor, groups: Iterable[tuple[Tensor, Callable[[Tensor], Tensor]]]) -> Tensor:
    """Change each group of images in place and return them all.

    Args:
        images: (B, C, H, W).
        groups: which images, (B,) bool; and what is made of them, of the same shape.
    """
    written = images.numpy()
    for chosen, change in groups:
        places = chosen.nonzero()[:, 0]
        # numpy writes whole images; torch computes the place of each pixel here and takes six times as long.
        written[places.numpy()] = change(images.index_select(0, places)).numpy()
    return images


def write_rectangles_(images: Tensor, rectangles: Tensor, values: Tensor | None) -> Tensor:
    """Overwrite the rectangle of each image in place and return the images; takes the arguments of `overwrite`."""
    start, length = rectangles.numpy()[:, :2], rectangles.numpy()[:, 2:]
    # A slice ends by itself where the image does, but one that starts below 0 would count from the far end.
    corners = np.maximum(np.concatenate([start, start + length], axis=1), 0).tolist()
    fills = None if values is None else values.expand_as(images).numpy()
    for number, (image, (top, left, bottom, right)) in enumerate(zip(images.numpy(), corners, strict=True)):
        if bottom > top:
            image[:, top:bottom, left:right] = 0 if fills is None else fills[number, :, top:bottom, left:right]
    return images


def _continue_across(wide: Array, far: int, fill: str) -> None:
    """Continue pictures (n, C, far + H + far, W) beyond their first and last row; `far` is below H."""
    if far == 0:
        return
    if fill == "edge":
        wide[:, :, :far] = wide[:, :, far : far + 1]
        wide[:, :, -far:] = wide[:, :, -far - 1 : -far]
    else:
        wide[:, :, :far] = wide[:, :, 2 * far : far : -1]
        wide[:, :, -far:] = wide[:, :, -far - 2 : -2 * far - 2 : -1]
