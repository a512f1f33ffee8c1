"""Fold tables: which row is held out when, made once, checked, saved beside their provenance, and then only read.

A table is a function of (ids, targets, groups, spec): the order of the rows changes nothing, nor do the names of
classes and groups. Command: `podium folds CONFIG`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, DataError, LeakError, MismatchError, listed
from pipeline.base.files import hash_json, read_json, write_json, write_text
from pipeline.records.experiment import FoldSpec
from pipeline.records.rows import Rows, Strings
from pipeline.records.splitters import deal_rows, quantile_bins
from pipeline.records.subjects import Within, balanced_units, kept_whole, refuse_few_subjects
from pipeline.records.task import Kind

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]

ALWAYS_TRAIN = -1
HOLDOUT = -2


@dataclass(frozen=True, eq=False)
class Folds:
    """A fold for every id: 0..F-1, -1 always in training, -2 never in training."""

    name: str
    ids: Strings
    """(N,) unique strings."""
    fold: Ints
    """(N,) fold of each id."""
    spec: dict[str, Any]
    """The `FoldSpec` as plain values, and `resolved`, the scheme that `auto` became."""
    made_with: str
    """The splitter's library and version."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.ids)

    @property
    def n_folds(self) -> int:
        """How many folds are held out in turn."""
        return int(self.fold.max(initial=-1)) + 1

    @cached_property
    def ids_hash(self) -> str:
        """SHA-256 of the set of ids; their order does not matter."""
        return hash_json(sorted(self.ids))

    @cached_property
    def table_hash(self) -> str:
        """SHA-256 of the ids and their folds; their order does not matter."""
        return hash_json(sorted(zip(self.ids.tolist(), self.fold.tolist(), strict=True)))

    def split(self, fold: int | Literal["all"]) -> tuple[Ints, Ints]:
        """Return the positions in `ids` that train and those that are held out; `all` holds out none.

        Fold -1 always trains, fold -2 is in neither part.

        Raises:
            ConfigError: there is no such fold.
        """
        if fold != "all" and not 0 <= fold < self.n_folds:
            raise ConfigError(
                f"folds '{self.name}': there is no fold {fold}; there are 0..{self.n_folds - 1} and 'all'"
            )
        held_out = np.zeros(len(self), dtype=bool) if fold == "all" else self.fold == fold
        return np.flatnonzero(~held_out & (self.fold != HOLDOUT)), np.flatnonzero(held_out)

    def without(self, ids: Sequence[str]) -> Folds:
        """Return the table without some ids, such as the rows that the task excludes; absent ones are no error."""
        kept = ~np.isin(self.ids.astype(str), list(ids))
        return replace(self, ids=self.ids[kept], fold=self.fold[kept])

    def aligned_to(self, ids: Sequence[str] | Strings) -> Folds:
        """Return the same table in the order of `ids`.

        Raises:
            MismatchError: an id is missing from the table, in the table only, or doubled in `ids`.
        """
        position = {name: i for i, name in enumerate(self.ids)}
        wanted = [str(name) for name in ids]
        missing = [name for name in wanted if name not in position]
        extra = sorted(position.keys() - set(wanted))
        doubled = len(wanted) - len(set(wanted))
        if missing or extra or doubled:
            raise MismatchError(_misfit(self.name, missing, extra, doubled))
        order = np.array([position[name] for name in wanted], dtype=np.int64)
        return replace(self, ids=self.ids[order], fold=self.fold[order])


def make_folds(rows: Rows, kind: Kind, spec: FoldSpec) -> Folds:
    """Return the fold table of labelled rows, sorted by id; `check_folds` says whether it is fit for use.

    A class whose rows are a single row (or group) goes to fold -1, where no fold holds out what no model has seen;
    except in the schemes plain and column, which do not look at classes.

    Raises:
        ConfigError: the scheme does not fit the kind, needs groups or a fold column, or has too few rows or groups.
    """
    order = np.argsort(rows.ids, kind="stable")
    groups = grouping(rows, spec.within)
    scheme = resolve_scheme(spec.scheme, kind, groups is not None)
    if scheme == "column":
        fold = _host_folds(rows, spec)[order]
    else:
        refuse_few_subjects(rows, scheme, spec)
        strata, units = _strata(rows, kind, scheme, spec), balanced_units(rows, spec.within)
        strata, groups, units = (None if array is None else array[order] for array in (strata, groups, units))
        fold = deal_rows(scheme, strata, groups, len(rows), spec.n_folds, spec.seed, spec.holdout_frac, units)
    name = table_name(spec, scheme)
    library = f"scikit-learn {version('scikit-learn')}"
    return Folds(name, rows.ids[order], fold, {**spec.plain(), "resolved": scheme}, library)


