import hashlib
import math
import subprocess
import sys
from bisect import bisect_left

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.base import keyed
from pipeline.base.keyed import betas, hash_ids, integers, make_key, normals, permutation, seeded, uniforms

N = 20_000
IDS = hash_ids([f"img_{number:06d}" for number in range(N)])
COUNTERS = np.arange(N, dtype=np.uint64)  # the worst ids for a weak mixer: neighbours differ in one bit

KINDS = {
    "uniforms": (uniforms, lambda draws: draws),
    "integers": (
        lambda key, ids, n, times=None: integers(key, ids, 1000, n, times),
        lambda draws: (draws + 0.5) / 1000,
    ),
    "normals": (normals, stats.norm.cdf),
    "betas": (
        lambda key, ids, n, times=None: betas(key, ids, 0.4, 1.5, n, times),
        lambda draws: stats.beta(0.4, 1.5).cdf(draws),
    ),
}
"""Every kind of draw, and what makes it even over 0..1 again."""


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


# -- integers, normals, betas ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_draws_of_every_kind_are_the_same_in_any_batch_split_and_order(kind):
    draw, _ = KINDS[kind]
    key, times = make_key("any", 1), (COUNTERS % np.uint64(3))[:256]
    whole = draw(key, IDS[:256], 3, times)
    for size in (1, 7, 100):
        parts = [draw(key, IDS[at : at + size][: 256 - at], 3, times[at : at + size]) for at in range(0, 256, size)]
        np.testing.assert_array_equal(whole, np.concatenate(parts))
    order = np.random.default_rng(0).permutation(256)
    np.testing.assert_array_equal(whole[order], draw(key, IDS[:256][order], 3, times[order]))
    np.testing.assert_array_equal(whole[:, :1], draw(key, IDS[:256], 1, times))
    np.testing.assert_array_equal(draw(key, IDS[:256], 3), draw(key, IDS[:256].copy(), 3))


@pytest.mark.parametrize("kind", KINDS)
def test_neighbouring_ids_epochs_occurrences_and_draws_of_every_kind_are_unrelated(kind):
    draw, to_uniform = KINDS[kind]
    table = to_uniform(draw(make_key("any", 0), COUNTERS, 3))
    assert are_unrelated(table[:-1, 0], table[1:, 0])
    assert are_unrelated(table[:, 0], table[:, 1])
    assert are_unrelated(table[:-1, 1], table[1:, 0])
    assert are_unrelated(table[:, 0], to_uniform(draw(make_key("any", 1), COUNTERS, 1))[:, 0])
    once, twice = np.zeros(N, dtype=np.uint64), np.ones(N, dtype=np.uint64)
    first, second = (to_uniform(draw(make_key("any", 0), COUNTERS, 1, times))[:, 0] for times in (once, twice))
    assert are_unrelated(first, second)


@pytest.mark.parametrize("ids", [IDS, COUNTERS], ids=["hashes", "counters"])
@pytest.mark.parametrize("high", [1, 2, 7, 256, 1000])
def test_integers_below_a_number_are_equally_likely(ids, high):
    table = integers(make_key("any"), ids, high, 2)
    assert table.dtype == np.int64
    assert table.shape == (N, 2)
    counts = np.bincount(table.ravel(), minlength=high)
    assert len(counts) == high
    assert high == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_integers_are_the_exact_product_rounded_down():
    draws = [int(draw) for draw in uniforms(5, IDS[:200], 1)[:, 0] * 2**53]
    for high in (1, 3, 10, 12345, 2**31):
        assert integers(5, IDS[:200], high, 1)[:, 0].tolist() == [draw * high >> 53 for draw in draws]


def test_the_largest_and_the_smallest_uniform_stay_below_high_and_finite(monkeypatch):
    for extreme in (0.0, 1 - 2.0**-53):
        monkeypatch.setattr(keyed, "uniforms", lambda *_, value=extreme: np.array([[value]]))
        for high in (1, 2, 3, 10, 10**6 + 3, 10**15 + 1, 2**53 - 1, 2**53):
            assert integers(0, IDS[:1], high, 1).item() == (high - 1 if extreme else 0)
        assert 8 < abs(normals(0, IDS[:1], 1).item()) < 8.3
        assert 0 <= betas(0, IDS[:1], 0.2, 0.2, 1).item() <= 1


@pytest.mark.parametrize("high", [2, 3, 7, 1000, 10**6 + 3, 10**12 + 39])
def test_the_bias_of_integers_is_as_small_as_stated(high):
    """How many of the 2**53 uniforms each integer gets, counted from where it begins."""

    def start(value):
        return bisect_left(range(2**53), value, key=lambda bits: math.floor(bits * 2.0**-53 * high))

    for value in {0, 1, high // 3, high // 2, high - 1}:
        end = 2**53 if value == high - 1 else start(value + 1)
        assert abs((end - start(value)) / 2**53 - 1 / high) < 2.0**-52


@pytest.mark.parametrize("high", [0, -1, 2**53 + 1])
def test_an_impossible_number_of_integers_is_refused(high):
    with pytest.raises(ValueError, match=rf"high: {high} is not within 1..2\*\*53"):
        integers(0, IDS[:1], high, 1)


@pytest.mark.parametrize("ids", [IDS, COUNTERS], ids=["hashes", "counters"])
def test_normals_follow_the_normal_distribution_and_rise_with_the_uniforms(ids):
    table = normals(make_key("any"), ids, 2)
    assert (table.dtype, table.shape) == (np.float64, (N, 2))
    assert all(stats.kstest(table[:, column], "norm").pvalue > 1e-3 for column in range(2))
    assert table.mean() == pytest.approx(0, abs=0.02)
    assert table.std() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(stats.norm.cdf(table), uniforms(make_key("any"), ids, 2), atol=1e-12)


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.2), (1.0, 1.0), (0.5, 2.0), (8.0, 3.0)])
def test_betas_follow_the_beta_distribution(alpha, beta):
    table = betas(make_key("any"), COUNTERS, alpha, beta, 2)
    assert (table.dtype, table.shape) == (np.float64, (N, 2))
    assert 0 <= table.min() <= table.max() <= 1
    assert all(stats.kstest(table[:, column], stats.beta(alpha, beta).cdf).pvalue > 1e-3 for column in range(2))
    assert table.mean() == pytest.approx(alpha / (alpha + beta), abs=0.01)


def test_betas_of_one_and_one_are_the_uniforms():
    np.testing.assert_allclose(betas(3, IDS[:50], 1.0, 1.0, 4), uniforms(3, IDS[:50], 4), atol=1e-15)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 1.0), (1.0, -2.0), (float("nan"), 1.0)])
def test_parameters_that_are_not_positive_are_refused(alpha, beta):
    with pytest.raises(ValueError, match=rf"alpha: {alpha} and beta: {beta} must be positive"):
        betas(0, IDS[:1], alpha, beta, 1)


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
