"""The command line itself, the words that commands share, and what it makes of a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="From a competition's files to a leaderboard submission that can be trusted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path, typer.Argument(help="An experiment, such as configs/mnist/cnn.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, such as train.epochs=3.")]
Root = Annotated[Path, typer.Option(help="The workspace: where data/, folds/, runs/ and submissions/ lie.")]
RunName = Annotated[str, typer.Argument(help="A run or blend: its name, task/name, or its folder.")]


def run(arguments: list[str]) -> int:
    """Parse and run one command; return its exit code. A wrong word on the command line is a user error, 1."""
    import click

    try:
        code = app(args=arguments, prog_name="podium", standalone_mode=False)
    except (click.ClickException, getattr(typer, "TyperException", click.ClickException)) as error:
        error.show()
        return 1
    except (click.exceptions.Abort, typer.Abort):
        raise KeyboardInterrupt from None
    return code if isinstance(code, int) else 0
