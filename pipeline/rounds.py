"""Several rounds of pseudo-labels: teachers label, students learn, and teach the next round. A chain of stages.

podium pseudo RUN --student CONFIG --rounds 3
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.records.config import Config
from pipeline.records.runs import Run, Workspace
from pipeline.records.unlabelled import PseudoSpec
from pipeline.stages.crossval import train_run
from pipeline.stages.machines import Wishes
from pipeline.stages.pseudo import Wanted, make_labels

Say = Callable[[str], None]


def run_rounds(
    workspace: Workspace,
    teachers: Sequence[Run],
    student: Config,
    wanted: Wanted,
    n_rounds: int,
    wishes: Wishes,
    say: Say,
    report: Callable[[Any], None],
) -> list[Run]:
    """Return the students of each round; round r learns from the labels of round r-1, the first from the teachers.

    Labels and units that are done already are passed over, so the same call goes on after an interruption.

    Args:
        workspace: where everything lies.
        teachers: runs of one task; the first round's.
        student: what every round trains; its name gets `-round1`, `-round2`, ... Its `pseudo:` block may state weight,
            ramp and ratio; `labels` is filled in.
        wanted: protocol `per-fold`; a student of all folds' labels has no CV and cannot teach by fold.
        n_rounds: at least 1.
        wishes: of the machine.
        say: gets messages.
        report: gets the events of the units.

    Raises:
        ConfigError: the protocol is `final`, or there are no rounds.
    """
    if n_rounds < 1 or wanted.protocol != "per-fold":
        raise ConfigError("--rounds: needs a number from 1 on, and --protocol per-fold, whose students can teach again")
    students: list[Run] = []
    for number in range(1, n_rounds + 1):
        name = f"{student.run_name}-round{number}"
        folder = make_labels(workspace, students[-1:] or teachers, wanted, f"for-{name}", say)
        config = _taught(student, workspace.short(folder), name)
        students.append(train_run(workspace, config, wishes, say, report))
    return students


def _taught(student: Config, labels: str, name: str) -> Config:
    pseudo = (student.experiment.pseudo or PseudoSpec()).model_copy(update={"labels": labels})
    return replace(student, experiment=student.experiment.model_copy(update={"pseudo": pseudo}), run_name=name)
