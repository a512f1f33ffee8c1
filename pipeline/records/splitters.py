"""How rows are dealt to folds: pure functions of arrays whose rows stand in the order of their ids.

Classes and groups are numbered by first appearance before they reach a splitter, so that their names and numbers
change nothing.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError
from pipeline.base.keyed import make_key, permutation, uniforms

Ints = NDArray[np.int64]


def deal_rows(
    scheme: str,
    strata: NDArray[Any] | None,
    groups: NDArray[Any] | None,
    n: int,
    n_folds: int,
    seed: int,
    holdout_frac: float = 0.0,
    balanced: NDArray[Any] | None = None,
) -> Ints:
    """Return the fold of each row, (N,): 0..F-1, -2 for the holdout, -1 where a class has no other row or group.

    Args:
        scheme: plain, stratified, quantile, group, stratified_group or multilabel.
        strata: (N,) class or bin, or (N, K) labels in {0, 1}; None where nothing is to be balanced or kept together.
        groups: (N,) what must not be divided; read by the schemes with groups only.
        n: N.
        n_folds: F, >= 2.
        seed: any whole number; another one gives another split.
        holdout_frac: share of rows for fold -2, in [0, 1); met within a row per class, or as groups allow.
        balanced: (N,) what is dealt evenly within each class or bin too, such as subjects; labels know none of it.

    Raises:
        ConfigError: fewer rows, groups or members of the largest class than folds.
    """
    units = by_appearance(groups) if groups is not None and "group" in scheme else np.arange(n)
    strata = by_appearance(strata) if strata is not None and strata.ndim == 1 else strata
    guarded = strata if scheme not in ("plain", "quantile") else None
    fold = np.zeros(n, dtype=np.int64)
    fold[lone_rows(guarded, units, fold == 0)] = -1
    if holdout_frac:
        free = np.flatnonzero(fold == 0)
        fold[free[_holdout(scheme, _take(strata, free), units[free], holdout_frac, seed)]] = -2
        fold[lone_rows(guarded, units, fold == 0)] = -1
    if balanced is not None and strata is not None and strata.ndim == 1:
        strata = _pairs(strata, by_appearance(balanced), n_folds)
    free = np.flatnonzero(fold == 0)
    fold[free] = _deal(scheme, _take(strata, free), units[free], n_folds, seed)
    return fold


def stratify_labels(labels: NDArray[Any], shares: NDArray[np.float64], key: int) -> Ints:
    """Return a part for each row, (N,) in 0..P-1, so that each label is spread over the parts by their shares.

    The rarest label is dealt first, each of its rows to the part that lacks that label most, then rows most, then by
    lot; rows without labels come last.

    Args:
        labels: (N, K) in {0, 1}.
        shares: (P,) summing to one.
        key: of the lots, from `make_key`.

    Source: iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011,
    https://doi.org/10.1007/978-3-642-23808-6_10).
    """
    has = labels > 0.5
    n, part = len(has), np.full(len(has), -1, dtype=np.int64)
    order = permutation(key, n)
    lots = uniforms(make_key("lots", key), np.arange(n, dtype=np.uint64), len(shares))
    lacks_rows = n * shares
    lacks = has.sum(axis=0)[:, None] * shares[None, :]

    def place(row: int, need: NDArray[np.float64]) -> None:
        best = np.lexsort((lots[row], lacks_rows, need))[-1]
        part[row] = best
        lacks[has[row], best] -= 1
        lacks_rows[best] -= 1

    while True:
        left = has[part < 0].sum(axis=0)
        if not left.any():
            break
        label = int(np.argmin(np.where(left > 0, left, n + 1)))
        for row in order[has[order, label] & (part[order] < 0)]:
            place(row, lacks[label])
    for row in order[part[order] < 0]:
        place(row, lacks_rows)
    return part


def quantile_bins(values: NDArray[Any], n_bins: int) -> Ints:
    """Return the quantile bin of each row, (N,); equal values share a bin, so there may be fewer than `n_bins`.

    Args:
        values: (N, T); with T > 1 a row is binned by the mean of its ranks in the columns.
        n_bins: >= 1.
    """
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0).mean(axis=1)
    edges = np.unique(np.quantile(ranks, np.linspace(0, 1, n_bins + 1)[1:-1]))
    return np.asarray(np.searchsorted(edges, ranks, side="left"), dtype=np.int64)


def lone_rows(strata: NDArray[Any] | None, units: Ints, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (N,) which rows belong to a unit that alone holds some class or label, counting the rows `among` only.

    Args:
        strata: (N,) class, or (N, K) labels in {0, 1}; None: no row is lone.
        units: (N,) row number or group.
        among: (N,) which rows count, and may be returned.
    """
    if strata is None:
        return np.zeros(len(units), dtype=bool)
    rows = np.flatnonzero(among)
    columns = strata[rows]
    if strata.ndim == 2:
        at, columns = np.nonzero(columns > 0.5)
        rows = rows[at]
    holders = np.unique(np.stack([columns, units[rows]], axis=1), axis=0)
    classes, counts = np.unique(holders[:, 0], return_counts=True)
    lone = holders[np.isin(holders[:, 0], classes[counts == 1]), 1]
    return np.asarray(np.isin(units, lone) & among)


