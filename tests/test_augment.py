import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from pipeline.augment.images import augment_images, flip_images, shift_images, turn_images, whole_moves
from pipeline.augment.limits import largest_moves, refuse_image_augment
from pipeline.augment.pixels import add_noise, blur_images, blur_parameters, noise_parameters
from pipeline.augment.warp import affine_parameters, crop_parameters, warp_images
from pipeline.base.errors import ConfigError
from pipeline.base.keyed import make_key, uniforms
from pipeline.records.augmentation import Affine, Augment, Blur, Flip, Noise, ResizedCrop, Shift

NUMPY_MODES = {"zero": "constant", "reflect": "reflect", "edge": "edge"}
EVERYTHING = {
    "affine": {"max_rotate_deg": 20.0, "max_scale": 0.1, "max_shear_deg": 5.0},
    "resized_crop": {"min_area": 0.5},
    "shift": {"max_px": 2, "fill": "reflect"},
    "turn_90": True,
    "flip": {"vertical": True},
    "colour": {"max_brightness": 0.3, "max_contrast": 0.3, "max_saturation": 0.3, "max_hue": 0.1, "grey_prob": 0.2},
    "blur": {},
    "noise": {},
    "erasing": {"fill": "pixel", "prob": 0.7},
    "cutout": {"size_px": 5},
}


def make_images(n=12, channels=3, height=7, width=9, dtype=torch.uint8):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, channels, height, width))).to(dtype)


def make_draws(n, n_draws, name="any"):
    return torch.from_numpy(uniforms(make_key(name), np.arange(n, dtype=np.uint64), n_draws))


def make_draw(ids, epoch=0):
    def draw(name, n):
        key = make_key("augment", 7, epoch, name)
        return torch.from_numpy(uniforms(key, np.asarray(ids, dtype=np.uint64), n))

    return draw


def augmented(images, augment, ids=None, epoch=0, full_scale=255.0):
    ids = range(len(images)) if ids is None else ids
    if isinstance(augment, dict):
        augment = Augment.model_validate(augment)
    return augment_images(images, augment, make_draw(ids, epoch), make_draw(ids, -1), epoch, full_scale)


def slow_shift(image, dy, dx, fill):
    pad = 20
    wide = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode=NUMPY_MODES[fill])
    height, width = image.shape[1:]
    return wide[:, pad - dy : pad - dy + height, pad - dx : pad - dx + width]


def slow_warp(image, rotate_deg, scale, shear_deg, part=None):
    height, width = image.shape[1:]
    top, left, tall, wide = part or (0, 0, height, width)
    angle, tan = math.radians(rotate_deg), math.tan(math.radians(shear_deg))
    rotate = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(scale * rotate @ np.array([[1, tan], [0, 1]]))
    out = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            y = top + min(max((row + 0.5) * tall / height - 0.5, 0), tall - 1)
            x = left + min(max((column + 0.5) * wide / width - 0.5, 0), wide - 1)
            x, y = inverse @ np.array([x - (width - 1) / 2, y - (height - 1) / 2])
            x, y = x + (width - 1) / 2, y + (height - 1) / 2
            for near_y in (math.floor(y), math.floor(y) + 1):
                for near_x in (math.floor(x), math.floor(x) + 1):
                    if 0 <= near_y < height and 0 <= near_x < width:
                        weight = (1 - abs(y - near_y)) * (1 - abs(x - near_x))
                        out[:, row, column] += weight * image[:, near_y, near_x]
    return out


