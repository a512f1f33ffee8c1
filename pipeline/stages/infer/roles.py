"""Which table holds the labelled rows, which the rows to predict, and which is the sample submission.

By content first: the sample has the test ids and columns of placeholders, train has what the sample asks for and test
lacks. Names of files break ties.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.base.errors import DataError, listed
from pipeline.stages.infer.columns import Column, Table, hints_at, plain_form, shared
from pipeline.stages.infer.items import FileIndex, share_found
from pipeline.stages.infer.samples import SEPARATORS, Sample, bare, read_sample, split

_SAMPLE = ("sample", "submi", "subm")
_SAMPLE_TOO = ("example", "template", "format", "upload")
_TRAIN = ("train",)
_LABELS = ("label", "target", "truth", "annot", "answers")
_TEST = ("test", "eval")
_VALID = ("val", "dev")
_ASIDE = (
    "old",
    "meta",
    "extra",
    "annot",
    "external",
    "additional",
    "noise",
    "dictionary",
    "mapping",
    "legend",
    "bbox",
    "box",
)
_THRESHOLD = 3.0


@dataclass(frozen=True)
class Roles:
    """The tables by what they are; None where there is none."""

    train: Table | None
    test: Table | None
    sample: Sample | None
    valid: Table | None = None
    """Further labelled rows that the host set apart to validate on."""
    others: tuple[Table, ...] = ()


def find_roles(
    tables: Sequence[Table],
    index: FileIndex,
    given: dict[str, Table],
    targets: Sequence[str] = (),
    n_items: frozenset[int] = frozenset(),
) -> Roles:
    """Return what each table is.

    Args:
        tables: every table of the competition.
        index: the item files, which ids may name.
        given: tables whose role the user states, by `train`, `test`, `sample`.
        targets: target columns that the user states.
        n_items: how many items each array of the competition holds, whose labels may be a table of one column.

    Raises:
        DataError: the labelled rows lie in the file that is called test, and the other way round.
    """
    free = [table for table in tables if table not in given.values()]
    sample = read_sample(given["sample"]) if "sample" in given else _find_sample(free, tables)
    free = [table for table in free if sample is None or table is not sample.table]
    wanted = list(targets) or (list(sample.value_columns) if sample is not None else [])
    if not given:
        _refuse_mix_up(tables, sample, wanted)
    train = given.get("train") or _best(free, lambda table: _as_train(table, sample, wanted, index, n_items))
    free = [table for table in free if table is not train]
    test = given.get("test") or _best(free, lambda table: _as_test(table, train, sample, wanted, index))
    free = [table for table in free if table is not test]
    valid = next((table for table in free if train is not None and _is_valid_part(table, train)), None)
    if sample is not None and test is not None:
        sample = read_sample(sample.table, [column.values for column in test.columns.values()])
    return Roles(train, test, sample, valid, tuple(table for table in free if table is not valid))


def classes_named(sample: Sample | None) -> frozenset[str]:
    """Return what a sample names: its value columns, or the labels in the cells of its one value column."""
    if sample is None:
        return frozenset()
    if sample.value is None:
        return frozenset(sample.value_columns)
    return labels_in(sample.value.values)


def labels_in(cells: Iterable[str]) -> frozenset[str]:
    """Return cells and the labels that they may list, for comparisons."""
    found = set(cells)
    for cell in list(found):
        for separator in SEPARATORS:
            found.update(split(bare(cell), separator))
    return frozenset(found)


def column_of_classes(table: Table, names: Iterable[str]) -> Column | None:
    """Return the column whose cells hold the given class names, as a sample has one column for each class."""
    wanted = {plain_form(name) for name in names}
    for column in table.columns.values():
        if column.is_constant or column.is_key or len(column.values) > 50 * len(wanted):
            continue
        cells = {plain_form(cell) for cell in column.values}
        tokens = cells | {plain_form(label) for label in labels_in(column.values)}
        if shared(wanted, tokens) >= 0.8 and (len(cells) <= 1.25 * len(wanted) or shared(cells, wanted) > 0):
            return column
    return None


def _find_sample(free: Sequence[Table], tables: Sequence[Table]) -> Sample | None:
    found = _best(free, lambda table: _as_sample(table, tables))
    if found is None:
        return None
    others = [column.values for table in tables if table is not found for column in table.keys]
    return read_sample(found, others)


def _as_sample(table: Table, tables: Sequence[Table]) -> float:
    if len(table.columns) < 2 or not table.keys or table.pixels is not None:
        return -math.inf
    values = [column for column in table.columns.values() if column is not table.keys[0]]
    score = 4.0 * hints_at(table.words, _SAMPLE) + 1.0 * hints_at(table.words, _SAMPLE_TOO)
    score += 2.0 * all(column.is_constant for column in values)
    score -= 4.0 * hints_at(table.words, (*_TRAIN, *_LABELS)) + 2.0 * hints_at(table.words, _TEST)
    twins = [
        other
        for other in tables
        if other is not table and any(key.values == own.values for key in other.keys for own in table.keys)
    ]
    names = {column.name for column in values}
    return score + 3.0 * any(not names & set(other.columns) for other in twins)


def _as_train(
    table: Table, sample: Sample | None, wanted: Sequence[str], index: FileIndex, n_items: frozenset[int]
) -> float:
    has_items = table.pixels is not None or bool(table.arrays) or table.n_rows in n_items
    if not table.n_rows or (len(table.columns) < 2 and not has_items):
        return -math.inf
    ids = sample.ids.values if sample is not None else frozenset()
    found = [name for name in wanted if name in table.columns and table.columns[name].counts]
    score = 5.0 * len(found) / len(wanted) if wanted else 0.0
    if len(wanted) > 1 and not found and column_of_classes(table, wanted) is not None:
        score += 5.0
    if sample is not None and sample.value is not None and sample.cells == "text":
        cells = classes_named(sample)
        score += 2.0 * any(shared(cells, column.values | labels_in(column.values)) > 0.5 for column in _few(table))
    score += 3.0 * hints_at(table.words, _TRAIN) + 2.0 * hints_at(table.words, _LABELS)
    score -= (
        4.0 * hints_at(table.words, _TEST)
        + 3.0 * hints_at(table.words, (*_SAMPLE, *_ASIDE))
        + 2.0 * hints_at(table.words, _VALID)
    )
    score += 1.0 * bool(table.keys) + 3.0 * has_items
    score -= 6.0 * any(ids and key.values == ids for key in table.keys)
    score += 3.0 * max((share_found(column, index) for column in table.columns.values()), default=0.0)
    return score + 0.5 * math.log10(max(table.n_rows, 1)) - 1.0


def _as_test(
    table: Table, train: Table | None, sample: Sample | None, wanted: Sequence[str], index: FileIndex
) -> float:
    ids = sample.ids.values if sample is not None else frozenset()
    score = 3.0 * hints_at(table.words, _TEST) - 3.0 * hints_at(table.words, (*_TRAIN, *_ASIDE, *_VALID))
    if ids:
        score += 5.0 * any(key.values == ids for key in table.keys)
        score += 4.0 * any(column.values == ids for column in table.columns.values() if not column.is_key)
        score += 1.0 * (table.n_rows == len(ids))
    if train is not None and table.pixels is not None and train.pixels is not None:
        score += 3.0 * (table.pixels.names == train.pixels.names)
    if train is not None and table.arrays and train.arrays:
        score += 3.0 * (set(table.arrays) == set(train.arrays))
    score += 1.0 * any(share_found(key, index) > 0.9 for key in table.keys)
    return score - 5.0 * any(name in table.columns and table.columns[name].counts for name in wanted)


def _is_valid_part(table: Table, train: Table) -> bool:
    """Say whether a table holds further labelled rows, set apart to validate on."""
    return hints_at(table.words, _VALID) and set(table.columns) == set(train.columns) and table.n_rows > 0


def _refuse_mix_up(tables: Sequence[Table], sample: Sample | None, wanted: Sequence[str]) -> None:
    """Raise where the file with the labels is called test and one without them train."""
    free = [table for table in tables if (sample is None or table is not sample.table) and wanted]
    labelled = [table for table in free if all(name in table.columns and table.columns[name].counts for name in wanted)]
    swapped = [table for table in labelled if hints_at(table.words, _TEST) and not hints_at(table.words, _TRAIN)]
    others = [table for table in free if hints_at(table.words, _TRAIN) and not set(wanted) & set(table.columns)]
    if swapped and others and len(labelled) == len(swapped):
        own, other = swapped[0], others[0]
        raise DataError(
            f"{own.shown} has the labels ({listed(wanted, 5)}) and {other.shown} has none: are train and test mixed "
            f"up? Rename the files, or say which is which: train.table={own.shown} test.table={other.shown}"
        )


def _few(table: Table) -> list[Column]:
    """Return columns with repeated values, which may hold classes."""
    return [column for column in table.columns.values() if not column.is_constant and not column.is_key]


def _best(tables: Iterable[Table], score: Callable[[Table], float]) -> Table | None:
    scored = [(score(table), -place, table) for place, table in enumerate(tables)]
    best = max(scored, key=lambda each: each[:2], default=None)
    return best[2] if best is not None and best[0] >= _THRESHOLD else None
