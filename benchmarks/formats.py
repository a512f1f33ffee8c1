"""What does `podium auto` make of competitions in ten public layouts, with nothing but their files?

    python benchmarks/formats.py --data DIR             # DIR/<name>/public and DIR/<name>/answers.csv; about 80 minutes
    python benchmarks/formats.py --data DIR --only dogs-vs-cats-redux-kernels-edition

Each competition runs in a process of its own, in a copy of its public folder, so that the answers are out of reach; the
seconds are those of that whole process. A submission is refused or scored by `tests/grading.py`, which knows the public
rules and none of the pipeline's code. Writes `benchmarks/results/formats.md` and the same as CSV.
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from entry import start
from turns import origin

from pipeline import api
from pipeline.base.errors import DataError, PodiumError, listed, nearest
from pipeline.base.files import write_text
from pipeline.base.progress import say

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT / "tests"))

from grading import LOWER_IS_BETTER, GradingError, Rules, grade, read  # noqa: E402

MOST_MINUTES = 8.0
T = TypeVar("T")
Auto = Callable[[Path, float, Path], Path]
"""From a folder, minutes and a workspace to the path of a submission."""


@dataclass(frozen=True)
class Contest:
    """What is public about a competition, and the score that is wanted."""

    name: str
    rules: Rules
    """Its `sample` is relative to the public folder, as hosts name it."""
    wanted: float
    labels_in: tuple[str, str] | None = None
    """A table of the public folder and its column with all classes; cells are split where they hold several."""
    labels_from_folders: str | None = None
    """A public folder with a folder for each class."""


_SAMPLE = Path("sample_submission.csv")


def _rules(cells: str, metric: str, **more: object) -> Rules:
    return Rules(cells, metric, _SAMPLE, **more)  # type: ignore[arg-type]


CONTESTS = (
    Contest("digit-recognizer", _rules("label", "accuracy"), 0.96, labels_in=("train.csv", "label")),
    Contest("dog-breed-identification", _rules("per_class", "log_loss", sums_to_one=True), 0.30),
    Contest("dogs-vs-cats-redux-kernels-edition", _rules("probability", "log_loss"), 0.60),
    Contest(
        "aptos2019-blindness-detection",
        _rules("label", "quadratic_kappa"),
        0.92,
        labels_in=("train.csv", "diagnosis"),
    ),
    Contest("plant-pathology-2021-fgvc8", _rules("labels", "micro_f1"), 0.95, labels_in=("train.csv", "labels")),
    Contest("plant-seedlings-classification", _rules("label", "micro_f1"), 0.93, labels_from_folders="train"),
    Contest("hotel-id-2021-fgvc8", _rules("top_k", "map_at_k", k=5), 0.95, labels_in=("train.csv", "hotel_id")),
    Contest("petfinder-pawpularity-score", _rules("values", "rmse", low=1, high=100), 8.0),
    Contest("ranzcr-clip-catheter-line-classification", _rules("per_class", "mean_column_auc"), 0.98),
    Contest("eeg-signal-npz", _rules("label", "accuracy", labels=("0", "1", "2", "3")), 0.80),
)


@dataclass(frozen=True)
class Result:
    """What became of one competition; a row of the CSV."""

    name: str
    metric: str
    score: float | None
    wanted: float
    minutes: float
    fault: str = ""
    """Why there is no score."""

    @property
    def is_good(self) -> bool:
        """Return whether the submission is valid, as good as wanted and in time."""
        if self.score is None or self.minutes > MOST_MINUTES:
            return False
        return self.score <= self.wanted if self.metric in LOWER_IS_BETTER else self.score >= self.wanted


def main(arguments: Sequence[str] | None = None, auto: Auto | None = None) -> None:
    """Run every competition, write the table and print it; `auto` makes the submissions, by default Podium's."""
    wishes = _parser().parse_args(arguments)
    results = []
    for contest in chosen_contests(wishes.only):
        say(f"{contest.name}: {wishes.minutes:g} minutes")
        results.append(run(contest, wishes.data / contest.name, wishes.root, wishes.minutes, auto or in_own_process))
        say(_line(results[-1]))
    text = markdown(results, wishes.minutes)
    write_text(wishes.out, text)
    write_text(wishes.out.with_suffix(".csv"), table(results))
    print(text)


