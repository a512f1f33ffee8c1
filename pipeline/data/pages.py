"""Items of a mapped file asked of the disk before they are read, many at a time.

A program that touches a page which is not in memory waits for the disk: for one stretch around that page, then for the
next. At random places of a large file no way is slower, and most of each stretch is thrown away.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.host_memory import free_host_bytes

KEPT_SHARE = 0.5
"""Share of the free memory up to which a file is taken to stay there once it was read."""

_PIECE_BYTES = 2**17
"""Of one request: Linux reads no more of it than its own read-ahead, which is this by default."""


class Pages:
    """The pages of an array's items: `ask` has those brought to memory that may not be there, and does not wait.

    Of a file that stays in memory each item is asked for once, of a larger one whenever it is wanted. Arrays that are
    no whole map, and systems without such a call, are left to themselves.

    Args:
        array: (N, ...) items, a whole map for this to be of use.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        base: object = array.base
        is_map = isinstance(array, np.memmap) and isinstance(base, mmap.mmap)
        self._map: Any = base if is_map and hasattr(mmap, "MADV_WILLNEED") else None
        if self._map is None:
            return
        self._begin = array.offset % mmap.ALLOCATIONGRANULARITY  # type: ignore[attr-defined]
        self._item_bytes = array.nbytes // len(array)
        free = free_host_bytes()
        self._asked = np.zeros(len(array), bool) if free is None or array.nbytes < KEPT_SHARE * free else None

    def ask(self, positions: NDArray[np.int64]) -> None:
        """Ask for the items at `positions`, (B,)."""
        if self._map is None:
            return
        positions = np.asarray(positions, np.int64)
        if self._asked is not None:
            positions = positions[~self._asked[positions]]
            self._asked[positions] = True
        if not len(positions):
            return
        # Neighbours are one stretch, such as the rows of a prediction in their order.
        ends = np.flatnonzero(np.diff(positions, append=-1) != 1)
        firsts = positions[np.r_[0, ends[:-1] + 1]]
        starts = self._begin + firsts * self._item_bytes
        stops = self._begin + (positions[ends] + 1) * self._item_bytes
        with suppress(OSError):  # a file system that cannot: they are read when they are wanted
            for start, stop in zip((starts - starts % mmap.PAGESIZE).tolist(), stops.tolist(), strict=True):
                for piece in range(start, stop, _PIECE_BYTES):
                    self._map.madvise(mmap.MADV_WILLNEED, piece, min(_PIECE_BYTES, stop - piece))
