"""What the points of a study scored: seed by seed on the same rows, with mean and spread, and differences in pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.blending.row_scores import row_scores
from pipeline.data.tables import load_train
from pipeline.records.cv import metric_of, score_or_note, submitted
from pipeline.records.metrics import Metric
from pipeline.records.predictions import Predictions, join_folds, load_predictions, mean_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Unit, Workspace
from pipeline.records.study import Point, Study
from pipeline.stages.study.apart import FILE
from pipeline.stages.study.points import DIVERGED
from pipeline.training.history import read_history
from pipeline.training.layer_statistics import Line, read_layers

LEVEL = 0.95
"""Of the interval that decides whether a difference counts."""


@dataclass(frozen=True)
class Gain:
    """The difference of a point to another one, in pairs of the same seed; positive is better."""

    over: str
    value: float
    half_width: float | None
    """Of the 95 % interval; None for a single seed."""

    @property
    def verdict(self) -> str:
        """Return `helps`, `hurts` or `cannot tell`."""
        if self.half_width is None or abs(self.value) <= self.half_width:
            return "cannot tell"
        return "helps" if self.value > 0 else "hurts"


@dataclass(frozen=True)
class PointResult:
    """What one point scored."""

    label: str
    axes: Mapping[str, str]
    run: str | None
    """Name of its run; None for a mean of others."""
    scores: Mapping[int, float | None]
    """By seed, on the rows of the study; None where the metric is undefined."""
    predictions: Mapping[int, Predictions]
    """By seed, of these rows."""
    heldout: float | None
    """Mean over folds and seeds of the score on the held-out fold; None for a mean of others."""
    training: float | None
    """The same on the rows that were learnt from, after the last epoch, where it was measured."""
    seconds: float | None
    """Of the training steps of one unit, mean."""
    n_units: int
    n_diverged: int
    """Units whose loss or weights left the finite numbers; they count in no score."""
    histories: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    """`history.csv` by unit."""
    layers: Mapping[str, Sequence[Line]] = field(default_factory=dict)
    """`layers.csv` by unit."""
    gain: Gain | None = None

    @property
    def known(self) -> list[float]:
        """Return the scores that are defined, in the order of the seeds."""
        return [score for score in self.scores.values() if score is not None]

    @property
    def mean(self) -> float | None:
        """Return the mean over seeds."""
        return mean(self.known) if self.known else None

    @property
    def std(self) -> float | None:
        """Return the standard deviation over seeds, n - 1; None with fewer than two."""
        return stdev(self.known) if len(self.known) > 1 else None


@dataclass(frozen=True)
class StudyResult:
    """All points of a study, scored on the same rows."""

    points: Sequence[PointResult]
    metric: Metric
    scored_on: str
    """Which rows, in words."""
    n_rows: int
    rows: Rows

    def best(self) -> PointResult | None:
        """Return the point with the best mean; None where no score is defined."""
        sign = 1 if self.metric.higher_is_better else -1
        defined = [point for point in self.points if point.mean is not None]
        return max(defined, key=lambda point: sign * (point.mean or 0.0)) if defined else None


def collect(workspace: Workspace, study: Study, points: Sequence[Point], runs: Mapping[str, Run]) -> StudyResult:
    """Return what the points scored: on the rows kept apart where the folds have a holdout, else on the held-out rows.

    Args:
        workspace: where everything lies.
        study: gives the baseline.
        points: in the order of the result.
        runs: the finished run of each point that trains, by label.
    """
    first = next(iter(runs.values()))
    rows = load_train(first.task, workspace.data(first.task)).rows
    metric = metric_of(first.task, rows)
    is_apart = first.experiment.folds.holdout_frac > 0
    found: dict[str, PointResult] = {}
    for point in points:
        if point.spec.mean_of:
            found[point.label] = _mean_of(point, [found[name] for name in point.spec.mean_of], rows, metric)
        else:
            found[point.label] = _result(point, runs[point.label], rows, metric, is_apart)
    for point in points:
        over = point.spec.after or study.baseline
        if over is not None and over != point.label:
            gain = gain_over(found[point.label], found[over], rows, metric)
            found[point.label] = _with_gain(found[point.label], gain)
    n_rows = max((len(part) for result in found.values() for part in result.predictions.values()), default=0)
    scored_on = (
        f"{n_rows:,} rows kept apart, which no training has seen"
        if is_apart
        else f"the held-out rows of the trained folds ({n_rows:,})"
    )
    return StudyResult(list(found.values()), metric, scored_on, n_rows, rows)


def gain_over(point: PointResult, other: PointResult, rows: Rows, metric: Metric) -> Gain | None:
    """Return the mean difference to another point over the seeds that both have, with its interval.

    Seeds and rows are two crossed samples: the error takes the variance over seeds and, where the metric is a mean over
    rows, that over rows, and its degrees of freedom from Satterthwaite 1946 (https://doi.org/10.2307/3002019).
    """
    from scipy.stats import t

    sign = 1 if metric.higher_is_better else -1
    pairs = [
        (seed, sign * (mine - theirs))
        for seed, mine in point.scores.items()
        if mine is not None and (theirs := other.scores.get(seed)) is not None
    ]
    if not pairs:
        return None
    value = mean(gain for _, gain in pairs)
    if len(pairs) < 2:
        return Gain(other.label, value, None)
    n = len(pairs)
    of_seeds = sum((gain - value) ** 2 for _, gain in pairs) / (n - 1) / n
    of_rows, n_rows = _variance_over_rows([seed for seed, _ in pairs], point, other, rows, metric)
    total = of_seeds + of_rows
    if total <= 0:
        return Gain(other.label, value, 0.0)
    freedom = total**2 / (of_seeds**2 / (n - 1) + (of_rows**2 / (n_rows - 1) if n_rows > 1 else 0.0))
    return Gain(other.label, value, float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(total))


def confusion(result: StudyResult, point: PointResult) -> NDArray[np.int64] | None:
    """Return (K, K) counts over the seeds, rows true and columns predicted; None where rows have no single class."""
    names, targets = result.rows.names, np.asarray(result.rows.targets)
    if targets.ndim != 1 or targets.dtype.kind != "i" or not point.predictions:
        return None
    place = {row_id: position for position, row_id in enumerate(result.rows.ids)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for part in point.predictions.values():
        if part.values.shape[1] == 1:
            chosen = (part.values[:, 0] >= 0.5).astype(np.int64)
        elif part.values.shape[1] == len(names):
            chosen = part.values.argmax(axis=1)
        else:
            return None
        true = targets[[place[row_id] for row_id in part.ids]]
        np.add.at(counts, (true, chosen), 1)
    return counts


def _result(point: Point, run: Run, rows: Rows, metric: Metric, is_apart: bool) -> PointResult:
    units = run.done_units()
    by_seed = {seed: [unit for unit in units if unit.seed == seed] for seed in run.experiment.seeds}
    predictions = {seed: _of_seed(run, of_seed, is_apart) for seed, of_seed in by_seed.items() if of_seed}
    histories = {unit.name: read_history(run.unit_folder(unit) / "history.csv") for unit in units}
    # Of units that diverged too: how gradients grew is what one wants to see of them.
    paths = {unit.name: run.unit_folder(unit) / "layers.csv" for unit in run.units()}
    layers = {name: read_layers(path) for name, path in paths.items() if path.is_file()}
    last = [history[f"train_{metric.name}"][-1] for history in histories.values() if f"train_{metric.name}" in history]
    held = [line for line in (_heldout(run, unit, rows, metric) for unit in units) if line is not None]
    return PointResult(
        label=point.label,
        axes=point.axes,
        run=run.name,
        scores={seed: score_or_note(part, rows, metric)[0] for seed, part in predictions.items()},
        predictions=predictions,
        heldout=mean(held) if held else None,
        training=mean(last) if last else None,
        seconds=mean(sum(history["seconds"]) for history in histories.values()) if histories else None,
        n_units=len(units),
        n_diverged=sum((run.unit_folder(unit) / DIVERGED).is_file() for unit in run.units()),
        histories=histories,
        layers=layers,
    )


def _mean_of(point: Point, members: Sequence[PointResult], rows: Rows, metric: Metric) -> PointResult:
    seeds = [seed for seed in members[0].predictions if all(seed in member.predictions for member in members)]
    means = {seed: mean_predictions([member.predictions[seed] for member in members]) for seed in seeds}
    return PointResult(
        label=point.label,
        axes=point.axes,
        run=None,
        scores={seed: score_or_note(part, rows, metric)[0] for seed, part in means.items()},
        predictions=means,
        heldout=None,
        training=None,
        seconds=None,
        n_units=sum(member.n_units for member in members),
        n_diverged=0,
    )


def _of_seed(run: Run, units: Sequence[Unit], is_apart: bool) -> Predictions:
    """Return what the units of one seed predict: their mean on rows kept apart, else each for its own fold."""
    if is_apart:
        return mean_predictions([load_predictions(run.unit_folder(unit) / FILE) for unit in units])
    return join_folds([load_predictions(run.unit_folder(unit) / "heldout.parquet") for unit in units])


def _heldout(run: Run, unit: Unit, rows: Rows, metric: Metric) -> float | None:
    path = run.unit_folder(unit) / "heldout.parquet"
    return score_or_note(load_predictions(path), rows, metric)[0] if path.is_file() else None


def _variance_over_rows(
    seeds: Sequence[int], point: PointResult, other: PointResult, rows: Rows, metric: Metric
) -> tuple[float, int]:
    """Return the variance of the mean difference over the scored rows, and how many they are; 0 where it is unknown."""
    differences: list[NDArray[np.float64]] = []
    for seed in seeds:
        mine, targets = submitted(point.predictions[seed], rows)
        theirs = submitted(other.predictions[seed], rows)[0].aligned_to(mine.ids)
        parts = [row_scores(metric, targets, values.values) for values in (mine, theirs)]
        if parts[0] is None or parts[1] is None or parts[0].is_root:
            return 0.0, 0
        differences.append((parts[0].parts - parts[1].parts).mean(axis=1))
    averaged = np.mean(differences, axis=0)
    return float(averaged.var(ddof=1) / len(averaged)), len(averaged)


def _with_gain(result: PointResult, gain: Gain | None) -> PointResult:
    return replace(result, gain=gain)


def describe(run: Run, cv: Mapping[str, Any]) -> str:
    """Return the score of a point's run on its held-out folds, in words, for the line of its progress."""
    n_diverged = sum((run.unit_folder(unit) / DIVERGED).is_file() for unit in run.units())
    diverged = f"{n_diverged} of {n_diverged + len(run.done_units())} units diverged" if n_diverged else ""
    if cv["mean"] is None:
        return diverged or "no score"
    by_seed: dict[int, list[float]] = {}
    for line in cv["folds"]:
        if line["score"] is not None:
            by_seed.setdefault(line["seed"], []).append(line["score"])
    means = [mean(scores) for scores in by_seed.values()]
    spread = f" +- {stdev(means):.4f} over {len(means)} seeds" if len(means) > 1 else ""
    return f"held-out {cv['metric']} {mean(means):.4f}{spread}" + (f", {diverged}" if diverged else "")
