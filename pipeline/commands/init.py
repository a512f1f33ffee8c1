"""The command `init`: the files of a competition to a task. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.progress import print_table
from pipeline.commands.app import Root, app


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder with the host's files, as they came.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, with the keys of task.yaml, such as target=breed.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the task; by default made of the folder's.")] = "",
    metric: Annotated[str, typer.Option(help="How the host scores, such as roc_auc.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a task.yaml that exists.")] = False,
    root: Root = Path(),
) -> None:
    """Look at the files of a competition and write configs/NAME/task.yaml, with the reason for each line.

    What you state steers what follows from it and is never contradicted. The folder is not written to; what has to be
    made (unpacked archives, tables of labels that stood in folder names) goes to data/NAME.made/.

    Example: podium init data/dogs --metric log_loss target=breed
    """
    from pipeline import api

    made = api.init(folder, overrides or [], name=name or None, metric=metric or None, overwrite=overwrite, root=root)
    findings, written = made.findings, made.written
    print_table(f"{folder}: what was concluded, and why", ["key", "value", "why", "how sure"], findings.rows())
    for question in findings.open_questions():
        print(f"equally likely: {question}")
    if written.differences:
        rows = [difference.row() for difference in written.differences]
        print_table(
            f"{written.path} says otherwise, and was kept (--overwrite replaces it)", ["key", "file", "concluded"], rows
        )
    print(f"{written.how} {written.path}")
    print("next: read it, and write an experiment beside it (the README shows one); then podium check, plan and train")
