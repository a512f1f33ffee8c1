"""One table of numbers, an item by itself: CSV, TSV, blanks between the cells, or Parquet, as (rows, columns)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError, listed, nearest

if TYPE_CHECKING:
    import pandas as pd


def read_number_table(path: Path, columns: Sequence[str] = ()) -> NDArray[np.float32]:
    """Return the cells of a table as numbers, (rows, columns) float32; an empty cell is NaN.

    A first row that holds a word names the columns; an unnamed first column, which pandas writes to count the rows, is
    left out.

    Args:
        path: `.parquet`, or text with comma, semicolon, tab or blanks between the cells.
        columns: which to take, in this order; all when left out.

    Raises:
        DataError: the file is missing, empty or ragged, a column is not there or has no name, or holds other than
            numbers.
    """
    table = _parquet(path) if path.suffix.lower() == ".parquet" else _text(path)
    if columns:
        missing = [name for name in columns if name not in table.columns]
        if missing:
            near = nearest(missing[0], map(str, table.columns))
            raise DataError(f"{path}: has no column {listed(missing, 5)}.{near} It has: {listed(table.columns, 12)}")
        table = table[list(columns)]
    if not table.size:
        raise DataError(f"{path}: holds no numbers")
    texts = [str(name) for name, dtype in table.dtypes.items() if dtype.kind not in "buif"]
    if texts:
        raise DataError(
            f"{path}: holds other than numbers in {listed(texts, 5)}; name the columns that are channels in channels:"
        )
    return table.to_numpy(dtype=np.float32, na_value=np.nan)


def _text(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline()
        if not first.strip():
            raise DataError(f"{path}: is empty, or begins with an empty line")
        delimiter = next((mark for mark in ",;\t" if mark in first), None)
        cells = first.split(delimiter)
        options: dict[str, Any] = {"sep": delimiter or r"\s+", "encoding": "utf-8-sig", "skipinitialspace": True}
        table = pd.read_csv(path, header=0 if _names_columns(cells) else None, **options)
    except FileNotFoundError:
        raise DataError(f"{path}: missing") from None
    except (OSError, ValueError) as error:  # pandas' own and those of encodings are ValueErrors
        raise DataError(f"{path}: cannot be read as a table of numbers ({str(error).strip()})") from None
    names = [name for name in table.columns if name != "Unnamed: 0"]
    return pd.DataFrame(table[names])


def _names_columns(cells: Sequence[str]) -> bool:
    number = re.compile(r"\s*\"?([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|inf|-inf)?\"?\s*", re.IGNORECASE)
    return not all(number.fullmatch(cell) for cell in cells)


def _parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        table: pd.DataFrame = pd.read_parquet(path)
        return table
    except FileNotFoundError:
        raise DataError(f"{path}: missing") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from None