def table_name(spec: FoldSpec, scheme: str) -> str:
    """Return the name of a spec's table, whose scheme is resolved: what the spec states, else what it is made of."""
    duplicates = "" if spec.duplicates == "off" else f"-{spec.duplicates}"
    within = "" if spec.within is None else f"-within_{spec.within}"
    return spec.name or f"{scheme}{spec.n_folds}-seed{spec.seed}{duplicates}{within}"


def check_folds(folds: Folds, rows: Rows, kind: Kind) -> list[str]:
    """Return what the user should know of a table that is fit for `rows`, one line each.

    Raises:
        MismatchError: the ids are not those of the rows.
        LeakError: rows of one group stand in different folds.
        DataError: a fold is empty, or holds out a class that it never trains on.
    """
    fold = folds.aligned_to(rows.ids).fold
    sizes = np.bincount(fold + 2, minlength=folds.n_folds + 2)[2:]
    if folds.n_folds < 2 or not sizes.all():
        empty = listed(np.flatnonzero(sizes == 0)) or "all but one"
        raise DataError(f"folds '{folds.name}': no row in fold {empty}; use fewer folds, another seed or scheme")
    within = folds.spec.get("within")
    _refuse_straddling(folds.name, grouping(rows, within), fold, kept_whole(rows, within) is not None)
    notes = [f"{(fold == HOLDOUT).sum()} rows are the holdout (fold -2)"] if (fold == HOLDOUT).any() else []
    notes += [f"{(fold == ALWAYS_TRAIN).sum()} rows always train (fold -1)"] if (fold == ALWAYS_TRAIN).any() else []
    if sizes.max() > 1.2 * sizes.min() + 1:
        notes.append(f"folds differ in size: {sizes.min()} to {sizes.max()} rows")
    return notes + _check_classes(folds, rows, fold, kind)


def balance_table(folds: Folds, rows: Rows, kind: Kind) -> pd.DataFrame:
    """Return for each fold (index) its rows and, by name, the rows of each class or label, or each target's mean."""
    import pandas as pd

    fold = folds.aligned_to(rows.ids).fold
    numbers, at = np.unique(fold, return_inverse=True)
    columns: list[NDArray[Any]] = [np.bincount(at)]
    names: list[str] = ["rows"]
    if rows.targets is not None:
        names += rows.names
        if kind == "regression":
            columns += [np.bincount(at, weights=column) / columns[0] for column in rows.targets.T]
        else:
            columns += list(_class_counts(rows, kind, fold, folds.n_folds)[numbers + 2].T)
    table = pd.concat([pd.Series(column, index=numbers) for column in columns], axis=1)
    return table.set_axis(names, axis=1).rename_axis("fold")


