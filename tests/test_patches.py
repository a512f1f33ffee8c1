import math

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.augment.noise import noise_seeds, uniform_noise
from pipeline.augment.patches import cut_out, erase, overwrite, random_rectangles, rectangle_fits
from pipeline.base.keyed import make_key, uniforms
from pipeline.records.augmentation import Cutout, Erasing

PAPER = (0.02, 0.4), (0.3, 1 / 0.3)


def make_images(n=12, channels=3, height=16, width=20, dtype=torch.uint8):
    return torch.from_numpy(np.random.default_rng(2).integers(1, 256, (n, channels, height, width))).to(dtype)


def make_draws(n, n_draws):
    return torch.from_numpy(uniforms(make_key("patch"), np.arange(n, dtype=np.uint64), n_draws))


def slow_rectangle(draws, areas, aspects, height, width):
    for attempt in range(10):
        area = (areas[0] + draws[2 * attempt] * (areas[1] - areas[0])) * height * width
        low, high = math.log(aspects[0]), math.log(aspects[1])
        aspect = math.exp(low + draws[2 * attempt + 1] * (high - low))
        tall, wide = max(1, round(math.sqrt(area * aspect))), max(1, round(math.sqrt(area / aspect)))
        if tall <= height and wide <= width:
            return [int(draws[20] * (height - tall + 1)), int(draws[21] * (width - wide + 1)), tall, wide]
    return [0, 0, 0, 0]


def slow_cutout(image, size, draws):
    height, width = image.shape[1:]
    y, x = int(draws[0] * height), int(draws[1] * width)
    out = image.copy()
    for row in range(y - size // 2, y - size // 2 + size):
        for column in range(x - size // 2, x - size // 2 + size):
            if 0 <= row < height and 0 <= column < width:
                out[:, row, column] = 0
    return out


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 40), (3, 2)])
@pytest.mark.parametrize(("areas", "aspects"), [PAPER, ((0.5, 0.9), (1.0, 4.0))])
def test_rectangles_equal_a_loop_over_attempts(areas, aspects, height, width):
    draws = make_draws(500, 22)
    rectangles = random_rectangles(draws, areas, aspects, height, width)
    slow = [slow_rectangle(row, areas, aspects, height, width) for row in draws.tolist()]
    assert rectangles.tolist() == slow


def test_rectangles_lie_wholly_inside():
    top, left, tall, wide = random_rectangles(make_draws(3000, 22), *PAPER, 24, 33).unbind(1)
    assert (tall >= 1).all()
    assert (wide >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + tall).max() == 24
    assert (left + wide).max() == 33


def test_areas_log_aspects_and_places_are_even():
    height = width = 1000
    top, left, tall, wide = random_rectangles(make_draws(4000, 22), (0.05, 0.2), (0.5, 2.0), height, width).unbind(1)
    area = (tall * wide).double().numpy() / (height * width)
    aspect = np.log(tall.double().numpy() / wide.double().numpy())
    assert stats.kstest(area, stats.uniform(0.05, 0.15).cdf).pvalue > 0.01
    assert stats.kstest(aspect, stats.uniform(-math.log(2), 2 * math.log(2)).cdf).pvalue > 0.01
    assert stats.kstest((top / (height - tall)).numpy(), stats.uniform().cdf).pvalue > 0.01
    assert stats.kstest((left / (width - wide)).numpy(), stats.uniform().cdf).pvalue > 0.01


def test_no_rectangle_is_returned_where_ten_attempts_misfit():
    draws = torch.zeros(2, 22, dtype=torch.float64)
    draws[1, 9 * 2 + 1] = 0.5  # the last attempt of the second sample is a square, which fits
    rectangles = random_rectangles(draws, (0.64, 0.64), (0.25, 4.0), 10, 10)
    assert rectangles.tolist() == [[0, 0, 0, 0], [0, 0, 8, 8]]


def test_whether_any_rectangle_fits_agrees_with_many_trials():
    for areas, aspects, size in [
        (PAPER[0], PAPER[1], (32, 32)),
        ((0.5, 0.6), (4.0, 5.0), (32, 32)),
        ((0.5, 0.6), (4.0, 5.0), (64, 16)),
        ((0.5, 0.6), (0.2, 5.0), (64, 16)),
        ((0.9, 0.95), (0.1, 0.5), (20, 20)),
        ((0.9, 0.95), (0.1, 0.5), (20, 40)),
    ]:
        found = random_rectangles(make_draws(3000, 22), areas, aspects, *size)[:, 2].any().item()
        assert rectangle_fits(areas, aspects, *size) == found


