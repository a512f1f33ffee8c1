"""Changes of training samples, as a config states them: one record per change, each a block of `augment:`, and `mix:`.

What is drawn is drawn per sample from (seed, epoch, id). A block that is switched on must change something.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.records.record import BLOCK, BY_FORM, WORD, Block, Record

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Fill = Literal["zero", "reflect", "edge"]


class Affine(Record):
    """Rotation, scale and shear in one warp with one bilinear resampling."""

    max_rotate_deg: NotNegative = 0.0
    """Rotation drawn from -max..max degrees."""
    max_scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Zoom drawn from 1-max..1+max."""
    max_shear_deg: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """Shear along x drawn from -max..max degrees."""

    @model_validator(mode="after")
    def _changes_something(self) -> Affine:
        if not (self.max_rotate_deg or self.max_scale or self.max_shear_deg):
            raise ValueError("changes nothing; set max_rotate_deg:, max_scale: or max_shear_deg:, or switch it off")
        return self


class ResizedCrop(Record):
    """A part of random area and aspect, brought back to the full size with one bilinear resampling."""

    min_area: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Smallest share of the image's area."""
    max_area: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Largest share of the image's area."""
    min_aspect: Positive = 3 / 4
    """Smallest width / height of the part, relative to the image's; drawn evenly in its logarithm."""
    max_aspect: Positive = 4 / 3
    """Largest width / height."""

    @model_validator(mode="after")
    def _is_ordered(self) -> ResizedCrop:
        _require_order(self, "area", "aspect")
        return self


class Shift(Record):
    """Translation by whole pixels, drawn per sample and axis; the same as a random crop with padding."""

    max_px: int | None = Field(default=None, ge=1)
    """Moves drawn from -max_px..max_px along either axis, in pixels of the stored size."""
    max_frac: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead: the largest move as a share of height and of width, rounded down to whole pixels."""
    fill: Fill = "zero"
    """What enters at the border; zero is black, before normalisation."""

    @model_validator(mode="after")
    def _has_one_size(self) -> Shift:
        if (self.max_px is None) == (self.max_frac is None):
            raise ValueError("give either max_px or max_frac")
        return self


class Flip(Record):
    """Mirror images, each with probability one half."""

    horizontal: bool = True
    """Left-right."""
    vertical: bool = False
    """Top-bottom."""
    alternate: bool = False
    """Left-right only: drawn in the first epoch, then every sample is mirrored in each other epoch."""

    @model_validator(mode="after")
    def _changes_something(self) -> Flip:
        if not (self.horizontal or self.vertical):
            raise ValueError("changes nothing; set horizontal: or vertical:, or switch the block off")
        if self.alternate and not self.horizontal:
            raise ValueError("alternate: is read only with horizontal: true")
        return self


class Colour(Record):
    """Brightness, contrast, saturation and hue, in this order, then grey; factors drawn from 1-max..1+max."""

    max_brightness: Fraction = 0.0
    """Factor of the values."""
    max_contrast: Fraction = 0.0
    """Factor of the distance to the image's mean grey."""
    max_saturation: Fraction = 0.0
    """Factor of the distance to the pixel's own grey; RGB only."""
    max_hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Turn of the hue, as a share of the full circle; RGB only."""
    grey_prob: Fraction = 0.0
    """How often all colour is taken away; RGB only."""

    @model_validator(mode="after")
    def _changes_something(self) -> Colour:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError("changes nothing; set one of its strengths, or switch the block off")
        return self


class Blur(Record):
    """Gaussian blur."""

    max_sigma_px: Positive = 1.0
    """Deviation drawn from 0..max, in pixels of the stored size."""
    prob: Fraction = 0.5
    """How often."""


class Noise(Record):
    """Gaussian noise on every value."""

    max_std_frac: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Deviation drawn from 0..max, as a share of the full range (255 for 8-bit images)."""
    prob: Fraction = 1.0
    """How often."""


class Erasing(Record):
    """A rectangle inside the image is overwritten (Zhong et al. 2017, arXiv 1708.04896)."""

    prob: Fraction = 0.5
    """How often."""
    min_area: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Smallest share of the image's area."""
    max_area: Annotated[float, Field(gt=0, lt=1)] = 1 / 3
    """Largest share of the image's area."""
    min_aspect: Positive = 0.3
    """Smallest height / width; drawn evenly in its logarithm."""
    max_aspect: Positive = 3.3
    """Largest height / width."""
    fill: Literal["zero", "random", "pixel"] = "zero"
    """Black, one random value per channel, or a random value per pixel."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Erasing:
        _require_order(self, "area", "aspect")
        return self


class Cutout(Record):
    """A square of zeros whose centre may lie anywhere, so it may be cut at the border (DeVries, arXiv 1708.04552)."""

    size_px: int = Field(ge=1)
    """Side of the square, in pixels of the stored size; 16 for CIFAR-10, 8 for CIFAR-100."""


class TimeShift(Record):
    """Signals: a move in time with zeros entering, all channels alike."""

    max_samples: int | None = Field(default=None, ge=1)
    """Largest move in samples."""
    max_sec: Positive | None = None
    """Instead: in seconds; needs the task's sample_rate_hz."""

    @model_validator(mode="after")
    def _has_one_size(self) -> TimeShift:
        if (self.max_samples is None) == (self.max_sec is None):
            raise ValueError("give either max_samples or max_sec")
        return self


class Amplitude(Record):
    """Signals: one factor for all channels."""

    max_scale: Annotated[float, Field(gt=0, lt=1)]
    """Factor drawn from 1-max..1+max."""


