"""The items of a set, made by threads and written to one file, each at its place: the longest part of building a store.

A thread writes what it has made itself, and takes its checksum: copying pages to the system and reading them again
takes as long as decoding, and would come after it.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.data.alike import Kinds
from pipeline.data.channel_faults import ChannelTally, SilentChannels

Array = NDArray[Any]
Formed = tuple[Array, SilentChannels]
"""An item as it is stored, and which of its channels say nothing."""
Kind = tuple[tuple[int, ...], np.dtype[Any]]
R = TypeVar("R")

_BUFFERS = 512  # of one call; systems take 1,024


@dataclass
class Tally:
    """What was met on the way through items."""

    faults: dict[int, str] = field(default_factory=dict)
    """Message per item that could not be read."""
    kinds: Kinds = field(default_factory=dict)
    """First item of each (shape, type)."""
    n_nonfinite: int = 0
    silent: ChannelTally = field(default_factory=ChannelTally)
    """Channels of signals that say nothing, as they lie in their files."""
    checksum: str = ""
    """Of the file, as `checksum_of` its items; of no use where one could not be stored."""
    last: Kind | None = None
    """Shape and type of the item before."""

    def add(self, item: Array, index: int, silent: SilentChannels) -> None:
        """Take note of one item."""
        self.silent.add(silent)
        if self.last != (item.shape, item.dtype):
            self.last = (item.shape, item.dtype)
            self.kinds.setdefault((item.shape, item.dtype.name), index)
        if item.dtype.kind == "f":
            self.n_nonfinite += int(item.size - np.isfinite(item).sum())


def write_items(
    read: Callable[[int], Formed],
    n: int,
    path: Path,
    kind: Kind | None,
    block: int,
    workers: int,
    progress: Callable[[int, int], None],
) -> Tally:
    """Write items 0 to n - 1 to one new file in their order, and return what was met.

    The file is written, not mapped: on a full disk a write raises, where a mapped page kills the process.

    Args:
        read: gives an item, or raises a DataError, which is noted; then the file is not whole.
        n: items.
        path: the file.
        kind: shape and type that items are expected to have; those of another kind are noted and not written. None
            writes nothing, for a set of which no item could be read.
        block: items that a thread makes at a time.
        workers: threads.
        progress: gets (items done, items in all).

    Raises:
        OSError: the disk is full or fails.
    """
    tally = Tally()
    with path.open("wb", buffering=0) as file:
        places = _Places(file, kind, n)

        def make(indices: range) -> list[Formed | DataError]:
            made = [_or_error(read, index) for index in indices]
            places.write(indices.start, made)
            return made

        for indices, results in _in_order(make, n, block, workers):
            for index, result in zip(indices, results, strict=True):
                if isinstance(result, DataError):
                    tally.faults[index] = str(result)
                    continue
                item, silent = result
                tally.add(item, index, silent)
            progress(indices.stop, n)
    tally.checksum = _digest(places.checksums)
    return tally


def checksum_of(items: Array) -> str:
    """Return 64 hex digits that change when a value does: the SHA-256 of the CRC-32 of every item, in their order.

    CRC-32 alone takes a third of the time that SHA-256 would, and threads can take those of many items at once. It is
    against disks that fail and programs that write where they should not, and none against forgery.
    """
    return _digest([zlib.crc32(item.data) for item in np.asarray(items).reshape(len(items), -1)])


def _digest(checksums: Sequence[int] | NDArray[np.uint32]) -> str:
    return hashlib.sha256(np.asarray(checksums, "<u4").tobytes()).hexdigest()


class _Places:
    """Writes items of one kind to their places in a file, from several threads, and takes their checksums."""

    def __init__(self, file: io.FileIO, kind: Kind | None, n: int) -> None:
        self.checksums = np.zeros(n, np.uint32)
        self._file = file
        self._kind = kind
        self._item_bytes = 0 if kind is None else math.prod(kind[0]) * kind[1].itemsize
        self._lock = threading.Lock()

    def write(self, first: int, made: Sequence[Formed | DataError]) -> None:
        """Write consecutive items, the first of them number `first`, unless one is a fault or of another kind."""
        items = [result[0] for result in made if not isinstance(result, DataError)]
        if len(items) < len(made) or any((item.shape, item.dtype) != self._kind for item in items):
            return
        for start in range(0, len(items), _BUFFERS):
            buffers = [np.ascontiguousarray(item).data for item in items[start : start + _BUFFERS]]
            self._write(buffers, (first + start) * self._item_bytes)
            self.checksums[first + start : first + start + len(buffers)] = [zlib.crc32(buffer) for buffer in buffers]

    def _write(self, buffers: Sequence[memoryview], offset: int) -> None:
        written = 0
        if hasattr(os, "pwritev"):
            written = os.pwritev(self._file.fileno(), buffers, offset)
            if written == len(buffers) * self._item_bytes:
                return
        # Without such a call, or cut short by a disk that is nearly full, which the next write tells.
        rest = memoryview(b"".join(buffers))[written:]
        with self._lock:
            self._file.seek(offset + written)
            while len(rest):
                rest = rest[self._file.write(rest) :]


def _or_error(read: Callable[[int], Formed], index: int) -> Formed | DataError:
    try:
        return read(index)
    except DataError as error:
        return error


def _in_order(work: Callable[[range], R], n: int, block: int, workers: int) -> Iterator[tuple[range, R]]:
    """Yield each block of 0..n-1 with the result of its work, in order; threads run a few blocks ahead."""
    blocks = [range(start, min(start + block, n)) for start in range(0, n, block)]
    if workers == 1:
        yield from ((indices, work(indices)) for indices in blocks)
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[range, Future[R]]] = deque()
        for indices in blocks:
            ahead.append((indices, pool.submit(work, indices)))
            if len(ahead) > 2 * workers:
                done, future = ahead.popleft()
                yield done, future.result()
        for done, future in ahead:
            yield done, future.result()
