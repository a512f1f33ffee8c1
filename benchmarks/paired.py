"""Is an arm better than the baseline? Means and spreads over seeds, differences in pairs, a table and a picture.

Every arm is trained with the same seeds (so with the same first weights and the same order of rows) and scored on the
same rows as the baseline, and only differences within such pairs are judged.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev, variance
from typing import Any

from trials import Result

from pipeline.base.files import write_text
from pipeline.base.plots import new_figure, save_figure

LEVEL = 0.95
"""Of the interval that decides the verdict."""

RULE = (
    "`helps` and `hurts`: the 95 % interval of the difference leaves out zero; else `cannot tell`. The standard error"
    " (se) counts the seeds and the scored rows as drawn by chance, the training rows as given."
)


@dataclass(frozen=True)
class Line:
    """What an arm scored on a contest, and what it gained over the baseline; accuracies as shares of 1."""

    contest: str
    arm: str
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    """One per seed."""
    mean: float
    std: float | None
    """Standard deviation over seeds, n - 1; None for a single seed."""
    gain: float | None
    """Mean difference to the baseline of the same seed; None for the baseline itself."""
    se: float | None
    """Standard error of the gain; None for a single seed."""
    half_width: float | None
    """Of the interval of the gain."""
    seconds: float
    """Mean over the trainings."""

    @property
    def verdict(self) -> str:
        """Return `helps`, `hurts` or `cannot tell`; of the baseline `baseline`."""
        if self.gain is None:
            return "baseline"
        if self.half_width is None or abs(self.gain) <= self.half_width:
            return "cannot tell"
        return "helps" if self.gain > 0 else "hurts"


def compare(results: Sequence[Result], baseline: str) -> list[Line]:
    """Return a line for each contest and arm, in the order in which they come first.

    Raises:
        ValueError: an arm and the baseline of its contest do not have the same seeds.
    """
    by_arm: dict[tuple[str, str], dict[int, Result]] = {}
    for result in results:
        by_arm.setdefault((result.contest, result.arm), {})[result.seed] = result
    lines = []
    for (contest, arm), of_seed in by_arm.items():
        base = by_arm.get((contest, baseline), {})
        if base.keys() != of_seed.keys():
            raise ValueError(f"{contest}: '{arm}' has the seeds {sorted(of_seed)}, '{baseline}' {sorted(base)}")
        pairs = [(of_seed[seed], base[seed]) for seed in sorted(of_seed)]
        lines.append(_line(pairs, is_baseline=arm == baseline))
    return lines


def paired_gain(pairs: Sequence[tuple[Result, Result]]) -> tuple[float, float | None, float | None]:
    """Return the mean difference in accuracy of (arm, baseline) pairs, its standard error, and half its interval.

    Seeds and rows are two crossed samples. The variance over seeds knows nothing of how the scored rows fell, that over
    rows (of differences averaged over seeds) nothing of the seeds; the error takes both, and so counts twice what only
    a row and a seed together decide, to the safe side. The interval takes its degrees of freedom from Satterthwaite
    1946 (https://doi.org/10.2307/3002019). Simulated without any true difference, three seeds and 10,000 rows: the
    interval leaves out zero in 1 to 5 % of comparisons, whichever of seeds and rows varies more; two standard errors
    over seeds alone would find a difference in 18 to 31 %. For a single seed, error and interval are None.
    """
    gains = [arm.accuracy - base.accuracy for arm, base in pairs]
    gain = mean(gains)
    if len(pairs) < 2:
        return gain, None, None
    n_rows = pairs[0][0].n_rows
    by_row: Counter[str] = Counter()
    for arm, base in pairs:
        by_row.update(base.wrong)
        by_row.subtract(arm.wrong)
    squares = math.fsum((count / len(pairs)) ** 2 for count in by_row.values())
    of_seeds = variance(gains) / len(gains)
    of_rows = (squares - n_rows * gain**2) / (n_rows - 1) / n_rows
    total = of_seeds + of_rows
    if total <= 0:
        return gain, 0.0, 0.0
    freedom = total**2 / (of_seeds**2 / (len(gains) - 1) + of_rows**2 / (n_rows - 1))
    return gain, math.sqrt(total), math.sqrt(total) * _quantile(freedom)


def markdown(lines: Sequence[Line]) -> str:
    """Return a table for each contest: accuracies in percent, differences in points."""
    texts = []
    for contest in dict.fromkeys(line.contest for line in lines):
        texts.append(
            f"**{contest}**\n\n"
            "| arm | accuracy, mean | std over seeds | difference | se | 95 % interval | s per training | verdict |\n"
            "|---|---:|---:|---:|---:|---:|---:|---|\n"
            + "".join(f"| {' | '.join(_cells(line))} |\n" for line in lines if line.contest == contest)
        )
    return "\n".join(texts)


def write_csv(path: Path, lines: Sequence[Line]) -> None:
    """Write the lines with all their digits, accuracies and differences as shares of 1, one column per seed."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = ["mean", "std", "gain", "se", "half_width", "seconds", "verdict"]
    table.writerow(["contest", "arm", *(f"seed{seed}" for seed in lines[0].seeds), *columns])
    for line in lines:
        table.writerow([line.contest, line.arm, *line.accuracies, *(getattr(line, name) for name in columns)])
    write_text(path, text.getvalue())


def publish_lines(results: Sequence[Result], baseline: str, trained_on: str, table: Path, picture: Path) -> str:
    """Write the tables as Markdown and, beside it, as CSV, and the picture; return the Markdown.

    Args:
        results: of all trials.
        baseline: the arm that the others are compared to.
        trained_on: how the title begins, such as `Trained on mnist 2,000`.
        table: path of the Markdown.
        picture: path of the picture.
    """
    lines = compare(results, baseline)
    n_seeds = len(lines[0].accuracies)
    title = f"{trained_on}; scored on {results[0].n_rows:,} other rows; {n_seeds} seed{'s' * (n_seeds > 1)}"
    text = f"{title}.\n\n{markdown(lines)}\n{RULE}\n\n{_origin(results)}\n"
    write_text(table, text)
    write_csv(table.with_suffix(".csv"), lines)
    plot_lines(picture, lines, title)
    return text


def plot_lines(path: Path, lines: Sequence[Line], title: str) -> None:
    """Draw a panel for each contest: a dot per seed, the mean with its standard deviation, the baseline's mean dotted.

    Args:
        path: of the picture.
        lines: arms stand from top to bottom in their order.
        title: of the whole picture.
    """
    contests = list(dict.fromkeys(line.contest for line in lines))
    n_arms = max(sum(line.contest == contest for line in lines) for contest in contests)
    figure = new_figure(5.2 * len(contests), 1.4 + 0.38 * n_arms)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    for axes, contest in zip(figure.subplots(1, len(contests), squeeze=False)[0], contests, strict=True):
        _draw_panel(axes, [line for line in lines if line.contest == contest])
        axes.set_title(contest, loc="left", fontsize=11)
    save_figure(figure, path)


_COLOURS = {"helps": "tab:green", "hurts": "tab:red", "cannot tell": "tab:gray", "baseline": "black"}


def _draw_panel(axes: Any, lines: Sequence[Line]) -> None:
    for place, line in enumerate(lines):
        colour = _COLOURS[line.verdict]
        dots = [100 * value for value in line.accuracies]
        axes.plot(dots, [place - 0.22] * len(dots), "o", markersize=5, markeredgewidth=0, alpha=0.5, color=colour)
        axes.errorbar(
            100 * line.mean, place, xerr=100 * (line.std or 0), fmt="|", ms=13, mew=2, capsize=3, color=colour
        )
        if line.verdict == "baseline":
            axes.axvline(100 * line.mean, color=colour, linestyle=":", linewidth=1)
    axes.set_yticks(range(len(lines)), [f"{line.arm}  ({line.verdict})" for line in lines])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, %")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _line(pairs: Sequence[tuple[Result, Result]], is_baseline: bool) -> Line:
    arms = [arm for arm, _ in pairs]
    values = tuple(arm.accuracy for arm in arms)
    gain, se, half_width = (None, None, None) if is_baseline else paired_gain(pairs)
    return Line(
        contest=arms[0].contest,
        arm=arms[0].arm,
        seeds=tuple(arm.seed for arm in arms),
        accuracies=values,
        mean=mean(values),
        std=stdev(values) if len(values) > 1 else None,
        gain=gain,
        se=se,
        half_width=half_width,
        seconds=mean(arm.seconds for arm in arms),
    )


def _cells(line: Line) -> list[str]:
    interval = ""
    if line.gain is not None and line.half_width is not None:
        interval = f"{100 * (line.gain - line.half_width):+.2f} to {100 * (line.gain + line.half_width):+.2f}"
    return [
        line.arm,
        f"{100 * line.mean:.2f}",
        "" if line.std is None else f"{100 * line.std:.2f}",
        "" if line.gain is None else f"{100 * line.gain:+.2f}",
        "" if line.se is None else f"{100 * line.se:.2f}",
        interval,
        f"{line.seconds:.0f}",
        "" if line.verdict == "baseline" else line.verdict,
    ]


def _origin(results: Sequence[Result]) -> str:
    """Return on what the results were made; several commits or machines are all named."""
    machines = sorted({f"{result.device}, {result.precision}" for result in results})
    commits = sorted({(result.git_commit or "unknown")[:12] for result in results})
    days = sorted({result.finished[:10] for result in results})
    return f"Made on {' and '.join(machines)}; commit {', '.join(commits)}; {' to '.join(sorted({days[0], days[-1]}))}."


def _quantile(freedom: float) -> float:
    """Return how many standard errors the interval reaches to either side."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))
