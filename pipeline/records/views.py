"""Views of an item to predict, as a config states them in `predict.views`: a word, or a block with one key.

views: [identity, horizontal, {shift: [0, 2], fill: edge}, {crop: {size_frac: 0.9, position: top_left}}, {scale: 1.25}]
views: [identity, {time_shift: 16}, {time_shift: -16}]     # signals

What a view does to a batch stands in `pipeline.training.views`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from pipeline.base.errors import listed, nearest
from pipeline.records.augmentation import Fill
from pipeline.records.record import TAG_MARK, Record

ViewName = Literal["identity", "horizontal", "vertical", "turn_90", "turn_180", "turn_270"]
Position = Literal["center", "top_left", "top_right", "bottom_left", "bottom_right"]


class ShiftView(Record):
    """Images: moved by whole pixels."""

    shift: tuple[int, int]
    """Pixels down and right, of the stored size; negative moves up and left."""
    fill: Fill = "zero"
    """What enters at the border; zero is black, before normalisation."""

    @model_validator(mode="after")
    def _moves(self) -> ShiftView:
        if self.shift == (0, 0):
            raise ValueError("shift: [0, 0] changes nothing; write identity")
        return self


class Crop(Record):
    """Which part of an image is seen."""

    size_frac: Annotated[float, Field(gt=0, lt=1)] = 0.875
    """Height and width of the part, as a share of the image's."""
    position: Position = "center"
    """Where it lies."""


class CropView(Record):
    """Images: a part, enlarged to the full size (several of them are a multi-crop)."""

    crop: Crop
    """The part."""


class ScaleView(Record):
    """Images: resized as a whole, for nets that take any size (several of them are a multi-scale)."""

    scale: Annotated[float, Field(gt=0, le=4)]
    """Factor of height and width, rounded to whole pixels."""

    @model_validator(mode="after")
    def _resizes(self) -> ScaleView:
        if self.scale == 1:
            raise ValueError("scale: 1 changes nothing; write identity")
        return self


class TimeShiftView(Record):
    """Signals: moved in time by whole samples, with zeros entering."""

    time_shift: int
    """Samples later; negative is earlier."""

    @model_validator(mode="after")
    def _moves(self) -> TimeShiftView:
        if self.time_shift == 0:
            raise ValueError("time_shift: 0 changes nothing; write identity")
        return self


_BLOCKS: dict[str, type[Record]] = {
    "shift": ShiftView,
    "crop": CropView,
    "scale": ScaleView,
    "time_shift": TimeShiftView,
}
"""By the key that tells a block from the others."""


def show_view(view: Any) -> str:
    """Return a view as a config has it, keys at their default left out: `horizontal`, `{shift: [0, 2]}`."""
    value = view.model_dump(mode="json", exclude_defaults=True) if isinstance(view, Record) else view
    return _yaml(value)


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _main_key(view: Any) -> str:
    """Return which kind of block a view is; `name` for a word."""
    keys = type(view).model_fields if isinstance(view, Record) else view if isinstance(view, dict) else ()
    return next((key for key in _BLOCKS if key in keys), "name")


def _known(view: Any) -> Any:
    """Return the view as it is, or raise a ValueError that says what is allowed: pydantic knows less of a union."""
    words = [*get_args(ViewName), *(f"{{{key}: ...}}" for key in _BLOCKS)]
    if isinstance(view, str) and view not in words:
        also = f" It is a block, {{{view}: ...}}." if view in _BLOCKS else nearest(view, get_args(ViewName))
        raise ValueError(f"'{view}' is unknown.{also} Allowed: {listed(words)}")
    if isinstance(view, dict):
        mains = [key for key in _BLOCKS if key in view]
        if len(mains) != 1:
            near = nearest(str(next(iter(view), "")), _BLOCKS) if not mains else ""
            raise ValueError(f"{_yaml(view)} must hold exactly one of the keys {listed(_BLOCKS)}.{near}")
        _refuse_unknown(view, _BLOCKS[mains[0]], "")
        if mains == ["crop"]:
            if not isinstance(view["crop"], dict | Crop):
                raise ValueError(f"crop: must be a block, such as {{size_frac: 0.9}} (found: {_yaml(view['crop'])})")
            _refuse_unknown(dict(view["crop"]), Crop, "crop.")
    elif not isinstance(view, str | Record):
        raise ValueError(f"{_yaml(view)} is no view. Allowed: {listed(words)}")
    return view


def _refuse_unknown(values: dict[Any, Any], record: type[Record], prefix: str) -> None:
    """Raise a ValueError for a key that the record lacks, or a word that one of its keys does not know."""
    keys = list(record.model_fields)
    for key, value in values.items():
        if key not in keys:
            raise ValueError(f"the key {prefix}{key} is unknown.{nearest(str(key), keys)} Allowed: {listed(keys)}")
        annotation = record.model_fields[key].annotation
        words = get_args(annotation) if get_origin(annotation) is Literal else ()
        if words and value not in words:
            near = nearest(value, words) if isinstance(value, str) else ""
            raise ValueError(f"{prefix}{key}: {_yaml(value)} is unknown.{near} Allowed: {listed(words)}")


def _distinct(views: tuple[Any, ...]) -> tuple[Any, ...]:
    for place, view in enumerate(views):
        if view in views[:place]:
            raise ValueError(f"holds {show_view(view)} more than once")
    return views


View = Annotated[
    Annotated[ViewName, Tag(TAG_MARK + "name")]
    | Annotated[ShiftView, Tag(TAG_MARK + "shift")]
    | Annotated[CropView, Tag(TAG_MARK + "crop")]
    | Annotated[ScaleView, Tag(TAG_MARK + "scale")]
    | Annotated[TimeShiftView, Tag(TAG_MARK + "time_shift")],
    Discriminator(lambda view: TAG_MARK + _main_key(view)),
]
"""One view."""

Views = Annotated[tuple[Annotated[View, BeforeValidator(_known)], ...], Field(min_length=1), AfterValidator(_distinct)]
"""One view or several, none of them twice."""
