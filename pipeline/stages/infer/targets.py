"""Which column, or columns, of the labelled rows are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.base.errors import DataError, listed, nearest
from pipeline.stages.infer.columns import Column, Table, hints_at, plain_form, same_names, shared, words_of
from pipeline.stages.infer.findings import Finding, Sure
from pipeline.stages.infer.roles import classes_named, column_of_classes, labels_in
from pipeline.stages.infer.samples import INDEX_NAMES, Sample

NAMES = ("label", "target", "class", "category", "breed", "species", "diagnosis", "grade", "score", "y")
"""Beginnings of names that targets often have."""
_SUM_SLACK = 0.02
_MOST_VOTES = 100
_KEYS = ("id", "index", "age", "angle", "size", "kb", "lat", "lon")
"""Beginnings of words in names of numbers that are no shares of a whole."""
_NEVER = (
    "fold",
    "split",
    "date",
    "time",
    "path",
    "file",
    "width",
    "height",
    "url",
    "source",
    "bbox",
    "patient",
    "subject",
)


@dataclass(frozen=True)
class Targets:
    """The target columns, and how they were told."""

    names: tuple[str, ...]
    finding: Finding
    is_melted: bool = False
    """Whether the sample has a column for each class of the one target column."""


def find_targets(
    train: Table, test: Table | None, sample: Sample | None, given: Sequence[str], not_targets: Iterable[str]
) -> Targets:
    """Return the target columns of the labelled rows.

    Args:
        train: the labelled rows.
        test: the rows to predict, which lack the target.
        sample: what is asked for.
        given: target columns that the user states; may be empty.
        not_targets: columns that name rows or files.

    Raises:
        DataError: a stated column is missing, or no column can be the target; the message lists what there is.
    """
    if given:
        return _stated(train, sample, given)
    closed = set(not_targets) | INDEX_NAMES
    if sample is not None:
        found = _asked_for(train, test, sample, closed)
        if found is not None:
            return found
    return _class_columns(train, test, sample, closed) or _left_over(train, test, sample, closed)


def _stated(train: Table, sample: Sample | None, given: Sequence[str]) -> Targets:
    missing = [name for name in given if name not in train.columns]
    if missing:
        near = nearest(missing[0], train.columns)
        raise DataError(
            f"target: {train.shown} has no column '{missing[0]}'.{near} Columns: {listed(train.columns, 12)}"
        )
    is_melted = len(given) == 1 and sample is not None and sample.value is None and given[0] not in sample.value_columns
    return Targets(tuple(given), Finding("target", listed(given, 6), "as you said"), is_melted)


def _asked_for(train: Table, test: Table | None, sample: Sample, closed: set[str]) -> Targets | None:
    """Return the columns that the sample's value columns name, directly or as classes."""
    wanted = sample.value_columns
    spelled = same_names(wanted, [name for name in train.columns if name not in closed])
    if spelled is not None:
        own = tuple(spelled[name] for name in wanted)
        more = _alike(train, test, own) if len(own) > 1 else ()
        reason = f"{_columns(own)} of {sample.table.shown} that {train.shown} has"
        if more:
            reason += f", and {len(more)} more like them ({listed(more, 4)}), which help to learn and are not asked for"
        names = tuple(name for name in train.columns if name in {*own, *more}) if more else own
        return Targets(names, Finding("target", listed(names, 6), reason))
    if len(wanted) > 1 and (column := column_of_classes(train, wanted)) is not None and column.name not in closed:
        reason = f"its cells hold the names of the {len(wanted)} value columns of {sample.table.shown}"
        return Targets((column.name,), Finding("target", column.name, reason), is_melted=True)
    return None


def _class_columns(train: Table, test: Table | None, sample: Sample | None, closed: set[str]) -> Targets | None:
    """Return columns that are classes, labels or shares of a whole, where nothing names them: test lacks them all.

    Where a sample has one value column, they must be one-hot, or the sample's cells must name them.
    """
    in_test = set(test.columns) if test is not None else set()
    able = [
        column for column in train.columns.values() if column.name not in closed | in_test and _may_be_share(column)
    ]
    named = classes_named(sample) if sample is not None else frozenset()
    for columns, limit in (([column for column in able if column.is_within((0, 1))], 1), (able, None)):
        if len(columns) < 2:
            continue
        sums = np.stack([column.cells.astype(np.float64) for column in columns]).sum(axis=0)
        is_whole = bool(np.abs(sums - 1).max() < _SUM_SLACK)
        is_named = any(column.name in named for column in columns)
        names = tuple(column.name for column in columns)
        if is_whole or (is_named and sums.min() > 0):
            reason = f"{len(names)} columns that sum to one in each row: one for each class"
            return Targets(names, Finding("target", listed(names, 6), reason, "likely"))
        has_other = any(
            hints_at(words_of(column.name), NAMES) for column in train.columns.values() if column.name not in names
        )
        if sample is None and not has_other and sums.min() > 0 and (limit == 1 or _are_votes(columns)):
            what = "zeros and ones" if limit == 1 else "small counts"
            reason = f"{len(names)} columns of {what} that nothing else explains"
            return Targets(names, Finding("target", listed(names, 6), reason, "guess", f"target={names[-1]}"))
    return None


