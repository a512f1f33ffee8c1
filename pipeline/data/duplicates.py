"""Near duplicates of images: which rows show the same picture, so that no two folds share it.

Two images are near duplicates when their difference hashes differ in few bits (a cheap sieve) *and* their thumbnails
are close. The second look is needed: a difference hash knows only where an image gets brighter, so blank images and
simple drawings share one though they differ. Copies that were re-encoded, resized or slightly noised are found; crops,
rotations and strong changes of brightness are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError

Ints = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]

THUMB_PX = 16
MAX_DIFF_LEVELS = 6.0
"""Largest mean absolute difference of two thumbnails of duplicates, in grey levels of 0..255."""
MAX_DIFF_FRAC = 0.06
"""The same as a share of the contrast (mean absolute deviation from the channel's mean) of the flatter thumbnail.

Measured: on MNIST's 60 000 training digits the largest group has 5 rows, while 0.08 chains 575 ones together. Of 1000
CIFAR-10 images saved again as JPEG, 99 % are found at quality 95, 87 % at 85 and 28 % at 60 (larger images: more).
"""
_BLOCK = 4096  # hashes per side of a block: 128 MiB of exclusive ors at a time
_CHUNK = 1024  # images per step


@dataclass(frozen=True, eq=False)
class Duplicates:
    """What `find_duplicates` found."""

    groups: Ints
    """(N,) group of each training row, 0..G-1 by first appearance; a row without duplicates is alone in its group."""
    n_exact: int
    """Training rows that are byte for byte an earlier one."""
    n_near: int
    """Pairs of different training images that are near duplicates."""
    train_test_pairs: Ints
    """(M, 2) positions in train and test; of identical training rows only the first is named."""


def find_duplicates(train: UInt8s, test: UInt8s | None = None, max_bits: int = 4) -> Duplicates:
    """Return the exact and near duplicates within the training images, and between them and the test images.

    Args:
        train: (N, C, H, W) or (N, H, W), uint8; may be memory-mapped.
        test: (M, ...) of the same item shape.
        max_bits: how many of 64 bits the hashes of a pair may differ in; 0..10 is sensible.

    Raises:
        DataError: the images are not uint8, or train and test differ in shape.
    """
    _check_images(train, test)
    contents, hashes, thumbs = _describe(train)
    copies = content_groups(contents)
    _, first = np.unique(copies, return_index=True)
    near = first[_confirmed(hashes[first], thumbs[first], None, None, max_bits)]
    same = np.stack([first[copies], np.arange(len(train))], axis=1)
    crossing = np.empty((0, 2), dtype=np.int64)
    if test is not None:
        test_contents, test_hashes, test_thumbs = _describe(test)
        alike = _confirmed(hashes[first], thumbs[first], test_hashes, test_thumbs, max_bits)
        equal = _equal_pairs([contents[i] for i in first], test_contents)
        crossing = np.unique(np.concatenate([alike, equal]), axis=0)
        crossing[:, 0] = first[crossing[:, 0]]
    groups = duplicate_groups(len(train), np.concatenate([same, near]))
    return Duplicates(groups, len(train) - len(first), len(near), crossing)


def content_groups(hashes: Sequence[str]) -> Ints:
    """Return the group of each row, (N,), rows of equal content hash together; numbered by first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(content, len(numbers)) for content in hashes], dtype=np.int64)


def dhash(images: UInt8s) -> UInt64s:
    """Return the 64-bit difference hash of each image, (N,), row by row from the highest bit.

    The image is made grey (ITU-R 601 for three channels, their first three for four, else the mean), averaged down to
    8 rows of 9 pixels, rounded, and a bit is set where a pixel is brighter than its left neighbour.

    Args:
        images: (N, C, H, W) or (N, H, W), uint8.

    Source: https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    small = np.rint(area_resize(_grey(images), 8, 9))
    bits = small[:, :, 1:] > small[:, :, :-1]
    return np.packbits(bits.reshape(len(images), 64), axis=1).view(">u8")[:, 0].astype(np.uint64)


def near_pairs(hashes: UInt64s, max_bits: int, others: UInt64s | None = None) -> Ints:
    """Return the pairs of positions whose hashes differ in at most `max_bits` bits, (M, 2), sorted.

    Args:
        hashes: (N,) of `dhash`.
        max_bits: >= 0.
        others: (M,); without them, pairs i < j within `hashes`, else pairs (i in hashes, j in others).
    """
    blocks = list(_pair_blocks(hashes, max_bits, others))
    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *blocks])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def duplicate_groups(n: int, pairs: Ints) -> Ints:
    """Return the group of each of `n` rows, (n,), rows that `pairs` (M, 2) connect together; by first appearance."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, parts = connected_components(links, directed=False)
    _, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse.reshape(-1)], dtype=np.int64)


