"""Items of made-up rows as files: their formats, the folders they lie in, archives, and decoys beside them."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from toy_layouts import Layout
from toy_rows import RATE_HZ, Array, Row, floats, picture, signal, sound

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_files(
    data: Path, layout: Layout, rows: Sequence[Row], which: str, rng: np.random.Generator
) -> list[list[str]]:
    """Write the files of a set and return the paths of each row's, relative to the host's folder."""
    paths = []
    for row in rows:
        folder = "/".join([folder_of(layout, which), *_tree(layout, row, which)])
        names = [f"{folder}/{row.stem}{end}{row.suffix}" for end in file_ends(layout)]
        for name in names:
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            write_item(data / name, layout, row, rng)
        paths.append(names)
    return paths


def folder_of(layout: Layout, which: str) -> str:
    """Return the folder with the files of train or test."""
    return "images" if layout.folders == "shared" else f"{which}_images" if layout.place == "several_csv" else which


def file_ends(layout: Layout) -> tuple[str, ...]:
    """Return what follows the stem in the names of a row's files."""
    return {"numbered": ("_0", "_1"), "columns": ("_left", "_right")}.get(layout.per_row, ("",))


def _tree(layout: Layout, row: Row, which: str) -> list[str]:
    """Return the folders between that of the set and the file."""
    if layout.tree in ("by_class", "deep_class") and which == "test":
        return []
    return {
        "flat": [],
        "by_class": [str(row.label)],
        "deep_class": ["part_1" if row.is_valid else "part_2", str(row.label)],
        "by_patient": [row.patient],
        "by_category": [row.category],
        "by_letter": [row.stem[0]],
    }[layout.tree]


def write_item(path: Path, layout: Layout, row: Row, rng: np.random.Generator) -> None:
    """Write one file, in the format of its suffix."""
    if layout.file.startswith("signal."):
        _write_signal(path, signal(row, layout, rng))
    elif path.suffix in (".npy", ".npz"):
        _write_array(path, floats(row, rng))
    elif path.suffix in (".wav", ".aif"):
        import soundfile

        soundfile.write(path, sound(row, rng), RATE_HZ, format="AIFF" if path.suffix == ".aif" else "WAV")
    elif path.suffix == ".dcm":
        _write_dicom(path, picture(row, layout, rng))
    else:
        Image.fromarray(picture(row, layout, rng)).save(path, **_options(path))


def _options(path: Path) -> dict[str, int | bool]:
    return {".jpg": {"quality": 95}, ".jpeg": {"quality": 95}, ".webp": {"lossless": True}}.get(path.suffix, {})


def _write_array(path: Path, array: Array) -> None:
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        np.savez(path, data=array)


def _write_signal(path: Path, values: Array) -> None:
    if path.suffix in (".npy", ".npz"):
        _write_array(path, values)
    elif path.suffix == ".pt":
        write_tensor(path, values)
    else:
        import pandas as pd

        table = pd.DataFrame(values, columns=["Fp1", "Fp2", "Cz"][: values.shape[1]])
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)


def write_tensor(path: Path, array: Array) -> None:
    """Write an array as torch saves a tensor."""
    import torch

    torch.save(torch.from_numpy(np.ascontiguousarray(array)), path)


def _write_dicom(path: Path, pixels: Array) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.stem])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.Modality, image.PhotometricInterpretation, image.SamplesPerPixel = "CR", "MONOCHROME2", 1
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated = image.BitsStored = pixels.dtype.itemsize * 8
    image.HighBit, image.PixelRepresentation = image.BitsStored - 1, 0
    image.PixelData = pixels.tobytes()
    image.save_as(path, enforce_file_format=True)


# -- archives ----------------------------------------------------------------------------------------------------------


def pack_folders(data: Path, layout: Layout) -> None:
    """Pack each folder of items as the layout says; only `beside` leaves the folder where it was."""
    for folder in sorted({data / folder_of(layout, which) for which in ("train", "test")}):
        pack(folder, f".{layout.packer}", at_root=layout.archive == "root")
        if layout.archive != "beside":
            shutil.rmtree(folder)