def slow_blur(image, sigma, radius):
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2) if sigma else np.eye(2 * radius + 1)[radius]
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    wide = np.pad(image, ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
    out = np.zeros(image.shape)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            window = wide[:, row : row + 2 * radius + 1, column : column + 2 * radius + 1]
            out[:, row, column] = (window * kernel).sum((1, 2))
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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_turn_equals_rot90_of_each_sample(dtype):
    images, quarters = make_images(8, height=6, width=6, dtype=dtype), torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    expected = [torch.rot90(image, turn, (1, 2)) for image, turn in zip(images, quarters.tolist(), strict=True)]
    assert torch.equal(turn_images(images, quarters), torch.stack(expected))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_warp_equals_a_bilinear_loop_in_numpy(dtype):
    images = make_images(5, dtype=dtype)
    moves = torch.tensor([[0, 1, 0], [30, 1, 0], [-75, 1.3, 10], [0, 0.7, 25], [12, 1.1, -20]], dtype=torch.float64)
    parts = torch.tensor([[0, 0, 7, 9], [2, 3, 4, 5], [0, 0, 3, 9], [6, 8, 1, 1], [1, 0, 6, 2]])
    for chosen in (None, parts):
        warped = warp_images(images, moves, chosen)
        assert warped.dtype == dtype
        for index in range(5):
            part = None if chosen is None else chosen[index].tolist()
            slow = slow_warp(images[index].numpy(), *moves[index].tolist(), part)
            tolerance = 0.51 if dtype == torch.uint8 else 1e-4
            np.testing.assert_allclose(warped[index].double().numpy(), slow, atol=tolerance)


def test_an_enlarged_part_equals_that_of_torchvision():
    images = make_images(4, dtype=torch.float32)
    parts = torch.tensor([[0, 0, 7, 9], [2, 3, 4, 5], [0, 4, 3, 5], [6, 8, 1, 1]])
    cropped = warp_images(images, None, parts)
    for image, result, part in zip(images, cropped, parts.tolist(), strict=True):
        torch.testing.assert_close(
            result, reference.resized_crop(image, *part, [7, 9], antialias=False), atol=1e-3, rtol=0
        )


def test_warp_without_change_returns_the_same_bytes():
    images = make_images(4, height=28, width=31)
    still = torch.tensor([[0.0, 1.0, 0.0]]).repeat(4, 1)
    assert torch.equal(warp_images(images, still, torch.tensor([[0, 0, 28, 31]]).repeat(4, 1)), images)


def test_affine_turns_a_quarter_anticlockwise():
    images = make_images(2, height=8, width=8)
    quarter = warp_images(images, torch.tensor([[90.0, 1.0, 0.0]] * 2), None)
    assert torch.equal(quarter, torch.rot90(images, 1, (2, 3)))


def test_whole_moves_reach_every_step_equally_often():
    moves = whole_moves(torch.arange(0, 1, 1 / 700, dtype=torch.float64), 3)
    assert torch.unique(moves, return_counts=True)[0].tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert torch.unique(moves, return_counts=True)[1].tolist() == [100] * 7
    assert whole_moves(torch.tensor([1 - 2.0**-53], dtype=torch.float64), 3).item() == 3


def test_a_share_of_the_size_is_rounded_down_to_whole_pixels():
    assert largest_moves(Shift(max_frac=0.1), 28, 32) == (2, 3)
    assert largest_moves(Shift(max_frac=0.29), 100, 10) == (29, 2)
    assert largest_moves(Shift(max_px=4), 28, 32) == (4, 4)


def test_affine_parameters_span_their_ranges_and_half_changes_nothing():
    affine = Affine(max_rotate_deg=10, max_scale=0.2, max_shear_deg=5)
    moves = affine_parameters(affine, torch.tensor([[0.0] * 3, [0.5] * 3, [1.0] * 3], dtype=torch.float64))
    expected = torch.tensor([[-10, 0.8, -5], [0, 1, 0], [10, 1.2, 5]], dtype=torch.float64)
    torch.testing.assert_close(moves, expected)


def test_crops_have_the_stated_areas_and_aspects_relative_to_the_image():
    height, width = 100, 200
    parts = crop_parameters(ResizedCrop(min_area=0.2, max_area=0.6), make_draws(4000, 22), height, width).double()
    top, left, tall, wide = parts.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + tall <= height).all()
    assert (left + wide <= width).all()
    area, aspect = tall * wide / (height * width), wide / tall * height / width
    assert 0.19 < area.min() < 0.21
    assert 0.59 < area.max() < 0.61
    assert area.mean() == pytest.approx(0.4, abs=0.01)
    assert 0.73 < aspect.min() < 0.77
    assert 1.3 < aspect.max() < 1.36
    assert aspect.log().mean() == pytest.approx(0, abs=0.01)


