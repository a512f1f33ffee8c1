"""Tables as hosts deliver them, read as text cells: any delimiter and encoding, a header or none, JSON, Parquet.

`read_any` reads a whole table and says how it was written; `peek` looks at one of any length without keeping it. The
pipeline itself reads plain CSV only (`pipeline.base.tables`): what is delivered otherwise is written anew from here.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed
from pipeline.stages.infer.delimited import NO_DELIMITER, SAMPLE_BYTES, Dialect, dialect_of, is_number
from pipeline.stages.infer.json_tables import read_json_table
from pipeline.stages.infer.parquet_tables import read_parquet_table

if TYPE_CHECKING:
    import pandas as pd

IsWanted = Callable[[str], bool]
CellType = Literal["empty", "integer", "number", "text"]

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".tab", ".psv", ".dat", ".parquet", ".json", ".jsonl", ".ndjson"})
MAX_JSON_BYTES = 2**32
"""Of a JSON file, unpacked: it is read whole, and takes several times as much memory."""

_PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_LINES = frozenset({".jsonl", ".ndjson"})
_WORDS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", " ": "blanks", NO_DELIMITER: "one column"}
_BROKEN = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError)


@dataclass(frozen=True)
class Form:
    """How a table was delivered."""

    kind: str
    """In words: `comma`, `tab`, `Parquet`, `a list of records`, ..."""
    delimiter: str | None = None
    """Of a text table: one character, a space for any number of blanks, None for a single column."""
    encoding: str | None = None
    """Of a text table: `utf-8`, `utf-8-sig` (with the mark of Excel), `utf-16...` or `latin-1`."""
    has_header: bool = True
    """Without a header the columns are called `column_0`, `column_1`, ..."""
    reason: str = ""
    """Why the first row counts as names or as data."""
    notes: tuple[str, ...] = ()
    """What was done that a reader may wonder about, a sentence each."""
    is_plain: bool = False
    """Whether the pipeline can read the file as it is: comma or Parquet, UTF-8, a header, nothing mended."""


@dataclass(frozen=True)
class AnyTable:
    """A table, however it was delivered."""

    frame: pd.DataFrame
    """Text cells as they stand; a missing one is empty. A column without a name is called "" (one of them)."""
    form: Form
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Columns whose cells are lists of numbers, (N, ...) each, by name; they are not in the frame."""

    @property
    def row_numbers(self) -> str | None:
        """The name of an unnamed column that counts the rows from 0 or 1, as pandas writes it; None without one."""
        return _row_numbers(self.frame)


@dataclass(frozen=True)
class Peek:
    """The beginning of a table, and what is known of the rest."""

    names: tuple[str, ...]
    """Of all columns in order; those of lists of numbers too."""
    types: dict[str, CellType]
    """By name, as the first rows have them; lists of numbers are not in it."""
    n_rows: int
    head: pd.DataFrame
    """The first rows as text."""
    form: Form
    array_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of one cell of each column of lists of numbers."""

    @property
    def row_numbers(self) -> str | None:
        """As of `AnyTable`."""
        return _row_numbers(self.head)


def is_table(path: Path) -> bool:
    """Return whether a file is a table by its name, packed or not; a `.txt` file may be anything."""
    return suffix_of(path) in TABLE_SUFFIXES


def suffix_of(path: Path) -> str:
    """Return what a table's file holds by its name, in lower case: `.csv` of `train.csv.zip`."""
    name = PurePosixPath(path.name.lower())
    return PurePosixPath(name.stem).suffix if name.suffix in {*_PACKED, ".zip"} else name.suffix


