"""Freed memory is kept by the command and its children, and by nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.base import allocator
from pipeline.base.allocator import SWITCH, keep_freed_memory

IS_GLIBC = allocator._glibc() is not None
needs_glibc = pytest.mark.skipif(not IS_GLIBC, reason="the allocator is not glibc's")

FAULTS = """
import resource, sys
import numpy as np
if sys.argv[1] == "command":
    from pipeline.base.allocator import keep_freed_memory
    keep_freed_memory()
elif sys.argv[1] == "package":
    import pipeline, pipeline.api, pipeline.base.allocator, pipeline.commands
blocks = [np.ones(2**21) for _ in range(4)]  # 16 MB each
del blocks
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    blocks = [np.ones(2**21) for _ in range(4)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def n_faults(kind, **variables):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", SWITCH))}
    # One size of page, or a kernel with huge pages counts few faults anyway.
    clean |= {"NUMPY_MADVISE_HUGEPAGE": "0"} | variables
    done = subprocess.run([sys.executable, "-c", FAULTS, kind], env=clean, capture_output=True, text=True, check=True)
    return int(done.stdout)


@needs_glibc
def test_blocks_that_come_and_go_are_not_taken_from_the_system_again():
    assert n_faults("command") < n_faults("nothing") / 10


@needs_glibc
def test_importing_the_package_changes_nothing():
    assert n_faults("package") > n_faults("nothing") / 2


@needs_glibc
def test_a_process_that_the_command_starts_keeps_its_memory_too():
    environment: dict[str, str] = {}
    keep_freed_memory(environment)
    assert n_faults("nothing", **environment) < n_faults("nothing") / 10


@needs_glibc
def test_it_can_be_turned_off_and_leaves_the_users_own_settings():
    for environment in (
        {SWITCH: "off"},
        {SWITCH: "OFF"},
        {"MALLOC_MMAP_THRESHOLD_": "1000000"},
        {"GLIBC_TUNABLES": "glibc.malloc.top_pad=1"},
    ):
        before = dict(environment)
        assert keep_freed_memory(environment) == 0
        assert environment == before


def test_nothing_happens_without_glibc(monkeypatch):
    environment: dict[str, str] = {}
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    assert keep_freed_memory(environment) == 0
    assert not environment


@pytest.mark.parametrize(("accepted", "kept"), [(2**31, 2**30), (2**25, 2**25), (0, 0)])
def test_the_largest_size_that_the_library_takes_is_kept(monkeypatch, accepted, kept):
    asked = []

    class Libc:
        def mallopt(self, option, value):
            asked.append((option, value))
            return int(option == -1 or value <= accepted)

    environment: dict[str, str] = {}
    monkeypatch.setattr(allocator, "_glibc", Libc)
    assert keep_freed_memory(environment) == kept
    assert (-1 in dict(asked)) == bool(kept)
    assert environment.get("MALLOC_MMAP_THRESHOLD_", "0") == str(kept)


def test_the_command_does_it(monkeypatch):
    from pipeline import __main__ as command

    called = []
    monkeypatch.setattr(command, "keep_freed_memory", lambda: called.append(True))
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert called == [True]
