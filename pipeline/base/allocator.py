"""The memory of a CPU training stays with the process, instead of going back to the system after every step.

By default glibc takes each block above some size fresh from the kernel and returns it when it is freed. A training step
frees and takes the same hundreds of megabytes again and again, and each time the kernel clears every page: a third of a
step of a small net, measured by `benchmarks/step.py`. Kept memory is used again as it is; what is held at once stays
the same, and up to 1 GB of it is not given back between steps.

Only the command calls this; importing the package changes nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import MutableMapping

SWITCH = "PODIUM_MALLOC"
"""An environment variable: `off` leaves the allocator as it is."""

_KEPT_BYTES = (2**30, 2**25)  # 32 MB is the most that an older glibc takes
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_INHERITED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")  # glibc reads them when a process starts


def keep_freed_memory(environment: MutableMapping[str, str] = os.environ) -> int:
    """Have this process, and those that it starts, keep what they free; return up to which size of block, in bytes.

    Returns 0, and changes nothing, outside of glibc, where `PODIUM_MALLOC=off`, and where the user has set one of
    glibc's own variables for it.
    """
    libc = _glibc()
    has_wishes = "glibc.malloc" in environment.get("GLIBC_TUNABLES", "") or any(n in environment for n in _INHERITED)
    if libc is None or has_wishes or environment.get(SWITCH, "").lower() in ("off", "0", "false", "no"):
        return 0
    kept = next((size for size in _KEPT_BYTES if libc.mallopt(_MMAP_THRESHOLD, size)), 0)
    if kept:
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES[0])
        environment.update(dict(zip(_INHERITED, (str(_KEPT_BYTES[0]), str(kept)), strict=True)))
    return kept


def _glibc() -> ctypes.CDLL | None:
    """Return the C library of this process if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
