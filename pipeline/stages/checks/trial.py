"""A real run on a copy of the sample, by the stage that trains every run, within a time limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.base.interrupt import Deadline
from pipeline.records.config import Config
from pipeline.records.runs import Run, Workspace
from pipeline.stages.checks.context import Context
from pipeline.stages.crossval import train_run
from pipeline.stages.machines import Wishes


class OutOfTimeError(Exception):
    """A trial took longer than a check may."""


def run_trial(
    context: Context, workspace: Workspace, config: Config, deadline: Deadline, folds: Sequence[int] | None = None
) -> Run:
    """Train the given folds (or all) of a copy of the sample and return the run.

    Raises:
        OutOfTimeError: the deadline passed; the run is not whole.
    """
    machine = context.machine
    wishes = Wishes(
        device=machine.device,
        jobs=1,
        threads=machine.threads,
        workers=machine.workers,
        loaders=0,
        checkpoint_minutes=1e6,
        show="quiet",
    )

    def report(_: Any) -> None:
        if deadline.is_over:
            raise OutOfTimeError

    return train_run(workspace, config, wishes, lambda _: None, report, folds)
