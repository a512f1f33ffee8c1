"""Two runs of one task, opened, joined by id and compared: is B better than A? `podium compare A B`.

The runs may have other folds or rows: the common rows are compared, and what differs is said. How the difference and
its interval are taken stands in `blending/difference.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, MismatchError
from pipeline.base.files import read_json
from pipeline.base.keyed import make_key
from pipeline.blending.difference import Comparison, SeedSpread, compare_pairs, shown_in
from pipeline.blending.leaderboard import SimulatedLB, simulate_lb
from pipeline.blending.paired import Paired, pair_rows
from pipeline.data.tables import load_test, load_train
from pipeline.records.cv import metric_of, score_predictions
from pipeline.records.metrics import Metric, UndefinedMetricError
from pipeline.records.predictions import Predictions, join_folds, load_predictions
from pipeline.records.rows import Rows
from pipeline.records.runs import FoldName, Run, Workspace


def compare_runs(
    workspace: Workspace,
    a: Run,
    b: Run,
    n_draws: int = 1000,
    public_frac: float | None = None,
    key: int = make_key("compare"),
) -> Comparison:
    """Return how two runs (or blends) of one task differ on the rows that both predicted out of fold.

    Args:
        workspace: where the task's data lie.
        a: the run that `b` is measured against.
        b: better than `a` where the difference is positive.
        n_draws: of the bootstrap, and of the simulated leaderboard.
        public_frac: share of the test rows that a simulated public leaderboard shows; None simulates none.
        key: what the draws are for; the draws are the same for every two runs on the same rows.

    Raises:
        MismatchError: one run twice, other tasks, metrics or columns, or no common row.
        DataError: a run has no OOF.
        UndefinedMetricError: the metric has no value on the common rows.
    """
    _check_same_task(a, b)
    rows = load_train(a.task, workspace.data(a.task)).rows
    metric = metric_of(a.task, rows)
    oofs = [_oof(run) for run in (a, b)]
    pairs = pair_rows(oofs, rows, [a.name, b.name])
    seed_a, seed_b = (_seed_spread(run, set(pairs.row_ids), rows, metric) for run in (a, b))
    lb = None
    if public_frac is not None:
        lb = simulate_lb(oofs, rows, metric, public_frac, n_draws, key, _test_size(workspace, a, rows))
    notes = [*_row_notes((a, b), oofs, pairs, rows), *_selection_notes(workspace, (a, b))]
    return compare_pairs(pairs, metric, (a.name, b.name), a.task.name, n_draws, key, (seed_a, seed_b), notes, lb)


def comparison_tables(found: Comparison) -> Iterator[tuple[str, list[str], list[list[Any]]]]:
    """Yield title, columns and rows of each table of a comparison: scores, seeds if known, the simulated board."""
    unit = f" ({found.unit})" if found.unit else ""
    lines = [
        [f"fold {line.fold}", line.n_rows, line.score_a, line.score_b, _shown(line.difference, found.unit), line.note]
        for line in found.folds
    ]
    ends = f"standard error {shown_in(found.standard_error, found.unit).lstrip('+')}, {found.n_draws} draws"
    undefined = f", {found.n_undefined} undefined" if found.n_undefined else ""
    shown = shown_in(found.difference, found.unit)
    lines.append(["pooled OOF", found.n_rows, found.score_a, found.score_b, shown, ends + undefined])
    direction = "higher" if found.higher_is_better else "lower"
    columns = ["", "rows", f"A: {found.a}", f"B: {found.b}", f"B better by{unit}", ""]
    yield f"{found.task}: {found.metric} ({direction} is better)", columns, lines
    if found.seed_noise is not None:
        yield "each seed alone, pooled OOF", ["", columns[2], columns[3]], _seed_lines(found)
    if found.lb is not None:
        yield _board_title(found.lb), *_board_table(found, found.lb)


def comparison_lines(found: Comparison) -> Iterator[str]:
    """Yield what a comparison says beside its tables: warnings, notes, and the verdict last."""
    for note in found.notes:
        yield note if note.startswith("warning: ") else f"note: {note}"
    if found.lb is not None and found.lb.flip_prob is not None:
        share = f"{100 * found.lb.flip_prob:.1f} %"
        yield f"in {share} of the draws the public board orders the two runs unlike the private one"
    yield found.verdict


def _shown(value: float | None, unit: str) -> str | None:
    return None if value is None else shown_in(value, unit)


def _seed_lines(found: Comparison) -> list[list[Any]]:
    spreads = (found.seeds_a, found.seeds_b)
    seeds = sorted({seed for spread in spreads for seed in spread.scores})
    lines: list[list[Any]] = [[f"seed {seed}", *(spread.scores.get(seed) for spread in spreads)] for seed in seeds]
    return [*lines, ["std over seeds", *(spread.std for spread in spreads)]]


def _board_title(lb: SimulatedLB) -> str:
    repeated = ", rows drawn repeatedly" if lb.is_repeated else ""
    size = f"{lb.n_public} public and {lb.n_private} private {lb.units} (as many as the {lb.size_of} has{repeated})"
    undefined = f", {lb.n_undefined} undefined" if lb.n_undefined else ""
    return f"simulated leaderboard: {size}, {lb.n_draws} draws{undefined}"


def _board_table(found: Comparison, lb: SimulatedLB) -> tuple[list[str], list[list[Any]]]:
    unit = f" ({found.unit})" if found.unit else ""
    columns = ["public score", f"std of public - private{unit}", "95 % of public - private", "95 % of public - whole"]
    lines: list[list[Any]] = []
    for name, run in zip((found.a, found.b), lb.runs, strict=True):
        ranges = ["..".join(shown_in(end, found.unit) for end in ends) for ends in (run.from_private, run.from_whole)]
        lines.append([name, shown_in(run.std, found.unit).lstrip("+"), *ranges])
    return columns, lines


def _check_same_task(a: Run, b: Run) -> None:
    between = f"{a.name} and {b.name} cannot be compared"
    if a.folder.resolve() == b.folder.resolve():
        raise MismatchError(f"{between}: they are one run ({a.folder})")
    if a.task.name != b.task.name:
        raise MismatchError(f"{between}: task '{a.task.name}' against '{b.task.name}'")
    if a.task.metric != b.task.metric:
        raise MismatchError(f"{between}: metric {a.task.metric.plain()} against {b.task.metric.plain()}")


def _oof(run: Run) -> Predictions:
    path = run.folder / "oof.parquet"
    if not path.is_file():
        why = "it is a refit on every row" if not run.is_blend and run.is_refit else "no fold of it is finished"
        reason = "not every member of the blend has one" if run.is_blend else why
        raise DataError(f"{run.folder}: has no OOF, as {reason}; only rows held out can be compared")
    return load_predictions(path)


def _test_size(workspace: Workspace, run: Run, rows: Rows) -> int | None:
    """Return how many rows a submission has; None for a task without test rows."""
    if run.task.test is None:
        return None
    test = load_test(run.task, workspace.data(run.task), rows.names).rows
    return len(test) if test.submission_ids is None else len(set(test.submission_ids))


def _seed_spread(run: Run, row_ids: set[str], rows: Rows, metric: Metric) -> SeedSpread:
    """Return the score of each seed alone, over the folds that every seed has finished."""
    by_seed: dict[int, dict[FoldName, Predictions]] = {}
    for unit in [] if run.is_blend else run.done_units():
        path = run.unit_folder(unit) / "heldout.parquet"
        if path.is_file():
            by_seed.setdefault(unit.seed, {})[unit.fold] = load_predictions(path)
    shared = set.intersection(*(set(by_fold) for by_fold in by_seed.values())) if by_seed else set()
    scores = {}
    for seed, by_fold in sorted(by_seed.items()) if shared else ():
        oof = join_folds([by_fold[fold] for fold in shared]).sorted()
        kept = oof.at(np.flatnonzero([row_id in row_ids for row_id in oof.ids]))
        try:
            scores[seed] = score_predictions(kept, rows, metric)
        except UndefinedMetricError:
            continue
    return SeedSpread.of(scores)


def _row_notes(runs: tuple[Run, Run], oofs: Sequence[Predictions], pairs: Paired, rows: Rows) -> Iterable[str]:
    n = len(pairs.row_ids)
    if any(len(oof) != n for oof in oofs):
        counts = " and ".join(f"{len(oof)} of {run.name}" for run, oof in zip(runs, oofs, strict=True))
        yield f"{n} common rows are compared, of {counts}"
    for run, oof in zip(runs, oofs, strict=True):
        if oof.meta.get("partial"):
            yield f"{run.name} has {oof.meta['partial']}"
    fold_a, fold_b = pairs.folds
    if _differ(fold_a, fold_b):
        yield (
            "warning: the folds differ: the same rows were predicted by models of other splits, so a part of the "
            "difference is that of the splits; there is no table by fold"
        )
    elif len({oof.meta.get("folds_hash") for oof in oofs}) > 1:
        yield "warning: the fold tables differ, though not on the common rows: the models learned from other rows"
    if pairs.groups is not None:
        yield f"whole groups are drawn (column '{runs[0].task.group}')"
    if rows.submission_ids is not None:
        yield f"rows of one {runs[0].task.submission.row_id} are averaged first and count as one"


def _differ(a: NDArray[np.int64] | None, b: NDArray[np.int64] | None) -> bool:
    return (a is None) != (b is None) or (a is not None and b is not None and bool((a != b).any()))


def _selection_notes(workspace: Workspace, runs: tuple[Run, Run]) -> Iterable[str]:
    for run in runs:
        for reason in _selected(workspace, run):
            yield f"warning: the OOF of {run.name} is selected on its own rows, which flatters it: {reason}"


def _selected(workspace: Workspace, run: Run) -> list[str]:
    """Return why the OOF of a run, or of a member of a blend, is better than it would be on new rows."""
    path = run.folder / "cv.json"
    cv: dict[str, Any] = read_json(path) if path.is_file() else {}
    reasons = [f"{run.name} predicts with `weights: best`"] if cv.get("weights") == "best" else []
    selection = run.record.get("soup", {}).get("selection")
    reasons += [f"{run.name}: {selection}"] if selection else []
    for member in run.record["blend"]["members"] if run.is_blend else ():
        folder = workspace.run(run.task, member["run"])
        if (folder / "run.json").is_file():
            reasons += _selected(workspace, Run(folder))
    return reasons
