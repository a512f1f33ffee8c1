"""One file to one array: images as (C, H, W), signals as (C, T), and nothing that is not whole.

Pictures and arrays are read here; `dicom`, `audio`, `tensors` and `number_tables` read the other kinds.

Pillow decodes images, and plain JPEG files the library below it (`jpeg`): it refuses truncated files, which OpenCV
returns as half a picture without a word. The exception is colour of 16 bits, which Pillow would cut to 8: there Pillow
still checks the file, and OpenCV reads the values.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.base.errors import DataError, listed, nearest
from pipeline.data import audio, dicom, jpeg
from pipeline.data.audio import read_wave
from pipeline.data.dicom import read_dicom
from pipeline.data.npz import mapped_member
from pipeline.data.number_tables import read_number_table
from pipeline.data.tensors import load_tensor
from pipeline.records.suffixes import (
    ARRAY_SUFFIXES,
    AUDIO_SUFFIXES,
    DICOM_SUFFIXES,
    IMAGE_SUFFIXES,
    READABLE,
    RECORD_SUFFIXES,
)

Array = NDArray[Any]
Resize = Literal["squash", "letterbox", "crop"]

DECODER_VERSION = f"2 pillow-{PIL.__version__} opencv-{cv2.__version__} {jpeg.VERSION}"
"""Part of the key of every stored array: raise the number when a change here changes a value that comes out."""

_DICOM_VERSION, _AUDIO_VERSION = "1", "1"
"""The same for `dicom` and `audio`; these count only where there are such files, as `decoders_of` tells."""
_TENSOR_SUFFIXES = frozenset({".pt", ".pth"})
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")  # of Pillow's some forty, those that a contest has a use for
_MAX_PIXELS = 89_478_485  # Pillow's own bound, from which on it warns of decompression bombs
_SMALL_PX = 48  # below it, calling OpenCV costs more than it saves
_ORIENTATION = 0x0112  # the EXIF tag


def reader_for(path: Path) -> Callable[[Path], Array]:
    """Return the function that reads a file of this suffix, or raise a DataError that lists what can be read."""
    if os.fspath(path).lower().endswith(jpeg.SUFFIXES):  # the most by far, and `suffix` takes as long as reading one
        return read_image
    suffix = path.suffix.lower()
    for suffixes, reader in _READERS:
        if suffix in suffixes:
            return reader
    raise DataError(
        f"{path}: no reader for '{suffix}' files; these can be read: {listed(sorted(READABLE), len(READABLE))}"
    )


def decoders_of(paths: Iterable[Path]) -> str:
    """Return the versions of all that decides the values which come out of these files."""
    suffixes = {os.path.splitext(path)[1].lower() for path in paths}  # noqa: PTH122  three times as fast, of a million
    versions = [DECODER_VERSION]
    for of_kind, version, packages in (
        (DICOM_SUFFIXES, f"dicom-{_DICOM_VERSION}", dicom.PACKAGES),
        (AUDIO_SUFFIXES, f"audio-{_AUDIO_VERSION}", audio.PACKAGES),
    ):
        if suffixes & of_kind:
            versions += [version, *map(version_of, packages)]
    return " ".join(versions)


def version_of(package: str) -> str:
    """Return name and version of a package, which is not imported for it; `none` for one that is not there."""
    try:
        return f"{package}-{metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package}-none"


def read_image(path: Path, channels: int | None = None, fit: tuple[tuple[int, int], Resize] | None = None) -> Array:
    """Return the picture as (C, H, W), uint8 or uint16, turned upright as its EXIF says; it may be read-only.

    PNG, JPEG, TIFF, BMP, WebP, and the first frame of GIF, recognised by content. Without `channels` C is that of the
    file: grey and 1-bit 1; RGB, CMYK and palettes 3; anything with an alpha channel or a transparent palette entry 4.
    The colour key of grey and RGB PNG files is not an alpha channel.

    Args:
        path: the file.
        channels: 1, 3 or 4 converts as `convert_channels` does.
        fit: size and way of a `resize_image` that follows: a JPEG file that shrinks to half or less by it may come out
            smaller already (by 1/2, 3/8, 1/4 or 1/8, never below that size), which is decoded in less time.

    Raises:
        DataError: the file is missing, empty, truncated, no image of these formats, has more than 89 million pixels,
            or has values of 32 bits.
    """
    try:
        pixels = _decode_jpeg(path, fit) if os.fspath(path).lower().endswith(jpeg.SUFFIXES) else None
        if pixels is None:
            with Image.open(path, formats=_FORMATS) as image:
                pixels = _decode(image, path)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever they stumble over: SyntaxError, struct.error, zlib.error, ...
        raise DataError(f"{path}: {_explain(error, path)}") from None
    image_chw = np.ascontiguousarray(pixels[None]) if pixels.ndim == 2 else _channels_first(pixels)
    return image_chw if channels is None else convert_channels(image_chw, channels)


def read_array(path: Path, key: str | None = None) -> Array:
    """Return one item from a file: (C, T) or (C, H, W), a single row of T values as (1, T); types as in `storable`.

    Args:
        path: a `.npy`, `.npz` or `.pt` file.
        key: the array's name inside a `.npz` or `.pt` file; needed when it holds several.

    Raises:
        DataError: the file cannot be read, the key is not in it, or the array has another number of axes.
    """
    array = storable(load_array(path, key), str(path))
    if array.ndim not in (1, 2, 3):
        raise DataError(f"{path}: expected an item of (T,), (C, T), (H, W) or (C, H, W), found shape {array.shape}")
    return array[None] if array.ndim == 1 else array


def load_array(path: Path, key: str | None = None) -> Array:
    """Return the array of a `.npy`, `.pt` or `.npz` file as it lies there: mapped, not loaded.

    Arrays of `.npz` files that are compressed or small are loaded, and checked against the checksum there.

    Raises:
        DataError: the file is missing, damaged or holds Python objects, or `key` is not the name of an array in it.
    """
    if path.suffix.lower() in _TENSOR_SUFFIXES:
        return load_tensor(path, key)
    try:
        if path.suffix.lower() == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                name = _member_name(content, path, key)
                mapped = mapped_member(path, name)
                return np.asarray(content[name]) if mapped is None else mapped
        whole: Array = np.lib.format.open_memmap(path, mode="r")  # it refuses Python objects
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: {_explain(error, path)}") from None
    if key is not None:
        raise DataError(f"{path}: key '{key}' is only for .npz files; a .npy file holds one array")
    return whole


def storable(array: Array, where: str) -> Array:
    """Return `array` as uint8 (from bool and uint8), uint16 (from uint16) or float32 (from all else).

    Raises:
        DataError: complex numbers, text or Python objects; `where` names the source.
    """
    if array.dtype.kind not in "buif":
        raise DataError(f"{where}: expected an array of real numbers, found {array.dtype}")
    kept = {"b1": np.uint8, "u1": np.uint8, "u2": np.uint16}.get(array.dtype.str[1:], np.float32)
    with np.errstate(over="ignore"):  # beyond float32 becomes inf, which the store counts
        return array.astype(kept, copy=False)


def convert_channels(image: Array, channels: int) -> Array:
    """Return an image of (C, H, W) with another number of channels, same dtype.

    Grey to colour repeats; colour to grey weighs 0.299 R + 0.587 G + 0.114 B, rounded, as Pillow's "L"; alpha is laid
    over black before it is dropped, since colours under transparent pixels are arbitrary; a new alpha is opaque.

    Raises:
        DataError: numbers of channels other than 1, 3, 4, or an alpha channel of floating type, whose range is unknown.
    """
    have = image.shape[0]
    if have == channels:
        return image
    if {have, channels} - {1, 3, 4} or (4 in (have, channels) and image.dtype.kind == "f"):
        raise DataError(f"{have} channels of {image.dtype} cannot be made {channels} (state input.channels: {have})")
    colour = _over_black(image) if have == 4 else image
    if channels == 1:
        return _grey(colour)
    colour = np.repeat(colour, 3, axis=0) if have == 1 else colour
    return np.concatenate([colour, np.full_like(colour[:1], _largest(image))]) if channels == 4 else colour


def resize_image(image: Array, size: tuple[int, int], how: Resize) -> Array:
    """Return the image at `size`, shape (C, h, w), same dtype.

    Each axis that shrinks is averaged over areas, each that grows is interpolated linearly, so nothing overshoots.

    Args:
        image: (C, H, W), uint8, uint16 or float32.
        size: (h, w) in pixels, >= 1.
        how: `squash` changes the aspect; `letterbox` keeps it and pads with zeros around the centre; `crop` scales the
            image to cover `size` and cuts the middle.
    """
    if image.shape[1:] == size:
        return image
    if how == "squash":
        return _scale(image, size)
    height, width = _scaled_size((image.shape[1], image.shape[2]), size, how)
    scaled = _scale(image, (height, width))
    top, left = abs(size[0] - height) // 2, abs(size[1] - width) // 2
    if how == "crop":
        return scaled[:, top : top + size[0], left : left + size[1]]
    padded = np.zeros((image.shape[0], *size), image.dtype)
    padded[:, top : top + height, left : left + width] = scaled
    return padded


def _scaled_size(have: tuple[int, int], size: tuple[int, int], how: Resize) -> tuple[int, int]:
    """Return the height and width that a picture is scaled to on its way to `size`, before it is padded or cut."""
    if how == "squash":
        return size
    ratios = [wanted / side for wanted, side in zip(size, have, strict=True)]
    ratio = min(ratios) if how == "letterbox" else max(ratios)
    return max(1, round(have[0] * ratio)), max(1, round(have[1] * ratio))


def _decode_jpeg(path: Path, fit: tuple[tuple[int, int], Resize] | None) -> Array | None:
    """Return the pixels of a plain JPEG file, (H, W, C), upright; None for anything else."""
    wanted = None if fit is None else lambda have: _scaled_size(have, *fit)
    found = jpeg.read_jpeg(path, _MAX_PIXELS, _orientation, wanted)
    return None if found is None else _upright(*found)


def _decode(image: ImageFile.ImageFile, path: Path) -> Array:
    """Return the pixels of an opened image, (H, W) or (H, W, C)."""
    if image.width * image.height > _MAX_PIXELS:
        raise DataError(f"{path}: {image.width}x{image.height} pixels are more than the {_MAX_PIXELS:,} that are safe")
    is_deep_colour = ";16" in str(image.tile) and not image.mode.startswith("I;16")
    image.load()
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16, copy=False)  # native byte order
    elif is_deep_colour:
        pixels = _decode_deep_colour(path, (image.height, image.width))
    else:
        pixels = np.asarray(_simplest(image, path))
    # After loading: Pillow and OpenCV turn TIFF files by themselves, and Pillow then forgets the tag.
    return _upright(pixels, _orientation(image))


def _simplest(image: Image.Image, path: Path) -> Image.Image:
    """Return a picture of 8 bits as L, RGB or RGBA, whichever loses nothing."""
    if image.mode in ("L", "RGB", "RGBA"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("I", "F"):
        raise DataError(f"{path}: pixels of 32 bits are not read from images; save them as .npy arrays")
    is_clear = image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info
    return image.convert("RGBA" if is_clear else "RGB")


def _decode_deep_colour(path: Path, size: tuple[int, int]) -> Array:
    """Return colour of 16 bits as (H, W, 3) or (H, W, 4) from a file that Pillow has found whole."""
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[:2] != size:
        raise DataError(f"{path}: this kind of 16-bit colour is not read; save it as PNG")
    return np.asarray(pixels)[..., [2, 1, 0, 3][: pixels.shape[2]]]


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation 1..8; 1 where there is none or the tags are damaged, as every viewer does."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _upright(pixels: Array, orientation: int) -> Array:
    """Return pixels, (H, W, ...), turned and mirrored from an EXIF orientation to the upright one."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def _explain(error: Exception, path: Path) -> str:
    """Return what is wrong with a file in the user's words."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "missing"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"has more than the {_MAX_PIXELS:,} pixels that are safe to decode"
    if isinstance(error, PermissionError | IsADirectoryError):
        return f"cannot be opened ({error.strerror})"
    if path.stat().st_size == 0:
        return "empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image that can be read ({', '.join(_FORMATS)}), or its header is damaged"
    return f"truncated or damaged ({error})"


def _member_name(content: np.lib.npyio.NpzFile, path: Path, key: str | None) -> str:
    """Return the name of the wanted array of an opened `.npz` file."""
    if key is None and len(content.files) == 1:
        key = content.files[0]
    if key is None:
        raise DataError(f"{path}: holds several arrays; name one with key: {listed(content.files)}")
    if key not in content.files:
        raise DataError(f"{path}: no array '{key}'.{nearest(key, content.files)} It holds: {listed(content.files)}")
    return key


_READERS: tuple[tuple[frozenset[str], Callable[[Path], Array]], ...] = (
    (IMAGE_SUFFIXES, read_image),
    (ARRAY_SUFFIXES, read_array),
    (DICOM_SUFFIXES, read_dicom),
    (AUDIO_SUFFIXES, read_wave),
    (RECORD_SUFFIXES, read_number_table),
)
"""By suffix; what a task says about sound, tables and DICOM is added in `sources`."""


def _over_black(image: Array) -> Array:
    """Return the colours of (4, H, W) times their alpha, rounded; 16 bits fit, as 65535^2 + 32767 < 2^32."""
    largest = _largest(image)
    product: Array = image[:3].astype(np.uint32) * image[3].astype(np.uint32)
    return ((product + largest // 2) // largest).astype(image.dtype)


def _grey(colour: Array) -> Array:
    """Return (1, H, W) of (3, H, W); 16 bits fit into 32, as the weights add up to 2^16."""
    is_float = colour.dtype.kind == "f"
    red, green, blue = colour.astype(np.float32 if is_float else np.uint32)
    total: Array = (19595 * red + 38470 * green + 7471 * blue)[None]  # 0.299, 0.587, 0.114, as Pillow has them
    return (total / 2**16 if is_float else (total + 2**15) >> 16).astype(colour.dtype)


def _largest(image: Array) -> int:
    return int(np.iinfo(image.dtype).max)


def _scale(image: Array, size: tuple[int, int]) -> Array:
    """Return (C, h, w): shrink first, then grow; OpenCV's area filter alone would skip pixels where one axis grows."""
    pixels = np.ascontiguousarray(np.moveaxis(image, 0, -1))
    shrunk = (min(size[0], image.shape[1]), min(size[1], image.shape[2]))
    for step, filter_code in ((shrunk, cv2.INTER_AREA), (size, cv2.INTER_LINEAR)):
        if pixels.shape[:2] != step:
            resized = cv2.resize(pixels, (step[1], step[0]), interpolation=filter_code)
            pixels = resized.reshape(*step, image.shape[0])  # OpenCV drops a single channel's axis
    return _channels_first(pixels)


def _channels_first(pixels: Array) -> Array:
    """Return (H, W, C) as a contiguous (C, H, W); at 256 px numpy takes seven times as long."""
    if min(pixels.shape[:2]) < _SMALL_PX:
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    planes = np.empty((pixels.shape[2], *pixels.shape[:2]), pixels.dtype)
    cv2.split(np.ascontiguousarray(pixels), list(planes))
    return planes
