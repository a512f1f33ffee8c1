"""How long until something happens: `podium --help`, and `podium train` to its first step on a warm store?

    python benchmarks/start.py            # a minute on two cores

Every turn is a fresh process, timed from before its start. The training is one of `cnn3` on made-up 32 px files that
are decoded already, with `--folds 0` in the process of the command, and by default, with two folds in processes of
their own. Writes `benchmarks/results/start.md`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from entry import start
from PIL import Image
from turns import origin, table_of

from pipeline.base.files import write_text
from pipeline.base.progress import say

PROJECT = Path(__file__).parent.parent
N_FILES = 2_000
TASK = """
name: start
data: data
kind: multiclass
metric: accuracy
id: id
target: label
train: {table: train.csv, files: "train/{id}.jpg"}
"""
EXPERIMENT = """
task: task.yaml
model: {name: cnn3, width: 16}
augment: {shift: {max_px: 4}, flip: {horizontal: true}}
optimizer: {name: adamw, lr: 1e-3}
train: {epochs: 1, batch_size: 128}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every way, write the table and print it."""
    wishes = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_task(root)
        _run([sys.executable, "-m", "pipeline", "folds", "configs/a.yaml"], root)
        ways: dict[str, Callable[[], float]] = {
            "`podium --help`": partial(help_seconds, root),
            "`podium train --folds 0` to its first step": partial(first_step_seconds, root, ["--folds", "0"]),
            "`podium train` to its first step, two folds side by side": partial(first_step_seconds, root, []),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(wishes.rounds + 1):  # the first decodes, and reads the packages from the disk
            for name, way in ways.items():
                say(f"round {number} of {wishes.rounds}: {name}")
                took = way()
                seconds[name] += [took] if number else []
    title = f"Seconds from the start of the process; median of {wishes.rounds}"
    text = table_of(title, "s", seconds, "cost of the first") + f"\n{origin(len(os.sched_getaffinity(0)))}"
    write_text(wishes.out, text)
    print(text)


def write_task(root: Path) -> None:
    """Write files, a task and an experiment into a workspace."""
    (root / "data/train").mkdir(parents=True)
    (root / "configs").mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (N_FILES, 32, 32, 3), dtype=np.uint8)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(root / f"data/train/{number}.jpg", quality=90)
    lines = [f"{number},{number % 10}" for number in range(N_FILES)]
    write_text(root / "data/train.csv", "\n".join(["id,label", *lines]) + "\n")
    write_text(root / "configs/task.yaml", TASK)
    write_text(root / "configs/a.yaml", EXPERIMENT)


def help_seconds(root: Path) -> float:
    """Return the seconds that `podium --help` takes."""
    began = time.perf_counter()
    _run([sys.executable, "-m", "pipeline", "--help"], root)
    return time.perf_counter() - began


def first_step_seconds(root: Path, options: list[str]) -> float:
    """Return the seconds until the unit that trains first writes its first checkpoint, after its first step."""
    shutil.rmtree(root / "runs", ignore_errors=True)
    command = [sys.executable, "-m", "pipeline", "train", "configs/a.yaml", *options, "--show", "quiet"]
    command += ["--checkpoint-minutes", "0"]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (found := any((root / "runs").glob("*/*/units/*/*.safetensors"))) and process.poll() is None:
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        process.terminate()
    if not found:
        raise RuntimeError(f"{' '.join(command)}: ended with {process.returncode} and without a step")
    return seconds


def _run(command: list[str], root: Path) -> None:
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/start.md", help="the table")
    return parser


if __name__ == "__main__":
    start("start", main)
