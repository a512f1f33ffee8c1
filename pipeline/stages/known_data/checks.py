"""Is a user's copy of a published data set what it should be: names, shapes, types and, where known, SHA-256?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import DataError, nearest
from pipeline.base.files import sha256_file
from pipeline.data.readers import load_array


@dataclass(frozen=True)
class KnownArray:
    """One array as it was published."""

    shape: tuple[int, ...]
    kinds: str = "f"
    """Letters of the numpy kinds that it may have: f floating, i and u whole numbers."""
    key: str | None = None
    """Its name in a file with several arrays."""


@dataclass(frozen=True)
class KnownFile:
    """One file as it was published."""

    name: str
    arrays: tuple[KnownArray, ...]
    sha256: str | None = None
    """Of the bytes of a known good copy; None where nobody has published one."""


def check_copies(
    folder: Path, files: Sequence[KnownFile], published: str, say: Callable[[str], None], any_bytes: bool = False
) -> None:
    """Raise a DataError that names everything wrong with a user's copies; nothing is written.

    Args:
        folder: where the copies lie.
        files: what they should be.
        published: where they can be had, for the message.
        say: gets a line on copies whose bytes nobody could compare, or that differ where that is allowed.
        any_bytes: take files of the right names, shapes and types whose SHA-256 differs, such as those saved anew.

    Raises:
        DataError: the folder or a file is missing, an array has another shape or type, or the bytes differ.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. {published}")
    missing = [file.name for file in files if not (folder / file.name).is_file()]
    if missing:
        present = [path.name for path in folder.iterdir()]
        faults = [f"{folder / name}: missing.{nearest(name, present)}" for name in missing]
        raise DataError("\n  ".join([f"{len(missing)} of {len(files)} files are not there:", *faults, published]))
    if faults := [fault for file in files for fault in _array_faults(folder / file.name, file)]:
        raise DataError("\n  ".join(["these are not the published files:", *faults, published]))
    if changed := [fault for file in files for fault in _byte_faults(folder / file.name, file)]:
        if not any_bytes:
            advice = "Get them again, or, if you saved them anew yourself, take them with --any-bytes."
            raise DataError(
                "\n  ".join(["shapes are right, but the bytes are not:", *changed, f"{advice} {published}"])
            )
        say("\n  ".join(["note: these files have the right shapes and other bytes than the known ones:", *changed]))
    unknown = [file.name for file in files if file.sha256 is None]
    if unknown:
        say(f"note: no checksum is published for {', '.join(unknown)}: names, shapes and types were checked")


def _array_faults(path: Path, file: KnownFile) -> list[str]:
    faults = []
    for known in file.arrays:
        try:
            array = load_array(path, known.key)
        except DataError as error:
            faults.append(str(error))
            continue
        where = f"{path}: {known.key}" if known.key else str(path)
        if array.shape != known.shape:
            faults.append(f"{where}: expected shape {known.shape}, found {array.shape}")
        elif array.dtype.kind not in known.kinds:
            faults.append(f"{where}: expected {_words(known.kinds)}, found {array.dtype}")
    return faults


def _byte_faults(path: Path, file: KnownFile) -> list[str]:
    if file.sha256 is None or (found := sha256_file(path)) == file.sha256:
        return []
    return [f"{path}: expected SHA-256 {file.sha256}, found {found}"]


def _words(kinds: str) -> str:
    names = {"f": "floating numbers", "i": "whole numbers", "u": "whole numbers"}
    return " or ".join(dict.fromkeys(names[kind] for kind in kinds))
