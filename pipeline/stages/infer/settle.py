"""Labelled rows made fit to learn from: their target, rows without one, class names as the sample has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.base.errors import DataError, listed
from pipeline.stages.infer.columns import Strings, same_names, shown_path
from pipeline.stages.infer.drafts import Draft
from pipeline.stages.infer.findings import Finding, Findings
from pipeline.stages.infer.groups import value_bins
from pipeline.stages.infer.kinds import Kinds, label_separator
from pipeline.stages.infer.paths import FILE
from pipeline.stages.infer.row_sets import RowSets
from pipeline.stages.infer.samples import Sample, bare, split
from pipeline.stages.infer.targets import Targets, find_targets


def settled_targets(rows: RowSets, given: dict[str, Any], findings: Findings) -> tuple[RowSets, Targets]:
    """Return the rows that have a target, with class names in the sample's spelling, and the target columns.

    Args:
        rows: train, test and sample.
        given: what the user states, as in task.yaml.
        findings: gets what was concluded, and which rows were left out.

    Raises:
        DataError: no column can be the target, or the rows to predict are the labelled ones.
    """
    targets = _targets(rows, given, findings)
    findings.take(targets.finding)
    rows = _kept(
        rows, ~_is_without_target(rows.train, targets.names), "rows without a target", "it is empty there", findings
    )
    _refuse_same_rows(rows.train, rows.test)
    if targets.is_melted and rows.sample is not None:
        rows = _in_the_samples_words(rows, rows.sample, targets.names[0], findings)
    return rows, targets


def without_brackets(rows: RowSets, target: str, kinds: Kinds) -> RowSets:
    """Return the rows with lists in brackets (`['a', 'b']`) as labels with a bar between them."""
    cells = [split(bare(cell), kinds.separator or ",") for cell in rows.train.columns[target].cells.tolist()]
    return replace(rows, train=rows.train.with_columns({target: ["|".join(labels) for labels in cells]}))


def classes_of(train: Draft, kinds: Kinds, names: Sequence[str]) -> Strings | None:
    """Return one class for each row, values as quantiles; None for several labels."""
    if kinds.kind == "multilabel":
        return None
    if len(names) > 1:
        shares = np.stack([train.columns[name].cells for name in names], axis=1).astype(np.float64)
        return np.array([names[place] for place in shares.argmax(axis=1)], dtype=object)
    cells = train.columns[names[0]].cells
    return value_bins(cells) if kinds.kind == "regression" else cells


def _targets(rows: RowSets, given: dict[str, Any], findings: Findings) -> Targets:
    stated = given.get("target")
    names = [stated] if isinstance(stated, str) else list(stated or ())
    sample = rows.sample
    if not names and rows.label is not None:
        own = findings.of("labels")
        finding = Finding("target", rows.label, own.reason if own is not None else "the array of labels")
        return Targets((rows.label,), finding, is_melted=sample is not None and sample.value is None)
    closed = {rows.train.main or "", FILE, given.get("id") or "", given.get("group") or ""}
    closed |= {sample.id_column} if sample is not None else set()
    # A sample that stands for the test table has the target, as a placeholder.
    is_sample = rows.test is None or (sample is not None and rows.test.table is sample.table)
    return find_targets(
        rows.train.table, None if is_sample or rows.test is None else rows.test.table, sample, names, closed
    )


def _is_without_target(train: Draft, names: Sequence[str]) -> Any:
    """Return which rows have an empty target, (N,); in a column of label lists an empty one is a list too."""
    is_empty = np.any([train.columns[name].cells == "" for name in names], axis=0)
    has_lists = len(names) == 1 and is_empty.any() and label_separator(train.columns[names[0]].counts) is not None
    return np.zeros_like(is_empty) if has_lists else is_empty


def _kept(rows: RowSets, is_kept: Any, what: str, why: str, findings: Findings) -> RowSets:
    """Return the rows of a mask, (N,), and note how many were left out."""
    if is_kept.all():
        return rows
    findings.add(what, f"{int((~is_kept).sum()):,} left out", why, "likely")
    valid = rows.is_valid
    valid = None if valid is None else tuple(own for own, kept in zip(valid, is_kept.tolist(), strict=True) if kept)
    return replace(rows, train=rows.train.at(np.flatnonzero(is_kept)), is_valid=valid)


def _in_the_samples_words(rows: RowSets, sample: Sample, target: str, findings: Findings) -> RowSets:
    """Return the rows with class names as the value columns of the sample spell them.

    Rows of classes that it does not ask for are left out, if they are the smaller part; labels in lists stay.
    """
    column, wanted = rows.train.columns[target], set(sample.value_columns)
    if column.values <= wanted or label_separator(column.counts) is not None:
        return rows
    spelled = same_names(sorted(column.values), sample.value_columns)
    if spelled is not None:
        changed = [f"{ours} as {theirs}" for ours, theirs in spelled.items() if ours != theirs]
        findings.add(
            "class names", f"{len(changed)} respelled", f"{sample.table.shown} spells {listed(changed, 3)}", "likely"
        )
        return replace(rows, train=rows.train.with_columns({target: [spelled[cell] for cell in column.cells.tolist()]}))
    is_wanted = np.isin(column.cells.astype(str), sorted(wanted))
    extra = sorted(column.values - wanted)
    if is_wanted.mean() <= 0.5:
        return rows
    return _kept(rows, is_wanted, "rows of other classes", f"not asked for: {listed(extra, 5)}", findings)


def _refuse_same_rows(train: Draft, test: Draft | None) -> None:
    """Raise where most rows to predict are labelled rows."""
    if test is None or test.table is train.table or train.files is None or test.files is None:
        return
    labelled = {path for paths in train.files for path in paths}
    same = [paths[0] for paths in test.files if set(paths) & labelled]
    if len(same) > 0.5 * test.n_rows:
        raise DataError(
            f"{test.table.shown}: {len(same):,} of its {test.n_rows:,} rows are labelled rows of {train.table.shown}, "
            f"such as {shown_path(same[0])}: it does not list the test rows. Give the sample or table of these, say "
            "test.table=FILE, or test=off to train without a test set"
        )
