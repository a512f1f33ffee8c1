"""What the competition is: where its tables and files lie, what is asked, and how an answer is scored.

A task changes once per competition; what changes daily is an `Experiment`.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.records.decoding import Audio, Dicom
from pipeline.records.record import Block, Names, Record
from pipeline.records.suffixes import ARRAY_SUFFIXES, AUDIO_SUFFIXES, DICOM_SUFFIXES, RECORD_SUFFIXES, may_end_in

Kind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression"]
Format = Literal["label", "probability", "per_class", "labels", "top_k", "values", "array"]


def template_parts(template: str) -> list[tuple[str, str, str]]:
    """Return (text, column, format) for each column that a path template names in braces, and for the text after them.

    The format is Python's, for texts: `{id:0>5}` fills up with zeros on the left. The column of a last text is "".

    Raises:
        ValueError: a brace is alone, no column is named, or the format is none for texts.
    """
    try:
        parts = [(text, field or "", spec or "") for text, field, spec, _ in string.Formatter().parse(template)]
        tried = [format("7", spec) for _, _, spec in parts]
    except ValueError as error:
        raise ValueError(f"files: '{template}' is no path template: {error}") from None
    if not any(column for _, column, _ in parts):
        raise ValueError(f"files: '{template}' must name a column of the table in braces, such as 'train/{{id}}.png'")
    if not all(cell.endswith("7") for cell in tried):  # `{id:05}` would make 70000 of 7
        raise ValueError(f"files: '{template}' fills up on the wrong side; write {{id:0>5}} for zeros on the left")
    return parts


class Pixels(Record):
    """Items that lie in the columns of the table itself."""

    columns: str
    """Shell pattern of the columns, taken in the table's order (`pixel*`)."""
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=2, max_length=3)
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
        for template in self.files:
            template_parts(template)
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
    separator: str = Field(default=" ", min_length=1)
    """Between several labels of a cell."""
    empty: str = ""
    """What a row of several labels holds when none reaches the threshold; by default the most probable label."""
    clip: Block[tuple[float, float]] = None
    """Values below and above are cut to these ends."""

    @model_validator(mode="after")
    def _has_ends_in_order(self) -> SubmissionSpec:
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"clip: the lower end comes first (found: {self.clip[0]:g}, {self.clip[1]:g})")
        return self


class Rules(Record):
    """What the host allows."""

    pseudo_labels: Literal["allowed", "forbidden"] = "allowed"
    """Whether models may learn from predictions on test rows."""


class Host(Record):
    """Where submissions are sent (`podium submit RUN --send`)."""

    name: Literal["kaggle"] = "kaggle"
    """Whose official client sends them."""
    competition: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """The last part of the competition's address, such as `digit-recognizer`."""
    daily_limit: int | None = Field(default=None, ge=1)
    """How many submissions the rules allow in a day (UTC); further ones are not sent."""


class Task(Record):
    """One competition, as read from `task.yaml`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the folders under `runs/`, `folds/` and `submissions/`."""
    data: str
    """The folder with the host's files, relative to the workspace."""
    input: Literal["image", "signal"] = "image"
    """`image`: items of (C, H, W); `signal`: items of (C, T)."""
    layout: Literal["channels_first", "channels_last"] | None = None
    """Axes of arrays: (C, H, W) and (C, T), or (H, W, C) and (T, C); an axis of one is dropped from signals of three.
    By default the first; then 1, 3 or 4 channels of images are also found at the end. Pictures and tables need none."""
    channels: Names = ()
    """Signals in one table each: the columns that are channels, in this order; by default all of them."""
    dicom: Dicom = Dicom()
    """How DICOM files become pictures."""
    audio: Block[Audio] = None
    """How sound becomes pictures; needed by images that are sound files."""
    kind: Kind
    """What is predicted."""
    id: str | None = None
    """The id column; without one, rows are numbered in the order of the table."""
    first_id: int = 0
    """The number of the first row, where rows are numbered."""
    target: Names = ()
    """The target column, or several: one per label, per soft class, or per value."""
    target_separator: str | None = Field(default=None, min_length=1)
    """Multilabel in one column: what stands between the labels of a cell."""
    classes: Names = ()
    """Class names in the wanted order; by default those of the training table, sorted."""
    ordinal: Literal["softmax", "regression"] = "softmax"
    """Ordinal only: the expected grade of a softmax, or one regressed value."""
    group: str | None = None
    """A column that no two folds may share a value of (patient, subject, session)."""
    subject: str | None = None
    """The column that says whom a row was recorded from: no two folds share one, unless `folds.within` asks for it."""
    session: str | None = None
    """The column of the recording session; kept whole like subjects, and within them. Numbers may start anew with each
    subject."""
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
    unlabelled: Block[Source] = None
    """Further rows without labels, which pseudo-labels and consistency may use beside the test rows."""
    submission: SubmissionSpec = SubmissionSpec()
    """What the host wants to get."""
    exclude: Names = ()
    """Ids of training rows that are left out, such as those of unreadable files."""
    rules: Rules = Rules()
    """What the host allows."""
    host: Block[Host] = None
    """Where submissions are sent; changes nothing about a run."""

    @model_validator(mode="after")
    def _reads_every_key(self) -> Task:
        if not self.target and self.train.labels is None:
            raise ValueError("target: is missing: name a column of the training table, or give train.labels: an array")
        for key, is_read, reader in _readers(self):
            if not is_read:
                raise ValueError(f"{key}: is read only {reader}")
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


