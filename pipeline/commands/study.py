"""The command `study`: many settings trained alike and laid side by side. Heavy imports happen inside."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.progress import print_table
from pipeline.commands.app import Overrides, Root, app
from pipeline.commands.words import jobs_from


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="A study, such as configs/mnist/studies/optimizers.yaml.")],
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="Before the names of its runs; by default the file's.")] = "",
    out: Annotated[Path | None, typer.Option(help="Tables and page; by default runs/TASK/NAME-study/.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    jobs: Annotated[str, typer.Option(help="Units side by side: a number, or auto, which says why.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Threads of each unit; 0 chooses.")] = 0,
    root: Root = Path(),
) -> None:
    """Train every point of a study that is not finished, score all on the same rows, and write tables and a page.

    Example: podium study configs/mnist/studies/optimizers.yaml
    """
    from pipeline import api
    from pipeline.stages.study.page import study_table

    made = api.study(
        file,
        overrides or [],
        name=name or None,
        out=out,
        device=device,
        jobs=jobs_from(jobs),
        threads=threads or None,
        command=shlex.join(["podium", *sys.argv[1:]]) if "study" in sys.argv else None,
        root=root,
    )
    table = study_table(made.study, made.result)
    print_table(f"{file}: scored on {made.result.scored_on}", table.columns, table.rows)
    print(f"wrote {made.page}")
