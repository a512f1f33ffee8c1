"""The sampling rate of signals: where it is stated, what makes it doubtful, and that the user's word counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from infer_hosts import initiate, table

from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.rates import Stated, Told, find_rate, rates_in_texts


def told(folder: Path, text: str, name: str = "README.md") -> Told:
    (folder / name).write_text(text, encoding="utf-8")
    return rates_in_texts([folder / name])


def found(beside: list[Stated], said: Told) -> dict[str, Any]:
    return find_rate(beside, said, {}, Findings())


@pytest.mark.parametrize(
    ("text", "hz"),
    [
        ("The EEG was sampled at 250 Hz.", 250),
        ("recorded with 22 electrodes; sampling rate: 512 Hz", 512),
        ("a sampling frequency of 1 kHz, low-pass at 100 Hz", 1000),
        ("Trials are sampled at 1,000 samples per second", 1000),
        ("| Sampling rate | 128 Hz |", 128),
        ("**Sampling rate:** 250 Hz", 250),
        ("fs = 250Hz, 64 channels", 250),
        ("sample rate (Hz): 250", 250),
        ("sample_rate_hz: 62.5", 62.5),
        ("three axes at a 50 Hz sampling rate", 50),
        ("everything was\nsampled\nat 200 Hz", 200),
        ("band-pass 0.5-100 Hz, sampled at 250 Hz, notch at 50 Hz", 250),
        ("the signals were downsampled to 128 Hz", 128),
    ],
)
def test_a_text_states_the_rate(tmp_path, text, hz):
    assert found([], told(tmp_path, text)) == {"sample_rate_hz": hz}


@pytest.mark.parametrize(
    "text",
    [
        "sampled at 250 or 500 Hz",
        "sampling rate of 250 to 500 Hz",
        "signals were sampled and filtered at 40 Hz",
        "sampling rate\n\n- notch at 50 Hz",
        "sampling rate: 250",
        "oversampled at 250 Hz",
        "low-pass filtered at 40 Hz",
        "sampling interval 4 ms",
    ],
)
def test_what_is_no_statement_of_a_rate_states_none(tmp_path, text):
    assert told(tmp_path, text).stated == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sampled at 250 Hz or 500 Hz", "500 Hz"),
        ("recorded at 1000 Hz; downsampled to 250 Hz", "1000 Hz"),
        ("sampling rate 250 Hz for train and 200 Hz for test", "200 Hz"),
        ("sampled at 250 Hz, later resampled", "resampling"),
        ("sampled at 1.024 Hz", "1024 Hz"),
        ("EEG sampled at 250 Hz. EOG sampled at 100 Hz.", "contradict"),
    ],
)
def test_a_doubtful_rate_is_not_concluded_and_both_readings_are_shown(tmp_path, text, why):
    findings = Findings()
    assert find_rate([], told(tmp_path, text), {}, findings) == {}
    (question,) = findings.open_questions()
    assert why in question
    assert "sample_rate_hz=" in question


def test_pages_in_html_are_read_without_their_tags(tmp_path):
    said = told(tmp_path, "<tr><td>Sampling rate</td><td>256 Hz</td></tr>", "description.html")
    assert found([], said) == {"sample_rate_hz": 256}


def test_a_number_beside_the_signals_counts_more_than_doubts_of_a_text_and_not_more_than_another_rate(tmp_path):
    beside = [Stated(250.0, "train.npz[fs]"), Stated(250.0, "test.npz[fs]")]
    assert found(beside, told(tmp_path, "sampled at 250 Hz, later resampled")) == {"sample_rate_hz": 250}
    assert found(beside, Told()) == {"sample_rate_hz": 250}
    assert found(beside, told(tmp_path, "sampled at 1000 Hz")) == {}
    assert found([*beside, Stated(125.0, "more.npz[fs]")], Told()) == {}


# -- from files --------------------------------------------------------------------------------------------------------


def signals(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (n, 3, 64)).astype(np.float32)


def host(folder: Path, **beside: Any) -> Path:
    """Write train.npz and test.npz, with what stands beside the signals in both."""
    folder.mkdir()
    np.savez(folder / "train.npz", signal=signals(24), label=np.arange(24) % 3, **beside)
    np.savez(folder / "test.npz", signal=signals(6, 1), **beside)
    table(folder / "sample_submission.csv", "id,label", [(number, 0) for number in range(6)])
    return folder


@pytest.mark.parametrize("name", ["fs", "sfreq", "srate", "sampling_rate", "SampleRate", "sampling_frequency_hz"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_number_of_a_usual_name_is_the_rate_and_neither_items_nor_labels(tmp_path, name, shape):
    made = initiate(host(tmp_path / "host", **{name: np.full(shape, 128)}))
    task = made.conclusion.task
    assert task.sample_rate_hz == 128
    assert task.train.array is not None
    assert (task.train.array.key, task.train.labels.key) == ("signal", "label")
    assert "sample_rate_hz: 128" in made.written.path.read_text()
    assert f"128 Hz in test.npz[{name}]" in made.written.path.read_text().replace("\n# ", " ")


def test_a_number_for_each_row_and_a_file_of_its_own_are_read_too(tmp_path):
    rows = initiate(host(tmp_path / "rows"))
    assert rows.conclusion.task.sample_rate_hz is None
    assert rows.findings.of("sample_rate_hz").value == "not known"
    np.savez(tmp_path / "rows/train.npz", signal=signals(24), label=np.arange(24) % 3, fs=np.full(24, 100.0))
    assert initiate(tmp_path / "rows", overwrite=True).conclusion.task.sample_rate_hz == 100
    own = host(tmp_path / "own")
    np.save(own / "sampling_rate.npy", np.array(62.5))
    assert initiate(own).conclusion.task.sample_rate_hz == 62.5


@pytest.mark.parametrize("number", [0.25, -1, np.nan, np.inf])
def test_a_number_that_is_no_rate_in_hz_is_left_alone(tmp_path, number):
    assert initiate(host(tmp_path / "host", fs=np.array(number))).conclusion.task.sample_rate_hz is None


def test_rates_that_differ_conclude_nothing_unless_the_user_says_which(tmp_path):
    folder = host(tmp_path / "host", fs=np.array(250))
    (folder / "README.md").write_text("Signals are sampled at 500 Hz.")
    made = initiate(folder)
    assert made.conclusion.task.sample_rate_hz is None
    assert "sample_rate_hz=250 or sample_rate_hz=500" in made.written.path.read_text()
    stated = initiate(folder, "sample_rate_hz=500", overwrite=True)
    assert stated.conclusion.task.sample_rate_hz == 500
    assert stated.findings.of("sample_rate_hz").reason == "as you said"


def test_a_column_with_one_number_is_the_rate(tmp_path):
    folder = tmp_path / "host"
    folder.mkdir()
    np.save(folder / "train.npy", signals(24))
    np.save(folder / "test.npy", signals(6, 1))
    table(folder / "train.csv", "id,sampling_rate,label", [(f"a{row:02d}", 200, "xyz"[row % 3]) for row in range(24)])
    table(folder / "test.csv", "id,sampling_rate", [(f"b{row:02d}", 200) for row in range(6)])
    table(folder / "sample_submission.csv", "id,label", [(f"b{row:02d}", "x") for row in range(6)])
    made = initiate(folder)
    assert made.conclusion.task.sample_rate_hz == 200
    assert made.findings.of("sample_rate_hz").reason == "200 Hz in the column sampling_rate"


def test_pictures_get_no_rate(tmp_path):
    folder = host(tmp_path / "host", fs=np.array(250))
    made = initiate(folder, "input=image")
    assert made.conclusion.task.sample_rate_hz is None
    assert made.findings.of("sample_rate_hz") is None