def by_appearance(values: NDArray[Any]) -> Ints:
    """Return each value's number, (N,), counting distinct values in the order of their first appearance."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse.reshape(-1)], dtype=np.int64)


def _holdout(scheme: str, strata: NDArray[Any] | None, units: Ints, frac: float, seed: int) -> NDArray[np.bool_]:
    """Return which rows to set apart: whole units, stratum by stratum in random order, each time a share is due."""
    key = make_key("holdout", seed)
    if scheme == "multilabel" and strata is not None:
        return np.asarray(stratify_labels(strata, np.array([1 - frac, frac]), key) == 1)
    names, first, inverse, sizes = np.unique(units, return_index=True, return_inverse=True, return_counts=True)
    # The first row's class stands for its group: shuffling then sorting by it spreads the holdout over the classes.
    stratum = strata[first] if strata is not None and strata.ndim == 1 else np.zeros(len(names))
    shuffled = permutation(key, len(names))
    due, chosen = 0.0, np.zeros(len(names), dtype=bool)
    for unit in shuffled[np.argsort(stratum[shuffled], kind="stable")]:
        due += sizes[unit] * frac
        if due >= sizes[unit] / 2:
            chosen[unit] = True
            due -= sizes[unit]
    return np.asarray(chosen[inverse.reshape(-1)])


def _deal(scheme: str, strata: NDArray[Any] | None, units: Ints, n_folds: int, seed: int) -> Ints:
    """Return the fold of each row, 0..F-1."""
    n_units, what = len(np.unique(units)), "groups" if "group" in scheme else "rows"
    if n_units < n_folds:
        raise ConfigError(f"folds.n_folds = {n_folds}, but there are only {n_units} {what} to deal; lower it")
    if scheme == "multilabel" and strata is not None:
        return stratify_labels(strata, np.full(n_folds, 1 / n_folds), make_key("folds", seed))
    needs_classes = scheme in ("stratified", "stratified_group")
    if needs_classes and strata is not None and (most := int(np.bincount(strata).max())) < n_folds:
        raise ConfigError(f"folds.n_folds = {n_folds}, but the largest class has only {most} rows to deal; lower it")
    numpy_seed = make_key("folds", seed) % 2**32
    if scheme == "plain":
        return deal_evenly(len(units), n_folds, numpy_seed)
    if scheme in ("stratified", "quantile") and strata is not None:
        return deal_classes(by_appearance(strata), n_folds, numpy_seed)
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    splitter = {"group": GroupKFold, "stratified_group": StratifiedGroupKFold}[scheme]
    fold = np.empty(len(units), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer rows than folds; `check_folds` reports them
        parts = splitter(n_splits=n_folds, shuffle=True, random_state=numpy_seed).split(
            np.zeros(len(units)), strata, units
        )
        for number, (_, held_out) in enumerate(parts):
            fold[held_out] = number
    return fold


def deal_evenly(n: int, n_folds: int, seed: int) -> Ints:
    """Return the fold of each of n rows, 0..F-1, as scikit-learn's shuffled KFold deals them.

    Its own is not used as its import takes a second, before the first training of every task.
    """
    fold, shuffled = np.empty(n, dtype=np.int64), np.arange(n)
    np.random.RandomState(seed).shuffle(shuffled)
    fold[shuffled] = np.sort(np.arange(n) % n_folds)
    return fold


def deal_classes(classes: Ints, n_folds: int, seed: int) -> Ints:
    """Return the fold of each row, 0..F-1, as scikit-learn's shuffled StratifiedKFold deals them; see `deal_evenly`.

    Sorted by class the rows are dealt like cards, which says how many of a class each fold gets; which rows of the
    class these are is drawn.

    Args:
        classes: (N,) numbered 0..K-1 by first appearance.
        n_folds: F.
        seed: of NumPy's Mersenne Twister.
    """
    rng = np.random.RandomState(seed)
    ends = np.cumsum(np.bincount(classes))
    by_class = np.argsort(classes, kind="stable")
    fold, dealt = np.empty(len(classes), dtype=np.int64), np.arange(len(classes)) % n_folds
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        hand = np.sort(dealt[begin:end])
        rng.shuffle(hand)
        fold[by_class[begin:end]] = hand
    return fold


def _pairs(strata: NDArray[Any], units: Ints, n_folds: int) -> Ints:
    """Return a class for each pair of a class and a unit; the classes alone where no pair has a row for each fold."""
    pairs = by_appearance(np.unique(np.stack([strata, units], axis=1), axis=0, return_inverse=True)[1].reshape(-1))
    return pairs if np.bincount(pairs).max() >= n_folds else np.asarray(strata, dtype=np.int64)


def _take(strata: NDArray[Any] | None, rows: Ints) -> NDArray[Any] | None:
    return None if strata is None else strata[rows]
