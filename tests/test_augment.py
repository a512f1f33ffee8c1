import math

import numpy as np
import pytest
import torch

from pipeline.augment.images import (
    affine_images,
    affine_parameters,
    augment_images,
    flip_images,
    n_image_draws,
    shift_images,
    whole_moves,
)
from pipeline.augment.signals import augment_signals, n_signal_draws, shift_signals
from pipeline.base.errors import ConfigError
from pipeline.base.keyed import uniforms
from pipeline.records.augmentation import Affine, Augment, Flip, Shift, TimeShift

NUMPY_MODES = {"zero": "constant", "reflect": "reflect", "edge": "edge"}


def make_images(n=12, channels=3, height=7, width=9, dtype=torch.uint8):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, channels, height, width))).to(dtype)


def make_draws(n, n_draws=7):
    return torch.from_numpy(uniforms(5, np.arange(n, dtype=np.uint64), n_draws))


def slow_shift(image, dy, dx, fill):
    pad = 20
    wide = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode=NUMPY_MODES[fill])
    height, width = image.shape[1:]
    return wide[:, pad - dy : pad - dy + height, pad - dx : pad - dx + width]


def slow_affine(image, rotate_deg, scale, shear_deg):
    height, width = image.shape[1:]
    angle, tan = math.radians(rotate_deg), math.tan(math.radians(shear_deg))
    rotate = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(scale * rotate @ np.array([[1, tan], [0, 1]]))
    out = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            x, y = inverse @ np.array([column - (width - 1) / 2, row - (height - 1) / 2])
            x, y = x + (width - 1) / 2, y + (height - 1) / 2
            for near_y in (math.floor(y), math.floor(y) + 1):
                for near_x in (math.floor(x), math.floor(x) + 1):
                    if 0 <= near_y < height and 0 <= near_x < width:
                        weight = (1 - abs(y - near_y)) * (1 - abs(x - near_x))
                        out[:, row, column] += weight * image[:, near_y, near_x]
    return out


