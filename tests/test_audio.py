"""What `pipeline.data.audio` promises: whole files only, and log-mel pictures that can be computed by hand."""

from __future__ import annotations

import cmath
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from pipeline.base.errors import DataError
from pipeline.data.audio import (
    SoundFacts,
    log_mel,
    mel_filters,
    read_log_mel,
    read_wave,
    resample,
    sound_facts,
    suggested_audio,
)
from pipeline.data.forms import StoredForm
from pipeline.data.readers import decoders_of, reader_for
from pipeline.data.sources import FileItems
from pipeline.data.store import UnreadableError, open_store
from pipeline.records.decoding import Audio

RATE = 2000
HOW = Audio(sample_rate_hz=RATE, seconds=1.0, n_mels=12, window_sec=0.064, hop_sec=0.016)
SUFFIXES = ["wav", "aif", "aiff", "flac"]


def tone(frequency_hz: float, seconds: float = 1.0, rate: int = RATE, strength: float = 0.5) -> np.ndarray:
    return strength * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate)) / rate)


def write_sound(path: Path, wave: np.ndarray, rate: int = RATE, subtype: str | None = "PCM_16") -> Path:
    kind = {"aif": "AIFF", "aiff": "AIFF"}.get(path.suffix[1:])
    soundfile.write(path, wave.T if wave.ndim == 2 else wave, rate, subtype=subtype, format=kind)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_waves_are_read_with_all_channels(tmp_path: Path, suffix: str) -> None:
    stereo = np.stack([tone(100), tone(200)])
    path = write_sound(tmp_path / f"a.{suffix}", stereo)
    wave = read_wave(path)
    assert wave.dtype == np.float32
    np.testing.assert_allclose(wave, stereo, atol=1 / 2**15)
    assert sound_facts(path) == SoundFacts(2000.0, 1.0, 2)
    assert reader_for(path) is read_wave


def test_a_tone_lies_in_the_band_that_is_computed_by_hand() -> None:
    """One window, one bin: a sine of 250 Hz is bin 16 of 128 samples at 2 kHz, with |X| = strength * sum(hann) / 2."""
    picture = log_mel(tone(250), HOW)
    assert picture.shape == (1, 12, 1 + (2000 - 128) // 32)
    assert picture.dtype == np.float32
    top_mel = 2595 * math.log10(1 + 1000 / 700)
    edges = [700 * (10 ** (top_mel * k / 13 / 2595) - 1) for k in range(14)]
    expected = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        power = 0.0
        for place, share in ((15, 0.5), (16, 1.0), (17, 0.5)):  # the spectrum of a Hann window has three bins
            frequency = place * 2000 / 128
            weight = max(0.0, min((frequency - low) / (middle - low), (high - frequency) / (high - middle)))
            power += weight * (share * 0.5 * 64 / 2) ** 2
        expected.append(math.log(max(power, 1e-10)))
    np.testing.assert_allclose(picture[0, :, 0], expected, atol=2e-3, rtol=0)
    assert np.ptp(picture[0, np.argmax(expected)]) < 1e-4  # the same in every column


def test_the_picture_is_that_of_a_slow_transform() -> None:
    wave = np.random.default_rng(0).normal(size=200).astype(np.float32)
    how = Audio(sample_rate_hz=200, seconds=1.0, n_mels=5, window_sec=0.2, hop_sec=0.1)
    filters = mel_filters(5, 40, 200.0, 0.0, 100.0)
    picture = log_mel(wave, how)
    assert picture.shape == (1, 5, 9)
    for column in range(9):
        stretch = wave[20 * column : 20 * column + 40].astype(float)
        shaped = [stretch[t] * (0.5 - 0.5 * math.cos(2 * math.pi * t / 40)) for t in range(40)]
        powers = [
            abs(sum(shaped[t] * cmath.exp(-2j * math.pi * k * t / 40) for t in range(40))) ** 2 for k in range(21)
        ]
        np.testing.assert_allclose(picture[0, :, column], np.log(filters @ powers), rtol=1e-4, atol=1e-4)


def test_filters_are_triangles_of_peak_one_that_meet() -> None:
    filters = mel_filters(20, 4096, 16000.0, 0.0, 8000.0)
    assert filters.shape == (20, 2049)
    assert (filters.max(axis=1) > 0.9).all()
    assert (np.diff(filters.argmax(axis=1)) > 0).all()
    first, last = filters[0].argmax(), filters[-1].argmax()
    np.testing.assert_allclose(filters[:, first : last + 1].sum(axis=0), 1, atol=1e-9)


def test_bands_too_narrow_for_the_window_get_more_frequencies() -> None:
    assert mel_filters(12, 128, 2000.0, 0.0, 1000.0).shape == (12, 65)
    filters = mel_filters(64, 64, 2000.0, 0.0, 1000.0)
    assert filters.shape == (64, 65)  # of 128 points
    assert (filters.max(axis=1) > 0).all()
    wave = np.random.default_rng(0).normal(size=64)
    how = Audio(sample_rate_hz=2000.0, seconds=0.032, n_mels=64, window_sec=0.032, hop_sec=0.016)
    shaped = np.concatenate([wave * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)), np.zeros(64)])
    expected = np.log(filters @ np.abs(np.fft.rfft(shaped)) ** 2)
    np.testing.assert_allclose(log_mel(wave, how)[0, :, 0], expected, rtol=1e-4, atol=1e-4)
    odd = Audio(sample_rate_hz=2000.0, seconds=0.0325, n_mels=64, window_sec=0.0325, hop_sec=0.016)
    assert np.isfinite(log_mel(np.ones(65), odd)).all()


