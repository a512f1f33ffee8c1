"""A blend of runs: their OOF and test predictions joined by id, one rule fitted on OOF and applied to both.

What is saved as the OOF of a blend is nested: each fold by a rule that was fitted without it. So a blend's OOF is as
honest as a run's, and blends nest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, MismatchError, listed
from pipeline.blending.adjust import Adjustment, Trial, accept, adjusted, candidates_of, named_adjustments
from pipeline.blending.averages import average
from pipeline.blending.joined import Joined, is_exclusive, join_members, problem_of, refuse_labels
from pipeline.blending.losses import Floats64
from pipeline.blending.methods import Method, fit_of
from pipeline.blending.nested import Nested, fit_nested, values_by_fold
from pipeline.blending.priors import PriorShift, estimate_priors, training_priors
from pipeline.blending.problem import Fit, Fitted, Problem
from pipeline.blending.verdict import Entry, Verdict, error_correlation, judge, leave_one_out, scored
from pipeline.records.metrics import Metric, UndefinedMetricError
from pipeline.records.predictions import Predictions, check_alike
from pipeline.records.rows import Rows

Member = tuple[Predictions | None, Predictions | None]
"""OOF and test predictions of a run; None for what it does not have."""

_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Findings:
    """What OOF tells about a blend and its members."""

    verdict: Verdict
    """On the weights, before any adjustment."""
    adjusted: tuple[Entry, ...]
    """The score in-sample and nested with adjustments; empty without."""
    trials: tuple[Trial, ...]
    """What each adjustment gave that `auto` tried."""
    nested: Nested
    """OOF of the blend with all that is kept, and the rules of the folds."""
    correlation: Floats64
    """(M, M) of the members' errors."""
    effects: tuple[float | None, ...]
    """(M) how much the nested score loses without each member."""


@dataclass(frozen=True)
class Blend:
    """What comes out of several runs."""

    oof: Predictions | None
    """None when not every member has an OOF of every fold."""
    test: Predictions | None
    """None when not every member has test predictions."""
    rule: Fitted | None
    """What blends new rows; None when there is nothing to blend."""
    findings: Findings | None
    """None without OOF, or where the metric has no value on it."""
    notes: tuple[str, ...]
    """What the user should know, a sentence each."""


def blend(
    members: Mapping[str, Member], method: Method, rows: Rows, metric: Metric, test_rows: Rows | None = None
) -> Blend:
    """Return the blend of the OOF and of the test predictions of several runs.

    Args:
        members: by name, each with OOF and test predictions in any row order; ties go to the earlier one.
        method: how; one that fits anything needs whole and valid OOF of every member.
        rows: the labelled rows of the task.
        metric: of the task.
        test_rows: says which test rows share a submission id; needed where `rows` do.

    Raises:
        MismatchError: members differ in task, folds, classes or ids (both are named); a member has no OOF to fit on;
            weights do not fit; decided labels are given to a metric that needs probabilities.
    """
    if not members:
        raise MismatchError("a blend needs at least one run")
    partial = {name: note for name, member in members.items() if (note := partial_note(member))}
    _check_weights(members, method)
    _refuse_fit_without_oof(members, method)
    check_members(members)
    for which in (0, 1):
        refuse_labels(_parts(members, which), metric)
    oof_note, test_note = _missing_oof(members), _missing_test(members)
    joined_oof = None if oof_note else join_members(_parts(members, 0), rows)
    joined_test = None if test_note else join_members(_parts(members, 1), test_rows or rows)
    notes = [note for note in (oof_note, test_note) if note]
    rule, oof, test, findings = None, None, None, None
    if joined_oof is not None:
        rule, values, findings, note = _learn(joined_oof, list(members), method, rows, metric)
        notes += [note] if note else []
        oof = joined_oof.predictions(values)
    elif joined_test is not None:
        rule = fit_of(method)(_without_truth(joined_test, metric))
    if joined_test is not None and rule is not None:
        values = rule.apply(joined_test.members)
        if method.prior is not None:
            values, note = _moved(values, method.prior, rows, metric, joined_test)
            notes.append(note)
        test = joined_test.predictions(values)
        if partial:
            note = "; ".join(f"{name}: {partial[name]}" for name in partial)
            test = replace(test, meta={**test.meta, "partial": note})
    return Blend(oof, test, rule, findings, tuple(notes))


def partial_note(member: Member) -> str | None:
    """Return `2 of 5 folds` for a member that is not whole, as its predictions state it; else None."""
    return next((part.meta["partial"] for part in member if part is not None and part.meta.get("partial")), None)


def oof_fault(member: Member) -> str | None:
    """Return why nothing may be fitted on a member's OOF: it has none, a part, or no honest one; else None."""
    oof = member[0]
    if oof is None:
        return "has no OOF"
    if note := partial_note(member):
        return f"has {note}"
    return f"has an OOF that is not valid ({oof.meta['invalid']})" if oof.meta.get("invalid") else None


def check_members(members: Mapping[str, Member]) -> None:
    """Raise MismatchError, naming two members, unless all parts of all members are of one task, split and classes."""
    parts = [(name, part) for name, member in members.items() for part in member if part is not None]
    for name, part in parts[1:]:
        check_alike(parts[0][1], part, (parts[0][0], name))


