"""What `pipeline.data.store` promises: decoded once, whole or absent, never another file's values."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from PIL import Image

from pipeline.base.errors import DataError
from pipeline.data import item_file
from pipeline.data import sources as sources_module
from pipeline.data import store as store_module
from pipeline.data.forms import StoredForm
from pipeline.data.readers import read_image, resize_image
from pipeline.data.sources import ArrayItems, FileItems, ItemSource, PixelItems
from pipeline.data.store import Store, UnreadableError, open_store

RNG = np.random.default_rng(0)
IMAGE, SIGNAL = StoredForm("image"), StoredForm("signal")


def silent(_: str) -> None:
    pass


def make_images(folder: Path, n: int, shape: tuple[int, ...] = (6, 8, 3)) -> FileItems:
    folder.mkdir(exist_ok=True)
    paths = tuple(folder / f"{index}.png" for index in range(n))
    for path in paths:
        Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return FileItems(paths)


def built(tmp_path: Path, source: ItemSource, form: StoredForm = IMAGE) -> Store:
    return open_store(source, form, tmp_path / "cache", report=silent)


@pytest.mark.parametrize("workers", [1, 3])
def test_items_lie_in_the_order_of_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(store_module, "_SLOW_ITEM_SEC", 0.0)  # threads also for fast items
    source = make_images(tmp_path / "a", 300)
    form = StoredForm("image", (4, 5), 1, "letterbox")
    store = open_store(source, form, tmp_path / "cache", report=silent, workers=workers)
    expected = [resize_image(read_image(path, 1), (4, 5), "letterbox") for path in source.paths]
    np.testing.assert_array_equal(store.array, np.stack(expected))
    assert store.array.dtype == np.uint8
    assert not store.array.flags.writeable
    assert store.meta["n_items"] == 300
    assert store.meta["shape"] == [300, 1, 4, 5]


def test_threads_run_only_a_few_blocks_ahead_of_the_disk() -> None:
    started: list[range] = []
    blocks = item_file._in_order(started.append, n=100, block=1, workers=2)
    assert next(blocks)[0] == range(0, 1)
    assert len(started) <= 5
    assert [indices.start for indices, _ in blocks] == list(range(1, 100))


@pytest.mark.parametrize("system", ["cuts short", "lacks the call"])
def test_items_are_whole_where_the_system_does_not_write_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    source = make_images(tmp_path / "a", 40)
    expected = np.stack([read_image(path) for path in source.paths])
    if system == "lacks the call":
        monkeypatch.delattr(os, "pwritev", raising=False)
    else:
        # Not a whole number of items, which have 144 bytes each.
        monkeypatch.setattr(os, "pwritev", lambda file, parts, at: os.pwrite(file, b"".join(parts)[:1000], at))
    store = open_store(source, IMAGE, tmp_path / "cache", report=silent, verify=True)
    np.testing.assert_array_equal(store.array, expected)


def test_a_second_use_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_images(tmp_path / "a", 5)
    first = built(tmp_path, source)
    monkeypatch.setattr(sources_module, "reader_for", None)
    lines: list[str] = []
    second = open_store(source, IMAGE, tmp_path / "cache", report=lines.append, verify=True)
    np.testing.assert_array_equal(first.array, second.array)
    assert lines == []
    assert second.key == first.key


def test_a_changed_file_or_form_is_another_store(tmp_path: Path) -> None:
    source = make_images(tmp_path / "a", 3)
    keys = {built(tmp_path, source).key, built(tmp_path, source, StoredForm("image", (4, 4))).key}
    stat = source.paths[1].stat()
    os.utime(source.paths[1], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    keys.add(built(tmp_path, source).key)
    Image.fromarray(np.full((6, 8, 3), 7, np.uint8)).save(source.paths[1])
    store = built(tmp_path, source)
    keys.add(store.key)
    assert (store.array[1] == 7).all()
    keys.add(built(tmp_path, FileItems(source.paths[::-1])).key)
    assert len(keys) == 5


@pytest.mark.parametrize("change", ["a bit of the first", "a bit of the last", "two change places"])
def test_verify_notices_changed_items(tmp_path: Path, change: str) -> None:
    source = make_images(tmp_path / "a", 3)
    store = built(tmp_path, source)
    items = np.array(store.array)
    assert (items[0] != items[1]).any()
    if change == "two change places":
        items[[0, 1]] = items[[1, 0]]
    else:
        items.reshape(3, -1)[*((0, 10) if change == "a bit of the first" else (2, -1))] ^= 1
    (store.folder / "items.bin").write_bytes(items.tobytes())
    built(tmp_path, source)
    with pytest.raises(DataError, match="have changed since they were built; delete"):
        open_store(source, IMAGE, tmp_path / "cache", report=silent, verify=True)


@pytest.mark.parametrize("damage", ["short", "no data", "no marker", "half marker", "marker of before"])
def test_a_store_that_is_not_whole_is_built_again(tmp_path: Path, damage: str) -> None:
    source = make_images(tmp_path / "a", 3)
    store = built(tmp_path, source)
    expected, items, meta = store.array.copy(), store.folder / "items.bin", store.folder / "meta.json"
    if damage == "short":
        items.write_bytes(items.read_bytes()[:-1])
    elif damage == "no data":
        items.unlink()
    elif damage == "no marker":
        meta.unlink()
    elif damage == "half marker":
        meta.write_text(meta.read_text()[:20])
    else:  # of a version whose checksum was another
        meta.write_text(meta.read_text().replace('"checksum"', '"content_hash"'))
    again = open_store(source, IMAGE, tmp_path / "cache", report=silent, verify=True)
    np.testing.assert_array_equal(again.array, expected)


def test_all_missing_and_broken_files_are_named_at_once(tmp_path: Path) -> None:
    source = make_images(tmp_path / "a", 100)
    gone, cut, alien = source.paths[3], source.paths[50], source.paths[99]
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-30])
    alien.write_bytes(b"not found")
    with pytest.raises(UnreadableError, match="3 of 100 files cannot be used") as caught:
        built(tmp_path, source)
    assert caught.value.paths == pickle.loads(pickle.dumps(caught.value)).paths == (gone, cut, alien)
    for line in (f"{gone}: missing", f"{cut}: truncated or damaged", f"{alien}: not an image", "exclude:"):
        assert line in str(caught.value)
    assert not list((tmp_path / "cache").rglob("meta.json"))
    assert not list((tmp_path / "cache").rglob("items*"))


def test_of_many_broken_files_twenty_are_shown_and_all_are_listed(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{index}.png" for index in range(30))
    with pytest.raises(UnreadableError, match=r"\.\.\. \(10 more\)") as caught:
        built(tmp_path, FileItems(paths))
    assert str(caught.value).count("missing") == 20
    (listing,) = (tmp_path / "cache").glob("unreadable-*.txt")
    assert str(listing) in str(caught.value)
    assert listing.read_text().splitlines() == [f"{path}: missing" for path in paths]


@pytest.mark.parametrize("odd", [40, 1])
def test_images_of_several_sizes_need_a_size(tmp_path: Path, odd: int) -> None:
    # Item 40 is met while probing, item 1 only in the pass over all.
    source = make_images(tmp_path / "a", 41)
    Image.new("RGB", (9, 9)).save(source.paths[odd])
    with pytest.raises(DataError, match=r"input\.size:") as caught:
        built(tmp_path, source)
    assert f"(3, 6, 8) ({source.paths[0]})" in str(caught.value)
    assert f"(3, 9, 9) ({source.paths[odd]})" in str(caught.value)
    assert not list((tmp_path / "cache").rglob("items*"))
    assert built(tmp_path, source, StoredForm("image", (5, 5))).array.shape == (41, 3, 5, 5)


def test_channels_without_a_wish_are_those_of_the_first_file(tmp_path: Path) -> None:
    source = make_images(tmp_path / "a", 3)
    Image.fromarray(RNG.integers(0, 256, (6, 8), dtype=np.uint8)).save(source.paths[0])
    store = built(tmp_path, source)
    assert store.array.shape == (3, 1, 6, 8)
    np.testing.assert_array_equal(store.array[2], read_image(source.paths[2], 1))


def test_eight_and_sixteen_bits_do_not_mix(tmp_path: Path) -> None:
    source = make_images(tmp_path / "a", 3, (6, 8))
    Image.fromarray(RNG.integers(0, 65536, (6, 8), dtype=np.uint16)).save(source.paths[1])
    with pytest.raises(DataError, match=r"types.*uint8 \(.*0\.png\), uint16 \(.*1\.png\)"):
        built(tmp_path, source)
    store = built(tmp_path, FileItems(source.paths[1:2]))
    assert store.array.dtype == np.uint16


def test_signals_come_from_files_with_their_nonfinite_values_counted(tmp_path: Path) -> None:
    signals = RNG.normal(size=(4, 2, 50))
    signals[1, 0, 3], signals[2, 1, 4] = np.nan, np.inf
    paths = tuple(tmp_path / f"{index}.npy" for index in range(4))
    for path, values in zip(paths, signals, strict=True):
        np.save(path, values)
    store = built(tmp_path, FileItems(paths), SIGNAL)
    np.testing.assert_array_equal(store.array, signals.astype(np.float32))
    assert store.meta["n_nonfinite"] == 2
    np.save(paths[2], signals[2, :, :30])
    with pytest.raises(DataError, match=r"\(2, 30\) \(.*2\.npy\)\. State input\.length: N to cut and pad"):
        built(tmp_path, FileItems(paths), SIGNAL)


@pytest.mark.parametrize(
    ("shape", "form", "stored"),
    [
        ((7, 20), SIGNAL, (7, 1, 20)),
        ((7, 2, 20), SIGNAL, (7, 2, 20)),
        ((7, 1, 2, 20), SIGNAL, (7, 2, 20)),
        ((7, 6, 8), IMAGE, (7, 1, 6, 8)),
        ((7, 3, 6, 8), IMAGE, (7, 3, 6, 8)),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_the_first_axis_of_an_array_counts_the_items(
    tmp_path: Path, shape: tuple[int, ...], form: StoredForm, stored: tuple[int, ...], suffix: str
) -> None:
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, array)
    else:
        np.savez_compressed(path, x=array, y=np.zeros(7))
    store = built(tmp_path, ArrayItems(path, None if suffix == "npy" else "x"), form)
    assert store.array.dtype == np.uint8
    np.testing.assert_array_equal(store.array, array.reshape(stored))


def test_images_with_channels_last_are_turned_and_take_the_wanted_form(tmp_path: Path) -> None:
    array = RNG.integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", array)
    store = built(tmp_path, ArrayItems(tmp_path / "a.npy"))
    np.testing.assert_array_equal(store.array, array.transpose(0, 3, 1, 2))
    grey = built(tmp_path, ArrayItems(tmp_path / "a.npy"), StoredForm("image", (3, 4), 1))
    assert grey.array.shape == (5, 1, 3, 4)


def test_signals_that_are_likely_turned_are_refused_until_the_task_says_what_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.normal(size=(3, 50, 2)))
    np.save(tmp_path / "one.npy", RNG.normal(size=(1, 50, 2)))
    turned = r"item 0: has the shape \(50, 2\), taken as \(C, T\) 50 channels of 2 samples; it looks like \(T, C\)"
    with pytest.raises(
        DataError, match=turned + r"\. State layout: channels_last in the task; or layout: channels_first"
    ):
        open_store(ArrayItems(tmp_path / "a.npy"), SIGNAL, tmp_path, report=lambda _: None)
    with pytest.raises(DataError, match=r"one\.npy: has the shape \(50, 2\), taken as"):
        open_store(FileItems((tmp_path / "one.npy",)), SIGNAL, tmp_path, report=lambda _: None)
    lines: list[str] = []
    for layout, shape in (("channels_last", (3, 2, 50)), ("channels_first", (3, 50, 2))):
        form = StoredForm("signal", layout=layout)
        store = open_store(ArrayItems(tmp_path / "a.npy"), form, tmp_path, report=lines.append)
        assert store.array.shape == shape
    assert "50 channels of 2 samples; if it is the other way round, state layout: channels_last" in lines[-1]


def test_signals_of_about_as_many_channels_as_samples_are_only_remarked_upon(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.normal(size=(3, 50, 40)))
    pd.DataFrame(RNG.normal(size=(3, 50)), columns=[f"c{number}" for number in range(50)]).to_csv(
        tmp_path / "a.csv", index=False
    )
    lines: list[str] = []
    open_store(ArrayItems(tmp_path / "a.npy"), SIGNAL, tmp_path, report=lines.append)
    assert "50 channels of 40 samples; if it is the other way round, state layout: channels_last" in lines[-1]
    open_store(FileItems((tmp_path / "a.csv",)), SIGNAL, tmp_path, report=lines.append)
    assert "50 channels of 3 samples; if it is the other way round (of a table, each column is a channel)" in lines[-1]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_pixels_in_columns_follow_the_named_order(tmp_path: Path, suffix: str) -> None:
    pixels = RNG.integers(0, 256, (5000, 6))
    table = pd.DataFrame(pixels, columns=[f"pixel{index}" for index in range(6)])
    table.insert(0, "label", "x")
    path = tmp_path / f"a.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    columns = tuple(f"pixel{index}" for index in (5, 4, 3, 2, 1, 0))
    store = built(tmp_path, PixelItems(path, columns, (2, 3)))
    assert store.array.dtype == np.uint8
    np.testing.assert_array_equal(store.array, pixels[:, ::-1].reshape(5000, 1, 2, 3))
    signal_store = built(tmp_path, PixelItems(path, columns, (2, 3)), SIGNAL)
    assert signal_store.array.shape == (5000, 2, 3)


@pytest.mark.parametrize(
    ("last", "dtype"),
    [("255", "uint8"), ("256", "uint16"), ("65536", "float32"), ("-1", "float32"), ("0.5", "float32")],
)
def test_one_value_decides_the_type_of_all_pixels(tmp_path: Path, last: str, dtype: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,2\n" * 5000 + f"3,{last}\n")
    store = built(tmp_path, PixelItems(path, ("a", "b"), (1, 2)))
    assert store.array.dtype == dtype
    assert store.array[-1].ravel().tolist() == [3, float(last)]
    assert store.array[0].ravel().tolist() == [1, 2]


def test_faults_of_pixel_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("pixel0,pixel1\n1,2\n3,x\n")
    with pytest.raises(DataError, match="these columns hold something else: pixel1"):
        built(tmp_path, PixelItems(path, ("pixel0", "pixel1"), (1, 2)))
    with pytest.raises(DataError, match=r"no column pixle1\. Did you mean 'pixel1'"):
        built(tmp_path, PixelItems(path, ("pixel0", "pixle1"), (1, 2)))
    with pytest.raises(DataError, match=r"2 columns do not make items of shape \(2, 2\)"):
        built(tmp_path, PixelItems(path, ("pixel0", "pixel1"), (2, 2)))
    with pytest.raises(DataError, match=r"b\.csv: cannot be read as a table"):
        built(tmp_path, PixelItems(tmp_path / "b.csv", ("a",), (1, 1)))
    path.write_text("pixel0,pixel1\n")
    with pytest.raises(DataError, match="no items"):
        built(tmp_path, PixelItems(path, ("pixel0", "pixel1"), (1, 2)))


def test_faults_of_arrays_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(5))
    with pytest.raises(DataError, match=r"first axis counts the items, found shape \(5,\)"):
        built(tmp_path, ArrayItems(path), SIGNAL)
    np.save(path, np.zeros((5, 2, 3, 4)))
    with pytest.raises(DataError, match=r"a\.npy: item 0: expected a signal of .* found shape \(2, 3, 4\)"):
        built(tmp_path, ArrayItems(path), SIGNAL)
    np.save(path, np.zeros((5, 0)))
    with pytest.raises(DataError, match="holds no values"):
        built(tmp_path, ArrayItems(path), SIGNAL)
    with pytest.raises(DataError, match="missing"):
        built(tmp_path, ArrayItems(tmp_path / "b.npy"), SIGNAL)
    with pytest.raises(DataError, match="no items"):
        built(tmp_path, FileItems(()))


def test_what_will_be_done_is_said_before_it_is_done(tmp_path: Path) -> None:
    lines: list[str] = []
    seen: list[tuple[int, int]] = []
    source = make_images(tmp_path / "a", 300)
    open_store(source, IMAGE, tmp_path / "c", report=lines.append, progress=lambda done, n: seen.append((done, n)))
    assert lines == [f"decoding 300 files to 6x8x3 uint8: 43 kB in {tmp_path / 'c'}, about 1 s"]
    assert seen[-1] == (300, 300)
    assert seen == sorted(seen)


def test_a_disk_without_room_is_told_before_building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_images(tmp_path / "a", 3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(DataError, match="are needed for 3 items and 0 kB are free"):
        built(tmp_path, source)


def test_a_cache_that_cannot_be_written_is_a_data_error(tmp_path: Path) -> None:
    source = make_images(tmp_path / "a", 3)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        built(tmp_path, source)


def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    source = make_images(tmp_path / "a", 2000)
    script = """
        import os, signal, sys
        from pathlib import Path
        from pipeline.data.forms import StoredForm
        from pipeline.data.sources import FileItems
        from pipeline.data.store import open_store
        paths = tuple(Path(sys.argv[1]) / f"{index}.png" for index in range(2000))
        kill = lambda done, total: done > 500 and os.kill(os.getpid(), signal.SIGKILL)
        open_store(FileItems(paths), StoredForm("image"), Path(sys.argv[2]), progress=kill)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "a"), str(tmp_path / "cache")]
    killed = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[1], check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list((tmp_path / "cache").rglob("items.part-*"))
    store = open_store(source, IMAGE, tmp_path / "cache", report=silent, verify=True)
    np.testing.assert_array_equal(store.array[-1], read_image(source.paths[-1]))
    assert sorted(path.name for path in store.folder.iterdir()) == [".lock", "items.bin", "meta.json"]


