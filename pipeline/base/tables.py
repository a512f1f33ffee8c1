"""Tables as text: CSV (also zipped or gzipped) and Parquet, with every cell as it stands in the file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.errors import DataError, listed, nearest

if TYPE_CHECKING:
    import pandas as pd


def read_table(path: Path, is_wanted: Callable[[str], bool] | None = None) -> pd.DataFrame:
    """Return a table with text cells: `007`, `NA` and `1e5` stay themselves, an empty cell is an empty string.

    Args:
        path: `.parquet`, else CSV in UTF-8, with or without the mark that Excel leaves at its start; compressed where
            the suffix says so (`.zip`, `.gz`, ...).
        is_wanted: which columns to read; all when left out. Thousands of pixel columns as text would fill the memory.

    Raises:
        DataError: the file is missing, empty, ragged or not UTF-8, or its header names a column twice.
    """
    header = read_header(path)
    chosen = [place for place, name in enumerate(header) if is_wanted is None or is_wanted(name)]
    if path.suffix.lower() == ".parquet":
        return _parquet_text(path, [header[place] for place in chosen])
    # The header is read as a row: pandas would rename what it finds odd in it. Without any column there are no rows to
    # count, so one is read and dropped.
    cells = _read_csv(path, usecols=None if len(chosen) == len(header) else chosen or [0])
    rows = cells.iloc[1:].reset_index(drop=True)
    if not chosen:
        return rows.drop(columns=rows.columns)
    return rows.set_axis([header[place] for place in chosen], axis=1)


def read_header(path: Path) -> list[str]:
    """Return the names of a table's columns in order; raises like `read_table`."""
    if not path.is_file():
        near = nearest(path.name, [other.name for other in path.parent.glob("*")]) if path.parent.is_dir() else ""
        raise DataError(f"{path}: no such file.{near}")
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        try:
            names = [str(name) for name in pyarrow.parquet.read_schema(path).names]
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as Parquet: {error}") from None
    else:
        names = [str(name) for name in _read_csv(path, nrows=1).iloc[0]]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DataError(f"{path}: the header names a column twice: {listed(doubled, 5)}")
    return names


def _read_csv(path: Path, usecols: Sequence[int] | None = None, nrows: int | None = None) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(
            path,
            header=None,
            usecols=None if usecols is None else list(usecols),
            nrows=nrows,
            dtype=str,
            keep_default_na=False,
            na_filter=False,
            encoding="utf-8-sig",
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not in UTF-8 ({error.reason} at byte {error.start}); save it so") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # pandas' own are ValueErrors
        raise DataError(f"{path}: cannot be read as CSV: {str(error).strip()}") from None


def _parquet_text(path: Path, names: list[str]) -> pd.DataFrame:
    """Return columns of a Parquet file as text; what the file has as missing becomes an empty string."""
    import pandas as pd
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, columns=names)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None
    # Through pyarrow, as pandas would make 1.0 of 1 in a column with a missing cell.
    texts: dict[str, list[Any]] = {name: [_text(cell) for cell in table[name].to_pylist()] for name in names}
    return pd.DataFrame(texts, index=pd.RangeIndex(table.num_rows), dtype=str)


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)
