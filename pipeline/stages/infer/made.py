"""The folder that `podium init` makes where a task cannot name the host's own files: `data/<name>.made/`.

It holds `original`, a link to the host's folder, `unpacked/` with what was in archives, and the tables and arrays that
had to be made. The host's folder itself is never written to.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import DataError
from pipeline.base.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd

ORIGINAL = "original"


@dataclass
class Made:
    """Tables and arrays to be written, by their name in the folder."""

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Say whether anything has to be written."""
        return bool(self.tables or self.arrays)


def write_made(folder: Path, host: Path, made: Made, say: Callable[[str], None]) -> None:
    """Write the made files beside a link to the host's folder, each whole or not at all.

    Raises:
        DataError: `original` there stands for another folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _link(folder / ORIGINAL, host, say)
    for name, frame in made.tables.items():
        with atomic_path(folder / name) as temp:
            frame.to_csv(temp, index=False, lineterminator="\n")
    for name, array in made.arrays.items():
        with atomic_path(folder / name) as temp:
            np.save(temp, array, allow_pickle=False)


def _link(link: Path, host: Path, say: Callable[[str], None]) -> None:
    if link.is_symlink() or link.exists():
        if link.resolve() == host.resolve():
            return
        if not link.is_symlink():
            raise DataError(f"{link}: is a copy of another folder than {host}; remove it, or choose another --name")
        link.unlink()
    try:
        link.symlink_to(os.path.relpath(host.resolve(), link.parent.resolve()), target_is_directory=True)
    except OSError:
        say(f"links cannot be made here: copying {host} to {link}")
        shutil.copytree(host, link)


def described(made: Made) -> Mapping[str, str]:
    """Return what each made file is, for the table of findings."""
    tables = {name: f"{len(frame):,} rows, {len(frame.columns)} columns" for name, frame in made.tables.items()}
    return tables | {name: f"{'x'.join(map(str, array.shape))} {array.dtype}" for name, array in made.arrays.items()}
