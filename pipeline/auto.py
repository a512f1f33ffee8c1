"""From the files of a competition to a checked submission within a time, stage by stage. `podium auto data/cats`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import api
from pipeline.base.errors import PodiumError
from pipeline.base.files import read_json
from pipeline.base.interrupt import Deadline
from pipeline.base.progress import clock_text
from pipeline.records.config import load_config
from pipeline.records.runs import Run, Workspace
from pipeline.stages.fitting import CLOSING_SEC, fit_to_time, write_fit
from pipeline.stages.grades import are_grades, read_as_classes
from pipeline.stages.infer.stage import Initiated
from pipeline.stages.machines import Wishes

Say = Callable[[str], None]
NAME = "auto"


@dataclass(frozen=True)
class Made:
    """What `podium auto` made."""

    initiated: Initiated
    config: Path
    """The experiment that was trained."""
    run: Run
    submitted: Run
    """What was submitted: the run, or a blend of it alone with what was fitted on its OOF."""
    submission: Path
    seconds: float

    @property
    def partial(self) -> str | None:
        """Return `2 of 5 folds` where the time ended before all were trained."""
        note = read_json(self.run.folder / "cv.json").get("partial")
        return None if note is None else str(note)

    def scores(self) -> dict[str, Any]:
        """Return the CV of what was submitted, as `cv.json` holds it."""
        return dict(read_json(self.submitted.folder / "cv.json"))


def run_auto(
    folder: Path,
    overrides: Sequence[str],
    say: Say,
    *,
    minutes: float,
    name: str | None = None,
    metric: str | None = None,
    again: bool = False,
    device: str = "auto",
    jobs: int | None = None,
    show: api.Show = "auto",
    root: Path = Path(),
) -> Made:
    """Conclude the task, fit an experiment to the time, train its folds, adjust, submit.

    What exists is kept: lines of task.yaml and baseline.yaml, and an experiment that was fitted before, whose training
    goes on. With `again` a new one is fitted.

    Raises:
        PodiumError: the files make no competition, or no fold ends in time.
    """
    left = Deadline(60 * minutes)
    workspace = Workspace(root)
    made = api.init(folder, overrides, name=name, metric=metric, root=root)
    if load_config(made.baseline).task.test is None:
        raise PodiumError(
            f"{made.written.path}: has no test set, so there is nothing to submit; `podium train {made.baseline}`"
            " trains and scores without one"
        )
    config = _experiment(workspace, made, Wishes(device=device, jobs=jobs, show="quiet"), left, minutes, again, say)
    run = api.train(
        config, device=device, jobs=jobs, minutes=max(0.05, (left.left_sec - CLOSING_SEC) / 60), show=show, root=root
    )
    if not run.done_units():
        raise PodiumError(
            f"{run.folder}: {minutes:g} minutes ended before the first fold did; what was trained is saved. Give"
            f" --minutes more: the same command, or `podium train {config}`, goes on from there"
        )
    made, run = _with_grades_checked(workspace, folder, overrides, made, run, name, metric, say)
    submitted = run if run.unfinished() else api.ensemble([str(run.folder)], adjust=["auto"], root=root)[0]
    path = api.submit(str(submitted.folder), file=run.name, overwrite=True, root=root)
    say(f"{clock_text(left.seconds - left.left_sec)} of {minutes:g} minutes were taken")
    return Made(made, config, run, submitted, path, left.seconds - left.left_sec)


def _experiment(
    workspace: Workspace, made: Initiated, wishes: Wishes, left: Deadline, minutes: float, again: bool, say: Say
) -> Path:
    """Return the experiment that was fitted before, or one that is fitted now."""
    folder = made.written.path.parent
    if not again and (folder / f"{NAME}.yaml").exists():
        say(f"{folder / NAME}.yaml: was fitted before, and its training goes on (--again fits a new one)")
        return folder / f"{NAME}.yaml"
    runs = workspace.run(load_config(made.baseline).task, NAME).parent
    names = (NAME if number == 1 else f"{NAME}-{number}" for number in range(1, 1000))
    free = next(name for name in names if not (folder / f"{name}.yaml").exists() and not (runs / name).exists())
    fit = fit_to_time(workspace, made.baseline, wishes, left, say)
    write_fit(folder / f"{free}.yaml", made.baseline.name, fit, minutes)
    return folder / f"{free}.yaml"


def _with_grades_checked(
    workspace: Workspace,
    folder: Path,
    overrides: Sequence[str],
    made: Initiated,
    run: Run,
    name: str | None,
    metric: str | None,
    say: Say,
) -> tuple[Initiated, Run]:
    """Return what was concluded and the run; classes where grades were only guessed and OOF speaks against them.

    Task and run are then written anew; the nets are the same. A task file that is older than this call is left alone.
    """
    kind = made.findings.of("kind")
    if run.task.kind != "ordinal" or kind is None or kind.sure == "certain" or are_grades(workspace, run) is not False:
        return made, run
    reason = "out of fold, rows are not mostly taken for the grades beside their own"
    if made.written.how != "written":
        say(f"note: {reason}; they may be classes (kind: multiclass in {made.written.path})")
        return made, run
    say(f"{reason}: these are classes, not grades")
    learnt = {"kind": ("multiclass", reason)}
    again = api.init(folder, overrides, name=name, metric=metric, overwrite=True, learnt=learnt, root=workspace.root)
    return again, read_as_classes(workspace, run, load_config(again.baseline).task)
