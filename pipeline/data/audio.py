"""Sound files to waves and to log-mel pictures, by numpy and scipy alone; soundfile reads the files.

The picture is ln(max(M P, 1e-10)). P are the squared magnitudes of the discrete Fourier transform of stretches of the
wave (-1..1) under a periodic Hann window, one each `hop`, none reaching over the ends; where bands are so narrow that
one would hold no frequency, zeros behind each stretch double the number of frequencies until none is empty. M are
triangular filters of peak 1, evenly spread on the mel scale m(f) = 2595 log10(1 + f / 700), as in Davis and Mermelstein
1980 (https://doi.org/10.1109/TASSP.1980.1163420), with the scale of O'Shaughnessy 1987 (Speech Communication, p. 150).
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.records.decoding import Audio

PACKAGES = ("soundfile", "scipy")
"""Whose versions decide the values."""

FLOOR = 1e-10
"""Least power, so that silence has a logarithm."""

Wave = NDArray[np.float32]


class SoundFacts(NamedTuple):
    """What the header of a sound file says."""

    sample_rate_hz: float
    seconds: float
    n_channels: int


def sound_facts(path: Path) -> SoundFacts:
    """Return rate, length and channels of a sound file from its header.

    Raises:
        DataError: the file is missing or no sound file, or soundfile is missing.
    """
    soundfile = _soundfile(path)
    try:
        info = soundfile.info(path)
    except (RuntimeError, OSError) as error:
        raise DataError(f"{path}: {_explain(path, error)}") from None
    return SoundFacts(float(info.samplerate), info.frames / info.samplerate, int(info.channels))


def read_wave(path: Path, sample_rate_hz: float | None = None) -> Wave:
    """Return the sound of a file, (C, T) float32 in -1..1.

    Args:
        path: `.wav`, `.aif`, `.aiff`, `.flac`, `.ogg`, `.mp3`.
        sample_rate_hz: a file of another rate is brought to this one by a polyphase filter; None takes it as it is.

    Raises:
        DataError: the file is missing, empty, cut short or no sound file, or soundfile is missing.
    """
    soundfile = _soundfile(path)
    try:
        _refuse_cut(path)
        wave, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        n_stated = soundfile.info(path).frames
    except (RuntimeError, OSError) as error:
        raise DataError(f"{path}: {_explain(path, error)}") from None
    if not len(wave):
        raise DataError(f"{path}: holds no sound")
    if len(wave) < n_stated:
        raise DataError(f"{path}: truncated or damaged (holds {len(wave):,} of {n_stated:,} samples)")
    wave = np.ascontiguousarray(wave.T)
    return wave if sample_rate_hz is None else resample(wave, float(rate_hz), sample_rate_hz)


def read_log_mel(path: Path, how: Audio) -> Wave:
    """Return the log-mel picture of a sound file, (1, n_mels, T) float32; several channels are averaged first.

    Raises:
        DataError: as `read_wave`.
    """
    mono = read_wave(path, how.sample_rate_hz).mean(axis=0)
    n_samples = round(how.seconds * how.sample_rate_hz)
    clip = np.zeros(n_samples, np.float32)
    clip[: min(n_samples, len(mono))] = mono[:n_samples]
    return log_mel(clip, how)


def log_mel(wave: NDArray[Any], how: Audio) -> Wave:
    """Return the log-mel picture of a wave, (1, n_mels, T) float32; formula and sources stand above.

    T is 1 + (n - window) // hop for n samples, windows and hops rounded to whole samples.

    Args:
        wave: (n,), at `how.sample_rate_hz`, no shorter than the window.
        how: bands, windows, range.
    """
    window, hop = max(2, round(how.window_sec * how.sample_rate_hz)), max(1, round(how.hop_sec * how.sample_rate_hz))
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    filters = mel_filters(how.n_mels, window, how.sample_rate_hz, how.min_hz, how.max_hz or how.sample_rate_hz / 2)
    n_points = 2 * (filters.shape[1] - 1) if filters.shape[1] > window // 2 + 1 else window
    powers = np.abs(np.fft.rfft(frames * hann, n=n_points, axis=1)) ** 2
    return np.log(np.maximum(powers @ filters.T, FLOOR)).T[None].astype(np.float32)


@cache
def mel_filters(n_mels: int, window: int, sample_rate_hz: float, min_hz: float, max_hz: float) -> NDArray[np.float64]:
    """Return triangular filters of peak 1 over the frequencies of a transform, (n_mels, n // 2 + 1).

    Filter k rises from edge k to edge k + 1 and falls to edge k + 2; the edges lie evenly on the mel scale. n is the
    window, doubled until each filter holds a frequency.
    """
    mels = np.linspace(_mel(min_hz), _mel(max_hz), n_mels + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    n_points = window
    while True:
        frequencies = np.arange(n_points // 2 + 1) * sample_rate_hz / n_points
        rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
        filters: NDArray[np.float64] = np.clip(np.minimum(rising, falling), 0, None)
        if (filters.max(axis=1) > 0).all():
            return filters
        n_points *= 2


def resample(wave: Wave, rate_hz: float, wanted_hz: float) -> Wave:
    """Return a wave at another rate, (C, T) float32, by scipy's polyphase filter (a Kaiser window of 5.0)."""
    if rate_hz == wanted_hz:
        return wave
    from scipy.signal import resample_poly

    ratio = Fraction(wanted_hz / rate_hz).limit_denominator(1000)
    return np.asarray(resample_poly(wave, ratio.numerator, ratio.denominator, axis=1), np.float32)


def suggested_audio(facts: list[SoundFacts]) -> Audio:
    """Return settings that fit some files: their commonest rate, their usual length, and about 128 columns.

    The length is the longest, but at most twice the median, so that one long recording does not stretch the others.
    """
    rates = [fact.sample_rate_hz for fact in facts]
    rate_hz = max(sorted(set(rates)), key=rates.count)
    lengths = sorted(fact.seconds for fact in facts)
    seconds = min(lengths[-1], 2 * lengths[len(lengths) // 2])
    n_samples = max(64, round(seconds * rate_hz))
    hop = max(1, n_samples // 128)
    window = min(n_samples, max(4 * hop, 2 ** round(np.log2(0.05 * rate_hz))))
    return Audio(
        sample_rate_hz=rate_hz,
        seconds=round(n_samples / rate_hz, 6),
        window_sec=round(window / rate_hz, 6),
        hop_sec=round(hop / rate_hz, 6),
    )


def _mel(frequency_hz: float) -> float:
    return float(2595 * np.log10(1 + frequency_hz / 700))


def _refuse_cut(path: Path) -> None:
    """Raise a DataError for a WAV or AIFF file that is shorter than it says, which the library would not mind."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] not in (b"RIFF", b"FORM") or len(head) < 12:
        return
    stated = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
    is_known = stated not in (0, 0xFFFFFFFF)  # of streams whose writer could not go back
    if is_known and path.stat().st_size + 1 < stated + 8:  # some leave out the last, even, byte
        raise DataError(f"{path}: truncated or damaged (has {path.stat().st_size:,} of {stated + 8:,} bytes)")


def _explain(path: Path, error: Exception) -> str:
    if not path.exists():
        return "missing"
    if path.is_file() and not path.stat().st_size:
        return "empty (0 bytes)"
    return f"is no sound file that can be read, or damaged ({error})"


def _soundfile(path: Path) -> Any:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package is there, its library is not
        raise DataError(
            f"{path}: sound files need soundfile, which is not installed; run pip install 'podium[audio]'"
        ) from None
    return soundfile
