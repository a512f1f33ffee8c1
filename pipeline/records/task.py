"""What the competition is: where its tables and files lie, what is asked, and how an answer is scored.

A task changes once per competition; what changes daily is an `Experiment`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.records.record import Block, Names, Record

Kind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression"]
Format = Literal["label", "probability", "per_class", "labels", "top_k", "values", "array"]


class Pixels(Record):
    """Items that lie in the columns of the table itself."""

    columns: str
    """Shell pattern of the columns, taken in the table's order (`pixel*`)."""
    shape: tuple[int, ...]
    """(H, W), (C, H, W) or, for signals, (C, T)."""


class Array(Record):
    """Items that lie in one array, the first axis counting the rows."""

    file: str
    """A `.npy` or `.npz` file, relative to the task's data folder."""
    key: str | None = None
    """The array's name inside an `.npz` file; not needed when it holds only one."""


class Source(Record):
    """Where the rows of one set (train, test, or any other) and their files are."""

    table: str | None = None
    """A CSV or Parquet file, relative to the task's data folder; without one, the rows are those of `array`."""
    files: Names = ()
    """One path template for each file of a row, with columns of the table in braces (`train/{id}.png`)."""
    pixels: Pixels | None = None
    """Items in columns of the table, instead of files."""
    array: Array | None = None
    """Items in one array, instead of files."""
    labels: Array | None = None
    """Targets in one array, when there is no table."""

    @model_validator(mode="after")
    def _one_kind_of_item(self) -> Source:
        given = [name for name in ("files", "pixels", "array") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of files, pixels, array (found: {', '.join(given) or 'none'})")
        if self.table is None and self.array is None:
            raise ValueError("give a table, or an array whose first axis counts the rows")
        return self


class MetricSpec(Record):
    """The score of the competition, by name, with its options."""

    name: str
    """A name that `podium train --help` lists, or `module:function`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the metric, such as `k` of `map_at_k`."""
    higher_is_better: bool | None = None
    """Only for `module:function`: its direction."""


def _metric(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class SubmissionSpec(Record):
    """What the host wants to get."""

    sample: str | None = None
    """The host's sample file, relative to the data folder: its ids, order, columns and types are followed."""
    format: Format | None = None
    """What a row holds; by default label (multiclass, ordinal), probability (binary), labels (multilabel), values."""
    id: str | None = None
    """The id column of the file; by default the sample's first column, or the task's id column."""
    columns: Names = ()
    """The value columns, when there is no sample; by default the targets or the classes."""
    row_id: str | None = None
    """A column of the tables whose value several rows share: they are averaged to one row of the submission."""
    k: int = Field(default=5, ge=1)
    """How many classes a top-k row lists."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """From which probability a label counts as present (binary labels, multilabel)."""
    separator: str = " "
    """Between several labels of a cell."""
    empty: str = ""
    """What a row of several labels holds when none reaches the threshold; by default the most probable label."""
    clip: tuple[float, float] | None = None
    """Values below and above are cut to these ends."""


class Rules(Record):
    """What the host allows."""

    pseudo_labels: Literal["allowed", "forbidden"] = "allowed"
    """Whether models may learn from predictions on test rows."""


class Task(Record):
    """One competition, as read from `task.yaml`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the folders under `runs/`, `folds/` and `submissions/`."""
    data: str
    """The folder with the host's files, relative to the workspace."""
    input: Literal["image", "signal"] = "image"
    """`image`: items of (C, H, W); `signal`: items of (C, T)."""
    kind: Kind
    """What is predicted."""
    id: str | None = None
    """The id column; without one, rows are numbered in the order of the table."""
    first_id: int = 0
    """The number of the first row, where rows are numbered."""
    target: Names = ()
    """The target column, or several: one per label, per soft class, or per value."""
    target_separator: str | None = None
    """Multilabel in one column: what stands between the labels of a cell."""
    classes: Names = ()
    """Class names in the wanted order; by default those of the training table, sorted."""
    ordinal: Literal["softmax", "regression"] = "softmax"
    """Ordinal only: the expected grade of a softmax, or one regressed value."""
    group: str | None = None
    """A column that no two folds may share a value of (patient, subject, session)."""
    fold_column: str | None = None
    """A column with the host's own folds, for the fold scheme `column`."""
    sample_rate_hz: float | None = Field(default=None, gt=0)
    """Signals only: samples per second."""
    metric: Annotated[MetricSpec, BeforeValidator(_metric)]
    """The score of the competition."""
    train: Source
    """The labelled rows."""
    test: Block[Source] = None
    """The rows to predict."""
    submission: SubmissionSpec = SubmissionSpec()
    """What the host wants to get."""
    exclude: Names = ()
    """Ids of training rows that are left out, such as those of unreadable files."""
    rules: Rules = Rules()
    """What the host allows."""

    @model_validator(mode="after")
    def _fits_kind(self) -> Task:
        if not self.target and self.train.labels is None:
            raise ValueError("give target: (a column of the training table) or train.labels: (an array)")
        if self.ordinal != "softmax" and self.kind != "ordinal":
            raise ValueError("ordinal: is read only by kind: ordinal")
        if self.target_separator is not None and (self.kind != "multilabel" or len(self.target) != 1):
            raise ValueError("target_separator: is read only by kind: multilabel with one target column")
        if self.sample_rate_hz is not None and self.input != "signal":
            raise ValueError("sample_rate_hz: is read only by input: signal")
        return self

    @property
    def format(self) -> Format:
        """What a row of the submission holds: as stated, else by the kind of task."""
        defaults: dict[Kind, Format] = {
            "binary": "probability",
            "multiclass": "label",
            "multilabel": "labels",
            "ordinal": "label",
            "regression": "values",
        }
        return self.submission.format or defaults[self.kind]
