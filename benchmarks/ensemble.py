"""What does an ensemble bring? Six different runs of five folds each on MNIST and on CIFAR-10, blended in every way.

    python benchmarks/ensemble.py          # about an hour on two cores; stopped, the same command goes on
    python benchmarks/ensemble.py --tiny   # to see that everything works; its numbers mean nothing

The runs are those of `configs/mnist/` and `configs/cifar10/`, on 10,000 training rows; 10,000 other rows, whose labels
the pipeline never reads, are their test set. Every blend has three scores: on the OOF that it was fitted to, nested on
OOF, and on the rows kept apart. Writes `benchmarks/results/ensemble.md` and `.csv` and `docs/ensemble.png`.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import yaml
from contest import Contest, cut_contest
from entry import start
from numpy.typing import NDArray

from pipeline import api
from pipeline.base.files import write_text
from pipeline.base.plots import new_figure, save_figure
from pipeline.base.progress import say
from pipeline.base.tables import read_table
from pipeline.blending.joined import join_members, problem_of
from pipeline.blending.methods import fit_of, method_of
from pipeline.blending.verdict import Entry, judge, scored
from pipeline.data.tables import load_train
from pipeline.records.cv import metric_of
from pipeline.records.predictions import load_predictions
from pipeline.records.runs import Run, git_commit, now
from pipeline.training.history import read_history

PROJECT = Path(__file__).parent.parent
MEMBERS = {
    "mnist": ("cnn", "cnn-erasing", "cnn-mixup", "resnet", "deepconv", "conv5x5"),
    "cifar10": ("cnn", "cnn-cutout", "cnn-mixup", "resnet", "resnet-cutmix", "deepconv"),
}
"""Files of `configs/<contest>/`."""
WAYS = {"mean of all runs": "mean", "greedy": "greedy", "stack": "stack"}
"""What the table calls a blend, and its `--method`."""
N_ROWS = 10_000
"""To train on, and as many to score on."""

Hits = NDArray[np.float64]
"""(N,) for each row kept apart, the share of the models that are right."""


@dataclass(frozen=True)
class Line:
    """What one run or blend scores; accuracies as shares of 1."""

    contest: str
    way: str
    in_sample: float | None
    """On the OOF that it was fitted to; None for a run, which fits nothing to OOF."""
    oof: float
    """Pooled OOF of a run, nested OOF of a blend."""
    low: float | None
    high: float | None
    """The 95 % bootstrap interval of `oof`."""
    one_fold: float
    """On the rows kept apart, with the models of one fold; mean over the folds."""
    one_fold_std: float
    """Over the folds."""
    all_folds: float
    """On the rows kept apart, with the mean of the models of all folds."""
    gain: float
    """Of `all_folds` over `one_fold` of the run with the best OOF: what averaging brings over one model."""
    gain_half_width: float
    """Of the 95 % interval of the gain, rows drawn by chance."""
    seconds: float | None
    """Of the training steps of all folds, added up; None for a blend."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, blend it, write the tables and the picture, and print the tables."""
    wishes = _parser().parse_args(arguments)
    out, n_rows, overrides = wishes.out, N_ROWS, ()
    table, picture = PROJECT / "benchmarks" / "results" / "ensemble.md", PROJECT / "docs" / "ensemble.png"
    if wishes.tiny:
        out, n_rows, overrides = out / "tiny", 400, ("train.epochs=1",)
        table, picture = out / "ensemble.md", out / "ensemble.png"
    lines: list[Line] = []
    for name in [wishes.only] if wishes.only else list(MEMBERS):
        contest = prepare(out, wishes.data / name, name, n_rows)
        runs = []
        for number, member in enumerate(MEMBERS[name], start=1):
            say(f"{name}: run {number} of {len(MEMBERS[name])}, {member}")
            # Mixing may be off in the last epochs, and a single epoch would be one of them.
            mixing = ("mix.off_epochs=0",) if overrides and api.config(_file(contest, member)).experiment.mix else ()
            wanted = (*overrides, *mixing)
            runs.append(api.train(_file(contest, member), wanted, name=member, device=wishes.device, root=contest.root))
        lines += score(contest, runs)
    title = f"{n_rows:,} training rows, five folds, one seed; scored once on {n_rows:,} rows kept apart"
    print(publish(lines, title, runs[0], table, picture))


