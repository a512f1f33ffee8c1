"""One walk over the folder that the host delivered: which files are items, tables, arrays, archives or texts.

Nothing is written here, and nothing is opened but archives' lists of members. A path begins with `original/` for the
folder as it is, and with `unpacked/` for what was in an archive, as in the folder that `podium init` may make.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.base.errors import DataError, listed
from pipeline.records.suffixes import ARRAY_SUFFIXES, AUDIO_SUFFIXES, DICOM_SUFFIXES, IMAGE_SUFFIXES, RECORD_SUFFIXES
from pipeline.stages.infer.columns import hints_at, words_of

Kind = Literal["image", "audio", "record", "table", "array", "archive", "text", "other"]
"""`record`: one of many alike files of numbers, each of them an item."""

_TABLES = frozenset({".csv", ".tsv", ".parquet", ".json", ".jsonl", ".ndjson"})
_TEXTS = frozenset({".md", ".txt", ".html", ".htm", ".rst"})
_COMPRESSED = frozenset({".gz", ".zip", ".bz2", ".xz"})
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".7z")

_TELLING = (
    "readme",
    "description",
    "rules",
    "evaluation",
    "overview",
    "licen",
    "about",
    "info",
    "notes",
    "instruction",
)
_JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_MANY = 8
"""So many alike files of numbers under one folder are items, not tables: no host hands out that many tables."""


@dataclass(frozen=True)
class File:
    """A file of the competition."""

    path: str
    """`original/...` or `unpacked/...`, with forward slashes."""
    real: Path
    size: int
    kind: Kind

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """Return the path of the folder."""
        return self.path.rpartition("/")[0]

    @cached_property
    def suffix(self) -> str:
        """Return the suffix in lower case; a part of an id that has dots is none."""
        return suffix_of(self.name)


@dataclass(frozen=True)
class Survey:
    """All files that count, in the order of their paths."""

    files: tuple[File, ...]

    def of(self, *kinds: Kind) -> list[File]:
        """Return the files of some kinds."""
        return [file for file in self.files if file.kind in kinds]

    @property
    def items(self) -> list[File]:
        """Return the files that each hold one item."""
        return self.of("image", "audio", "record")


def survey_folder(folder: Path, prefix: str = "original") -> Survey:
    """Return what lies in a folder; links are followed, hidden files and those of file managers left out.

    Raises:
        DataError: the folder is missing, is a file, or holds no file.
    """
    if not folder.is_dir():
        what = "is a file; give the folder that it lies in" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}")
    files = [
        File(f"{prefix}/{path.relative_to(folder).as_posix()}", path, path.stat().st_size, kind_of(path.name))
        for path in _walk(folder)
        if path.is_file()
    ]
    if not files:
        raise DataError(f"{folder}: is empty; give the folder with the host's files (tables, images, arrays, archives)")
    return Survey(_with_records(sorted(files, key=lambda file: file.path)))


def joined(surveys: Iterable[Survey]) -> Survey:
    """Return the files of several walks as one."""
    return Survey(_with_records([file for survey in surveys for file in survey.files]))


def suffix_of(name: str) -> str:
    """Return the suffix of a file that this program knows, in lower case, or an empty string: ids may have dots."""
    suffix = name[name.rfind(".") :].lower() if "." in name[1:] else ""
    return suffix if suffix in _KNOWN else ""


def stem_of(name: str) -> str:
    """Return a file's name without the suffix, if it has one that is known."""
    suffix = suffix_of(name)
    return name[: len(name) - len(suffix)] if suffix else name


def kind_of(name: str) -> Kind:
    """Return what a file is by its name."""
    path = PurePosixPath(name.lower())
    suffix = path.suffix
    if suffix in IMAGE_SUFFIXES or suffix in DICOM_SUFFIXES:
        return "image"
    if suffix in AUDIO_SUFFIXES:
        return "audio"
    if suffix in ARRAY_SUFFIXES:
        return "array"
    if suffix in _COMPRESSED and PurePosixPath(path.stem).suffix in _TABLES | {".txt"}:
        return "table"
    if path.name.endswith(_ARCHIVES):
        return "archive"
    if suffix in _TABLES:
        return "table"
    if suffix in _TEXTS:
        return "table" if suffix == ".txt" and not hints_at(words_of(path.stem), _TELLING) else "text"
    return "text" if not suffix and hints_at(words_of(path.name), _TELLING) else "other"


def _walk(folder: Path) -> Iterator[Path]:
    """Yield files; a linked folder that leads back into itself is entered once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _is_junk(name))
        yield from (Path(place) / name for name in sorted(names) if not _is_junk(name))


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in _JUNK


def _with_records(files: list[File]) -> tuple[File, ...]:
    """Return the files, with tables and arrays of which many lie under one folder as records."""
    many = Counter(_top_and_suffix(file) for file in files if file.kind in ("table", "array"))
    return tuple(
        replace(file, kind="record" if _is_number_file(file) else "other")
        if file.kind in ("table", "array") and many[_top_and_suffix(file)] >= _MANY and file.path.count("/") > 1
        else file
        for file in files
    )


def _is_number_file(file: File) -> bool:
    return file.suffix in ARRAY_SUFFIXES | RECORD_SUFFIXES


def _top_and_suffix(file: File) -> tuple[str, str]:
    parts = file.path.split("/")
    return "/".join(parts[:2]), file.suffix


_KNOWN = (
    IMAGE_SUFFIXES | DICOM_SUFFIXES | AUDIO_SUFFIXES | ARRAY_SUFFIXES | _TABLES | _TEXTS | _COMPRESSED | {".7z", ".tar"}
)


def describe(survey: Survey) -> str:
    """Return how many files of each kind there are, for messages."""
    counts = Counter(file.kind for file in survey.files)
    suffixes = listed(sorted({file.suffix or "no suffix" for file in survey.files}), 8)
    return f"{', '.join(f'{n} {kind}' for kind, n in counts.most_common())} ({suffixes})"
