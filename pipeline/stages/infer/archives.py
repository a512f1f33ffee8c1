"""Archives unpacked safely: nothing leaves the target folder, nothing half-unpacked counts, nothing fills the disk.

What lies in the archive is said before it is unpacked. Sizes that an archive states are checked against the disk and
then not trusted: bytes are counted while they are written. Tables (`.csv.zip`, `.csv.gz`, ...) are no archives here,
as `tables` reads them as they are.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock

from pipeline.base.errors import DataError, listed
from pipeline.base.files import read_json, write_json
from pipeline.base.progress import DisplayKind, count_progress
from pipeline.stages.infer.archive_formats import SUFFIXES, Entry, Kind, Sink, archive_at, damage_named

Say = Callable[[str], None]

TABLE_ENDS = (".csv.zip", ".tsv.zip", ".txt.zip", ".json.zip", ".jsonl.zip", ".ndjson.zip")
MAX_BYTES, MAX_MEMBERS = 2**40, 20_000_000
"""Of one archive: a terabyte, and more files than any competition has."""
MAX_RATIO, ALWAYS_FINE_BYTES = 200, 2**30
"""Unpacked over packed size, from a gigabyte on: pictures have 1 to 3, tables 5 to 20, bombs 1,000 and more."""

_JUNK_FOLDERS, _JUNK_FILES = frozenset({"__MACOSX"}), frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_BIG_BYTES = 200_000_000  # from here on progress is shown
_TEMP = ".unpacking-"


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    name: str
    """Its path, with `/`, below the folder that `unpack` makes."""
    size: int
    """In bytes, as the archive states it."""


@dataclass(frozen=True)
class _Content:
    """What is to be unpacked: the name of each file in the archive, and where it goes."""

    members: tuple[Member, ...]
    entries: tuple[Entry, ...]
    """As the archive names them, in the order of `members`."""

    @property
    def n_bytes(self) -> int:
        return sum(member.size for member in self.members)


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive by its name; packed tables such as `train.csv.zip` are not."""
    name = path.name.lower()
    return name.endswith(SUFFIXES) and not name.endswith(TABLE_ENDS)


def archive_stem(path: Path) -> str:
    """Return the name of an archive without what makes it one: `train` of `train.tar.gz`."""
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def members(archive: Path) -> tuple[Member, ...]:
    """Return the files of an archive as `unpack` would lay them out, without unpacking; junk left out.

    Compressed tar files are read through for it.

    Raises:
        DataError: as `unpack`, but for the disk.
    """
    return _content(archive).members


def unpack(archive: Path, into: Path, say: Say, show: DisplayKind = "auto") -> Path:
    """Return the folder `into/<name of the archive>` with everything that the archive holds, unpacked when needed.

    Where all members lie below one folder with the archive's own name, that folder is not made twice. Archives inside
    are unpacked too, each to a folder beside where it lay, but none inside of those. What an earlier call has unpacked
    is taken as it is while the archive keeps its size and time of change. Junk of operating systems is left out.

    Args:
        archive: a file for which `is_archive` holds; left as it is.
        into: a folder of our own; made when missing.
        say: gets a line with the number and size of the files before they are unpacked.
        show: how progress is shown, for big archives.

    Raises:
        DataError: the archive is damaged, encrypted, or not of a known format; a member is a link or a device, or would
            leave the folder; the content does not fit on the disk, or is far larger than the archive makes likely; or
            py7zr is missing for a `.7z` file.
    """
    into.mkdir(parents=True, exist_ok=True)
    folder = into / archive_stem(archive)
    marker = into / f"{folder.name}.unpacked.json"
    with FileLock(into / f".{folder.name}.lock"):
        stamp = _stamp(archive)
        if folder.is_dir() and _marked(marker) == stamp:
            return folder
        for leftover in into.glob(f"{folder.name}{_TEMP}*"):
            shutil.rmtree(leftover)
        temp = into / f"{folder.name}{_TEMP}{os.getpid()}"
        try:
            _unpack_to(archive, temp, say, show)
            _unpack_inner(archive, temp, say, show)
            marker.unlink(missing_ok=True)
            if folder.exists():
                shutil.rmtree(folder)
            temp.rename(folder)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
        write_json(marker, stamp)
    return folder


def _unpack_to(archive: Path, folder: Path, say: Say, show: DisplayKind) -> None:
    """Unpack one archive to a folder that is not there yet."""
    content = _content(archive)
    if not content.members:
        raise DataError(f"{archive}: holds no files")
    free = shutil.disk_usage(folder.parent).free
    size = _size(content.n_bytes)
    if content.n_bytes > free:
        raise DataError(f"{archive}: unpacks to {size}, and {_size(free)} are free in {folder.parent}; free some")
    say(f"unpacking {archive.name}: {len(content.members):,} files, {size}")
    is_big = content.n_bytes > _BIG_BYTES
    targets = {entry.name: member for entry, member in zip(content.entries, content.members, strict=True)}
    with (
        count_progress(f"unpacking {archive.name}", show if is_big else "quiet") as progress,
        closing(_Writer(archive, folder, targets, content.n_bytes, progress)) as writer,
        damage_named(archive),
    ):
        archive_at(archive).copy(set(targets), writer.take)
    if missing := sorted(set(targets) - writer.taken):
        raise DataError(f"{archive}: is damaged; it lists files that it does not hold: {listed(missing, 5)}")


