"""What do EEGNet and DeepConvNet score, and how much of it is the choice of the best epoch on the test set?

    python benchmarks/eeg.py            # 40 minutes on two cores; stopped, the same command goes on
    python benchmarks/eeg.py --quick    # minutes, to see that everything works; its numbers mean little

Two nets x three activations on made-up motor imagery (`podium data synthetic-eeg`), trained in two ways:

- as reports do it: on all training trials, the test accuracy of every epoch looked up, the best one reported;
- as Podium does it: five folds, last epoch, OOF; the test set scored once, with the mean of the five models.

Both for each seed. To look at the test set after every epoch, a run keeps the weights of all its epochs
(`train.keep_epochs`) and they predict when it has ended, so nothing that trains or chooses can see it. Writes
`benchmarks/results/eeg.md` and `.csv` and `docs/eeg.png`, and prints the table.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from entry import start
from trials import wrong_rows

from pipeline import api
from pipeline.base.files import read_json, write_json, write_text
from pipeline.base.interrupt import StopFlag
from pipeline.base.plots import new_figure, save_figure
from pipeline.base.progress import say
from pipeline.models.weights import read_weights
from pipeline.records.predictions import Predictions, join_folds, load_predictions, mean_predictions
from pipeline.records.runs import Run, Unit, Workspace, git_commit, now
from pipeline.training.device import threads
from pipeline.training.history import read_history
from pipeline.training.unit import dataset_of, load_unit, predict_unit

NETS = ("eegnet", "deepconvnet")
ACTIVATIONS = ("relu", "leaky_relu", "elu")
N_SEEDS, N_EPOCHS = 3, 50
RECIPE = ("optimizer={name: adam, lr: 1e-3}", "schedule={name: constant}", "train.batch_size=64")
"""That of the reports: no schedule, nothing that averages, so that epochs differ as they do there."""
PROJECT = Path(__file__).parent.parent
DATA = "synthetic-eeg"


@dataclass(frozen=True)
class Score:
    """The accuracies of one net with one activation and one seed, as shares of 1."""

    net: str
    activation: str
    seed: int
    best_test: float
    """The highest test accuracy of any epoch, trained on all training trials: the number that reports give."""
    best_epoch: int
    """When that was, from 1; the first of equals."""
    last_test: float
    """The test accuracy of the last epoch of the same training."""
    oof: float
    """Every training trial predicted by the fold model that never saw its session, last epoch."""
    test_once: float
    """The mean of the fold models of the last epoch on the test set."""
    seconds: float
    """Of the training steps of all six trainings."""


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    nets: tuple[str, ...] = NETS
    activations: tuple[str, ...] = ACTIVATIONS
    n_seeds: int = N_SEEDS
    n_epochs: int = N_EPOCHS
    n_folds: int = 5


QUICK = Size(activations=ACTIVATIONS[::2], n_seeds=1, n_epochs=3, n_folds=2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train everything that is not trained yet, write table and picture, and print the table."""
    wishes = _parser().parse_args(arguments)
    size, out, results, docs = Size(), wishes.out, PROJECT / "benchmarks" / "results", PROJECT / "docs"
    if wishes.quick:
        size, out = QUICK, wishes.out / "quick"
        results, docs = out, out
    config = api.data(DATA, root=out).experiment
    scores, curves = run_study(config, size, wishes.jobs, wishes.device, out)
    write_csv(results / "eeg.csv", scores)
    write_text(results / "eeg.md", text := markdown(scores, size))
    plot_curves(docs / "eeg.png", curves, scores)
    print(text)


def run_study(
    config: Path, size: Size, n_jobs: int, device: str, root: Path
) -> tuple[list[Score], dict[tuple[str, str], dict[str, list[list[float]]]]]:
    """Return the scores of all arms and seeds, and of each arm its curves: lists over seeds (and folds) of epochs."""
    scores, curves = [], {}
    for net in size.nets:
        for activation in size.activations:
            say(f"{net} {activation}")
            folds, refit = (
                _train(config, net, activation, size, which, n_jobs, device, root) for which in (None, "all")
            )
            test = {unit.seed: test_curve(root, refit, unit) for unit in refit.units()}
            scores += [score_seed(root, net, activation, folds, refit, seed, test[seed]) for seed in test]
            histories = [read_history(folds.unit_folder(unit) / "history.csv") for unit in folds.units()]
            curves[net, activation] = {
                "test": list(test.values()),
                "held out": [history["accuracy"] for history in histories],
                "training loss": [history["train_loss"] for history in histories],
            }
    return scores, curves