def read_any(path: Path, is_wanted: IsWanted | None = None, part: str | None = None) -> AnyTable:
    """Return a whole table with its cells as text.

    Args:
        path: `.csv`, `.tsv`, `.txt` and their like, `.parquet`, `.json`, `.jsonl` or `.ndjson`; also inside of `.gz`,
            `.bz2`, `.xz`, or alone in a `.zip`.
        is_wanted: which columns of a text table to keep, by name; all when left out.
        part: of JSON with several lists: which one.

    Raises:
        DataError: the file is missing, damaged, empty or no table; rows have more cells than the first.
    """
    if suffix_of(path) == ".parquet":
        return _parquet(path)
    if suffix_of(path) in (".json", *_LINES):
        return _json(path, part)
    dialect, names, notes = _look(path)
    chosen = [place for place, name in enumerate(names) if is_wanted is None or is_wanted(name)]
    if not chosen:
        raise DataError(f"{path}: none of its columns is asked for; it has {listed(names, 12)}")
    some: dict[str, Any] = (
        {"usecols": chosen} if len(chosen) < len(names) else {}
    )  # with it pandas lets longer rows pass
    frame, encoding = _pandas(path, dialect, **some)
    frame = frame.iloc[1 if dialect.has_header else 0 :].reset_index(drop=True)
    frame = frame.set_axis([names[place] for place in chosen], axis=1)
    frame, more = _mended(frame)
    return AnyTable(frame, _form(dialect, encoding, [*notes, *more], frame))


def peek(path: Path, n_rows: int = 1000, part: str | None = None) -> Peek:
    """Return the first rows of a table, its columns and how many rows it has; a text table is never held whole.

    Raises:
        DataError: as `read_any`.
    """
    if suffix_of(path) in (".parquet", ".json", *_LINES):
        whole = _parquet(path) if suffix_of(path) == ".parquet" else _json(path, part)
        head = whole.frame.head(n_rows)
        shapes = {name: array.shape[1:] for name, array in whole.arrays.items()}
        names = (*whole.frame.columns, *whole.arrays)
        return Peek(names, _types(head), len(whole.frame), head, whole.form, shapes)
    dialect, names, notes = _look(path)
    start = 1 if dialect.has_header else 0
    head, encoding = _pandas(path, dialect, nrows=n_rows + start)
    head, more = _mended(head.iloc[start:].reset_index(drop=True).set_axis(list(names), axis=1))
    n_all, encoding = _pandas(path, dialect, lambda parts: sum(map(len, parts)), usecols=[0], chunksize=2**17)
    form = _form(dialect, encoding, [*notes, *more], head)
    return Peek(tuple(head.columns), _types(head), n_all - start, head, form)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Yield the bytes of a file, unpacked where its suffix is `.gz`, `.bz2`, `.xz` or `.zip` (of a single member).

    Raises:
        DataError: the file is missing, damaged or encrypted, or a `.zip` file holds several members.
    """
    try:
        if path.suffix.lower() != ".zip":
            with _PACKED.get(path.suffix.lower(), Path.open)(path, "rb") as stream:
                yield stream
            return
        with zipfile.ZipFile(path) as archive, archive.open(_only_member(archive, path)) as member:
            yield member
    except (DataError, UnicodeDecodeError):
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except _BROKEN as error:
        raise DataError(f"{path}: cannot be read as a table: {str(error).strip() or type(error).__name__}") from None


def _only_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    infos = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX")]
    if len(infos) != 1:
        names = listed((info.filename for info in infos), 5)
        raise DataError(f"{path}: a packed table must be alone in its archive; this one holds {names or 'nothing'}")
    return infos[0]


def _look(path: Path) -> tuple[Dialect, tuple[str, ...], list[str]]:
    """Return how a text table is written, the names of its columns, all different, and notes about these."""
    with opened(path) as stream:
        sample = _read_up_to(stream, SAMPLE_BYTES + 1)
    if not sample.strip():
        raise DataError(f"{path}: is empty")
    is_whole = len(sample) <= SAMPLE_BYTES
    dialect = dialect_of(sample[:SAMPLE_BYTES], is_whole)
    if not dialect.n_columns:
        raise DataError(f"{path}: holds no rows of text")
    if not dialect.has_header:
        return dialect, tuple(f"column_{place}" for place in range(dialect.n_columns)), []
    first, _ = _pandas(path, dialect, nrows=1)
    cells = [str(cell).strip() if dialect.delimiter == " " else str(cell) for cell in first.iloc[0]]
    return dialect, *_distinct(["", *cells[:-1]] if dialect.has_row_names else cells)


def _read_up_to(stream: IO[bytes], most: int) -> bytes:
    parts, left = [], most
    while left and (part := stream.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _pandas(
    path: Path, dialect: Dialect, then: Callable[[Any], Any] = lambda frame: frame, **options: Any
) -> tuple[Any, str]:
    """Return what `then` makes of the cells of a text table, the header as a row, and the encoding that was right.

    What is found not to be UTF-8 only far down is read as Latin-1.
    """
    import pandas as pd

    plain: dict[str, Any] = {"header": None, "dtype": str, "keep_default_na": False, "na_filter": False}
    plain |= {"names": range(dialect.n_columns), "sep": r"\s+" if dialect.delimiter == " " else dialect.delimiter}

    def read(encoding: str) -> Any:
        with opened(path) as stream:
            return then(pd.read_csv(stream, encoding=encoding, **plain, **options))

    try:
        return read(dialect.encoding), dialect.encoding
    except UnicodeDecodeError as error:
        if dialect.encoding.startswith("utf-16"):
            raise DataError(f"{path}: is not whole UTF-16 ({error.reason} at byte {error.start})") from None
        return read("latin-1"), "latin-1"


def _distinct(names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return column names of which none occurs twice, and notes about those that were changed."""
    counts: dict[str, int] = {}
    distinct, notes = [], []
    for place, name in enumerate(names):
        counts[name] = counts.get(name, 0) + 1
        changed = name if counts[name] == 1 else f"column_{place}" if name == "" else f"{name}.{counts[name]}"
        if changed != name:
            notes.append(f"the header names a column '{name}' twice; the second is called '{changed}'")
        distinct.append(changed)
    return tuple(distinct), notes


