"""What an experiment does to signals before they are stored: filters, reference, rate and baseline."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.records.record import Block, Record

Hz = Annotated[float, Field(gt=0)]


class BandPass(Record):
    """A Butterworth filter that runs over a signal forwards and backwards, so that nothing moves in time."""

    low_hz: Hz | None = None
    """Lower edge; without it, all low frequencies stay. At an edge half of the amplitude is left."""
    high_hz: Hz | None = None
    """Upper edge, below half of the task's sample_rate_hz; without it, all high frequencies stay."""
    order: int = Field(default=4, ge=1, le=12)
    """Of one run; running twice doubles the steepness."""

    @model_validator(mode="after")
    def _has_edges_in_order(self) -> BandPass:
        if self.low_hz is None and self.high_hz is None:
            raise ValueError("low_hz, high_hz: at least one of them is needed")
        if self.low_hz is not None and self.high_hz is not None and not self.low_hz < self.high_hz:
            raise ValueError(f"low_hz: must be below high_hz (found: {self.low_hz:g}, {self.high_hz:g})")
        return self


class Notch(Record):
    """Single frequencies that are taken out, such as those of the mains, forwards and backwards."""

    hz: tuple[Hz, ...] = Field(min_length=1)
    """The frequencies, such as [50, 100]."""
    width_hz: Hz = 2.0
    """From edge to edge of each gap, where half of the amplitude is left."""


class SignalSteps(Record):
    """What is done to each signal by itself, in this order, once: what comes out is kept in the store."""

    notch: Block[Notch] = None
    """Signals: take single frequencies out."""
    band_pass: Block[BandPass] = None
    """Signals: keep a band of frequencies."""
    reference: Literal["none", "average"] = "none"
    """Signals: `average` subtracts the mean over all channels at each time (common average reference)."""
    resample_hz: Hz | None = None
    """Signals: samples per second of what is stored; needs the task's sample_rate_hz."""
    baseline_sec: Block[tuple[Annotated[float, Field(ge=0)], Hz]] = None
    """Signals: start and end, in seconds from the start of the file, of a window whose mean each channel loses."""

    @model_validator(mode="after")
    def _has_a_window(self) -> SignalSteps:
        if self.baseline_sec is not None and not self.baseline_sec[0] < self.baseline_sec[1]:
            raise ValueError(
                f"baseline_sec: the start comes first (found: {self.baseline_sec[0]:g}, {self.baseline_sec[1]:g})"
            )
        return self

    @property
    def steps(self) -> SignalSteps | None:
        """The steps alone; None where nothing is done."""
        chosen = SignalSteps(**{name: getattr(self, name) for name in SignalSteps.model_fields})
        return None if chosen == SignalSteps() else chosen