def _learn(
    joined: Joined, names: list[str], method: Method, rows: Rows, metric: Metric
) -> tuple[Fitted, NDArray[np.float32], Findings | None, str | None]:
    """Return the rule, the OOF (N', K) of rows that it never saw, what was found, and what to say of it."""
    problem, groups = problem_of(joined, rows, metric)
    fit = fit_of(method)
    try:
        verdict = judge(problem, names, fit, method.is_fitted, groups)
    except UndefinedMetricError as error:
        if method.is_fitted or method.adjust:
            raise
        rule = fit(problem)
        return rule, values_by_fold(problem, rule), None, f"the blend has no score: {error}"
    adjustments, trials = _adjustments(method, problem, fit if verdict.is_kept else average("mean"))
    rule, nested, entries = verdict.rule, verdict.nested, []
    if adjustments:
        whole = adjusted(fit if verdict.is_kept else average("mean"), adjustments)
        rule, nested = whole(problem), fit_nested(problem, whole)
        shown = {"in-sample": values_by_fold(problem, rule), "nested": nested.values}
        added = " + ".join(adjustment.name for adjustment in adjustments)
        entries = [scored(problem, f"{word}, with {added}", values, groups) for word, values in shown.items()]
    effects = tuple(leave_one_out(problem, nested))
    findings = Findings(verdict, tuple(entries), trials, nested, error_correlation(problem), effects)
    return rule, nested.values, findings, None if verdict.is_kept else _fallback_note(method, verdict)


def _moved(
    values: NDArray[np.float32], prior: tuple[float, ...] | str, rows: Rows, metric: Metric, joined: Joined
) -> tuple[NDArray[np.float32], str]:
    """Return test predictions (N, K) under other shares of the classes, and what to say of it."""
    shift = PriorShift(()) if isinstance(prior, str) else PriorShift(prior)
    form = joined.frame.meta.get("form", "probs")
    if (misfit := shift.misfit(metric, form, is_exclusive(joined, metric))) is not None:
        raise ConfigError(f"--prior: {misfit}")
    targets = np.asarray(rows.targets)
    if isinstance(prior, str):
        shares = estimate_priors(values, training_priors(targets, metric), is_exclusive(joined, metric))
        shift = PriorShift(tuple(float(share) for share in shares))
    shown = ", ".join(f"{share:.3f}" for share in shift.target)
    note = f"test predictions are moved to the shares {shown}; OOF keeps those of training, so no score checks it"
    return shift.fit(values, targets, metric).apply(values), note


def _adjustments(method: Method, problem: Problem, fit: Fit) -> tuple[tuple[Adjustment, ...], tuple[Trial, ...]]:
    if method.adjust == ("auto",):
        return accept(problem, fit, candidates_of(problem.metric, problem.form, problem.is_exclusive))
    return named_adjustments(method.adjust, problem.metric, problem.form, problem.is_exclusive), ()


def _fallback_note(method: Method, verdict: Verdict) -> str:
    error = "which has no standard error" if verdict.gain_se is None else f"standard error {verdict.gain_se:.2g}"
    return (
        f"{method.name} is not kept, the uniform mean is saved: its nested score gains {verdict.gain:.2g} over the "
        f"uniform mean ({error}), and one standard error is asked for"
    )


def _without_truth(joined: Joined, metric: Metric) -> Problem:
    """Return what a mean has to know of members without OOF; it fits nothing, so no truth is missed."""
    nothing = np.empty(0, dtype=np.int64)
    form = joined.frame.meta.get("form", "probs")
    return Problem(joined.members, nothing, nothing, metric, form, is_exclusive(joined, metric))


def _parts(members: Mapping[str, Member], which: int) -> dict[str, Predictions]:
    return {name: part for name, member in members.items() if (part := member[which]) is not None}


def _check_weights(members: Mapping[str, Member], method: Method) -> None:
    if method.weights is None:
        return
    if len(method.weights) != len(members):
        counts = f"{len(method.weights)} weights for {len(members)} runs"
        raise MismatchError(f"{counts} ({listed(members)}); give one for each")
    shown = ", ".join(f"{name} {weight:g}" for name, weight in zip(members, method.weights, strict=True))
    if not all(math.isfinite(weight) and weight >= 0 for weight in method.weights):
        raise MismatchError(f"weights must be numbers >= 0 (found: {shown})")
    if abs(sum(method.weights) - 1) > _SUM_TOLERANCE:
        raise MismatchError(f"weights must sum to one, and these sum to {sum(method.weights):g}: {shown}")


def _refuse_fit_without_oof(members: Mapping[str, Member], method: Method) -> None:
    """Raise MismatchError, naming the members, where weights would hold for OOF that is not there or not honest."""
    faults = _faults(members)
    if (method.is_fitted or method.adjust) and faults:
        what = f"method {method.name}" if method.is_fitted else f"adjustment {listed(method.adjust)}"
        raise MismatchError(f"{what} needs whole OOF of every member: {'; '.join(faults)}. Take the mean, or others")
    partial = [f"{name} has {note} only" for name, member in members.items() if (note := partial_note(member))]
    if method.weights is not None and partial:
        raise MismatchError(f"no weights hold for a part of a run: {listed(partial)}; train the rest, or weigh equally")


def _missing_oof(members: Mapping[str, Member]) -> str | None:
    """Return why the blend has no OOF, or None when it has."""
    faults = _faults(members)
    return f"no OOF of the blend: {listed(faults)}" if faults else None


def _faults(members: Mapping[str, Member]) -> list[str]:
    return [f"{name} {fault}" for name, member in members.items() if (fault := oof_fault(member))]


def _missing_test(members: Mapping[str, Member]) -> str | None:
    lacking = [f"{name} has none" for name, member in members.items() if member[1] is None]
    return f"no test predictions of the blend: {listed(lacking)}" if lacking else None
