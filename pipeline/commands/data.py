"""The command `data`: data sets that are known by name, checked or made up, as a task. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.progress import print_table
from pipeline.commands.app import Root, app


@app.command()
def data(
    which: Annotated[str, typer.Argument(help="bci3b, things-meg, synthetic-eeg or synthetic-meg.")],
    path: Annotated[
        Path | None, typer.Argument(help="The folder with your copies; of made-up data, where they go (data/WHICH).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of made-up data; 0 by default.")] = None,
    name: Annotated[str, typer.Option(help="Name of the task; by default WHICH.")] = "",
    any_bytes: Annotated[
        bool, typer.Option("--any-bytes", help="Take copies of the right shapes whose checksum differs.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace configs and made-up data.")] = False,
    root: Root = Path(),
) -> None:
    """Check your copies of a known data set, or make up signals from a seed, and write a task and an experiment.

    Your folder is only read; without it you are told where the files are published.

    Example: podium data synthetic-eeg
    """
    from pipeline import api

    made = api.data(which, path, seed=seed, name=name or None, any_bytes=any_bytes, overwrite=overwrite, root=root)
    print_table(
        f"{which} in {made.data}", ["", ""], [*made.facts, ("task", made.task), ("experiment", made.experiment)]
    )
    print(f"next: podium train {made.experiment}")
