"""Decode once: the items of a set (files, table columns or one array) as one memory-mapped array on disk.

Every fold, epoch, experiment and process reads the same array. It lies in `<cache>/store/<key>/items.bin` beside a
`meta.json`, which is written last and makes it whole; the key follows from the decoder, the wanted form and the path,
size and time of change of every file. The first process builds, others wait for it.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.base.files import atomic_path, hash_json, read_json, remove_leftovers, write_json, write_text
from pipeline.data.alike import Kinds, check_alike, check_turned
from pipeline.data.channel_faults import SilentChannels, silent_channels
from pipeline.data.forms import StoredForm, formed
from pipeline.data.item_file import Formed, Kind, Tally, checksum_of, write_items
from pipeline.data.readers import decoders_of
from pipeline.data.sources import FileItems, ItemSource, OpenItems, PixelItems, open_items

Array = NDArray[Any]
Report = Callable[[str], None]
Progress = Callable[[int, int], None]

_SLOW_ITEM_SEC = 5e-4  # below it, threads only fight over the interpreter: 32 px files decode no faster on two cores
_BLOCK_BYTES = 2**23  # of the items that a thread holds; a few blocks wait for each thread
_N_PROBES = 12


@dataclass(frozen=True)
class Store:
    """Decoded items, read-only: (N, C, H, W) or (N, C, T), uint8, uint16 or float32."""

    array: np.memmap[Any, Any]
    folder: Path
    key: str
    meta: dict[str, Any]
    """n_items, shape, dtype, n_nonfinite, silent_channels, build_sec, checksum."""


class UnreadableError(DataError):
    """Files of the set are missing or broken; `paths` are all of them."""

    def __init__(self, message: str, paths: tuple[Path, ...] = ()) -> None:  # the default lets it be unpickled
        super().__init__(message)
        self.paths = paths


def open_store(
    source: ItemSource,
    form: StoredForm,
    cache: Path,
    *,
    report: Report = print,
    progress: Progress | None = None,
    workers: int | None = None,
    verify: bool = False,
) -> Store:
    """Return the decoded items of `source`, in its order, building them on first use.

    Args:
        source: where the items are.
        form: what they become.
        cache: folder for decoded data; `store/<key>` is made in it.
        report: gets one line about what is being done, and notes.
        progress: gets (items done, items in all) while building.
        workers: decoding threads; by default one per core where an item takes long enough to gain by them.
        verify: compare the stored values with the checksum taken when they were built.

    Raises:
        UnreadableError: files are missing or broken; all are named, and nothing is stored.
        DataError: items differ in shape or type, do not fit on the disk, or the stored bytes have changed.
    """
    key = store_key(source, form)
    folder = cache / "store" / key
    if not _is_whole(folder):
        try:
            _build_once(source, form, folder, report, progress or _unseen, workers or _n_cores())
        except OSError as error:  # readers raise a DataError, so this is the cache's disk
            raise DataError(f"{folder}: cannot be written ({error}); free some space or move the cache") from None
    store = _opened(folder, key)
    if verify and checksum_of(store.array) != store.meta["checksum"]:
        raise DataError(f"{folder / 'items.bin'}: the decoded data have changed since they were built; delete {folder}")
    return store


def store_key(source: ItemSource, form: StoredForm) -> str:
    """Return 16 hex digits that change with the decoder, the form, and any file's path, size or time of change."""
    files: tuple[Path, ...]
    details: list[object]
    if isinstance(source, FileItems):
        files, details = source.paths, []
    elif isinstance(source, PixelItems):
        files, details = (source.table,), [source.columns, source.shape]
    else:
        files, details = (source.path,), [source.key]
    stamps = [_stamp(path) for path in files]
    return hash_json([decoders_of(files), form.plain(), type(source).__name__, details, stamps])[:16]


def _stamp(path: Path) -> tuple[str, int, int]:
    """Return absolute path, size and time of change; a missing file has size -1 and is reported by the reader."""
    try:
        stat = os.stat(path)  # noqa: PTH116  a third faster than Path.stat, and there may be a million
        return os.path.abspath(path), stat.st_size, stat.st_mtime_ns  # noqa: PTH100  no look at symlinks
    except OSError:
        return os.path.abspath(path), -1, 0  # noqa: PTH100


