from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys

import cv2
import numpy as np
import pytest

from pipeline.augment.albumentations import Recipe, SampleError, build_recipe
from pipeline.base.errors import ConfigError
from pipeline.base.files import hash_json
from pipeline.base.keyed import bits, make_key
from pipeline.records.augmentation import Augment
from pipeline.records.config import load_config, merge, validate
from pipeline.records.record import tuples

CROP = {"RandomCrop": {"height": 28, "width": 28, "pad_if_needed": True}}
NESTED = {"OneOf": {"p": 0.5, "transforms": ({"GaussianBlur": {"blur_limit": (3, 5)}}, "MotionBlur")}}
EVERY_CHANNEL_COUNT = (
    "AutoContrast",
    "Blur",
    "CoarseDropout",
    "D4",
    "Defocus",
    "Downscale",
    "ElasticTransform",
    "Erasing",
    "GaussNoise",
    "GridDistortion",
    "GridDropout",
    "HorizontalFlip",
    "ImageCompression",
    "InvertImg",
    "MedianBlur",
    "Morphological",
    "MultiplicativeNoise",
    "OpticalDistortion",
    "Perspective",
    "PixelDropout",
    "Posterize",
    "RandomBrightnessContrast",
    "RandomGamma",
    "RandomGridShuffle",
    "Rotate",
    "SaltAndPepper",
    "Sharpen",
    "ShiftScaleRotate",
    "Solarize",
)
RGB_ONLY = ("FancyPCA", "HueSaturationValue", "ISONoise", "PlanckianJitter", "RandomFog", "ToGray", "ToSepia")


def images(n=4, channels=3, height=32, width=32, full_scale=255.0):
    """As a store holds them: uint8, or float32 in 0..full_scale."""
    made = np.random.default_rng(7).integers(40, 216, (n, channels, height, width)).astype(np.uint8)
    return made if full_scale == 255 else made.astype(np.float32) / np.float32(255) * np.float32(full_scale)


def seeds(n=4, epoch=0):
    return bits(make_key("test", epoch), np.arange(n, dtype=np.uint64))


def always(name):
    return {name: {"p": 1}}


def fault(entries, channels=3, height=32, width=32, full_scale=255.0):
    with pytest.raises(ConfigError) as caught:
        build_recipe(entries, (channels, height, width), full_scale)
    return str(caught.value)


# -- what it does ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full_scale", [255.0, 65535.0, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_transforms_give_each_seed_its_own_image_on_any_channels_and_type(channels, full_scale):
    for name in EVERY_CHANNEL_COUNT + (RGB_ONLY if channels == 3 else ()):
        recipe = build_recipe([always(name)], (channels, 32, 32), full_scale)
        items = images(3, channels, full_scale=full_scale)
        before = items.copy()
        once, again = recipe(items, seeds(3)), recipe(items, seeds(3))
        assert once.shape == items.shape
        assert once.dtype == items.dtype
        np.testing.assert_array_equal(once, again)
        np.testing.assert_array_equal(items, before)
        assert not np.array_equal(once, items)
        assert once.max() <= full_scale * 1.001
        assert once.max() > 0.1 * full_scale


def test_floats_are_brought_to_0_to_1_and_back():
    for full_scale in (1.0, 65535.0):
        items = images(full_scale=full_scale)
        inverted = build_recipe([always("InvertImg")], (3, 32, 32), full_scale)(items, seeds())
        np.testing.assert_allclose(inverted, full_scale - items, atol=1e-6 * full_scale)


def test_channels_and_axes_stay_where_they_are():
    items = images(2, 3, 20, 30)
    flipped = build_recipe([always("HorizontalFlip")], (3, 20, 30), 255.0)(items, seeds(2))
    np.testing.assert_array_equal(flipped, items[..., ::-1])


