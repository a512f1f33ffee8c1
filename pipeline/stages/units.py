"""The units of a run through an executor, in finer micro-batches where memory runs out: part of `podium train`.

How a batch is split changes bits, and batch norm sees the smaller part, so every unit of a run is split alike: the
factor stands in `run.json`, and a unit that was made with another one does not count as finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.base.errors import listed
from pipeline.base.files import write_json
from pipeline.records.machine import Machine
from pipeline.records.runs import Run, Workspace
from pipeline.training.device import seats_of, threads
from pipeline.training.executors import run_in_turns, run_jobs
from pipeline.training.memory import StepMemoryError, finer_split, free_memory
from pipeline.training.unit import UnitJob, train_unit_job, unit_events

Say = Callable[[str], None]
Report = Callable[[Any], None]


def train_units(
    workspace: Workspace,
    run: Run,
    machine: Machine,
    folds: Sequence[int] | None,
    say: Say,
    report: Report,
    is_over: Callable[[], bool] | None = None,
) -> Run:
    """Train the units of the given folds, or of all, that are not finished, and return the run as it then stands.

    Where memory runs out in a step, all units go on in micro-batches half as large, those that were finished or begun
    from their start; which is said.

    Raises:
        PodiumError: a unit failed, or memory still runs out after the last halving; see `finer_split`.
        StopRequestedError: a signal came, or `is_over` says that the time is; the same command goes on.
    """
    while todo := run.unfinished(folds):
        split = run.machine.micro_batches
        jobs = [UnitJob(workspace.root, run.folder, unit, machine) for unit in todo]
        try:
            if machine.turns:
                with threads(machine.threads):  # of all of them: each would put back what it found when it ends
                    run_in_turns(unit_events, jobs, machine.jobs, report, is_over)
            else:
                run_jobs(train_unit_job, jobs, machine.jobs, report, is_over, seats_of(machine.device))
        except StepMemoryError as error:
            _split_finer(run, error, folds, say)
        run = Run(run.folder)
        if run.machine.micro_batches == split:  # else it changed, here or in another process that trains this run
            break
        free_memory(machine.device)  # of units that took turns with the one whose memory ran out
    return run


def _split_finer(run: Run, error: StepMemoryError, folds: Sequence[int] | None, say: Say) -> None:
    """Write twice the micro-batches into the run's record, unless another process has done so, and say it."""
    with run.locked():
        now = Run(run.folder)
        if now.machine.micro_batches > error.micro_batches:
            return
        accumulation = run.experiment.train.accumulation
        factor = finer_split(error, accumulation)
        done = now.done_units()
        machine = now.machine.model_copy(update={"micro_batches": factor})
        write_json(run.folder / "run.json", now.record | {"machine": machine.plain()})
    say(
        f"note: {error}; the run goes on with {accumulation * factor} micro-batches in a batch instead of"
        f" {accumulation * error.micro_batches}. Batches stay as large as they were, but batch norm sees the smaller"
        " parts, so units that were begun start again"
    )
    if done:
        say(f"note: finished before with larger micro-batches, to be trained anew: {listed(u.name for u in done)}")
    if left := [unit.name for unit in done if folds is not None and unit.fold not in folds]:
        say(f"note: not asked for now, so they no longer count until `podium train` makes them anew: {listed(left)}")
