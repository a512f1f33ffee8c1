import colorsys

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from pipeline.augment.colour import colour_images, grey, scale_brightness, scale_contrast, scale_saturation, turn_hue
from pipeline.base.keyed import make_key, uniforms
from pipeline.records.augmentation import Colour

ALL = Colour(max_brightness=0.4, max_contrast=0.5, max_saturation=0.6, max_hue=0.3, grey_prob=0.25)


def make_images(n=6, channels=3, dtype=torch.float32):
    images = np.random.default_rng(1).integers(0, 256, (n, channels, 5, 7))
    images[:, :, 0, :4] = [0, 255, 128, 128]  # black, white and grey, which have no hue
    return torch.from_numpy(images).to(dtype)


def make_draws(n):
    return torch.from_numpy(uniforms(make_key("colour"), np.arange(n, dtype=np.uint64), 5))


def slow_grey(image):
    return 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]


def slow_colour(image, colour, draws, full_scale):
    swing = 2 * draws - 1
    out = np.clip(image * (1 + colour.max_brightness * swing[0]), 0, full_scale)
    factor = 1 + colour.max_contrast * swing[1]
    out = np.clip(factor * out + (1 - factor) * slow_grey(out).mean(), 0, full_scale)
    factor = 1 + colour.max_saturation * swing[2]
    out = np.clip(factor * out + (1 - factor) * slow_grey(out), 0, full_scale)
    for row, column in np.ndindex(out.shape[1:]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(out[:, row, column] / full_scale))
        hue = (hue + colour.max_hue * swing[3]) % 1
        out[:, row, column] = np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * full_scale
    return np.broadcast_to(slow_grey(out), out.shape) if draws[4] < colour.grey_prob else out


@pytest.mark.parametrize("full_scale", [1.0, 255.0, 65535.0])
@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (scale_brightness, reference.adjust_brightness, [0.0, 0.4, 0.9, 1.0, 1.3, 1.9]),
        (scale_contrast, reference.adjust_contrast, [0.0, 0.4, 0.9, 1.0, 1.3, 1.9]),
        (scale_saturation, reference.adjust_saturation, [0.0, 0.4, 0.9, 1.0, 1.3, 1.9]),
        (lambda images, turn, _: turn_hue(images, turn), reference.adjust_hue, [-0.5, -0.2, 0.0, 0.1, 0.33, 0.5]),
    ],
)
def test_each_part_equals_torchvision_with_a_factor_for_each_sample(ours, theirs, factors, full_scale):
    shares = make_images() / 255
    changed = ours(shares * full_scale, torch.tensor(factors, dtype=torch.float64), full_scale)
    expected = torch.stack([theirs(image, factor) for image, factor in zip(shares, factors, strict=True)])
    torch.testing.assert_close(changed / full_scale, expected, atol=2e-6, rtol=0)


def test_grey_equals_torchvision():
    images = make_images() / 255
    torch.testing.assert_close(grey(images), reference.rgb_to_grayscale(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_brightness_and_contrast_take_any_number_of_channels(channels):
    images, draws = make_images(channels=channels, dtype=torch.float64), make_draws(6)
    changed = colour_images(images, Colour(max_brightness=0.3, max_contrast=0.5), draws, 255.0)
    for image, result, row in zip(images, changed, draws, strict=True):
        bright = (image * (1 + 0.3 * (2 * row[0] - 1))).clamp(0, 255)
        factor = 1 + 0.5 * (2 * row[1] - 1)
        torch.testing.assert_close(result, (factor * bright + (1 - factor) * bright.mean()).clamp(0, 255))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_the_block_equals_a_loop_with_colorsys(dtype):
    images, draws = make_images(40, dtype=dtype), make_draws(40)
    changed = colour_images(images, ALL, draws, 255.0)
    assert changed.dtype == dtype
    tolerance = {torch.uint8: 0.501, torch.float32: 1e-3, torch.float64: 1e-9}[dtype]
    for image, result, row in zip(images.double().numpy(), changed.double().numpy(), draws.numpy(), strict=True):
        np.testing.assert_allclose(result, slow_colour(image, ALL, row, 255.0), atol=tolerance)


def test_bytes_are_rounded_once_at_the_end():
    images, draws = make_images(40), make_draws(40)
    expected = colour_images(images, ALL, draws, 255.0).round().to(torch.uint8)
    assert torch.equal(colour_images(images.to(torch.uint8), ALL, draws, 255.0), expected)


def test_half_changes_nothing():
    images = make_images(dtype=torch.uint8)
    assert torch.equal(colour_images(images, ALL, torch.full((6, 5), 0.5, dtype=torch.float64), 255.0), images)


def test_switching_one_part_on_leaves_the_draws_of_another():
    images, draws = make_images(dtype=torch.float64), make_draws(6)
    bright = colour_images(images, Colour(max_brightness=0.3), draws, 255.0)
    both = colour_images(images, Colour(max_brightness=0.3, max_saturation=0.4), draws, 255.0)
    assert torch.equal(both, colour_images(bright, Colour(max_saturation=0.4), draws, 255.0))


def test_greys_keep_their_shade_when_the_hue_turns():
    greys = torch.tensor([0.0, 1.0, 128.0, 255.0]).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    assert torch.equal(turn_hue(greys, torch.tensor([0.1, -0.3, 0.5, 0.2])), greys)


def test_a_third_of_the_circle_takes_red_to_green():
    red = torch.tensor([200.0, 0.0, 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(turn_hue(red, torch.tensor([1 / 3]))[0, :, 0, 0], torch.tensor([0.0, 200.0, 0.0]))


def test_grey_is_taken_as_often_as_stated_and_fills_all_channels():
    images, draws = make_images(1).repeat(2000, 1, 1, 1), make_draws(2000)
    changed = colour_images(images, Colour(grey_prob=0.3), draws, 255.0)
    is_grey = (changed[:, 0] == changed[:, 1]).flatten(1).all(1)
    assert is_grey.double().mean() == pytest.approx(0.3, abs=0.04)
    assert torch.equal(changed[~is_grey], images[~is_grey])


def test_inputs_are_left_untouched_and_an_empty_batch_is_taken():
    images = make_images(dtype=torch.uint8)
    before = images.clone()
    colour_images(images, ALL, make_draws(6), 255.0)
    assert torch.equal(images, before)
    assert colour_images(images[:0], ALL, make_draws(0), 255.0).shape == (0, 3, 5, 7)
