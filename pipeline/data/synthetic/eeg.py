"""Made-up motor-imagery EEG of two channels over the motor cortex: which hand is imagined, the left or the right?

Not recordings: made from a seed, for trying out, testing and teaching where real files may not be passed on. They have
the shape and the scales of data set IIIb of the BCI competition III as a course hands it out (two bipolar channels at
C3 and C4, 6 s at 125 Hz, a subject with a standard deviation of about 8.6 and some values missing, and one of 4.4).

A trial is a 1/f background and two rhythms, mu (about 11 Hz) and beta (about 21 Hz). While a hand is imagined both
grow weaker over both sides, more so on the other side of the body: the left hand weakens C4, the right hand C3 (event
related desynchronisation, Pfurtscheller and Lopes da Silva 1999, https://doi.org/10.1016/S1388-2457(99)00141-8). After
it beta comes back stronger than before. Subjects have frequencies, spectra, gains and depths of their own; these drift
from session to session, and timing, amplitude and depth differ from trial to trial. In some trials nothing is imagined.

With seed 0 and the settings that `EegSettings` has by default, `eegnet` as `podium data synthetic-eeg` sets it up (40
epochs, five folds, one seed) has an accuracy of 0.848 on the sessions that its folds hold out, and the mean of its five
models 0.876 on the test sessions. A logistic regression on the logarithms of mu and beta power has 0.638 there, and
0.80 if it is told when the hand is imagined.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.data.synthetic.trials import (
    Floats,
    Ints,
    Part,
    Trials,
    balanced_labels,
    coloured_noise,
    generator,
    join_trials,
    rhythm,
    session_trials,
)

CHANNELS = ("C3", "C4")
CLASSES = ("left", "right")
SAMPLE_RATE_HZ = 125.0
N_SAMPLES = 750

_SCALES = (8.6, 4.4)
"""Standard deviations of S4b and X11b; further subjects take turns."""
_LIMIT = 50.0
"""Range of the amplifier: what lies beyond it is missing."""
_BURST_SHARE = 0.16
"""Share of trials with an artefact that leaves this range, in subjects of the first scale."""


@dataclass(frozen=True)
class EegSettings:
    """How much is made and how hard it is; the defaults are those that the figures in the documentation stand for."""

    n_subjects: int = 2
    """At least 1."""
    n_sessions: int = 5
    """Sessions of each subject, in training and again in the test set, which has later ones."""
    n_trials: int = 108
    """Trials of a session, half of them of either hand; even."""
    depth: float = 0.6
    """Share of a rhythm's amplitude that is lost over the other side of the body, 0..1, before subjects differ."""
    lapses: float = 0.05
    """Share of trials in which nothing is imagined, 0..1."""


@dataclass(frozen=True)
class Subject:
    """What makes a subject's recordings their own; a session has a copy that drifted."""

    name: str
    scale: float
    """Standard deviation of a channel, in microvolts."""
    gains: tuple[float, float]
    """Of C3 and C4, around 1."""
    slope: float
    """Of the background's power, which falls as 1 / f**slope."""
    mu_hz: float
    beta_hz: float
    mu_amplitude: float
    """Standard deviation of mu at rest, where that of the background is 1."""
    beta_amplitude: float
    depth: float
    """Share of amplitude lost over the other side of the body."""
    ipsilateral: float
    """Depth over the same side, as a share of the other one."""
    has_bursts: bool
    """Artefacts drive the amplifier beyond its range."""


def make_eeg(seed: int, part: Part, settings: EegSettings | None = None) -> Trials:
    """Return the labelled trials of one part, (N, 2, 750) in microvolts, subject by subject and session by session.

    Classes are those of `CLASSES`, as often as each other in every session. The test set holds later sessions of the
    same subjects. Same seed and settings, same bits; with more sessions or subjects the former stay as they are.

    Args:
        seed: of subjects and trials.
        part: `train` or `test`.
        settings: how much, and how hard.

    Raises:
        ValueError: `settings` has an odd number of trials, or a number or share out of its range.
    """
    settings = settings or EegSettings()
    _check(settings)
    first = {"train": 1, "test": settings.n_sessions + 1}[part]
    sessions = []
    for number in range(settings.n_subjects):
        subject = make_subject(seed, number, settings)
        for session in range(first, first + settings.n_sessions):
            sessions.append(_make_session(seed, subject, session, settings))
    return join_trials(sessions)


def make_subject(seed: int, number: int, settings: EegSettings) -> Subject:
    """Return the subject of a number, from 0: a function of the seed and the number."""
    rng = generator("eeg subject", seed, number)
    kind = number % len(_SCALES)
    jitter = 1.0 if number < len(_SCALES) else float(np.exp(rng.normal(0, 0.15)))
    return Subject(
        name=f"S{number + 1}",
        scale=_SCALES[kind] * jitter,
        gains=_apart(float(rng.normal(0, 0.06))),
        slope=float(rng.uniform(0.8, 1.3)),
        mu_hz=float(rng.uniform(10.0, 12.0)),
        beta_hz=float(rng.uniform(19.0, 23.0)),
        mu_amplitude=float(rng.uniform(0.75, 0.95)),
        beta_amplitude=float(rng.uniform(0.3, 0.4)),
        depth=float(np.clip(settings.depth + rng.uniform(-0.04, 0.04), 0, 1)),
        ipsilateral=float(rng.uniform(0.25, 0.4)),
        has_bursts=kind == 0,
    )


