import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.base.keyed import hash_ids, make_key, permutation, seeded, uniforms

N = 20_000
IDS = hash_ids([f"img_{number:06d}" for number in range(N)])
COUNTERS = np.arange(N, dtype=np.uint64)  # the worst ids for a weak mixer: neighbours differ in one bit


def is_uniform(draws):
    """No test of seeded numbers may flake, so the bound is far out: p above one in a thousand."""
    return stats.kstest(np.ravel(draws), "uniform").pvalue > 1e-3


def are_unrelated(first, second):
    """Neither a straight line nor a dependence of any kind on a 10 x 10 grid."""
    grid = np.histogram2d(first, second, bins=10, range=[[0, 1], [0, 1]])[0]
    return stats.pearsonr(first, second).pvalue > 1e-3 and stats.chisquare(grid.ravel()).pvalue > 1e-3


# -- keys and hashes ---------------------------------------------------------------------------------------------------


def test_a_key_tells_apart_words_numbers_and_where_they_are_cut():
    parts = [("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"), ("a", 1), ("a", "1"), ("a", 11), ("a", 1, 1), ("a", -1)]
    keys = [make_key(*some) for some in parts]
    assert len(set(keys)) == len(parts)
    assert all(0 <= key < 2**64 for key in keys)


def test_keys_and_hashes_are_the_same_in_another_process_and_stay_what_they_are():
    code = "from pipeline.base.keyed import *; print(make_key('order', 1, 2), *hash_ids(['007', 'ü']))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [int(word) for word in other] == [make_key("order", 1, 2), *hash_ids(["007", "ü"]).tolist()]
    slow = int.from_bytes(hashlib.blake2b(b"007", digest_size=8).digest(), "little")
    assert hash_ids(["007"]).tolist() == [slow]


def test_hashes_of_similar_ids_are_distinct_and_writable():
    texts = ["7", "07", "007", "7 ", "7.0", *[str(number) for number in range(1000, 9000)]]
    hashes = hash_ids(texts)
    assert hashes.dtype == np.uint64
    assert len(np.unique(hashes)) == len(texts)
    assert len(hash_ids([])) == 0


# -- draws -------------------------------------------------------------------------------------------------------------


def test_draws_are_a_function_of_key_id_occurrence_and_number_only():
    key = make_key("augment", 0, 3)
    occurrence = (COUNTERS % np.uint64(3))[:50]
    batch = uniforms(key, IDS[:50], 6, occurrence)
    alone = np.concatenate([uniforms(key, IDS[row : row + 1], 6, occurrence[row : row + 1]) for row in range(50)])
    np.testing.assert_array_equal(batch, alone)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(batch[order], uniforms(key, IDS[order], 6, occurrence[order]))
    np.testing.assert_array_equal(batch[:, :2], uniforms(key, IDS[:50], 2, occurrence))


def test_draws_do_not_change_with_the_library_version():
    def slow(key, name, occurrence, number):
        def mix(bits):
            bits = (bits + 0x9E3779B97F4A7C15) % 2**64
            bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
            bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) % 2**64
            return bits ^ (bits >> 31)

        base = mix(mix(name ^ key) + occurrence * 0x9E3779B97F4A7C15 & (2**64 - 1))
        return (mix((base + (number + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**53

    key, names = make_key("x"), [0, 1, 2**63, 2**64 - 1]
    table = uniforms(key, np.array(names, dtype=np.uint64), 3, np.array([0, 1, 2, 3], dtype=np.uint64))
    expected = [[slow(key, name, row, number) for number in range(3)] for row, name in enumerate(names)]
    np.testing.assert_array_equal(table, expected)


@pytest.mark.parametrize("ids", [IDS, COUNTERS], ids=["hashes", "counters"])
def test_draws_are_uniform_in_every_column_and_lie_in_the_half_open_interval(ids):
    table = uniforms(make_key("augment", 0, 0), ids, 4)
    assert table.shape == (N, 4)
    assert table.dtype == np.float64
    assert table.min() >= 0
    assert table.max() < 1
    assert is_uniform(table)
    assert all(is_uniform(table[:, column]) for column in range(4))


@pytest.mark.parametrize("ids", [IDS, COUNTERS], ids=["hashes", "counters"])
def test_neighbouring_ids_draws_epochs_seeds_and_occurrences_are_unrelated(ids):
    table = uniforms(make_key("augment", 0, 0), ids, 3)
    assert are_unrelated(table[:-1, 0], table[1:, 0])
    assert are_unrelated(table[:, 0], table[:, 1])
    assert are_unrelated(table[:-1, 1], table[1:, 0])
    assert are_unrelated(table[:, 0], uniforms(make_key("augment", 0, 1), ids, 1)[:, 0])
    assert are_unrelated(table[:, 0], uniforms(make_key("augment", 1, 0), ids, 1)[:, 0])
    once, twice = np.zeros(N, dtype=np.uint64), np.ones(N, dtype=np.uint64)
    first, second = (uniforms(make_key("augment", 0, 0), ids, 2, times) for times in (once, twice))
    assert are_unrelated(first[:, 0], second[:, 0])
    assert are_unrelated(first[:, 1], second[:, 0])


def test_draws_of_one_id_over_many_epochs_are_uniform_and_unrelated():
    by_epoch = np.array([uniforms(make_key("augment", 0, epoch), IDS[:1], 2)[0] for epoch in range(5000)])
    assert is_uniform(by_epoch[:, 0])
    assert are_unrelated(by_epoch[:-1, 0], by_epoch[1:, 0])
    assert are_unrelated(by_epoch[:, 0], by_epoch[:, 1])


def test_no_draws_and_no_ids_are_empty_tables():
    assert uniforms(1, IDS[:3], 0).shape == (3, 0)
    assert uniforms(1, IDS[:0], 2).shape == (0, 2)


def test_inputs_are_left_untouched():
    ids, occurrence = IDS[:5].copy(), np.arange(5, dtype=np.uint64)
    uniforms(3, ids, 2, occurrence)
    np.testing.assert_array_equal(ids, IDS[:5])
    np.testing.assert_array_equal(occurrence, np.arange(5))


# -- orders ------------------------------------------------------------------------------------------------------------


def test_a_permutation_holds_every_place_once_and_depends_on_the_key_alone():
    for n in (0, 1, 2, 1000):
        order = permutation(make_key("order", 0, 0), n)
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(n))
    np.testing.assert_array_equal(permutation(5, 1000), permutation(5, 1000))
    assert (permutation(5, 1000) != permutation(6, 1000)).mean() > 0.9


def test_every_order_of_four_is_equally_likely():
    orders = [tuple(permutation(make_key("order", 0, epoch), 4)) for epoch in range(6000)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


# -- torch's own generator ---------------------------------------------------------------------------------------------


def test_seeded_gives_the_same_numbers_for_a_key_whatever_ran_before():
    with seeded(make_key("init", 0)):
        first = torch.rand(5)
    torch.rand(7)
    with seeded(make_key("init", 0)):
        assert torch.equal(first, torch.rand(5))
    with seeded(make_key("init", 1)):
        assert not torch.equal(first, torch.rand(5))


def test_seeded_restores_the_global_generator_also_after_an_error():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    with pytest.raises(RuntimeError, match="inside"), seeded(2**64 - 1):
        raise RuntimeError(f"inside {torch.rand(1)}")
    assert torch.equal(torch.rand(3), expected)