def test_curve(root: Path, run: Run, unit: Unit) -> list[float]:
    """Return the test accuracy after every epoch of a finished unit, from the weights that it kept.

    They are predicted once: the numbers are written beside the unit, and the weights of the epochs removed.
    """
    folder = run.unit_folder(unit)
    path = folder / "test_curve.json"
    kept = sorted(folder.glob("epoch-*.safetensors"))
    if not path.is_file():
        data = dataset_of(Workspace(root), run, say, "quiet")
        rows, items = data.other(None, run.machine.device)
        model, scaling, digest = load_unit(run, unit, data.train.rows, items)
        accuracies = []
        with threads(2 * run.machine.threads):
            for weights in kept:
                model.load_state_dict(read_weights(weights)[0])
                predictions = predict_unit(run, unit, rows, items, model, scaling, digest, StopFlag())
                accuracies.append(accuracy(predictions, answers(root)))
        write_json(path, accuracies)
    for weights in kept:
        weights.unlink()
        weights.with_suffix(".json").unlink(missing_ok=True)
    return [float(value) for value in read_json(path)]


def score_seed(
    root: Path, net: str, activation: str, folds: Run, refit: Run, seed: int, test: Sequence[float]
) -> Score:
    """Return the scores of one seed: of its fold models and of the test curve of its training on all trials."""
    of_seed = [unit for unit in folds.units() if unit.seed == seed]
    heldout, tested = (
        [load_predictions(folds.unit_folder(unit) / f"{name}.parquet") for unit in of_seed]
        for name in ("heldout", "test")
    )
    paths = [folds.unit_folder(unit) for unit in of_seed]
    paths += [refit.unit_folder(unit) for unit in refit.units() if unit.seed == seed]
    return Score(
        net=net,
        activation=activation,
        seed=seed,
        best_test=max(test),
        best_epoch=test.index(max(test)) + 1,
        last_test=test[-1],
        oof=accuracy(join_folds(heldout), root / "data" / DATA / "train.csv"),
        test_once=accuracy(mean_predictions(tested), answers(root)),
        seconds=sum(sum(read_history(path / "history.csv")["seconds"]) for path in paths),
    )


def accuracy(predictions: Predictions, table: Path) -> float:
    """Return the share of rows whose most probable class is the label in the second column of a table."""
    wrong, n_rows = wrong_rows(predictions, table)
    return 1 - len(wrong) / n_rows


def answers(root: Path) -> Path:
    """Return the table with the test labels."""
    return root / "data" / f"{DATA}-answers" / "answers.csv"


