"""Arrays in `.npz` files that are mapped where they lie, so that one of 20 GB is never loaded."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL_BYTES = 2**24
"""Arrays of less are loaded, which checks them against the checksum of the archive."""

_LOCAL_HEADER = 30
"""Bytes before the name of a member; the last four are the lengths of the name and of the extra field."""


def mapped_member(path: Path, name: str) -> NDArray[Any] | None:
    """Return the array `name` of a `.npz` file, mapped read-only; None for one that is small, compressed or not plain.

    Args:
        path: as `np.savez` writes it: a zip archive of `.npy` files.
        name: of an array in it.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: the file is no such archive, or ends before its array does.
    """
    with zipfile.ZipFile(path) as archive:
        names = [member for member in (f"{name}.npy", name) if member in archive.namelist()]
        info = archive.getinfo(names[0]) if names else None
    if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size < SMALL_BYTES:
        return None
    with path.open("rb") as file:
        file.seek(info.header_offset)
        # Of the local header: its extra field may have another length than the one in the archive's directory.
        n_name, n_extra = struct.unpack("<HH", file.read(_LOCAL_HEADER)[-4:])
        file.seek(n_name + n_extra, 1)
        major, _ = np.lib.format.read_magic(file)
        if major not in (1, 2):
            return None
        read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
        offset = file.tell()
    if dtype.hasobject:
        return None
    return np.memmap(path, dtype, "r", offset, shape, "F" if is_fortran else "C")
