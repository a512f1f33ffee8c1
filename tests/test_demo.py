from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipeline.base.errors import PodiumError
from pipeline.base.files import read_json
from pipeline.data.readers import read_image
from pipeline.demo import ANSWERS, run_demo, write_digits

PROJECT = Path(__file__).parent.parent


def read_labels(path: Path) -> dict[str, str]:
    return dict(line.split(",") for line in path.read_text().splitlines()[1:])


def test_the_digits_are_written_as_a_competition_without_their_answers(tmp_path: Path) -> None:
    folder = write_digits(tmp_path)
    train, sample = read_labels(folder / "train.csv"), read_labels(folder / "sample_submission.csv")
    answers = read_labels(tmp_path / ANSWERS)
    assert (len(train), len(sample), len(answers)) == (1437, 360, 360)
    assert sample.keys() == answers.keys()
    assert set(sample.values()) == {"0"}
    assert not (tmp_path / ANSWERS).is_relative_to(folder)
    images, labels = load_digits(return_X_y=True)
    written = {**train, **answers}
    pixels = {
        read_image(folder / row_id.split("_")[0] / f"{row_id}.png").tobytes(): label
        for row_id, label in written.items()
    }
    for image, label in zip(images, labels, strict=True):
        assert pixels[np.round(image * (255 / 16)).astype(np.uint8).tobytes()] == str(label)


def test_files_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    folder = write_digits(tmp_path)
    (folder / "train.csv").write_text("mine")
    write_digits(tmp_path)
    assert (folder / "train.csv").read_text() == "mine"


def test_without_a_checkout_the_demo_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.demo.__file__", str(tmp_path / "site-packages" / "pipeline" / "demo.py"))
    with pytest.raises(PodiumError, match="run `podium demo` in a checkout"):
        run_demo(tmp_path, "quiet")


@pytest.mark.slow
def test_the_demo_reaches_its_accuracy_on_cv_and_on_the_answers(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "configs", tmp_path / "configs")
    result = run_demo(tmp_path, "quiet")
    cv = read_json(result.run.folder / "cv.json")
    assert cv["mean"] >= 0.990
    assert cv["pooled"] >= 0.990
    assert result.accuracy >= 0.985  # of 360 rows, so half a point is two digits
    assert result.n_rows == 360
    assert len(result.next_commands()) == 3
    assert re.search(r"podium board --lb .*cnn\.csv", result.next_commands()[2])