def test_transforms_run_in_the_order_in_which_they_stand():
    crop, pad = {"CenterCrop": {"height": 16, "width": 16}}, {"PadIfNeeded": {"min_height": 32, "min_width": 32}}
    items = images()
    inner = build_recipe([crop, pad], (3, 32, 32), 255.0)(items, seeds())
    assert not inner[:, :, :8].any()
    np.testing.assert_array_equal(inner[:, :, 8:24, 8:24], items[:, :, 8:24, 8:24])
    np.testing.assert_array_equal(
        build_recipe([pad, crop], (3, 32, 32), 255.0)(items, seeds()), items[:, :, 8:24, 8:24]
    )


def test_another_constant_size_is_known_before_anything_runs():
    recipe = build_recipe([CROP, "HorizontalFlip"], (3, 32, 32), 255.0)
    assert recipe.out_shape == (3, 28, 28)
    assert recipe(images(), seeds()).shape == (4, 3, 28, 28)
    scaled = [{"RandomScale": {"p": 0.5}}, {"PadIfNeeded": {"min_height": 32, "min_width": 32}}, CROP]
    assert build_recipe(scaled, (1, 32, 32), 255.0).out_shape == (1, 28, 28)


def test_a_sample_does_not_depend_on_its_batch():
    recipe = build_recipe([CROP, "HorizontalFlip", NESTED, {"Erasing": {"fill": "random"}}], (3, 32, 32), 255.0)
    items, own = images(16), seeds(16)
    together = recipe(items, own)
    order = np.random.default_rng(0).permutation(16)
    np.testing.assert_array_equal(recipe(items[order], own[order]), together[order])
    for index in range(16):
        np.testing.assert_array_equal(recipe(items[index : index + 1], own[index : index + 1])[0], together[index])


def test_seeds_alone_tell_samples_apart():
    same = np.repeat(images(1), 8, axis=0)
    recipe = build_recipe([{"GaussNoise": {"p": 1}}], (3, 32, 32), 255.0)
    first, second = recipe(same, seeds(8, epoch=0)), recipe(same, seeds(8, epoch=1))
    assert len({image.tobytes() for image in (*first, *second)}) == 16


@pytest.mark.parametrize("container", ["OneOf", "OneOrOther", "RandomOrder", "Sequential", "SomeOf"])
def test_a_seed_reaches_what_stands_in_any_container(container):
    inner = ({"GaussNoise": {"p": 1}}, {"Sequential": {"p": 1, "transforms": ({"SaltAndPepper": {"p": 1}}, NESTED)}})
    recipe = build_recipe([{container: {"p": 0.9, "transforms": inner}}], (3, 32, 32), 255.0)
    same = np.repeat(images(1), 32, axis=0)
    results = recipe(same, seeds(32))
    recipe(same, seeds(32, epoch=5))
    np.testing.assert_array_equal(recipe(same, seeds(32)), results)
    assert len({image.tobytes() for image in results}) > 16


def test_it_does_the_same_as_the_library_with_its_own_compose():
    import albumentations

    blur = albumentations.OneOf([albumentations.GaussianBlur(blur_limit=(3, 5)), albumentations.MotionBlur()], p=0.5)
    crop = albumentations.RandomCrop(28, 28, pad_if_needed=True)
    compose = albumentations.Compose([albumentations.HorizontalFlip(), crop, blur])
    items, own = images(24), seeds(24)
    results = build_recipe(["HorizontalFlip", CROP, NESTED], (3, 32, 32), 255.0)(items, own)
    for item, seed, result in zip(items, own, results, strict=True):
        compose.set_random_state(np.random.default_rng(int(seed)), random.Random(int(seed)))
        # Forced, as it would use up a draw to decide whether to run at all; its transforms keep their own p.
        expected = compose(image=np.ascontiguousarray(item.transpose(1, 2, 0)), force_apply=True)["image"]
        np.testing.assert_array_equal(result, expected.transpose(2, 0, 1))


def test_global_generators_and_threads_of_opencv_are_left_alone():
    np.random.seed(3)
    random.seed(3)
    states = np.random.get_state()[1].tobytes(), random.getstate(), cv2.getNumThreads()
    build_recipe([CROP, NESTED, "GaussNoise", "AdditiveNoise"], (3, 32, 32), 255.0)(images(), seeds())
    assert (np.random.get_state()[1].tobytes(), random.getstate(), cv2.getNumThreads()) == states


