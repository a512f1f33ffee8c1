"""A process of its own, timed from its start: its lines with their times, and the memory of its whole tree."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SEC = 0.2
PROC = Path("/proc")


@dataclass
class Memory:
    """The largest sums over all processes of a tree, in bytes; 0 where the system does not tell."""

    resident: int = 0
    """Resident pages; those that several processes share count once for each of them."""
    anonymous: int = 0
    """Pages that are no part of any file, each counted once."""

    def take(self, session: int) -> None:
        """Look at the processes of a session and keep what is larger than before."""
        found = [memory_of(pid) for pid in pids_of(session)]
        self.resident = max(self.resident, sum(resident for resident, _ in found))
        self.anonymous = max(self.anonymous, sum(anonymous for _, anonymous in found))


@dataclass(frozen=True)
class Watched:
    """What became of a process."""

    lines: list[tuple[float, str]] = field(default_factory=list)
    """Seconds from the start of the process, and the line it then wrote, to stdout or stderr."""
    end_sec: float = 0.0
    exit_code: int = 0
    memory: Memory = field(default_factory=Memory)


def watch(command: Sequence[str], cores: Sequence[int], folder: Path, environment: Mapping[str, str]) -> Watched:
    """Run a command on some cores, in a folder and with further environment variables, and return what became of it.

    A stop from outside, such as Ctrl-C, ends the whole tree of processes.
    """
    memory, is_over = Memory(), threading.Event()
    lines: list[tuple[float, str]] = []
    started = time.perf_counter()
    with on_cores(cores):
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def sample() -> None:
        while not is_over.wait(SAMPLE_SEC):
            memory.take(process.pid)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        for line in process.stdout or ():
            lines.append((time.perf_counter() - started, line.rstrip("\n")))
        code = process.wait()
        return Watched(lines, time.perf_counter() - started, code, memory)
    finally:
        is_over.set()
        sampler.join()
        with process:  # closes its pipe, and waits
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Let processes that start inside the block run on these cores only, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pids_of(session: int) -> list[int]:
    """Return the processes of a session; its leader started all of them."""
    found = []
    for path in PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session:
            found.append(int(path.parent.name))
    return found


def memory_of(pid: int) -> tuple[int, int]:
    """Return resident and anonymous bytes of a process, of shared anonymous pages its share; zeros if it has ended."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0, 0
    values = {words[0]: int(words[1]) for line in text.splitlines() if len(words := line.split()) == 3}
    return 1024 * values.get("Rss:", 0), 1024 * values.get("Pss_Anon:", values.get("Anonymous:", 0))
