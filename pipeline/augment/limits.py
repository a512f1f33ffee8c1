"""What an image must be for its augmentation: refusals with the key, the value and the allowed range."""

from __future__ import annotations

from pipeline.augment.patches import rectangle_fits
from pipeline.augment.warp import crop_aspects
from pipeline.base.errors import ConfigError
from pipeline.records.augmentation import Augment, Colour, Erasing, ResizedCrop, Shift


def refuse_image_augment(augment: Augment, shape: tuple[int, int, int]) -> None:
    """Raise for every part of `augment` that cannot be done on images of this shape, or would leave nothing of them.

    Args:
        augment: the parts for images; those for signals are not looked at.
        shape: (C, H, W) as stored.

    Raises:
        ConfigError: a part does not fit; the message names its key, its value and what is allowed.
    """
    channels, height, width = shape
    least, size = min(height, width), f"images of {height} x {width} pixels"
    if augment.resized_crop is not None:
        _refuse_crop(augment.resized_crop, height, width)
    if augment.shift is not None:
        _refuse_shift(augment.shift, height, width)
    if augment.turn_90 and height != width:
        raise ConfigError(f"augment.turn_90: needs square images, and these have {height} x {width} pixels; use flip:")
    if augment.colour is not None:
        _refuse_colour(augment.colour, channels)
    if augment.blur is not None and augment.blur.max_sigma_px > least:
        raise ConfigError(
            f"augment.blur.max_sigma_px: {augment.blur.max_sigma_px} leaves nothing of {size}; at most {least}"
        )
    if augment.erasing is not None:
        _refuse_erasing(augment.erasing, height, width)
    # With its centre on the first pixel, a square of 2 n - 1 reaches the last of n.
    if augment.cutout is not None and augment.cutout.size_px > max(1, 2 * least - 2):
        key = f"augment.cutout.size_px: {augment.cutout.size_px}"
        raise ConfigError(
            f"{key} covers {size} from edge to edge wherever it lies; allowed: 1..{max(1, 2 * least - 2)}"
        )


def largest_moves(shift: Shift, height: int, width: int) -> tuple[int, int]:
    """Return the largest move along the height and along the width, in whole pixels."""
    if shift.max_px is not None:
        return shift.max_px, shift.max_px
    share = shift.max_frac or 0.0
    # 0.29 * 100 is 28.999999999999996; what is written as a whole number of pixels must be that number.
    return int(share * height + 1e-9), int(share * width + 1e-9)


def _refuse_shift(shift: Shift, height: int, width: int) -> None:
    moves, size = largest_moves(shift, height, width), f"images of {height} x {width} pixels"
    key = f"max_px: {shift.max_px}" if shift.max_px is not None else f"max_frac: {shift.max_frac}"
    if moves[0] >= height or moves[1] >= width:
        most = f"1..{min(height, width) - 1}" if shift.max_px is not None else "below 1"
        raise ConfigError(f"augment.shift.{key} moves {size} out of sight; allowed: {most}")
    if moves == (0, 0):
        least = 1 / max(height, width)
        raise ConfigError(f"augment.shift.{key} of {size} is less than one pixel; at least {least:.3g}")


def _refuse_colour(colour: Colour, channels: int) -> None:
    for name in ("max_saturation", "max_hue", "grey_prob"):
        value = getattr(colour, name)
        if value and channels != 3:
            message = (
                f"augment.colour.{name}: {value} needs RGB images, and these have {channels} channel(s); set it to 0"
            )
            raise ConfigError(f"{message} (max_brightness and max_contrast take any number of channels)")


def _refuse_crop(crop: ResizedCrop, height: int, width: int) -> None:
    if not rectangle_fits((crop.min_area, crop.max_area), crop_aspects(crop, height, width), height, width):
        ranges = f"min_area: {crop.min_area} with aspects {crop.min_aspect}..{crop.max_aspect}"
        most = _largest_share(crop.min_aspect, crop.max_aspect)
        raise ConfigError(
            f"augment.resized_crop.{ranges} fits into no image; at most {most:.3g}, or aspects nearer to 1"
        )


def _refuse_erasing(erasing: Erasing, height: int, width: int) -> None:
    if not rectangle_fits(
        (erasing.min_area, erasing.max_area), (erasing.min_aspect, erasing.max_aspect), height, width
    ):
        ranges = f"min_area: {erasing.min_area} with aspects {erasing.min_aspect}..{erasing.max_aspect}"
        most = _largest_share(erasing.min_aspect * width / height, erasing.max_aspect * width / height)
        raise ConfigError(
            f"augment.erasing.{ranges} does not fit into images of {height} x {width} pixels; at most {most:.3g}"
        )


def _largest_share(min_aspect: float, max_aspect: float) -> float:
    """Return the largest share of the area that fits, for aspects relative to the image's."""
    nearest = min(max(1.0, min_aspect), max_aspect)
    return min(nearest, 1 / nearest)
