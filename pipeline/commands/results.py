"""Commands on results: ensemble, compare, submit, board, demo. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.errors import ConfigError
from pipeline.base.progress import print_table
from pipeline.commands.app import Root, app
from pipeline.commands.words import board_cell, read_block, read_numbers, require_send, show_kind, show_scores

_HIDDEN_COLUMNS = ("sha256", "higher_is_better", "is_partial", "is_intact")
_RARE_COLUMNS = ("cv_std", "public", "private", "predicted", "low", "high", "sent")
"""Of the board: shown where a line has them."""


@app.command()
def ensemble(
    runs: Annotated[list[str], typer.Argument(help="Runs or blends of one task.")],
    method: Annotated[
        str, typer.Option(help="mean, geometric, logits, ranks; fitted on OOF: greedy, simplex, stack.")
    ] = "mean",
    options: Annotated[str, typer.Option(help='Of the method, such as "{n_bags: 20}" of greedy.')] = "",
    weights: Annotated[str, typer.Option(help="Of a mean, in the order of the runs, such as 0.7,0.3.")] = "",
    adjust: Annotated[
        str, typer.Option(help="What is fitted after averaging, such as temperature; auto: whatever gains.")
    ] = "",
    prior: Annotated[
        str, typer.Option(help="Shares of the classes in the test set, such as 0.2,0.8, or estimate; moves it alone.")
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the blend; by default made of its members' names.")] = "",
    root: Root = Path(),
) -> None:
    """Make one of several runs: a blend, which is submitted like a run. Fitted weights are kept if they gain honestly.

    Example: podium ensemble digits/cnn digits/resnet --method greedy --name blend
    """
    from pipeline import api
    from pipeline.stages.blend_tables import blend_lines, blend_tables

    made, cv = api.ensemble(
        runs,
        method=method,
        options=read_block("--options", options),
        weights=read_numbers("--weights", weights),
        adjust=[word.strip() for word in adjust.split(",") if word.strip()],
        prior="estimate" if prior == "estimate" else read_numbers("--prior", prior),
        name=name or None,
        root=root,
    )
    for table in blend_tables(made, cv):
        print_table(*table)
    for line in blend_lines(made, cv):
        print(line)
    print(f"next: podium submit {made.folder}")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="The run or blend that B is measured against.")],
    b: Annotated[str, typer.Argument(help="A run or blend of the same task.")],
    simulate_lb: Annotated[
        float | None, typer.Option(help="Draw leaderboards that show this share of the test rows, such as 0.3.")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="How often rows are drawn.")] = 1000,
    json: Annotated[Path | None, typer.Option(help="A file for the same numbers, never scaled to points.")] = None,
    root: Root = Path(),
) -> None:
    """Say whether run B is better than run A on the rows that both predicted, with an interval.

    Example: podium compare digits/cnn digits/resnet --simulate-lb 0.3
    """
    from pipeline import api
    from pipeline.stages.compare import comparison_lines, comparison_tables

    found = api.compare(a, b, simulate_lb=simulate_lb, n_draws=draws, json=json, root=root)
    for table in comparison_tables(found):
        print_table(*table)
    print("\n".join(comparison_lines(found)))


@app.command()
def submit(
    run: Annotated[str, typer.Argument(help="A run or blend; with --send also a file that was written before.")],
    file: Annotated[str, typer.Option(help="Name of the file; by default the run's.")] = "",
    overwrite: Annotated[bool, typer.Option(help="Replace another submission of that name.")] = False,
    send: Annotated[bool, typer.Option("--send", help="Send it with Kaggle's client and wait for its score.")] = False,
    message: Annotated[str, typer.Option(help="Its description on the host; by default file and CV.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Send it although it was sent before.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the score.")] = True,
    competition: Annotated[str, typer.Option(help="Where to; by default the task's host: or the last one.")] = "",
    root: Root = Path(),
) -> None:
    """Write the submission of a run or blend, check it against the host's sample, and keep where it came from.

    Example: podium submit digits/cnn --send
    """
    from pipeline import api

    require_send(send, {"--message": message, "--again": again, "--no-wait": not wait, "--competition": competition})
    is_file = run.endswith((".csv", ".npy"))
    if is_file and (not send or file or overwrite):
        raise ConfigError(f"{run}: a file that was written before can only be sent, with --send")
    path = Path(run) if is_file else api.submit(run, file=file or None, overwrite=overwrite, root=root)
    later = "" if send else f"; once scored: podium board --lb {path} SCORE"
    if not is_file:
        print(f"wrote {path}\nbeside it {path.with_suffix('.json').name}{later}")
    if not send:
        return
    sent = api.send(path, competition=competition or None, message=message or None, again=again, wait=wait, root=root)
    if sent.public is not None:
        print(f"public LB {sent.public:g}, written into {sent.record}")


@app.command()
def board(
    lb: Annotated[tuple[str, float] | None, typer.Option(help="A submission file and the score it got.")] = None,
    private: Annotated[bool, typer.Option(help="The score is that of the private leaderboard.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Fetch the scores of what was sent.")] = False,
    task: Annotated[str, typer.Option(help="Only this task.")] = "",
    root: Root = Path(),
) -> None:
    """List every run and submission with CV and LB, what they say about each other, and two proposed finals.

    A score is entered with --lb FILE SCORE, or fetched with --refresh.

    Example: podium board --lb submissions/digits/cnn.csv 0.9917
    """
    from pipeline import api

    if lb is not None:
        print(f"wrote {api.enter_lb(lb[0], lb[1], private=private, root=root)}")
    if refresh:
        print(f"changed records: {api.refresh(task or None, root)}")
    for title, table in zip(("runs", "submissions"), api.board(task or None, root), strict=True):
        if len(table):
            hidden = [name for name in _HIDDEN_COLUMNS if name in table]
            hidden += [name for name in _RARE_COLUMNS if name in table and table[name].isna().all()]
            shown = table.drop(columns=hidden)
            print_table(title, list(shown.columns), [[board_cell(cell) for cell in row] for row in shown.to_numpy()])
        else:
            print(f"no {title} yet")
    for one in api.outlook(task or None, root):
        print("\n".join([f"{one.task}:", *(f"  {line}" for line in one.lines())]))


@app.command()
def demo(
    root: Root = Path(),
    show: Annotated[str, typer.Option(help="Progress: auto, bar, lines or quiet.")] = "auto",
) -> None:
    """Run the whole chain on the digits that scikit-learn ships: no download, about a minute on two cores.

    Example: podium demo
    """
    from pipeline.demo import run_demo

    result = run_demo(root, show_kind(show))
    show_scores(result.run.folder)
    print_table("the submission", ["file", "rows", "accuracy on the held-back answers"], [result.line()])
    print("Try next:\n  " + "\n  ".join(result.next_commands()))