@pytest.mark.parametrize("fill", ["zero", "reflect", "edge"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shift_equals_a_padded_crop_in_numpy(fill, dtype):
    images = make_images(dtype=dtype)
    dy = torch.tensor([0, 1, -1, 3, -3, 6, -6, 7, -7, 12, -15, 2])
    dx = torch.tensor([0, 2, -2, -4, 4, 8, -8, 9, -9, -17, 20, 0])
    moved = shift_images(images, dy, dx, fill)
    assert moved.dtype == dtype
    for image, result, down, right in zip(images, moved, dy.tolist(), dx.tolist(), strict=True):
        np.testing.assert_array_equal(result.numpy(), slow_shift(image.numpy(), down, right, fill))


def test_shift_of_a_single_pixel_repeats_it_where_it_is_reflected():
    image = torch.full((1, 1, 1, 1), 7.0)
    assert shift_images(image, torch.tensor([3]), torch.tensor([-2]), "reflect").item() == 7


def test_unknown_fill_is_refused_with_the_nearest_word():
    with pytest.raises(ConfigError, match=r"'reflct' is not known. Did you mean 'reflect'\? Allowed: zero, reflect"):
        shift_images(make_images(1), torch.tensor([0]), torch.tensor([0]), "reflct")


def test_flip_mirrors_only_the_flagged_samples():
    images = make_images(4)
    horizontal, vertical = torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])
    flipped = flip_images(images, horizontal, vertical)
    expected = torch.stack([images[0], images[1].flip(2), images[2].flip(1), images[3].flip((1, 2))])
    assert torch.equal(flipped, expected)
    assert torch.equal(flip_images(flipped, horizontal, vertical), images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_affine_equals_a_bilinear_loop_in_numpy(dtype):
    images = make_images(5, dtype=dtype)
    rotate, scale = torch.tensor([0.0, 30.0, -75.0, 0.0, 12.0]), torch.tensor([1.0, 1.0, 1.3, 0.7, 1.1])
    shear = torch.tensor([0.0, 0.0, 10.0, 25.0, -20.0])
    warped = affine_images(images, rotate, scale, shear)
    assert warped.dtype == dtype
    for index in range(5):
        slow = slow_affine(images[index].numpy(), rotate[index].item(), scale[index].item(), shear[index].item())
        tolerance = 0.51 if dtype == torch.uint8 else 1e-4
        np.testing.assert_allclose(warped[index].double().numpy(), slow, atol=tolerance)


def test_affine_without_change_returns_the_same_bytes():
    images = make_images(4, height=28, width=31)
    zeros, ones = torch.zeros(4), torch.ones(4)
    assert torch.equal(affine_images(images, zeros, ones, zeros), images)


def test_affine_turns_a_quarter_anticlockwise():
    images = make_images(2, height=8, width=8)
    quarter = affine_images(images, torch.full((2,), 90.0), torch.ones(2), torch.zeros(2))
    assert torch.equal(quarter, torch.rot90(images, 1, (2, 3)))


def test_whole_moves_reach_every_step_equally_often():
    moves = whole_moves(torch.arange(0, 1, 1 / 700, dtype=torch.float64), 3)
    assert torch.unique(moves, return_counts=True)[0].tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert torch.unique(moves, return_counts=True)[1].tolist() == [100] * 7
    assert whole_moves(torch.tensor([1 - 2.0**-53], dtype=torch.float64), 3).item() == 3


def test_affine_parameters_span_their_ranges_and_half_changes_nothing():
    affine = Affine(max_rotate_deg=10, max_scale=0.2, max_shear_deg=5)
    draws = torch.tensor([[0.0] * 3, [0.5] * 3, [1.0] * 3], dtype=torch.float64)
    rotate, scale, shear = affine_parameters(affine, draws)
    assert rotate.tolist() == [-10, 0, 10]
    assert scale.tolist() == pytest.approx([0.8, 1, 1.2])
    assert shear.tolist() == [-5, 0, 5]


def test_augment_applies_warp_then_shift_then_flip():
    images, draws = make_images(), make_draws(12)
    augment = Augment(affine=Affine(max_rotate_deg=20.0), shift=Shift(max_px=2, fill="edge"), flip=Flip(vertical=True))
    expected = affine_images(images, *affine_parameters(augment.affine, draws))
    expected = shift_images(expected, whole_moves(draws[:, 3], 2), whole_moves(draws[:, 4], 2), "edge")
    expected = flip_images(expected, draws[:, 5] < 0.5, draws[:, 6] < 0.5)
    assert torch.equal(augment_images(images, augment, draws), expected)


def test_zero_that_entered_stays_zero_after_the_flip():
    images, draws = make_images() + 1, make_draws(12)
    augment = Augment(shift=Shift(max_px=3), flip=Flip())
    expected = shift_images(images, whole_moves(draws[:, 3], 3), whole_moves(draws[:, 4], 3), "zero")
    expected = flip_images(expected, draws[:, 5] < 0.5, torch.zeros(12, dtype=torch.bool))
    assert torch.equal(augment_images(images, augment, draws), expected)


def test_switching_one_augmentation_on_leaves_the_draws_of_another():
    images = make_images()
    keys, flip = np.arange(12, dtype=np.uint64), Augment(flip=Flip())
    still = Affine.model_construct(max_rotate_deg=0.0, max_scale=0.0, max_shear_deg=0.0)  # on, but changes nothing
    both = Augment.model_construct(flip=Flip(), affine=still, shift=None, time_shift=None)
    short = torch.from_numpy(uniforms(9, keys, n_image_draws(flip)))
    long = torch.from_numpy(uniforms(9, keys, n_image_draws(both)))
    assert torch.equal(augment_images(images, flip, short), augment_images(images, both, long))


def test_number_of_draws_follows_the_last_column_in_use():
    assert n_image_draws(Augment()) == 0
    assert n_image_draws(Augment(affine=Affine(max_rotate_deg=10))) == 3
    assert n_image_draws(Augment(shift=Shift(max_px=1))) == 5
    assert n_image_draws(Augment(flip=Flip())) == 7
    assert (n_signal_draws(Augment()), n_signal_draws(Augment(time_shift=TimeShift(max_samples=1)))) == (0, 1)


def test_augmenting_does_not_depend_on_the_split_into_batches():
    images, draws = make_images(dtype=torch.float32), make_draws(12)
    augment = Augment(affine=Affine(max_rotate_deg=20.0, max_scale=0.1), shift=Shift(max_px=2), flip=Flip())
    whole = augment_images(images, augment, draws)
    parts = [augment_images(images[at : at + 5], augment, draws[at : at + 5]) for at in (0, 5, 10)]
    assert torch.equal(whole, torch.cat(parts))


def test_inputs_are_left_untouched_and_an_empty_augment_returns_them():
    images, draws = make_images(), make_draws(12)
    before = images.clone()
    augment_images(images, Augment(affine=Affine(max_rotate_deg=9.0), shift=Shift(max_px=2), flip=Flip()), draws)
    assert torch.equal(images, before)
    assert augment_images(images, Augment(), draws) is images


def test_augment_takes_an_empty_batch():
    augment = Augment(affine=Affine(max_rotate_deg=9.0), shift=Shift(max_px=2), flip=Flip())
    assert augment_images(make_images()[:0], augment, make_draws(12)[:0]).shape == (0, 3, 7, 9)


def test_signals_move_in_time_with_zeros_entering():
    signals = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 2, 6)))
    moves = [0, 2, -1, 6, -9]
    moved = shift_signals(signals, torch.tensor(moves))
    for signal, result, move in zip(signals, moved, moves, strict=True):
        expected = torch.zeros_like(signal)
        for time in range(6):
            if 0 <= time - move < 6:
                expected[:, time] = signal[:, time - move]
        assert torch.equal(result, expected)


def test_augment_signals_draws_the_time_shift_from_the_first_column():
    signals, draws = torch.randn(8, 2, 20), make_draws(8, 1)
    augment = Augment(time_shift=TimeShift(max_samples=4))
    assert torch.equal(augment_signals(signals, augment, draws), shift_signals(signals, whole_moves(draws[:, 0], 4)))
    assert augment_signals(signals, Augment(), draws) is signals
