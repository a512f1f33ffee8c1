"""What `pipeline.data.readers` promises, beside Pillow and slow references."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pipeline.base.errors import DataError
from pipeline.data.number_tables import read_number_table
from pipeline.data.readers import (
    READABLE,
    convert_channels,
    load_array,
    read_array,
    read_image,
    reader_for,
    resize_image,
)

RNG = np.random.default_rng(0)
SMOOTH = cv2.GaussianBlur(RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8), (5, 5), 0)
DEEP = RNG.integers(0, 65536, (6, 9, 4), dtype=np.uint16)
FILES = {
    "png": {},
    "jpg": {"quality": 90},
    "jpeg": {"progressive": True},
    "tif": {},
    "tiff": {"compression": "tiff_lzw"},
    "bmp": {},
    "webp": {"lossless": True},
    "gif": {},
}


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def chw(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_format_reads_as_pillow_reads_it(tmp_path: Path, suffix: str, mode: str) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(SMOOTH).convert(mode), **FILES[suffix])
    with Image.open(path) as image:
        # WebP has no grey, GIF colours are a palette.
        expected = chw(image.convert("RGB") if image.mode == "P" else image.copy())
    np.testing.assert_array_equal(read_image(path), expected)
    assert read_image(path).dtype == np.uint8
    assert reader_for(path) is read_image


@pytest.mark.parametrize("suffix", FILES)
def test_a_file_cut_anywhere_is_an_error_or_the_whole_picture(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(SMOOTH), **FILES[suffix])
    whole, content = read_image(path), path.read_bytes()
    n_errors = 0
    for n_bytes in range(0, len(content), max(1, len(content) // 25)):
        path.write_bytes(content[:n_bytes])
        try:
            np.testing.assert_array_equal(read_image(path), whole)
        except DataError:
            n_errors += 1
    assert n_errors >= 23


def test_truncated_empty_missing_and_alien_files_are_told_apart(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(SMOOTH))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"a\.jpg: truncated or damaged"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"empty \(0 bytes\)"):
        read_image(path)
    path.write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(DataError, match="not an image that can be read"):
        read_image(path)
    with pytest.raises(DataError, match=r"b\.jpg: missing"):
        read_image(tmp_path / "b.jpg")
    with pytest.raises(DataError, match="cannot be opened"):
        read_image(tmp_path)


def test_formats_outside_the_list_are_refused_whatever_their_suffix(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(SMOOTH), format="PPM")
    with pytest.raises(DataError, match="not an image that can be read"):
        read_image(path)
    save(path, Image.fromarray(SMOOTH), format="BMP")
    np.testing.assert_array_equal(read_image(path), chw(Image.fromarray(SMOOTH)))


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("1", (10_000, 9_000)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(DataError, match=r"10000x9000 pixels are more than the 89,478,485 that are safe"):
            read_image(path)
    with pytest.raises(DataError, match="more than the 89,478,485 pixels that are safe"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(SMOOTH), exif=exif)
    with Image.open(path) as image:
        expected = chw(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path), expected)
    assert read_image(path).shape == ((3, 40, 56) if orientation < 5 else (3, 56, 40))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_orientation_of_deep_colour_is_applied_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    deep, exif = tmp_path / f"deep.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    flat = save(tmp_path / f"flat.{suffix}", Image.fromarray((DEEP[..., :3] >> 8).astype(np.uint8)), exif=exif)
    if suffix == "png":
        cv2.imwrite(str(deep), DEEP[..., 2::-1])
        content, donor = deep.read_bytes(), flat.read_bytes()
        start = donor.index(b"eXIf") - 4
        length = int.from_bytes(donor[start : start + 4], "big") + 12
        deep.write_bytes(content[:33] + donor[start : start + length] + content[33:])  # after the header chunk
    else:
        _write_deep_tiff(deep, DEEP[..., :3], orientation)
    image = read_image(deep)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image >> 8, read_image(flat))


def _write_deep_tiff(path: Path, pixels: np.ndarray, orientation: int) -> None:
    height, width, n_channels = pixels.shape
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 256)]
    tags += [(274, 3, 1, orientation), (277, 3, 1, n_channels), (278, 3, 1, height), (279, 4, 1, pixels.nbytes)]
    content = b"II*\0" + (8).to_bytes(4, "little") + len(tags).to_bytes(2, "little")
    for tag, kind, count, value in tags:
        content += tag.to_bytes(2, "little") + kind.to_bytes(2, "little")
        content += count.to_bytes(4, "little") + value.to_bytes(4, "little")
    content = (content + bytes(4)).ljust(200, b"\0") + (16).to_bytes(2, "little") * 3
    path.write_bytes(content.ljust(256, b"\0") + pixels.astype("<u2").tobytes())


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("n_channels", [1, 3, 4])
def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path, suffix: str, n_channels: int) -> None:
    pixels = DEEP[..., :n_channels]
    stored = pixels[..., 0] if n_channels == 1 else pixels[..., [2, 1, 0, 3][:n_channels]]
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), stored)
    image = read_image(path)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, np.moveaxis(pixels, -1, 0))


def test_truncated_deep_colour_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), RNG.integers(0, 65536, (40, 40, 3), dtype=np.uint16))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="truncated"):
        read_image(path)


def test_channels_without_a_wish_are_those_of_the_file(tmp_path: Path) -> None:
    picture = Image.fromarray(SMOOTH)
    palette = picture.quantize(16)
    for name, image, mode in [
        ("grey", picture.convert("L"), "L"),
        ("bits", picture.convert("1"), "L"),
        ("palette", palette, "RGB"),
        ("alpha", picture.convert("RGBA"), "RGBA"),
        ("grey_alpha", picture.convert("LA"), "RGBA"),
    ]:
        path = save(tmp_path / f"{name}.png", image)
        np.testing.assert_array_equal(read_image(path), chw(image.convert(mode)))
    path = save(tmp_path / "clear.png", palette, transparency=3)
    assert (read_image(path)[3] == np.where(np.asarray(palette) == 3, 0, 255)).all()
    path = save(tmp_path / "cmyk.jpg", picture.convert("CMYK"))
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), chw(image.convert("RGB")))


def test_the_first_frame_of_a_gif_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(path), chw(frames[0]))


def test_pixels_of_32_bits_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(SMOOTH[..., 0].astype(np.float32)))
    with pytest.raises(DataError, match="pixels of 32 bits"):
        read_image(path)


def test_damaged_exif_does_not_condemn_a_whole_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(SMOOTH), exif=b"Exif\0\0MM\0*\xff\xff")
    np.testing.assert_array_equal(read_image(path), chw(Image.fromarray(SMOOTH)))


def test_grey_is_that_of_pillow_and_the_rest_converts_both_ways(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(SMOOTH))
    grey = read_image(path, 1)
    np.testing.assert_array_equal(grey, chw(Image.fromarray(SMOOTH).convert("L")))
    colour = convert_channels(grey, 3)
    assert colour.shape == (3, 40, 56)
    np.testing.assert_array_equal(convert_channels(colour, 1), grey)
    np.testing.assert_array_equal(read_image(path, 4)[3], np.full((40, 56), 255))
    np.testing.assert_array_equal(read_image(path, 4)[:3], chw(Image.fromarray(SMOOTH)))


def test_alpha_is_laid_over_black() -> None:
    rgba = RNG.integers(0, 256, (8, 9, 4), dtype=np.uint8)
    black = Image.new("RGBA", (9, 8), "black")
    expected = chw(Image.alpha_composite(black, Image.fromarray(rgba)).convert("RGB")).astype(int)
    image = np.moveaxis(rgba, -1, 0)
    np.testing.assert_allclose(convert_channels(image, 3), expected, atol=1)
    exact = np.floor(image[:3].astype(float) * image[3] / 255 + 0.5)
    np.testing.assert_array_equal(convert_channels(image, 3), exact)
    np.testing.assert_array_equal(convert_channels(image, 1), convert_channels(convert_channels(image, 3), 1))


@pytest.mark.parametrize("n_channels", [3, 4])
def test_sixteen_bits_convert_to_grey_without_overflow(n_channels: int) -> None:
    white = np.full((n_channels, 2, 2), 65535, np.uint16)
    np.testing.assert_array_equal(convert_channels(white, 1), white[:1])
    image = np.moveaxis(DEEP[..., :3], -1, 0)
    exact = np.tensordot([0.299, 0.587, 0.114], image.astype(float), 1)
    np.testing.assert_allclose(convert_channels(image, 1)[0], exact, atol=1.5)


def test_channels_that_cannot_be_made_are_an_error() -> None:
    with pytest.raises(DataError, match="2 channels of uint8 cannot be made 3"):
        convert_channels(np.zeros((2, 4, 4), np.uint8), 3)
    with pytest.raises(DataError, match="float32"):
        convert_channels(np.zeros((3, 4, 4), np.float32), 4)
    np.testing.assert_allclose(convert_channels(np.full((3, 2, 2), 0.5, np.float32), 1), 0.5)


@pytest.mark.parametrize(
    ("given", "kept"),
    [(given, "f4") for given in ("f8", "f4", "f2", "i1", "i2", "i8", "u4")]
    + [("u1", "u1"), ("?", "u1"), ("u2", "u2"), (">u2", "u2")],
)
def test_arrays_are_read_with_their_values_in_a_storable_type(tmp_path: Path, given: str, kept: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(given)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", signal=array)
    for item in (
        read_array(tmp_path / "a.npy"),
        read_array(tmp_path / "a.npz"),
        read_array(tmp_path / "a.npz", "signal"),
    ):
        assert item.dtype == np.dtype(kept)
        np.testing.assert_array_equal(item, array.astype(float))


def test_one_row_of_values_becomes_one_channel(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5.0))
    assert read_array(tmp_path / "a.npy").shape == (1, 5)
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(DataError, match=r"found shape \(2, 3, 4, 5\)"):
        read_array(tmp_path / "a.npy")


def test_faults_of_array_files_are_named(tmp_path: Path) -> None:
    npy, npz = tmp_path / "a.npy", tmp_path / "a.npz"
    np.save(npy, np.zeros(3))
    np.savez(npz, signal=np.zeros(100), label=np.zeros(3))
    with pytest.raises(DataError, match=r"holds several arrays; name one with key: signal, label"):
        read_array(npz)
    with pytest.raises(DataError, match=r"no array 'signals'\. Did you mean 'signal'"):
        read_array(npz, "signals")
    with pytest.raises(DataError, match=r"key 'x' is only for \.npz files"):
        load_array(npy, "x")
    with pytest.raises(DataError, match=r"none\.npy: missing"):
        read_array(tmp_path / "none.npy")
    for path in (npy, npz):
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match="truncated or damaged"):
            read_array(path, None if path is npy else "signal")


def test_python_objects_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, None], dtype=object))
    with pytest.raises(DataError, match=r"Python objects|pickle"):
        read_array(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="Object arrays"):
        read_array(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.zeros(3, complex))
    with pytest.raises(DataError, match="real numbers, found complex128"):
        read_array(tmp_path / "a.npy")


def test_the_reader_follows_the_suffix() -> None:
    assert reader_for(Path("a.JPG")) is read_image
    assert reader_for(Path("a.npz")) is read_array
    with pytest.raises(DataError, match=r"a\.exe: no reader for '\.exe' files") as caught:
        reader_for(Path("a.exe"))
    assert all(suffix in str(caught.value) for suffix in READABLE)


# -- tensors and tables of numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.int64, torch.bfloat16])
def test_tensors_are_read_as_arrays(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(RNG.integers(0, 99, (3, 20))).to(dtype)
    torch.save(tensor, tmp_path / "a.pt")
    array = read_array(tmp_path / "a.pt")
    np.testing.assert_array_equal(array, tensor.float().numpy())
    assert array.dtype == (np.uint8 if dtype == torch.uint8 else np.float32)
    torch.save(tensor, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(read_array(tmp_path / "old.pth"), array)


def anonymous_bytes() -> int:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["RssAnon"].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what memory is mapped")
@pytest.mark.parametrize("suffix", ["npy", "pt"])
def test_arrays_and_tensors_are_mapped_and_not_loaded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    whole = np.zeros((4, 4_000_000), np.float32)
    if suffix == "npy":
        np.save(path, whole)
    else:
        torch.save(torch.from_numpy(whole), path)
    n_bytes = whole.nbytes
    del whole
    load_array(path)  # what the first call imports does not count
    before = anonymous_bytes()
    array = load_array(path)
    assert array[:, ::100].sum() == 0
    assert anonymous_bytes() - before < n_bytes / 4


def test_a_file_of_several_tensors_wants_a_key(tmp_path: Path) -> None:
    tensors = {"signal": torch.ones(2, 3), "label": torch.zeros(2)}
    torch.save(tensors, tmp_path / "a.pt")
    np.testing.assert_array_equal(load_array(tmp_path / "a.pt", "signal"), np.ones((2, 3)))
    with pytest.raises(DataError, match=r"a\.pt: holds several tensors; name one with key: signal, label"):
        load_array(tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"no tensor 'singal'\. Did you mean 'signal'\?"):
        load_array(tmp_path / "a.pt", "singal")
    torch.save({"x": torch.ones(3)}, tmp_path / "a.pt")
    assert load_array(tmp_path / "a.pt").shape == (3,)
    torch.save(torch.ones(3), tmp_path / "a.pt")
    with pytest.raises(DataError, match="key 'x' is only for files that hold several tensors"):
        load_array(tmp_path / "a.pt", "x")


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["PODIUM_TEST_MARK"],))


@pytest.mark.parametrize("content", [RunsCode(), torch.nn.Linear(2, 2), {"model": torch.nn.Linear(2, 2)}])
@pytest.mark.parametrize("is_new", [True, False])
def test_nothing_but_tensors_is_ever_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, is_new: bool
) -> None:
    monkeypatch.setenv("PODIUM_TEST_MARK", str(tmp_path / "ran"))
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=is_new)
    with pytest.raises(DataError, match=r"a\.pt: is no file of plain tensors; other objects are not loaded"):
        load_array(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_tensor_files_that_hold_something_else_are_told_apart(tmp_path: Path) -> None:
    for content, message in (
        ([torch.ones(2)], "expected a tensor, found list"),
        ({"n": 3}, "expected a tensor, found int"),
        (torch.ones(2, 2).to_sparse(), "expected a tensor, found a sparse tensor"),
        (torch.ones(2, dtype=torch.complex64), "real numbers, found complex64"),
    ):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(DataError, match=rf"a\.pt: .*{message}"):
            read_array(tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"b\.pt: missing"):
        read_array(tmp_path / "b.pt")
    (tmp_path / "b.pt").touch()
    with pytest.raises(DataError, match=r"b\.pt: empty \(0 bytes\)"):
        read_array(tmp_path / "b.pt")
    torch.save(torch.ones(1000), tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:3000])
    with pytest.raises(DataError, match=r"a\.pt: (truncated or damaged|is no file of plain tensors)"):
        read_array(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "c3,c4\n1,2.5\n,-4e1\n"),
        ("a.csv", ",c3,c4\n0,1,2.5\n1,,-4e1\n"),
        ("a.csv", "\ufeffc3;c4\n1;2.5\n;-40\n"),
        ("a.csv", "1,2.5\nnan,-40\n"),
        ("a.tsv", "1\t2.5\n\t-40\n"),
        ("a.txt", "  1   2.5\n nan  -40.0\n"),
    ],
)
def test_tables_of_numbers_are_read_however_they_are_written(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    table = reader_for(tmp_path / name)(tmp_path / name)
    np.testing.assert_array_equal(table, np.array([[1, 2.5], [np.nan, -40]], np.float32))
    assert table.dtype == np.float32


def test_named_columns_of_tables_keep_the_stated_order(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,c4,name,c3\n0,1,x,2\n1,3,y,4\n")
    np.testing.assert_array_equal(read_number_table(tmp_path / "a.csv", ["c3", "c4"]), [[2, 1], [4, 3]])
    with pytest.raises(DataError, match=r"has no column tme\. Did you mean 'time'\? It has: time, c4, name, c3"):
        read_number_table(tmp_path / "a.csv", ["tme"])
    with pytest.raises(DataError, match=r"holds other than numbers in name; name the columns that are channels in"):
        read_number_table(tmp_path / "a.csv")


def test_broken_tables_of_numbers_are_told_apart(tmp_path: Path) -> None:
    for text, message in (
        ("", "is empty, or begins with an empty line"),
        ("a,b\n", "holds no numbers"),
        ("1,2\n1,2,3\n", "cannot be read as a table of numbers"),
    ):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(DataError, match=rf"a\.csv: {message}"):
            read_number_table(tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_text("x")
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read as Parquet"):
        read_number_table(tmp_path / "a.parquet")
    for name in ("b.csv", "b.parquet"):
        with pytest.raises(DataError, match=rf"{name}: missing"):
            read_number_table(tmp_path / name)


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("n_channels", [1, 3, 4])
def test_shrinking_averages_areas(dtype: type, n_channels: int) -> None:
    image = RNG.integers(0, 200, (n_channels, 12, 20)).astype(dtype)
    small = resize_image(image, (4, 5), "squash")
    means = image.reshape(n_channels, 4, 3, 5, 4).mean(axis=(2, 4), dtype=float)
    assert small.dtype == dtype
    np.testing.assert_allclose(small, means, atol=0.51)


def _linear(row: np.ndarray, n: int) -> np.ndarray:
    centres = (np.arange(n) + 0.5) * len(row) / n - 0.5
    return np.interp(centres, np.arange(len(row)), row)


def test_growing_interpolates_between_pixel_centres() -> None:
    image = RNG.integers(0, 65536, (3, 5, 4), dtype=np.uint16)
    rows = np.apply_along_axis(_linear, 2, image.astype(float), 9)
    expected = np.apply_along_axis(_linear, 1, rows, 11)
    np.testing.assert_allclose(resize_image(image, (11, 9), "squash"), expected, atol=2)


def test_an_axis_that_shrinks_is_averaged_while_the_other_grows() -> None:
    stripes = np.zeros((1, 64, 4), np.uint8)
    stripes[:, ::2] = 200
    np.testing.assert_array_equal(resize_image(stripes, (8, 16), "squash"), np.full((1, 8, 16), 100))


@pytest.mark.parametrize("shape", [(30, 60), (60, 30), (31, 47), (7, 5), (1, 300), (300, 1), (16, 24)])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_letterbox_shows_everything_and_crop_fills_everything(shape: tuple[int, int], n_channels: int) -> None:
    image = np.full((n_channels, *shape), 200, np.uint8)
    boxed = resize_image(image, (16, 24), "letterbox")
    assert boxed.shape == (n_channels, 16, 24)
    rows, columns = np.nonzero(boxed[0])
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    ratio = min(16 / shape[0], 24 / shape[1])
    assert (height, width) == tuple(max(1, round(n * ratio)) for n in shape)
    assert abs(rows.min() - (15 - rows.max())) <= 1
    assert abs(columns.min() - (23 - columns.max())) <= 1
    assert set(np.unique(boxed)) <= {0, 200}
    np.testing.assert_array_equal(resize_image(image, (16, 24), "crop"), np.full((n_channels, 16, 24), 200))


def test_crop_cuts_the_middle() -> None:
    image = np.tile(np.arange(40, dtype=np.uint8), (1, 10, 1))
    np.testing.assert_array_equal(resize_image(image, (10, 10), "crop"), image[:, :, 15:25])


def test_an_image_of_the_wanted_size_is_left_alone() -> None:
    image = RNG.integers(0, 256, (3, 8, 9), dtype=np.uint8)
    for how in ("squash", "letterbox", "crop"):
        np.testing.assert_array_equal(resize_image(image, (8, 9), how), image)
