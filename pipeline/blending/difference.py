"""Is B better than A? Paired differences of scores on the same rows, with an interval and a verdict in words.

Differences are B - A in the direction of the metric: positive means that B is better. The interval is a paired
bootstrap over rows (over groups where there are some), so it speaks of these predictions on other rows; what another
seed would change stands beside it, where runs have several.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.base.keyed import make_key
from pipeline.blending.bootstrap import bootstrap_scores, interval, standard_error
from pipeline.blending.leaderboard import SimulatedLB
from pipeline.blending.paired import Paired
from pipeline.records.metrics import Metric, UndefinedMetricError

Winner = Literal["A", "B"]

LEVEL = 0.95
SEED_NOISE_TIMES = 2.0
"""A difference counts as more than seed noise beyond this many standard deviations of it."""

_IN_POINTS = (
    "accuracy",
    "balanced_accuracy",
    "roc_auc",
    "mean_column_auc",
    "average_precision",
    "f1",
    "f1_macro",
    "f1_micro",
    "f1_samples",
    "top_k_accuracy",
    "map_at_k",
)


@dataclass(frozen=True)
class FoldLine:
    """Both runs on the rows of one fold; None where a score is undefined."""

    fold: int
    n_rows: int
    score_a: float | None
    score_b: float | None
    difference: float | None
    note: str = ""


@dataclass(frozen=True)
class SeedSpread:
    """The scores of a run's seeds, each alone, on the compared rows."""

    scores: dict[int, float]
    """By seed, those whose folds are all done."""
    std: float | None
    """Their spread (n - 1); None with fewer than two."""

    @classmethod
    def of(cls, scores: dict[int, float]) -> SeedSpread:
        """Return the spread of scores by seed."""
        return cls(scores, float(np.std(list(scores.values()), ddof=1)) if len(scores) > 1 else None)


@dataclass(frozen=True)
class Comparison:
    """Two runs on the rows that both have in their OOF; differences are positive where B is better."""

    task: str
    metric: str
    higher_is_better: bool
    a: str
    b: str
    unit: str
    """`points` (hundredths) for metrics in 0..1, else `` (the metric's own unit); numbers here are never scaled."""
    n_rows: int
    """Rows as submitted that both have."""
    n_groups: int | None
    """What was drawn whole; None where rows were drawn."""
    score_a: float
    """Pooled OOF on the common rows."""
    score_b: float
    difference: float
    low: float
    """Lower end of the 95 % interval of the difference."""
    high: float
    standard_error: float
    n_draws: int
    n_undefined: int
    """Draws on which a score is undefined; they are left out."""
    folds: tuple[FoldLine, ...]
    """Empty where the runs have different folds."""
    seeds_a: SeedSpread
    seeds_b: SeedSpread
    seed_noise: float | None
    """Standard deviation that seeds give the difference; None where no run has several."""
    winner: Winner | None
    """Whose score is better by an interval that excludes zero; None: cannot tell."""
    verdict: str
    notes: tuple[str, ...]
    lb: SimulatedLB | None = None


def compare_pairs(
    pairs: Paired,
    metric: Metric,
    names: tuple[str, str],
    task: str = "",
    n_draws: int = 1000,
    key: int = make_key("compare"),
    seeds: tuple[SeedSpread, SeedSpread] | None = None,
    notes: Sequence[str] = (),
    lb: SimulatedLB | None = None,
) -> Comparison:
    """Return how two sets of predictions for the same rows differ; see `compare_runs`."""
    seeds = seeds or (SeedSpread.of({}), SeedSpread.of({}))
    sign = 1.0 if metric.higher_is_better else -1.0
    score_a, score_b = (metric(pairs.targets, values) for values in pairs.values)
    draws = bootstrap_scores(pairs.targets, pairs.values, metric, n_draws, key, pairs.groups)
    differences = sign * (draws[:, 1] - draws[:, 0])
    low, high = interval(differences, LEVEL)
    winner: Winner | None = "B" if low > 0 else "A" if high < 0 else None
    difference, noise = sign * (score_b - score_a), _seed_noise(seeds)
    unit = "points" if metric.name in _IN_POINTS else ""
    return Comparison(
        task=task,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        a=names[0],
        b=names[1],
        unit=unit,
        n_rows=len(pairs.ids),
        n_groups=None if pairs.groups is None else len(set(pairs.groups)),
        score_a=score_a,
        score_b=score_b,
        difference=difference,
        low=low,
        high=high,
        standard_error=standard_error(differences),
        n_draws=len(draws),
        n_undefined=int(np.isnan(differences).sum()),
        folds=tuple(_fold_lines(pairs, metric, sign)),
        seeds_a=seeds[0],
        seeds_b=seeds[1],
        seed_noise=noise,
        winner=winner,
        verdict=_verdict(winner, difference, low, high, unit),
        notes=(*notes, _seed_note(difference, noise, unit), *_draw_notes(len(draws), n_draws)),
        lb=lb,
    )


def shown_in(value: float, unit: str) -> str:
    """Return a difference with its sign as it is shown: `+0.21` in points, four significant digits in other units."""
    value += 0.0  # or a difference of -0.0 would be shown as -0.00
    return f"{100 * value:+.2f}" if unit == "points" else f"{value:+.4g}"


def _verdict(winner: Winner | None, difference: float, low: float, high: float, unit: str) -> str:
    words = f"{winner} is better" if winner else "cannot tell"
    shown, ends = shown_in(difference, unit), f"{shown_in(low, unit)}..{shown_in(high, unit)}"
    return f"{words}: {shown}{' ' + unit if unit else ''}, {LEVEL:.0%} interval {ends}".replace("%", " %")


def _seed_noise(seeds: tuple[SeedSpread, SeedSpread]) -> float | None:
    """Return the standard deviation that seeds give a difference of two scores that are means over their seeds.

    A run of one seed is taken to stray as the other does. The score of a mean over seeds strays about as the mean of
    their scores, the standard deviation over the root of their number.
    """
    known = [seed.std for seed in seeds if seed.std is not None]
    if not known:
        return None
    typical = float(np.sqrt(np.mean(np.square(known))))
    variances = [(typical if seed.std is None else seed.std) ** 2 / max(1, len(seed.scores)) for seed in seeds]
    return float(np.sqrt(sum(variances)))


def _seed_note(difference: float, noise: float | None, unit: str) -> str:
    if noise is None:
        return "seed noise is not known, as no run has several seeds; the interval covers the choice of rows alone"
    is_more = abs(difference) > SEED_NOISE_TIMES * noise
    relation = "exceeds" if is_more else "does not exceed"
    shown = f"{shown_in(noise, unit).lstrip('+')} {unit}".rstrip()
    return f"the difference {relation} {SEED_NOISE_TIMES:g} standard deviations of seed noise ({shown} each)"


def _draw_notes(n_made: int, n_asked: int) -> Iterable[str]:
    if n_made < n_asked:
        yield f"the metric is slow: {n_made} of {n_asked} draws were made"


def _fold_lines(pairs: Paired, metric: Metric, sign: float) -> Iterable[FoldLine]:
    fold_a, fold_b = pairs.folds
    if fold_a is None or fold_b is None or (fold_a != fold_b).any():
        return
    for fold in np.unique(fold_a).tolist():
        held = np.flatnonzero(fold_a == fold)
        try:
            score_a, score_b = (metric(pairs.targets[held], values[held]) for values in pairs.values)
        except UndefinedMetricError as error:
            yield FoldLine(fold, len(held), None, None, None, str(error))
        else:
            yield FoldLine(fold, len(held), score_a, score_b, sign * (score_b - score_a))