def save_folds(path: Path, folds: Folds) -> None:
    """Write the table as CSV (`id,fold`, sorted by id) and what made it as JSON beside it, each atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "fold"])
    writer.writerows(sorted(zip(folds.ids.tolist(), folds.fold.tolist(), strict=True)))
    write_text(path, text.getvalue())
    about = {
        "name": folds.name,
        "seed": folds.spec["seed"],
        "scheme": folds.spec["resolved"],
        "library": folds.made_with,
        "n_rows": len(folds),
        "n_folds": folds.n_folds,
        "ids_hash": folds.ids_hash,
        "table_hash": folds.table_hash,
        "spec": folds.spec,
    }
    write_json(_about_path(path), about)


def load_folds(path: Path) -> Folds:
    """Return the table that `save_folds` wrote, ids as strings, sorted by id.

    Raises:
        DataError: a file is missing or not a fold table.
        MismatchError: the CSV is not the one that the JSON beside it describes.
    """
    about_path = _about_path(path)
    for file in (path, about_path):
        if not file.is_file():
            raise DataError(f"{file}: no such file; make the folds with `podium folds CONFIG`")
    ids, fold = _read_table(path)
    try:
        about = read_json(about_path)
        folds = Folds(about["name"], ids, fold, about["spec"], about["library"])
        promised = (about["n_rows"], about["ids_hash"], about["table_hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{about_path}: not the JSON of a fold table ({error!r}); {_REBUILD}") from None
    if promised != (len(folds), folds.ids_hash, folds.table_hash):
        raise MismatchError(
            f"{path}: the table was edited after it was made, or was not written whole: it does not fit the hash in "
            f"{about_path.name}. Restore it, or remove both files; {_REBUILD}"
        )
    return folds


def grouping(rows: Rows, within: Within = None) -> Strings | None:
    """Return what no two folds may share, (N,): groups, subjects, rows that are submitted as one, all merged; or None.

    Args:
        rows: labelled.
        within: whose rows may stand in several folds; see `kept_whole`.
    """
    shared = rows.submission_ids
    is_shared = shared is not None and len(np.unique(shared)) < len(shared)
    groups = merge_groups(rows.groups, kept_whole(rows, within))
    return merge_groups(groups, shared if is_shared else None)


def merge_groups(groups: Strings | None, shared: Strings | None) -> Strings | None:
    """Return groups in which rows stay together that share a group or a value of `shared`, (N,); None without both.

    A group and a shared value that have a row in common become one group, under the alphabetically first of the group
    names involved.
    """
    if groups is None or shared is None:
        return shared if groups is None else groups
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, of_group = np.unique(groups, return_inverse=True)
    _, of_shared = np.unique(shared, return_inverse=True)
    size = len(names) + int(of_shared.max()) + 1
    links = coo_array((np.ones(len(shared)), (of_group, of_shared + len(names))), shape=(size, size))
    _, parts = connected_components(links, directed=False)
    parts = parts[: len(names)]
    _, first = np.unique(parts, return_index=True)  # `names` is sorted, so the first of a part is its first name
    return np.asarray(names[first][parts[of_group]], dtype=object)


def resolve_scheme(scheme: str, kind: Kind, has_groups: bool) -> str:
    """Return the scheme with `auto` decided by the kind of task and whether there are groups.

    Raises:
        ConfigError: the scheme needs groups and there are none, or does not fit the kind.
    """
    if scheme == "auto":
        if kind in ("regression", "multilabel"):
            without = "quantile" if kind == "regression" else "multilabel"
            return "group" if has_groups else without
        return "stratified_group" if has_groups else "stratified"
    fitting = ["plain", "group", "column", *_SCHEMES_OF_KIND.get(kind, ("stratified", "stratified_group"))]
    if scheme not in fitting:
        raise ConfigError(f"folds.scheme: '{scheme}' does not fit {kind} tasks; these do: auto, {listed(fitting)}")
    if scheme in ("group", "stratified_group") and not has_groups:
        raise ConfigError(f"folds.scheme: '{scheme}' needs groups; name their column in the task (group:)")
    return scheme


_SCHEMES_OF_KIND: dict[Kind, tuple[str, ...]] = {"regression": ("quantile",), "multilabel": ("multilabel",)}
_REBUILD = "make the folds anew with `podium folds CONFIG`"


def _strata(rows: Rows, kind: Kind, scheme: str, spec: FoldSpec) -> NDArray[Any] | None:
    """Return what the scheme balances or keeps together, in the order of the rows: classes, bins or labels."""
    if scheme == "plain" or (scheme == "group" and (kind == "regression" or rows.targets is None)):
        return None
    if rows.targets is None:
        raise DataError(f"folds.scheme: '{scheme}' needs targets, and these rows have none; use plain or group")
    if kind == "regression":
        return quantile_bins(rows.targets, min(spec.n_bins, max(1, len(rows) // spec.n_folds)))
    return _classes(rows.targets, kind)


def _classes(targets: NDArray[Any], kind: Kind) -> NDArray[Any]:
    """Return (N,) class indices, soft ones by their largest share, or (N, K) labels."""
    return np.argmax(targets, axis=1) if targets.ndim == 2 and kind != "multilabel" else targets


def _host_folds(rows: Rows, spec: FoldSpec) -> Ints:
    """Return the host's folds renumbered 0..F-1 in their order; -1 and -2 stay."""
    if rows.host_folds is None:
        raise ConfigError("folds.scheme: 'column' needs the host's folds; name their column in the task (fold_column:)")
    if spec.holdout_frac:
        raise ConfigError("folds.holdout_frac: is not read by scheme: column, whose holdout is the rows of fold -2")
    numbers = np.unique(rows.host_folds[rows.host_folds >= 0])
    if rows.host_folds.min(initial=0) < HOLDOUT:
        raise DataError(
            f"fold_column: found {rows.host_folds.min()}; allowed are 0 and up, -1 (train) and -2 (holdout)"
        )
    if len(numbers) != spec.n_folds:
        found = f"{len(numbers)} folds ({listed(numbers)})"
        raise ConfigError(f"folds.n_folds = {spec.n_folds}, but the column holds {found}; set n_folds: {len(numbers)}")
    return np.where(rows.host_folds < 0, rows.host_folds, np.searchsorted(numbers, rows.host_folds))


