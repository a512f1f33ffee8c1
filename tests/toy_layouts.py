"""How a host may lay out a competition, axis by axis, and which values exclude each other.

why_not(Layout(items="pixels", archive="inside"))
# ["archive: packs files, and items of this kind have none (items: pixels)"]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

STRUCTURE: dict[str, tuple[str, ...]] = {
    "kind": ("multiclass", "binary", "words", "multilabel", "ordinal", "regression", "soft"),
    "place": ("csv", "several_csv", "folders", "file_names", "coco", "records", "array"),
    "encoding": ("column", "one_hot", "shares", "cell", "columns", "extra"),
    "items": ("files", "pixels", "bands", "one_array"),
    "per_row": ("one", "numbered", "columns", "rows"),
    "folders": ("separate", "shared"),
    "tree": ("flat", "by_class", "deep_class", "by_patient", "by_category", "by_letter"),
    "ids": ("stem", "suffix", "integer", "padded", "padded_files", "dots"),
    "archive": ("none", "inside", "root", "beside"),
    "decoy": ("none", "other_format", "masks", "noise", "old"),
    "test_table": ("yes", "no"),
    "sample": ("yes", "none"),
    "sample_id": ("same", "other", "index", "number"),
    "cells": ("placeholder", "empty"),
    "asks": ("label", "probability", "per_class", "labels", "top_k", "values"),
    "group": ("none", "patient", "fixing", "host_split"),
    "described": ("no", "yes"),
}
"""The values of each axis that is covered in pairs, the usual one first."""

DETAILS: dict[str, tuple[str, ...]] = {
    "file": (
        *("png", "jpg", "tiff", "bmp", "webp", "dicom", "mixed", "npy", "npz", "wav", "aif"),
        *("signal.npy", "signal.npz", "signal.pt", "signal.parquet", "signal.csv"),
    ),
    "counts": ("even", "lonely", "uneven"),
    "spelling": ("words", "codes"),
    "shares": ("votes", "fractions"),
    "first_id": ("1", "0"),
    "separator": ("space", "comma", "semicolon", "pipe"),
    "label_column": ("last", "first", "middle"),
    "dialect": ("comma", "semicolon", "tab", "pipe", "bom", "quoted", "zipped"),
    "depth": ("rgb", "grey", "grey16"),
    "sizes": ("same", "mixed"),
    "array_file": ("npy", "npz", "pt"),
    "shape": ("CT", "TC", "1TC", "images"),
    "gaps": ("none", "nan"),
    "packer": ("zip", "tar", "tar.gz", "7z"),
    "sample_name": ("sample_submission.csv", "sampleSubmission.csv", "toy_submission.csv", "sample_submission.csv.zip"),
}
"""The values of each axis of which every one occurs, the usual one first."""

AXES = STRUCTURE | DETAILS


@dataclass(frozen=True)
class Layout:
    """One way to hand out a competition; the axes are those of `AXES`."""

    kind: str = "multiclass"
    """What is predicted; `words`: two classes that are words."""
    place: str = "csv"
    """Where labels are; `several_csv`: beside another table of the same ids."""
    encoding: str = "column"
    """How a table holds them; `extra`: a column per label, and more labels than the sample asks for."""
    items: str = "files"
    """What a row shows; `bands`: lists of floats in JSON, `one_array`: all rows in one array."""
    per_row: str = "one"
    """Files of a row: one; two that are numbered; two that columns name; one each in two rows that share an id."""
    folders: str = "separate"
    """Train and test files in two folders or in one."""
    tree: str = "flat"
    """Folders below that one; test files lie flat where the class is the folder."""
    ids: str = "stem"
    """What the id column says of a file; `padded_files`: 7 for 00007.png."""
    archive: str = "none"
    """Whether the folders are packed; `root`: members at the root, `beside`: an archive beside the folder itself."""
    decoy: str = "none"
    """Other files beside the real ones."""
    test_table: str = "yes"
    """Whether there is a table of the test rows, beside the sample."""
    sample: str = "yes"
    """Whether there is a sample file."""
    sample_id: str = "same"
    """The sample's id column; `number`: test rows have no id and are numbered."""
    cells: str = "placeholder"
    """What the sample predicts."""
    asks: str = "label"
    """What a row of the sample holds."""
    group: str = "none"
    """A column of patients; one that the class decides; or the host's split into training and validation."""
    described: str = "no"
    """Whether a README of the host names the metric."""
    counts: str = "even"
    """Rows per class; `lonely`: one class has a single row, `uneven`: one class has nearly all."""
    spelling: str = "words"
    """Classes that are words (one of them with a space) or numbers that are no grades."""
    shares: str = "votes"
    """Of soft targets: counted, or fractions of one."""
    first_id: str = "1"
    """Where rows are numbered: the first number."""
    separator: str = "space"
    """Between several labels of a cell, in the table and in the sample."""
    label_column: str = "last"
    """Where in the table."""
    dialect: str = "comma"
    """How train and test tables are written; `zipped`: as .csv.zip."""
    file: str = "png"
    """Format of the file of a row: pictures (`mixed`: PNG and JPEG in one folder), arrays, sound, signals."""
    depth: str = "rgb"
    """Colours of picture files."""
    sizes: str = "same"
    """Whether pictures differ in size."""
    array_file: str = "npy"
    """Format of `one_array`."""
    shape: str = "CT"
    """Axes of a signal; `images`: the one array holds pictures."""
    gaps: str = "none"
    """Whether signals have NaNs."""
    packer: str = "zip"
    """Format of archives."""
    sample_name: str = "sample_submission.csv"
    """Name of the sample file."""

    @property
    def title(self) -> str:
        """Return the values that are not the usual ones, as the id of a test."""
        return " ".join(f"{axis}={value}" for axis, value in changed(self).items()) or "usual"


