"""What a known data set becomes: a folder that the pipeline reads, a task and an experiment, each a small YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import DataError
from pipeline.base.files import write_text
from pipeline.records.config import load_config, load_task
from pipeline.records.runs import Workspace

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """A data set that is ready to be trained on."""

    data: Path
    """The folder that the task reads."""
    task: Path
    experiment: Path
    facts: tuple[tuple[str, str], ...]
    """What is in it, as (word, text)."""


def folder_to_make(workspace: Workspace, name: str, copies: Path) -> Path:
    """Return the folder for tables that the copies lack, `data/<name>.made`.

    Raises:
        DataError: it would lie in the folder of the copies, which is never written to.
    """
    made = workspace.root / "data" / f"{name}.made"
    if made.resolve().is_relative_to(copies.resolve()):
        raise DataError(f"{copies}: {made} would be written into it; move your copies to a folder of their own")
    return made


def write_configs(
    workspace: Workspace, name: str, texts: Mapping[str, str], overwrite: bool, say: Say
) -> tuple[Path, Path]:
    """Write `configs/<name>/` and return the paths of the task and of the experiment.

    A file that says otherwise already is kept, unless `overwrite`. What stands there in the end is read once, so that
    a fault in a kept file is known now.

    Args:
        workspace: where `configs/` lies.
        name: of the task.
        texts: of the files by their name: `task.yaml` first, then the experiment; any others follow.
        overwrite: replace files that say otherwise.
        say: gets a line for each file that was kept.

    Raises:
        ConfigError: a kept file is not a task, or not an experiment.
    """
    folder = workspace.root / "configs" / name
    for file, text in texts.items():
        path = folder / file
        if path.is_file() and path.read_text(encoding="utf-8") != text and not overwrite:
            say(f"note: {path} says otherwise and was kept; --overwrite replaces it")
            continue
        write_text(path, text)
    task, experiment = (folder / file for file in list(texts)[:2])
    load_task(task)
    load_config(experiment)
    return task, experiment
