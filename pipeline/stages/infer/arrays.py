"""Which arrays hold items, which labels, of which part: `train.npz` (signal, label), `X_train.npy`, `train_y.pt`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.stages.infer.columns import hints_at, shown_path, words_of
from pipeline.stages.infer.survey import File

Part = Literal["train", "valid", "test", "unknown"]
Role = Literal["items", "labels", "column"]
Values = NDArray[Any]

_ITEMS = ("x", "data", "signal", "image", "img", "feature", "input", "eeg", "meg", "spec", "pixel")
_LABELS = ("y", "label", "target", "class", "answer", "truth")
_MIN_VALUES = 8
"""An item has at least so many values; fewer are labels in columns."""


@dataclass(frozen=True)
class ArrayFacts:
    """One array in a file."""

    path: str
    real: Path
    key: str | None
    """Its name in a `.npz` file."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def words(self) -> frozenset[str]:
        """Return the words of the file's name and of the array's own."""
        return words_of(f"{Path(self.path).stem} {self.key or ''}")

    @property
    def part(self) -> Part:
        """Return which rows it is of, by its name or that of its folder."""
        for words in (words_of(self.key or ""), words_of(Path(self.path).stem), words_of(shown_path(self.path))):
            for stems, part in ((("train",), "train"), (("test", "eval"), "test"), (("val", "dev"), "valid")):
                if hints_at(words, stems):
                    return part  # type: ignore[return-value]
        return "unknown"

    @property
    def role(self) -> Role:
        """Return what it holds: items have many values each; a column has one and another name than labels have."""
        per_row = int(np.prod(self.shape[1:]))
        own = words_of(self.key or Path(self.path).stem)
        if len(self.shape) > 1 and per_row >= _MIN_VALUES and not (len(self.shape) == 2 and own & set(_LABELS)):
            return "items"
        return (
            "labels" if own & set(_LABELS) or hints_at(own, [word for word in _LABELS if len(word) > 1]) else "column"
        )

    @property
    def shown(self) -> str:
        """Return file and key as the user knows them."""
        return shown_path(self.path) + (f"[{self.key}]" if self.key else "")


@dataclass(frozen=True)
class ArraySet:
    """The arrays of one part: items, and what is known of each row."""

    items: ArrayFacts
    labels: ArrayFacts | None = None
    columns: tuple[ArrayFacts, ...] = ()
    """One value per row: subjects, sessions, other labels."""

    @property
    def n_rows(self) -> int:
        """Return N."""
        return self.items.shape[0]


def array_facts(files: Iterable[File]) -> list[ArrayFacts]:
    """Return every array of the given files; nothing but shapes and types is read where that is possible.

    Raises:
        DataError: a file is damaged, or holds Python objects.
    """
    return [facts for file in files for facts in _facts_of(file)]


def load_values(facts: ArrayFacts) -> Values:
    """Return the array, mapped where it can be."""
    from pipeline.data.readers import load_array

    return load_array(facts.real, facts.key)


def array_sets(arrays: Sequence[ArrayFacts]) -> dict[Part, ArraySet]:
    """Return the arrays by part; arrays without a part in their name take the part whose number of rows they share.

    Where no name says which is train, those with labels are, and others with items of the same shape are test.
    """
    found: dict[Part, list[ArrayFacts]] = defaultdict(list)
    for facts in arrays:
        if facts.shape:
            found[facts.part].append(facts)
    sets = {part: made for part, of_part in found.items() if (made := _set_of(of_part)) is not None}
    if "train" not in sets and (unnamed := sets.pop("unknown", None)) is not None:
        sets["train"] = unnamed
    sets.pop("unknown", None)
    return sets


def is_signal(shape: Sequence[int], dtype: np.dtype[Any], words: frozenset[str]) -> tuple[bool, bool]:
    """Return whether items of a shape (without N) are signals, and whether that is sure.

    Signals are long in one axis and real; pictures are about square, or bytes, or have a last or first axis of 1, 3
    or 4 beside two like ones.
    """
    axes = [length for length in shape if length > 1]
    if hints_at(words, ("spec", "mel", "image", "img", "pixel", "photo")):
        return False, True
    if dtype.kind in "bu" or (dtype.kind == "i" and len(axes) >= 2):
        return len(axes) == 1, True
    if len(axes) == 1:
        return True, True
    if len(axes) > 2:
        return False, True
    ratio = max(axes) / min(axes)
    named = hints_at(words, ("signal", "eeg", "meg", "ecg", "emg", "wave", "sensor", "accel", "series"))
    if named or ratio >= 4:
        return True, True
    return ratio > 1.5, False


def as_text(values: Values) -> list[str]:
    """Return labels as text: whole numbers without a point, NaN as an empty text."""
    flat = np.asarray(values).reshape(len(values), -1)[:, 0]
    if flat.dtype.kind == "f":
        return [
            "" if np.isnan(value) else str(int(value)) if value == int(value) else repr(float(value)) for value in flat
        ]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in flat.tolist()]


def _set_of(arrays: Sequence[ArrayFacts]) -> ArraySet | None:
    items = [facts for facts in arrays if facts.role == "items"]
    if not items:
        return None
    named = [facts for facts in items if hints_at(words_of(facts.key or Path(facts.path).stem), _ITEMS)]
    chosen = max(named or items, key=lambda facts: (int(np.prod(facts.shape)), facts.path))
    beside = [
        facts for facts in arrays if facts is not chosen and facts.shape[0] == chosen.shape[0] and facts.role != "items"
    ]
    labels = [facts for facts in beside if facts.role == "labels"]
    columns = [facts for facts in beside if facts.role == "column"]
    if not labels and len(columns) == 1:
        labels, columns = columns, []
    return ArraySet(chosen, labels[0] if labels else None, (*columns, *labels[1:]))


def _facts_of(file: File) -> list[ArrayFacts]:
    suffix = file.real.suffix.lower()
    if suffix in (".pt", ".pth"):
        return [
            ArrayFacts(file.path, file.real, key, value.shape, value.dtype)
            for key, value in _tensors(file.real).items()
        ]
    from pipeline.data.readers import load_array

    if suffix != ".npz":
        array = load_array(file.real)
        return [ArrayFacts(file.path, file.real, None, array.shape, array.dtype)]
    try:
        with np.load(file.real, allow_pickle=False) as content:
            names = list(content.files)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file.real}: is damaged, or no .npz file: {error}") from None
    return [_of_key(file, key, len(names)) for key in names]


def _of_key(file: File, key: str, n_keys: int) -> ArrayFacts:
    import zipfile

    with zipfile.ZipFile(file.real) as archive, archive.open(f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    if dtype.hasobject:
        raise DataError(f"{file.real}: '{key}' holds Python objects, which are not read; save numbers or texts")
    return ArrayFacts(file.path, file.real, key, tuple(shape), dtype)


def _tensors(path: Path) -> dict[str | None, Values]:
    """Return the tensors of a `.pt` file by their names; None is the name of a lone one. Nothing is unpickled."""
    import zipfile

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        raise DataError(f"{path}: is no tensor that can be read safely ({str(error).splitlines()[0]})") from None
    if isinstance(content, torch.Tensor):
        return {None: content.numpy()}
    if isinstance(content, dict) and content and all(isinstance(value, torch.Tensor) for value in content.values()):
        return {str(key): value.numpy() for key, value in content.items()}
    raise DataError(f"{path}: expected a tensor or a dict of tensors, found {type(content).__name__}")
