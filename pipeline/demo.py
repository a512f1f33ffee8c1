"""The whole chain on the 1,797 digits that scikit-learn ships: real data, no download. `podium demo`, `make demo`.

The digits are written as a competition would hand them out; a fifth of them is the test set, whose answers go to a
folder that the pipeline never reads.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import api
from pipeline.base.errors import PodiumError
from pipeline.base.files import write_text
from pipeline.base.keyed import make_key, permutation
from pipeline.records.runs import Run

N_TEST = 360
CONFIG = Path("configs/digits/cnn.yaml")
ANSWERS = Path("data/digits-answers/answers.csv")


@dataclass(frozen=True)
class DemoResult:
    """What the demo made, and what it scored on answers that it had kept back."""

    run: Run
    submission: Path
    n_rows: int
    accuracy: float

    def line(self) -> list[object]:
        """Return the file, its rows and its accuracy."""
        return [str(self.submission), self.n_rows, self.accuracy]

    def next_commands(self) -> list[str]:
        """Return three commands to try next."""
        return [
            "podium train configs/digits/resnet.yaml          # another model on the same folds",
            "podium ensemble digits/cnn digits/resnet         # average the two",
            f"podium board --lb {self.submission} {self.accuracy:.4f}  # enter the score; the board lists CV beside LB",
        ]


def run_demo(root: Path, show: api.Show = "auto") -> DemoResult:
    """Write the digits as a competition, train five folds, average them, write and check the submission, score it."""
    write_digits(root)
    config = _config(root)
    run = api.train(config, show=show, root=root)
    submission = api.submit(str(run.folder), overwrite=True, root=root)
    right = _answers(submission) == _answers(root / ANSWERS)
    return DemoResult(run, submission, len(right), float(np.mean(right)))


def write_digits(root: Path) -> Path:
    """Write `data/digits/` (train.csv, PNG files, sample_submission.csv) and the answers apart; return the folder.

    Files that are there already stay as they are.
    """
    import cv2
    from sklearn.datasets import load_digits

    folder = root / "data" / "digits"
    if (folder / "sample_submission.csv").is_file() and (root / ANSWERS).is_file():
        return folder
    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    order = permutation(make_key("digits"), len(labels))
    parts = {"test": order[:N_TEST], "train": order[N_TEST:]}
    for part, chosen in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for number, position in enumerate(chosen):
            cv2.imwrite(str(folder / part / f"{part}_{number:04d}.png"), pixels[position])
    _write_table(folder / "train.csv", "train", labels[parts["train"]])
    _write_table(root / ANSWERS, "test", labels[parts["test"]])
    _write_table(folder / "sample_submission.csv", "test", np.zeros(N_TEST, dtype=np.int64))
    return folder


def _write_table(path: Path, part: str, labels: NDArray[np.int64]) -> None:
    lines = [f"{part}_{number:04d},{label}" for number, label in enumerate(labels)]
    write_text(path, "id,label\n" + "\n".join(lines) + "\n")


def _config(root: Path) -> Path:
    """Return the demo's config in the workspace, copied from the checkout where the workspace is another folder."""
    if not (root / CONFIG).is_file():
        source = Path(__file__).parent.parent / CONFIG.parent
        if not source.is_dir():
            raise PodiumError(f"{root / CONFIG}: no such file; run `podium demo` in a checkout of the project")
        shutil.copytree(source, root / CONFIG.parent, dirs_exist_ok=True)
    return root / CONFIG


def _answers(path: Path) -> NDArray[np.str_]:
    """Return the labels of a file in the order of its ids."""
    lines = sorted(path.read_text().splitlines()[1:])
    return np.array([line.split(",")[1] for line in lines])