def test_a_recipe_is_pickled_as_its_entries():
    recipe = build_recipe([CROP, NESTED], (3, 32, 32), 255.0)
    copy = pickle.loads(pickle.dumps(recipe))
    assert isinstance(copy, Recipe)
    assert copy.out_shape == recipe.out_shape
    np.testing.assert_array_equal(copy(images(), seeds()), recipe(images(), seeds()))


def test_opencv_numbers_may_be_written_as_their_names():
    words = {"border_mode": "BORDER_REFLECT_101", "interpolation": "cv2.INTER_NEAREST", "rotate": (20, 40), "p": 1}
    numbers = words | {"border_mode": cv2.BORDER_REFLECT_101, "interpolation": cv2.INTER_NEAREST}
    by_word, by_number = (
        build_recipe([{"Affine": values}], (3, 32, 32), 255.0)(images(), seeds()) for values in (words, numbers)
    )
    np.testing.assert_array_equal(by_word, by_number)


def test_the_library_is_imported_at_first_use_and_asks_no_index():
    code = (
        "import sys, os, urllib.request\n"
        "import pipeline.augment.albumentations as adapter\n"
        "assert 'albumentations' not in sys.modules\n"
        "urllib.request.OpenerDirector.open = lambda *_, **__: sys.exit('asked the index')\n"
        "adapter.build_recipe(['HorizontalFlip'], (1, 8, 8), 255.0)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- what a user can get wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "start", "part"),
    [
        (["HorizontalFlipp"], "[0].HorizontalFlipp: ", "Did you mean 'HorizontalFlip'?"),
        (["Pad3D"], "[0].Pad3D: no transform for images", "2.0"),
        (["CutMix"], "[0].CutMix: ", "mix:"),
        (["Compose"], "[0].Compose: ", "Sequential"),
        (["HorizontalFlip", {"RandomCrop": {"hieght": 28}}], "[1].RandomCrop.hieght: ", "Did you mean 'height'?"),
        ([{"CoarseDropout": {"max_holes": 3}}], "[0].CoarseDropout.max_holes: unknown", "num_holes_range"),
        ([{"Affine": {"fill_mask": 0}}], "[0].Affine.fill_mask: is never read", "images"),
        ([{"RandomCrop": {"width": 28}}], "[0].RandomCrop.height: is missing", ""),
        ([{"RandomCrop": {"height": -1, "width": 8}}], "[0].RandomCrop.height: must be greater", "(found: -1)"),
        ([{"Affine": {"scale": "big"}}], "[0].Affine.scale: must be", "(found: 'big')"),
        ([{"MotionBlur": {"blur_limit": (4, 6)}}], "[0].MotionBlur: blur_limit", "odd"),
        ([{"Affine": {"border_mode": "BORDER_REFLECTED"}}], "[0].Affine.border_mode: ", "'BORDER_REFLECT'"),
        ([{"HorizontalFlip": {"p": 7}}], "[0].HorizontalFlip.p: must be less", "(found: 7)"),
        ([{"HorizontalFlip": {"p": 0}}], "[0].HorizontalFlip.p: 0 never", ""),
        ([{"OneOf": {"p": 7, "transforms": ("Blur",)}}], "[0].OneOf.p: must be", "0..1"),
        ([{"SomeOf": {"n": 0, "transforms": ("Blur",)}}], "[0].SomeOf.n: must be", ">= 1"),
        ([{"SomeOf": {"n": 3, "transforms": ("Blur",)}}], "[0].SomeOf: ", "greater than number"),
        ([{"RandomOrder": {"replace": 1, "transforms": ("Blur",)}}], "[0].RandomOrder.replace: must be", "false"),
        ([{"OneOf": {"p": 0.5}}], "[0].OneOf.transforms: must be a list", "None"),
        ([{"OneOf": {"transforms": ("Blur", "Blurr")}}], "[0].OneOf.transforms[1].Blurr: ", "'Blur'"),
        ([{"OneOf": {"transforms": ({"Blur": 3},)}}], "[0].OneOf.transforms[0]: must be a name", "block"),
        ([], ": must be a list", "not empty"),
        (["Affine"], "[0].Affine: changes nothing", "arguments"),
        *(([name], f"[0].{name}: ", "input.normalize") for name in ("Normalize", "ToFloat", "FromFloat", "ToTensorV2")),
        *(([name], f"[0].{name}: ", "masks") for name in ("MaskDropout", "ConstrainedCoarseDropout")),
        *(([name], f"[0].{name}: ", "boxes") for name in ("BBoxSafeRandomCrop", "RandomCropNearBBox")),
        *(([name], f"[0].{name}: ", "other images") for name in ("Mosaic", "FDA", "OverlayElements", "TextImage")),
    ],
)
def test_a_mistake_in_the_config_is_named_with_its_place(entries, start, part):
    message = fault(entries)
    assert message.startswith("augment.albumentations" + start)
    assert part in message