def _may_be_share(column: Column) -> bool:
    """Say whether a column has numbers from zero up in every row, under a name that is none of a measurement."""
    is_named_else = hints_at(words_of(column.name), (*_NEVER, *_KEYS))
    is_from_zero = column.numbers is not None and column.numbers[0] >= 0
    return is_from_zero and column.n_empty == 0 and not column.is_key and not is_named_else


def _are_votes(columns: Sequence[Column]) -> bool:
    """Say whether columns look like counts of votes: small whole numbers, each column with zeros or ones among them."""
    return all(
        column.is_whole and column.numbers is not None and column.numbers[-1] <= _MOST_VOTES for column in columns
    )


def _left_over(train: Table, test: Table | None, sample: Sample | None, closed: set[str]) -> Targets:
    """Return the one column that could be the target, by what test lacks, the cells of the sample, and its name."""
    able = [column for column in train.columns.values() if column.name not in closed and not column.is_constant]
    if not able:
        raise DataError(
            f"{train.shown}: no column can be the target: of {listed(train.columns, 12)} each names the rows or files, "
            "or is the same in all rows; say target=COLUMN, or give the table with the labels"
        )
    scores = {column.name: _score(column, place / len(able), test, sample) for place, column in enumerate(able)}
    ranked = sorted(scores, key=lambda name: -scores[name])
    best = ranked[0]
    lacking = test is not None and best not in test.columns
    reason = f"{test.shown} lacks it" if lacking and test is not None else f"of {listed(train.columns, 6)} it fits best"
    if len(able) == 1:
        reason = "the only column beside those that name rows or files"
    is_tie = len(ranked) > 1 and scores[best] - scores[ranked[1]] < 1
    sure: Sure = "guess" if is_tie else "likely"
    melted = sample is not None and sample.value is None
    flag = f"target={ranked[1]}" if is_tie else ""
    return Targets((best,), Finding("target", best, reason, sure, flag), is_melted=melted)


def _score(column: Column, place: float, test: Table | None, sample: Sample | None) -> float:
    words = words_of(column.name)
    score = 3.0 * hints_at(words, NAMES) - 3.0 * hints_at(words, _NEVER) - 3.0 * column.is_key + place
    score -= 1.0 * ("id" in words or column.name.lower().endswith("id"))
    if test is not None:
        score += 3.0 if column.name not in test.columns else -4.0
    if sample is not None and sample.value is not None:
        asked = words_of(sample.value.name)
        score += 2.0 * bool(asked & words) + 1.0 * (plain_form(column.name) in plain_form(sample.value.name))
        if sample.cells == "text":
            score += 5.0 * (shared(sample.placeholders, column.values | labels_in(column.values)) > 0.5)
            score += 2.0 * bool(classes_named(sample) & labels_in(column.values))
        elif sample.cells == "float":
            score += 1.0 * (column.numbers is not None)
    return score


def _alike(train: Table, test: Table | None, own: Sequence[str]) -> tuple[str, ...]:
    """Return columns of zeros and ones that stand between or right beside wanted ones like them, and not in test."""
    if not all(train.columns[name].is_within((0, 1)) for name in own):
        return ()
    names = list(train.columns)
    in_test = set(test.columns) if test is not None else set()
    places = [names.index(name) for name in own]
    first, last = min(places), max(places)
    while first > 0 and train.columns[names[first - 1]].is_within((0, 1)) and names[first - 1] not in in_test:
        first -= 1
    while last + 1 < len(names) and train.columns[names[last + 1]].is_within((0, 1)) and names[last + 1] not in in_test:
        last += 1
    between = names[first : last + 1]
    is_block = all(train.columns[name].is_within((0, 1)) for name in between)
    return tuple(name for name in between if name not in own and name not in in_test) if is_block else ()


def _columns(names: Sequence[str]) -> str:
    return "the value column" if len(names) == 1 else f"the {len(names)} value columns"
