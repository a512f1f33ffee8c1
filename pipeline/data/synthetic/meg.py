"""Made-up MEG of people who look at pictures: which of many kinds of picture was it?

Not recordings: made from a seed, small enough to try a net for MEG in a minute. Every class has a few sources in the
head: each a topography (a smooth field over the sensors) that follows a time course (a bump some hundred milliseconds
after the picture appears). All subjects share the time courses; each has sensors that see the topographies a little
otherwise and with a gain of its own. Over this lies noise that falls with frequency and is alike in sensors that are
close to each other, of which a part is shared by the whole helmet.

With seed 0 and the settings that `MegSettings` has by default, `meg_residual` as `podium data synthetic-meg` sets it up
(width 32, 12 epochs) has the right class among its first five in 0.61 of the trials of the first fold; chance is 0.17.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.data.synthetic.trials import (
    Floats,
    Part,
    Trials,
    balanced_labels,
    coloured_noise,
    generator,
    join_trials,
    session_trials,
)

SAMPLE_RATE_HZ = 200.0

_N_SOURCES = 3
_REACH = 0.5
"""Distance within which sensors see alike, in radii of the helmet."""


@dataclass(frozen=True)
class MegSettings:
    """How much is made and how hard it is; the defaults are those that the figures in the documentation stand for."""

    n_subjects: int = 4
    n_classes: int = 30
    n_repeats: int = 20
    """Trials of each class and subject in training."""
    n_test_repeats: int = 5
    """The same in the test set."""
    n_channels: int = 40
    n_samples: int = 100
    """At 200 Hz; the picture appears after a fifth of them."""
    noise: float = 0.8
    """Standard deviation of the noise, where that of the field of a class is about 1 at its strongest."""


def make_meg(seed: int, part: Part, settings: MegSettings | None = None) -> Trials:
    """Return the labelled trials of one part, (N, C, T) in arbitrary units, subject by subject.

    Every class occurs equally often in each subject. Same seed and settings, same bits; with more subjects the former
    stay as they are.

    Args:
        seed: of sensors, sources, subjects and trials.
        part: `train` or `test`.
        settings: how much, and how hard.

    Raises:
        ValueError: a number in `settings` is below 1, there are fewer than 2 classes, or the noise is negative.
    """
    settings = settings or MegSettings()
    _check(settings)
    sensors = _sensors(settings.n_channels)
    fields, courses = _sources(seed, sensors, settings)
    n_repeats = settings.n_repeats if part == "train" else settings.n_test_repeats
    mixing = _nearness(sensors)
    parts = []
    for number in range(settings.n_subjects):
        name = f"S{number + 1}"
        seen = np.einsum("ksc,cd->ksd", fields, _subject_view(seed, number, sensors))
        rng = generator("meg trials", seed, number, part)
        labels = balanced_labels(rng, n_repeats * settings.n_classes, settings.n_classes)
        strengths = np.exp(rng.normal(0, 0.25, (len(labels), _N_SOURCES)))
        signals = np.einsum("ns,nsc,nst->nct", strengths, seen[labels], courses[labels])
        signals += settings.noise * _noise(rng, signals.shape, mixing)
        parts.append(session_trials(signals, labels, name, f"{name}-{part}"))
    return join_trials(parts)


def _sensors(n_channels: int) -> Floats:
    """Return places on the upper half of a sphere of radius 1, (C, 3), evenly spread along a spiral."""
    steps = np.arange(n_channels) + 0.5
    height = 1 - steps / n_channels
    angle = steps * np.pi * (3 - np.sqrt(5))  # the golden angle, so that no two turns lie above each other
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


def _sources(seed: int, sensors: Floats, settings: MegSettings) -> tuple[Floats, Floats]:
    """Return fields (K, S, C) and time courses (K, S, T) of the sources of every class."""
    rng = generator("meg sources", seed, settings.n_classes)
    shape = (settings.n_classes, _N_SOURCES)
    places = rng.standard_normal((*shape, 1, 3))
    places[..., 2] = np.abs(places[..., 2])
    places /= np.linalg.norm(places, axis=-1, keepdims=True)
    directions = rng.standard_normal((*shape, 1, 3))
    offsets = sensors - places
    # The field of a dipole near the surface: two poles of opposite sign, gone a radius away.
    fields = (offsets * directions).sum(-1) * np.exp(-0.5 * (offsets**2).sum(-1) / _REACH**2)
    fields /= np.abs(fields).max(axis=-1, keepdims=True)
    times = np.arange(settings.n_samples) / settings.n_samples
    peaks = rng.uniform(0.3, 0.75, (*shape, 1))
    widths = rng.uniform(0.03, 0.08, (*shape, 1))
    turns = np.cos(2 * np.pi * rng.uniform(2, 5, (*shape, 1)) * (times - peaks))
    return fields, turns * np.exp(-0.5 * ((times - peaks) / widths) ** 2)


def _subject_view(seed: int, number: int, sensors: Floats) -> Floats:
    """Return how a subject's sensors see a field, (C, C): another head in the helmet, other gains."""
    rng = generator("meg subject", seed, number)
    moved = sensors + rng.normal(0, 0.12, 3) + rng.normal(0, 0.06, sensors.shape)
    weights = np.exp(-0.5 * _squared_distances(sensors, moved) / 0.2**2)
    gains = np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.15, len(sensors)))
    return np.asarray(weights / weights.sum(axis=0) * gains)


def _nearness(sensors: Floats) -> Floats:
    """Return (C, C), which makes of independent noise such as is alike in sensors close to each other, variance 1."""
    weights = np.exp(-_squared_distances(sensors, sensors) / _REACH**2)
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True))


def _noise(rng: np.random.Generator, shape: tuple[int, ...], mixing: Floats) -> Floats:
    """Return noise (N, C, T) of variance 1: of the brain, alike in neighbours; of the room; of each sensor."""
    brain = np.einsum("dc,nct->ndt", mixing, coloured_noise(rng, shape, SAMPLE_RATE_HZ, 1.0))
    room = coloured_noise(rng, (shape[0], 1, shape[2]), SAMPLE_RATE_HZ, 1.5)
    return np.asarray(np.sqrt(0.6) * brain + np.sqrt(0.2) * room + np.sqrt(0.2) * rng.standard_normal(shape))


def _squared_distances(a: Floats, b: Floats) -> Floats:
    return np.asarray(((a[:, None] - b[None]) ** 2).sum(-1))


def _check(settings: MegSettings) -> None:
    counts = {name: value for name, value in vars(settings).items() if name.startswith("n_")}
    low = [f"{name}: {value}" for name, value in counts.items() if value < (2 if name == "n_classes" else 1)]
    if low or settings.noise < 0:
        raise ValueError(f"too small: {', '.join(low) or f'noise: {settings.noise}'}")