@pytest.mark.parametrize("fill", ["zero", "random", "pixel"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_erasing_equals_a_loop_in_numpy(fill, dtype):
    images, draws = make_images(40, dtype=dtype), make_draws(40, 25)
    erasing = Erasing(fill=fill, prob=0.6)
    erased = erase(images, erasing, draws, 255.0)
    assert erased.dtype == dtype
    uniform = uniform_noise(noise_seeds(draws[:, 23:25]), (3, 16, 20) if fill == "pixel" else (3, 1, 1)).numpy()
    values = np.floor(uniform * 256) if dtype == torch.uint8 else uniform * np.float32(255)
    for index, row in enumerate(draws.tolist()):
        expected = images[index].numpy().copy()
        if row[0] < 0.6:
            areas, aspects = (erasing.min_area, erasing.max_area), (erasing.min_aspect, erasing.max_aspect)
            top, left, tall, wide = slow_rectangle(row[1:23], areas, aspects, 16, 20)
            patch = np.broadcast_to(0 if fill == "zero" else values[index], expected.shape)
            expected[:, top : top + tall, left : left + wide] = patch[:, top : top + tall, left : left + wide]
        np.testing.assert_array_equal(erased[index].numpy(), expected)


def test_erasing_is_as_frequent_as_stated():
    images = make_images(1).repeat(3000, 1, 1, 1)
    erased = erase(images, Erasing(prob=0.25), make_draws(3000, 25), 255.0)
    assert (erased != images).flatten(1).any(1).double().mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("dtype", "full_scale"), [(torch.uint8, 255.0), (torch.float32, 65535.0), (torch.float32, 1.0)]
)
def test_random_fills_are_even_over_the_full_scale(dtype, full_scale):
    images = torch.zeros(60, 1, 30, 30, dtype=dtype)
    block = Erasing(prob=1.0, min_area=0.5, max_area=0.6, min_aspect=1.0, max_aspect=1.0, fill="pixel")
    erased = erase(images, block, make_draws(60, 25), full_scale).double()
    values = erased[erased > 0] / full_scale
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    assert values.std() == pytest.approx(12**-0.5, abs=0.01)
    assert values.max() <= 1


def test_a_random_fill_is_one_value_for_each_channel():
    images = torch.full((20, 3, 12, 12), -1.0)
    erased = erase(images, Erasing(prob=1.0, min_area=0.1, fill="random"), make_draws(20, 25), 255.0)
    for image in erased:
        colours = [channel[channel >= 0].unique() for channel in image]
        assert [len(values) for values in colours] == [1, 1, 1]
        assert len({values.item() for values in colours}) == 3


@pytest.mark.parametrize("size", [1, 4, 7, 16])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_cutout_equals_a_loop_in_numpy_clipped_at_the_border(size, dtype):
    images, draws = make_images(40, dtype=dtype), make_draws(40, 2)
    cut = cut_out(images, Cutout(size_px=size), draws)
    assert cut.dtype == dtype
    for image, result, row in zip(images.numpy(), cut.numpy(), draws.tolist(), strict=True):
        np.testing.assert_array_equal(result, slow_cutout(image, size, row))


def test_the_centre_of_cutout_is_even_over_all_pixels_so_it_is_cut_at_the_border():
    n, size, side = 20_000, 8, 12
    covered = (cut_out(torch.ones(n, 1, side, side), Cutout(size_px=size), make_draws(n, 2)) == 0)[:, 0]
    rows, columns = covered.any(2).sum(1), covered.any(1).sum(1)
    by_hand = [min(centre + size // 2, side) - max(centre - size // 2, 0) for centre in range(side)]
    expected = np.bincount(by_hand, minlength=size + 1) / side
    for lengths in (rows, columns):
        np.testing.assert_allclose(np.bincount(lengths.numpy(), minlength=size + 1) / n, expected, atol=0.012)
    assert covered.double().mean() == pytest.approx((np.mean(by_hand) / side) ** 2, abs=0.005)


def test_overwrite_clips_what_overhangs_and_leaves_empty_rectangles():
    images = torch.ones(3, 1, 2, 3)
    rectangles = torch.tensor([[-1, 1, 2, 9], [0, 0, 0, 3], [1, 2, 5, 5]])
    expected = [[[1, 0, 0], [1, 1, 1]], [[1, 1, 1], [1, 1, 1]], [[1, 1, 1], [1, 1, 0]]]
    assert overwrite(images, rectangles)[:, 0].tolist() == expected


def test_inputs_are_left_untouched_and_an_empty_batch_is_taken():
    images = make_images()
    before = images.clone()
    for fill in ("zero", "random", "pixel"):
        erase(images, Erasing(fill=fill, prob=1.0), make_draws(12, 25), 255.0)
        assert erase(images[:0], Erasing(fill=fill), make_draws(0, 25), 255.0).shape == (0, 3, 16, 20)
    cut_out(images, Cutout(size_px=4), make_draws(12, 2))
    assert torch.equal(images, before)
