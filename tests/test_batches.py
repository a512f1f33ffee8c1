import numpy as np
import pytest
import torch

from pipeline.base.keyed import hash_ids, make_key, uniforms
from pipeline.data.batches import (
    EpochOrder,
    Items,
    balanced,
    batches_of,
    channel_stats,
    draws_of,
    even_slices,
    neighbours,
    samples_of,
    shuffled,
)

IDS = np.array([f"r{number:03d}" for number in range(60)], dtype=object)
ITEMS = tuple((number,) for number in range(60))
ALL = np.arange(60)


def ids_in_order(samples, ids, order):
    return [ids[row] for row in samples.row[order.sample]]


def moved(seed=0):
    """The same rows in another order of the table."""
    order = np.random.default_rng(seed).permutation(60)
    return order, IDS[order], tuple(ITEMS[row] for row in order)


# -- samples -----------------------------------------------------------------------------------------------------------


def test_a_sample_is_one_item_of_a_row_with_a_key_of_its_own():
    samples = samples_of(["a", "b", "c"], [(4,), (5, 6), (7,)], np.array([1, 0]))
    assert len(samples) == 3
    assert samples.row.tolist() == [1, 1, 0]
    assert samples.item.tolist() == [5, 6, 4]
    assert samples.key[0] == hash_ids(["b"])[0]
    assert len(np.unique(samples.key)) == 3


def test_the_key_of_a_sample_does_not_depend_on_its_place_or_on_the_other_rows():
    one = samples_of(["x", "a"], [(0,), (1, 2)], np.array([1]))
    other = samples_of(["a"], [(8, 9)], np.array([0]))
    np.testing.assert_array_equal(one.key, other.key)


def test_no_rows_make_no_samples():
    assert len(samples_of(IDS, ITEMS, np.array([], dtype=np.int64))) == 0


# -- orders ------------------------------------------------------------------------------------------------------------


def test_a_shuffle_has_every_sample_once_and_another_order_in_each_epoch_and_seed():
    samples = samples_of(IDS, ITEMS, ALL)
    orders = [shuffled(samples, seed, epoch) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order.sample), ALL)
        assert not order.occurrence.any()
    assert len({tuple(order.sample) for order in orders}) == 3
    np.testing.assert_array_equal(orders[0].sample, shuffled(samples, 0, 0).sample)


def test_orders_depend_on_the_ids_and_not_on_the_order_of_the_table():
    order, ids, items = moved()
    labels = np.repeat([0, 1, 2], [40, 15, 5])
    here, there = samples_of(IDS, ITEMS, ALL), samples_of(ids, items, ALL)
    assert ids_in_order(here, IDS, shuffled(here, 3, 2)) == ids_in_order(there, ids, shuffled(there, 3, 2))
    one, other = balanced(here, labels, 3, 2), balanced(there, labels[order], 3, 2)
    assert ids_in_order(here, IDS, one) == ids_in_order(there, ids, other)
    np.testing.assert_array_equal(one.occurrence, other.occurrence)


