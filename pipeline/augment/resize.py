"""Images of another size: for views, and for training that starts on small images and ends on full ones."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from pipeline.records.experiment import Gradual


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the images (B, C, *size), floating: bilinear, with antialiasing where they shrink, without rounding."""
    if tuple(images.shape[-2:]) == size:
        return images
    values = images if images.is_floating_point() else images.float()
    shrinks = size[0] < images.shape[-2] or size[1] < images.shape[-1]
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


def grown_size(spec: Gradual | None, size: tuple[int, int], epoch: int) -> tuple[int, int]:
    """Return height and width of the training images of an epoch: growing evenly to `size`, in whole steps.

    Progressive resizing as in EfficientNetV2 (Tan and Le 2021, https://arxiv.org/abs/2104.00298), without its
    growing regularisation. Steps never pass the full size, nor fall below one step.
    """
    if spec is None or epoch >= spec.full_epoch:
        return size
    share = spec.start_frac + (1 - spec.start_frac) * epoch / spec.full_epoch
    grown = (max(1, round(share * side / spec.step_px)) * spec.step_px for side in size)
    height, width = (min(side, full) for side, full in zip(grown, size, strict=True))
    return height, width
