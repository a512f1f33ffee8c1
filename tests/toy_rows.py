"""What the rows of a made-up competition are: ids, labels, patients, and what their items show.

A picture is four blocks as bright as its latent values, a signal a sum of four sines as strong as they are, so a small
net learns either in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from toy_layouts import Layout

Array = NDArray[Any]
Label = str | float | frozenset[str] | tuple[float, ...]
"""A class, a value, a set of labels, or a share of each class."""

N_TRAIN, N_TEST = 36, 12
N_SAMPLES, N_CHANNELS, RATE_HZ = 96, 3, 8_000
SIZE_PX = 12

_NAMES = {
    "binary": ("0", "1"),
    "words": ("cat", "dog"),
    "multilabel": ("scab", "rust", "mildew", "frog_eye"),
    "ordinal": ("0", "1", "2", "3"),
    "regression": ("0",),
    "soft": ("spiral", "disk", "star"),
}
_SEVERAL = {"words": ("ant", "bee", "red fox", "yak"), "codes": ("11", "25", "38", "47")}


@dataclass(frozen=True)
class Row:
    """One row as the host knows it."""

    id: str
    """What the id column holds."""
    stem: str
    """The name of its file, without suffix."""
    suffix: str
    label: Label
    latent: Array
    """(4,) in 0..1: what its item shows."""
    patient: str
    category: str
    """What the class decides."""
    is_valid: bool
    """Whether the host counts it as validation."""
    key: str
    """The id under which it is submitted; several rows may share one."""


def names_of(layout: Layout) -> tuple[str, ...]:
    """Return class or label names, in the order of the host's columns."""
    return _SEVERAL[layout.spelling] if layout.kind == "multiclass" else _NAMES[layout.kind]


def make_rows(layout: Layout, seed: int) -> tuple[list[Row], list[Row]]:
    """Return the rows of train and test; values and ids follow from the seed."""
    rng = np.random.default_rng([seed, 7])
    numbers = [int(number) for number in rng.permutation(np.arange(100, 9_000))[: N_TRAIN + N_TEST]]
    if layout.sample_id == "number":
        numbers[N_TRAIN:] = [int(layout.first_id) + row for row in range(N_TEST)]
    train = _part(layout, numbers[:N_TRAIN], "p", rng)
    return train, _part(layout, numbers[N_TRAIN:], "q", rng)