@pytest.mark.parametrize("counts", [(40, 15, 5), (20, 20, 20), (58, 1, 1), (31, 29)])
def test_a_balanced_epoch_has_every_class_equally_often_and_repeats_evenly(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    samples = samples_of(IDS, ITEMS, ALL)
    order = balanced(samples, labels, 0, 5)
    assert len(order.sample) == 60
    per_class = np.bincount(labels[order.sample])
    assert per_class.max() - per_class.min() <= 1
    for label in range(len(counts)):
        times = np.bincount(order.sample, minlength=60)[labels == label]
        assert times.max() - times.min() <= 1
    assert not np.array_equal(order.sample, balanced(samples, labels, 0, 6).sample)


def test_a_balanced_epoch_mixes_the_classes_and_skips_those_without_rows():
    labels = np.repeat([0, 7], [50, 10])
    order = balanced(samples_of(IDS, ITEMS, ALL), labels, 0, 0)
    first_half = np.bincount(labels[order.sample[:30]])[[0, 7]]
    assert first_half.min() >= 8
    assert set(labels[order.sample]) == {0, 7}


def test_occurrences_count_how_often_a_sample_came_before():
    order = balanced(samples_of(IDS, ITEMS, ALL), np.repeat([0, 1], [57, 3]), 0, 0)
    seen = {}
    slow = []
    for sample in order.sample:
        slow.append(seen.get(sample, 0))
        seen[sample] = slow[-1] + 1
    assert order.occurrence.tolist() == slow
    assert max(slow) == 9


# -- slices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 64, 100, 129])
@pytest.mark.parametrize("batch_size", [1, 2, 32, 128])
def test_even_slices_cover_everything_once_are_within_one_and_never_too_large(n, batch_size):
    slices = even_slices(n, batch_size)
    assert [place for part in slices for place in range(n)[part]] == list(range(n))
    sizes = [part.stop - part.start for part in slices]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size
    assert len(slices) == -(-n // batch_size)


def test_neighbours_are_grouped_up_to_a_number_of_samples():
    parts = even_slices(60, 6)
    assert neighbours(parts, 1) == [[part] for part in parts]
    assert neighbours(parts, 12) == [parts[start : start + 2] for start in range(0, 10, 2)]
    assert neighbours(parts, 17) == neighbours(parts, 12)
    assert neighbours([parts[0], parts[2], parts[3], parts[1]], 100) == [[parts[0]], parts[2:4], [parts[1]]]
    assert neighbours([], 5) == []


def test_batches_of_cover_everything_and_only_the_last_is_short():
    assert [(part.start, part.stop) for part in batches_of(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(batches_of(0, 3)) == []


# -- draws -------------------------------------------------------------------------------------------------------------


def test_draws_of_a_sample_do_not_depend_on_the_batches_or_the_order_of_the_table():
    def draws_by_id(ids, items, labels, batch_size):
        samples = samples_of(ids, items, ALL)
        order = balanced(samples, labels, 1, 4)
        found = {}
        for part in even_slices(60, batch_size):
            table = draws_of(samples, order, part, "cpu", 1, 4)("shift", 3)
            assert table.dtype == torch.float64
            for place, row in zip(range(60)[part], table, strict=True):
                found[ids[samples.row[order.sample[place]]], int(order.occurrence[place])] = tuple(row.tolist())
        return found

    labels = np.repeat([0, 1], [50, 10])
    order, ids, items = moved()
    expected = draws_by_id(IDS, ITEMS, labels, 7)
    assert len(expected) == len(set(expected.values())) == 60
    assert draws_by_id(ids, items, labels[order], 60) == expected


def test_draws_differ_by_name_epoch_seed_and_occurrence():
    samples = samples_of(IDS, ITEMS, ALL)
    order = EpochOrder(np.array([5, 5]), np.array([0, 1], dtype=np.uint64))
    first, second = draws_of(samples, order, slice(0, 2), "cpu", 0, 0)("shift", 2).numpy()
    once = np.zeros(1, dtype=np.uint64)
    np.testing.assert_array_equal(first, uniforms(make_key("augment", 0, 0, "shift"), hash_ids(["r005"]), 2, once)[0])
    purposes = [(0, 1, "shift"), (1, 0, "shift"), (0, None, "shift"), (0, 0, "flip")]
    others = [draws_of(samples, order, slice(0, 1), "cpu", *key)(name, 2).numpy()[0] for *key, name in purposes]
    assert len({tuple(row) for row in [first, second, *others]}) == 6


# -- items -------------------------------------------------------------------------------------------------------------


def stored(path, array):
    """An array as a store maps it: read-only, from a file."""
    path.write_bytes(np.ascontiguousarray(array).tobytes())
    return np.memmap(path, dtype=array.dtype, mode="r", shape=array.shape)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_items_of_a_map_come_as_they_are_stored_and_without_a_warning(tmp_path, dtype):
    array = (np.random.default_rng(0).random((9, 3, 4, 5)) * (255 if dtype == "uint8" else 65535)).astype(dtype)
    array[0].flat[0], array[1].flat[0] = 0, 255 if dtype == "uint8" else 65535
    items = Items(stored(tmp_path / "items.bin", array), "cpu")
    assert len(items) == 9
    assert items.shape == (3, 4, 5)
    batch = items.fetch(np.array([8, 0, 0, 1]))
    assert batch.dtype == (torch.uint8 if dtype == "uint8" else torch.float32)
    np.testing.assert_array_equal(batch.numpy(), array[[8, 0, 0, 1]].astype(batch.numpy().dtype))


def test_a_changed_batch_changes_neither_the_items_nor_the_file(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    items = Items(stored(tmp_path / "items.bin", array), "cpu")
    items.fetch(np.array([1])).zero_()
    np.testing.assert_array_equal(items.fetch(np.array([1]))[0].numpy(), array[1])
    assert (tmp_path / "items.bin").read_bytes() == array.tobytes()


def test_a_slice_of_a_map_and_a_read_only_array_are_the_items_that_they_show(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    part = stored(tmp_path / "items.bin", array)[2:]
    np.testing.assert_array_equal(Items(part, "cpu").fetch(np.array([0, 1])).numpy(), array[2:])
    array.flags.writeable = False
    np.testing.assert_array_equal(Items(array, "cpu").fetch(np.array([3]))[0].numpy(), array[3])


@pytest.mark.gpu
def test_items_on_a_gpu_are_those_on_the_cpu(tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (6, 1, 4, 4)).astype(np.uint16)
    items = Items(stored(tmp_path / "items.bin", array), "cuda")
    batch = items.fetch(np.array([5, 2]))
    assert batch.is_cuda
    np.testing.assert_array_equal(batch.cpu().numpy(), array[[5, 2]].astype(np.float32))


# -- statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 30)])
def test_statistics_are_those_of_numpy_over_the_given_items_only(tmp_path, dtype, shape):
    array = (np.random.default_rng(1).random((40, *shape)) * 250).astype(dtype)
    array[::2] //= 2
    chosen = np.arange(1, 40, 2)
    mean, std = channel_stats(Items(stored(tmp_path / "i", array), "cpu"), chosen, chunk=7)
    axes = (0, *range(2, array.ndim))
    assert mean.dtype == std.dtype == torch.float64
    np.testing.assert_allclose(mean, array[chosen].astype(np.float64).mean(axis=axes), rtol=1e-12)
    np.testing.assert_allclose(std, array[chosen].astype(np.float64).std(axis=axes), rtol=1e-9)


def test_values_that_are_not_finite_are_left_out():
    array = np.random.default_rng(2).normal(size=(5, 1, 20)).astype(np.float32)
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    mean, std = channel_stats(Items(array, "cpu"), np.arange(5))
    finite = array[np.isfinite(array)].astype(np.float64)
    np.testing.assert_allclose([mean.item(), std.item()], [finite.mean(), finite.std()], rtol=1e-9)


def test_a_constant_channel_has_the_deviation_one_and_a_tiny_one_its_own():
    array = np.zeros((4, 3, 50), dtype=np.float32)
    array[:, 1] = 0.1
    array[:, 2] = np.random.default_rng(3).normal(0, 1e-13, (4, 50))  # a magnetic field in tesla
    mean, std = channel_stats(Items(array, "cpu"), np.arange(4))
    assert std[:2].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(mean[:2], [0.0, 0.1], rtol=1e-6)
    np.testing.assert_allclose(std[2], array[:, 2].astype(np.float64).std(), rtol=1e-6)


def test_channel_stats_of_bytes_are_those_of_the_same_values_as_floats():
    array = np.random.default_rng(0).integers(0, 256, (50, 3, 9, 7), dtype=np.uint8)
    array[:, 2] = 200
    found = channel_stats(Items(array, "cpu"), np.arange(40), chunk=16)
    wanted = channel_stats(Items(array.astype(np.float32), "cpu"), np.arange(40), chunk=16)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert found[1][2] == 1.0