def prepare(root: Path, data: Path, name: str, n_rows: int) -> Contest:
    """Cut a contest into rows to train on and rows kept apart, which become its test set; write its experiments."""
    folder = PROJECT / "configs" / name
    base = {"base": str(folder / f"{MEMBERS[name][0]}.yaml")}
    contest = cut_contest(
        root, api.config(folder / f"{MEMBERS[name][0]}.yaml").task, data, {"train": n_rows, "test": n_rows}, base
    )
    for member in MEMBERS[name]:
        content = {"task": "task.yaml", "base": str(folder / f"{member}.yaml")}
        write_text(_file(contest, member), yaml.safe_dump(content, sort_keys=False))
    return contest


def score(contest: Contest, runs: Sequence[Run]) -> list[Line]:
    """Return a line for each run, in their order, and for each way of blending them."""
    task, names = runs[0].task, [run.name for run in runs]
    rows = load_train(task, Path(task.data)).rows
    oof = {run.name: load_predictions(run.folder / "oof.parquet") for run in runs}
    problem, groups = problem_of(join_members(oof, rows), rows, metric_of(task, rows))
    truth = Truth.read(contest.answers("test"), rows.names)
    # Arrays (M, N, K): the models of each fold, and last the means over the folds.
    parts = [[truth.values(path) for path in _test_files(run)] for run in runs]
    apart = [np.stack(members) for members in zip(*parts, strict=True)]
    best = int(np.argmax([problem.score(member) for member in problem.members]))
    single = np.mean([truth.hits(members[best]) for members in apart[:-1]], axis=0)
    lines = []
    for number, run in enumerate(runs):
        entry = scored(problem, run.name, problem.members[number], groups)
        hits = [truth.hits(members[number]) for members in apart]
        lines.append(_line(contest.name, run.name, None, entry, hits, single, _seconds(run)))
    for way, method in WAYS.items():
        fit = fit_of(method_of(method))
        in_sample, nested = judge(problem, names, fit, method != "mean", groups).entries[:2]
        # What was fitted is scored even where `podium ensemble` would save the mean instead.
        rule = fit(problem)
        hits = [truth.hits(rule.apply(members)) for members in apart]
        lines.append(_line(contest.name, way, in_sample.score, nested, hits, single, None))
    return lines


@dataclass(frozen=True)
class Truth:
    """The answers to the rows kept apart."""

    ids: NDArray[Any]
    """(N,)"""
    classes: NDArray[np.int64]
    """(N,) places in the columns of the predictions."""

    @classmethod
    def read(cls, path: Path, names: Sequence[str]) -> Truth:
        """Return the answers of a table with the columns id and label."""
        table = read_table(path)
        place = {name: number for number, name in enumerate(names)}
        labels = [place[label] for label in table.iloc[:, 1]]
        return cls(table.iloc[:, 0].to_numpy(dtype=object), np.array(labels))

    def values(self, path: Path) -> NDArray[np.float32]:
        """Return predictions (N, K) for these rows."""
        return load_predictions(path).aligned_to(self.ids).values

    def hits(self, values: NDArray[np.floating[Any]]) -> Hits:
        """Return for each row 1 where the most probable class is the answer, else 0."""
        return np.asarray(values.argmax(axis=1) == self.classes, dtype=np.float64)


def publish(lines: Sequence[Line], title: str, run: Run, table: Path, picture: Path) -> str:
    """Write the tables as Markdown and, beside it, as CSV, and the picture; return the Markdown."""
    made = f"{run.machine.device}, {run.machine.precision}; commit {(git_commit() or 'unknown')[:12]}; {now()[:10]}"
    text = f"{title}.\n\n{markdown(lines)}\n{NOTE}\n\nMade on {made}.\n"
    write_text(table, text)
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow([field.name for field in fields(Line)])
    writer.writerows(astuple(line) for line in lines)
    write_text(table.with_suffix(".csv"), rows.getvalue())
    plot(picture, lines, title)
    return text


NOTE = (
    "In-sample: scored on the OOF that the weights were fitted to. OOF: of a run its pooled OOF, of a blend nested,"
    " with the 95 % bootstrap interval. One fold: on the rows kept apart, by the models of one fold, mean and standard"
    " deviation over the folds; this is what OOF estimates. All folds: the mean of the models of all folds, as it"
    " would be submitted. Gain: of the latter over a single model, one fold of the run with the best OOF, with the 95 %"
    " interval."
)


