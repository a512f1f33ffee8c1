"""Views (test-time augmentation): an item is shown to the model in several ways, and the answers are averaged.

A view is a pure function on a stored batch, before normalisation, so that what enters at a border is what the
augmentations of training let in. It draws nothing. Where the target itself lies in the picture or in time (a map per
item), `invert_view` brings the model's map back to where the item has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.augment.images import shift_images
from pipeline.augment.resize import resize_images
from pipeline.augment.signals import shift_signals
from pipeline.base.errors import ConfigError
from pipeline.records.experiment import PredictSpec
from pipeline.records.views import Crop, CropView, ScaleView, ShiftView, TimeShiftView, View, show_view

QUARTER_TURNS = {"turn_90": 1, "turn_180": 2, "turn_270": 3}
"""Anticlockwise on the screen."""
MIRRORED_AXIS = {"horizontal": -1, "vertical": -2}


def apply_view(batch: Tensor, view: View) -> Tensor:
    """Return the batch as the view shows it.

    Mirrors, turns and shifts only choose pixels: exact, and of the type of `batch`. Crops and scales are resampled,
    bilinear (with antialiasing where they shrink), to float32 without rounding.

    Args:
        batch: (B, C, H, W), or (B, C, T) for `identity` and time shifts; as stored, left untouched.
        view: `identity` returns `batch` itself; turns of 90 and 270 degrees exchange H and W.
    """
    if isinstance(view, ShiftView):
        return _shifted(batch, view.shift[0], view.shift[1], view.fill)
    if isinstance(view, TimeShiftView):
        return shift_signals(batch, _for_all(batch, view.time_shift))
    if isinstance(view, CropView):
        rows, columns = crop_window(view.crop, batch.shape[-2], batch.shape[-1])
        return resize_images(batch[..., rows, columns], (batch.shape[-2], batch.shape[-1]))
    if isinstance(view, ScaleView):
        return resize_images(batch, scaled_size(view.scale, batch.shape[-2], batch.shape[-1]))
    return _mirrored_or_turned(batch, view, 1)


def invert_view(maps: Tensor, view: View, size: tuple[int, ...]) -> Tensor:
    """Return maps of the viewed items where the items themselves have them; zero where the view saw nothing.

    The inverse of maps of ones is therefore the weight of each place, by which a sum over views is divided. Exact for
    mirrors and turns; for shifts too, but for the strip that the view moved out; crops and scales are resampled, which
    loses fine detail.

    Args:
        maps: (B, K, H', W') or (B, K, T), floating, in the geometry of `apply_view(batch, view)`; left untouched.
        view: what `apply_view` was given.
        size: (H, W) or (T,) of the items.
    """
    if isinstance(view, ShiftView):
        return _shifted(maps, -view.shift[0], -view.shift[1], "zero")
    if isinstance(view, TimeShiftView):
        return shift_signals(maps, _for_all(maps, -view.time_shift))
    if isinstance(view, CropView):
        rows, columns = crop_window(view.crop, *size)
        whole = maps.new_zeros(*maps.shape[:2], *size)
        whole[..., rows, columns] = resize_images(maps, (rows.stop - rows.start, columns.stop - columns.start))
        return whole
    if isinstance(view, ScaleView):
        return resize_images(maps, (size[0], size[1]))
    return _mirrored_or_turned(maps, view, -1)


def average_views(
    logits: Sequence[Tensor], average: Literal["probs", "logits"], activate: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return one answer per item, (B, K) float32: the mean over views of probabilities, or the activated mean logit.

    Args:
        logits: (B, K) of each view; one alone is activated and nothing else.
        average: `logits` is, for a softmax, the renormalised geometric mean of the probabilities: a view that is sure
            weighs more.
        activate: logits to probabilities or values.
    """
    if len(logits) == 1:
        return activate(logits[0])
    # In float64, so that views which agree give their common answer and not its neighbour.
    if average == "logits":
        return activate(torch.stack(list(logits)).double().mean(0).float())
    return torch.stack([activate(each) for each in logits]).double().mean(0).float()


def refuse_views(spec: PredictSpec, kind_of_input: Literal["image", "signal"], has_values: bool) -> None:
    """Raise a ConfigError for views of the other kind of data, or for an `average` that is never read.

    Args:
        spec: as the user wrote it: a default that is spelled out counts as written.
        kind_of_input: of the task.
        has_values: the model's outputs are the values themselves, so that both averages are one.
    """
    for number, view in enumerate(spec.views):
        fits = view == "identity" or isinstance(view, TimeShiftView) == (kind_of_input == "signal")
        if not fits:
            other = "signals" if kind_of_input == "image" else "images"
            raise ConfigError(
                f"predict.views[{number}]: {show_view(view)} is a view of {other}, but the task's input is"
                f" `{kind_of_input}`. Allowed: {_FITTING[kind_of_input]}"
            )
    if "average" in spec.model_fields_set:
        if len(spec.views) == 1:
            raise ConfigError(
                f"predict.average: {spec.average} is never read with the one view of predict.views"
                f" ({show_view(spec.views[0])}); add views, or leave it out"
            )
        if has_values:
            raise ConfigError(
                f"predict.average: {spec.average} is never read, because this task predicts values, which are averaged"
                " as they are; leave it out"
            )