def _unpack_inner(outer: Path, folder: Path, say: Say, show: DisplayKind) -> None:
    """Replace each archive below a folder by what it holds; those inside of them stay as they are."""
    for path in [path for path in sorted(folder.rglob("*")) if path.is_file() and is_archive(path)]:
        target = path.with_name(archive_stem(path))
        if target.exists():  # the host gives both, and they may differ
            say(f"{outer.name}: holds {path.name} beside a folder of that name; only the folder is used")
            continue
        _unpack_to(path, target, say, show)
        path.unlink()


def _content(archive: Path) -> _Content:
    """Return the files to unpack, every name checked, or raise a DataError that names what is refused."""
    packed = _stamp(archive)["size"]
    kept: dict[PurePosixPath, Entry] = {}
    n_bytes = n_entries = 0
    for entry in archive_at(archive).entries():
        n_entries, n_bytes = n_entries + 1, n_bytes + entry.size
        _refuse_bomb(archive, packed, n_bytes, n_entries)
        _refuse_entry(archive, entry)
        place = _place(archive, entry.name)
        if entry.kind == "file" and not _is_junk(place):
            if place in kept:
                raise DataError(f"{archive}: holds '{entry.name}' twice; unpack it yourself and keep the right one")
            kept[place] = entry
    doubled = _doubled_folder(archive, kept)
    found = [Member(str(place.relative_to(doubled)), entry.size) for place, entry in kept.items()]
    return _Content(tuple(found), tuple(kept.values()))


def _refuse_bomb(archive: Path, packed: int, n_bytes: int, n_entries: int) -> None:
    if n_bytes > MAX_BYTES or n_entries > MAX_MEMBERS:
        what = f"{n_entries:,} members" if n_entries > MAX_MEMBERS else f"more than {_size(MAX_BYTES)}"
        raise DataError(f"{archive}: holds {what}, which no competition has; it is not unpacked")
    if n_bytes > ALWAYS_FINE_BYTES and n_bytes > MAX_RATIO * packed:
        raise DataError(
            f"{archive}: {_size(packed)} would become more than {_size(n_bytes)}, over {MAX_RATIO} times as much, as"
            " bombs do; it is not unpacked. If you trust it, unpack it yourself and name the folder instead"
        )


_REFUSED: dict[Kind, str] = {"link": "a link", "device": "a device or a pipe"}


def _refuse_entry(archive: Path, entry: Entry) -> None:
    if entry.is_encrypted:
        raise DataError(f"{archive}: '{entry.name}' is encrypted; unpack it yourself with its password")
    if entry.kind in _REFUSED:
        advice = "if you trust it, unpack it yourself and name the folder instead"
        raise DataError(f"{archive}: '{entry.name}' is {_REFUSED[entry.kind]}, which is not unpacked; {advice}")


def _place(archive: Path, name: str) -> PurePosixPath:
    """Return the path of a member below the target; a DataError for one that would lead out of it."""
    path = name.replace("\\", "/")  # what Windows wrote; on other systems such names are as good as never meant
    parts = path.split("/")
    if path.startswith("/") or re.match("[A-Za-z]:", path) or ".." in parts or "\0" in path:
        raise DataError(f"{archive}: '{name}' would lie outside of the folder it is unpacked to; it is not unpacked")
    return PurePosixPath(*(part for part in parts if part not in ("", ".")))


def _is_junk(place: PurePosixPath) -> bool:
    return bool(_JUNK_FOLDERS & set(place.parts)) or place.name in _JUNK_FILES or place.name.startswith("._")


def _doubled_folder(archive: Path, places: Iterable[PurePosixPath]) -> PurePosixPath:
    """Return the folder of the archive's own name that holds all members; `.` where there is none."""
    stem = archive_stem(archive)
    is_doubled = all(len(place.parts) > 1 and place.parts[0].lower() == stem.lower() for place in places)
    first = next(iter(places), None)
    return PurePosixPath(first.parts[0]) if is_doubled and first is not None else PurePosixPath()


class _Writer:
    """Writes members to the disk and stops at the bytes that were announced."""

    def __init__(
        self,
        archive: Path,
        folder: Path,
        targets: dict[str, Member],
        n_bytes: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self._archive, self._folder, self._targets = archive, folder, targets
        self._n_bytes, self._progress = n_bytes, progress
        self._written = 0
        self._file: IO[bytes] | None = None
        self.taken: set[str] = set()

    def take(self, name: str) -> Sink:
        """Open the file of a member; the writer itself is the sink, as one is written at a time."""
        self.close()
        path = self._folder / self._targets[name].name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("xb")
        self.taken.add(name)
        return self

    def write(self, data: bytes) -> None:
        """Write the next bytes of the member that was taken last."""
        self._written += len(data)
        if self._written > self._n_bytes:
            raise DataError(f"{self._archive}: holds more than it states ({_size(self._n_bytes)}); it is not unpacked")
        if self._file is not None:
            self._file.write(data)
        self._progress(self._written, self._n_bytes)

    def close(self) -> None:
        """Close the file of the member that was taken last."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _stamp(archive: Path) -> dict[str, int]:
    """Return size and time of change, by which a changed archive is known."""
    try:
        stat = archive.stat()
    except OSError as error:
        raise DataError(f"{archive}: cannot be opened ({error.strerror})") from None
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _marked(marker: Path) -> object:
    """Return the stamp of what was unpacked; None where nothing was, or the marker is damaged."""
    try:
        return read_json(marker)
    except (OSError, ValueError):
        return None


def _size(n_bytes: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{max(1, round(n_bytes / 1e3)):,} kB"
