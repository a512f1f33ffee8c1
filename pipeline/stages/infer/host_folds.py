"""What folds must follow: a group, the host's folds, or his validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.stages.infer.columns import Strings
from pipeline.stages.infer.findings import Finding, Findings
from pipeline.stages.infer.groups import dealt_folds, find_fold_column, find_group, key_of
from pipeline.stages.infer.ids import Joined
from pipeline.stages.infer.paths import FILE, ID
from pipeline.stages.infer.row_sets import RowSets

FOLD = "fold"
"""The column of a made table with the host's validation rows as folds."""
_MOST_FOLDS = 5


def find_folds(
    joined: Joined,
    rows: RowSets,
    classes: Strings | None,
    targets: Sequence[str],
    is_signal: bool,
    given: dict[str, Any],
    findings: Findings,
) -> tuple[Joined, dict[str, str]]:
    """Return the rows, with a fold column if one has to be made, and the keys of a task that say what folds follow.

    These are `fold_column`, and `group`, or `subject` or `session` of signals.

    Args:
        joined: the rows with their ids.
        rows: the same before that, with the host's split and sample.
        classes: (N,) class of each labelled row; None for several labels.
        targets: the target columns.
        is_signal: whether items are signals.
        given: what the user states, as in task.yaml.
        findings: gets what was concluded.
    """
    train, keys = joined.train, dict[str, str]()
    closed = {joined.id or "", joined.row_id or "", train.main or "", FILE, ID, *targets}
    test = joined.test.table if joined.test is not None else None
    if rows.sample is not None and test is not None and set(test.columns) == set(rows.sample.table.columns):
        test = None  # its columns are answers, not measurements
    stated = next((key for key in ("group", "subject", "session") if key in given), None)
    finding = None if stated else find_group(train.table, test, classes, closed)
    if finding is None and not stated:
        joined, finding = _from_another_table(joined, rows, classes, closed)
    group = given[stated] if stated else finding.value if finding is not None else None
    train = joined.train
    groups = train.columns[group].cells if group in train.columns else None
    if "fold_column" not in given and rows.is_valid is not None:
        if groups is not None and not stated and _is_torn(groups, rows.is_valid):
            group = groups = finding = None
        joined, keys = _held_out(joined, rows.is_valid, classes, groups, findings)
    elif "fold_column" not in given and (own := find_fold_column(train.table, closed)) is not None:
        findings.take(own)
        keys = {"fold_column": own.value}
    key = stated or key_of(group or "", is_signal)
    findings.take(None if finding is None else replace(finding, key=key))
    return joined, keys | ({key: group} if group else {})


def _from_another_table(
    joined: Joined, rows: RowSets, classes: Strings | None, closed: set[str]
) -> tuple[Joined, Finding | None]:
    """Return the rows with a group that stands in another table of the same ids, if there is one."""
    train = joined.train
    own = train.columns.get(joined.id or train.main or "")
    for table in rows.others if own is not None else ():
        key = next((key for key in table.keys if own is not None and own.values <= key.values), None)
        if key is None or own is None:
            continue
        place = {cell: row for row, cell in enumerate(key.cells.tolist())}
        at = [place[cell] for cell in own.cells.tolist()]
        aligned = replace(table, frame=table.frame.iloc[at].reset_index(drop=True))
        finding = find_group(aligned, None, classes, closed | {key.name})
        if finding is not None and finding.value not in train.columns:
            cells = aligned.columns[finding.value].cells.tolist()
            joined = replace(joined, train=train.with_columns({finding.value: cells}))
            return joined, replace(finding, reason=f"{finding.reason} (from {table.shown})")
    return joined, None


def _held_out(
    joined: Joined, is_valid: Sequence[bool], classes: Strings | None, groups: Strings | None, findings: Findings
) -> tuple[Joined, dict[str, str]]:
    """Return the rows with a fold column that holds out the host's validation rows only."""
    n_valid = sum(is_valid)
    n_folds = max(2, min(_MOST_FOLDS, n_valid))
    name = FOLD if FOLD not in joined.train.columns else f"host_{FOLD}"
    folds = dealt_folds(is_valid, classes, groups, n_folds)
    reason = f"the host's {n_valid:,} validation rows are held out, in {n_folds} parts; all others always train"
    findings.add("fold_column", name, f"{reason} (give the experiment folds.scheme: column)")
    return replace(joined, train=joined.train.with_columns({name: folds})), {"fold_column": name}


def _is_torn(groups: Strings, is_valid: Sequence[bool]) -> bool:
    """Say whether a group has rows on both sides of the host's split."""
    held = np.asarray(is_valid)
    return bool(set(groups[held]) & set(groups[~held]))
