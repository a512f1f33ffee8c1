"""Small deliveries of hosts, written by hand: pictures, tables and arrays of a few rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import api
from pipeline.records.config import load_task
from pipeline.records.task import Task
from pipeline.stages.infer.stage import Initiated


def pictures(folder: Path, names: Iterable[str], size: int = 8) -> None:
    """Write one small picture for each name, a grey of its own."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((size, size), number % 251, np.uint8)).save(path)


def table(path: Path, header: str, rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def ids(start: str, n: int) -> list[str]:
    """Return ids such as `a000`, `a001`."""
    return [f"{start}{number:03d}" for number in range(n)]


def cats_and_dogs(folder: Path, n: int = 24, n_test: int = 6, sample: Any = "cat") -> None:
    """Write a plain competition: train.csv, sample_submission.csv, train/<id>.png, test/<id>.png."""
    train, test = ids("a", n), ids("b", n_test)
    pictures(folder, [f"train/{name}.png" for name in train] + [f"test/{name}.png" for name in test])
    table(folder / "train.csv", "id,label", [(name, ("cat", "dog")[row % 2]) for row, name in enumerate(train)])
    table(folder / "sample_submission.csv", "id,label", [(name, sample) for name in test])


def initiate(folder: Path, *overrides: str, **words: Any) -> Initiated:
    """Run `podium init` on a folder, in a workspace beside it."""
    return api.init(folder, overrides, root=folder.parent / "work", **words)


def concluded(folder: Path, *overrides: str, **words: Any) -> Task:
    """Return the task that `podium init` writes, as the other commands read it."""
    made = initiate(folder, *overrides, **words)
    task = load_task(made.written.path)
    assert task == made.conclusion.task
    return task


def data_of(folder: Path, task: Task) -> Path:
    """Return the data folder of a task that `initiate` concluded."""
    return folder.parent / "work" / task.data
