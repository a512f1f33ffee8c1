"""How far a public score may stray, by luck of the split alone: public and private parts drawn from OOF rows.

The host scores some test rows in public and the rest at the end. For a mean over rows with variance s2 (n - 1), a
random split without replacement gives the difference of the two scores the variance s2 (1 / n_public + 1 / n_private);
drawing splits gives it for every metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.keyed import make_key, uniforms
from pipeline.blending.bootstrap import LIMIT_SEC, interval, score_draws, standard_error
from pipeline.blending.paired import pair_rows
from pipeline.blending.row_scores import Floats
from pipeline.records.metrics import Metric
from pipeline.records.predictions import Predictions
from pipeline.records.rows import Rows

_CELLS_AT_ONCE = 2**19


@dataclass(frozen=True)
class Straying:
    """How far the public score of one run strays, in units of the metric; intervals hold 95 % of the draws."""

    std: float
    """Standard deviation of public - private."""
    from_private: tuple[float, float]
    """Interval of public - private."""
    from_whole: tuple[float, float]
    """Interval of public - whole, the score of public and private rows together."""


@dataclass(frozen=True)
class SimulatedLB:
    """What a leaderboard that shows a part of the test rows says of runs."""

    public_frac: float
    n_public: int
    """Rows (or groups) in the public part of a draw."""
    n_private: int
    units: str
    """What is drawn: `rows`, or `groups`, which lie on one side whole."""
    size_of: str
    """`test set` or `OOF`: whose size the drawn test set has."""
    is_repeated: bool
    """Whether units are drawn with replacement, because the test set has more of them than the OOF."""
    n_draws: int
    n_undefined: int
    """Draws of which a score is undefined; they are left out."""
    runs: tuple[Straying, ...]
    """One for each run."""
    flip_prob: float | None
    """Two runs: the share of draws in which the public board orders them the other way round than the private one."""


def simulate_lb(
    oofs: Sequence[Predictions],
    rows: Rows,
    metric: Metric,
    public_frac: float,
    n_draws: int = 1000,
    key: int = make_key("simulate-lb"),
    n_test: int | None = None,
    limit_sec: float = LIMIT_SEC,
) -> SimulatedLB:
    """Return how far public scores stray, from public and private parts drawn at random from rows of the OOF.

    Every draw takes as many rows as the test set has and splits them; all runs are scored on the same ones. With a
    group column whole groups are drawn, as many as hold that share of the rows.

    Args:
        oofs: of one task, in any row order; only the rows that all hold are drawn.
        rows: the labelled rows.
        metric: the task's.
        public_frac: share of the drawn rows that is public, in (0, 1).
        n_draws: how many splits are drawn; a slow metric may make fewer, see `bootstrap_scores`.
        key: what the draws are for.
        n_test: rows of the submission; the OOF's own number when None.
        limit_sec: see `bootstrap_scores`.

    Raises:
        ConfigError: `public_frac` is not between 0 and 1.
        DataError: too few rows or groups to split.
        UndefinedMetricError: the metric is undefined on half of the draws or more.
    """
    if not 0 < public_frac < 1:
        raise ConfigError(f"--simulate-lb {public_frac:g}: expected the public share of the test rows, between 0 and 1")
    pairs = pair_rows(oofs, rows)
    unit_of = np.arange(len(pairs.ids)) if pairs.groups is None else np.unique(pairs.groups, return_inverse=True)[1]
    n_units = int(unit_of.max()) + 1
    n_drawn = n_units if n_test is None else round(n_test * n_units / len(pairs.ids))
    n_public = round(public_frac * n_drawn)
    if not 0 < n_public < n_drawn:
        raise DataError(f"--simulate-lb {public_frac:g}: {n_drawn} rows or groups leave a side of the split empty")
    counts = _split_counts(unit_of, n_units, n_drawn, n_public, n_draws, key)
    scores = score_draws(pairs.targets, pairs.values, metric, counts, limit_sec, 3).reshape(-1, 3, len(oofs))
    return SimulatedLB(
        public_frac=public_frac,
        n_public=n_public,
        n_private=n_drawn - n_public,
        units="rows" if pairs.groups is None else "groups",
        size_of="OOF" if n_test is None else "test set",
        is_repeated=n_drawn > n_units,
        n_draws=len(scores),
        n_undefined=int(np.isnan(scores).any(axis=(1, 2)).sum()),
        runs=tuple(_straying(scores[:, :, run]) for run in range(len(oofs))),
        flip_prob=_flip_prob(scores) if len(oofs) == 2 else None,
    )


def _split_counts(
    unit_of: NDArray[np.int64], n_units: int, n_drawn: int, n_public: int, n_draws: int, key: int
) -> Iterator[Floats]:
    """Yield chunks (3 B, N): how often each row is public, private, and in either, three lines for each draw."""
    at_once = max(1, _CELLS_AT_ONCE // max(n_drawn, len(unit_of)))
    for start in range(0, n_draws, at_once):
        numbers = np.arange(start, min(start + at_once, n_draws), dtype=np.uint64)
        chances = uniforms(key, numbers, max(n_units, n_drawn))
        if n_drawn <= n_units:
            ends = sorted({n_public - 1, n_drawn - 1})  # the lowest chances are public, the next ones private
            drawn = np.argpartition(chances, ends, axis=1)[:, :n_drawn]
        else:
            drawn = (chances * n_units).astype(np.int64)
        public, private = (_counted(part, n_units) for part in (drawn[:, :n_public], drawn[:, n_public:]))
        lines = np.stack([public, private, public + private], axis=1).reshape(-1, n_units)
        yield lines[:, unit_of].astype(np.float64)


def _counted(drawn: NDArray[np.int64], n_units: int) -> NDArray[np.int64]:
    """Return (B, n_units) how often each unit occurs in each line of `drawn`."""
    cells = drawn + n_units * np.arange(len(drawn))[:, None]
    return np.bincount(cells.ravel(), minlength=len(drawn) * n_units).reshape(len(drawn), n_units)


def _straying(scores: Floats) -> Straying:
    """Return how one run's public score strays, from its scores (D, 3) on public, private and all drawn rows."""
    from_private, from_whole = scores[:, 0] - scores[:, 1], scores[:, 0] - scores[:, 2]
    return Straying(standard_error(from_private), interval(from_private), interval(from_whole))


def _flip_prob(scores: Floats) -> float:
    lead = scores[:, :2, 1] - scores[:, :2, 0]
    lead = lead[~np.isnan(lead).any(axis=1)]
    return float(np.mean(lead[:, 0] * lead[:, 1] < 0))