class SignalNoise(Record):
    """Signals: Gaussian noise on every value."""

    max_std_frac: Annotated[float, Field(gt=0)]
    """Deviation drawn from 0..max, as a share of the signal's own deviation over all its channels."""


class ChannelDropout(Record):
    """Signals: whole channels are set to zero; at least one stays."""

    drop_prob: Annotated[float, Field(gt=0, lt=1)]
    """For each channel."""


class TimeMask(Record):
    """Signals: one stretch of time is silenced in all channels (SpecAugment on the raw wave, arXiv 1904.08779)."""

    max_sec: Positive
    """Length drawn from 0..max; needs the task's sample_rate_hz."""


class BandStop(Record):
    """Signals: one band of frequencies is taken out, in all channels alike."""

    max_width_hz: Positive
    """Width drawn from 0..max; needs the task's sample_rate_hz."""


class Phase(Record):
    """Signals: the phase of each frequency is turned by a random angle, the same in all channels."""

    max_angle_deg: Annotated[float, Field(gt=0, le=180)]
    """Angles drawn from -max..max; the spectrum of amplitudes stays."""


def _plain(value: Any) -> Any:
    """Refuse what a saved config would not give back as it was."""
    if isinstance(value, dict):
        faults = [key for key in value if not isinstance(key, str)]
        if faults:
            raise ValueError(f"the key {faults[0]!r} is no text")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no finite number")
    elif not isinstance(value, tuple | str | int | float | None):
        raise ValueError(f"{value!r} is neither text, number, list nor block")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ():
        _plain(inner)
    return value


def _one_transform(value: Any) -> Any:
    if isinstance(value, dict) and (len(value) != 1 or not isinstance(next(iter(value.values())), dict)):
        raise ValueError("a transform is a name or one block, such as `RandomCrop: {height: 28, width: 28}`")
    return _plain(value)


def _nothing(value: Any) -> Any:
    return () if value is False or value is None else value


Transform = Annotated[Annotated[str, WORD] | Annotated[dict[str, Any], BLOCK], BY_FORM, AfterValidator(_one_transform)]
"""A transform of albumentations: its name, or `{name: {argument: value}}`."""


class Augment(Record):
    """Changes of training samples, drawn per (seed, epoch, id); made in the order in which they stand here."""

    albumentations: Annotated[tuple[Transform, ...], BeforeValidator(_nothing)] = ()
    """Images: transforms of albumentations by name, in their order, such as `[HorizontalFlip, {Blur: {p: 0.2}}]`."""
    affine: Block[Affine] = None
    """Images: one warp."""
    resized_crop: Block[ResizedCrop] = None
    """Images: a part, enlarged."""
    shift: Block[Shift] = None
    """Images: translation by whole pixels."""
    turn_90: bool = False
    """Images: 0, 90, 180 or 270 degrees, equally often; square images only."""
    flip: Block[Flip] = None
    """Images: mirror."""
    colour: Block[Colour] = None
    """Images: brightness, contrast, saturation, hue, grey."""
    blur: Block[Blur] = None
    """Images: Gaussian blur."""
    noise: Block[Noise] = None
    """Images: Gaussian noise."""
    erasing: Block[Erasing] = None
    """Images: a rectangle is overwritten."""
    cutout: Block[Cutout] = None
    """Images: a square of zeros."""
    time_shift: Block[TimeShift] = None
    """Signals: a move in time."""
    amplitude: Block[Amplitude] = None
    """Signals: one factor."""
    phase: Block[Phase] = None
    """Signals: turned phases."""
    band_stop: Block[BandStop] = None
    """Signals: a band of frequencies taken out."""
    signal_noise: Block[SignalNoise] = None
    """Signals: Gaussian noise."""
    time_mask: Block[TimeMask] = None
    """Signals: a stretch of silence."""
    channel_dropout: Block[ChannelDropout] = None
    """Signals: silent channels."""
    sign_flip: bool = False
    """Signals: upside down, with probability one half; only where the label survives it."""


class MixSpec(Record):
    """Samples mixed with others of their batch, targets by the same share (mixup, CutMix, swapped time windows)."""

    mixup_alpha: Positive | None = None
    """Beta(alpha, alpha) of the share; 0.2 for large sets, up to 1 for small ones; without it, no mixup."""
    cutmix_alpha: Positive | None = None
    """Beta(alpha, alpha) of the area that stays; signals exchange a window of time; without it, no CutMix."""
    prob: Fraction = 1.0
    """How often a batch (or sample) is mixed at all."""
    switch_prob: Fraction = 0.5
    """With both on: how often CutMix is taken."""
    per: Literal["batch", "sample"] = "batch"
    """One share for the whole batch, or one for each sample."""
    off_epochs: int = Field(default=0, ge=0)
    """Epochs at the end that are trained without mixing."""

    @model_validator(mode="after")
    def _mixes_something(self) -> MixSpec:
        if self.mixup_alpha is None and self.cutmix_alpha is None:
            raise ValueError("give mixup_alpha, cutmix_alpha or both; `mix: off` switches mixing off")
        # Against the default, not against what was written: a saved run writes every key.
        if self.switch_prob != 0.5 and None in (self.mixup_alpha, self.cutmix_alpha):
            raise ValueError("switch_prob: is read only where mixup_alpha and cutmix_alpha are both given")
        return self


def _require_order(record: ResizedCrop | Erasing, *names: str) -> None:
    """Raise ValueError where a smallest value is above its largest."""
    for name in names:
        low, high = getattr(record, f"min_{name}"), getattr(record, f"max_{name}")
        if low > high:
            raise ValueError(f"min_{name}: {low} is above max_{name}: {high}")
