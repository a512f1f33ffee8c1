"""The command line: parse, call one stage or chain, print one summary table. Heavy imports happen inside commands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import api
from pipeline.base.errors import ConfigError
from pipeline.base.progress import print_table

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


@app.command()
def folds(config: ConfigFile, overrides: Overrides = None, root: Root = Path()) -> None:
    """Make, check and save the fold table that every experiment of the task trains on.

    Example: podium folds configs/digits/cnn.yaml
    """
    table, balance = api.folds(config, overrides or [], root)
    resolved = table.spec.get("resolved", table.spec.get("scheme"))
    title = f"folds {table.name}: {len(table)} rows, {resolved}, hash {table.table_hash[:12]}"
    print_table(title, ["", *balance.columns], balance.reset_index().to_numpy().tolist())


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    folds: Annotated[str, typer.Option(help="Folds such as 0,2; `all` refits on every row, without CV.")] = "",
    name: Annotated[str, typer.Option(help="Name of the run; by default the config's, with the overrides.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    jobs: Annotated[int, typer.Option(min=0, help="Units side by side; 0 chooses.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Threads of each unit; 0 chooses, or as the run started.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that decode files; 0 chooses.")] = 0,
    checkpoint_minutes: Annotated[float, typer.Option(min=0, help="Between checkpoints inside an epoch.")] = 5.0,
    verify: Annotated[bool, typer.Option("--verify", help="Check the decoded items against their checksum.")] = False,
    show: Annotated[str, typer.Option(help="Progress: auto, bar, lines or quiet.")] = "auto",
    root: Root = Path(),
) -> None:
    """Train every fold that is not finished yet, or some of them; then score OOF and predict the test rows.

    Example: podium train configs/mnist/cnn.yaml --folds 0,2 train.epochs=3
    """
    made = api.train(
        config,
        overrides or [],
        folds=_folds(folds),
        name=name or None,
        device=device,
        jobs=jobs or None,
        threads=threads or None,
        workers=workers or None,
        checkpoint_minutes=checkpoint_minutes,
        verify=verify,
        show=_show(show),
        root=root,
    )
    show_scores(made.folder)
    print(f"next: podium submit {made.folder}")


@app.command()
def predict(
    run: RunName,
    source: Annotated[Path | None, typer.Option(help="A YAML file with table: and files: of other rows.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the predictions go; by default the run's test.parquet.")
    ] = None,
    root: Root = Path(),
) -> None:
    """Predict the test rows, or any other rows, with every finished fold of a run.

    Example: podium predict digits/cnn
    """
    print(f"wrote {api.predict(run, source=source, out=out, root=root)}")


@app.command()
def ensemble(
    runs: Annotated[list[str], typer.Argument(help="Runs or blends of one task.")],
    how: Annotated[str, typer.Option(help="arithmetic or geometric mean.")] = "arithmetic",
    name: Annotated[str, typer.Option(help="Name of the blend; by default made of its members' names.")] = "",
    root: Root = Path(),
) -> None:
    """Average the predictions of several runs into a blend, which is submitted like a run.

    Example: podium ensemble digits/cnn digits/resnet --name blend
    """
    if how not in ("arithmetic", "geometric"):
        raise ConfigError(f"--how {how}: expected arithmetic or geometric")
    made, scores = api.ensemble(runs, how=how, name=name or None, root=root)  # type: ignore[arg-type]
    rows = [[member["run"], member["pooled"], member["partial"] or ""] for member in scores["members"]]
    rows.append([made.name, scores["pooled"], f"{how} mean"])
    print_table(f"blend {made.folder}", ["run", f"pooled OOF {scores['metric']}", ""], rows)
    print(f"next: podium submit {made.folder}")


@app.command()
def submit(
    run: RunName,
    file: Annotated[str, typer.Option(help="Name of the file; by default the run's and a date.")] = "",
    overwrite: Annotated[bool, typer.Option(help="Replace another submission of that name.")] = False,
    root: Root = Path(),
) -> None:
    """Write the submission of a run or blend, check it against the host's sample, and keep where it came from.

    Example: podium submit digits/cnn
    """
    path = api.submit(run, file=file or None, overwrite=overwrite, root=root)
    print(f"wrote {path}\nbeside it {path.with_suffix('.json').name}; once scored: podium board --lb {path} SCORE")


@app.command()
def board(
    lb: Annotated[tuple[str, float] | None, typer.Option(help="A submission file and the score it got.")] = None,
    private: Annotated[bool, typer.Option(help="The score is that of the private leaderboard.")] = False,
    task: Annotated[str, typer.Option(help="Only this task.")] = "",
    root: Root = Path(),
) -> None:
    """List every run and submission with CV and leaderboard scores; enter a score with --lb FILE SCORE.

    Example: podium board --lb submissions/digits/cnn.csv 0.9917
    """
    if lb is not None:
        print(f"wrote {api.enter_lb(lb[0], lb[1], private=private, root=root)}")
    for title, table in zip(("runs", "submissions"), api.board(task or None, root), strict=True):
        if len(table):
            shown = table.drop(columns=["sha256", "higher_is_better"], errors="ignore")
            print_table(title, list(shown.columns), [[_board_cell(cell) for cell in row] for row in shown.to_numpy()])
        else:
            print(f"no {title} yet")


@app.command()
def demo(
    root: Root = Path(),
    show: Annotated[str, typer.Option(help="Progress: auto, bar, lines or quiet.")] = "auto",
) -> None:
    """Run the whole chain on the digits that scikit-learn ships: no download, about a minute on two cores.

    Example: podium demo
    """
    from pipeline.demo import run_demo

    result = run_demo(root, _show(show))
    show_scores(result.run.folder)
    print_table("the submission", ["file", "rows", "accuracy on the held-back answers"], [result.line()])
    print("Try next:\n  " + "\n  ".join(result.next_commands()))


def show_scores(folder: Path) -> None:
    """Print the table of a run's scores: each fold, mean and spread, pooled OOF."""
    from pipeline.base.files import read_json

    cv = read_json(folder / "cv.json")
    rows: list[list[Any]] = [
        [f"fold {line['fold']}", line["seed"], line["n_rows"], line["score"], line["note"] or ""]
        for line in cv["folds"]
    ]
    if cv["mean"] is not None:
        spread = f"+- {cv['std']:.5f} (std over folds)" if cv["std"] is not None else ""
        rows.append(["CV, mean of folds", "", "", cv["mean"], spread])
    if cv["n_rows"]:
        rows.append(["pooled OOF", "", cv["n_rows"], cv["pooled"], cv["note"] or cv["partial"] or ""])
    if not rows:
        print(f"{folder}: trained on every row, so there is no CV")
        return
    direction = "higher" if cv["higher_is_better"] else "lower"
    selected = "; `best` weights are selected on the fold they are scored on" if cv["weights"] == "best" else ""
    title = f"{folder}: {cv['metric']} ({direction} is better), {cv['weights']} weights{selected}"
    print_table(title, ["", "seed", "rows", cv["metric"], ""], rows)


def _show(text: str) -> Any:
    """Return the kind of progress that the user names."""
    if text not in ("auto", "bar", "lines", "quiet"):
        raise ConfigError(f"--show {text}: expected auto, bar, lines or quiet")
    return text


def _board_cell(cell: Any) -> Any:
    """Return names as one text and a missing number as an empty cell."""
    if isinstance(cell, tuple):
        return ", ".join(cell)
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _folds(text: str) -> Any:
    """Return the folds that the user names: None for every fold, `all`, or numbers."""
    if text in ("", "all"):
        return text or None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--folds {text}: expected numbers such as 0,2, or `all`") from None
