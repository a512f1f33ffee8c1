"""Which rows without labels to trust, and what their soft targets are: pure functions on the teachers' mean.

Every rule looks at the *decided* class of a row (the most probable one, ties to the lower index) and its probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError, listed, nearest

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

SMALLEST = 1e-12
"""Where probabilities are cut before their logarithm is taken."""


@dataclass(frozen=True)
class Trust:
    """How rows are chosen; what is None does not restrict. All that are given must hold."""

    threshold: float | None = None
    """Smallest probability of the decided class (multilabel: of every label's decision)."""
    class_thresholds: Mapping[str, float] = field(default_factory=dict)
    """The same for single classes by name, in place of `threshold`."""
    top_n: int | None = None
    """At most so many rows of each decided class, the surest ones."""
    proportion: float | None = None
    """This share of all rows, dealt to the classes by their share among the labelled rows; the surest of each."""
    keep_frac: float | None = None
    """Values: this share of the rows, those on which the teachers differ least."""


def check_trust(trust: Trust, names: Sequence[str], is_value: bool, is_exclusive: bool) -> None:
    """Raise ConfigError for a rule that does not fit the kind of task, or a number out of its range."""
    shares = {"threshold": trust.threshold, "proportion": trust.proportion, "keep-frac": trust.keep_frac}
    for name, share in [*shares.items(), *((f"thresholds {k}", v) for k, v in trust.class_thresholds.items())]:
        if share is not None and not 0 < share <= 1:
            raise ConfigError(f"--{name}: must lie above 0 and not above 1 (found: {share})")
    if trust.top_n is not None and trust.top_n < 1:
        raise ConfigError(f"--top-n: must be at least 1 (found: {trust.top_n})")
    if unknown := [name for name in trust.class_thresholds if name not in names]:
        raise ConfigError(
            f"--thresholds: '{unknown[0]}' is no class.{nearest(unknown[0], names)} Known: {listed(names)}"
        )
    by_class = bool(trust.top_n or trust.proportion or trust.class_thresholds)
    if is_value and (trust.threshold or by_class):
        raise ConfigError("values have no classes: of the rules, only --keep-frac fits this task")
    if not is_value and trust.keep_frac is not None:
        raise ConfigError("--keep-frac: is for values; classes have --threshold, --top-n and --proportion")
    if not is_exclusive and by_class:
        raise ConfigError("a row of this task may have several labels: of the rules, only --threshold fits it")


def trusted_rows(probs: Floats, trust: Trust, names: Sequence[str], prior: Floats) -> Positions:
    """Return the positions of the rows whose one class is trusted, ascending.

    Args:
        probs: (U, K) rows summing to one.
        trust: the rules.
        names: (K) class names.
        prior: (K,) share of each class among the labelled rows, for `proportion`.
    """
    decided, sure = probs.argmax(axis=1), probs.max(axis=1)
    wanted = np.array([trust.class_thresholds.get(name, trust.threshold or 0.0) for name in names])
    is_trusted = sure >= wanted[decided]
    most = np.full(len(names), len(probs))
    if trust.top_n is not None:
        most = np.minimum(most, trust.top_n)
    if trust.proportion is not None:
        most = np.minimum(most, np.floor(prior * trust.proportion * len(probs) + 0.5).astype(np.int64))
    chosen = []
    for label, quota in enumerate(most.tolist()):
        candidates = np.flatnonzero(is_trusted & (decided == label))
        surest = np.argsort(-sure[candidates], kind="stable")[:quota]
        chosen.append(candidates[surest])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def trusted_multilabel(probs: Floats, trust: Trust) -> Positions:
    """Return the positions of the rows of which every label is decided with enough certainty, ascending."""
    sure = np.maximum(probs, 1 - probs).min(axis=1)
    return np.flatnonzero(sure >= (trust.threshold or 0.0)).astype(np.int64)


def trusted_values(values: Floats, keep_frac: float | None) -> Positions:
    """Return the positions of the values on which the teachers differ least, ascending.

    Args:
        values: (M, U, T) of each teacher, at least two where some rows are left out.
        keep_frac: the share of rows to keep; None keeps all.

    Raises:
        DataError: one teacher alone shows no spread.
    """
    if keep_frac is None:
        return np.arange(values.shape[1])
    if len(values) < 2:
        raise DataError(
            "pseudo-labels of values are trusted by the spread of their teachers, and there is one only; train the run"
            " with two seeds (seeds=[0,1]) or name two runs"
        )
    spread = values.std(axis=0)
    scale = values.mean(axis=0).std(axis=0)
    relative = (spread / np.where(scale > 0, scale, 1.0)).mean(axis=1)
    n_kept = max(1, round(keep_frac * len(relative)))
    return np.sort(np.argsort(relative, kind="stable")[:n_kept]).astype(np.int64)


def sharpen(probs: Floats, temperature: float) -> Floats:
    """Return p^(1/T), rows scaled to sum to one; T < 1 sharpens, T > 1 softens, 1 leaves them as they are."""
    logs = np.log(np.clip(probs, SMALLEST, None)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def harden(probs: Floats) -> Floats:
    """Return the decided class as one-hot rows."""
    return np.asarray(np.eye(probs.shape[1])[probs.argmax(axis=1)])