@pytest.mark.parametrize(
    ("entries", "shape", "start", "part"),
    [
        ([{"RandomCrop": {"height": 28, "width": 28, "p": 0.5}}], (3, 32, 32), "[0].RandomCrop: ", "set p: 1"),
        (["HorizontalFlip", "RandomCropFromBorders"], (3, 32, 32), "[1].RandomCropFromBorders: ", "several sizes"),
        (["RandomRotate90"], (1, 32, 40), "[0].RandomRotate90: ", "(32 x 40, 40 x 32)"),
        (["Transpose"], (1, 32, 40), "[0].Transpose: ", "(32 x 40, 40 x 32)"),
        ([{"OneOf": {"p": 1, "transforms": ("Blur", CROP)}}], (3, 32, 32), "[0].OneOf: ", "(28 x 28, 32 x 32)"),
        ([{"SomeOf": {"p": 1, "transforms": ("Blur", CROP)}}], (3, 32, 32), "[0].SomeOf: ", "(28 x 28, 32 x 32)"),
        ([{"Sequential": {"transforms": ("Blur", CROP)}}], (3, 32, 32), "[0].Sequential: ", "set p: 1"),
        ([{"CenterCrop": {"height": 40, "width": 40}}], (3, 32, 32), "[0].CenterCrop: does not take", "(40, 40)"),
        ([always("RandomScale"), {"RandomCrop": {"height": 32, "width": 32}}], (3, 32, 32), "[1].RandomCrop: ", "30 x"),
        (["CLAHE"], (6, 32, 32), "[0].CLAHE: does not take uint8 images of 6 channel(s)", "1-channel or 3-channel"),
        (["HueSaturationValue"], (1, 32, 32), "[0].HueSaturationValue: does not take", "grayscale"),
        (["ToGray"], (1, 32, 32), "[0].ToGray: does not take", "already gray"),
        (["ToRGB"], (1, 32, 32), "[0].ToRGB: makes uint8 32 x 32 x 3", "may change their size"),
        (
            [{"OneOf": {"transforms": ("Blur", "ISONoise")}}],
            (1, 8, 8),
            "[0].OneOf.transforms[1].ISONoise: ",
            "3-channel",
        ),
    ],
)
def test_what_does_not_fit_the_images_is_refused_before_anything_runs(entries, shape, start, part):
    message = fault(entries, *shape)
    assert message.startswith("augment.albumentations" + start)
    assert part in message


def test_a_type_that_a_transform_does_not_take_is_named():
    entries = [{"Equalize": {"mode": "pil"}}]
    assert build_recipe(entries, (1, 32, 32), 255.0).out_shape == (1, 32, 32)
    assert "float32 images" in fault([{"Defocus": {"radius": (40, 60)}}, "ToRGB"], 1, full_scale=1.0)


