"""Parquet to text cells, with lists of numbers as arrays apart, and without what is neither."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.base.tables import read_table

if TYPE_CHECKING:
    import pandas as pd


def read_parquet_table(path: Path) -> tuple[pd.DataFrame, dict[str, NDArray[np.float32]], list[str]]:
    """Return text cells, (N, ...) arrays by the names of columns of number lists, and the names of what is left out.

    Left out are bytes, such as pictures inside the table, and records.

    Raises:
        DataError: the file is missing, damaged, or inside of another archive, or lists differ in length.
    """
    import pyarrow as pa
    import pyarrow.parquet

    if path.suffix.lower() != ".parquet":
        raise DataError(f"{path}: Parquet packs itself, and is not read inside of another archive; unpack it")
    try:
        schema = pyarrow.parquet.read_schema(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None
    lists = [column.name for column in schema if _is_number_list(column.type)]
    left_out = [column.name for column in schema if pa.types.is_binary(column.type) or pa.types.is_struct(column.type)]
    frame = read_table(path, is_wanted=lambda name: name not in {*lists, *left_out})
    return frame, {name: _stacked(path, name) for name in lists}, left_out


def _stacked(path: Path, name: str) -> NDArray[np.float32]:
    import pyarrow.parquet

    cells = pyarrow.parquet.read_table(path, columns=[name])[name].to_pylist()
    try:
        return np.asarray(cells, dtype=np.float32)
    except (ValueError, TypeError):
        raise DataError(f"{path}: '{name}' holds lists of numbers of several lengths") from None


def _is_number_list(kind: Any) -> bool:
    import pyarrow as pa

    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            return True
    return False