def _drifted(subject: Subject, rng: np.random.Generator) -> Subject:
    """Return the subject as it is in another session: cap, gel, sleep and training have changed a little."""
    return replace(
        subject,
        scale=subject.scale * float(np.exp(rng.normal(0, 0.03))),
        gains=_apart(float(np.log(subject.gains[0]) + rng.normal(0, 0.05))),
        mu_hz=subject.mu_hz + float(rng.normal(0, 0.25)),
        beta_hz=subject.beta_hz + float(rng.normal(0, 0.4)),
        mu_amplitude=subject.mu_amplitude * float(np.exp(rng.normal(0, 0.06))),
        depth=float(np.clip(subject.depth * np.exp(rng.normal(0, 0.06)), 0, 1)),
    )


def _make_session(seed: int, subject: Subject, session: int, settings: EegSettings) -> Trials:
    rng = generator("eeg session", seed, subject.name, session)
    today = _drifted(subject, rng)
    labels = balanced_labels(rng, settings.n_trials, len(CLASSES))
    imagery, rebound = _time_courses(rng, len(labels))
    depths = _depths(rng, labels, today, settings.lapses)
    shape = (len(labels), len(CHANNELS), N_SAMPLES)
    rest = np.exp(rng.normal(0, 0.2, (len(labels), 2, 1)) + rng.normal(0, 0.2, (len(labels), 1, 1)))
    mu = today.mu_amplitude * rest * (1 - depths * imagery)
    beta = today.beta_amplitude * rest * (1 - depths * imagery + 0.8 * depths * rebound)
    signals = coloured_noise(rng, shape, SAMPLE_RATE_HZ, today.slope)
    signals += mu * rhythm(rng, shape, SAMPLE_RATE_HZ, today.mu_hz, 0.8)
    signals += beta * rhythm(rng, shape, SAMPLE_RATE_HZ, today.beta_hz, 1.6)
    whole = np.sqrt(1 + today.mu_amplitude**2 + today.beta_amplitude**2)
    signals *= today.scale / whole * np.array(today.gains)[:, None]
    if today.has_bursts:
        _add_bursts(rng, signals)
    return session_trials(signals, labels, subject.name, f"{subject.name}-{session}")


def _time_courses(rng: np.random.Generator, n_trials: int) -> tuple[Floats, Floats]:
    """Return how far imagery is on and how far its rebound, (n, 1, T) within 0..1; a cue would come after a second."""
    times = np.arange(N_SAMPLES) / SAMPLE_RATE_HZ
    onset = 1.6 + 0.25 * rng.standard_normal((n_trials, 1, 1))
    end = onset + np.clip(2.2 + 0.4 * rng.standard_normal((n_trials, 1, 1)), 1, 3.5)
    imagery = _ramp(times - onset, 0.12) * _ramp(end - times, 0.12)
    rebound = _ramp(times - end - 0.3, 0.1) * _ramp(end + 1.3 - times, 0.15)
    return imagery, rebound


def _depths(rng: np.random.Generator, labels: Ints, subject: Subject, lapses: float) -> Floats:
    """Return the share of amplitude that each trial loses over C3 and C4, (n, 2, 1)."""
    effort = np.clip(rng.normal(1, 0.25, (len(labels), 1)), 0, 1 / max(subject.depth, 1e-9))
    effort[rng.random(len(labels)) < lapses] = 0.0
    sides = np.where(labels[:, None] == np.array([1, 0]), 1.0, subject.ipsilateral)
    return (subject.depth * effort * sides)[:, :, None]


def _add_bursts(rng: np.random.Generator, signals: Floats) -> None:
    """Add short artefacts to some trials, in place, and make missing what lies beyond the amplifier's range."""
    n_trials, n_channels, n_samples = signals.shape
    times = np.arange(n_samples)
    for trial in np.flatnonzero(rng.random(n_trials) < _BURST_SHARE):
        middle, width = rng.integers(n_samples), rng.uniform(1.5, 4.0)
        height = rng.choice([-1.0, 1.0]) * rng.uniform(55.0, 80.0)
        signals[trial, rng.integers(n_channels)] += height * np.exp(-0.5 * ((times - middle) / width) ** 2)
    signals[np.abs(signals) > _LIMIT] = np.nan


def _ramp(x: Floats, softness: float) -> Floats:
    """Return a step from 0 to 1 around zero that takes about four times `softness`."""
    return np.asarray(1 / (1 + np.exp(np.clip(-x / softness, -60, 60))))


def _apart(log_ratio: float) -> tuple[float, float]:
    """Return the gains of two channels whose product is 1."""
    return float(np.exp(log_ratio)), float(np.exp(-log_ratio))


def _check(settings: EegSettings) -> None:
    if settings.n_trials < 2 or settings.n_trials % 2:
        raise ValueError(f"n_trials: {settings.n_trials} is not even; each session has both hands equally often")
    if settings.n_subjects < 1 or settings.n_sessions < 1:
        raise ValueError(f"n_subjects and n_sessions: at least 1 (found: {settings.n_subjects}, {settings.n_sessions})")
    for name in ("depth", "lapses"):
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(f"{name}: {getattr(settings, name)} is not within 0..1")
