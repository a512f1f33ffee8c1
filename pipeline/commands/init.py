"""The commands `init` and `auto`: the files of a competition to a task, or on to a submission. Heavy imports inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.base.progress import print_table
from pipeline.commands.app import Root, app
from pipeline.commands.words import jobs_from, show_kind, show_scores

if TYPE_CHECKING:
    from pipeline.stages.infer.stage import Initiated

Folder = Annotated[Path, typer.Argument(help="The folder with the host's files, as they came.")]
TaskKeys = Annotated[
    list[str] | None, typer.Argument(help="key=value, with the keys of task.yaml, such as target=breed.")
]
TaskName = Annotated[str, typer.Option(help="Name of the task; by default made of the folder's.")]
MetricName = Annotated[str, typer.Option(help="How the host scores, such as roc_auc.")]


@app.command()
def init(
    folder: Folder,
    overrides: TaskKeys = None,
    name: TaskName = "",
    metric: MetricName = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files that exist.")] = False,
    root: Root = Path(),
) -> None:
    """Look at the files of a competition and write configs/NAME/: task.yaml with reasons, and a first experiment.

    What you state steers what follows from it and is never contradicted. The folder is not written to; what has to be
    made (unpacked archives, tables of labels that stood in folder names) goes to data/NAME.made/.

    Example: podium init data/dogs --metric log_loss target=breed
    """
    from pipeline import api

    made = api.init(folder, overrides or [], name=name or None, metric=metric or None, overwrite=overwrite, root=root)
    _show(made, folder)
    print(f"next: read both; then podium check, plan and train {made.baseline}, or podium auto {folder}")


@app.command()
def auto(
    folder: Folder,
    overrides: TaskKeys = None,
    minutes: Annotated[float, typer.Option(min=0.5, help="Wall time of the whole command.")] = 7.0,
    name: TaskName = "",
    metric: MetricName = "",
    again: Annotated[
        bool, typer.Option("--again", help="Fit a new experiment instead of going on with the last.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    jobs: Annotated[str, typer.Option(help="Units side by side: a number, or auto, which says why.")] = "auto",
    show: Annotated[str, typer.Option(help="Progress: auto, bar, lines or quiet.")] = "auto",
    root: Root = Path(),
) -> None:
    """Go from the files of a competition to a checked submission: init, folds, train, ensemble, submit, within a time.

    Network, input and epochs are fitted to the data and to a short trial, so that all folds end in time. The same
    command goes on with what it began.

    Example: podium auto data/dogs --metric log_loss
    """
    from pipeline import api

    made = api.auto(
        folder,
        overrides or [],
        minutes=minutes,
        name=name or None,
        metric=metric or None,
        again=again,
        device=device,
        jobs=jobs_from(jobs),
        show=show_kind(show),
        root=root,
    )
    _show(made.initiated, folder)
    show_scores(made.submitted.folder)
    if made.partial:
        print(f"the time ended early: the submission comes from {made.partial}; the same command goes on")
    print(f"wrote {made.submission} in {made.seconds / 60:.1f} minutes, with {made.config}")
    print(f"next: podium board; another experiment beside {made.config.name} (base: {made.config.name}), then ensemble")


def _show(made: Initiated, folder: Path) -> None:
    """Print what was concluded, why, and what became of the files."""
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
    print(f"{'written' if made.is_new else 'kept'} {made.baseline}")
