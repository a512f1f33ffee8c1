"""Which column must not straddle folds: patients, sessions, places; and which split the host has made himself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.stages.infer.columns import Column, Strings, Table, hints_at, words_of
from pipeline.stages.infer.findings import Finding

NAMES = (
    "patient", "subject", "session", "person", "participant", "individual", "user", "donor", "case", "study", "series",
    "site", "location", "place", "scene", "camera", "speaker", "singer", "recording", "recordist", "video", "clip",
    "sequence", "slide", "plate", "batch", "experiment", "animal", "farm", "field", "plot", "hospital", "family",
    "group", "trial", "vessel", "well",
)  # fmt: skip
"""Beginnings of words in names of columns that rows of one origin share."""
_NEVER = ("date", "time", "width", "height", "url", "age", "sex", "gender", "view", "folder", "split", "fold")
FOLD_NAMES = ("fold", "kfold")
MIN_GROUPS = 5
"""With fewer values than folds some folds would hold out nothing."""
_NEW = 0.1
"""At most this share of the test values may occur in training for test groups to count as new."""


def find_group(train: Table, test: Table | None, classes: Strings | None, closed: Iterable[str]) -> Finding | None:
    """Return the column that no two folds may share a value of, as a finding of `group`, or None.

    Args:
        train: the labelled rows.
        test: the rows to predict; without the column there, its name decides.
        classes: (N,) the class of each row (values in bins); None for several labels.
        closed: columns that are ids, files or targets.
    """
    taken = set(closed)
    best: tuple[float, Finding] | None = None
    for column in train.columns.values():
        if column.name in taken or not _is_repeated(column) or hints_at(words_of(column.name), _NEVER):
            continue
        if classes is not None and fixes_class(column.cells, classes):
            continue
        named = hints_at(words_of(column.name), NAMES)
        finding = _judged(column, test, named)
        score = 2.0 * named + np.log10(len(column.counts)) / 10
        if finding is not None and (best is None or score > best[0]):
            best = (score, finding)
    return best[1] if best is not None else None


def key_of(column: str, is_signal: bool) -> str:
    """Return the key of a task that a column of groups belongs to: signals know subjects and sessions by name."""
    words = words_of(column)
    if is_signal and hints_at(words, ("subject", "participant")):
        return "subject"
    return "session" if is_signal and hints_at(words, ("session",)) else "group"


def fixes_class(groups: Strings, classes: Strings) -> bool:
    """Say whether classes lie in one group each, as the hotels of a chain do: a fold would then hold out whole classes.

    Classes with one row say nothing; a tenth of the others in one group is allowed.
    """
    places: dict[str, set[str]] = defaultdict(set)
    rows: dict[str, int] = defaultdict(int)
    for group, name in zip(groups.tolist(), classes.tolist(), strict=True):
        places[name].add(group)
        rows[name] += 1
    several = [name for name, count in rows.items() if count > 1]
    return bool(several) and sum(len(places[name]) == 1 for name in several) > 0.1 * len(several)


def value_bins(cells: Strings, n_bins: int = 5) -> Strings:
    """Return numbers as the name of the quantile that they lie in, so that they can be compared like classes."""
    values = cells.astype(np.float64)
    edges = np.quantile(values, np.linspace(0, 1, n_bins + 1)[1:-1])
    return np.array([str(place) for place in np.searchsorted(edges, values, side="right")], dtype=object)


def find_fold_column(train: Table, closed: Iterable[str]) -> Finding | None:
    """Return a column with the host's own folds, whole numbers such as 0 to 4, as a finding of `fold_column`."""
    for column in train.columns.values():
        if column.name in closed or not words_of(column.name) & set(FOLD_NAMES) or not column.is_whole:
            continue
        if 2 <= len(column.counts) <= 20 and column.n_empty == 0:
            reason = f"the host's own folds: {len(column.counts)} numbers; give the experiment folds.scheme: column"
            return Finding("fold_column", column.name, reason, "likely")
    return None


def find_split(train: Table, closed: Iterable[str]) -> tuple[str, dict[str, str]] | None:
    """Return the column that says which rows train, validate or test, and what each of its values means."""
    for column in train.columns.values():
        if column.name in closed or not 2 <= len(column.counts) <= 4 or column.n_empty:
            continue
        meaning = {value: split_meaning(value) for value in column.counts}
        if words_of(column.name) & {"valid", "validation", "val"} and column.is_within((0, 1)):
            meaning = {value: "valid" if float(value) else "train" for value in column.counts}
        known = {value: part for value, part in meaning.items() if part is not None}
        if len(known) == len(meaning) and "train" in known.values() and len(set(known.values())) == len(known):
            return column.name, known
    return None


def split_meaning(text: str) -> str | None:
    """Return `train`, `valid` or `test` for a word that says so, else None."""
    word = text.strip().lower()
    if word in ("train", "training", "tr", "trn", "learn"):
        return "train"
    if word in ("val", "valid", "validation", "dev", "holdout"):
        return "valid"
    return "test" if word in ("test", "testing", "tst", "public", "private", "submission") else None


def dealt_folds(
    is_valid: Sequence[bool], classes: Strings | None, groups: Strings | None, n_folds: int = 5
) -> list[str]:
    """Return fold numbers that hold out the host's validation rows only; all others always train (-1).

    The validation rows are dealt in turn, class after class, and groups as a whole, so that each model trains on nearly
    everything and the score covers exactly the rows that the host set apart.
    """
    folds = ["-1"] * len(is_valid)
    fold_of: dict[str, int] = {}
    held = [int(row) for row in np.flatnonzero(np.asarray(is_valid))]
    for row in held if classes is None else sorted(held, key=lambda row: str(classes[row])):
        group = str(row) if groups is None else str(groups[row])
        folds[row] = str(fold_of.setdefault(group, len(fold_of) % n_folds))
    return folds


def _is_repeated(column: Column) -> bool:
    """Say whether most values of a column come several times, and there are enough of them for folds."""
    n_values, n_rows = len(column.counts), len(column.cells)
    if column.n_empty or not MIN_GROUPS <= n_values <= 0.7 * n_rows:
        return False
    return sum(count > 1 for count in column.counts.values()) > 0.3 * n_values


def _judged(column: Column, test: Table | None, named: bool) -> Finding | None:
    shown = f"{len(column.counts)} values in {len(column.cells)} rows"
    if test is not None and column.name in test.columns:
        values = test.columns[column.name].values
        known = len(values & column.values) / len(values) if values else 1.0
        if known > _NEW:
            return None
        is_measured = column.numbers is not None and not named and not words_of(column.name) & {"id"}
        if is_measured and not column.is_whole:
            return None  # a measured number hardly ever recurs
        return Finding(
            "group", column.name, f"{shown}, and those of {test.shown} are new", "certain" if named else "likely"
        )
    if not named:
        return None
    reason = (
        f"{shown}, of several classes; by its name rows of one value belong together, and test rows may be of new ones"
    )
    return Finding("group", column.name, reason, "likely")
