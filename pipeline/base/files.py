"""Files that are either whole or absent: atomic writes, checksums, JSON.

Every write goes to a temporary file in the same folder, is flushed to the disk, renamed over the target, and the
folder is flushed too, so that a crash at any moment leaves the old file or the new one and never a part.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.base.errors import DataError

TEMP_MARK = ".part-"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it becomes `path`, on an error it is removed.

    Whatever is written to the yielded path is flushed to the disk before the rename. Errors of the disk (full, no
    permission) are raised, never swallowed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: several libraries choose the format by it.
    temp = path.with_name(f"{path.stem}{TEMP_MARK}{os.getpid()}{path.suffix}")
    try:
        yield temp
        _flush(temp)
        temp.replace(path)
        _flush(path.parent)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temp:
        temp.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8 with the line ends it has."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` atomically as indented JSON; NaN is an error, as JSON has none."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, default=_plain) + "\n")


class DamagedJsonError(DataError, ValueError):
    """A file holds no JSON; a ValueError too, for readers that know a way out."""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or raise a DamagedJsonError that names it."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:  # also of bytes that are no UTF-8
        raise DamagedJsonError(f"{path}: is damaged, or no JSON: {error}") from None


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(content: Any) -> str:
    """Return the SHA-256 of `content` as canonical JSON (sorted keys, no spaces), as hex."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in `folder`; call it only while holding its lock."""
    for leftover in folder.glob(f"*{TEMP_MARK}*"):
        leftover.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    """Turn numpy scalars and paths into what JSON knows."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