def area_resize(images: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Return images (..., H, W) averaged by area to (..., height, width), float32; smaller ones are magnified."""
    rows = _area_weights(images.shape[-2], height)
    columns = _area_weights(images.shape[-1], width)
    return np.asarray(rows @ images.astype(np.float32) @ columns.T, dtype=np.float32)


def popcount(words: UInt64s) -> UInt8s:
    """Return how many bits of each 64-bit word are set, uint8, in the shape of `words`."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.asarray(np.bitwise_count(words))
    table = np.array([number.bit_count() for number in range(2**16)], dtype=np.uint8)
    halves = table[np.ascontiguousarray(words).view(np.uint16)]
    return np.asarray(halves.reshape(*words.shape, 4).sum(axis=-1, dtype=np.uint8))


def _area_weights(n_in: int, n_out: int) -> NDArray[np.float32]:
    """Return (n_out, n_in) how much of each output pixel each input pixel covers; rows sum to one."""
    edges_in, edges_out = np.arange(n_in + 1) * n_out, np.arange(n_out + 1) * n_in  # in units of 1 / (n_in * n_out)
    ends = np.minimum(edges_out[1:, None], edges_in[None, 1:])
    starts = np.maximum(edges_out[:-1, None], edges_in[None, :-1])
    return np.asarray(np.clip(ends - starts, 0, None) / n_in, dtype=np.float32)


def _grey(images: NDArray[Any]) -> NDArray[np.float32]:
    """Return (N, H, W) float32."""
    if images.ndim == 3:
        return images.astype(np.float32)
    if images.shape[1] in (3, 4):
        luma = np.array([0.299, 0.587, 0.114], dtype=np.float32)
        return np.asarray(np.tensordot(luma, images[:, :3], axes=(0, 1)), dtype=np.float32)
    return np.asarray(images.mean(axis=1, dtype=np.float32))


def _describe(images: UInt8s) -> tuple[list[str], UInt64s, UInt8s]:
    """Return the content hashes, difference hashes (N,) and thumbnails (N, C, 16, 16) of images, chunk by chunk."""
    contents: list[str] = []
    hashes, thumbs = np.empty(len(images), dtype=np.uint64), []
    for start in range(0, len(images), _CHUNK):
        chunk = np.ascontiguousarray(images[start : start + _CHUNK])
        contents += [hashlib.blake2b(image, digest_size=16).hexdigest() for image in chunk]
        hashes[start : start + _CHUNK] = dhash(chunk)
        small = np.rint(area_resize(chunk, THUMB_PX, THUMB_PX)).astype(np.uint8)
        thumbs.append(small.reshape(len(chunk), -1, THUMB_PX, THUMB_PX))
    empty = np.empty((0, 1, THUMB_PX, THUMB_PX), dtype=np.uint8)
    return contents, hashes, np.concatenate(thumbs) if thumbs else empty


def _confirmed(
    hashes: UInt64s, thumbs: UInt8s, others: UInt64s | None, other_thumbs: UInt8s | None, max_bits: int
) -> Ints:
    """Return the near pairs whose thumbnails are close too, (M, 2); candidates are looked at block by block."""
    second = thumbs if other_thumbs is None else other_thumbs
    limits, second_limits = _limits(thumbs), _limits(second)
    kept = [np.empty((0, 2), dtype=np.int64)]
    for pairs in _pair_blocks(hashes, max_bits, others):
        for start in range(0, len(pairs), 16 * _CHUNK):
            i, j = pairs[start : start + 16 * _CHUNK].T
            diff = np.abs(thumbs[i].astype(np.int16) - second[j]).mean(axis=(1, 2, 3))
            close = diff <= np.minimum(limits[i], second_limits[j])
            kept.append(np.stack([i[close], j[close]], axis=1))
    return np.concatenate(kept)


def _limits(thumbs: UInt8s) -> NDArray[np.float64]:
    """Return how far off a duplicate of each thumbnail may be, (N,) in grey levels: 0 for blank ones."""
    limits = np.empty(len(thumbs))
    for start in range(0, len(thumbs), _CHUNK):
        chunk = thumbs[start : start + _CHUNK].astype(np.float32)
        contrast = np.abs(chunk - chunk.mean(axis=(2, 3), keepdims=True)).mean(axis=(1, 2, 3))
        limits[start : start + _CHUNK] = np.minimum(MAX_DIFF_LEVELS, MAX_DIFF_FRAC * contrast)
    return limits


def _pair_blocks(hashes: UInt64s, max_bits: int, others: UInt64s | None) -> Iterator[Ints]:
    """Yield the near pairs of one block of hashes against another, so that memory does not grow with N squared."""
    second = hashes if others is None else others
    for i in range(0, len(hashes), _BLOCK):
        for j in range(i if others is None else 0, len(second), _BLOCK):
            bits = popcount(hashes[i : i + _BLOCK, None] ^ second[None, j : j + _BLOCK])
            near = bits <= max_bits
            if others is None and i == j:
                near = np.triu(near, k=1)
            yield np.argwhere(near) + np.array([i, j])


def _equal_pairs(contents: Sequence[str], others: Sequence[str]) -> Ints:
    """Return (position in contents, position in others) of equal ones, (M, 2); `contents` are distinct."""
    at = {content: i for i, content in enumerate(contents)}
    pairs = [(at[content], j) for j, content in enumerate(others) if content in at]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _check_images(train: NDArray[Any], test: NDArray[Any] | None) -> None:
    for name, images in (("train", train), ("test", test)):
        if images is not None and (images.dtype != np.uint8 or images.ndim not in (3, 4)):
            found = f"{images.dtype} of shape {images.shape}"
            raise DataError(f"near duplicates: {name} must be uint8 images (N, C, H, W) or (N, H, W), found {found}")
    if test is not None and test.shape[1:] != train.shape[1:]:
        raise DataError(
            f"near duplicates: train items are {train.shape[1:]}, test items {test.shape[1:]}; use one size"
        )
