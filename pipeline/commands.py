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

_HIDDEN_COLUMNS = ("sha256", "higher_is_better", "is_partial", "is_intact")
_RARE_COLUMNS = ("cv_std", "public", "private", "predicted", "low", "high", "sent")
"""Of the board: shown where a line has them."""


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
    loaders: Annotated[int, typer.Option(min=-1, help="Processes of each unit for albumentations; -1 chooses.")] = -1,
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
        loaders=loaders if loaders >= 0 else None,
        checkpoint_minutes=checkpoint_minutes,
        verify=verify,
        show=_show(show),
        root=root,
    )
    show_scores(made.folder)
    print(f"next: podium submit {made.folder}")


@app.command()
def check(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The picture; by default runs/TASK/RUN-check/augmented.png.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 takes every core.")] = 0,
    root: Root = Path(),
) -> None:
    """Try a config on some of its data for about a minute: is it learned, does nothing leak, is every option read?

    Exits with 1 when a check fails. Example: podium check configs/digits/cnn.yaml
    """
    report = api.check(config, overrides or [], out=out, device=device, threads=threads or None, root=root)
    title = f"{config}: {report.n_rows} of {report.n_all} rows, {report.seconds:.0f} s"
    print_table(title, ["", "check", "found"], report.lines())
    if report.failed:
        raise typer.Exit(1)


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
def pseudo(
    runs: Annotated[list[str], typer.Argument(help="The teachers: runs of one task on one fold table.")],
    protocol: Annotated[str, typer.Option(help="per-fold, or final: for models without CV.")] = "per-fold",
    hard: Annotated[bool, typer.Option("--hard", help="The decided class instead of probabilities.")] = False,
    temperature: Annotated[float, typer.Option(help="Soft labels: below 1 sharpens them.")] = 1.0,
    threshold: Annotated[float | None, typer.Option(help="Smallest probability of a trusted row's class.")] = None,
    thresholds: Annotated[str, typer.Option(help="The same by class, such as cat=0.9,dog=0.8.")] = "",
    top_n: Annotated[int | None, typer.Option(help="At most so many rows of each class.")] = None,
    proportion: Annotated[
        float | None, typer.Option(help="This share of the rows, in the proportion of the labelled classes.")
    ] = None,
    keep_frac: Annotated[float | None, typer.Option(help="Values: the share on which teachers agree best.")] = None,
    name: Annotated[str, typer.Option(help="Name of the folder of tables.")] = "labels",
    student: Annotated[Path | None, typer.Option(help="A config to train on the labels at once.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="With --student: each student teaches the next.")] = 1,
    show: Annotated[str, typer.Option(help="Progress: auto, bar, lines or quiet.")] = "auto",
    root: Root = Path(),
) -> None:
    """Label the rows without labels, one table for each fold, so that no OOF can hear of itself through its teachers.

    Example: podium pseudo mnist/cnn --threshold 0.95 --name sure
    """
    from pipeline.blending.trust import Trust
    from pipeline.stages.pseudo import Wanted, describe_labels

    if protocol not in ("per-fold", "final"):
        raise ConfigError(f"--protocol {protocol}: expected per-fold or final")
    trust = Trust(threshold, _numbers_by_name(thresholds, "--thresholds"), top_n, proportion, keep_frac)
    wanted = Wanted("final" if protocol == "final" else "per-fold", hard, temperature, trust)
    made = api.pseudo(runs, wanted=wanted, name=name, student=student, rounds=rounds, show=_show(show), root=root)
    if isinstance(made, list):
        for each in made:
            show_scores(each.folder)
        return
    print_table(f"labels {made}", ["fold", "rows", "share", "mean certainty", "classes"], describe_labels(made))
    refit = " --folds all" if protocol == "final" else ""
    print(f"next: podium train CONFIG pseudo.labels={made.relative_to(root).as_posix()}{refit}")


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
    name: Annotated[str, typer.Option(help="Name of the blend; by default made of its members' names.")] = "",
    root: Root = Path(),
) -> None:
    """Make one of several runs: a blend, which is submitted like a run. Fitted weights are kept if they gain honestly.

    Example: podium ensemble digits/cnn digits/resnet --method greedy --name blend
    """
    from pipeline.stages.blend_tables import blend_lines, blend_tables

    made, cv = api.ensemble(
        runs,
        method=method,
        options=_block("--options", options),
        weights=_numbers("--weights", weights),
        adjust=[word.strip() for word in adjust.split(",") if word.strip()],
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
    from pipeline.stages.compare import comparison_lines, comparison_tables

    found = api.compare(a, b, simulate_lb=simulate_lb, n_draws=draws, json=json, root=root)
    for table in comparison_tables(found):
        print_table(*table)
    print("\n".join(comparison_lines(found)))


@app.command()
def soup(
    runs: Annotated[list[str], typer.Argument(help="Finished runs of one net that share their start.")],
    greedy: Annotated[bool, typer.Option("--greedy", help="Choose members by their score on the fold.")] = False,
    across_folds: Annotated[bool, typer.Option("--across-folds", help="One model of all folds, without CV.")] = False,
    epochs: Annotated[int, typer.Option(min=0, help="Of one run: its last epochs, where they were kept.")] = 0,
    name: Annotated[str, typer.Option(help="Name of the new run; by default made of its members' names.")] = "",
    device: Annotated[str, typer.Option(help="auto (as the first run), cpu, cuda or cuda:N.")] = "auto",
    root: Root = Path(),
) -> None:
    """Average the weights of several runs of one net into one net for each fold, which predicts like any run.

    Example: podium soup cifar10/tuned-a cifar10/tuned-b --greedy
    """
    made, scores = api.soup(
        runs,
        how="greedy" if greedy else "uniform",
        across_folds=across_folds,
        n_epochs=epochs or None,
        name=name or None,
        device=device,
        root=root,
    )
    show_scores(made.folder)
    rows = [[member["run"], member["pooled"], ""] for member in scores["members"]]
    rows.append([made.name, scores["pooled"], scores["note"] or ""])
    print_table("members and soup", ["run", f"pooled OOF {scores['metric']}", ""], rows)
    if greedy:
        chosen = [[unit, len(soup["members"]), ", ".join(soup["members"])] for unit, soup in scores["soups"].items()]
        print_table("chosen", ["unit", "members", ""], chosen)
    print(f"next: podium submit {made.folder}")


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
    _require_send(send, {"--message": message, "--again": again, "--no-wait": not wait, "--competition": competition})
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
    if lb is not None:
        print(f"wrote {api.enter_lb(lb[0], lb[1], private=private, root=root)}")
    if refresh:
        print(f"changed records: {api.refresh(task or None, root)}")
    for title, table in zip(("runs", "submissions"), api.board(task or None, root), strict=True):
        if len(table):
            hidden = [name for name in _HIDDEN_COLUMNS if name in table]
            hidden += [name for name in _RARE_COLUMNS if name in table and table[name].isna().all()]
            shown = table.drop(columns=hidden)
            print_table(title, list(shown.columns), [[_board_cell(cell) for cell in row] for row in shown.to_numpy()])
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


def _require_send(send: bool, options: dict[str, object]) -> None:
    """Raise a ConfigError when an option that only --send reads is given without it."""
    given = [name for name, value in options.items() if value]
    if given and not send:
        raise ConfigError(f"{', '.join(given)}: is read only with --send")


def _board_cell(cell: Any) -> Any:
    """Return names as one text and a missing number as an empty cell."""
    if isinstance(cell, tuple):
        return ", ".join(cell)
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _block(option: str, text: str) -> dict[str, Any]:
    """Return a block of keys that the user writes as YAML; nothing is no keys."""
    import yaml

    try:
        block = yaml.safe_load(text) if text else {}
    except yaml.YAMLError:
        block = None
    if not isinstance(block, dict) or not all(isinstance(key, str) for key in block):
        raise ConfigError(f'{option} {text}: expected a block of keys, such as "{{n_bags: 20}}"')
    return block


def _numbers(option: str, text: str) -> list[float] | None:
    """Return the numbers that the user lists; None for nothing."""
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError:
        raise ConfigError(f"{option} {text}: expected numbers such as 0.7,0.3") from None


def _numbers_by_name(text: str, option: str) -> dict[str, float]:
    """Return what `a=0.9,b=0.8` says."""
    try:
        pairs = [part.rpartition("=") for part in text.split(",") if part]
        return {name: float(value) for name, _, value in pairs}
    except ValueError:
        raise ConfigError(f"{option} {text}: expected pairs such as cat=0.9,dog=0.8") from None


def _folds(text: str) -> Any:
    """Return the folds that the user names: None for every fold, `all`, or numbers."""
    if text in ("", "all"):
        return text or None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--folds {text}: expected numbers such as 0,2, or `all`") from None
