"""Zip, tar and 7z behind one small interface: what an archive says it holds, and its members byte by byte.

Nothing here writes to the disk or decides what is safe; `archives` does.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Protocol

from pipeline.base.errors import DataError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".7z")
"""Of archives, as the end of a file's name in lower case."""

Kind = Literal["file", "folder", "link", "device"]

_CHUNK = 2**20


@dataclass(frozen=True)
class Entry:
    """One member as the archive's own tables describe it; none of it is to be trusted."""

    name: str
    size: int
    """Bytes when unpacked."""
    kind: Kind = "file"
    is_encrypted: bool = False


class Sink(Protocol):
    """Takes the content of one member."""

    def write(self, data: bytes) -> object:
        """Take the next bytes."""

    def close(self) -> None:
        """Take note that the member is whole."""


Take = Callable[[str], Sink]
"""From the name of a member, as the archive spells it, to what takes its content."""


class Archive(Protocol):
    """An archive that can be listed and copied out."""

    def entries(self) -> Iterator[Entry]:
        """Yield what the archive says it holds, without unpacking."""

    def copy(self, wanted: set[str], take: Take) -> None:
        """Give the content of each wanted file to its sink, in the archive's order."""


def archive_at(path: Path) -> Archive:
    """Return the archive of a file, by its suffix.

    Raises:
        DataError: the suffix is none of `SUFFIXES`.
    """
    name = path.name.lower()
    if name.endswith(".zip"):
        return _Zip(path)
    if name.endswith(".7z"):
        return _SevenZip(path)
    if name.endswith(SUFFIXES):
        return _Tar(path)
    raise DataError(f"{path}: is no archive that is known; these are: {', '.join(SUFFIXES)}")


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Raise a DataError that names the archive, where its content cannot be read inside the block."""
    try:
        yield
    except DataError:
        raise
    except NotImplementedError as error:  # of zipfile: a method such as Deflate64
        raise DataError(f"{path}: is compressed in a way that is not read here ({error}); unpack it yourself") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, struct.error) as error:
        raise DataError(f"{path}: {_damage(error)}") from None
    except (EOFError, UnicodeError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: {_damage(error)}") from None
    except OSError as error:
        if error.errno is None:  # bz2 says so of bad data
            raise DataError(f"{path}: {_damage(error)}") from None
        raise DataError(f"{path}: cannot be unpacked ({error.strerror}: {error.filename or path})") from None


def _damage(error: Exception) -> str:
    return f"is damaged or not whole ({error or type(error).__name__}); fetch it again"


class _Zip:
    """A `.zip` file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> Iterator[Entry]:
        with damage_named(self._path), zipfile.ZipFile(self._path) as file:
            infos = file.infolist()
        for info in infos:
            mode = info.external_attr >> 16
            kind: Kind = "folder" if info.is_dir() else "link" if stat.S_ISLNK(mode) else "file"
            kind = "device" if stat.S_IFMT(mode) in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO) else kind
            yield Entry(info.filename, info.file_size, kind, bool(info.flag_bits & 1))

    def copy(self, wanted: set[str], take: Take) -> None:
        with damage_named(self._path), zipfile.ZipFile(self._path) as file:
            for info in file.infolist():
                if info.filename in wanted:
                    with file.open(info) as content:
                        _pour(content, take(info.filename))


class _Tar:
    """A `.tar` file, plain or compressed as a whole; read from front to back, as it may be a stream."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> Iterator[Entry]:
        with damage_named(self._path), self._open() as file:
            for info in file:
                is_link = info.issym() or info.islnk()
                kind: Kind = "folder" if info.isdir() else "link" if is_link else "file" if info.isreg() else "device"
                yield Entry(info.name, info.size, kind)

    def copy(self, wanted: set[str], take: Take) -> None:
        with damage_named(self._path), self._open() as file:
            for info in file:
                content = file.extractfile(info) if info.isreg() and info.name in wanted else None
                if content is not None:
                    _pour(content, take(info.name))

    @contextmanager
    def _open(self) -> Iterator[tarfile.TarFile]:
        with _decompressed(self._path) as stream, tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as file:
            yield file


@contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    """Yield the bytes of a tar file, decompressed; a file that ends too early raises, where `r|gz` would not."""
    gz, bz, xz = gzip.open, bz2.open, lzma.open
    openers: dict[str, Callable[..., Any]] = {".gz": gz, ".tgz": gz, ".bz2": bz, ".tbz2": bz, ".xz": xz, ".txz": xz}
    opener = openers.get(path.suffix.lower(), Path.open)
    with opener(path, "rb") as stream:
        yield stream
        while stream.read(_CHUNK):  # what lies behind the last member, and the checksum of the whole
            pass


class _SevenZip:
    """A `.7z` file, by py7zr."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> Iterator[Entry]:
        with self._open() as file:
            is_encrypted = bool(file.needs_password())
            infos = file.list()
        for info in infos:
            kind: Kind = "folder" if info.is_directory else "link" if info.is_symlink else "file"
            kind = kind if kind != "file" or info.is_file else "device"
            yield Entry(info.filename, int(info.uncompressed), kind, is_encrypted)

    def copy(self, wanted: set[str], take: Take) -> None:
        import py7zr.io

        names = {PurePosixPath(name).as_posix(): name for name in wanted}

        class Member(py7zr.io.Py7zIO):
            """The sink of one member, as py7zr wants it."""

            def __init__(self, name: str) -> None:
                self._sink = take(names[PurePosixPath(name).as_posix()])

            def write(self, s: bytes | bytearray) -> int:
                self._sink.write(bytes(s))
                return len(s)

            def close(self) -> None:
                self._sink.close()

            def read(self, size: int | None = None) -> bytes:
                return b""

            def seek(self, offset: int, whence: int = 0) -> int:
                return 0

            def seekable(self) -> bool:
                return False

            def flush(self) -> None:
                pass

            def size(self) -> int:
                return 0

        class Members(py7zr.io.WriterFactory):
            """Makes the sink of each member."""

            def create(self, filename: str) -> py7zr.io.Py7zIO:
                return Member(filename)

        with self._open() as file:
            file.extract(targets=wanted, factory=Members())

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            import py7zr
        except ImportError:
            raise DataError(
                f"{self._path}: 7z archives need py7zr, which is not installed; run pip install 'podium[archives]',"
                " or unpack it yourself"
            ) from None
        with damage_named(self._path):
            try:
                with (
                    self._path.open("rb") as stream,
                    py7zr.SevenZipFile(stream) as file,
                ):  # one thread, as it is a stream
                    yield file
            except py7zr.exceptions.PasswordRequired:
                raise DataError(f"{self._path}: is encrypted; unpack it yourself with its password") from None
            except py7zr.exceptions.ArchiveError as error:
                raise DataError(f"{self._path}: {_damage(error)}") from None


def _pour(content: IO[bytes], sink: Sink) -> None:
    """Copy a stream into a sink."""
    while chunk := content.read(_CHUNK):
        sink.write(chunk)
    sink.close()
