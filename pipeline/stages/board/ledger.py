"""The JSON beside each submission file: what it is made of, when it was sent, and what it scored.

    {..., "sent": [{"time", "file", "sha256", "message", "competition", "ref"}], "lb": {"public": 0.99}}

The board is derived from these records and nothing else. Each is amended alone, from what it holds at that moment and
under a lock, so that several people add to the board and nobody's entry is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.base.errors import DataError, listed, nearest
from pipeline.base.files import TEMP_MARK, read_json, write_json

_SUFFIXES = (".csv", ".npy", ".json")


def record_paths(root: Path, task: str | None = None) -> list[Path]:
    """Return the paths of all records of a workspace, or of one task, by name."""
    paths = sorted(root.glob("submissions/*/*.json"))
    return [path for path in paths if task in (None, path.parent.name) and TEMP_MARK not in path.name]


def find_record(root: Path, file: str) -> Path:
    """Return the path of the record of a submission given as a path, a file name or `task/name`.

    Raises:
        DataError: no submission has that name (the nearest are shown), or several tasks have it.
    """
    records = record_paths(root)
    wanted = Path(file)
    found = [path for path in records if wanted.name in (path.stem, *(path.stem + end for end in _SUFFIXES))]
    if len(wanted.parts) > 1:
        found = [path for path in found if path.parent.name == wanted.parent.name]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{file}: several tasks have it; say which: {listed(_two_names(path) for path in found)}")
    near = nearest(wanted.name, [path.stem for path in records] + [f"{path.stem}.csv" for path in records])
    known = listed([_two_names(path) for path in records]) or "none yet"
    raise DataError(f"{file}: no such submission under {root / 'submissions'}.{near} Known: {known}")


def read_record(path: Path) -> tuple[dict[str, Any], str]:
    """Return the content of a JSON record and what is wrong with it; a missing one is empty and nothing is wrong."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, f"{path.name} cannot be read: {error}"
    return (content, "") if isinstance(content, dict) else ({}, f"{path.name} holds no record")


def whole_record(path: Path) -> dict[str, Any]:
    """Return the content of a record, or raise a DataError that names it and what is wrong with it."""
    record, trouble = read_record(path)
    if trouble:
        raise DataError(f"{path}: {trouble}")
    return record


def amend(root: Path, path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Replace a record by what `change` makes of its present content, and return that.

    One at a time for all records of a task: while `change` runs, no other process amends any of them, so that it may
    read the others and decide. An error of `change` leaves everything as it was.
    """
    # Not beside the records, which are committed: the cache is not.
    lock = root / ".cache" / "locks" / f"submissions-{path.parent.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        changed = change(whole_record(path))
        write_json(path, changed)
    return changed


def sent_entries(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a record says about its sendings, oldest first; those of earlier bytes of the file among them."""
    entries = record.get("sent")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def last_sent(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the entry of the last time that the file was sent as it is now, or None."""
    same = [entry for entry in sent_entries(record) if entry.get("sha256") == record.get("sha256")]
    return same[-1] if same else None


def with_scores(record: dict[str, Any], **scores: float | None) -> dict[str, Any]:
    """Return a record with `public` and `private` scores; a None leaves what is there."""
    boards = record.get("lb")
    known = {name: score for name, score in scores.items() if score is not None}
    return {**record, "lb": {**(boards if isinstance(boards, dict) else {}), **known}}


def _two_names(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"
