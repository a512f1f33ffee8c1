"""What does each part of the training recipe bring when data are few? MNIST at 2,000 images, CIFAR-10 at 5,000.

    python benchmarks/ablation.py            # about half an hour on two cores; stopped, the same command goes on
    python benchmarks/ablation.py --tiny     # a minute, to see that everything works; its numbers mean nothing

Writes `benchmarks/results/ablation.md` and `.csv` and `docs/ablation.png`, and prints the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contest import Contest, cut_contest, labelled_task
from entry import start
from paired import publish_lines
from trials import Result, Trial, run_trials

BASELINE = "none"
N_SCORED = 10_000
PROJECT = Path(__file__).parent.parent

RECIPE: dict[str, Any] = {
    "optimizer": {"name": "adamw", "lr": 4e-3, "weight_decay": 0.01},
    "schedule": {"name": "one_cycle", "rise_frac": 0.2},
}
"""What all trainings share, beside the net and the length."""


@dataclass(frozen=True)
class Study:
    """One contest of the ablation."""

    name: str
    files: str
    n_train: int
    base: Mapping[str, Any]
    """What the baseline has beside `RECIPE`."""
    arms: Mapping[str, Sequence[str]]
    """Overrides of each arm; `all` is made of them."""


STUDIES = (
    Study(
        name="mnist",
        files="train/{id}.png",
        n_train=2_000,
        base={
            "model": {"name": "cnn3", "width": 16, "convs_per_block": 2},
            "train": {"epochs": 30, "batch_size": 64},
        },
        arms={
            "translation": ["augment.shift={max_px: 2}"],
            "crop": ["augment.resized_crop={min_area: 0.6}"],
            "erasing": ["augment.erasing={fill: pixel}"],
            "cutout": ["augment.cutout={size_px: 8}"],
            "mixup": ["mix={mixup_alpha: 0.2}"],
            "smoothing": ["loss={name: cross_entropy, label_smoothing: 0.1}"],
            "SAM": ["sam={rho: 0.05}"],
        },
    ),
    Study(
        name="cifar10",
        files="train/{id}.jpg",
        n_train=5_000,
        base={
            "model": {"name": "cnn3", "width": 32, "convs_per_block": 2},
            "train": {"epochs": 18, "batch_size": 64},
        },
        arms={
            "translation": ["augment.shift={max_px: 4}"],
            "crop": ["augment.resized_crop={min_area: 0.5}"],
            "erasing": ["augment.erasing={fill: pixel}"],
            "cutout": ["augment.cutout={size_px: 16}"],
            "mixup": ["mix={mixup_alpha: 0.2}"],
            "smoothing": ["loss={name: cross_entropy, label_smoothing: 0.1}"],
            "SAM": ["sam={rho: 0.05}"],
        },
    ),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ablation, write the tables and the picture, and print the tables."""
    wishes = _parser().parse_args(arguments)
    studies = [study for study in STUDIES if wishes.only in (None, study.name)]
    out, n_scored, n_seeds = wishes.out, N_SCORED, wishes.seeds
    table, picture = PROJECT / "benchmarks" / "results" / "ablation.md", PROJECT / "docs" / "ablation.png"
    if wishes.tiny:
        studies, out, n_scored, n_seeds = [tiny(study) for study in studies], out / "tiny", 500, 1
    if wishes.tiny or wishes.only:  # only the whole is published
        table, picture = out / "ablation.md", out / "ablation.png"
    contests = [prepare(out, wishes.data / study.name, study, n_scored) for study in studies]
    trials = trials_of(studies, contests, n_seeds, wishes.device)
    print(publish(run_trials(trials, wishes.jobs), studies, table, picture))


def prepare(root: Path, data: Path, study: Study, n_scored: int) -> Contest:
    """Cut the contest of a study into rows to train on and rows to score on, as files of the workspace `root`."""
    task = labelled_task(study.name, data, study.files)
    return cut_contest(root, task, data, {"train": study.n_train, "scored": n_scored}, {**RECIPE, **study.base})


def trials_of(studies: Sequence[Study], contests: Sequence[Contest], n_seeds: int, device: str = "auto") -> list[Trial]:
    """Return the trials of every arm, seed by seed, so that a part of them is already a comparison."""
    return [
        Trial(contest, arm, overrides, seed, device)
        for seed in range(n_seeds)
        for study, contest in zip(studies, contests, strict=True)
        for arm, overrides in arms_of(study).items()
    ]


def arms_of(study: Study) -> dict[str, tuple[str, ...]]:
    """Return the overrides of every arm: the baseline without any, those of the study, and all of them together."""
    single = {arm: tuple(overrides) for arm, overrides in study.arms.items()}
    return {BASELINE: (), **single, "all": tuple(override for arm in single.values() for override in arm)}


def tiny(study: Study) -> Study:
    """Return a study of 200 images, one epoch and one arm beside `none` and `all`."""
    first = next(iter(study.arms))
    base = {**study.base, "train": {**study.base["train"], "epochs": 1}}
    return replace(study, n_train=200, base=base, arms={first: study.arms[first]})


def publish(results: Sequence[Result], studies: Sequence[Study], table: Path, picture: Path) -> str:
    """Write the tables as Markdown and, beside it, as CSV, and the picture; return the Markdown."""
    sizes = ", ".join(f"{study.name} {study.n_train:,}" for study in studies)
    return publish_lines(results, BASELINE, f"Trained on {sizes}", table, picture)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder with mnist/ and cifar10/")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmarks/ablation"), help="where everything is trained"
    )
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, with one thread each")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each arm")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--only", choices=[study.name for study in STUDIES], help="one contest; published under --out")
    parser.add_argument("--tiny", action="store_true", help="200 images, one epoch, one seed; published under --out")
    return parser


if __name__ == "__main__":
    start("ablation", main)
