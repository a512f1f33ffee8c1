"""What `pipeline.data.dicom` promises: the values of the modality through a window, as 8 or 16 bits."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, SecondaryCaptureImageStorage

from pipeline.base.errors import DataError
from pipeline.data.dicom import read_dicom, windowed
from pipeline.data.forms import StoredForm
from pipeline.data.readers import decoders_of, reader_for
from pipeline.data.sources import FileItems
from pipeline.data.store import open_store
from pipeline.records.decoding import Dicom

RNG = np.random.default_rng(0)
EIGHT = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
TWELVE = RNG.integers(0, 4096, (6, 9), dtype=np.uint16)
SIGNED = RNG.integers(-2048, 2048, (6, 9), dtype=np.int16)


def write_dicom(path: Path, pixels: np.ndarray, bits: int, **tags: Any) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Rows, file.Columns = pixels.shape[-2:] if pixels.ndim < 3 or pixels.shape[-1] != 3 else pixels.shape[:2]
    file.SamplesPerPixel = 3 if pixels.ndim == 3 and pixels.shape[-1] == 3 else 1
    file.PhotometricInterpretation = "RGB" if file.SamplesPerPixel == 3 else "MONOCHROME2"
    if file.SamplesPerPixel == 3:
        file.PlanarConfiguration = 0
    file.BitsAllocated = 8 * pixels.dtype.itemsize
    file.BitsStored, file.HighBit = bits, bits - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path


def grey(shares: np.ndarray, bits: int) -> np.ndarray:
    top = 2**bits - 1
    return np.rint(np.clip(shares, 0, 1) * top).astype(f"uint{bits}")[None]


def test_eight_bits_stay_as_they_are(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", EIGHT, 8)
    np.testing.assert_array_equal(read_dicom(path), EIGHT[None])
    assert read_dicom(path).dtype == np.uint8
    assert reader_for(path) is read_dicom
    assert reader_for(Path("a.DICOM")) is read_dicom


def test_twelve_bits_fill_sixteen_and_eight_on_request(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", TWELVE, 12)
    np.testing.assert_array_equal(read_dicom(path), grey(TWELVE / 4095, 16))
    np.testing.assert_array_equal(read_dicom(path, Dicom(bits=8)), grey(TWELVE / 4095, 8))


def test_sixteen_bits_stay_as_they_are(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)
    np.testing.assert_array_equal(read_dicom(write_dicom(tmp_path / "a.dcm", deep, 16)), deep[None])


def test_signed_values_are_moved_so_that_the_least_is_black(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", SIGNED, 12, RescaleSlope=1, RescaleIntercept=0)
    np.testing.assert_array_equal(read_dicom(path), grey((SIGNED.astype(float) + 2048) / 4095, 16))


def test_the_files_own_window_is_used_unless_told_otherwise(tmp_path: Path) -> None:
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": [40, 500], "WindowWidth": [400, 2000]}
    path = write_dicom(tmp_path / "a.dcm", TWELVE, 12, **tags)
    units = TWELVE.astype(float) * 2 - 1024
    np.testing.assert_array_equal(read_dicom(path), grey((units - 39.5) / 399 + 0.5, 16))
    np.testing.assert_array_equal(read_dicom(path, Dicom(own_windows=False)), grey(TWELVE / 4095, 16))


def test_a_stated_window_is_the_same_for_every_file(tmp_path: Path) -> None:
    how = Dicom(window=(-600.0, 1500.0), bits=8)
    for name, slope in (("a", 1), ("b", 2)):
        units = TWELVE.astype(float) * slope - 1024
        tags = {"RescaleSlope": slope, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
        path = write_dicom(tmp_path / f"{name}.dcm", TWELVE, 12, **tags)
        np.testing.assert_array_equal(read_dicom(path, how), grey((units + 600.5) / 1499 + 0.5, 8))


def test_windows_follow_the_formulas_of_the_standard() -> None:
    values = np.array([-1000.0, -160, 39.5, 40, 240, 1000])
    np.testing.assert_allclose(windowed(values, 40, 401), np.clip((values - 39.5) / 400 + 0.5, 0, 1))
    np.testing.assert_allclose(windowed(values, 40, 400, "LINEAR_EXACT"), [0, 0, 0.49875, 0.5, 1, 1])
    np.testing.assert_allclose(windowed(np.array([40.0, 140]), 40, 400, "SIGMOID"), [0.5, 1 / (1 + np.exp(-1))])
    assert windowed(np.array([-1e9, 1e9]), 40, 400, "SIGMOID").tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_the_files_own_function_is_used(tmp_path: Path, function: str) -> None:
    tags = {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": function}
    path = write_dicom(tmp_path / "a.dcm", TWELVE, 12, **tags)
    np.testing.assert_array_equal(read_dicom(path), grey(windowed(TWELVE, 2000, 1500, function), 16))


def test_a_voi_table_is_looked_up(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 8], [min(255, value // 8) for value in range(4096)]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    path = write_dicom(tmp_path / "a.dcm", TWELVE, 12, VOILUTSequence=[table])
    np.testing.assert_array_equal(read_dicom(path), grey(np.minimum(255, TWELVE // 8) / 255, 16))


def test_monochrome1_is_turned_round(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", EIGHT, 8, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_dicom(path), 255 - EIGHT[None])
    tags = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 2000, "WindowWidth": 1000}
    path = write_dicom(tmp_path / "b.dcm", TWELVE, 12, **tags)
    np.testing.assert_array_equal(read_dicom(path), grey(1 - windowed(TWELVE, 2000, 1000), 16))


def test_colour_is_taken_as_it_is(tmp_path: Path) -> None:
    colour = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    image = read_dicom(write_dicom(tmp_path / "a.dcm", colour, 8, WindowCenter=1, WindowWidth=2))
    np.testing.assert_array_equal(image, colour.transpose(2, 0, 1))
    assert image.dtype == np.uint8


def test_palettes_become_colour(tmp_path: Path) -> None:
    tables = {name: RNG.integers(0, 65536, 256, dtype=np.uint16) for name in ("Red", "Green", "Blue")}
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in tables.items():
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    image = read_dicom(write_dicom(tmp_path / "a.dcm", EIGHT, 8, **tags))
    np.testing.assert_array_equal(image, np.stack([table[EIGHT] for table in tables.values()]))


def test_compressed_files_are_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", TWELVE, 12)
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path)
    np.testing.assert_array_equal(read_dicom(path), grey(TWELVE / 4095, 16))
    large = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
    dataset = pydicom.dcmread(write_dicom(path, large, 8))
    content = io.BytesIO()
    Image.fromarray(large).save(content, format="JPEG2000", no_jp2=True)
    dataset.PixelData, dataset.file_meta.TransferSyntaxUID = encapsulate([content.getvalue()]), JPEG2000Lossless
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)
    np.testing.assert_array_equal(read_dicom(path), large[None])


def test_several_frames_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.stack([EIGHT, EIGHT]), 8, NumberOfFrames=2)
    with pytest.raises(DataError, match=r"a\.dcm: holds 2 frames; save each frame, or the one that matters"):
        read_dicom(path)
    one = write_dicom(tmp_path / "b.dcm", EIGHT[None], 8, NumberOfFrames=1)
    np.testing.assert_array_equal(read_dicom(one), EIGHT[None])


def test_broken_missing_and_alien_files_are_told_apart(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", TWELVE, 12)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.dcm: truncated, damaged, or compressed in a way that is not read"):
        read_dicom(path)
    with pytest.raises(DataError, match=r"b\.dcm: missing"):
        read_dicom(tmp_path / "b.dcm")
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.dcm: empty \(0 bytes\)"):
        read_dicom(path)
    path.write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(DataError, match=r"a\.dcm: is no DICOM file"):
        read_dicom(path)
    dataset = pydicom.dcmread(write_dicom(path, TWELVE, 12))
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(DataError, match=r"a\.dcm: holds no picture of whole numbers"):
        read_dicom(path)


def test_a_missing_pydicom_is_an_error_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", EIGHT, 8)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"a\.dcm: .* pip install 'podium\[dicom\]'"):
        read_dicom(path)


def test_the_window_is_part_of_what_is_stored(tmp_path: Path) -> None:
    source = FileItems(tuple(write_dicom(tmp_path / f"{n}.dcm", TWELVE + n, 12) for n in range(3)))
    narrow = Dicom(window=(1000.0, 500.0))
    stores = [
        open_store(source, StoredForm("image", dicom=how), tmp_path / "cache", report=lambda _: None)
        for how in (None, narrow)
    ]
    assert stores[0].key != stores[1].key
    assert stores[0].meta["shape"] == [3, 1, 6, 9]
    np.testing.assert_array_equal(stores[1].array[2], read_dicom(source.paths[2], narrow))
    assert "pydicom-" in decoders_of(source.paths)
    assert "pydicom-" not in decoders_of([Path("a.png")])