def _open_in_turn(paths: tuple[Path, ...], cache: Path, started: Callable[[], object], lines: list[str]) -> None:
    own: list[str] = []
    started()
    store = open_store(FileItems(paths), IMAGE, cache, report=own.append)
    lines.append(f"{own} {store.array[-1].sum()}")


def test_only_one_process_builds(tmp_path: Path) -> None:
    source = make_images(tmp_path / "a", 3000)
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        lines, barrier = manager.list(), manager.Barrier(3)
        arguments = (source.paths, tmp_path / "cache", barrier.wait, lines)
        processes = [context.Process(target=_open_in_turn, args=arguments) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        results = list(lines)
    expected = read_image(source.paths[-1]).sum()
    assert len(results) == 3
    assert all(line.endswith(f" {expected}") for line in results)
    assert sum("decoding" in line for line in results) == 1


def test_who_finds_another_building_says_so_and_waits(tmp_path: Path) -> None:
    source = make_images(tmp_path / "a", 3)
    folder = tmp_path / "cache" / "store" / store_module.store_key(source, IMAGE)
    folder.mkdir(parents=True)
    lines: list[str] = []
    waits = threading.Event()

    def report(line: str) -> None:
        lines.append(line)
        waits.set()

    with ThreadPoolExecutor(1) as pool:
        with FileLock(folder / ".lock"):
            opening = pool.submit(open_store, source, IMAGE, tmp_path / "cache", report=report)
            assert waits.wait(10)
            assert lines == ["waiting for another process that decodes the same items ..."]
            assert not opening.done()
        assert len(opening.result(10).array) == 3
