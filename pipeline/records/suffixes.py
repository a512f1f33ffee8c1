"""Which files hold what, by the ends of their names in lower case."""

from __future__ import annotations

from pathlib import PurePosixPath

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
ARRAY_SUFFIXES = frozenset({".npy", ".npz", ".pt", ".pth"})
RECORD_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".parquet"})
"""Tables of numbers, each of them one item."""
AUDIO_SUFFIXES = frozenset({".wav", ".aif", ".aiff", ".aifc", ".flac", ".ogg", ".mp3"})
READABLE = IMAGE_SUFFIXES | DICOM_SUFFIXES | ARRAY_SUFFIXES | RECORD_SUFFIXES | AUDIO_SUFFIXES


def may_end_in(template: str, suffixes: frozenset[str]) -> bool:
    """Return whether paths of a template, such as `train/{id}.png`, may end so; `{file}` may end in anything."""
    suffix = PurePosixPath(template.lower()).suffix
    return template.endswith("}") or suffix in suffixes
