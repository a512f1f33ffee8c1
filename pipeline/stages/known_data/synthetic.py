"""Made-up sets as a host would hand them out: `podium data synthetic-eeg PATH`, `podium data synthetic-meg PATH`.

    train.npy  train.csv          trials (N, C, T) and id, label, subject and, of EEG, session
    test.npy   test.csv           the same without labels
    sample_submission.csv         EEG; the MEG contest wants an array of (N, K), as its model does
    made.json                     that they are made up, by what, and from which seed

The test labels go to `<PATH>-answers/answers.csv`, which the pipeline never reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import DataError
from pipeline.base.files import atomic_path, read_json, write_json, write_text
from pipeline.data.synthetic import eeg, meg
from pipeline.data.synthetic.trials import Part, Trials
from pipeline.records.runs import Workspace
from pipeline.stages.known_data.bci3b import EEGNET
from pipeline.stages.known_data.prepared import Prepared, Say, write_configs

Settings = eeg.EegSettings | meg.MegSettings

_EEG_TASK = """\
# Made-up motor imagery (seed {seed}): is the left or the right hand imagined?
# Nobody's brain: see {data}/made.json.
name: {name}
data: {data}
input: signal
sample_rate_hz: 125
kind: multiclass
metric: accuracy
id: id
target: label
# A fold holds out whole sessions, as the test trials are of sessions that training has never seen.
group: session
train: {{table: train.csv, array: {{file: train.npy}}}}
test: {{table: test.csv, array: {{file: test.npy}}}}
submission: {{sample: sample_submission.csv}}
"""

_MEG_TASK = """\
# Made-up MEG (seed {seed}): which kind of picture was seen?
# Nobody's brain: see {data}/made.json.
name: {name}
data: {data}
input: signal
sample_rate_hz: 200
kind: multiclass
metric: {{name: top_k_accuracy, options: {{k: 5}}}}
id: id
target: label
train: {{table: train.csv, array: {{file: train.npy}}}}
test: {{table: test.csv, array: {{file: test.npy}}}}
submission: {{format: array}}
"""

_MEG_RESIDUAL = """\
# The residual net for MEG, narrow enough for a processor.
task: task.yaml
model: {name: meg_residual, width: 32, dropout: 0.4}
optimizer: {name: adamw, lr: 4e-3, weight_decay: 0.05}
schedule: {name: one_cycle, rise_frac: 0.3}
train: {epochs: 12, batch_size: 64}
"""


@dataclass(frozen=True)
class _Kind:
    """A kind of made-up set."""

    name: str
    make: Callable[[int, Part, Any], Trials]
    settings: Settings
    classes: Callable[[Any], tuple[str, ...]]
    has_sample: bool
    has_sessions: bool
    task: str
    experiment: tuple[str, str]
    """Name and text of the file."""


KINDS: Mapping[str, _Kind] = {
    kind.name: kind
    for kind in (
        _Kind(
            "synthetic-eeg",
            eeg.make_eeg,
            eeg.EegSettings(),
            lambda _: eeg.CLASSES,
            True,
            True,
            _EEG_TASK,
            ("eegnet.yaml", EEGNET),
        ),
        _Kind(
            "synthetic-meg",
            meg.make_meg,
            meg.MegSettings(),
            lambda settings: tuple(map(str, range(settings.n_classes))),
            False,
            False,
            _MEG_TASK,
            ("meg_residual.yaml", _MEG_RESIDUAL),
        ),
    )
}


def prepare_synthetic(
    workspace: Workspace,
    kind: str,
    folder: Path,
    say: Say,
    *,
    seed: int = 0,
    name: str | None = None,
    overwrite: bool = False,
    settings: Settings | None = None,
) -> Prepared:
    """Make a set from a seed and write it as a competition, with its task and an experiment.

    A folder that was made with the same seed and settings stays as it is.

    Args:
        workspace: where `configs/` lies.
        kind: `synthetic-eeg` or `synthetic-meg`.
        folder: for the host's files.
        say: gets notes.
        seed: of everything that is made.
        name: of the task; by default the kind.
        overwrite: replace what lies in the folder and configs that say otherwise.
        settings: how much and how hard, of the kind's own type.

    Raises:
        DataError: the folder holds something else.
    """
    chosen = KINDS[kind]
    chosen = chosen if settings is None else replace(chosen, settings=settings)
    name = name or kind
    made = {
        "what": "made-up signals, no recordings of anybody",
        "command": f"podium data {kind} --seed {seed}",
        "seed": seed,
        "settings": asdict(chosen.settings),
    }
    if not _is_made(folder, made, overwrite):
        _write_set(folder, chosen, seed)
        write_json(folder / "made.json", made)
    texts = {
        "task.yaml": chosen.task.format(seed=seed, name=name, data=workspace.short(folder)),
        chosen.experiment[0]: chosen.experiment[1],
    }
    task, experiment = write_configs(workspace, name, texts, overwrite, say)
    shapes = {part: np.load(folder / f"{part}.npy", mmap_mode="r").shape for part in ("train", "test")}
    facts = (
        ("trials", ", ".join(f"{part} {shape[0]:,}" for part, shape in shapes.items())),
        ("channels x samples", "x".join(map(str, shapes["train"][1:]))),
        ("classes", str(len(chosen.classes(chosen.settings)))),
        ("answers", str(answers_of(folder))),
    )
    return Prepared(folder, task, experiment, facts)


def answers_of(folder: Path) -> Path:
    """Return where the test labels of a made-up set lie."""
    return folder.with_name(f"{folder.name}-answers") / "answers.csv"


def _is_made(folder: Path, made: Mapping[str, Any], overwrite: bool) -> bool:
    """Say whether the folder holds exactly this set; another content is an error, unless it is to be replaced."""
    note = folder / "made.json"
    if note.is_file() and read_json(note) == made and answers_of(folder).is_file():
        return True
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise DataError(
            f"{folder}: holds something else already; choose another folder, or replace it with --overwrite"
        )
    note.unlink(missing_ok=True)  # a set that is not whole must not be taken for one
    return False


def _write_set(folder: Path, kind: _Kind, seed: int) -> None:
    classes = kind.classes(kind.settings)
    parts: tuple[Part, Part] = ("train", "test")
    for part in parts:
        trials = kind.make(seed, part, kind.settings)
        ids = [f"{part}_{number:04d}" for number in range(len(trials.labels))]
        labels = [classes[label] for label in trials.labels]
        columns = {"id": ids, "label": labels, "subject": trials.subjects}
        if kind.has_sessions:
            columns["session"] = trials.sessions
        with atomic_path(folder / f"{part}.npy") as temp:
            np.save(temp, trials.signals, allow_pickle=False)
        if part == "test":
            _write_table(answers_of(folder), {"id": ids, "label": labels})
            if kind.has_sample:
                _write_table(folder / "sample_submission.csv", {"id": ids, "label": [classes[0]] * len(ids)})
            del columns["label"]
        _write_table(folder / f"{part}.csv", columns)


def _write_table(path: Path, columns: Mapping[str, Any]) -> None:
    rows = zip(*columns.values(), strict=True)
    write_text(path, "\n".join([",".join(columns), *(",".join(row) for row in rows)]) + "\n")