def test_a_crop_that_no_attempt_fits_is_the_whole_image():
    tight = ResizedCrop(min_area=0.99, max_area=0.99, min_aspect=0.5, max_aspect=1.0)
    parts = crop_parameters(tight, torch.full((1, 22), 0.9, dtype=torch.float64), 30, 40)
    assert parts.tolist() == [[0, 0, 30, 40]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_blur_equals_a_loop_in_numpy_with_a_width_for_each_sample(dtype):
    images, sigma = make_images(4, dtype=dtype), torch.tensor([0.0, 0.4, 1.0, 1.6])
    blurred = blur_images(images, sigma, 5)
    assert blurred.dtype == dtype
    assert torch.equal(blurred[0], images[0])
    for image, result, width in zip(images, blurred, sigma.tolist(), strict=True):
        tolerance = 0.51 if dtype == torch.uint8 else 1e-4
        np.testing.assert_allclose(result.double().numpy(), slow_blur(image.double().numpy(), width, 5), atol=tolerance)


def test_blur_equals_torchvision():
    images = make_images(3, dtype=torch.float32)
    expected = reference.gaussian_blur(images, [7, 7], [0.9, 0.9])
    torch.testing.assert_close(blur_images(images, torch.full((3,), 0.9), 3), expected, atol=1e-3, rtol=0)


def test_blur_may_reach_further_than_the_image():
    images = torch.full((2, 1, 3, 2), 9.0)
    torch.testing.assert_close(blur_images(images, torch.tensor([1.0, 3.0]), 9), images)


def test_blur_and_noise_change_the_stated_share_of_samples():
    sigma, radius = blur_parameters(Blur(max_sigma_px=1.1, prob=0.3), make_draws(4000, 2))
    assert radius == 4
    assert (sigma > 0).double().mean() == pytest.approx(0.3, abs=0.03)
    assert 1.05 < sigma.max() < 1.1
    std, seeds = noise_parameters(Noise(max_std_frac=0.1, prob=0.6), make_draws(4000, 4), 255.0)
    assert (std > 0).double().mean() == pytest.approx(0.6, abs=0.03)
    assert 25 < std.max() < 25.5
    assert len(seeds.unique()) == 4000


def test_noise_has_the_stated_deviation_and_differs_between_pixels_and_channels():
    images, std = torch.full((3, 3, 64, 64), 100.0), torch.tensor([0.0, 1.0, 20.0])
    noise = add_noise(images, std, torch.tensor([5, 6, 7])) - images
    assert torch.equal(noise[0], torch.zeros_like(noise[0]))
    assert noise[1].std() == pytest.approx(1, abs=0.03)
    assert noise[2].std() == pytest.approx(20, abs=0.6)
    assert noise[2].mean() == pytest.approx(0, abs=1)
    assert abs(np.corrcoef(noise[2].reshape(3, -1).numpy())[0, 1]) < 0.06
    assert abs(np.corrcoef(noise[2, 0].reshape(2, -1).numpy())[0, 1]) < 0.1


def test_noise_on_bytes_is_rounded_and_stays_within_0_to_255():
    images, std, seeds = make_images(4), torch.full((4,), 200.0), torch.arange(4)
    noisy = add_noise(images, std, seeds)
    expected = add_noise(images.float(), std, seeds).round().clamp(0, 255)
    assert torch.equal(noisy.float(), expected)
    assert (expected == 255).any()


def test_the_unit_of_noise_is_the_full_scale():
    images = torch.full((50, 1, 8, 8), 30000.0)
    small, large = (augmented(images, {"noise": {}}, full_scale=scale) - images for scale in (255.0, 65535.0))
    torch.testing.assert_close(small * 257, large, atol=1, rtol=0.01)


def test_changes_are_made_in_the_stated_order():
    images, draw = make_images(), make_draw(range(12))
    augment = Augment(affine=Affine(max_rotate_deg=20.0), shift=Shift(max_px=2, fill="edge"), flip=Flip(vertical=True))
    dy, dx = whole_moves(draw("shift", 2), 2).unbind(1)
    horizontal, vertical = (draw("flip", 2) < 0.5).unbind(1)
    expected = warp_images(images, affine_parameters(augment.affine, draw("affine", 3)), None)
    expected = flip_images(shift_images(expected, dy, dx, "edge"), horizontal, vertical)
    assert torch.equal(augmented(images, augment), expected)


def test_shift_then_turn_then_flip_in_one_pass_equals_the_three_functions():
    images, draw = make_images(40, height=8, width=8) // 2 + 1, make_draw(range(40))
    dy, dx = whole_moves(draw("shift", 2), 3).unbind(1)
    horizontal = draw("flip", 2)[:, 0] < 0.5
    expected = turn_images(shift_images(images, dy, dx, "zero"), (draw("turn_90", 1)[:, 0] * 4).long())
    expected = flip_images(expected, horizontal, torch.zeros(40, dtype=torch.bool))
    assert torch.equal(augmented(images, {"shift": {"max_px": 3}, "turn_90": True, "flip": {}}), expected)


def test_affine_and_crop_together_are_one_resampling():
    images, draw = make_images(6, dtype=torch.float64), make_draw(range(6))
    augment = Augment(affine=Affine(max_rotate_deg=30.0), resized_crop=ResizedCrop(min_area=0.3))
    moves = affine_parameters(augment.affine, draw("affine", 3))
    parts = crop_parameters(augment.resized_crop, draw("resized_crop", 22), 7, 9)
    result = augmented(images, augment)
    for index in range(6):
        slow = slow_warp(images[index].numpy(), *moves[index].tolist(), parts[index].tolist())
        np.testing.assert_allclose(result[index].numpy(), slow, atol=1e-4)


def test_alternating_flip_mirrors_every_sample_in_each_other_epoch():
    images, block = make_images(64), {"flip": {"alternate": True}}
    epochs = [augmented(images, block, epoch=epoch) for epoch in range(4)]
    is_mirrored = (epochs[0] == images.flip(3)).flatten(1).all(1)
    assert 15 < is_mirrored.sum() < 49
    assert torch.equal(epochs[1], epochs[0].flip(3))
    assert torch.equal(epochs[2], epochs[0])
    assert torch.equal(epochs[3], epochs[1])


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_change_asks_for_draws_under_its_own_name_alone(name):
    asked = []

    def draw(word, n):
        asked.append(word)
        return make_draw(range(12))(word, n)

    images = make_images(12, height=9)
    result = augment_images(images, Augment.model_validate({name: EVERYTHING[name]}), draw, draw)
    assert asked == [name]
    assert not torch.equal(result, images)


def test_switching_one_change_on_leaves_the_draws_of_another():
    images = make_images(30, height=9)
    still = Affine.model_construct(max_rotate_deg=0.0, max_scale=0.0, max_shear_deg=0.0)  # on, but changes nothing
    both = Augment(flip=Flip()).model_copy(update={"affine": still})
    assert torch.equal(augmented(images, {"flip": {}}), augmented(images, both))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_picture_is_the_same_alone_and_in_a_batch_of_7_or_256(dtype):
    images = make_images(256, height=12, width=12, dtype=dtype)
    whole = augmented(images, EVERYTHING)
    assert whole.dtype == dtype
    parts = [augmented(images[at : at + 7], EVERYTHING, range(at, min(at + 7, 256))) for at in range(0, 256, 7)]
    assert torch.equal(whole, torch.cat(parts))
    for at in (0, 5, 255):
        assert torch.equal(whole[at], augmented(images[at : at + 1], EVERYTHING, [at])[0])


def test_the_order_in_memory_changes_nothing():
    images = make_images(9, height=10, width=10)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augmented(images, EVERYTHING), augmented(last, EVERYTHING))


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_inputs_are_left_untouched_and_their_type_stays(name, dtype):
    images = make_images(12, height=9, dtype=dtype)
    before = images.clone()
    assert augmented(images, {name: EVERYTHING[name]}).dtype == dtype
    assert torch.equal(images, before)


