"""Everything that a host delivered, ready to be reasoned about: files, tables, arrays; archives unpacked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.base.errors import DataError, PodiumError, listed
from pipeline.base.tables import read_header, read_table
from pipeline.stages.infer.archives import is_archive, members, unpack
from pipeline.stages.infer.arrays import ArrayFacts, array_facts
from pipeline.stages.infer.columns import PixelColumns, Table, hints_at, shown_path, words_of
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.items import DECOYS, FileIndex
from pipeline.stages.infer.pixels import numbered_columns
from pipeline.stages.infer.survey import File, Survey, describe, joined, survey_folder
from pipeline.stages.infer.tables import read_any, suffix_of

Say = Callable[[str], None]

PIXELS = "pixels"
"""The name of an array that is made of numbered columns."""
_USUAL = {"id", "image", "img", "file", "filename", "label", "target", "class"}
"""Words of names of columns."""
_SAME = 0.95
"""From this share of an archive's members on, lying unpacked beside it, it is left alone."""
_MAX_TABLE_BYTES = 4 * 2**30


@dataclass(frozen=True, eq=False)
class Delivered:
    """What lies in the host's folder, and what was in its archives."""

    folder: Path
    survey: Survey
    tables: tuple[Table, ...]
    arrays: tuple[ArrayFacts, ...]
    index: FileIndex

    @property
    def texts(self) -> list[Path]:
        """Return the files that may describe the competition."""
        return [file.real for file in self.survey.of("text")]

    def table_at(self, name: str) -> Table:
        """Return the table that a user names by its path or file name."""
        for table in self.tables:
            if name in (table.path, table.shown, PurePosixPath(table.path).name):
                return table
        known = listed([table.shown for table in self.tables], 12) or "none"
        raise DataError(f"{self.folder}: no table '{name}'. Tables: {known}")


def read_delivery(folder: Path, unpacked: Path, findings: Findings, say: Say) -> Delivered:
    """Return what a host delivered.

    Args:
        folder: his folder; never written to.
        unpacked: where archives are unpacked, unless their content lies beside them already.
        findings: gets what was found.
        say: gets a line before long work.

    Raises:
        DataError: the folder is empty, or an archive or array is damaged.
    """
    survey = survey_folder(folder)
    archives = [file for file in survey.files if is_archive(file.real)]
    for archive in archives:
        beside = _unpacked_beside(archive, survey)
        if beside is not None:
            findings.add(f"archive {archive.name}", "left alone", f"the same files lie in {shown_path(beside)}")
            continue
        below = PurePosixPath(shown_path(archive.path)).parent
        made = unpack(archive.real, unpacked / below, say)
        prefix = f"unpacked/{made.relative_to(unpacked).as_posix()}"
        survey = joined([survey, survey_folder(made, prefix)])
        findings.add(f"archive {archive.name}", "unpacked", f"its files lie nowhere beside it; they are now in {made}")
    arrays = array_facts(survey.of("array"))
    tables = _with_headers(
        _read_tables(survey, findings), survey, {facts.shape[0] for facts in arrays if facts.role == "items"}
    )
    items = survey.items
    findings.add("files", describe(survey), f"in {folder}")
    return Delivered(folder, survey, tuple(tables), tuple(arrays), FileIndex(items))


def _unpacked_beside(archive: File, survey: Survey) -> str | None:
    """Return the folder in which the members of an archive lie already, each of its size."""
    inside = members(archive.real)
    sizes = {file.path: file.size for file in survey.files}
    stem = archive.name.split(".")[0]
    for folder in (f"{archive.folder}/{stem}", archive.folder):
        if inside and sum(sizes.get(f"{folder}/{each.name}") == each.size for each in inside) >= _SAME * len(inside):
            return folder
    return None


def _read_tables(survey: Survey, findings: Findings) -> list[Table]:
    """Return the tables; one that cannot be read is left out and named."""
    files = [file for file in survey.of("table") if 0 < file.size <= _MAX_TABLE_BYTES]
    pixels = _pixel_columns(files, has_items=len(survey.items) > 10)
    tables = []
    for file in files:
        try:
            table = _read_wide(file, pixels[file.path]) if file.path in pixels else _read(file)
        except PodiumError as error:
            findings.add(f"table {shown_path(file.path)}", "left out", f"it cannot be read: {error}")
            continue
        is_prose = file.suffix == ".txt" and len(table.columns) < 2
        if not is_prose and not hints_at(words_of(shown_path(file.folder)), DECOYS):
            tables.append(table)
    return tables


