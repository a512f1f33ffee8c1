"""JPEG files past Pillow: the same pixels, the same refusals, and never less than what is wanted of them."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.base.errors import DataError
from pipeline.data import jpeg
from pipeline.data.forms import StoredForm
from pipeline.data.readers import DECODER_VERSION, read_image, resize_image
from pipeline.data.sources import FileItems
from pipeline.data.store import open_store

SMOOTH = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (200, 312, 3), dtype=np.uint8), (31, 31), 0)
SMOOTH = cv2.normalize(SMOOTH, None, 0, 255, cv2.NORM_MINMAX)


def saved(path: Path, mode: str = "RGB", orientation: int = 1, **options: object) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    chosen = {"exif": exif} if orientation > 1 else {}
    Image.fromarray(SMOOTH).convert(mode).save(path, format="JPEG", **chosen, **options)
    return path


def is_fast(path: Path) -> bool:
    return jpeg.read_jpeg(path, 10**8, lambda _: 1, None) is not None


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{"quality": 40}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}])
def test_pixels_are_those_of_pillow_to_the_bit(tmp_path, mode, options):
    path = saved(tmp_path / "a.jpg", mode, **options)
    with Image.open(path) as image:
        expected = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    assert is_fast(path)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("damage", range(60))
def test_what_pillow_refuses_is_refused_and_what_it_reads_is_read_alike(tmp_path, damage):
    rng = np.random.default_rng(damage)
    content = bytearray(saved(tmp_path / "a.jpg").read_bytes())
    for place in rng.integers(2, len(content), 1 + damage % 3):
        content[place] = rng.integers(256)
    path = tmp_path / "b.jpg"
    path.write_bytes(content if damage % 2 else content[: rng.integers(2, len(content))])
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=["JPEG"]) as image:
            expected = np.atleast_3d(np.asarray(image.convert(image.mode))).transpose(2, 0, 1)
    except Exception:
        with pytest.raises(DataError):
            read_image(path)
    else:
        np.testing.assert_array_equal(read_image(path), expected)


def test_cmyk_and_pictures_that_are_too_large_are_left_to_pillow(tmp_path):
    assert not is_fast(saved(tmp_path / "cmyk.jpg", "CMYK"))
    path = saved(tmp_path / "a.jpg")
    assert jpeg.read_jpeg(path, 200 * 312 - 1, lambda _: 1, None) is None
    assert jpeg.read_jpeg(path, 200 * 312, lambda _: 1, None) is not None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(20, 30), (33, 17), (90, 90), (150, 400)])
@pytest.mark.parametrize("how", ["squash", "letterbox", "crop"])
def test_a_large_picture_comes_out_upright_and_never_below_the_size_it_is_resized_to(tmp_path, orientation, size, how):
    path = saved(tmp_path / "a.jpg", orientation=orientation, quality=95)
    whole, small = read_image(path), read_image(path, fit=(size, how))
    high, wide = (small.shape[side] / whole.shape[side] for side in (1, 2))
    assert high == pytest.approx(wide, rel=0.05)
    ratio = {"squash": max, "crop": max, "letterbox": min}[how](size[0] / whole.shape[1], size[1] / whole.shape[2])
    assert min(high, 1) >= min(ratio, 1)  # the picture is only ever shrunk from what was decoded
    assert (small.shape == whole.shape) == (ratio > 0.5)
    found, wanted = (resize_image(image, size, how).astype(int) for image in (small, whole))
    assert np.abs(found - wanted).mean() < 6.0  # of 255, and 40 if turned: the same picture, not the same bits


def test_a_size_without_fit_reads_every_pixel_and_small_pictures_are_never_scaled(tmp_path):
    path = saved(tmp_path / "a.jpg")
    assert read_image(path).shape == (3, 200, 312)
    assert read_image(path, fit=((200, 312), "squash")).shape == (3, 200, 312)
    assert read_image(path, fit=((400, 400), "squash")).shape == (3, 200, 312)
    assert read_image(path, fit=((101, 156), "squash")).shape == (3, 200, 312)
    assert read_image(path, fit=((100, 156), "squash")).shape == (3, 100, 156)


def test_a_tag_far_behind_in_a_large_header_still_turns_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    Image.fromarray(SMOOTH).save(path, exif=exif)
    content = path.read_bytes()
    filler = b"\xff\xe2" + (60_000).to_bytes(2, "big") + b"\xff\xda" + bytes(59_996)  # with a false start of pixels
    path.write_bytes(content[:2] + filler + filler + content[2:])
    assert is_fast(path)
    assert read_image(path).shape == (3, 312, 200)


def test_files_longer_than_one_read_are_whole(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.jpg")
    expected = read_image(path)
    monkeypatch.setattr(jpeg, "_FIRST_READ", 100)
    monkeypatch.setattr(jpeg, "_LATER_READS", 64)
    assert is_fast(path)
    np.testing.assert_array_equal(read_image(path), expected)


def test_the_store_holds_what_the_reader_and_the_resize_give(tmp_path):
    paths = tuple(saved(tmp_path / f"{number}.jpg", quality=50 + number) for number in range(5))
    form = StoredForm("image", (40, 48), 3, "crop")
    store = open_store(FileItems(paths), form, tmp_path, report=lambda _: None)
    expected = [resize_image(read_image(path, fit=((40, 48), "crop")), (40, 48), "crop") for path in paths]
    np.testing.assert_array_equal(store.array, expected)
    assert "simplejpeg" in DECODER_VERSION
