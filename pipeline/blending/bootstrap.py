"""How far a score may stray by chance: scores on rows drawn with replacement, the same draws for every entry.

Nonparametric bootstrap with percentile intervals (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters
6, 8 and 13). Scores of several entries on the same draws are paired: their differences stray far less than each does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, MismatchError
from pipeline.base.keyed import make_key, uniforms
from pipeline.blending.row_scores import Floats, row_scores
from pipeline.records.metrics import Metric, UndefinedMetricError
from pipeline.records.rows import Strings
from pipeline.records.scores import Targets, Values

MIN_DRAWS = 100
"""How many draws are made however slow the metric is."""
LIMIT_SEC = 30.0
"""After how many seconds no draw beyond `MIN_DRAWS` is begun."""

_KEY = make_key("bootstrap")
_CELLS_AT_ONCE = 2**20


def bootstrap_scores(
    targets: Targets,
    values: Sequence[Values],
    metric: Metric,
    n_draws: int = 1000,
    key: int = _KEY,
    groups: Strings | NDArray[np.int64] | None = None,
    limit_sec: float = LIMIT_SEC,
) -> Floats:
    """Return the scores of every entry on rows drawn with replacement, (D, n_values): a line for each draw.

    A draw is the same rows for every entry, and a function of `key`, its number and N (or the number of groups) alone.
    Rows are drawn by position: sort them by id first where their order should carry no meaning. A draw on which the
    metric is undefined is NaN for that entry.

    Args:
        targets: as the metric takes them; N rows.
        values: for each entry (N, n_columns), as the metric takes them.
        metric: means over rows (accuracy, log loss, errors, ...) take a fast path with the same result.
        n_draws: D, >= 1.
        key: what the draws are for, from `make_key`.
        groups: (N,) whole groups are drawn, as many as there are, so that the number of rows varies.
        limit_sec: a slow metric makes fewer draws than asked, but at least `MIN_DRAWS`: the first ones, unchanged.

    Raises:
        UndefinedMetricError: the metric is undefined on all rows together.
        MismatchError: entries, targets and groups have different lengths.
        ValueError: no entry, or no draw is asked for.
    """
    if n_draws < 1 or not values:
        raise ValueError(
            f"bootstrap_scores needs a draw and an entry (found: n_draws={n_draws}, {len(values)} entries)"
        )
    _check_lengths(targets, values, groups)
    counts = draw_counts(len(targets), n_draws, key, groups)
    return score_draws(targets, values, metric, counts, limit_sec)


def score_draws(
    targets: Targets,
    values: Sequence[Values],
    metric: Metric,
    counts: Iterable[Floats],
    limit_sec: float = LIMIT_SEC,
    lines_per_draw: int = 1,
) -> Floats:
    """Return the scores (D, n_values) of every entry on draws given as counts; raises as `bootstrap_scores`.

    Args:
        targets: as the metric takes them; N rows.
        values: for each entry (N, n_columns).
        metric: means over rows are computed from sums.
        counts: chunks (B, N) that say how often each row is drawn, as whole numbers.
        limit_sec: from then on no draw beyond `MIN_DRAWS` is begun, unless sums are enough.
        lines_per_draw: how many lines of `counts` belong together: all or none of them are scored.
    """
    parts = [row_scores(metric, targets, entry) for entry in values]
    known = [part.score for part in parts if part is not None]
    if len(known) == len(parts):
        return np.concatenate([np.stack([score(chunk) for score in known], axis=1) for chunk in counts])
    is_late = _deadline(limit_sec)
    scores: list[list[float]] = []
    for line in (line for chunk in counts for line in chunk):
        if len(scores) >= MIN_DRAWS * lines_per_draw and len(scores) % lines_per_draw == 0 and is_late():
            break
        rows = np.repeat(np.arange(len(targets)), line.astype(np.int64))
        scores.append([_score_or_nan(metric, targets[rows], entry[rows]) for entry in values])
    return np.array(scores)


def interval(draws: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval (low, high) of the draws (D,); undefined ones, NaN, are left out.

    The ends are draws: the r-th lowest and r-th highest of D, r = (1 - level) / 2 * (D + 1) rounded down (at least the
    first), so that the interval of the negated draws is the negated interval to the bit.

    Raises:
        UndefinedMetricError: fewer than half of the draws are defined: what is left is a choice, no sample.
    """
    ordered = np.sort(_defined(draws))
    place = max(0, int((1 - level) / 2 * (len(ordered) + 1) + 1e-9) - 1)
    return float(ordered[place]), float(ordered[-1 - place])


def standard_error(draws: Floats) -> float:
    """Return the standard deviation (n - 1) of the draws (D,) without undefined ones, NaN; raises as `interval`."""
    return float(np.std(_defined(draws), ddof=1))


def draw_counts(
    n_rows: int, n_draws: int, key: int, groups: Strings | NDArray[np.int64] | None = None
) -> Iterator[Floats]:
    """Yield chunks (B, N) of draws, B >= 1, that say how often each row is drawn; all chunks together are the draws."""
    group_of = None if groups is None else np.unique(groups, return_inverse=True)[1]
    n_units = n_rows if group_of is None else int(group_of.max()) + 1
    at_once = max(1, _CELLS_AT_ONCE // n_rows)
    for start in range(0, n_draws, at_once):
        numbers = np.arange(start, min(start + at_once, n_draws), dtype=np.uint64)
        drawn = (uniforms(key, numbers, n_units) * n_units).astype(np.int64)
        cells = drawn + n_units * np.arange(len(drawn))[:, None]
        counts = np.bincount(cells.ravel(), minlength=len(drawn) * n_units).reshape(len(drawn), n_units)
        yield (counts if group_of is None else counts[:, group_of]).astype(np.float64)


def _score_or_nan(metric: Metric, targets: Targets, values: Values) -> float:
    try:
        return metric(targets, values)
    except (UndefinedMetricError, DataError):  # all rows together were scored, so it is this draw that has no score
        return float("nan")


def _defined(draws: Floats) -> Floats:
    defined = draws[~np.isnan(draws)]
    if len(defined) < 2 or 2 * len(defined) < len(draws):
        raise UndefinedMetricError(
            f"the score is undefined on {len(draws) - len(defined)} of {len(draws)} draws of rows"
        )
    return defined


def _deadline(limit_sec: float) -> Callable[[], bool]:
    end = time.monotonic() + limit_sec
    return lambda: time.monotonic() >= end


def _check_lengths(targets: Targets, values: Sequence[Values], groups: Strings | NDArray[np.int64] | None) -> None:
    lengths = {"targets": len(targets), **{f"entry {n}": len(entry) for n, entry in enumerate(values, start=1)}}
    if groups is not None:
        lengths["groups"] = len(groups)
    if len(set(lengths.values())) > 1:
        raise MismatchError(f"rows differ in number: {lengths}")
