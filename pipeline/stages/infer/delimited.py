"""How a text table is written: its encoding, what stands between its cells, and whether its first row names columns.

All of it is judged by the first rows. A delimiter counts only where every row has as many cells as the first, quoted
cells taken as one, so that commas in texts and spaces between labels are not mistaken for it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE_BYTES, SAMPLE_ROWS = 2**20, 200
"""How much of a file is looked at."""

NO_DELIMITER = "\x1e"
"""Of a single column: a character that no text holds."""

_DELIMITERS = "\t,;|"
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?|nan|inf|-inf", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?")
_FILE_NAME = re.compile(r".*[^.]\.([A-Za-z]{2,4}\d?)")
_KEY = re.compile(r"[0-9a-fA-F-]{8,}")
_MISSING = frozenset({"", "na", "nan", "n/a", "null", "none", "?", "-"})

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Dialect:
    """How a text table is written."""

    encoding: str
    """As Python names it; `utf-8-sig` and `utf-16` take a byte order mark away."""
    delimiter: str
    """One character; a space stands for any number of blanks, `NO_DELIMITER` for a single column."""
    n_columns: int
    """Cells of the longest row that was looked at."""
    has_header: bool
    """Whether the first row names the columns."""
    reason: str
    """Why the first row counts as names or as data."""
    has_row_names: bool = False
    """Whether each row has one cell more than the header: R writes row numbers without a name in front."""


def dialect_of(sample: bytes, is_whole: bool) -> Dialect:
    """Return how a table is written, by its first bytes.

    Args:
        sample: the first bytes of the file, uncompressed; some hundred rows are enough.
        is_whole: whether that is all of it; else its last row counts as cut and is not looked at.
    """
    encoding = encoding_of(sample)
    text = sample.decode(encoding, errors="ignore" if not is_whole else "replace")
    delimiter, rows = _split(text, is_whole)
    width, n_columns = len(rows[0]) if rows else 0, max(map(len, rows), default=0)
    has_row_names = width > 1 and len(rows) > 1 and all(len(row) == width + 1 for row in rows[1:])
    has_row_names = has_row_names and not all(
        row[-1] == "" for row in rows[1:]
    )  # that is a delimiter at each row's end
    has_header, reason = (True, "each row has one cell more than it") if has_row_names else header_of(rows)
    return Dialect(encoding, delimiter, n_columns, has_header, reason, has_row_names)


def encoding_of(sample: bytes) -> str:
    """Return the encoding of text: by its mark, else UTF-16 by its zeros, else UTF-8 if it is, else Latin-1."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return encoding
    if sample.count(0) > len(sample) // 4:
        return "utf-16-le" if sample[1::2].count(0) > sample[::2].count(0) else "utf-16-be"
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return "utf-8" if error.start >= len(sample) - 3 and len(sample) >= SAMPLE_BYTES else "latin-1"
    return "utf-8"


def header_of(rows: Rows) -> tuple[bool, str]:
    """Return whether the first row names the columns, and why; without any sign of it, it does."""
    if not rows:
        return True, "there are no rows"
    first, body = rows[0], rows[1:]
    columns = [[row[place] for row in body if place < len(row)] for place in range(len(first))]
    for name, cells in zip(first, columns, strict=True):
        if (ending := _shared_ending(name, cells)) is not None:
            return False, f"its cell '{name}' is a file name as those below it (.{ending})"
    for name, cells in zip(first, columns, strict=True):
        given = [cell for cell in cells if cell.lower() not in _MISSING]
        if given and name.lower() not in _MISSING and not is_number(name) and all(map(is_number, given)):
            return True, f"its cell '{name}' stands above numbers"
    for name, cells in zip(first, columns, strict=True):
        if _KEY.fullmatch(name) and cells and all(_KEY.fullmatch(cell) and len(cell) == len(name) for cell in cells):
            return False, f"its cell '{name}' is a key as those below it"
        if name.lower() not in _MISSING and not is_number(name) and name in cells:
            return False, f"its cell '{name}' occurs again below it"
    numbers = [name for name in first if is_number(name)]
    if numbers and not _counts_up(numbers):
        return False, f"its cell '{numbers[0]}' is a number"
    return True, "nothing in it looks like the rows below"


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, with a point or a comma before the decimals."""
    return bool(_NUMBER.fullmatch(cell.strip()))


def _split(text: str, is_whole: bool) -> tuple[str, Rows]:
    """Return the delimiter and the rows that it makes."""
    rows_by = {delimiter: _rows(text, delimiter, is_whole) for delimiter in _DELIMITERS}
    fitting = [delimiter for delimiter, rows in rows_by.items() if _is_even(rows)]
    if {",", ";"} <= set(fitting) and _has_decimal_commas(rows_by[";"]):
        fitting.remove(",")
    if not fitting:  # rows that lack cells at their end, or have a row number before the first
        fitting = [delimiter for delimiter, rows in rows_by.items() if _is_nearly_even(rows)]
    if fitting:
        return fitting[0], rows_by[fitting[0]]
    blanks = _rows(text, " ", is_whole)
    if _is_even(blanks):
        return " ", blanks
    return NO_DELIMITER, _rows(text, NO_DELIMITER, is_whole)


def _rows(text: str, delimiter: str, is_whole: bool) -> list[list[str]]:
    """Return the first rows, without empty lines and without the last one where that may be cut."""
    rows: list[list[str]] = []
    before = csv.field_size_limit(SAMPLE_BYTES)
    try:
        if delimiter == " ":
            rows = [line.split() for line in text.splitlines()[: SAMPLE_ROWS + 1]]
        else:
            for row in csv.reader(io.StringIO(text), delimiter=delimiter):
                rows.append(row)
                if len(rows) > SAMPLE_ROWS:
                    break
    except csv.Error:
        return []
    finally:
        csv.field_size_limit(before)
    is_cut = not is_whole or len(rows) > SAMPLE_ROWS
    return [row for row in (rows[:-1] if is_cut and len(rows) > 1 else rows) if row]


def _is_even(rows: Rows) -> bool:
    return bool(rows) and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows)


def _is_nearly_even(rows: Rows) -> bool:
    """Say whether rows have the cells of the first, all of them one more, or some fewer at their end."""
    if len(rows) < 2 or len(rows[0]) < 2:
        return False
    width, others = len(rows[0]), {len(row) for row in rows[1:]}
    return others == {width + 1} or (max(others) <= width and sum(len(row) == width for row in rows) * 2 > len(rows))


def _has_decimal_commas(rows: Rows) -> bool:
    """Say whether each comma in cells stands between digits."""
    cells = [cell for row in rows[1:] or rows for cell in row if "," in cell]
    return bool(cells) and all(_DECIMAL_COMMA.fullmatch(cell) for cell in cells)


def _shared_ending(name: str, cells: Sequence[str]) -> str | None:
    """Return the file ending that a cell has in common with all below it."""
    match = _FILE_NAME.fullmatch(name)
    if match is None or not cells or is_number(name):
        return None
    ending = match[1].lower()
    return ending if all(cell.lower().endswith(f".{ending}") for cell in cells) else None


def _counts_up(numbers: Sequence[str]) -> bool:
    """Say whether the cells are whole numbers one after the other, as the names of pixels or classes may be."""
    if len(numbers) < 2 or not all(cell.isdecimal() for cell in numbers):
        return False
    return [int(cell) for cell in numbers] == list(range(int(numbers[0]), int(numbers[0]) + len(numbers)))
