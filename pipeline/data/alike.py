"""Whether the items of a set can stand in one array: one shape, one type, and axes in the order they are taken for."""

from __future__ import annotations

import math
from typing import Any

from pipeline.base.errors import DataError, listed
from pipeline.data.forms import StoredForm, laid_out, likely_layout
from pipeline.data.sources import OpenItems

Kinds = dict[tuple[tuple[int, ...], str], int]
"""The first item of each (shape, type)."""

_TURNED = "Their first axis differs, so it is time and not channels: state layout: channels_last in the task."
_TYPE_ADVICE = "Save all files with one type of values."


def check_alike(kinds: Kinds, items: OpenItems, form: StoredForm) -> None:
    """Raise a DataError with examples when items have more than one shape or type, or nothing in them."""
    shapes: dict[Any, int] = {}
    dtypes: dict[Any, int] = {}
    for (shape, dtype), index in kinds.items():
        shapes.setdefault(shape, index)
        dtypes.setdefault(dtype, index)
    empty = [index for shape, index in shapes.items() if not math.prod(shape)]
    if empty:
        raise DataError(f"{items.name(empty[0])}: holds no values")
    for what, found, advice in (("shapes", shapes, _shape_advice(list(shapes), form)), ("types", dtypes, _TYPE_ADVICE)):
        if len(found) > 1:
            examples = listed([f"{kind} ({items.name(index)})" for kind, index in found.items()], 8)
            raise DataError(f"items have several {what} where one is needed: {examples}. {advice}")


def check_turned(items: OpenItems, form: StoredForm) -> None:
    """Raise a DataError for signals in arrays that are likely (T, C), where the task does not say what they are."""
    if form.input != "signal" or form.layout is not None or not items.is_array:
        return
    try:
        shapes = [laid_out(items.read(index), form).shape for index in (0, items.n - 1)]
    except DataError:
        return  # the pass over all items will tell
    if likely_layout(shapes) == ("channels_last", True):
        raise DataError(f"items have the shapes {shapes[0]} and {shapes[1]}. {_TURNED}")
    if likely_layout(shapes) == ("channels_last", False):
        have = shapes[0]
        raise DataError(
            f"{items.name(0)}: has the shape {have}, taken as (C, T) {have[0]:,} channels of {have[1]:,} samples; it"
            " looks like (T, C). State layout: channels_last in the task; or layout: channels_first, if there really"
            " are so many channels"
        )


def _shape_advice(shapes: list[tuple[int, ...]], form: StoredForm) -> str:
    """Return what to do about items of several shapes."""
    if form.input == "image":
        return "State input.size: [height, width] to bring all images to one size."
    if likely_layout(shapes) == ("channels_last", True):
        return _TURNED
    if len({shape[0] for shape in shapes}) > 1:
        return "They differ in their channels, which cannot be mended; leave the odd ones out with exclude:."
    return "State input.length: N to cut and pad all signals to N samples."