def _is_whole(folder: Path) -> bool:
    """Return whether the marker is there, of this version, and the data have the size that it states."""
    try:
        meta = read_json(folder / "meta.json")
        n_bytes = int(np.prod(meta["shape"], dtype=np.int64)) * np.dtype(meta["dtype"]).itemsize
        return "checksum" in meta and (folder / "items.bin").stat().st_size == n_bytes
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _build_once(
    source: ItemSource, form: StoredForm, folder: Path, report: Report, progress: Progress, workers: int
) -> None:
    """Build the store, or wait for the process that does."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock", report):
        if not _is_whole(folder):
            remove_leftovers(folder)
            (folder / "meta.json").unlink(missing_ok=True)  # a marker without its data
            _build(open_items(source, report, form), form, folder, report, progress, workers)


def _opened(folder: Path, key: str) -> Store:
    meta = read_json(folder / "meta.json")
    array = np.memmap(folder / "items.bin", dtype=meta["dtype"], mode="r", shape=tuple(meta["shape"]))
    return Store(array, folder, key, meta)


@contextmanager
def _locked(path: Path, report: Report) -> Iterator[None]:
    """Hold a lock file inside the block; the kernel frees it when its holder dies."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("waiting for another process that decodes the same items ...")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(items: OpenItems, form: StoredForm, folder: Path, report: Report, progress: Progress, workers: int) -> None:
    """Write `items.bin`, then `meta.json`, into a folder whose lock is held."""
    began = time.perf_counter()
    if not items.n:
        raise DataError(f"no items to store: {items.title}")
    form = _with_channels(form, items)

    def read(index: int) -> Formed:
        item = items.read(index)
        # Before it is formed: filters make constant channels nearly so, and filled ones have values.
        silent = silent_channels(item) if form.input == "signal" else SilentChannels()
        return formed(item, form, items.name(index)), silent

    check_turned(items, form)
    samples, item_sec = _probe(read, items.n)
    workers = workers if item_sec > _SLOW_ITEM_SEC else 1
    check_alike(samples.kinds, items, form)
    kind: Kind | None = None
    for shape, dtype in samples.kinds:
        kind = shape, np.dtype(dtype)
        _announce(items, *kind, folder, item_sec / workers, form, report)
    block = _items_of_block(samples.kinds, item_sec)
    with atomic_path(folder / "items.bin") as temp:
        tally = write_items(read, items.n, temp, kind, block, workers, progress)
        _check_readable(tally.faults, items, folder)
        check_alike(tally.kinds, items, form)
    ((shape, dtype),) = tally.kinds
    meta = {"decoder": decoders_of(items.paths), "form": form.plain(), "n_items": items.n, "shape": (items.n, *shape)}
    meta |= {"dtype": dtype, "n_nonfinite": tally.n_nonfinite, "silent_channels": tally.silent.plain()}
    meta |= {"checksum": tally.checksum}
    write_json(folder / "meta.json", meta | {"build_sec": round(time.perf_counter() - began, 2)})


def _items_of_block(kinds: Kinds, item_sec: float) -> int:
    """Return how many items a thread reads at a time: some 50 ms of work, of a bounded size."""
    n_bytes = max((math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in kinds), default=1)
    return max(1, min(256, int(0.05 / (item_sec + 1e-9)), _BLOCK_BYTES // max(1, n_bytes)))


def _with_channels(form: StoredForm, items: OpenItems) -> StoredForm:
    """Return the form with the channels of the first image, where none are asked for."""
    if form.input == "signal" or form.channels is not None:
        return form
    try:
        return replace(form, channels=formed(items.read(0), replace(form, size=None), items.name(0)).shape[0])
    except DataError:
        return form  # the pass over all items will tell


def _probe(read: Callable[[int], Formed], n: int) -> tuple[Tally, float]:
    """Return what a few items all over the set look like, and the seconds that one takes."""
    tally, seconds = Tally(), []
    for index in np.unique(np.linspace(0, n - 1, _N_PROBES).astype(int)).tolist():
        began = time.perf_counter()
        with suppress(DataError):
            formed_item, silent = read(index)
            tally.add(formed_item, index, silent)
            seconds.append(time.perf_counter() - began)
    return tally, float(np.median(seconds or [0.0]))  # not the mean: the first ones also warm up


def _announce(
    items: OpenItems,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    folder: Path,
    item_sec: float,
    form: StoredForm,
    report: Report,
) -> None:
    """Report what will be built and how long it takes, or raise a DataError when the disk has no room for it."""
    cache = folder.parent.parent
    n_bytes = items.n * math.prod(shape) * dtype.itemsize
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise DataError(
            f"{cache}: {_size(n_bytes)} are needed for {items.n:,} items and {_size(free)} are free; "
            "free some, choose another cache folder, or a smaller input.size:"
        )
    axes = (shape[1], shape[2], shape[0]) if form.input == "image" else shape
    seconds = max(1, round(items.n * item_sec))
    duration = f"{seconds} s" if seconds < 120 else f"{round(seconds / 60)} min"
    report(f"{items.title} to {'x'.join(map(str, axes))} {dtype}: {_size(n_bytes)} in {cache}, about {duration}")
    if form.input == "signal" and shape[0] > shape[1]:
        way = " (of a table, each column is a channel)" if not items.is_array else ""
        way = way or ", state layout: channels_last in the task"
        report(f"note: signals have {shape[0]} channels of {shape[1]} samples; if it is the other way round{way}")


def _check_readable(faults: dict[int, str], items: OpenItems, folder: Path) -> None:
    """Raise an error that names every file that could not be read, if there is one."""
    if not faults:
        return
    messages = list(faults.values())
    if not items.paths:
        raise DataError("\n  ".join([f"{len(faults):,} of {items.n:,} items cannot be used:", *messages[:20]]))
    listing = folder.parent.parent / f"unreadable-{folder.name}.txt"
    write_text(listing, "\n".join(messages) + "\n")
    shown = [*messages[:20], *([f"... ({len(messages) - 20:,} more)"] if len(messages) > 20 else [])]
    head = f"{len(faults):,} of {items.n:,} files cannot be used; all are listed in {listing}:"
    advice = "Restore them, or leave out their training rows with exclude: in the task file."
    raise UnreadableError("\n  ".join([head, *shown]) + f"\n{advice}", tuple(items.paths[index] for index in faults))


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _unseen(done: int, total: int) -> None:
    """Show no progress."""


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:,.0f} kB"