def _part(layout: Layout, numbers: Sequence[int], patients: str, rng: np.random.Generator) -> list[Row]:
    """Return the rows of a set; its patients are in no other."""
    per_key = 2 if layout.per_row == "rows" else 1
    labels, latents = _labels(layout, len(numbers) // per_key, is_train=patients == "p", rng=rng)
    rows = []
    for position, number in enumerate(numbers):
        of_key = position // per_key
        label = labels[of_key]
        suffix = suffix_of(layout, position)
        stem = _stem(layout, number, label, is_train=patients == "p")
        row_id = _id(layout, number, stem, suffix)
        key = f"k{numbers[of_key * per_key]}" if per_key > 1 else row_id
        category = f"chain{hash_of(str(label)) % 90 + 10}"
        patient = f"{patients}{position % 12:02d}"  # 12 patients of several classes each
        rows.append(Row(row_id, stem, suffix, label, latents[of_key], patient, category, position % 4 == 3, key))
    return rows


def hash_of(text: str) -> int:
    """Return a number that a text always has."""
    return sum((place + 1) * ord(letter) for place, letter in enumerate(text))


def suffix_of(layout: Layout, position: int) -> str:
    """Return the suffix of the file of a row."""
    if layout.file == "mixed":
        return (".png", ".jpg", ".jpeg")[position % 3]
    return {"dicom": ".dcm"}.get(layout.file, "." + layout.file.rpartition(".")[2])


def _stem(layout: Layout, number: int, label: Label, is_train: bool) -> str:
    if layout.place == "file_names":
        return f"{label}.{number}" if is_train else str(number)
    if layout.ids in ("stem", "suffix"):
        return f"{number * 2_654_435_761 % 2**32:08x}"
    if layout.ids == "dots":
        return f"1.2.826.0.1.{number}.{number * 7_919 % 10_007}"
    return f"{number:05d}" if layout.ids in ("padded", "padded_files") else str(number)


def _id(layout: Layout, number: int, stem: str, suffix: str) -> str:
    if layout.ids == "suffix":
        return stem + suffix
    return str(number) if layout.ids in ("integer", "padded_files") else stem


def _labels(layout: Layout, n: int, is_train: bool, rng: np.random.Generator) -> tuple[list[Label], Array]:
    """Return n labels and what their items show, (n, 4)."""
    names = names_of(layout)
    if layout.kind == "regression":
        values = np.round(1 + 99 * rng.random(n), 2)
        return [float(value) for value in values], np.repeat(values[:, None] / 100, 4, axis=1)
    if layout.kind == "multilabel":
        present = rng.random((n, len(names))) < 0.4
        present[np.arange(n), rng.permutation(np.arange(n) % len(names))] = True
        return [frozenset(np.array(names)[row]) for row in present], present.astype(float)
    index = _classes(layout.counts if is_train else "even", n, len(names), rng)
    if layout.kind == "ordinal":
        return [names[one] for one in index], np.repeat(index[:, None] / 3, 4, axis=1)
    if layout.kind == "soft":
        votes = 6 * np.eye(3, dtype=int)[index] + rng.integers(0, 3, (n, 3))
        shares = votes / votes.sum(axis=1, keepdims=True)
        cells = votes if layout.shares == "votes" else np.round(shares, 6)
        return [tuple(float(cell) for cell in row) for row in cells], np.pad(shares, ((0, 0), (0, 1)))
    return [names[one] for one in index], np.eye(4)[index]


def _classes(counts: str, n: int, k: int, rng: np.random.Generator) -> Array:
    """Return n class indices: equally many of each, one of the last, or nearly all of the first."""
    if counts == "lonely":
        index = np.append(np.arange(n - 1) % (k - 1), k - 1)
    elif counts == "uneven":
        index = np.maximum(np.arange(n) - (n - 2 * k + 1), 0) % k
    else:
        index = np.arange(n) % k
    return rng.permutation(index)


def picture(row: Row, layout: Layout, rng: np.random.Generator, channels_last: bool = True) -> Array:
    """Return what a picture file holds: (H, W) or (H, W, 3), uint8 or uint16; sizes differ where the layout says so."""
    height, width = (SIZE_PX, SIZE_PX) if layout.sizes == "same" else (int(rng.integers(6, 9)) * 2 for _ in "hw")
    image = np.kron(row.latent.reshape(2, 2), np.ones((height // 2, width // 2)))
    image = np.clip(0.15 + 0.7 * image + 0.05 * rng.standard_normal(image.shape), 0, 1)
    if layout.depth == "rgb":
        image = np.stack([image, 1 - image, image**2], axis=-1 if channels_last else 0)
    deep = layout.depth == "grey16"
    return np.round(image * (40_000 if deep else 255)).astype(np.uint16 if deep else np.uint8)


def floats(row: Row, rng: np.random.Generator) -> Array:
    """Return two channels that no picture file could hold: (2, H, W) float32, around -20."""
    image = np.kron(row.latent.reshape(2, 2), np.ones((SIZE_PX // 2, SIZE_PX // 2)))
    both = np.stack([image, 1 - image]) + 0.1 * rng.standard_normal((2, SIZE_PX, SIZE_PX))
    return (5 * both - 22).astype(np.float32)


def signal(row: Row, layout: Layout, rng: np.random.Generator) -> Array:
    """Return a signal with its axes in the layout's order, float32; every fifth has a NaN where there are gaps."""
    time = np.arange(N_SAMPLES) / N_SAMPLES
    waves = np.stack([np.sin(2 * np.pi * 3 * (number + 1) * time) for number in range(4)])
    wave = row.latent @ waves
    channels = np.stack([wave, -wave, 0 * wave]) + 0.2 * rng.standard_normal((N_CHANNELS, N_SAMPLES))
    if layout.gaps == "nan" and hash_of(row.id) % 5 == 0:
        channels[1, 10:13] = np.nan
    turned = {"CT": channels, "TC": channels.T, "1TC": channels.T[None]}[layout.shape]
    return np.ascontiguousarray(turned, dtype=np.float32)


def sound(row: Row, rng: np.random.Generator) -> Array:
    """Return half a second of sound, (T,) float32 in -1..1: a tone for each latent value."""
    time = np.arange(RATE_HZ // 2) / RATE_HZ
    tones = np.stack([np.sin(2 * np.pi * 400 * (number + 1) * time) for number in range(4)])
    return np.asarray(0.2 * row.latent @ tones + 0.01 * rng.standard_normal(len(time)), dtype=np.float32)
