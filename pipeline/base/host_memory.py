"""How much memory of the host a process may still take: what the system has free, or its container has left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def free_host_bytes() -> int | None:
    """Return the memory that could still be taken, cached files counted as free; None where the system does not say.

    A container or a job of a cluster sees all memory of its host, of which control groups leave it a part.
    """
    known = [line_of(PROC / "meminfo", "MemAvailable"), *_left_in_groups()]
    return min((each for each in known if each is not None), default=None)


def line_of(path: Path, name: str) -> int | None:
    """Return a line such as `VmRSS:  1234 kB` of a file of /proc, in bytes; None without it."""
    if not path.exists():
        return None
    lines = [line.split() for line in path.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(lines[0][1]) * 1024 if lines else None


def _left_in_groups() -> Iterator[int]:
    """Yield what each group that this process is in has left, from its own up to the root, as far as they say."""
    with suppress(OSError):
        for line in (PROC / "self/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers == "":
                root, limit, used = GROUPS, "memory.max", "memory.current"
            elif "memory" in controllers.split(","):
                root, limit, used = GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            else:
                continue
            folder = root / place.lstrip("/")
            for group in (folder, *folder.parents):
                with suppress(OSError, ValueError):  # a group of the host, seen from inside, or the limit `max`
                    left = int((group / limit).read_text()) - int((group / used).read_text())
                    yield max(0, left + _cached(group))
                if group == root:
                    break


def _cached(group: Path) -> int:
    """Return the bytes of files that a group holds in memory and the system takes back at will."""
    words = dict(line.split(" ", 1) for line in (group / "memory.stat").read_text().splitlines())
    names = ("total_inactive_file", "total_active_file") if "total_cache" in words else ("inactive_file", "active_file")
    return sum(int(words.get(name, 0)) for name in names)
