"""Transforms of albumentations 2.0, built from the config with every mistake named, and drawn per sample.

augment:
  albumentations:
    - HorizontalFlip
    - RandomCrop: {height: 28, width: 28, pad_if_needed: true}
    - OneOf: {p: 0.5, transforms: [{GaussianBlur: {blur_limit: [3, 5]}}, MotionBlur]}

Left to itself the library repeats its draws in every worker and every epoch
(https://github.com/albumentations-team/albumentations/issues/2473). Here each sample brings a seed of its own, and the
transforms are tried on made-up images before anything runs. The library is imported at first use.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.augment.transforms import Entry, Node, make_transforms, text_of
from pipeline.base.errors import ConfigError, DataError, listed
from pipeline.base.keyed import UInt64s

Array = NDArray[Any]
Shape = tuple[int, ...]
KEY = "augment.albumentations"

_N_TRIALS = 8
"""Draws that a transform is tried with on images of each size."""
_N_SHAPES = 4
"""Sizes that are followed where there are several."""


class SampleError(DataError):
    """A transform failed on one sample; `index` is its place in the batch."""

    def __init__(self, message: str, index: int = 0) -> None:  # the default lets it be unpickled
        super().__init__(message)
        self.index = index


class Recipe:
    """Transforms in a row, for batches of stored images; what a sample becomes follows from its seed alone.

    It is pickled as its entries and made anew from them. `build_recipe` also tries it.

    Args:
        entries: names or blocks.
        full_scale: the value of full white: 255 for uint8, 65535 or 1 for float32.
        out_shape: (C, H, W) of the results.
    """

    def __init__(self, entries: Sequence[Entry], full_scale: float, out_shape: Shape) -> None:
        self.entries = tuple(entries)
        self.full_scale = full_scale
        self.out_shape = out_shape
        self._nodes = make_transforms(self.entries, KEY)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recipe, (self.entries, self.full_scale, self.out_shape)

    def __call__(self, items: Array, seeds: UInt64s) -> Array:
        """Return the transformed images, a new array (B, *out_shape) of the same type.

        Args:
            items: (B, C, H, W), uint8, or float32 in 0..full_scale; left untouched.
            seeds: (B,) one for each image.

        Raises:
            SampleError: a transform failed on an image, or gave another shape or type than on those of the trial.
        """
        results = np.empty((len(items), *self.out_shape), items.dtype)
        with _quiet():
            for index, (item, seed) in enumerate(zip(items, seeds, strict=True)):
                try:
                    results[index] = self._transformed(item, int(seed))
                except Exception as error:
                    raise SampleError(f"{KEY}: {text_of(error)}", index) from error
        return results

    def _transformed(self, item: Array, seed: int) -> Array:
        """Return one image (C, H, W), changed."""
        image = np.array(item.transpose(1, 2, 0), order="C")
        if image.dtype == np.float32:
            image /= self.full_scale
            if not (image.min() >= -1e-4 and image.max() <= 1 + 1e-4):
                low, high = float(item.min()), float(item.max())
                raise ValueError(f"takes values of 0..{self.full_scale:g}, and this image has {low:g}..{high:g}")
        generators = np.random.default_rng(seed), random.Random(seed)
        for node in self._nodes:
            node.transform.set_random_state(*generators)
            try:
                image = node.transform(image=image)["image"]
            except Exception as error:
                raise RuntimeError(f"{node.name}: {text_of(error)}") from error
        result: Array = image.transpose(2, 0, 1)
        if result.shape != self.out_shape or result.dtype != item.dtype:
            raise ValueError(f"gives {result.dtype} {result.shape}; a batch takes {item.dtype} {self.out_shape}")
        return result if result.dtype == np.uint8 else result * np.float32(self.full_scale)


def build_recipe(entries: Sequence[Entry], in_shape: Shape, full_scale: float) -> Recipe:
    """Return the transforms that a config names, tried on made-up images of the size and type of the stored ones.

    Args:
        entries: names or blocks, as `Augment.albumentations` has them; at least one.
        in_shape: (C, H, W) as stored.
        full_scale: of the stored images, as `Items.full_scale` has it: 255 (uint8), 65535 or 1 (float32).

    Raises:
        ConfigError: a transform or argument is unknown, a value is not allowed, images of this shape or type are not
            taken, or results have several sizes; the message starts with the place, such as
            `augment.albumentations[2].RandomCrop.height`.
    """
    trial = _Trial(np.dtype(np.uint8 if full_scale == 255 else np.float32))
    shapes: set[Shape] = {(in_shape[1], in_shape[2], in_shape[0])}
    with _quiet():
        for node in make_transforms(entries, KEY):
            shapes = trial.through(node, shapes)
    if len(shapes) > 1:
        sizes = listed(sorted(f"{height} x {width}" for height, width, _ in shapes), 3)
        raise ConfigError(f"{trial.culprit}: leaves images of several sizes ({sizes}); {trial.advice}")
    ((height, width, channels),) = shapes
    return Recipe(entries, full_scale, (channels, height, width))


# ---------------------------------------------------------------------------------------------------------------------
# The trial
# ---------------------------------------------------------------------------------------------------------------------


class _Trial:
    """Runs transforms on made-up images of a type, and follows which sizes these can take on their way.

    Args:
        dtype: uint8, or float32 in 0..1.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self.culprit = ""
        """Where one size became several."""
        self.advice = ""
        """What to do there."""

    def through(self, node: Node, before: set[Shape], is_chosen: bool = False) -> set[Shape]:
        """Return the shapes (H, W, C) that images of these shapes may have behind a transform.

        Args:
            node: the transform.
            before: in front of it.
            is_chosen: by OneOf or OneOrOther, which take its p as a weight or not at all.
        """
        if node.name == "Sequential":
            after = before
            for child in node.children:
                after = self.through(child, after)
        elif node.name in ("OneOf", "OneOrOther"):
            after = _union(self.through(child, before, is_chosen=True) for child in node.children)
        elif node.children:
            after = before | _union(self.through(child, before) for child in node.children)
        else:
            after = _union(self._shapes(node, shape) for shape in before)
        is_sure = node.transform.p == 1 or is_chosen or node.name == "OneOrOther"
        possible = after if is_sure else after | before
        if len(before) == 1 and len(possible) > 1:
            self.culprit = node.where
            self.advice = "put a Resize or a crop behind it" + (", or set p: 1" if len(after) == 1 else "")
        return _few(possible)

    def _shapes(self, node: Node, shape: Shape) -> set[Shape]:
        """Return the shapes of a transform's results; raise a ConfigError where it fails, warns or changes the type."""
        noise = np.random.default_rng(0).integers(40, 216, shape)
        images = [noise] * _N_TRIALS + [np.full_like(noise, 128)]
        images = [self._typed(image) for image in images]
        results = [self._result(node, image, seed) for seed, image in enumerate(images)]
        if node.is_bare and node.name != "NoOp" and all(map(np.array_equal, images, results)):
            raise ConfigError(f"{node.where}: changes nothing unless it is given some of its arguments")
        return {result.shape for result in results}

    def _typed(self, image: Array) -> Array:
        return image.astype(np.uint8) if self._dtype == np.uint8 else image.astype(np.float32) / np.float32(255)

    def _result(self, node: Node, image: Array, seed: int) -> Array:
        node.transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        kind = f"{self._dtype} images of {image.shape[2]} channel(s), {image.shape[0]} x {image.shape[1]} pixels"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                result: Array = node.transform(image=image.copy(), force_apply=True)["image"]
        except Exception as error:
            raise ConfigError(f"{node.where}: does not take {kind}: {text_of(error)}") from None
        if result.dtype != image.dtype or result.ndim != 3 or result.shape[2] != image.shape[2]:
            made = f"{result.dtype} {' x '.join(map(str, result.shape))}"
            raise ConfigError(f"{node.where}: makes {made} of {kind}; it may change their size, nothing else")
        return result


def _union(sets: Iterable[set[Shape]]) -> set[Shape]:
    return {shape for shapes in sets for shape in shapes}


def _few(shapes: set[Shape]) -> set[Shape]:
    """Return a few of the shapes, the smallest and the largest among them."""
    ordered = sorted(shapes)
    return set(ordered[: _N_SHAPES // 2] + ordered[-_N_SHAPES // 2 :])


# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """Run the library without its warnings, and OpenCV without threads of its own, which small images do not repay."""
    n_threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        cv2.setNumThreads(n_threads)