def try_views(views: Sequence[View], model: nn.Module, in_shape: tuple[int, ...]) -> None:
    """Raise a ConfigError for a view that does not fit items of this size, or whose size the model does not take.

    Args:
        views: that fit the kind of data.
        model: takes (B, *in_shape); left in eval mode.
        in_shape: (C, H, W) or (C, T) of one item.
    """
    for number, view in enumerate(views):
        fault = _misfit(view, in_shape[1:])
        if fault is None and isinstance(view, ScaleView):
            fault = _refusal(model, (in_shape[0], *scaled_size(view.scale, in_shape[1], in_shape[2])))
        if fault is not None:
            raise ConfigError(f"predict.views[{number}]: {show_view(view)} {fault}")


def crop_window(crop: Crop, height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns of a crop, at least one of each; a centre that halves a pixel lies up and left."""
    n_rows, n_columns = (max(1, round(crop.size_frac * n)) for n in (height, width))
    top, left = height - n_rows, width - n_columns
    if crop.position == "center":
        top, left = top // 2, left // 2
    else:
        top = 0 if crop.position.startswith("top") else top
        left = 0 if crop.position.endswith("left") else left
    return slice(top, top + n_rows), slice(left, left + n_columns)


def scaled_size(scale: float, height: int, width: int) -> tuple[int, int]:
    """Return height and width times `scale`, rounded, at least one pixel."""
    return max(1, round(scale * height)), max(1, round(scale * width))


_FITTING = {
    "image": "identity, horizontal, vertical, turn_90, turn_180, turn_270, {shift: ...}, {crop: ...}, {scale: ...}",
    "signal": "identity, {time_shift: ...}",
}


def _mirrored_or_turned(batch: Tensor, view: str, sense: Literal[1, -1]) -> Tensor:
    """Return the batch mirrored, or turned in the given sense of rotation; a mirror is its own inverse."""
    if view in MIRRORED_AXIS:
        return batch.flip(MIRRORED_AXIS[view])
    if view in QUARTER_TURNS:
        return torch.rot90(batch, sense * QUARTER_TURNS[view], (-2, -1))
    return batch


def _shifted(images: Tensor, dy: int, dx: int, fill: str) -> Tensor:
    return shift_images(images, _for_all(images, dy), _for_all(images, dx), fill)


def _for_all(batch: Tensor, move: int) -> Tensor:
    """Return the move as a tensor (B,), the same for every item."""
    return torch.full((len(batch),), move, dtype=torch.int64, device=batch.device)


def _misfit(view: View, size: tuple[int, ...]) -> str | None:
    """Return what is wrong with a view of items of (H, W) or (T,); None where nothing is."""
    if isinstance(view, ShiftView) and not all(abs(move) < n for move, n in zip(view.shift, size, strict=True)):
        ends = f"-{size[0] - 1}..{size[0] - 1} down and -{size[1] - 1}..{size[1] - 1} right"
        return f"moves an item of {size[0]} x {size[1]} px out of sight. Allowed: {ends}"
    if isinstance(view, TimeShiftView) and abs(view.time_shift) >= size[0]:
        return f"moves a signal of {size[0]} samples out of sight. Allowed: -{size[0] - 1}..{size[0] - 1}"
    if view in ("turn_90", "turn_270") and size[0] != size[1]:
        return f"needs square images, these are {size[0]} x {size[1]} px. Set a square input.size, or take turn_180"
    if isinstance(view, ScaleView) and scaled_size(view.scale, size[0], size[1]) == size:
        return f"leaves items of {size[0]} x {size[1]} px at their size; take a factor further from 1"
    if isinstance(view, CropView):
        rows, columns = crop_window(view.crop, size[0], size[1])
        if (rows.stop - rows.start, columns.stop - columns.start) == size:
            return f"is the whole of items of {size[0]} x {size[1]} px; take a smaller size_frac"
    return None


def _refusal(model: nn.Module, shape: tuple[int, ...]) -> str | None:
    """Return why a model does not take items of this shape; None where it does."""
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(2, *shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        return f"gives items of {shape}, which this model does not take: {reason}. Leave it out, or take another model"
    return None
