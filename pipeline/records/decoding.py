"""What a task says about files that are no plain pictures: how DICOM and sound become some."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.records.record import Block, Record


class Dicom(Record):
    """How DICOM files become pictures of 8 or 16 bits."""

    window: Block[tuple[float, Annotated[float, Field(gt=1)]]] = None
    """Centre and width in the units of the modality, for all files: [40, 400] in Hounsfield units for soft parts."""
    own_windows: bool = True
    """Without `window`: whether a file's own window (or VOI table) is used; else all values that its bits can hold."""
    bits: Literal[8, 16] | None = None
    """Of the stored values, which fill them; by default 8 for files of up to 8 bits, else 16."""

    @model_validator(mode="after")
    def _reads_own_windows(self) -> Dicom:
        if self.window is not None and not self.own_windows:
            raise ValueError("own_windows: is never read with window:")
        return self


class Audio(Record):
    """How sound becomes a picture of one channel: the logarithm of the power in bands of the mel scale, over time."""

    sample_rate_hz: float = Field(gt=0)
    """Files of another rate are brought to this one."""
    seconds: float = Field(gt=0)
    """Length of all clips: longer ones lose their end, shorter ones are followed by silence."""
    n_mels: int = Field(default=64, ge=1)
    """Bands, from low to high: the rows of the picture."""
    window_sec: float = Field(default=0.064, gt=0)
    """Stretch of sound that a column of the picture sees."""
    hop_sec: float = Field(default=0.016, gt=0)
    """From one column to the next."""
    min_hz: float = Field(default=0.0, ge=0)
    """Lower end of the lowest band."""
    max_hz: float | None = Field(default=None, gt=0)
    """Upper end of the highest band; by default half the rate."""

    @model_validator(mode="after")
    def _fits_itself(self) -> Audio:
        top = self.max_hz or self.sample_rate_hz / 2
        if not self.min_hz < top <= self.sample_rate_hz / 2:
            raise ValueError(
                f"min_hz, max_hz: must rise within 0..{self.sample_rate_hz / 2:g} Hz, half of sample_rate_hz"
                f" (found: {self.min_hz:g}, {top:g})"
            )
        if self.window_sec > self.seconds:
            raise ValueError(f"window_sec: {self.window_sec:g} is longer than the clips, {self.seconds:g} seconds")
        return self
