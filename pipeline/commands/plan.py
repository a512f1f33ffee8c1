"""The command `plan`: what fits into memory and into the time. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.progress import print_table
from pipeline.commands.app import ConfigFile, Overrides, Root, app
from pipeline.commands.words import jobs_from


@app.command()
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    quota: Annotated[str, typer.Option(help="Time that the run may take, such as 9h, 45m or 1h30m.")] = "",
    name: Annotated[str, typer.Option(help="Name of the run, whose finished folds are left out.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    jobs: Annotated[str, typer.Option(help="Units side by side: a number, or auto, which says why.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Threads of each unit; 0 chooses, or as the run started.")] = 0,
    loaders: Annotated[int, typer.Option(min=-1, help="Processes of each unit for albumentations; -1 chooses.")] = -1,
    seconds: Annotated[float, typer.Option(min=0, help="About how long steps are timed.")] = 12.0,
    root: Root = Path(),
) -> None:
    """Try a few steps of a training, and say what all of it will take in time and memory, and whether a quota holds.

    Exits with 1 when it does not. Example: podium plan configs/mnist/cnn.yaml --quota 9h
    """
    from pipeline import api
    from pipeline.stages.plan_table import NOT_COUNTED, plan_lines

    found = api.plan(
        config,
        overrides or [],
        quota=quota or None,
        name=name or None,
        device=device,
        jobs=jobs_from(jobs),
        threads=threads or None,
        loaders=loaders if loaders >= 0 else None,
        seconds=seconds,
        root=root,
    )
    machine = found.machine
    title = f"{config}: {machine.device}, {machine.precision}, {len(found.probes)} x {machine.threads} threads"
    print_table(title, ["", "", ""], plan_lines(found))
    print(f"not counted: {'; '.join(NOT_COUNTED)}")
    if found.holds is False:
        raise typer.Exit(1)