def _with_headers(tables: list[Table], survey: Survey, n_items: set[int]) -> list[Table]:
    """Return the tables, those without a header with their first row as one where other files show that it is.

    A header of numbers (classes `11`, `25`) looks like a row of data. That it is none is seen by a name in it that
    other tables have too, or that only names have, or by one row more than the array has items.
    """
    known = {name for table in tables for name in table.columns if not _is_given_name(name)}
    real = {file.path: file.real for file in survey.files}
    made = []
    for table in tables:
        first = [str(cell) for cell in table.frame.iloc[0]] if table.n_rows else []
        is_headless = bool(first) and all(_is_given_name(str(name)) for name in table.frame.columns)
        is_one_more = table.n_rows - 1 in n_items and table.n_rows not in n_items
        is_named = bool(known & set(first)) or _names_its_column(table)
        if is_headless and (is_named or is_one_more) and len(set(first)) == len(first):
            frame = table.frame.iloc[1:].reset_index(drop=True).set_axis(first, axis=1)
            table = replace(table, frame=frame, is_plain=_is_plain(real[table.path], frame))
        made.append(table)
    return made


def _names_its_column(table: Table) -> bool:
    """Say whether a cell of the first row has a word that names have, such as `ImageId`, and no cell below it has."""
    for cells in table.columns.values():
        first, *rest = (bool(words_of(str(cell)) & _USUAL) for cell in cells.cells)
        if first and rest and not any(rest):
            return True
    return False


def _is_given_name(name: str) -> bool:
    """Say whether a column has the name that columns without one are given."""
    return re.fullmatch(r"column_\d+", name) is not None


def _pixel_columns(files: list[File], has_items: bool) -> dict[str, PixelColumns]:
    """Return the pixel columns of tables by their headers.

    Numbered columns of a sample are classes; where there are item files, only those that two tables share are pixels.
    """
    found: dict[str, PixelColumns] = {}
    for file in files:
        if file.suffix == ".json" or hints_at(words_of(file.name), ("sample", "submi")):
            continue
        try:
            pixels = numbered_columns(read_header(file.real))
        except PodiumError:
            continue
        if pixels is not None:
            found[file.path] = pixels
    shared = Counter(pixels.names for pixels in found.values())
    return {path: pixels for path, pixels in found.items() if not has_items or shared[pixels.names] > 1}


def _read_wide(file: File, pixels: PixelColumns) -> Table:
    """Return a table with pixel columns, which are not read: as text they would fill the memory."""
    closed = set(pixels.names)
    frame = read_table(file.real, is_wanted=lambda name: name not in closed)
    return Table(file.path, frame, is_plain=True, pixels=pixels)


def _read(file: File) -> Table:
    """Return a table of any dialect; numbered columns of one that cannot be pointed at become an array."""
    read = read_any(file.real)
    frame, arrays = read.frame, dict(read.arrays)
    is_plain = _is_plain(file.real, frame)
    is_sample = hints_at(words_of(file.name), ("sample", "submi"))
    pixels = None if is_plain or is_sample else numbered_columns([str(name) for name in frame.columns])
    if pixels is not None:
        try:
            arrays[PIXELS] = frame[list(pixels.names)].to_numpy(dtype=object).astype(np.float32)
        except ValueError:
            return Table(file.path, frame, is_plain, None, arrays, read.form.kind)
        frame = frame.drop(columns=list(pixels.names))
    return Table(file.path, frame, is_plain, None, arrays, read.form.kind)


def _is_plain(path: Path, frame: object) -> bool:
    """Say whether the pipeline's own reader gives the same frame."""
    if suffix_of(path) not in (".csv", ".txt", ".parquet"):
        return False
    try:
        own = read_table(path)
    except PodiumError:
        return False
    return bool(own.astype(object).equals(frame.astype(object)))  # type: ignore[attr-defined]
