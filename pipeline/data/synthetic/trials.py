"""What every generator here returns, and the seeds and noises that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.keyed import make_key

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Part = Literal["train", "test"]


@dataclass(frozen=True)
class Trials:
    """Trials with their labels, in the order in which they were recorded."""

    signals: NDArray[np.float32]
    """(N, C, T); missing values are NaN."""
    labels: Ints
    """(N,) class ids, 0 and up."""
    subjects: NDArray[np.object_]
    """(N,) names of subjects."""
    sessions: NDArray[np.object_]
    """(N,) names of sessions, each of one subject."""


def join_trials(parts: list[Trials]) -> Trials:
    """Return the trials of all parts, one part after another."""
    return Trials(
        signals=np.concatenate([part.signals for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        subjects=np.concatenate([part.subjects for part in parts]),
        sessions=np.concatenate([part.sessions for part in parts]),
    )


def session_trials(signals: Floats, labels: Ints, subject: str, session: str) -> Trials:
    """Return the trials of one session of one subject; signals become float32."""
    names = [np.full(len(labels), name, dtype=object) for name in (subject, session)]
    return Trials(signals.astype(np.float32), labels, *names)


def generator(*purpose: str | int) -> np.random.Generator:
    """Return a generator that depends on its purpose alone, so that one session never changes another."""
    return np.random.Generator(np.random.PCG64(make_key("synthetic", *purpose)))


def balanced_labels(rng: np.random.Generator, n_trials: int, n_classes: int) -> Ints:
    """Return (n_trials,) class ids in random order, every class as often as any other, or once more."""
    return rng.permutation(np.arange(n_trials) % n_classes).astype(np.int64)


def coloured_noise(rng: np.random.Generator, shape: tuple[int, ...], sample_rate_hz: float, slope: float) -> Floats:
    """Return noise whose power falls as 1 / f**slope, with mean 0 and variance 1 over many draws.

    Args:
        rng: the only source of randomness.
        shape: (..., T); below the frequency of two periods in T the spectrum is flat, so that no drift dominates.
        sample_rate_hz: samples per second.
        slope: 0 is white noise, 1 pink, 2 a random walk.
    """
    frequencies = np.fft.rfftfreq(shape[-1], 1 / sample_rate_hz)
    lowest = 2 * sample_rate_hz / shape[-1]
    return _shaped(rng, shape, np.maximum(frequencies, lowest) ** (-slope / 2))


def rhythm(
    rng: np.random.Generator, shape: tuple[int, ...], sample_rate_hz: float, centre_hz: float, width_hz: float
) -> Floats:
    """Return waxing and waning oscillations with mean 0 and variance 1 over many draws.

    Args:
        rng: the only source of randomness.
        shape: (..., T).
        sample_rate_hz: samples per second.
        centre_hz: middle of the band.
        width_hz: standard deviation of the amplitude spectrum, a Gaussian around the middle.
    """
    frequencies = np.fft.rfftfreq(shape[-1], 1 / sample_rate_hz)
    return _shaped(rng, shape, np.exp(-0.5 * ((frequencies - centre_hz) / width_hz) ** 2))


def _shaped(rng: np.random.Generator, shape: tuple[int, ...], amplitudes: Floats) -> Floats:
    """Return Gaussian noise with a given amplitude spectrum, of mean 0 and variance 1."""
    amplitudes = amplitudes.copy()
    amplitudes[0] = 0.0
    spectrum = np.fft.rfft(rng.standard_normal(shape)) * amplitudes
    n_samples = shape[-1]
    twice = np.full(len(amplitudes), 2.0)  # a bin stands for itself and its mirror, but for the last of an even length
    if n_samples % 2 == 0:
        twice[-1] = 1.0
    variance = float(twice @ amplitudes**2) / n_samples
    shaped: Floats = np.fft.irfft(spectrum, n_samples) / np.sqrt(variance)
    return shaped
