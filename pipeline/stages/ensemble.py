"""Blends: weighted means of runs, joined by id (`podium ensemble RUN RUN ...`).

A blend has OOF and test predictions as a run has, so blends nest. The members must be predictions of one task on the
same rows with the same folds; whatever differs is an error that names both members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import MismatchError, listed, nearest
from pipeline.base.files import hash_json, sha256_file, write_json
from pipeline.data.tables import load_train
from pipeline.records.cv import cv_summary, metric_of, score_or_note
from pipeline.records.metrics import Metric
from pipeline.records.predictions import (
    How,
    Predictions,
    check_alike,
    load_predictions,
    mean_predictions,
    save_predictions,
)
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Workspace, git_commit, now, versions

Member = tuple[Predictions | None, Predictions | None]
"""OOF and test predictions of a run; None for what it does not have."""


@dataclass(frozen=True)
class Blend:
    """What comes out of several runs."""

    oof: Predictions | None
    """None when not every member has an OOF of every fold."""
    test: Predictions | None
    """None when not every member has test predictions."""
    weights: dict[str, float]
    """The share of each member; they sum to one."""
    notes: tuple[str, ...]
    """Why a part is missing, a sentence each."""


def blend_runs(
    workspace: Workspace, runs: Sequence[Run], how: How, name: str | None, say: Callable[[str], None]
) -> tuple[Run, dict[str, Any]]:
    """Write the blend of several runs as a run folder; return it and its scores, those of its members among them.

    Raises:
        MismatchError: the runs differ in task, folds, classes or ids, or the name is taken by something else.
    """
    shown = [run.name for run in runs]
    if len(set(shown)) < len(shown):
        raise MismatchError(f"a blend needs different runs (found: {listed(shown)})")
    if len(runs) < 2:
        raise MismatchError("a blend needs at least two runs")
    mixed = blend({run.name: (_part(run, "oof"), _part(run, "test")) for run in runs}, how)
    rows = load_train(runs[0].task, workspace.data(runs[0].task)).rows
    metric = metric_of(runs[0].task, rows)
    cv = _blend_scores(mixed, runs, rows, metric)
    folder = workspace.run(runs[0].task, name or "+".join(sorted(shown)))
    record = _blend_record(runs, mixed, how)
    _refuse_taken(folder, record)
    for part, predictions in (("oof", mixed.oof), ("test", mixed.test)):
        if predictions is None:  # also when an earlier blend of these members had it
            (folder / f"{part}.parquet").unlink(missing_ok=True)
            continue
        marked = replace(predictions, meta={**predictions.meta, "run": folder.name})
        save_predictions(folder / f"{part}.parquet", marked)
    write_json(folder / "cv.json", cv)
    write_json(folder / "run.json", record)
    for note in mixed.notes:
        say(f"note: {note}")
    return Run(folder), cv


def blend(members: Mapping[str, Member], how: How = "arithmetic", weights: Mapping[str, float] | None = None) -> Blend:
    """Return the weighted mean of the OOF and of the test predictions of several runs.

    Args:
        members: by name, each with OOF and test predictions in any row order.
        how: `arithmetic`, or `geometric` for probabilities.
        weights: by name, >= 0, scaled to sum to one; equal when left out. Refused unless every member is whole:
            weights are fitted on OOF, and part of an OOF is no ground for them.

    Raises:
        MismatchError: members differ in task, folds, classes or ids (both are named); a weight is missing or unknown;
            or weights are given for a run of which only some folds are done.
    """
    if not members:
        raise MismatchError("a blend needs at least one run")
    partial = {name: note for name, member in members.items() if (note := partial_note(member))}
    shares = _shares(members, weights, partial)
    _check_members(members)
    oof_note = _missing(members, 0, "OOF", partial)
    test_note = _missing(members, 1, "test predictions", {})
    oof = None if oof_note else _mean(members, 0, how, shares)
    test = None if test_note else _mean(members, 1, how, shares)
    if test is not None and partial:
        test = replace(test, meta={**test.meta, "partial": "; ".join(f"{name}: {partial[name]}" for name in partial)})
    return Blend(oof, test, shares, tuple(note for note in (oof_note, test_note) if note))


def partial_note(member: Member) -> str | None:
    """Return `2 of 5 folds` for a member that is not whole, as its predictions state it; else None."""
    return next((part.meta["partial"] for part in member if part is not None and part.meta.get("partial")), None)


def _part(run: Run, which: str) -> Predictions | None:
    path = run.folder / f"{which}.parquet"
    return load_predictions(path) if path.is_file() else None


def _blend_scores(mixed: Blend, runs: Sequence[Run], rows: Rows, metric: Metric) -> dict[str, Any]:
    """Return the scores of a blend like those of a run, and the pooled OOF of each member beside them."""
    lines = []
    if mixed.oof is not None and mixed.oof.fold is not None:
        for fold in np.unique(mixed.oof.fold).tolist():
            held = mixed.oof.at(np.flatnonzero(mixed.oof.fold == fold))
            score, note = score_or_note(held, rows, metric)
            lines.append({"fold": fold, "seed": "", "score": score, "note": note, "n_rows": len(held)})
    members = []
    for run in runs:
        oof = _part(run, "oof")
        pooled = score_or_note(oof, rows, metric)[0] if oof is not None else None
        partial = oof.meta.get("partial") if oof is not None else "no CV"
        members.append({"run": run.name, "pooled": pooled, "partial": partial})
    summary = cv_summary(lines, mixed.oof, rows, metric, len(lines))
    return summary | {"partial": None if lines else "no CV", "weights": "blend", "members": members}


def _blend_record(runs: Sequence[Run], mixed: Blend, how: How) -> dict[str, Any]:
    members = [
        {
            "run": run.name,
            "weight": mixed.weights[run.name],
            "sha256": {path.name: sha256_file(path) for path in _parts_of(run)},
        }
        for run in sorted(runs, key=lambda run: run.name)
    ]
    first = runs[0].record
    return {
        "task": first["task"],
        "blend": {"how": how, "members": members},
        "config_hash": hash_json({"how": how, "members": members}),
        "folds": first["folds"],
        "created": now(),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def _parts_of(run: Run) -> list[Path]:
    return [path for which in ("oof", "test") if (path := run.folder / f"{which}.parquet").is_file()]


def _refuse_taken(folder: Path, record: dict[str, Any]) -> None:
    """Raise unless the folder is free, or holds a blend of the same runs in the same way."""
    if not (folder / "run.json").is_file():
        return
    old = Run(folder)
    if not old.is_blend or _made_of(old.record["blend"]) != _made_of(record["blend"]):
        raise MismatchError(f"{folder}: is another run or blend; choose a name with --name")


def _made_of(blended: dict[str, Any]) -> tuple[str, list[str]]:
    return blended["how"], sorted(member["run"] for member in blended["members"])


def _shares(
    members: Mapping[str, Member], weights: Mapping[str, float] | None, partial: Mapping[str, str]
) -> dict[str, float]:
    if weights is None:
        return dict.fromkeys(members, 1 / len(members))
    unknown = [name for name in weights if name not in members]
    if unknown:
        raise MismatchError(f"weights name '{unknown[0]}', which is no member.{nearest(unknown[0], members)}")
    missing = [name for name in members if name not in weights]
    if missing:
        raise MismatchError(f"weights are missing for {listed(missing)}; give one for each member, 0 to leave it out")
    if partial:
        name, note = next(iter(partial.items()))
        raise MismatchError(f"{name}: has {note} only, so no weights hold for it; train the rest or blend equally")
    total = sum(weights.values())
    if not total > 0 or min(weights.values()) < 0 or total == float("inf"):
        raise MismatchError(f"weights must be numbers >= 0 with a positive sum (found: {dict(weights)})")
    return {name: weights[name] / total for name in members}


def _check_members(members: Mapping[str, Member]) -> None:
    """Raise MismatchError, naming two members, unless all parts of all members are of one task, split and classes."""
    parts = [(name, part) for name, member in members.items() for part in member if part is not None]
    first_name, first = parts[0] if parts else ("", None)
    for name, part in parts[1:]:
        if first is not None:
            check_alike(first, part, (first_name, name))


def _missing(members: Mapping[str, Member], which: int, word: str, partial: Mapping[str, str]) -> str | None:
    """Return why a blend has no predictions of one kind, or None when it has."""
    lacking = [f"{name} has none" for name, member in members.items() if member[which] is None]
    short = [f"{name} has {note}" for name, note in partial.items() if members[name][which] is not None]
    return f"no {word} of the blend: {listed(lacking + short)}" if lacking or short else None


def _mean(members: Mapping[str, Member], which: int, how: How, shares: Mapping[str, float]) -> Predictions:
    parts = {name: part for name, member in members.items() if (part := member[which]) is not None}
    return mean_predictions(list(parts.values()), [shares[name] for name in parts], how, list(parts))
