from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.augment.albumentations import build_recipe
from pipeline.base.errors import DataError, PodiumError
from pipeline.base.keyed import bits, hash_ids, make_key, uniforms
from pipeline.data import stream as stream_module
from pipeline.data.batches import EpochOrder, Items, even_slices, samples_of, seeds_of, shuffled
from pipeline.data.stream import Stream
from pipeline.training.executors import run_jobs

N = 40
ENTRIES = ({"RandomCrop": {"height": 12, "width": 12}}, "HorizontalFlip", {"GaussNoise": {"p": 0.9}})
IDS = [f"r{number:03d}" for number in range(N)]
SAMPLES = samples_of(IDS, [(number,) for number in range(N)], np.arange(N))


def stored(path, array):
    """An array as a store maps it: read-only, from a file."""
    path.write_bytes(np.ascontiguousarray(array).tobytes())
    return np.memmap(path, dtype=array.dtype, mode="r", shape=array.shape)


def arrays(dtype=np.uint8, n=N):
    full = {np.uint8: 256, np.uint16: 65536, np.float32: 2}[dtype]
    return np.random.default_rng(0).integers(0, full, (n, 3, 16, 16)).astype(dtype)


def recipe_for(items, entries=ENTRIES):
    return build_recipe(entries, items.shape, items.full_scale)


def epoch_of(epoch, batch_size=8, seed=0):
    """Positions and seeds of an epoch's batches, as training asks for them."""
    order = shuffled(SAMPLES, seed, epoch)
    parts = even_slices(N, batch_size)
    return [SAMPLES.item[order.sample[part]] for part in parts], [
        seeds_of(SAMPLES, order, part, seed, epoch) for part in parts
    ]


def by_item(stream, epoch, batch_size=8):
    positions, seeds = epoch_of(epoch, batch_size)
    made = torch.cat(list(stream.batches(positions, seeds)))
    return made[np.argsort(np.concatenate(positions))]


# -- seeds -------------------------------------------------------------------------------------------------------------


def test_bits_are_those_of_the_first_uniform_draw():
    ids, times = hash_ids(IDS), np.arange(N, dtype=np.uint64) % 3
    for occurrence in (None, times):
        expected = uniforms(5, ids, 1, occurrence)[:, 0]
        np.testing.assert_array_equal((bits(5, ids, occurrence) >> np.uint64(11)) * 2.0**-53, expected)
    assert bits(5, ids).dtype == np.uint64


def test_seeds_follow_from_seed_epoch_sample_and_occurrence_and_from_nothing_else():
    order = EpochOrder(np.array([3, 7, 3]), np.array([0, 0, 1], dtype=np.uint64))
    whole = seeds_of(SAMPLES, order, slice(0, 3), 1, 2)
    np.testing.assert_array_equal(
        whole, bits(make_key("albumentations", 1, 2), SAMPLES.key[[3, 7, 3]], order.occurrence)
    )
    np.testing.assert_array_equal(seeds_of(SAMPLES, order, slice(1, 3), 1, 2), whole[1:])
    others = [seeds_of(SAMPLES, order, slice(0, 3), *key) for key in ((1, 3), (2, 2))]
    assert len({int(seed) for seeds in (whole, *others) for seed in seeds}) == 9


# -- in this process ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_without_a_recipe_batches_are_those_that_items_fetch(tmp_path, dtype):
    items = Items(stored(tmp_path / "items.bin", arrays(dtype)), "cpu")
    positions, _ = epoch_of(0)
    with Stream(items, None, 3) as stream:
        for chosen, batch in zip(positions, stream.batches(positions, None), strict=True):
            assert torch.equal(batch, items.fetch(chosen))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_recipe_sees_what_items_fetch(tmp_path, dtype):
    items = Items(stored(tmp_path / "items.bin", arrays(dtype)), "cpu")
    recipe, (positions, seeds) = recipe_for(items), epoch_of(0)
    with Stream(items, recipe, 0) as stream:
        for chosen, own, batch in zip(positions, seeds, stream.batches(positions, seeds), strict=True):
            assert torch.equal(batch, torch.from_numpy(recipe(items.fetch(chosen).numpy(), own)))


