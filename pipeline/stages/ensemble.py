"""Blends: runs joined by id into one, with the honest score beside the in-sample one. `podium ensemble RUN RUN`.

A blend is a folder like that of a run (`oof.parquet`, `test.parquet`, `cv.json`, `run.json`), so it is submitted and
blended like one; `blend.json` holds what was fitted and found. Everything is computed before the first file is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import MismatchError, listed
from pipeline.base.files import hash_json, sha256_file, write_json
from pipeline.blending.blend import Blend, Member, blend, check_members
from pipeline.blending.methods import Method
from pipeline.blending.problem import Fitted
from pipeline.data.tables import load_test, load_train
from pipeline.records.cv import cv_summary, metric_of, score_or_note
from pipeline.records.metrics import Metric
from pipeline.records.predictions import load_predictions, save_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import Run, Workspace, git_commit, now, versions

_LONGEST_NAME = 100


def blend_runs(
    workspace: Workspace, runs: Sequence[Run], method: Method, name: str | None, say: Callable[[str], None]
) -> tuple[Run, dict[str, Any]]:
    """Write the blend of several runs as a run folder; return it and its scores, as `cv.json` holds them.

    Args:
        workspace: where everything lies.
        runs: different runs of one task; their order matters only to given weights.
        method: how they are blended.
        name: of the folder; by default made of the members' names and the method.
        say: gets messages, a line each.

    Raises:
        MismatchError: the runs differ in task, folds, classes or ids, there is nothing to fit on, or the name is taken
            by something else; nothing is written.
    """
    given = {run.name: _member(run) for run in _distinct(runs, method)}
    check_members(given)  # here, because messages name the runs in the order of the user
    runs, method = _in_order(runs, method)
    members = {run.name: given[run.name] for run in runs}
    task, data = runs[0].task, workspace.data(runs[0].task)
    rows = load_train(task, data).rows
    metric = metric_of(task, rows)
    has_test = any(test is not None for _, test in members.values())
    test_rows = load_test(task, data, rows.names).rows if rows.submission_ids is not None and has_test else None
    folder = workspace.run(task, name or _default_name(runs, method))
    _refuse_taken(folder, runs, method)
    mixed = blend(members, method, rows, metric, test_rows)
    cv = _scores(mixed, members, rows, metric)
    _write(folder, mixed, cv, _record(runs, mixed, method), _details(mixed, members))
    for note in mixed.notes:
        say(f"note: {note}")
    return Run(folder), cv


def _distinct(runs: Sequence[Run], method: Method) -> Sequence[Run]:
    """Return the runs, or raise MismatchError when one comes twice, or alone and with nothing to do to it."""
    shown = [run.name for run in runs]
    if len(set(shown)) < len(shown):
        raise MismatchError(f"a blend needs different runs (found: {listed(shown)})")
    if len(runs) < 2 and not (method.adjust or method.prior):
        raise MismatchError("a blend needs at least two runs; one alone may have --adjust or --prior")
    return runs


def _in_order(runs: Sequence[Run], method: Method) -> tuple[list[Run], Method]:
    """Return the runs by name, and given weights with them: the order of the command line decides nothing."""
    order = sorted(range(len(runs)), key=lambda place: runs[place].name)
    if method.weights is not None and len(method.weights) == len(runs):
        method = replace(method, weights=tuple(method.weights[place] for place in order))
    return [runs[place] for place in order], method


def _default_name(runs: Sequence[Run], method: Method) -> str:
    ways = [method.name] if method.name != "mean" else ["adjusted"] if len(runs) == 1 else []
    name = "-".join(["+".join(run.name for run in runs), *ways])
    if len(name) > _LONGEST_NAME:
        raise MismatchError(f"the names of {len(runs)} runs make no short name for their blend; choose one with --name")
    return name


def _member(run: Run) -> Member:
    oof, test = (run.folder / f"{part}.parquet" for part in ("oof", "test"))
    return (
        load_predictions(oof) if oof.is_file() else None,
        load_predictions(test) if test.is_file() else None,
    )


def _write(
    folder: Path, mixed: Blend, cv: dict[str, Any], record: dict[str, Any], details: dict[str, Any] | None
) -> None:
    for part, predictions in (("oof", mixed.oof), ("test", mixed.test)):
        if predictions is None:  # also when an earlier blend of these members had it
            (folder / f"{part}.parquet").unlink(missing_ok=True)
            continue
        marked = replace(predictions, meta={**predictions.meta, "run": folder.name})
        save_predictions(folder / f"{part}.parquet", marked)
    (folder / "blend.json").unlink(missing_ok=True)
    if details is not None:
        write_json(folder / "blend.json", details)
    write_json(folder / "cv.json", cv)
    write_json(folder / "run.json", record)


def _scores(mixed: Blend, members: dict[str, Member], rows: Rows, metric: Metric) -> dict[str, Any]:
    """Return the scores of a blend like those of a run, with those of its members and of what it was compared to."""
    lines = []
    if mixed.oof is not None and mixed.oof.fold is not None:
        for fold in np.unique(mixed.oof.fold).tolist():
            held = mixed.oof.at(np.flatnonzero(mixed.oof.fold == fold))
            score, note = score_or_note(held, rows, metric)
            lines.append({"fold": fold, "seed": "", "score": score, "note": note, "n_rows": len(held)})
    effects = dict(zip(members, mixed.findings.effects, strict=True)) if mixed.findings else {}
    weights = _weights(mixed.rule, members)
    own = []
    for name, (oof, _) in members.items():
        pooled = score_or_note(oof, rows, metric)[0] if oof is not None else None
        partial = oof.meta.get("partial") if oof is not None else "no CV"
        line = {"run": name, "pooled": pooled, "partial": partial, "weight": weights.get(name)}
        own.append(line | {"loss_without": effects.get(name)})
    summary = cv_summary(lines, mixed.oof, rows, metric, len(lines))
    return summary | {"partial": None if lines else "no CV", "weights": "blend", "members": own} | _comparison(mixed)


def _comparison(mixed: Blend) -> dict[str, Any]:
    if mixed.findings is None:
        return {"scores": [], "gain": None, "gain_se": None, "is_kept": None}
    verdict = mixed.findings.verdict
    scores = [asdict(entry) for entry in (*verdict.entries, *mixed.findings.adjusted)]
    return {"scores": scores, "gain": verdict.gain, "gain_se": verdict.gain_se, "is_kept": verdict.is_kept}


def _details(mixed: Blend, members: dict[str, Member]) -> dict[str, Any] | None:
    """Return what was fitted and found; None for a blend without a score."""
    if mixed.findings is None or mixed.rule is None:
        return None
    found = mixed.findings
    rows = [[None if np.isnan(value) else value for value in row] for row in found.correlation.tolist()]
    return {
        "rule": _by_name(mixed.rule, members),
        "rule_without_fold": {str(fold): _by_name(rule, members) for fold, rule in found.nested.rules.items()},
        "weight_spread": _weight_spread(mixed, members),
        **_comparison(mixed),
        "adjustments_tried": [asdict(trial) for trial in found.trials],
        "correlation": {"of": "errors: prediction less truth", "members": list(members), "matrix": rows},
        "loss_without": dict(zip(members, found.effects, strict=True)),
    }


def _weight_spread(mixed: Blend, members: dict[str, Member]) -> dict[str, float]:
    """Return the standard deviation of each weight over the rules of the folds; empty where there are no weights."""
    rules = list(mixed.findings.nested.rules.values()) if mixed.findings else []
    shares = [_weights(rule, members) for rule in rules]
    if len(shares) < 2 or not all(shares):
        return {}
    return {name: float(np.std([share[name] for share in shares], ddof=1)) for name in members}


def _by_name(rule: Fitted, members: dict[str, Member]) -> dict[str, Any]:
    weights = _weights(rule, members)
    return rule.record() | ({"weights": weights} if weights else {})


def _weights(rule: Fitted | None, members: dict[str, Member]) -> dict[str, float]:
    """Return the weight of each member; empty for a rule without weights."""
    weights = rule.record().get("weights") if rule is not None else None
    return dict(zip(members, weights, strict=True)) if weights is not None else {}


def _record(runs: Sequence[Run], mixed: Blend, method: Method) -> dict[str, Any]:
    shares = _weights(mixed.rule, {run.name: (None, None) for run in runs})
    members = [
        {
            "run": run.name,
            "weight": shares.get(run.name),
            "sha256": {path.name: sha256_file(path) for path in _parts(run)},
        }
        for run in runs
    ]
    made = _plain(method) | {"members": members}
    first = runs[0].record
    return {
        "task": first["task"],
        "blend": made,
        "config_hash": hash_json(made),
        "folds": first["folds"],
        "created": now(),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def _plain(method: Method) -> dict[str, Any]:
    return {
        "method": method.name,
        "options": method.options.plain(),
        "weights": method.weights and list(method.weights),
        "adjust": list(method.adjust),
        "prior": list(method.prior) if isinstance(method.prior, tuple) else method.prior,
    }


def _parts(run: Run) -> list[Path]:
    return [path for which in ("oof", "test") if (path := run.folder / f"{which}.parquet").is_file()]


def _refuse_taken(folder: Path, runs: Sequence[Run], method: Method) -> None:
    """Raise unless the folder is free, or holds a blend of the same runs in the same way."""
    if not (folder / "run.json").is_file():
        return
    wanted = _plain(method) | {"members": [run.name for run in runs]}
    old = Run(folder)
    made = {}
    if old.is_blend:
        blended = old.record["blend"]
        made = {key: blended.get(key) for key in wanted} | {"members": [one["run"] for one in blended["members"]]}
    if made != wanted:
        raise MismatchError(f"{folder}: is another run or blend; choose a name with --name")