def markdown(scores: Sequence[Score], size: Size) -> str:
    """Return a line for each arm, in percent: mean and standard deviation over seeds."""
    seeds = f"{size.n_seeds} seed{'s' * (size.n_seeds > 1)}"
    lines = [
        f"Trained on 1,080 made-up trials, tested on 1,080 of later sessions; {size.n_epochs} epochs,"
        f" {size.n_folds} folds, {seeds}; percent, mean and standard deviation over seeds.",
        "",
        "| net | activation | best test epoch | last epoch | chosen by looking | OOF | test once, mean of folds |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for net, activation in dict.fromkeys((score.net, score.activation) for score in scores):
        arm = [score for score in scores if (score.net, score.activation) == (net, activation)]
        gain = [score.best_test - score.last_test for score in arm]
        columns = ([getattr(score, name) for score in arm] for name in ("best_test", "last_test", "oof", "test_once"))
        best, last, oof, once = map(_mean_and_std, columns)
        lines.append(f"| {net} | {activation} | {best} | {last} | +{100 * mean(gain):.2f} | {oof} | {once} |")
    return "\n".join([*lines, "", *_LEGEND, "", _origin(scores)]) + "\n"


_LEGEND = (
    "*Best test epoch* is what reports give: trained on all training trials, the highest test accuracy of any epoch."
    " *Last epoch* is the same training without looking, *chosen by looking* the difference: it is no skill of the net."
    " *OOF* is of fold models, which have less to learn from; it is known without any test label. *Test once* is what"
    " would be submitted. Chance alone gives an accuracy of 85 % on 1,080 trials a standard error of 1.1 points. Best"
    " test epochs that reports give for the real recordings: EEGNet 79.6 to 88.2 %, DeepConvNet 80.0 to 85.5 %.",
)


def write_csv(path: Path, scores: Sequence[Score]) -> None:
    """Write a line for each arm and seed, with all digits."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Score)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(score) for score in scores)
    write_text(path, text.getvalue())


def plot_curves(
    path: Path, curves: Mapping[tuple[str, str], Mapping[str, Sequence[Sequence[float]]]], scores: Sequence[Score]
) -> None:
    """Draw a column for each net: accuracies over the epochs above, losses below, a colour for each activation.

    Test curves are solid with the range over seeds shaded, held-out ones dashed; a dot marks the best test epoch of
    each seed.

    Args:
        path: of the picture.
        curves: by net and activation, then `test`, `held out` and `training loss`: one list over epochs each time.
        scores: of the same nets and activations.
    """
    nets = list(dict.fromkeys(net for net, _ in curves))
    figure = new_figure(5.6 * len(nets), 7.2)
    panels = figure.subplots(2, len(nets), squeeze=False, sharex=True, sharey="row")
    for column, net in enumerate(nets):
        arms = {activation: curve for (name, activation), curve in curves.items() if name == net}
        for number, (activation, curve) in enumerate(arms.items()):
            chosen = [score for score in scores if (score.net, score.activation) == (net, activation)]
            _draw_arm(panels[0][column], panels[1][column], activation, curve, chosen, f"C{number}")
        panels[0][column].set_title(f"{net}: test (solid), held out (dashed), best test epochs (dots)", fontsize=10)
        panels[0][column].legend(frameon=False, loc="lower right")
        panels[1][column].set_title("training loss of the folds", fontsize=10)
        panels[1][column].set_xlabel("epoch")
    panels[0][0].set_ylabel("accuracy, %")
    panels[1][0].set_ylabel("loss")
    panels[1][0].set_ylim(0, 1.2)  # a first epoch may be higher by far, and would flatten all others
    for axes in panels.ravel():
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _draw_arm(
    above: Any,
    below: Any,
    activation: str,
    curve: Mapping[str, Sequence[Sequence[float]]],
    scores: Sequence[Score],
    colour: str,
) -> None:
    tests = [[100 * value for value in values] for values in zip(*curve["test"], strict=True)]
    epochs = range(1, len(tests) + 1)
    above.plot(epochs, [mean(values) for values in tests], color=colour, label=activation)
    above.fill_between(epochs, list(map(min, tests)), list(map(max, tests)), color=colour, alpha=0.15, linewidth=0)
    held_out = [100 * mean(values) for values in zip(*curve["held out"], strict=True)]
    above.plot(epochs, held_out, color=colour, linestyle="--", linewidth=1)
    above.plot([score.best_epoch for score in scores], [100 * score.best_test for score in scores], "o", color=colour)
    below.plot(epochs, [mean(values) for values in zip(*curve["training loss"], strict=True)], color=colour)


def _train(
    config: Path,
    net: str,
    activation: str,
    size: Size,
    which: Literal["all"] | None,
    n_jobs: int,
    device: str,
    root: Path,
) -> Run:
    overrides = [
        f"model={{name: {net}, activation: {activation}}}",
        *RECIPE,
        f"train.epochs={size.n_epochs}",
        f"folds.n_folds={size.n_folds}",
        f"seeds={list(range(size.n_seeds))}",
    ]
    if which == "all":
        overrides.append(f"train.keep_epochs={size.n_epochs}")
    machine: dict[str, Any] = {"device": device, "jobs": n_jobs, "threads": 1}
    return api.train(config, overrides, folds=which, name=f"{net}-{activation}", root=root, **machine)


def _mean_and_std(values: Sequence[float]) -> str:
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread}"


def _origin(scores: Sequence[Score]) -> str:
    minutes = sum(score.seconds for score in scores) / 60
    commit = (git_commit() or "unknown")[:12]
    return f"All training steps took {minutes:.0f} minutes of one core each; commit {commit}, {now()[:10]}."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/eeg"), help="where everything is trained")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, of one thread each")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--quick", action="store_true", help="few epochs, one seed, two folds")
    return parser


if __name__ == "__main__":
    start("eeg", main)