def pack(folder: Path, suffix: str, at_root: bool = False) -> Path:
    """Write an archive beside a folder, with members below the folder's name or at the root, and return its path."""
    archive = folder.with_name(folder.name + suffix)
    members = [(path, path.relative_to(folder if at_root else folder.parent)) for path in sorted(folder.rglob("*.*"))]
    _PACKERS[suffix](archive, [(path, inside.as_posix()) for path, inside in members if path.is_file()])
    return archive


def _zip(archive: Path, members: list[tuple[Path, str]]) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path, name in members:
            target.write(path, name)


def _tar(mode: str) -> Callable[[Path, list[tuple[Path, str]]], None]:
    def write(archive: Path, members: list[tuple[Path, str]]) -> None:
        with tarfile.open(archive, mode) as target:  # type: ignore[call-overload]
            for path, name in members:
                target.add(path, name)

    return write


def _seven(archive: Path, members: list[tuple[Path, str]]) -> None:
    import py7zr

    with py7zr.SevenZipFile(archive, "w") as target:
        for path, name in members:
            target.write(path, name)


_PACKERS = {".zip": _zip, ".tar": _tar("w"), ".tar.gz": _tar("w:gz"), ".7z": _seven}


# -- decoys ------------------------------------------------------------------------------------------------------------


def write_decoys(
    data: Path, layout: Layout, train: Sequence[Row], test: Sequence[Row], rng: np.random.Generator
) -> None:
    """Write files that are no items of this competition, though their names or kinds may suggest it.

    `other_format`: the same pictures in another format, a few missing; `masks`: one for each training row, under the
    same name; `noise`: pictures of nothing; `old`: rows of last year, which no table of this year names.
    """
    if layout.decoy == "other_format":
        suffix = ".png" if layout.file == "bmp" else ".bmp"
        for row in [*train[3:], *test]:
            which = "train" if row in train else "test"
            for end in file_ends(layout):
                _write_decoy(data / f"{folder_of(layout, which)}_{suffix[1:]}/{row.stem}{end}{suffix}", rng)
    elif layout.decoy == "masks":
        for row in train:
            _write_decoy(data / f"train_masks/{row.stem}{row.suffix}", rng, is_mask=True)
    elif layout.decoy == "noise":
        for number in range(8):
            _write_like(data / f"background_noise/noise_{number}", layout, train[number], rng)
    elif layout.decoy == "old":
        for number in range(10):
            _write_like(data / f"old_data/old_{number}", layout, train[number], rng)


def _write_decoy(path: Path, rng: np.random.Generator, is_mask: bool = False) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = rng.integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(np.where(pixels > 127, 255, 0).astype(np.uint8) if is_mask else pixels).save(path)


def _write_like(stem: Path, layout: Layout, row: Row, rng: np.random.Generator) -> None:
    """Write a file of the format that real rows have."""
    path = stem.with_name(stem.name + row.suffix)
    path.parent.mkdir(exist_ok=True)
    write_item(path, layout, row, rng)


# -- arrays ------------------------------------------------------------------------------------------------------------


def one_array(layout: Layout, rows: Sequence[Row], rng: np.random.Generator) -> Array:
    """Return the items of all rows in one array: (N, H, W, 3) uint8 pictures, or signals."""
    items = [picture(row, layout, rng) if layout.shape == "images" else signal(row, layout, rng) for row in rows]
    return np.stack(items)


def write_arrays(data: Path, layout: Layout, which: str, items: Array, labels: Array | None) -> None:
    """Write items and, if given, labels: `train.npz`, or `train_X.npy` and `train_y.npy` (or `.pt`)."""
    if layout.array_file == "npz":
        names = ("x", "y") if layout.shape == "images" else ("signal", "label")
        np.savez(data / f"{which}.npz", **{names[0]: items} | ({} if labels is None else {names[1]: labels}))
        return
    save = write_tensor if layout.array_file == "pt" else np.save
    for name, array in (("X", items), ("y", labels)):
        if array is not None:
            save(data / f"{which}_{name}.{layout.array_file}", array)


def as_csv_bytes(text: str, dialect: str) -> bytes:
    """Return a table as the bytes of its file."""
    return text.encode("utf-8-sig" if dialect == "bom" else "utf-8")


def write_zipped(path: Path, content: bytes) -> None:
    """Write a table as `<name>.csv.zip`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(path.name.removesuffix(".zip"), content)
    path.write_bytes(buffer.getvalue())