@dataclass(frozen=True)
class Rule:
    """Where `axis` has one of `values`, `other` must have one of `allowed`."""

    axis: str
    values: frozenset[str]
    other: str
    allowed: frozenset[str]
    reason: str


def _rule(axis: str, values: str, other: str, allowed: str, reason: str) -> Rule:
    """Return a rule from values in one text each; `!x y` stands for all values but these."""
    return Rule(axis, _chosen(axis, values), other, _chosen(other, allowed), reason)


def _chosen(axis: str, text: str) -> frozenset[str]:
    words = frozenset(text.removeprefix("!").split())
    assert words <= set(AXES[axis]), f"{axis}: {text}"
    return frozenset(AXES[axis]) - words if text.startswith("!") else words


_PICTURES = "png jpg tiff bmp webp dicom mixed"
_SIGNALS = "signal.npy signal.npz signal.pt signal.parquet signal.csv"
_BARE = "pixels bands one_array"

RULES: tuple[Rule, ...] = (
    # what is asked
    _rule("counts", "!even", "kind", "multiclass", "how rows share classes is varied where there are several"),
    _rule("counts", "!even", "group", "none host_split", "with a row per class every column fixes the class"),
    _rule("spelling", "codes", "kind", "multiclass", "the other kinds have names of their own"),
    _rule("shares", "fractions", "encoding", "shares", "is said of shares"),
    _rule("first_id", "0", "sample_id", "number", "is said of rows that are numbered"),
    _rule("kind", "multiclass", "asks", "label per_class top_k", "what several classes can be asked for"),
    _rule("kind", "binary words", "asks", "label probability", "what two classes can be asked for"),
    _rule("kind", "multilabel", "asks", "labels per_class", "what labels can be asked for"),
    _rule("kind", "ordinal", "asks", "label", "grades are bare integers"),
    _rule("kind", "regression", "asks", "values", "a value is a value"),
    _rule("kind", "soft", "asks", "per_class", "shares are answered with shares"),
    _rule("asks", "top_k", "spelling", "codes", "a class with a space cannot be told from two"),
    # where the labels are, and how they are written
    _rule("kind", "multilabel", "encoding", "cell columns extra", "several labels need one of these"),
    _rule("kind", "soft", "encoding", "shares", "shares need a column per class"),
    _rule("kind", "binary words ordinal regression", "encoding", "column", "one value needs one column"),
    _rule("kind", "multiclass", "encoding", "column one_hot", "one class needs one of these"),
    _rule("encoding", "columns extra", "asks", "per_class", "labels in columns are asked for in columns"),
    _rule("separator", "!space", "encoding", "cell", "stands between labels of a cell"),
    _rule("encoding", "!column cell", "place", "csv several_csv records", "several columns need a table"),
    _rule("encoding", "cell", "place", "csv several_csv records coco", "a cell needs a table"),
    _rule("label_column", "!last", "place", "csv several_csv", "is a column of a CSV"),
    _rule("label_column", "!last", "encoding", "column cell", "is one column"),
    _rule("dialect", "!comma", "place", "csv several_csv", "is how a CSV is written"),
    _rule("place", "folders", "kind", "binary words multiclass ordinal", "a folder is named after one class"),
    _rule("place", "folders", "tree", "by_class deep_class", "the folder is the label"),
    _rule("place", "file_names", "kind", "words multiclass", "a file is named after one class"),
    _rule("place", "file_names", "spelling", "words", "a number before a number cannot be read as a label"),
    _rule("place", "file_names", "ids", "integer", "files are numbered within a class"),
    _rule("place", "file_names", "folders", "separate", "varied where a table names the rows"),
    _rule("place", "coco", "kind", "words multiclass multilabel", "categories have names"),
    _rule("place", "coco", "spelling", "words", "categories have names"),
    _rule("place", "coco", "separator", "space", "its labels are separate annotations"),
    _rule("place", "coco", "ids", "suffix", "its images name their files"),
    _rule("place", "coco", "file", _PICTURES, "its images are pictures"),
    _rule("place", "array", "items", "one_array", "an array of labels lies beside an array of items"),
    _rule("place", "array", "kind", "multiclass binary ordinal regression", "an array of labels holds numbers"),
    _rule("place", "array", "spelling", "codes", "an array of labels holds numbers"),
    _rule("place", "folders file_names array", "test_table", "no", "there are no tables"),
    _rule("place", "coco folders file_names", "per_row", "one", "nothing says which files belong together"),
    # what a row shows
    _rule("items", "pixels", "place", "csv several_csv", "pixels are columns of a CSV"),
    _rule("items", "bands", "place", "records", "bands are cells of JSON records"),
    _rule("items", "one_array", "place", "array csv", "the rows are those of the array, with labels in its order"),
    _rule("items", "pixels bands", "test_table", "yes", "the table is the test set"),
    _rule("items", "one_array", "test_table", "no", "the array is the test set"),
    _rule("items", _BARE, "ids", "stem integer", "an id that names no file needs no variety"),
    _rule("items", "one_array", "sample_id", "number", "rows of an array have no ids but their numbers"),
    _rule("items", "one_array", "group", "none", "an array has no columns"),
    _rule("items", "one_array", "label_column", "last", "the table is one column"),
    _rule("items", _BARE, "per_row", "one", "only files come several to a row"),
    _rule("items", _BARE, "archive", "none", "packs files, and items of this kind have none"),
    _rule("items", _BARE, "decoy", "none", "lies beside files"),
    _rule("items", _BARE, "tree", "flat", "is a tree of files"),
    _rule("items", _BARE, "folders", "separate", "is where files lie"),
    _rule("items", _BARE, "file", "png", "is a format of files"),
    _rule("decoy", "other_format masks", "file", "png jpg tiff bmp webp", "a decoy of another format is a picture"),
    _rule("depth", "!rgb", "file", _PICTURES, "is stated for pictures"),
    _rule("sizes", "mixed", "file", _PICTURES, "is stated for pictures"),
    _rule("depth", "!rgb", "items", "files", "is stated for picture files"),
    _rule("sizes", "mixed", "items", "files", "is stated for picture files"),
    _rule("file", "dicom", "depth", "grey grey16", "DICOM pictures are grey here"),
    _rule("depth", "grey16", "file", "png tiff dicom", "the other formats have 8 bits"),
    _rule("file", "webp", "depth", "rgb", "WebP has no grey"),
    _rule("array_file", "!npy", "items", "one_array", "is a format of the one array"),
    _rule("array_file", "pt", "place", "array", "tensors lie beside tensors of labels"),
    _rule("file", "signal.parquet signal.csv", "shape", "TC", "a column of a table is a channel"),
    _rule("shape", "images", "items", "one_array", "is a content of the one array"),
    _rule("shape", "TC 1TC", "items", "files one_array", "are axes of signals"),
    _rule("gaps", "nan", "items", "files one_array", "are gaps of signals"),
    _rule("gaps", "nan", "shape", "!images", "pixels are integers"),
    # where its file lies
    _rule("per_row", "numbered", "ids", "!suffix", "a name with its suffix is one file"),
    _rule("per_row", "columns", "ids", "stem integer", "the columns name the files, not the id"),
    _rule("per_row", "columns", "tree", "flat", "the columns name the files as they lie"),
    _rule("per_row", "columns rows", "test_table", "yes", "only a table tells of the files of a test row"),
    _rule("per_row", "columns rows", "place", "csv several_csv", "a table tells of the files of a row"),
    _rule("per_row", "rows", "group", "none", "the shared id is a group already"),
    _rule("per_row", "rows", "sample", "yes", "only the sample says that rows are asked for together"),
    _rule("per_row", "rows", "sample_id", "same index", "the shared id must be known by its name"),
    _rule("per_row", "rows", "counts", "even", "two rows are no lonely row"),
    _rule("folders", "shared", "tree", "!by_class deep_class", "the class of a test file is not known"),
    _rule("folders", "shared", "sample", "yes", "something must say which files are test rows"),
    _rule("tree", "by_class deep_class", "kind", "binary words multiclass ordinal", "a row has one folder"),
    _rule("tree", "by_class", "encoding", "column", "the class names the folder, so it stands in one column"),
    _rule("tree", "deep_class", "place", "folders", "folders between are varied where the folder is the label"),
    _rule("tree", "by_class", "place", "folders csv several_csv", "folders named after classes, with or without table"),
    _rule("tree", "by_patient", "group", "patient", "patients are those of the column"),
    _rule("tree", "by_category", "group", "fixing", "categories are those of the column"),
    _rule("tree", "by_letter", "ids", "stem", "an id of digits has no first letter"),
    _rule("decoy", "other_format old", "place", "csv several_csv records", "is told apart by the ids of a table"),
    # what the host wants
    _rule("sample", "none", "asks", "!top_k", "nothing says how many are asked for"),
    _rule("sample", "none", "sample_id", "same", "is the sample's"),
    _rule("sample", "none", "cells", "placeholder", "are the sample's"),
    _rule("sample", "none", "sample_name", "sample_submission.csv", "there is none"),
    _rule("sample_id", "number", "items", "pixels one_array", "files are found by ids"),
    _rule("sample_id", "number", "ids", "integer", "rows have no other ids"),
    _rule("cells", "empty", "asks", "label labels values", "an empty cell shows no probability and no k"),
    _rule("group", "!none", "place", "csv several_csv records", "is a column"),
    _rule("group", "fixing", "kind", "multiclass binary words ordinal", "a value is not fixed by a class"),
)
"""What excludes what, and why."""


def changed(layout: Layout) -> dict[str, str]:
    """Return the axes of a layout that are not at their usual value."""
    return {axis: value for axis, value in asdict(layout).items() if value != AXES[axis][0]}


def why_not(layout: Layout) -> list[str]:
    """Return what contradicts itself in a layout, one line per rule; nothing for a sensible one."""
    values = asdict(layout)
    broken = [rule for rule in RULES if values[rule.axis] in rule.values and values[rule.other] not in rule.allowed]
    return [f"{rule.axis}: {rule.reason} ({rule.other}: {values[rule.other]})" for rule in broken]
