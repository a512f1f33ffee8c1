"""The MEG contest of a course on the recordings of THINGS: which of 1,854 kinds of things does a person look at?

`podium data things-meg PATH` checks a user's own copies and writes the task. The arrays (30 GB) stay where they are:
`data/<name>.made/` holds a link to them, and tables with the label and the subject of every trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed
from pipeline.data.readers import load_array
from pipeline.records.runs import Workspace
from pipeline.stages.infer.made import ORIGINAL, Made, write_made
from pipeline.stages.known_data.checks import KnownArray, KnownFile, check_copies
from pipeline.stages.known_data.prepared import Prepared, Say, folder_to_make, write_configs

N_CLASSES = 1854
N_SUBJECTS = 4
SIZES: Mapping[str, int] = {"train": 65_728, "val": 16_432, "test": 16_432}

PUBLISHED = (
    "The files are those of the contest at https://github.com/matsuolab/dl_lecture_competition_pub (branch"
    " MEG-competition); the recordings behind them are THINGS-MEG (Hebart et al. 2023,"
    " https://doi.org/10.7554/eLife.82580)."
)


def known_files(sizes: Mapping[str, int], n_channels: int = 271, n_samples: int = 281) -> tuple[KnownFile, ...]:
    """Return what the files of the contest are; nobody has published their checksums."""
    files = []
    for split, n_trials in sizes.items():
        files.append(KnownFile(f"{split}_X.pt", (KnownArray((n_trials, n_channels, n_samples), "f"),)))
        files.append(KnownFile(f"{split}_subject_idxs.pt", (KnownArray((n_trials,), "iu"),)))
        if split != "test":
            files.append(KnownFile(f"{split}_y.pt", (KnownArray((n_trials,), "iu"),)))
    return tuple(files)


FILES = known_files(SIZES)

_TASK = """\
# THINGS-MEG, the contest of a course: which of 1,854 kinds of things does a person look at? Four subjects.
# Written by `podium data things-meg`. The labels of val.csv are for you: val.yaml beside this file predicts its trials.
name: {name}
data: {data}
input: signal
sample_rate_hz: 200
kind: multiclass
metric: {{name: top_k_accuracy, options: {{k: 10}}}}
id: id
target: label
# No group: the files do not say which picture a trial shows, and some were shown twelve times to each subject, so OOF
# may promise more than new pictures keep. The host's own split has the same fault.
train: {{table: train.csv, array: {{file: {original}/train_X.pt}}}}
test: {{table: test.csv, array: {{file: {original}/test_X.pt}}}}
submission: {{format: array}}
"""

_VAL = """\
# The host's validation trials: podium predict {name}/meg_residual --source configs/{name}/val.yaml --out val.parquet
table: val.csv
array: {{file: {original}/val_X.pt}}
"""

MEG_RESIDUAL = """\
# A wide residual net with much dropout; wants a GPU.
task: task.yaml
model: {name: meg_residual, width: 512, dropout: 0.4}
optimizer: {name: adamw, lr: 1e-3, weight_decay: 0.05}
schedule: {name: one_cycle, rise_frac: 0.2}
train: {epochs: 20, batch_size: 128, weights: ema}
ema: {decay: 0.998}
"""


def prepare_things_meg(
    workspace: Workspace,
    folder: Path,
    say: Say,
    *,
    name: str = "things-meg",
    overwrite: bool = False,
    any_bytes: bool = False,
    files: Sequence[KnownFile] = FILES,
) -> Prepared:
    """Check the eight files in `folder`, which is only read, and write tables, a link to the arrays and the configs.

    Args:
        workspace: where everything is written.
        folder: with `{train,val,test}_{X,y,subject_idxs}.pt`, without `test_y.pt`.
        say: gets notes.
        name: of the task.
        overwrite: replace configs that say otherwise.
        any_bytes: see `check_copies`.
        files: what the copies should be.

    Raises:
        DataError: see `check_copies`; or labels or subjects are out of range.
    """
    check_copies(folder, files, PUBLISHED, say, any_bytes)
    made_folder = folder_to_make(workspace, name, folder)
    made = _tables(folder)
    write_made(made_folder, folder, made, say)
    texts = {
        "task.yaml": _TASK.format(name=name, data=workspace.short(made_folder), original=ORIGINAL),
        "meg_residual.yaml": MEG_RESIDUAL,
        "val.yaml": _VAL.format(name=name, original=ORIGINAL),
    }
    task, experiment = write_configs(workspace, name, texts, overwrite, say)
    shape = load_array(folder / "train_X.pt").shape
    facts = (
        ("trials", ", ".join(f"{split} {len(made.tables[f'{split}.csv']):,}" for split in SIZES)),
        ("channels x samples", "x".join(map(str, shape[1:]))),
        ("classes in training", f"{made.tables['train.csv']['label'].nunique():,} of {N_CLASSES:,}"),
    )
    return Prepared(made_folder, task, experiment, facts)


def _tables(folder: Path) -> Made:
    import pandas as pd

    made = Made()
    for split in SIZES:
        subjects = _whole(folder / f"{split}_subject_idxs.pt", N_SUBJECTS)
        columns = {"id": [f"{split}_{number:05d}" for number in range(len(subjects))]}
        if split != "test":
            columns["label"] = _whole(folder / f"{split}_y.pt", N_CLASSES).tolist()
        columns["subject"] = subjects.tolist()
        made.tables[f"{split}.csv"] = pd.DataFrame(columns)
    return made


def _whole(path: Path, n_values: int) -> NDArray[np.int64]:
    """Return whole numbers of 0..n_values-1, or raise a DataError that names the file."""
    values = load_array(path)
    wrong = np.flatnonzero((values < 0) | (values >= n_values))
    if len(wrong):
        raise DataError(f"{path}: expected 0..{n_values - 1}, found {listed(values[wrong], 5)} ({len(wrong)} rows)")
    return values