def chosen_contests(names: Sequence[str]) -> list[Contest]:
    """Return the competitions of these names, or all of them.

    Raises:
        PodiumError: there is none of that name.
    """
    known = {contest.name: contest for contest in CONTESTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise PodiumError(f"--only {unknown[0]}: unknown.{nearest(unknown[0], known)} There are: {listed(known)}")
    return [known[name] for name in names] or list(CONTESTS)


def run(contest: Contest, folder: Path, root: Path, minutes: float, auto: Auto) -> Result:
    """Return what a competition scores; a fault of it is part of the result, so that the others go on.

    Args:
        contest: what is public.
        folder: with `public/` and `answers.csv`, which only the grader reads.
        root: for a workspace of each competition; an earlier one of that name is emptied.
        minutes: what `podium auto` may take.
        auto: makes a submission.

    Raises:
        DataError: `folder` lacks one of the two.
    """
    public, answers = folder / "public", folder / "answers.csv"
    if not public.is_dir() or not answers.is_file():
        raise DataError(f"{folder}: holds no public/ and answers.csv; name the folder of the competitions with --data")
    workspace = root / contest.name
    shutil.rmtree(workspace, ignore_errors=True)
    given = shutil.copytree(public, workspace / "given" / contest.name)
    began = time.perf_counter()
    submission, fault = _attempt(lambda: auto(given, minutes, workspace))
    taken = (time.perf_counter() - began) / 60
    score = None
    if submission is not None:
        score, fault = _attempt(lambda: grade(submission, rules_of(contest, public), answers))
    return Result(contest.name, contest.rules.metric, score, contest.wanted, taken, fault)


def _attempt(work: Callable[[], T]) -> tuple[T | None, str]:
    """Return what `work` returns, or None and what went wrong: a crash is among the things that the table shows."""
    try:
        return work(), ""
    except (PodiumError, GradingError) as error:
        return None, f"{type(error).__name__}: {error}"
    except Exception as error:
        return None, f"crash, {type(error).__name__}: {error}"


def in_own_process(folder: Path, minutes: float, workspace: Path) -> Path:
    """Return the submission of `podium auto`, run in a new process as the command would be."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(_auto, folder, minutes, workspace).result()


def _auto(folder: Path, minutes: float, workspace: Path) -> Path:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return Path(api.auto(folder, minutes=minutes, root=workspace).submission)


def rules_of(contest: Contest, public: Path) -> Rules:
    """Return the rules with the sample's path and the classes that the public files name."""
    labels = contest.rules.labels
    if contest.labels_in is not None:
        name, column = contest.labels_in
        cells = read(public / name)[column]
        several = contest.rules.cells == "labels"
        labels = tuple(sorted({one for cell in cells for one in (cell.split(" ") if several else [cell])}))
    if contest.labels_from_folders is not None:
        labels = tuple(sorted(path.name for path in (public / contest.labels_from_folders).iterdir() if path.is_dir()))
    return replace(contest.rules, sample=public / contest.rules.sample, labels=labels)


def markdown(results: Sequence[Result], minutes: float) -> str:
    """Return the table of all competitions, with how many are as good as wanted."""
    lines = [
        f"`podium auto DIR --minutes {minutes:g}` on competitions in public layouts, with nothing but their files.\n",
        "| competition | metric | score | wanted | minutes | |",
        "|---|---|---:|---:|---:|---|",
    ]
    for one in results:
        sign = "<=" if one.metric in LOWER_IS_BETTER else ">="
        score = "none" if one.score is None else f"{one.score:.4f}"
        verdict = "good" if one.is_good else one.fault.replace("|", "/").replace("\n", " ") or "not reached"
        wanted = f"{sign} {one.wanted:g}"
        lines.append(f"| {one.name} | {one.metric} | {score} | {wanted} | {one.minutes:.1f} | {verdict} |")
    n_valid, n_good = sum(one.score is not None for one in results), sum(one.is_good for one in results)
    total = f"{n_valid} of {len(results)} valid, {n_good} as good as wanted within {MOST_MINUTES:g} minutes."
    made = f"Minutes are those of a whole process. {origin(len(os.sched_getaffinity(0)))}"
    return "\n".join([*lines, "", total, "", made])


def table(results: Sequence[Result]) -> str:
    """Return the results as CSV with all digits."""
    content = io.StringIO()
    writer = csv.DictWriter(content, [field.name for field in fields(Result)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(one) for one in results)
    return content.getvalue()


def _line(one: Result) -> str:
    told = one.fault if one.score is None else f"{one.metric} {one.score:.4f} (wanted {one.wanted:g})"
    return f"{one.name}: {told}, {one.minutes:.1f} minutes"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with a folder for each competition")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="some of the competitions")
    parser.add_argument("--minutes", type=float, default=7.0, help="what podium auto may take for each")
    parser.add_argument("--root", type=Path, default=PROJECT / "runs/benchmarks/formats", help="for the workspaces")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/formats.md", help="the table")
    return parser


if __name__ == "__main__":
    start("formats", main)