def test_nothing_switched_on_returns_the_images():
    images = make_images()
    assert augmented(images, {}) is images


def test_augment_takes_an_empty_batch():
    assert augmented(make_images(height=9)[:0], EVERYTHING).shape == (0, 3, 9, 9)


def test_epochs_and_samples_get_different_pictures():
    images = make_images(1, height=16, width=16).repeat(8, 1, 1, 1)
    first, second = (augmented(images, EVERYTHING, epoch=epoch) for epoch in (0, 1))
    assert len(torch.cat([first, second]).flatten(1).unique(dim=0)) == 16


@pytest.mark.parametrize(
    ("augment", "shape", "message"),
    [
        ({"colour": {"max_hue": 0.1}}, (1, 8, 8), r"augment\.colour\.max_hue: 0\.1 needs RGB .* 1 channel"),
        ({"colour": {"max_saturation": 0.2}}, (4, 8, 8), r"augment\.colour\.max_saturation: 0\.2 .* 4 channel"),
        ({"colour": {"grey_prob": 0.2}}, (2, 8, 8), r"augment\.colour\.grey_prob: 0\.2 .* set it to 0"),
        ({"turn_90": True}, (3, 8, 9), r"augment\.turn_90: needs square images, and these have 8 x 9"),
        ({"cutout": {"size_px": 15}}, (3, 8, 20), r"augment\.cutout\.size_px: 15 .* allowed: 1\.\.14"),
        ({"shift": {"max_px": 8}}, (3, 8, 20), r"augment\.shift\.max_px: 8 .* allowed: 1\.\.7"),
        ({"shift": {"max_frac": 1.0}}, (3, 8, 8), r"augment\.shift\.max_frac: 1\.0 .* allowed: below 1"),
        ({"shift": {"max_frac": 0.1}}, (3, 8, 9), r"augment\.shift\.max_frac: 0\.1 .* at least 0\.111"),
        ({"blur": {"max_sigma_px": 9.0}}, (3, 8, 8), r"augment\.blur\.max_sigma_px: 9\.0 .* at most 8"),
        (
            {"resized_crop": {"min_area": 0.9, "min_aspect": 2.0, "max_aspect": 3.0}},
            (3, 32, 64),
            r"augment\.resized_crop\.min_area: 0\.9 with aspects 2\.0\.\.3\.0 fits into no image; at most 0\.5",
        ),
        (
            {"erasing": {"min_area": 0.4, "max_area": 0.5, "min_aspect": 4.0, "max_aspect": 5.0}},
            (3, 32, 32),
            r"augment\.erasing\.min_area: 0\.4 .* does not fit into images of 32 x 32 pixels; at most 0\.25",
        ),
    ],
)
def test_what_does_not_fit_the_images_is_refused_by_name(augment, shape, message):
    with pytest.raises(ConfigError, match=message):
        refuse_image_augment(Augment.model_validate(augment), shape)
    with pytest.raises(ConfigError, match=message):
        augmented(torch.zeros(2, *shape), augment)


def test_what_fits_just_so_is_taken():
    block = {"shift": {"max_px": 7}, "cutout": {"size_px": 14}, "blur": {"max_sigma_px": 8.0}}
    refuse_image_augment(Augment.model_validate(block), (1, 8, 8))
    refuse_image_augment(Augment.model_validate(EVERYTHING), (3, 8, 8))


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.uint8, 1), (torch.float32, 0.1)])
def test_cuda_gives_the_pictures_of_the_cpu(dtype, tolerance):
    images, augment = make_images(256, height=32, width=32, dtype=dtype), Augment.model_validate(EVERYTHING)
    draw = make_draw(range(256))
    there = augment_images(images.cuda(), augment, *[lambda name, n: draw(name, n).cuda()] * 2).cpu()
    here = augment_images(images, augment, draw, draw)
    assert (there.float() - here.float()).abs().max() <= tolerance
