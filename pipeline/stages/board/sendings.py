"""Entries of the ledger about sendings: whether bytes were sent before, by whomever, and whether the day allows more.

An entry is `{time, file, sha256, message, competition, ref}`; `ref` is the host's number, None until the host gave it.
The message ends with a mark, `[podium 1a2b3c4d5e6f]`, the start of the file's SHA-256, by which everybody's Podium
knows the file on the host again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.base.errors import DataError
from pipeline.base.progress import clock_text
from pipeline.records.runs import now
from pipeline.records.task import Host
from pipeline.stages.board.kaggle_host import Seen
from pipeline.stages.board.ledger import record_paths, sent_entries, whole_record

Entry = dict[str, Any]

_CLOCKS_APART = timedelta(minutes=5)


def new_entry(record: dict[str, Any], competition: str, message: str | None) -> Entry:
    """Return the entry of a sending that begins now; without a message it has the file's name and its CV."""
    cv = record.get("cv")
    text = message or Path(record["file"]).stem + (f", CV {cv:.5f}" if isinstance(cv, float) else "")
    facts = {"file": record["file"], "sha256": record["sha256"], "message": f"{text} {_mark(record['sha256'])}"}
    return {"time": now(), **facts, "competition": competition, "ref": None}


def known_entry(root: Path, path: Path, record: dict[str, Any], competition: str, seen: Sequence[Seen]) -> Entry | None:
    """Return the latest sending of a record's bytes, as any record of the task or the host itself tells it, or None.

    Args:
        root: the workspace.
        path: of the record.
        record: its content.
        competition: sendings to others do not count.
        seen: what the host shows, newest first.
    """
    mine = [entry for entry in entries_of(root, path.parent.name) if entry.get("sha256") == record["sha256"]]
    mine = [entry for entry in mine if entry.get("competition") == competition]
    if mine:
        entry = max(mine, key=lambda entry: str(entry["time"]))
        found = match(seen, entry)
        return entry if found is None else {**entry, "ref": found.ref}
    theirs = next((one for one in seen if _mark(record["sha256"]) in one.description), None)
    if theirs is None:
        return None
    return {
        **new_entry(record, competition, None),
        "time": theirs.date,
        "message": theirs.description,
        "ref": theirs.ref,
    }


def reserved(
    root: Path, path: Path, record: dict[str, Any], wish: Entry, host: Host, seen: Sequence[Seen], again: bool
) -> dict[str, Any]:
    """Return a record with a sending that is about to begin; call it inside `amend`, so that only one may begin.

    Raises:
        DataError: the file was written anew or sent by another process meanwhile, or the day's submissions are used.
    """
    entries = list(entries_of(root, path.parent.name))
    if record.get("sha256") != wish["sha256"]:
        raise DataError(f"{path}: another process has just written the file anew; nothing was sent")
    is_taken = any(_is_same(entry, wish) for entry in entries)
    if is_taken and not again:
        raise DataError(f"{path}: another process has just sent this file, or is sending it; nothing was sent twice")
    if host.daily_limit is not None:
        _require_room(entries, host, seen, wish["time"])
    return {**record, "sent": [*sent_entries(record), wish]}


def with_entry(record: dict[str, Any], entry: Entry) -> dict[str, Any]:
    """Return a record with an entry, in the place of that of the same sending if it has one."""
    entries = sent_entries(record)
    places = [place for place, other in enumerate(entries) if _is_one_sending(other, entry)]
    kept = [other for other in entries if not _is_one_sending(other, entry)]
    place = places[0] if places else len(kept)
    return {**record, "sent": [*kept[:place], entry, *kept[place:]]}


def without_entry(record: dict[str, Any], entry: Entry) -> dict[str, Any]:
    """Return a record without the entry of a sending that the host refused."""
    return {**record, "sent": [other for other in sent_entries(record) if not _is_one_sending(other, entry)]}


def match(seen: Sequence[Seen], entry: Entry) -> Seen | None:
    """Return what the host shows of a sending: that of its number or, where it has none, the newest with its mark."""
    if entry.get("ref") is not None:
        return next((one for one in seen if one.ref == entry["ref"]), None)
    return next((one for one in seen if _mark(entry["sha256"]) in one.description and _is_since(one, entry)), None)


def entries_of(root: Path, task: str) -> Iterator[Entry]:
    """Yield the entries of all records of a task; raises DataError for a record that cannot be read."""
    for path in record_paths(root, task):
        yield from sent_entries(whole_record(path))


def when(entry: Entry) -> str:
    """Return time and number of a sending in words."""
    number = "; whether it arrived is not known" if entry.get("ref") is None else f" as number {entry['ref']}"
    return f"at {entry['time']}{number}"


def _require_room(entries: Sequence[Entry], host: Host, seen: Sequence[Seen], time: str) -> None:
    """Raise a DataError when the day's submissions are used, by what the records or the host know, whichever is more.

    One that the host could not score does not count, as on Kaggle.
    """
    day = time[:10]  # all times are in UTC, and so is the host's day
    here = {
        (entry["time"], entry["sha256"])
        for entry in entries
        if str(entry["time"])[:10] == day and entry.get("competition") == host.competition and not entry.get("error")
    }
    there = [one for one in seen if one.date[:10] == day and one.status != "error"]
    used = max(len(here), len(there))
    if host.daily_limit is not None and used >= host.daily_limit:
        end = datetime.fromisoformat(f"{day}T00:00:00+00:00") + timedelta(days=1)
        left = clock_text((end - datetime.fromisoformat(time)).total_seconds())
        raise DataError(
            f"{host.competition}: {used} of {host.daily_limit} submissions of {day} (UTC) are used; "
            f"the next day starts in {left}. Nothing was sent"
        )


def _is_same(entry: Entry, wish: Entry) -> bool:
    return all(entry.get(key) == wish[key] for key in ("sha256", "competition"))


def _is_one_sending(first: Entry, other: Entry) -> bool:
    return all(first.get(key) == other.get(key) for key in ("time", "sha256", "competition"))


def _is_since(one: Seen, entry: Entry) -> bool:
    """Say whether a submission came after a sending began; two clocks may be a few minutes apart."""
    if not one.date:
        return True
    return datetime.fromisoformat(one.date) > datetime.fromisoformat(entry["time"]) - _CLOCKS_APART


def _mark(digest: str) -> str:
    return f"[podium {digest[:12]}]"