def _mended(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return a table without a column that only a delimiter at the end of each row makes."""
    last = str(frame.columns[-1]) if len(frame.columns) else ""
    is_nothing = len(frame.columns) > 1 and (last == "" or last == f"column_{len(frame.columns) - 1}")
    if is_nothing and len(frame) and (frame.iloc[:, -1] == "").all():
        return frame.iloc[:, :-1], ["each row ends with a delimiter; the empty column behind it is left out"]
    return frame, []


def _form(dialect: Dialect, encoding: str, notes: list[str], frame: pd.DataFrame) -> Form:
    if encoding == "latin-1":
        notes = [*notes, "is not UTF-8; read as Latin-1, so letters beyond ASCII may be wrong"]
    delimiter = None if dialect.delimiter == NO_DELIMITER else dialect.delimiter
    is_plain = delimiter == "," or (delimiter is None and not frame.iloc[:, 0].str.contains('[",]').any())
    is_plain = is_plain and encoding.startswith("utf-8") and dialect.has_header and not (notes or dialect.has_row_names)
    kind = _WORDS[dialect.delimiter]
    return Form(kind, delimiter, encoding, dialect.has_header, dialect.reason, tuple(notes), is_plain)


def _row_numbers(frame: pd.DataFrame) -> str | None:
    if "" not in frame.columns or not len(frame):
        return None
    cells = frame[""].tolist()
    counts = ([str(number) for number in range(start, start + len(cells))] for start in (0, 1))
    return "" if cells in counts else None


def _types(frame: pd.DataFrame) -> dict[str, CellType]:
    """Return what the cells of each column are, empty ones aside."""
    types: dict[str, CellType] = {}
    table = frame.to_numpy(dtype=object)
    for place, name in enumerate(frame.columns):
        cells = {str(cell) for cell in table[:, place]} - {""}
        is_integer = all(cell.strip().lstrip("+-").isdecimal() for cell in cells)
        is_numeric = is_integer or all(map(is_number, cells))
        types[str(name)] = "integer" if is_integer and cells else "number" if is_numeric and cells else "text"
        types[str(name)] = types[str(name)] if cells else "empty"
    return types


def _json(path: Path, part: str | None) -> AnyTable:
    with opened(path) as stream:
        content = _read_up_to(stream, MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise DataError(f"{path}: has more than {MAX_JSON_BYTES:,} bytes, too many for JSON, which is read whole")
    if not content.strip():
        raise DataError(f"{path}: is empty")
    table = read_json_table(content, path, suffix_of(path) in _LINES, part)
    return AnyTable(table.frame, Form(table.kind, reason="JSON names its cells"), table.arrays)


def _parquet(path: Path) -> AnyTable:
    frame, arrays, left_out = read_parquet_table(path)
    notes = (f"left out, as no cells of text: {listed(left_out, 5)}",) if left_out else ()
    form = Form("Parquet", reason="Parquet names its columns", notes=notes, is_plain=not (arrays or left_out))
    return AnyTable(frame, form, arrays)
