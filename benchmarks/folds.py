"""How long do five folds take: side by side, in turns, one after another, and in the loop of a textbook?

    python benchmarks/folds.py                  # ten minutes on two cores
    python benchmarks/folds.py --device cuda    # on one GPU; without the textbook, whose loop is for a CPU

`conv5x5` in batches of 100 on 10,000 images of MNIST, fp32, no augmentation, every fold scored after every epoch. Each
turn is a process, timed from its start to its end; images are decoded already, for the textbook as one array. Podium's
part besides writes weights, predictions, curves and scores. Writes `benchmarks/results/folds.md`, or `folds-cuda.md`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from entry import start
from processes import watch
from turns import origin, table_of

from pipeline import api
from pipeline.base.errors import PodiumError
from pipeline.base.files import read_json, write_text
from pipeline.base.progress import say
from pipeline.base.tables import read_table
from pipeline.data.dataset import Dataset
from pipeline.records.runs import Workspace

PROJECT = Path(__file__).parent.parent
TEXTBOOK = PROJECT / "benchmarks/peers/textbook_folds.py"
RESULTS = PROJECT / "benchmarks/results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every way in turns, write the table and print it."""
    wishes = _parser().parse_args(arguments)
    cores = tuple(sorted(os.sched_getaffinity(0)))
    config, arrays = prepare(wishes)
    is_cpu, trained = wishes.device == "cpu", partial(podium, wishes.work, config, wishes.device, cores)
    ways: dict[str, Callable[[], tuple[float, float]]] = {}
    if is_cpu:
        ways["a textbook's loop, fold after fold"] = partial(textbook, arrays, wishes.epochs, cores)
    ways |= {
        "`podium train --jobs 1`, fold after fold": partial(trained, ["--jobs", "1"]),
        "`podium train --jobs 5 --turns`, in one process": partial(trained, ["--jobs", "5", "--turns"]),
    }
    if not is_cpu:
        ways["`podium train --jobs 5`, a process each"] = partial(trained, ["--jobs", "5"])
    ways["`podium train` (`--jobs auto`)"] = partial(trained, [])
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(1, wishes.rounds + 1):
        for name, way in ways.items():
            found[name].append(way())
            say(f"round {number} of {wishes.rounds}: {name}: {found[name][-1][0]:.1f} s, {found[name][-1][1]:.4f}")
    title = f"Seconds of five folds of {wishes.epochs} epochs, {wishes.images:,} images; median of {wishes.rounds}"
    title += "" if is_cpu else f"; {torch.cuda.get_device_name(wishes.device)}"
    text = table_of(title, "s", {name: [one[0] for one in each] for name, each in found.items()}, "faster by")
    scores = [f"{name} {np.mean([one[1] for one in each]):.4f}" for name, each in found.items()]
    text += f"\nOOF accuracy: {'; '.join(scores)}.\n\n{origin(len(cores))}"
    write_text(wishes.out or RESULTS / ("folds.md" if is_cpu else "folds-cuda.md"), text)
    print(text)


def prepare(wishes: argparse.Namespace) -> tuple[Path, Path]:
    """Write task and experiment, decode the images, and hand the same images and folds to the textbook."""
    shutil.rmtree(wishes.work, ignore_errors=True)
    table = read_table(wishes.data / "train.csv").iloc[: wishes.images]
    write_text(wishes.work / "rows.csv", table.to_csv(index=False))
    task = {
        "name": "mnist",
        "data": str(wishes.data.resolve()),
        "kind": "multiclass",
        "metric": "accuracy",
        "id": "id",
        "target": "label",
        "train": {"table": str((wishes.work / "rows.csv").resolve()), "files": "train/{id}.png"},
    }
    experiment = {
        "task": "task.yaml",
        "model": {"name": "conv5x5"},
        "optimizer": {"name": "adam", "lr": 1e-3, "weight_decay": 0.0},
        "schedule": {"name": "constant"},
        "train": {"epochs": wishes.epochs, "batch_size": 100, "precision": "fp32"},
    }
    config = wishes.work / "configs/conv5x5.yaml"
    write_text(config.with_name("task.yaml"), yaml.safe_dump(task, sort_keys=False))
    write_text(config, yaml.safe_dump(experiment, sort_keys=False))
    folds, _ = api.folds(config, root=wishes.work)
    loaded, workspace = api.config(config), Workspace(wishes.work)
    data = Dataset(loaded.task, loaded.experiment.input, workspace.data(loaded.task), workspace.cache, 2, say, "quiet")
    arrays = wishes.work / "arrays.npz"
    rows = data.train.rows
    labels = np.asarray(rows.targets).astype(np.int64)
    images = data.train_array()[[items[0] for items in rows.items]]
    np.savez(arrays, images=images, labels=labels, folds=folds.aligned_to(rows.ids).fold)
    return config, arrays


def podium(work: Path, config: Path, device: str, cores: Sequence[int], options: list[str]) -> tuple[float, float]:
    """Return the seconds of one whole training of five folds, and its OOF accuracy."""
    shutil.rmtree(work / "runs", ignore_errors=True)
    command = [sys.executable, "-m", "pipeline", "train", str(config), "--name", "folds", "--show", "quiet", *options]
    seconds = _seconds([*command, "--device", device, "--root", str(work)], cores, device)[0]
    return seconds, float(read_json(work / "runs/mnist/folds/cv.json")["pooled"])


def textbook(arrays: Path, epochs: int, cores: Sequence[int]) -> tuple[float, float]:
    """Return the same of the textbook's loop."""
    seconds, lines = _seconds([sys.executable, str(TEXTBOOK), str(arrays), str(epochs)], cores, "cpu")
    return seconds, float(lines[-1].split()[-1])


def _seconds(command: Sequence[str], cores: Sequence[int], device: str) -> tuple[float, list[str]]:
    found = watch(command, cores, PROJECT, {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    lines = [line for _, line in found.lines]
    if found.exit_code:
        raise PodiumError(f"{' '.join(command)}: ended with {found.exit_code}\n" + "\n".join(lines[-10:]))
    return found.end_sec, lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--images", type=int, default=10_000, help="rows of train.csv")
    parser.add_argument("--epochs", type=int, default=6, help="of each fold")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--data", type=Path, default=PROJECT / "data/mnist", help="holds train.csv and train/<id>.png")
    parser.add_argument("--work", type=Path, default=PROJECT / "runs/benchmarks/folds", help="for what is made")
    parser.add_argument("--out", type=Path, help="the table")
    return parser


if __name__ == "__main__":
    start("folds", main)
