"""What the user states as `key=value`: what steers conclusions, and what is laid over them in the end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.records.config import merge
from pipeline.stages.infer.made import ORIGINAL

Given = dict[str, Any]

_ITEMS = ("files", "pixels", "array")
"""Of these a source has one."""
_FOLLOWED = {"train": ("table", "files"), "test": ("table", "files"), "submission": ("sample",)}
"""Keys that steered how rows were found; their paths, as the data folder has them, are concluded."""
_PLAIN_FOLDERS = ("public", "data", "input", "files", "raw")
"""Names of folders that say nothing about what lies in them."""


def names_stated(given: Given, key: str) -> list[str]:
    """Return the one name, or the names, that the user states for a key."""
    value = given.get(key)
    return [value] if isinstance(value, str) else list(value or ())


def table_stated(given: Given, block: str, key: str) -> str | None:
    """Return the file that the user states in a block, such as `train.table`."""
    inside = given.get(block)
    name = inside.get(key) if isinstance(inside, Mapping) else None
    return None if name is None else str(name)


def laid_over(values: Given, given: Given, is_made: bool, leave_out: Sequence[str] = ()) -> Given:
    """Return concluded values with those of the user over them.

    Args:
        values: as they are concluded, paths as they are from the data folder.
        given: what the user states, paths as they are from the host's folder.
        is_made: whether the data folder has the host's as a link.
        leave_out: keys that were followed already.
    """
    stated = {key: value for key, value in given.items() if key not in leave_out}
    values = dict(values)
    for key in ("train", "test", "unlabelled", "submission"):
        block = stated.get(key)
        if not isinstance(block, Mapping):
            continue
        block = {name: item for name, item in block.items() if name not in _FOLLOWED.get(key, ())}
        if set(block) & set(_ITEMS) and key in values:
            values[key] = {name: item for name, item in values[key].items() if name not in _ITEMS}
        stated[key] = _from_made_folder(block) if is_made else block
    return merge(values, {key: value for key, value in stated.items() if value != {}})


def flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value with its dotted key."""
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def task_name(folder: Path, name: str | None) -> str:
    """Return a valid name for a task: as stated, else made of the folder's name, or of the one around it.

    Raises:
        ConfigError: the stated name is not valid.
    """
    if name is not None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ConfigError(
                f"--name {name}: may hold letters, digits and . _ - only, and starts with a letter or digit"
            )
        return name
    folder = folder.resolve()
    own = folder.parent.name if folder.name.lower() in _PLAIN_FOLDERS and folder.parent.name else folder.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", own).strip("-._") or "competition"


def _from_made_folder(block: Mapping[str, Any]) -> Given:
    """Return a block whose paths, as the user knows them, lead through the link to his folder."""

    def moved(path: Any) -> Any:
        return [moved(each) for each in path] if isinstance(path, list | tuple) else f"{ORIGINAL}/{path}"

    return {
        name: moved(item)
        if name in ("table", "files", "file")
        else _from_made_folder(item)
        if isinstance(item, Mapping)
        else item
        for name, item in block.items()
    }
