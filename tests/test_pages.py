from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.augment.albumentations import build_recipe
from pipeline.base import host_memory
from pipeline.data import batches, pages
from pipeline.data.batches import Items
from pipeline.data.pages import Pages
from pipeline.data.stream import Stream

PAGE = mmap.PAGESIZE
ITEM = 1_000
N = 5_000


class Asked:
    """Stands for a map and writes down what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def madvise(self, advice: int, start: int, length: int) -> None:
        assert advice == mmap.MADV_WILLNEED
        self.calls.append((start, length))


def mapped(path: Path, shape: tuple[int, ...] = (N, ITEM), offset: int = 0) -> np.memmap[Any, Any]:
    path.write_bytes(b"\0" * offset + np.random.default_rng(0).bytes(int(np.prod(shape))))
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape, offset=offset)


def watched(array: np.memmap[Any, Any]) -> tuple[Pages, Asked]:
    found, asked = Pages(array), Asked()
    assert found._map is array.base
    found._map = asked
    return found, asked


def covered(calls: list[tuple[int, int]]) -> set[int]:
    """The pages that the calls are for."""
    return {page for start, length in calls for page in range(start // PAGE, -(-(start + length) // PAGE))}


def pages_of(positions: list[int], begin: int = 0) -> set[int]:
    """The pages that items lie on, byte by byte."""
    return {(begin + at * ITEM + byte) // PAGE for at in positions for byte in range(ITEM)}


@pytest.mark.parametrize("offset", [0, 128, mmap.ALLOCATIONGRANULARITY + 64])
def test_the_pages_of_the_items_are_asked_for_and_no_others(tmp_path: Path, offset: int) -> None:
    found, asked = watched(mapped(tmp_path / "items.bin", offset=offset))
    chosen = [4_999, 3, 1_200, 0, 77]
    found.ask(np.array(chosen))
    begin = offset % mmap.ALLOCATIONGRANULARITY
    assert covered(asked.calls) == pages_of(chosen, begin=begin)
    assert all(start % PAGE == 0 and start + length <= begin + N * ITEM for start, length in asked.calls)


def test_neighbours_are_one_stretch_and_long_stretches_are_cut_into_pieces(tmp_path: Path) -> None:
    found, asked = watched(mapped(tmp_path / "items.bin"))
    found.ask(np.array([10, 11, 12, 13, 40, 39, 38]))
    assert len(asked.calls) == 4
    asked.calls.clear()
    found.ask(np.arange(1_000, 2_000))
    assert covered(asked.calls) == pages_of(list(range(1_000, 2_000)))
    assert len(asked.calls) == 8
    assert max(length for _, length in asked.calls) <= 2**17


def test_an_item_of_a_file_that_stays_in_memory_is_asked_for_once(tmp_path: Path) -> None:
    found, asked = watched(mapped(tmp_path / "items.bin"))
    found.ask(np.array([100, 200]))
    found.ask(np.array([200, 300, 100]))
    assert covered(asked.calls) == pages_of([100, 200, 300])
    assert len(asked.calls) == 3
    found.ask(np.array([300]))
    assert len(asked.calls) == 3


def test_those_of_a_larger_file_are_asked_for_whenever_they_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "free_host_bytes", lambda: 2 * N * ITEM)
    found, asked = watched(mapped(tmp_path / "items.bin"))
    for _ in range(3):
        found.ask(np.array([100]))
    assert len(asked.calls) == 3


def test_arrays_that_are_no_whole_map_are_left_to_themselves(tmp_path: Path) -> None:
    array = mapped(tmp_path / "items.bin")
    for other in (np.zeros((4, 3), np.uint8), array[5:], np.asarray(array)):
        Pages(other).ask(np.array([0]))
        assert Pages(other)._map is None


def test_the_next_batch_is_asked_for_before_the_one_at_hand_is_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = mapped(tmp_path / "items.bin", (40, 3, 8, 8))
    items, wanted = Items(array, "cpu"), [np.array([1, 30]), np.array([7]), np.array([2, 2, 9])]
    seen: list[Any] = []
    monkeypatch.setattr(Pages, "ask", lambda _, positions: seen.append(positions.tolist()))
    for positions, batch in zip(wanted, items.fetch_each(wanted), strict=True):
        seen.append("worked on")
        assert torch.equal(batch, torch.from_numpy(array[positions]))
    assert seen == [[1, 30], [7], "worked on", [2, 2, 9], "worked on", "worked on"]
    assert list(items.fetch_each([])) == []


def test_a_maker_of_albumentations_batches_asks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = Items(mapped(tmp_path / "items.bin", (40, 3, 8, 8)), "cpu")
    recipe = build_recipe(["HorizontalFlip"], items.shape, items.full_scale)
    wanted, seeds = [np.array([5, 9]), np.array([30])], [np.zeros(2, np.uint64), np.zeros(1, np.uint64)]
    seen: list[Any] = []
    monkeypatch.setattr(Pages, "ask", lambda _, positions: seen.append(positions.tolist()))
    with Stream(items, recipe, 0) as stream:
        assert [len(batch) for batch in stream.batches(wanted, seeds)] == [2, 1]
    assert seen == [[5, 9], [30], [5, 9], [30], [30]]  # itself, the next one, and again where it is made


def test_a_file_system_that_cannot_ask_ends_nothing(tmp_path: Path) -> None:
    found, asked = watched(mapped(tmp_path / "items.bin"))

    def cannot(*_given: int) -> None:
        raise OSError(22, "Invalid argument")

    asked.madvise = cannot  # type: ignore[method-assign]
    found.ask(np.array([1], np.int32))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_items_that_do_not_fit_on_a_gpu_are_sent_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: type
) -> None:
    monkeypatch.setattr(batches, "RESIDENT_SHARE", 0.0)
    array = np.random.default_rng(0).integers(0, 65536, (40, 3, 64, 64)).astype(dtype)
    (tmp_path / "items.bin").write_bytes(array.tobytes())
    array = np.memmap(tmp_path / "items.bin", dtype=dtype, mode="r", shape=array.shape)
    wanted = [np.random.default_rng(number).integers(0, 40, 16) for number in range(50)]
    items = Items(array, "cuda")
    assert not items._is_resident
    for pinned_bytes in (2**26, 0):
        monkeypatch.setattr(batches, "_PINNED_BYTES", pinned_bytes)
        torch.cuda._sleep(200_000_000)  # so that copies wait, and pinned memory used again too early would show
        found = list(items.fetch_each(wanted))
        for positions, batch in zip(wanted, found, strict=True):
            assert batch.is_cuda
            np.testing.assert_array_equal(batch.cpu().numpy(), array[positions].astype(batch.cpu().numpy().dtype))


# -- memory of the host ------------------------------------------------------------------------------------------------


def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str]) -> None:
    monkeypatch.setattr(host_memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(host_memory, "GROUPS", tmp_path / "cgroup")
    files = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    1000 kB\n", "proc/self/cgroup": groups} | files
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)


def group(folder: str, limit: str, used: int, cached: int, version: int = 2) -> dict[str, str]:
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    stat = f"inactive_file {cached}\nactive_file 1\n"
    if version == 1:
        stat = f"total_cache 9\ntotal_inactive_file {cached}\ntotal_active_file 1\n"
    return {f"{folder}/{names[0]}": limit, f"{folder}/{names[1]}": str(used), f"{folder}/memory.stat": stat}


def test_free_memory_is_that_of_the_system_where_no_group_leaves_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(tmp_path, monkeypatch, "0::/\n", group("cgroup/job", "max\n", 5, 5))
    assert host_memory.free_host_bytes() == 1_000 * 1024
    (tmp_path / "proc/self/cgroup").unlink()
    assert host_memory.free_host_bytes() == 1_000 * 1024
    (tmp_path / "proc/meminfo").unlink()
    assert host_memory.free_host_bytes() is None


@pytest.mark.parametrize(("version", "root"), [(2, "cgroup"), (1, "cgroup/memory")])
def test_a_container_leaves_what_it_has_not_used_and_what_it_holds_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, root: str
) -> None:
    line = "0::/job/step\n" if version == 2 else "5:cpu:/x\n4:hugetlb,memory:/job/step\n"
    files = group(f"{root}/job", "600000\n", 500_000, 20_000, version)
    files |= group(f"{root}/job/step", "max\n" if version == 2 else f"{2**63 - 4096}\n", 100_000, 0, version)
    host(tmp_path, monkeypatch, line, files)
    assert host_memory.free_host_bytes() == 600_000 - 500_000 + 20_001


def test_a_group_that_only_its_host_sees_is_that_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host(tmp_path, monkeypatch, "0::/docker/abc\n", group("cgroup", "90000\n", 80_000, 0))
    assert host_memory.free_host_bytes() == 10_001
