"""BCI competition III, data set IIIb, in the four files that a course hands out: two subjects, left or right hand?

`podium data bci3b PATH` checks a user's own copies and writes the task. The host's trials are two files for each part,
with labels of 1 and 2; a task reads one array for each part, so `data/<name>.made/` gets the trials of both subjects,
channels first and in single precision (13 MB), with a table. The labels of the test part are kept apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.base.files import atomic_path
from pipeline.data.readers import load_array
from pipeline.records.runs import Workspace
from pipeline.stages.infer.made import Made, write_made
from pipeline.stages.known_data.checks import KnownArray, KnownFile, check_copies
from pipeline.stages.known_data.prepared import Prepared, Say, folder_to_make, write_configs

if TYPE_CHECKING:
    import pandas as pd

SUBJECTS = ("S4b", "X11b")
BLOCK_SIZE = 54
"""Trials of a block: ten blocks for each subject."""

PUBLISHED = (
    "The recordings (Graz, two bipolar channels at C3 and C4, 125 Hz) are published as data set IIIb at"
    " https://www.bbci.de/competition/iii/; the .npz files, cut to trials of 6 s, are those of a course's exercise,"
    " kept for example in https://github.com/guyleaf/NYCU-DL-2022-Summer (Lab2, with git lfs)."
)

_ARRAYS = (KnownArray((540, 750, 2), "f", "signal"), KnownArray((540,), "fiu", "label"))

FILES = tuple(
    KnownFile(name, _ARRAYS, sha256)
    for name, sha256 in {
        "S4b_train.npz": "a23eaee490f7c40ef94df88ff14e74e194d8fe774d5ee109af529af9ba4240a1",
        "S4b_test.npz": "b9db42999203ede95f4eb37e6cd67d159512a341beb973e954ef35077f5a70d3",
        "X11b_train.npz": "205d52663f905abeb77dff5bb44365b3f55ac0fba9b41b339da0990a60525937",
        "X11b_test.npz": "f068067a7ebc31a16482050569168ef77c7aeab38ef4b208f108a2fc6a52f251",
    }.items()
)
"""The SHA-256 are those of copies that results were published with."""

_TASK = """\
# BCI competition III, data set IIIb: is the left (1) or the right hand (2) imagined? Two subjects, two channels.
# Written by `podium data bci3b`. The test labels lie in data/{name}-answers/, which the pipeline never reads.
name: {name}
data: {data}
input: signal
sample_rate_hz: 125
kind: multiclass
metric: accuracy
id: id
target: label
# Blocks of {block_size} successive trials of a subject stay together, as trials that follow each other are alike.
# Without this line folds are dealt trial by trial, and OOF may promise more than the test trials, recorded later, keep.
group: block
train: {{table: train.csv, array: {{file: train.npy}}}}
test: {{table: test.csv, array: {{file: test.npy}}}}
"""

EEGNET = """\
# EEGNet as courses teach it, in short trainings with one cycle of the rate.
task: task.yaml
input: {nan: channel_mean}
model: {name: eegnet, activation: relu}
optimizer: {name: adamw, lr: 4e-3, weight_decay: 0.01}
schedule: {name: one_cycle, rise_frac: 0.2}
train: {epochs: 40, batch_size: 64}
"""


def prepare_bci3b(
    workspace: Workspace,
    folder: Path,
    say: Say,
    *,
    name: str = "bci3b",
    overwrite: bool = False,
    any_bytes: bool = False,
    files: Sequence[KnownFile] = FILES,
) -> Prepared:
    """Check the four files in `folder`, which is only read, and write the made folder, the answers and the configs.

    Args:
        workspace: where everything is written.
        folder: with `{S4b,X11b}_{train,test}.npz`.
        say: gets notes.
        name: of the task.
        overwrite: replace configs that say otherwise.
        any_bytes: see `check_copies`.
        files: what the copies should be.

    Raises:
        DataError: see `check_copies`.
    """
    check_copies(folder, files, PUBLISHED, say, any_bytes)
    made_folder = folder_to_make(workspace, name, folder)
    made, answers = _made(folder)
    write_made(made_folder, folder, made, say)
    with atomic_path(workspace.root / "data" / f"{name}-answers" / "answers.csv") as temp:
        answers.to_csv(temp, index=False, lineterminator="\n")
    text = _TASK.format(name=name, data=workspace.short(made_folder), block_size=BLOCK_SIZE)
    task, experiment = write_configs(workspace, name, {"task.yaml": text, "eegnet.yaml": EEGNET}, overwrite, say)
    missing = {part: int(np.isnan(made.arrays[f"{part}.npy"]).sum()) for part in ("train", "test")}
    facts = (
        ("trials", ", ".join(f"{part} {len(made.arrays[f'{part}.npy']):,}" for part in missing)),
        ("channels x samples", "x".join(map(str, made.arrays["train.npy"].shape[1:]))),
        ("missing values", ", ".join(f"{part} {count:,}" for part, count in missing.items())),
    )
    return Prepared(made_folder, task, experiment, facts)


def _made(folder: Path) -> tuple[Made, pd.DataFrame]:
    """Return the tables and arrays of both parts, and the test labels apart."""
    import pandas as pd

    made = Made()
    answers = pd.DataFrame()
    for part in ("train", "test"):
        signals, tables = [], []
        for subject in SUBJECTS:
            path = folder / f"{subject}_{part}.npz"
            signals.append(load_array(path, "signal").transpose(0, 2, 1).astype(np.float32))
            labels = load_array(path, "label").astype(np.int64)
            numbers = np.arange(len(labels))
            ids = [f"{subject}_{part}_{number:03d}" for number in numbers]
            blocks = [f"{subject}_{part}_{number // BLOCK_SIZE}" for number in numbers]
            tables.append(pd.DataFrame({"id": ids, "label": labels, "subject": subject, "block": blocks}))
        table = pd.concat(tables)
        made.arrays[f"{part}.npy"] = np.concatenate(signals)
        if part == "test":
            answers, table = table[["id", "label"]], table.drop(columns="label")
        made.tables[f"{part}.csv"] = table
    return made, answers