def markdown(lines: Sequence[Line]) -> str:
    """Return a table for each contest: accuracies in percent, gains in points."""
    texts = []
    for contest in dict.fromkeys(line.contest for line in lines):
        texts.append(
            f"**{contest}**\n\n"
            "| run or blend | in-sample | OOF | one fold | all folds | gain over one model | training, min |\n"
            "|---|---:|---:|---:|---:|---:|---:|\n"
            + "".join(f"| {' | '.join(_cells(line))} |\n" for line in lines if line.contest == contest)
        )
    return "\n".join(texts)


def plot(path: Path, lines: Sequence[Line], title: str) -> None:
    """Draw a panel for each contest: OOF with its interval, in-sample, and the rows kept apart, a line for each way."""
    contests = list(dict.fromkeys(line.contest for line in lines))
    n_ways = max(sum(line.contest == contest for line in lines) for contest in contests)
    figure = new_figure(5.4 * len(contests), 1.8 + 0.38 * n_ways)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    panels = figure.subplots(1, len(contests), squeeze=False)[0]
    for axes, contest in zip(panels, contests, strict=True):
        _draw_panel(axes, [line for line in lines if line.contest == contest])
        axes.set_title(contest, loc="left", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    save_figure(figure, path)


def _draw_panel(axes: Any, lines: Sequence[Line]) -> None:
    places = np.arange(len(lines))
    centre = [100 * line.oof for line in lines]
    ends = [[line.oof if end is None else end for end in (line.low, line.high)] for line in lines]
    reach = 100 * np.abs(np.array(ends).T - [line.oof for line in lines])
    style = {"ms": 6, "mew": 1.6}
    axes.errorbar(centre, places, xerr=reach, fmt="o", color="tab:blue", capsize=3, label="OOF (nested)", ms=5)
    fitted = [(line.in_sample, place) for line, place in zip(lines, places, strict=True) if line.in_sample is not None]
    axes.plot(
        [100 * v for v, _ in fitted], [p - 0.18 for _, p in fitted], "x", color="tab:red", label="in-sample", **style
    )
    kept = [100 * line.one_fold for line in lines]
    axes.plot(kept, places + 0.18, "s", color="tab:gray", label="kept apart, one fold", ms=5)
    axes.plot([100 * line.all_folds for line in lines], places + 0.18, "D", color="black", label="all folds", ms=6)
    axes.set_yticks(places, [line.way for line in lines])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, %")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _line(
    contest: str,
    way: str,
    in_sample: float | None,
    oof: Entry,
    hits: Sequence[Hits],
    single: Hits,
    seconds: float | None,
) -> Line:
    folds, whole = [float(one.mean()) for one in hits[:-1]], hits[-1]
    gains = whole - single
    return Line(
        contest=contest,
        way=way,
        in_sample=in_sample,
        oof=oof.score,
        low=oof.low,
        high=oof.high,
        one_fold=mean(folds),
        one_fold_std=stdev(folds),
        all_folds=float(whole.mean()),
        gain=float(gains.mean()),
        gain_half_width=1.96 * float(gains.std(ddof=1)) / math.sqrt(len(gains)),
        seconds=seconds,
    )


def _cells(line: Line) -> list[str]:
    interval = "" if line.low is None or line.high is None else f" ({100 * line.low:.2f} to {100 * line.high:.2f})"
    return [
        line.way,
        "" if line.in_sample is None else f"{100 * line.in_sample:.2f}",
        f"{100 * line.oof:.2f}{interval}",
        f"{100 * line.one_fold:.2f}, {100 * line.one_fold_std:.2f}",
        f"{100 * line.all_folds:.2f}",
        f"{100 * line.gain:+.2f} (+-{100 * line.gain_half_width:.2f})",
        "" if line.seconds is None else f"{line.seconds / 60:.1f}",
    ]


def _file(contest: Contest, member: str) -> Path:
    return contest.config.with_name(f"{member}.yaml")


def _test_files(run: Run) -> list[Path]:
    return [*(run.unit_folder(unit) / "test.parquet" for unit in run.done_units()), run.folder / "test.parquet"]


def _seconds(run: Run) -> float:
    histories = [read_history(run.unit_folder(unit) / "history.csv") for unit in run.done_units()]
    return sum(sum(history["seconds"]) for history in histories)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder with mnist/ and cifar10/")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/ensemble"), help="where all is trained")
    parser.add_argument("--only", choices=list(MEMBERS), help="one contest")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--tiny", action="store_true", help="400 rows, one epoch; published under --out")
    return parser


if __name__ == "__main__":
    start("ensemble", main)