def _refuse_straddling(name: str, groups: Strings | None, fold: Ints, keeps_subjects: bool) -> None:
    if groups is None:
        return
    names, of_group = np.unique(groups, return_inverse=True)
    pairs = np.unique(np.stack([of_group, fold], axis=1), axis=0)
    torn = np.flatnonzero(np.bincount(pairs[:, 0]) > 1)
    if len(torn):
        where = listed(pairs[pairs[:, 0] == torn[0], 1])
        raise LeakError(
            f"folds '{name}': {len(torn)} groups stand in more than one fold, such as '{names[torn[0]]}' in {where}; "
            "use folds.scheme group or stratified_group, or remove what groups them (group: of the task, or "
            f"folds.duplicates){'; folds.within asks for a random split within subjects' if keeps_subjects else ''}"
        )


def _check_classes(folds: Folds, rows: Rows, fold: Ints, kind: Kind) -> list[str]:
    """Return notes on scarce classes; raise where a class is held out (or in the holdout) and never trained on."""
    if kind == "regression" or rows.targets is None:
        return []
    counts = _class_counts(rows, kind, fold, folds.n_folds)
    train = counts[1:].sum(axis=0) - np.where(np.arange(len(counts))[:, None] >= 2, counts, 0)
    for number, column in np.argwhere((counts > 0) & (train == 0)):
        if number != 1:
            raise DataError(
                f"folds '{folds.name}': fold {number - 2} holds out the class '{rows.names[column]}' and never trains "
                "on it; use another seed, fewer folds or a stratified scheme, or exclude its rows"
            )
    dealt, always = counts[2:].sum(axis=0), counts[1]
    notes = []
    for name, n_dealt, n_always in zip(rows.names, dealt, always, strict=True):
        if n_dealt + n_always == 0:
            notes.append(f"class '{name}' has no row")
        elif n_dealt == 0:
            notes.append(f"class '{name}': its {n_always} rows always train (fold -1), so no score covers it")
        elif n_dealt < folds.n_folds:
            notes.append(f"class '{name}' has {n_dealt} rows for {folds.n_folds} folds: some hold out none of it")
    return notes


def _class_counts(rows: Rows, kind: Kind, fold: Ints, n_folds: int) -> Ints:
    """Return rows per fold and class, (F + 2, K), the first two lines being folds -2 and -1."""
    classes = _classes(np.asarray(rows.targets), kind)
    at, column = np.nonzero(classes > 0.5) if classes.ndim == 2 else (np.arange(len(fold)), classes)
    size = len(rows.names)
    return np.bincount((fold[at] + 2) * size + column, minlength=(n_folds + 2) * size).reshape(-1, size)


def _read_table(path: Path) -> tuple[Strings, Ints]:
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if not lines or lines[0] != ["id", "fold"]:
        raise DataError(f"{path}: expected the header id,fold, found {listed(lines[0]) if lines else 'nothing'}")
    try:
        pairs = sorted((name, int(fold)) for name, fold in lines[1:])
    except ValueError:
        bad = next(line for line in lines[1:] if len(line) != 2 or not line[1].lstrip("-").isdigit())
        raise DataError(f"{path}: expected an id and a whole number, found the line {','.join(bad)!r}") from None
    ids = np.array([name for name, _ in pairs], dtype=object)
    return ids, np.array([fold for _, fold in pairs], dtype=np.int64)


def _about_path(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix('.csv')}.json")


def _misfit(name: str, missing: list[str], extra: list[str], doubled: int) -> str:
    faults = [f"{len(missing)} ids are not in the table ({listed(missing, 5)})"] if missing else []
    faults += [f"{len(extra)} ids are in the table only ({listed(extra, 5)})"] if extra else []
    faults += [f"{doubled} ids of the data are doubled"] if doubled else []
    return f"folds '{name}' no longer fit the data: {'; '.join(faults)}. If the data are right, {_REBUILD}"
