"""DICOM files to pictures: values of the modality, through a window, as 8 or 16 bits with black at 0.

The order is that of the standard (PS3.3 C.11): modality table or slope, then window or VOI table, then MONOCHROME1
turned round. pydicom reads the files; compressed ones need the decoders that the extra `dicom` brings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.records.decoding import Dicom

if TYPE_CHECKING:
    from pydicom import Dataset

Array = NDArray[Any]

PACKAGES = ("pydicom", "python-gdcm")
"""Whose versions decide the values."""


def read_dicom(path: Path, how: Dicom | None = None) -> Array:
    """Return the picture of a DICOM file as (1, H, W) or (3, H, W), uint8 or uint16.

    Grey values fill the type: what lies at the lower end of the window becomes 0, at the upper end 255 or 65535.
    Colour (RGB, YBR and palettes) is taken as it is, without a window.

    Args:
        path: the file.
        how: window and bits.

    Raises:
        DataError: the file is missing, damaged or no DICOM file, has several frames or no picture, is compressed in a
            way that no decoder reads, or pydicom is missing.
    """
    try:
        import pydicom
        import pydicom.config
        import pydicom.errors
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise DataError(
            f"{path}: DICOM files need pydicom, which is not installed; run pip install 'podium[dicom]'"
        ) from None
    how = how or Dicom()
    try:
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # of tags that are not read here
        dataset = pydicom.dcmread(path)
        _refuse_frames(dataset, path)
        pixels = pixel_array(dataset)
        if dataset.get("SamplesPerPixel", 1) > 1 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            return _colour(pixels, dataset)
        return _grey(pixels, dataset, how)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: missing") from None
    except pydicom.errors.InvalidDicomError:
        raise DataError(
            f"{path}: empty (0 bytes)" if not path.stat().st_size else f"{path}: is no DICOM file"
        ) from None
    except Exception as error:  # decoders raise whatever they stumble over
        raise DataError(f"{path}: truncated, damaged, or compressed in a way that is not read ({error})") from None


def _refuse_frames(dataset: Dataset, path: Path) -> None:
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    if n_frames > 1:
        raise DataError(
            f"{path}: holds {n_frames} frames; save each frame, or the one that matters, as a file of its own, or all"
            " as one .npy array of (C, H, W)"
        )
    if "PixelData" not in dataset:
        raise DataError(f"{path}: holds no picture of whole numbers (its tag PixelData is missing)")


def _colour(pixels: Array, dataset: Dataset) -> Array:
    """Return (3, H, W) of colour, which pydicom has turned to RGB already, palettes aside."""
    from pydicom.pixels.processing import apply_color_lut

    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    planes = np.moveaxis(pixels[..., :3], -1, 0)
    return np.ascontiguousarray(planes).astype(np.uint8 if pixels.dtype.itemsize == 1 else np.uint16, copy=False)


def _grey(pixels: Array, dataset: Dataset, how: Dicom) -> Array:
    """Return (1, H, W) of the grey values of a file."""
    from pydicom.pixels.processing import apply_modality_lut

    values = apply_modality_lut(pixels, dataset)
    if how.window is not None:
        shares = windowed(values, *how.window)
    elif how.own_windows and dataset.get("VOILUTSequence"):
        shares = _looked_up(values, dataset.VOILUTSequence[0])
    elif how.own_windows and dataset.get("WindowWidth") is not None:
        shares = windowed(values, _first(dataset.WindowCenter), _first(dataset.WindowWidth), _function(dataset))
    else:
        low, high = _range(dataset, pixels.dtype)
        shares = (pixels - low) / (high - low)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        shares = 1 - shares
    bits = how.bits or (8 if dataset.BitsStored <= 8 else 16)
    kept: Array = np.rint(np.clip(shares, 0, 1) * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    return kept[None]


def windowed(values: Array, center: float, width: float, function: str = "LINEAR") -> NDArray[np.float64]:
    """Return values as shares 0..1 of a window, cut at its ends.

    Args:
        values: of any shape, in the units of the modality.
        center: of the window.
        width: of the window; more than 1 for `LINEAR`.
        function: LINEAR: (x - (c - 0.5)) / (w - 1) + 0.5; LINEAR_EXACT: (x - c) / w + 0.5;
            SIGMOID: 1 / (1 + exp(-4 (x - c) / w)).

    Source: DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3.
    """
    exact = values.astype(np.float64) - center
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-np.clip(4 * exact / width, -500, 500))))
    if function == "LINEAR_EXACT":
        return np.clip(exact / width + 0.5, 0, 1)
    return np.clip((exact + 0.5) / max(width - 1, 1e-6) + 0.5, 0, 1)


def _looked_up(values: Array, table: Dataset) -> NDArray[np.float64]:
    """Return values as shares 0..1 by a VOI table; pydicom's own function goes wrong from 256 entries of 8 bits on."""
    n_entries, first, bits = (int(number) for number in table.LUTDescriptor)
    data = table.LUTData
    entries = np.frombuffer(data, np.uint16) if isinstance(data, bytes) else np.asarray(data, np.float64)
    places = np.clip(np.rint(values) - first, 0, min(n_entries or 2**16, len(entries)) - 1).astype(np.int64)
    return np.asarray(entries[places] / (2.0**bits - 1))


def _range(dataset: Dataset, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the least and the largest value that the file's bits can hold."""
    bits = int(dataset.get("BitsStored", 8 * dtype.itemsize))
    is_signed = bool(dataset.get("PixelRepresentation", 0))
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if is_signed else (0.0, 2.0**bits - 1)


def _first(value: Any) -> float:
    """Return the first of several windows that a file offers, or the only one."""
    return float(value if isinstance(value, int | float | str) else next(iter(value)))


def _function(dataset: Dataset) -> str:
    return str(dataset.get("VOILUTFunction") or "LINEAR").upper()
