"""A sample's augmented picture is a function of (seed, epoch, id, occurrence), whatever else is in its batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.augment.images import augment_images
from pipeline.data.batches import EpochOrder, batches_of, draws_of, samples_of
from pipeline.records.augmentation import Augment

N = 256
SEED, EPOCH = 3, 5
IDS = [f"img_{number:04d}" for number in range(N)]
SAMPLES = samples_of(IDS, [(number,) for number in range(N)], np.arange(N))
ORDER = EpochOrder(np.arange(N), np.arange(N, dtype=np.uint64) % np.uint64(3))
EVERYTHING = {
    "affine": {"max_rotate_deg": 20.0, "max_scale": 0.1, "max_shear_deg": 5.0},
    "resized_crop": {"min_area": 0.5},
    "shift": {"max_px": 2, "fill": "reflect"},
    "turn_90": True,
    "flip": {"vertical": True, "alternate": True},
    "colour": {"max_brightness": 0.3, "max_contrast": 0.3, "max_saturation": 0.3, "max_hue": 0.1, "grey_prob": 0.2},
    "blur": {"prob": 0.7},
    "noise": {"prob": 0.9},
    "erasing": {"fill": "pixel", "prob": 0.7},
    "cutout": {"size_px": 3},
}


def make_pictures(dtype: torch.dtype, size: int = 13) -> Tensor:
    """An odd size, so that a batch does not end where the processor's vectors do."""
    values = np.random.default_rng(0).integers(0, 256, (N, 3, size, size))
    return torch.from_numpy(values).to(dtype)


def augmented(pictures: Tensor, augment: Augment, order: EpochOrder, part: slice, epoch: int = EPOCH) -> Tensor:
    """Augment a batch as the step of training does."""
    draw, lasting = (draws_of(SAMPLES, order, part, "cpu", SEED, when) for when in (epoch, None))
    batch = pictures[torch.from_numpy(SAMPLES.item[order.sample[part]])]
    return augment_images(batch, augment, draw, lasting, epoch)


def test_every_change_of_pictures_is_switched_on_here():
    of_images = [
        name for name, field in Augment.model_fields.items() if (field.description or "").startswith("Images:")
    ]
    # Transforms of albumentations come before, item by item, and have tests of their own.
    assert [name for name in of_images if name != "albumentations"] == list(EVERYTHING)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_a_picture_is_the_same_alone_in_a_batch_of_7_and_of_256(dtype):
    pictures, augment = make_pictures(dtype), Augment.model_validate(EVERYTHING)
    whole = augmented(pictures, augment, ORDER, slice(0, N))
    assert whole.dtype == dtype
    assert not (whole == pictures).flatten(1).all(1).any()
    for size in (1, 7):
        parts = [augmented(pictures, augment, ORDER, part) for part in batches_of(N, size)]
        assert torch.equal(whole, torch.cat(parts)), f"in batches of {size}"


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_change_alone_keeps_the_bits_in_every_batch(name):
    pictures, augment = make_pictures(torch.float32, 11), Augment.model_validate({name: EVERYTHING[name]})
    whole = augmented(pictures, augment, ORDER, slice(0, N))
    for size in (1, 7):
        parts = [augmented(pictures, augment, ORDER, part) for part in batches_of(N, size)]
        assert torch.equal(whole, torch.cat(parts)), f"in batches of {size}"


def test_the_order_of_the_epoch_changes_no_picture():
    pictures, augment = make_pictures(torch.uint8), Augment.model_validate(EVERYTHING)
    order = np.random.default_rng(1).permutation(N)
    shuffled = EpochOrder(ORDER.sample[order], ORDER.occurrence[order])
    whole = augmented(pictures, augment, ORDER, slice(0, N))
    parts = [augmented(pictures, augment, shuffled, part) for part in batches_of(N, 100)]
    assert torch.equal(whole[torch.from_numpy(order)], torch.cat(parts))


def test_another_epoch_and_a_second_occurrence_change_every_picture():
    pictures, augment = make_pictures(torch.uint8), Augment.model_validate(EVERYTHING)
    again = EpochOrder(ORDER.sample, ORDER.occurrence + np.uint64(1))
    first = augmented(pictures, augment, ORDER, slice(0, N))
    for other in (
        augmented(pictures, augment, again, slice(0, N)),
        augmented(pictures, augment, ORDER, slice(0, N), EPOCH + 1),
    ):
        assert not (first == other).flatten(1).all(1).any()
