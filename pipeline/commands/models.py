"""Commands on models: folds, check, train, predict, pseudo, soup. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.errors import ConfigError, StopRequestedError
from pipeline.base.progress import print_table
from pipeline.commands.app import ConfigFile, Overrides, Root, RunName, app
from pipeline.commands.words import jobs_from, numbers_by_name, read_folds, show_kind, show_scores


@app.command()
def folds(config: ConfigFile, overrides: Overrides = None, root: Root = Path()) -> None:
    """Make, check and save the fold table that every experiment of the task trains on.

    Example: podium folds configs/digits/cnn.yaml
    """
    from pipeline import api

    table, balance = api.folds(config, overrides or [], root)
    resolved = table.spec.get("resolved", table.spec.get("scheme"))
    title = f"folds {table.name}: {len(table)} rows, {resolved}, hash {table.table_hash[:12]}"
    print_table(title, ["", *balance.columns], balance.reset_index().to_numpy().tolist())


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
    from pipeline import api

    report = api.check(config, overrides or [], out=out, device=device, threads=threads or None, root=root)
    title = f"{config}: {report.n_rows} of {report.n_all} rows, {report.seconds:.0f} s"
    print_table(title, ["", "check", "found"], report.lines())
    if report.failed:
        raise typer.Exit(1)


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    folds: Annotated[str, typer.Option(help="Folds such as 0,2; `all` refits on every row, without CV.")] = "",
    name: Annotated[str, typer.Option(help="Name of the run; by default the config's, with the overrides.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    jobs: Annotated[str, typer.Option(help="Units side by side: a number, or auto, which says why.")] = "auto",
    turns: Annotated[
        bool, typer.Option("--turns", help="Those side by side take turns in one process and hold the data once.")
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="Threads of each unit; 0 chooses, or as the run started.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that decode files; 0 chooses.")] = 0,
    loaders: Annotated[int, typer.Option(min=-1, help="Processes of each unit for albumentations; -1 chooses.")] = -1,
    checkpoint_minutes: Annotated[float, typer.Option(min=0, help="Between checkpoints inside an epoch.")] = 5.0,
    verify: Annotated[bool, typer.Option("--verify", help="Check the decoded items against their checksum.")] = False,
    minutes: Annotated[float, typer.Option(min=0, help="Stop in good order after this time; 0 is never.")] = 0.0,
    show: Annotated[str, typer.Option(help="Progress: auto, bar, lines or quiet.")] = "auto",
    root: Root = Path(),
) -> None:
    """Train every fold that is not finished yet, or some of them; then score OOF and predict the test rows.

    Example: podium train configs/mnist/cnn.yaml --folds 0,2 train.epochs=3
    """
    from pipeline import api

    which = read_folds(folds)
    made = api.train(
        config,
        overrides or [],
        folds=which,
        name=name or None,
        device=device,
        jobs=jobs_from(jobs),
        turns=turns,
        threads=threads or None,
        workers=workers or None,
        loaders=loaders if loaders >= 0 else None,
        checkpoint_minutes=checkpoint_minutes,
        verify=verify,
        minutes=minutes or None,
        show=show_kind(show),
        root=root,
    )
    show_scores(made.folder)
    if made.unfinished(None if which == "all" else which):
        print("the same command goes on with the folds that are not finished")
        raise typer.Exit(StopRequestedError.exit_code)
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
    from pipeline import api

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
    from pipeline import api
    from pipeline.blending.trust import Trust
    from pipeline.records.runs import Workspace
    from pipeline.stages.pseudo import Wanted, describe_labels

    if protocol not in ("per-fold", "final"):
        raise ConfigError(f"--protocol {protocol}: expected per-fold or final")
    trust = Trust(threshold, numbers_by_name(thresholds, "--thresholds"), top_n, proportion, keep_frac)
    wanted = Wanted("final" if protocol == "final" else "per-fold", hard, temperature, trust)
    made = api.pseudo(runs, wanted=wanted, name=name, student=student, rounds=rounds, show=show_kind(show), root=root)
    if isinstance(made, list):
        for each in made:
            show_scores(each.folder)
        return
    print_table(f"labels {made}", ["fold", "rows", "share", "mean certainty", "classes"], describe_labels(made))
    refit = " --folds all" if protocol == "final" else ""
    print(f"next: podium train CONFIG pseudo.labels={Workspace(root).short(made)}{refit}")


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
    from pipeline import api

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