def test_silence_has_the_floor() -> None:
    np.testing.assert_allclose(log_mel(np.zeros(2000), HOW), math.log(1e-10))


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.5])
def test_clips_of_any_length_become_one(tmp_path: Path, seconds: float) -> None:
    wave = tone(250, seconds)
    picture = read_log_mel(write_sound(tmp_path / "a.wav", wave, subtype="FLOAT"), HOW)
    clip = np.zeros(RATE)
    clip[: len(wave)] = wave[:RATE]
    np.testing.assert_allclose(picture, log_mel(clip.astype(np.float32), HOW), atol=1e-5)


def test_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.stack([tone(250), np.zeros(RATE)])
    picture = read_log_mel(write_sound(tmp_path / "a.wav", stereo, subtype="FLOAT"), HOW)
    np.testing.assert_allclose(picture, log_mel((stereo[0] / 2).astype(np.float32), HOW), atol=1e-4)


def test_files_of_another_rate_are_brought_to_the_stated_one(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(250, rate=44100), 44100, "FLOAT")
    wave = read_wave(path, RATE)
    assert wave.shape == (1, 2000)
    np.testing.assert_allclose(wave[0, 100:-100], tone(250)[100:-100], atol=2e-3)
    same = np.ones((1, 5), np.float32)
    assert resample(same, 100, 100) is same


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_cut_short_are_refused(tmp_path: Path, suffix: str) -> None:
    path = write_sound(tmp_path / f"a.{suffix}", np.random.default_rng(0).uniform(-1, 1, 5000))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=rf"a\.{suffix}: (truncated or damaged|is no sound file .* or damaged)"):
        read_wave(path)


def test_missing_empty_and_alien_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.wav: missing"):
        read_wave(tmp_path / "a.wav")
    (tmp_path / "a.wav").touch()
    with pytest.raises(DataError, match=r"a\.wav: empty \(0 bytes\)"):
        read_wave(tmp_path / "a.wav")
    (tmp_path / "a.wav").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(DataError, match=r"a\.wav: is no sound file that can be read"):
        sound_facts(tmp_path / "a.wav")
    with pytest.raises(DataError, match=r"b\.wav: holds no sound"):
        read_wave(write_sound(tmp_path / "b.wav", np.zeros(0)))


def test_a_missing_soundfile_is_an_error_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DataError, match=r"a\.wav: .* pip install 'podium\[audio\]'"):
        read_wave(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"min_hz": 1200.0}, r"must rise within 0\.\.1000 Hz, half of sample_rate_hz \(found: 1200, 1000\)"),
        ({"max_hz": 1500.0}, r"must rise within 0\.\.1000 Hz"),
        ({"window_sec": 1.5}, r"window_sec: 1\.5 is longer than the clips, 1 seconds"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(keys: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Audio(sample_rate_hz=2000.0, seconds=1.0, **keys)


@pytest.mark.parametrize("rate", [2000, 8000, 16000, 44100])
@pytest.mark.parametrize("seconds", [0.2, 1.0, 5.0, 30.0])
def test_suggested_settings_work_and_give_a_picture_of_use(rate: int, seconds: float) -> None:
    how = suggested_audio([SoundFacts(float(rate), seconds, 1)] * 3)
    picture = log_mel(np.zeros(round(how.seconds * how.sample_rate_hz)), how)
    assert 60 <= picture.shape[2] <= 130
    assert 8 <= picture.shape[1] <= 64


def test_one_long_recording_does_not_stretch_the_others() -> None:
    facts = [SoundFacts(2000.0, 2.0, 1)] * 5 + [SoundFacts(8000.0, 100.0, 1)]
    how = suggested_audio(facts)
    assert (how.sample_rate_hz, how.seconds) == (2000.0, 4.0)


def test_sound_is_stored_as_pictures_or_as_waves(tmp_path: Path) -> None:
    paths = tuple(write_sound(tmp_path / f"{n}.wav", tone(100 * (n + 1), 0.5 + n / 2)) for n in range(3))
    pictures = StoredForm("image", audio=HOW)
    store = open_store(FileItems(paths), pictures, tmp_path / "cache", report=lambda _: None)
    assert store.meta["shape"] == [3, 1, 12, 59]
    np.testing.assert_array_equal(store.array[1], read_log_mel(paths[1], HOW))
    waves = StoredForm("signal", sample_rate_hz=1000.0, length=700)
    other = open_store(FileItems(paths), waves, tmp_path / "cache", report=lambda _: None)
    assert other.meta["shape"] == [3, 1, 700]
    assert other.key != store.key
    more = open_store(FileItems(paths), StoredForm("image", audio=Audio(**(HOW.plain() | {"n_mels": 8}))), tmp_path)
    assert more.key != store.key
    assert "soundfile-" in decoders_of(paths)


def test_sound_without_settings_is_an_error_that_says_what_to_write(tmp_path: Path) -> None:
    source = FileItems((write_sound(tmp_path / "a.wav", tone(100, 1.5)),))
    with pytest.raises(UnreadableError, match=r"such as audio: \{sample_rate_hz: 2000, seconds: 1\.5\}"):
        open_store(source, StoredForm("image"), tmp_path, report=lambda _: None)
    with pytest.raises(UnreadableError, match=r"is sound of 1\.5 s at 2000 Hz; state sample_rate_hz: in the task"):
        open_store(source, StoredForm("signal"), tmp_path, report=lambda _: None)