def test_a_sample_that_fails_is_named_by_its_place_in_the_batch():
    recipe = build_recipe(["HorizontalFlip"], (1, 8, 8), 1.0)
    items = images(3, 1, 8, 8, full_scale=1.0)
    items[2, 0, 0, 0] = 4.5
    with pytest.raises(SampleError, match=r"augment.albumentations: takes values of 0..1, .*..4.5") as caught:
        recipe(items, seeds(3))
    assert caught.value.index == 2
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    items[2] = np.nan
    with pytest.raises(SampleError, match="nan"):
        recipe(items, seeds(3))


def test_a_size_that_the_trial_did_not_meet_is_an_error_and_never_broadcast():
    recipe = Recipe(["Transpose"], 255.0, (1, 32, 40))
    with pytest.raises(SampleError, match=r"gives uint8 \(1, 40, 32\); a batch takes uint8 \(1, 32, 40\)"):
        recipe(images(8, 1, 32, 40), seeds(8))
    with pytest.raises(SampleError, match="RandomCrop: Crop size"):
        Recipe([{"RandomCrop": {"height": 40, "width": 40}}], 255.0, (1, 40, 40))(images(1, 1), seeds(1))


# -- the config --------------------------------------------------------------------------------------------------------


def test_a_saved_list_loads_as_it_was_and_off_drops_it():
    augment = validate(Augment, {"albumentations": ["HorizontalFlip", CROP, {"OneOf": {"transforms": ["Blur"]}}]}, "x")
    assert augment.albumentations[2] == {"OneOf": {"transforms": ("Blur",)}}
    again = validate(Augment, json.loads(json.dumps(augment.plain())), "x")
    assert again == augment
    assert hash_json(again.plain()) == hash_json(augment.plain())
    assert validate(Augment, merge(augment.plain(), {"albumentations": False}), "x") == Augment()
    assert Augment.model_validate(tuples({"albumentations": None})) == Augment()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("HorizontalFlip", "albumentations: must be a list"),
        ({"HorizontalFlip": {}}, "albumentations: must be a list"),
        ([3], r"albumentations\[0\]: must be text"),
        ([{"Blur": {}, "MotionBlur": {}}], r"albumentations\[0\]: a transform is a name or one block"),
        ([{"Blur": 3}], r"albumentations\[0\]: a transform is a name or one block"),
        ([{"Blur": {"p": float("inf")}}], r"albumentations\[0\]: inf is no finite number"),
        (
            [{"Blur": {"blur_limit": [{3, 5}]}}],
            r"albumentations\[0\]: \{3, 5\} is neither text, number, list nor block",
        ),
        ([{"Affine": {"scale": {1: 2}}}], r"albumentations\[0\]: the key 1 is no text"),
    ],
)
def test_a_list_that_is_none_is_refused_when_the_config_is_read(value, message):
    with pytest.raises(ConfigError, match=message):
        validate(Augment, {"albumentations": value}, "x.yaml")


def test_yaml_and_overrides_reach_the_list(tmp_path):
    (tmp_path / "task.yaml").write_text(
        "name: t\ndata: .\nkind: binary\nmetric: accuracy\nid: id\ntarget: y\n"
        "train: {table: t.csv, files: '{id}.png'}\ntest: {table: s.csv, files: '{id}.png'}\n"
        "submission: {sample: s.csv}\n"
    )
    (tmp_path / "base.yaml").write_text(
        "task: task.yaml\nmodel: {name: cnn}\naugment:\n  flip: {}\n  albumentations:\n    - Blur\n"
        "    - RandomCrop: {height: 28, width: 28}\n"
    )
    (tmp_path / "child.yaml").write_text("base: base.yaml\naugment: {albumentations: off}\n")
    base, child = (load_config(tmp_path / name).experiment.augment for name in ("base.yaml", "child.yaml"))
    assert base.albumentations == ("Blur", {"RandomCrop": {"height": 28, "width": 28}})
    assert child.albumentations == ()
    assert child.flip is not None
    typed = load_config(tmp_path / "child.yaml", ["augment.albumentations=[{Blur: {p: 0.1}}]"]).experiment.augment
    assert typed.albumentations == ({"Blur": {"p": 0.1}},)