def test_an_item_does_not_depend_on_batch_size_or_order_and_epochs_differ():
    items = Items(arrays(), "cpu")
    with Stream(items, recipe_for(items), 0) as stream:
        first, second = by_item(stream, 0, batch_size=8), by_item(stream, 1, batch_size=8)
        assert torch.equal(by_item(stream, 0, batch_size=7), first)
        assert torch.equal(by_item(stream, 0, batch_size=40), first)
    assert not any(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    same = Items(np.repeat(arrays(n=1), N, axis=0), "cpu")
    with Stream(same, recipe_for(same), 0) as stream:
        assert len({image.numpy().tobytes() for image in by_item(stream, 0)}) > 0.9 * N


def test_a_recipe_without_seeds_is_an_error():
    items = Items(arrays(), "cpu")
    with pytest.raises(ValueError, match="seeds"):
        next(Stream(items, recipe_for(items), 0).batches([np.arange(3)], None))


def spoilt(path):
    """Floats of 0..1 with one that is not, at position 21."""
    array = arrays(np.float32)
    array[21, 0, 0, 0] = 9.0
    return Items(stored(path, array), "cpu")


def test_an_item_that_fails_is_named_by_its_position(tmp_path):
    items = spoilt(tmp_path / "items.bin")
    made = Stream(items, recipe_for(items), 0).batches(*epoch_of(0))
    with pytest.raises(DataError, match=r"^augment.albumentations: takes values of 0..1, .*\(stored item 21, seed \d"):
        list(made)


# -- workers -----------------------------------------------------------------------------------------------------------


def test_workers_change_no_bit_in_any_epoch_and_leave_torchs_generator_alone(tmp_path):
    items = Items(stored(tmp_path / "items.bin", arrays(np.uint16)), "cpu")
    recipe = recipe_for(items)
    with Stream(items, recipe, 0) as stream:
        expected = [list(stream.batches(*epoch_of(epoch))) for epoch in (0, 1)]
    state = torch.get_rng_state()
    for workers in (1, 3):
        with Stream(items, recipe, workers) as stream:
            pids = set()
            for epoch in (0, 1):
                made = list(stream.batches(*epoch_of(epoch)))
                assert all(map(torch.equal, made, expected[epoch]))
                assert len(made) == len(expected[epoch])
                pids |= {child.pid for child in multiprocessing.active_children()}
            assert len(pids) == workers  # they stay from one epoch to the next
            unfinished = stream.batches(*epoch_of(0))
            next(unfinished)
            assert torch.equal(next(stream.batches(*epoch_of(1))), expected[1][0])
            assert list(unfinished) == []
        assert not multiprocessing.active_children()
    assert torch.equal(torch.get_rng_state(), state)


def test_arrays_in_memory_and_parts_of_maps_reach_a_worker_too(tmp_path):
    whole = stored(tmp_path / "items.bin", arrays(n=2 * N))
    for array in (np.array(whole[N:]), whole[N:]):
        items = Items(array, "cpu")
        recipe = recipe_for(items)
        with Stream(items, recipe, 0) as here, Stream(items, recipe, 1) as there:
            assert torch.equal(by_item(there, 0), by_item(here, 0))


def test_an_error_of_a_worker_is_the_same_error(tmp_path):
    items = spoilt(tmp_path / "items.bin")
    with Stream(items, recipe_for(items), 1) as stream:
        with pytest.raises(
            DataError, match=r"^augment.albumentations: takes values of 0..1, .*\(stored item 21, seed \d"
        ):
            list(stream.batches(*epoch_of(0)))
        assert len(list(stream.batches(*(part[:1] for part in epoch_of(1))))) == 1
    assert not multiprocessing.active_children()


def test_workers_ignore_the_signals_of_a_stop_and_a_killed_one_is_one_message():
    items = Items(arrays(), "cpu")
    with Stream(items, recipe_for(items), 1) as stream:
        positions, seeds = epoch_of(0)
        made = stream.batches(positions * 50, seeds * 50)
        next(made)
        (worker,) = multiprocessing.active_children()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(worker.pid, number)
        for _ in range(20):
            next(made)
        assert worker.is_alive()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(PodiumError, match=r"was killed from outside, .* fewer --loaders"):
            list(made)
    assert not multiprocessing.active_children()


def stream_in_a_job(folder, report, stop):
    items = Items(np.memmap(folder / "items.bin", dtype=np.uint8, mode="r", shape=(N, 3, 16, 16)), "cpu")
    with Stream(items, recipe_for(items), 1) as stream:
        report((os.getpid(), torch.cat(list(stream.batches(*epoch_of(0))))[:, 0, 0, 0].tolist()))
        if (folder / "wait").exists():
            report([child.pid for child in multiprocessing.active_children()])
            time.sleep(60)


@pytest.mark.slow
def test_jobs_of_an_executor_start_workers_of_their_own(tmp_path):
    items = Items(stored(tmp_path / "items.bin", arrays()), "cpu")
    with Stream(items, recipe_for(items), 0) as stream:
        expected = torch.cat(list(stream.batches(*epoch_of(0))))[:, 0, 0, 0].tolist()
    found = []
    run_jobs(stream_in_a_job, [tmp_path, tmp_path], 2, found.append)
    assert [values for _, values in found] == [expected, expected]
    assert len({pid for pid, _ in found} - {os.getpid()}) == 2


@pytest.mark.slow
def test_workers_end_when_their_parent_was_killed(tmp_path):
    stored(tmp_path / "items.bin", arrays())
    (tmp_path / "wait").touch()
    code = "import sys, pathlib, test_stream; test_stream.stream_in_a_job(pathlib.Path(sys.argv[1]), print, None)"
    here = str(Path(__file__).parent)
    parent = subprocess.Popen([sys.executable, "-u", "-c", code, str(tmp_path)], cwd=here, stdout=subprocess.PIPE)
    parent.stdout.readline()
    workers = [int(pid) for pid in parent.stdout.readline().strip(b"[]\n").split(b",")]
    assert all(is_there(pid) for pid in workers)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(is_there(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    parent.stdout.close()
    assert not any(is_there(pid) for pid in workers)


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("error", "is_dead"),
    [
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."), True),
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (EOFError(), True),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0."), False),
        (FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0."), False),
        (RuntimeError("out of paper"), False),
    ],
)
def test_only_the_end_of_a_worker_is_called_one(error, is_dead, monkeypatch):
    class Failing:
        def __iter__(self):
            raise error

    items = Items(arrays(), "cpu")
    monkeypatch.setattr(stream_module, "_loader", lambda *_: Failing())
    monkeypatch.setattr(stream_module, "_end_workers", lambda *_: None)
    with Stream(items, recipe_for(items), 1) as stream, pytest.raises(PodiumError if is_dead else type(error)):
        list(stream.batches(*epoch_of(0)))
