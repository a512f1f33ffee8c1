from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from pipeline.base.errors import DataError
from pipeline.data import duplicates
from pipeline.data.duplicates import (
    area_resize,
    content_groups,
    dhash,
    duplicate_groups,
    find_duplicates,
    near_pairs,
    popcount,
)


def photos(n: int, seed: int = 0, size: int = 32, channels: int = 3) -> np.ndarray:
    """Smooth random pictures with plenty of contrast, (n, channels, size, size)."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (n, channels, 8, 8))
    return area_resize(coarse, size, size).round().astype(np.uint8)


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


def test_rows_of_equal_content_share_a_group_numbered_by_first_appearance():
    assert content_groups(["x", "a", "x", "b", "a"]).tolist() == [0, 1, 0, 2, 1]


def test_hash_equals_the_plain_loop_over_pixels():
    image = np.random.default_rng(1).integers(0, 256, (1, 16, 18), dtype=np.uint8)
    small = image[0].reshape(8, 2, 9, 2).mean(axis=(1, 3))
    expected = 0
    for row in np.rint(small):
        for left, right in itertools.pairwise(row):
            expected = expected * 2 + int(right > left)
    assert int(dhash(image)[0]) == expected


def test_hash_of_a_rising_ramp_is_all_ones_and_of_a_flat_image_all_zeros():
    ramp = np.broadcast_to(np.arange(0, 252, 7, dtype=np.uint8), (1, 20, 36))
    assert int(dhash(ramp)[0]) == 2**64 - 1
    for level in (0, 77, 255):
        assert int(dhash(np.full((1, 3, 31, 29), level, np.uint8))[0]) == 0


def test_hash_ignores_alpha_and_takes_grey_channels_alike():
    rgb = photos(4)
    alpha = np.random.default_rng(0).integers(0, 256, (4, 1, 32, 32), dtype=np.uint8)
    assert (dhash(np.concatenate([rgb, alpha], axis=1)) == dhash(rgb)).all()
    grey = photos(4, channels=1)
    assert (dhash(grey) == dhash(grey[:, 0])).all()


@pytest.mark.parametrize(("height", "width"), [(7, 5), (16, 16), (3, 40)])
def test_area_resize_keeps_the_mean_and_equals_the_integral(height, width):
    image = np.random.default_rng(0).uniform(size=(2, 14, 15))
    fine = image.repeat(height, axis=1).repeat(width, axis=2)
    expected = fine.reshape(2, height, 14, width, 15).mean(axis=(2, 4))
    assert np.allclose(area_resize(image, height, width), expected, atol=1e-6)


def slow_pairs(hashes, max_bits, others=None):
    second = hashes if others is None else others
    return [
        [i, j]
        for i, a in enumerate(hashes.tolist())
        for j, b in enumerate(second.tolist())
        if (others is not None or i < j) and (a ^ b).bit_count() <= max_bits
    ]


@pytest.mark.parametrize("max_bits", [0, 3, 27])
def test_near_pairs_equal_the_double_loop_in_blocks_of_any_size(max_bits, monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 2**64, 60, dtype=np.uint64)
    hashes[40:50] = hashes[:10] ^ np.uint64(5)
    hashes[50:] = hashes[:10]
    for block in (7, 4096):
        monkeypatch.setattr(duplicates, "_BLOCK", block)
        assert near_pairs(hashes, max_bits).tolist() == slow_pairs(hashes, max_bits)
        assert near_pairs(hashes, max_bits, hashes[45:]).tolist() == slow_pairs(hashes, max_bits, hashes[45:])


def test_near_pairs_of_nothing_is_empty():
    assert near_pairs(np.empty(0, np.uint64), 4).shape == (0, 2)


def test_bits_are_counted_alike_with_and_without_numpy_2(monkeypatch):
    words = np.random.default_rng(0).integers(0, 2**64, (5, 7), dtype=np.uint64)
    expected = [[int(word).bit_count() for word in row] for row in words]
    assert popcount(words).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert popcount(words).tolist() == expected


def test_groups_connect_through_chains_of_pairs():
    pairs = np.array([[4, 1], [1, 3], [5, 2]])
    assert duplicate_groups(7, pairs).tolist() == [0, 1, 2, 1, 1, 2, 3]
    assert duplicate_groups(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]


def test_exact_and_recompressed_copies_are_found_and_nothing_else():
    images = photos(50)
    train = np.concatenate([images, images[[3, 3]], as_jpeg(images[7], 95)[None]])
    found = find_duplicates(train, np.stack([images[3], as_jpeg(images[9], 95), photos(1, seed=9)[0]]))
    expected = [*range(50), 3, 3, 7]
    assert found.groups.tolist() == expected
    assert (found.n_exact, found.n_near) == (2, 1)
    assert found.train_test_pairs.tolist() == [[3, 0], [9, 1]]


def test_blank_and_faint_images_are_not_lumped_together():
    rng = np.random.default_rng(0)
    faint = (120 + rng.integers(0, 3, (20, 1, 32, 32))).astype(np.uint8)
    blank = np.broadcast_to(np.arange(10, 20, dtype=np.uint8)[:, None, None, None], (10, 1, 32, 32))
    train = np.concatenate([faint, blank, blank[:1]])
    found = find_duplicates(train)
    assert found.groups.tolist() == [*range(30), 20]
    assert (found.n_exact, found.n_near) == (1, 0)


def test_images_that_only_share_a_hash_are_not_duplicates():
    image = photos(1)[0]
    darker = (image // 2).astype(np.uint8)
    assert len(near_pairs(dhash(np.stack([image, darker])), 4)) == 1
    assert find_duplicates(np.stack([image, darker])).n_near == 0


def test_images_that_differ_in_colour_only_are_not_duplicates():
    image = photos(1)[0]
    turned = image[[2, 1, 0]]
    assert find_duplicates(np.stack([image, turned]), max_bits=64).n_near == 0


def test_the_chunk_size_changes_nothing(monkeypatch):
    images = photos(30)
    train = np.concatenate([images, np.stack([as_jpeg(image, 95) for image in images[:5]])])
    whole = find_duplicates(train)
    monkeypatch.setattr(duplicates, "_CHUNK", 4)
    assert find_duplicates(train).groups.tolist() == whole.groups.tolist()
    assert whole.n_near == 5


def test_other_types_and_shapes_are_refused():
    with pytest.raises(DataError, match=r"train must be uint8 images .* found float32"):
        find_duplicates(np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(DataError, match=r"train items are \(3, 32, 32\), test items \(3, 16, 16\)"):
        find_duplicates(photos(2), photos(2, size=16))
