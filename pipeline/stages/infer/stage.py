"""From a folder as a host delivers it to `configs/<name>/`: task and first experiment, with a reason for each line.

podium init data/cats
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import ConfigError
from pipeline.records.config import load_task
from pipeline.records.runs import Workspace
from pipeline.stages.infer.baseline import write_baseline
from pipeline.stages.infer.conclude import Conclusion, conclude
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.made import described, write_made
from pipeline.stages.infer.stated import task_name
from pipeline.stages.infer.verify import verify
from pipeline.stages.infer.write import Written, write_task

Say = Callable[[str], None]


@dataclass(frozen=True)
class Initiated:
    """What `podium init` concluded and wrote."""

    conclusion: Conclusion
    written: Written
    baseline: Path
    """A first experiment."""
    is_new: bool
    """Whether that was written now."""

    @property
    def findings(self) -> Findings:
        """Return what was concluded, and why."""
        return self.conclusion.findings


def init_folder(
    workspace: Workspace,
    folder: Path,
    say: Say,
    *,
    name: str | None = None,
    metric: str | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    learnt: Mapping[str, tuple[str, str]] | None = None,
) -> Initiated:
    """Look at the files of a competition, conclude its task, try it, and write `configs/<name>/task.yaml`.

    A first experiment is written beside it, `baseline.yaml`.

    The folder itself is never written to; what has to be made goes to `data/<name>.made/`.

    Args:
        workspace: where configs and data lie.
        folder: the host's files.
        say: gets a line before long work.
        name: of the task; by default made of the folder's.
        metric: the host's, where the user states it.
        overrides: `key=value`, with the keys of task.yaml; they steer what follows from them.
        overwrite: replace files that exist; else the lines of the task are kept, and the experiment whole.
        learnt: keys of task.yaml that a training decided, each with its value and the reason.

    Raises:
        DataError: the files do not make a competition; the message says what was seen and what is needed.
        ConfigError: an override is not what a task takes.
    """
    name = task_name(folder, name)
    made_folder = workspace.root / "data" / f"{name}.made"
    if (
        folder.resolve() in (made_folder.resolve(), *made_folder.resolve().parents)
        and folder.resolve() != workspace.root.resolve() / "data"
    ):
        raise ConfigError(
            f"{folder}: holds the folder that is made for this task ({made_folder}); give the host's own folder"
        )
    places = (workspace.short(folder), workspace.short(made_folder))
    decided = learnt or {}
    stated = [*overrides, *(f"{key}={value}" for key, (value, _) in decided.items())]
    found = conclude(folder, made_folder, places, name, metric, stated, say)
    for key, (value, reason) in decided.items():
        found.findings.add(key, value, reason, "likely")
    if found.is_made:
        write_made(made_folder, folder, found.made, say)
        for file, what in described(found.made).items():
            found.findings.add(f"made {file}", what, f"in {places[1]}")
    verify(found.task, workspace.data(found.task), found.findings, say)
    path = workspace.root / "configs" / name / "task.yaml"
    written = write_task(path, found.values, found.findings, overwrite)
    task, baseline = load_task(path), path.with_name("baseline.yaml")
    is_new = write_baseline(baseline, task, workspace.data(task), found.facts, say, overwrite)
    return Initiated(found, written, baseline, is_new)