def _readers(task: Task) -> Iterator[tuple[str, bool, str]]:
    """Yield each key that only some tasks read and that this one sets, whether it is read, and by what.

    A key at its default counts as not set: a saved task holds every key.
    """
    spec, form = task.submission, task.format
    tables = [source.table for source in (task.train, task.test) if source is not None]
    one_cell = task.kind in ("binary", "multiclass", "ordinal") or task.target_separator is not None
    if task.ordinal != "softmax":
        yield "ordinal", task.kind == "ordinal", "by kind: ordinal"
    if task.target_separator is not None:
        is_read = task.kind == "multilabel" and len(task.target) == 1
        yield "target_separator", is_read, "by kind: multilabel with one target column"
    if task.classes:
        yield "classes", one_cell, "by kinds with classes (a multilabel task with a column per label has its names)"
    if task.sample_rate_hz is not None:
        yield "sample_rate_hz", task.input == "signal", "by input: signal"
    if task.layout is not None:
        yield "layout", _has_items_in(task, ARRAY_SUFFIXES), "by items in arrays or columns"
    if task.channels:
        is_read = task.input == "signal" and _has_files_in(task, RECORD_SUFFIXES)
        yield "channels", is_read, "by input: signal with a table (.csv, .tsv, .txt, .parquet) for each item"
    if task.dicom != Dicom():
        yield "dicom", task.input == "image" and _has_files_in(task, DICOM_SUFFIXES), "by images in DICOM files"
    if task.audio is not None:
        is_read = task.input == "image" and _has_files_in(task, AUDIO_SUFFIXES)
        yield "audio", is_read, "by input: image with sound files (signals of sound read sample_rate_hz)"
    if task.first_id:
        yield "first_id", task.id is None or None in tables, "where rows are numbered, and id: names a column"
    if task.id is not None:
        yield "id", any(tables), "with a table, and there is none"
    columns = {"group": task.group, "subject": task.subject, "session": task.session, "fold_column": task.fold_column}
    for key, name in (*columns.items(), ("submission.row_id", spec.row_id)):
        if name is not None:
            yield key, task.train.table is not None, "with train.table, which is not given"
    for key, source in (("test.labels", task.test), ("unlabelled.labels", task.unlabelled)):
        if source is not None and source.labels is not None:
            yield key, False, "in train"
    if spec.k != 5:
        yield "submission.k", form == "top_k", "by submission.format: top_k"
    if spec.separator != " ":
        yield "submission.separator", form in ("labels", "top_k"), "by submission.format: labels and top_k"
    if spec.empty:
        yield "submission.empty", form == "labels", "by submission.format: labels"
    if spec.clip is not None:
        is_read = form in ("probability", "per_class", "values", "array")
        yield "submission.clip", is_read, "by formats with numbers (probability, per_class, values, array)"


def _has_files_in(task: Task, suffixes: frozenset[str]) -> bool:
    """Return whether some file of a row may have one of these suffixes."""
    sources = [source for source in (task.train, task.test, task.unlabelled) if source is not None]
    return any(may_end_in(template, suffixes) for source in sources for template in source.files)


def _has_items_in(task: Task, suffixes: frozenset[str]) -> bool:
    """Return whether some items may lie in files of these suffixes, in one array, or in columns."""
    sources = [source for source in (task.train, task.test, task.unlabelled) if source is not None]
    return _has_files_in(task, suffixes) or any(source.array or source.pixels for source in sources)
