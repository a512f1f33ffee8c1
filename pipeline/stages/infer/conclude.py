"""Files of a competition to a task, with the reason for each line: the order in which conclusions are made.

    found = conclude(folder, made_folder, places, name="cats", metric=None, overrides=["group=patient"], say=say)
    found.task, found.findings

What the user states steers the conclusions that follow and is never contradicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import listed
from pipeline.data.targets import class_order
from pipeline.records.config import parse_overrides, validate
from pipeline.records.task import Task
from pipeline.stages.infer.assemble import add_sources, relocated, submission_block, uses_unpacked
from pipeline.stages.infer.columns import Column, Table
from pipeline.stages.infer.delivered import Delivered, read_delivery
from pipeline.stages.infer.find_kinds import find_kind
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.formats import find_format
from pipeline.stages.infer.host_folds import find_folds
from pipeline.stages.infer.ids import Joined, join_ids
from pipeline.stages.infer.inputs import find_input
from pipeline.stages.infer.kinds import Kinds
from pipeline.stages.infer.made import Made
from pipeline.stages.infer.metrics import Wanted, find_metric, metric_in_texts, name_of
from pipeline.stages.infer.rates import Stated, find_rate, rates_beside, rates_in_columns, rates_in_texts
from pipeline.stages.infer.roles import Roles, find_roles
from pipeline.stages.infer.row_sets import RowSets, find_rows
from pipeline.stages.infer.settle import classes_of, settled_targets, without_brackets
from pipeline.stages.infer.stated import Given, flat, laid_over, names_stated, table_stated
from pipeline.stages.infer.targets import Targets

Say = Callable[[str], None]


@dataclass(frozen=True)
class Facts:
    """What was measured on the labelled rows, for the choice of a first experiment."""

    n_train: int
    n_test: int
    counts: tuple[int, ...] = ()
    """Rows of each class; empty for values and labels."""
    n_groups: int | None = None
    n_host_folds: int | None = None
    """How many folds `fold_column` holds; the experiment needs `folds: {scheme: column, n_folds: ...}`."""
    is_heavy_tailed: bool = False
    """Values above zero whose logarithm is far more even than they are."""


@dataclass(frozen=True)
class Conclusion:
    """A task, how it came about, and what has to be written for it."""

    task: Task
    values: dict[str, Any]
    """The lines of task.yaml, without those that are at their defaults."""
    findings: Findings
    made: Made
    is_made: bool
    """Whether `task.data` is a folder that has to be made."""
    facts: Facts


@dataclass(frozen=True)
class _Case:
    """What is known before the first conclusion."""

    delivered: Delivered
    given: Given
    findings: Findings
    told: list[tuple[Wanted, str]]
    """Metrics that texts of the host name, the likeliest first."""
    metric: Wanted | None
    """The metric that the user states."""
    rates: tuple[Stated, ...] = ()
    """Sampling rates that lie beside the signals."""

    @property
    def metric_hint(self) -> str | None:
        """Return the name of the stated metric, or of the first that is told."""
        known = self.metric or (self.told[0][0] if self.told else None)
        return None if known is None else name_of(known)


def conclude(
    folder: Path,
    made_folder: Path,
    places: tuple[str, str],
    name: str,
    metric: str | None,
    overrides: Sequence[str],
    say: Say,
) -> Conclusion:
    """Return the task that the files of a folder make.

    Args:
        folder: the host's files; never written to.
        made_folder: where archives are unpacked, and what else has to be made will be written.
        places: `task.data` for the host's folder, where nothing has to be made, and for the made one.
        name: the task's name.
        metric: the host's metric, if the user states it.
        overrides: `key=value`, with the keys of task.yaml.
        say: gets a line before long work.

    Raises:
        DataError: the files do not make a competition; the message says what was seen and what is needed.
        ConfigError: an override is not what a task takes.
    """
    findings, given = Findings(), parse_overrides(overrides)
    delivered = read_delivery(folder, made_folder / "unpacked", findings, say)
    arrays, rates = rates_beside(delivered.arrays)
    delivered = replace(delivered, arrays=arrays)
    case = _Case(delivered, given, findings, metric_in_texts(delivered.texts), metric or _stated_metric(given), rates)
    rows = find_rows(delivered, _roles(case), given, findings)
    return _of_rows(rows, case, name, places)


def _of_rows(rows: RowSets, case: _Case, name: str, places: tuple[str, str]) -> Conclusion:
    """Return what rows, sample and the user's words make: one conclusion after the other."""
    given, findings = case.given, case.findings
    rows, targets = settled_targets(rows, given, findings)
    columns = [rows.train.columns[target] for target in targets.names]
    separator = given.get("target_separator")
    kinds = find_kind(columns, rows.sample, targets.is_melted, given.get("kind"), case.metric_hint, separator)
    findings.take(kinds.finding)
    if kinds.is_bare_list:
        rows, kinds = without_brackets(rows, targets.names[0], kinds), replace(kinds, separator="|")
    asked = find_format(kinds, rows.sample, case.metric_hint, given.get("submission") or {})
    findings.take(asked.finding)
    counts = _class_counts(columns, kinds)
    metric, why = find_metric(case.metric, case.told, kinds.kind, asked.format, counts, asked.k)
    findings.take(why)
    joined = join_ids(rows.train, rows.test, rows.sample, given, findings)
    classes = classes_of(joined.train, kinds, targets.names)
    inputs = find_input(joined.train, case.delivered.index, given, findings)
    is_signal = inputs.get("input") == "signal"
    if is_signal:
        beside = (*case.rates, *rates_in_columns(joined.train.columns))
        inputs |= find_rate(beside, rates_in_texts(case.delivered.texts), given, findings)
    joined, folds = find_folds(joined, rows, classes, targets.names, is_signal, given, findings)
    made, values = Made(), _first_values(name, kinds, metric, joined, targets)
    values |= folds | inputs
    add_sources(values, joined, [*folds.values(), *targets.names], made, findings)
    values["submission"] = submission_block(rows.sample, kinds, asked, joined, columns, made, findings)
    return _finished(values, case, made, places, joined, Facts(0, 0, counts, is_heavy_tailed=kinds.is_heavy_tailed))


def _finished(
    values: Given, case: _Case, made: Made, places: tuple[str, str], joined: Joined, facts: Facts
) -> Conclusion:
    """Return the conclusion with the user's words laid over it, and paths as they are from the data folder."""
    is_made = bool(made) or uses_unpacked(values)
    values = relocated(values, is_made) | {"data": places[is_made]}
    where = "what had to be made lies there, beside a link to the host's folder" if is_made else "the host's own folder"
    case.findings.add("data", values["data"], where)
    values = laid_over(values, case.given, is_made, ("metric",) if case.metric is not None else ())
    for key, value in flat(case.given):
        case.findings.add(key, value, "as you said")
    task = validate(Task, values, "podium init")
    origin = task.group or task.subject or task.session
    group, folds = (joined.train.columns.get(name or "") for name in (origin, task.fold_column))
    facts = replace(
        facts,
        n_train=joined.train.n_rows,
        n_test=joined.test.n_rows if joined.test is not None else 0,
        n_groups=len(group.counts) if group is not None else None,
        n_host_folds=sum(not cell.startswith("-") for cell in folds.counts) if folds is not None else None,
    )
    return Conclusion(task, values, case.findings, made, is_made, facts)


def _roles(case: _Case) -> Roles:
    """Return which table is what, the user's words first."""
    given, delivered = case.given, case.delivered
    stated: dict[str, Table] = {}
    for key, block, name in (
        ("train", "train", "table"),
        ("test", "test", "table"),
        ("sample", "submission", "sample"),
    ):
        if (path := table_stated(given, block, name)) is not None:
            stated[key] = delivered.table_at(path)
    n_items = frozenset(facts.shape[0] for facts in delivered.arrays if facts.role == "items")
    roles = find_roles(delivered.tables, delivered.index, stated, names_stated(given, "target"), n_items)
    if given.get("test") is False:
        roles = replace(roles, test=None, sample=None)
    sample = roles.sample.table if roles.sample is not None else None
    for key, table in (("train", roles.train), ("test", roles.test), ("sample", sample)):
        if table is not None:
            reason = "as you said" if key in stated else f"{table.n_rows:,} rows: {listed(table.columns, 6)}"
            case.findings.add(f"{key} table", table.shown, reason)
    return roles


def _stated_metric(given: Given) -> Wanted | None:
    """Return the metric among the user's keys; options alone are no metric."""
    metric = given.get("metric")
    return metric if isinstance(metric, str) or (isinstance(metric, dict) and "name" in metric) else None


def _class_counts(columns: Sequence[Column], kinds: Kinds) -> tuple[int, ...]:
    """Return how many rows each class has; soft ones count for their largest share."""
    if kinds.kind in ("regression", "multilabel"):
        return ()
    if len(columns) > 1:
        chosen = np.stack([column.cells.astype(np.float64) for column in columns]).argmax(axis=0)
        return tuple(int(count) for count in np.bincount(chosen) if count)
    return tuple(columns[0].counts.values())


def _first_values(name: str, kinds: Kinds, metric: Wanted, joined: Joined, targets: Targets) -> Given:
    """Return the keys of a task that say what is predicted."""
    values: Given = {"name": name, "kind": kinds.kind, "metric": metric}
    if joined.id is not None:
        values["id"] = joined.id
    elif joined.first_id:
        values["first_id"] = joined.first_id
    values["target"] = targets.names[0] if len(targets.names) == 1 else list(targets.names)
    if kinds.kind == "multilabel" and kinds.separator is not None:
        values["target_separator"] = kinds.separator
    if len(targets.names) == 1 and kinds.classes and kinds.classes != class_order(kinds.classes):
        values["classes"] = list(kinds.classes)
    return values
