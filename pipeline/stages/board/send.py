"""A checked submission to the host, its score to the board: `podium submit RUN --send`, `podium board --refresh`.

What is going to be sent is written into the record first. A process that is killed at any moment therefore leaves a
trace, and the same bytes are not sent twice by accident: the host is asked what became of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pipeline.base.errors import ConfigError, DataError, StopRequestedError
from pipeline.base.files import sha256_file
from pipeline.base.interrupt import INTERRUPTED
from pipeline.base.progress import clock_text
from pipeline.records.runs import Run
from pipeline.records.task import Host
from pipeline.stages.board.kaggle_host import HostError, Seen
from pipeline.stages.board.ledger import amend, find_record, last_sent, record_paths, whole_record, with_scores
from pipeline.stages.board.sendings import (
    Entry,
    entries_of,
    known_entry,
    match,
    new_entry,
    reserved,
    when,
    with_entry,
    without_entry,
)

Say = Callable[[str], None]


class Sender(Protocol):
    """A host of submissions, such as `KaggleHost`."""

    def submit(self, competition: str, file: Path, message: str) -> int | None:
        """Send a file and return the host's number of it."""

    def submissions(self, competition: str) -> list[Seen]:
        """Return what was sent lately, newest first."""


@dataclass(frozen=True)
class Patience:
    """How a score is waited for: asked again and again, with pauses that grow to the longest."""

    limit_sec: float = 600.0
    first_pause_sec: float = 2.0
    longest_pause_sec: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class Sent:
    """What became of a submission."""

    record: Path
    """The JSON beside the file."""
    ref: int | None
    """The host's number."""
    is_new: bool
    """Whether it was sent now; False when the same bytes had been sent before."""
    public: float | None = None
    """None while there is no score."""
    private: float | None = None


def send_file(
    root: Path,
    file: str,
    sender: Sender,
    say: Say,
    *,
    competition: str | None = None,
    message: str | None = None,
    again: bool = False,
    patience: Patience | None = None,
) -> Sent:
    """Send a submission once, wait for its score, write both into its record, and return what became of it.

    Bytes that were sent before, by anybody and under any name in the task, are not sent; only their score is fetched.

    Args:
        root: the workspace.
        file: a submission that `podium submit` wrote: a path, a file name or `task/name`.
        sender: the host.
        say: takes lines for the user.
        competition: where to; by default `host:` of the run's task, else where the task's last file went.
        message: the description on the host; by default the file's name and its CV.
        again: send it although it was sent before; the daily limit holds all the same.
        patience: None does not wait for the score.

    Raises:
        DataError: no such submission, the file is gone or changed, the daily limit is reached, or the host could not
            score it.
        ConfigError: no competition is known.
        HostError: the host refused, or could not be asked.
        StopRequestedError: Ctrl-C once the file may have gone out; the record says so.
    """
    path = find_record(root, file)
    record = whole_record(path)
    submission = _intact_file(path, record)
    host = _host_of(root, path, record, competition)
    seen = sender.submissions(host.competition)
    known = None if again else known_entry(root, path, record, host.competition, seen)
    if known is None:
        wish = new_entry(record, host.competition, message)
        amend(root, path, lambda present: reserved(root, path, present, wish, host, seen, again))
        entry = _submitted(root, path, submission, wish, sender)
        say(f"sent {submission.name} to {host.competition}" + (f" as number {entry['ref']}" if entry["ref"] else ""))
    else:
        entry = known
        amend(root, path, partial(with_entry, entry=entry))
        say(f"{submission.name} was sent before, {when(entry)}; it is not sent again (--again sends it once more)")
    if patience is not None:
        found = _awaited(sender, entry, patience, say)
    else:
        found = match(seen, entry) if known is not None else None
    if found is None or found.status == "pending":
        say("no score yet; `podium board --refresh` fetches it")
        return Sent(path, entry["ref"], known is None)
    _settle(root, path, entry, found)
    if found.status == "error":
        raise DataError(_result_line(submission.name, found))
    say(_result_line(submission.name, found))
    return Sent(path, found.ref, known is None, found.public, found.private)


def refresh(root: Path, sender: Sender, say: Say, task: str | None = None) -> int:
    """Fetch the scores of everything that was sent, write what is new into the records and return how many changed.

    A file that was being sent when its process ended is looked for by its mark. Raises HostError.
    """
    wanted = [(path, entry) for path in record_paths(root, task) if (entry := last_sent(whole_record(path)))]
    places = sorted({str(entry["competition"]) for _, entry in wanted})
    seen = {place: sender.submissions(place) for place in places}
    n_changed = 0
    for path, entry in wanted:
        found = match(seen[str(entry["competition"])], entry)
        if found is None:
            say(f"{path.stem}: the host does not show what was sent {when(entry)}")
        elif _settle(root, path, entry, found):
            n_changed += 1
            say(_result_line(path.stem, found))
    return n_changed


def _intact_file(path: Path, record: dict[str, Any]) -> Path:
    """Return the file of a record, or raise a DataError when it is not what was checked."""
    name = str(record.get("file", path.stem))
    file = path.parent / name
    if not file.is_file():
        raise DataError(f"{path}: its file '{name}' is gone; write it again with `podium submit RUN`")
    if sha256_file(file) != record.get("sha256"):
        raise DataError(
            f"{file}: has changed since it was checked; write it again with `podium submit RUN --overwrite`"
        )
    return file


def _host_of(root: Path, path: Path, record: dict[str, Any], competition: str | None) -> Host:
    """Return where a submission goes: as told, else as its run's task says, else as the task's last file went."""
    folder = root / "runs" / path.parent.name / str(record.get("run"))
    host = Run(folder).task.host if (folder / "run.json").is_file() else None
    if competition is not None:
        limit = host.daily_limit if host is not None and host.competition == competition else None
        return Host(competition=competition, daily_limit=limit)
    if host is not None:
        return host
    last = max(entries_of(root, path.parent.name), key=lambda entry: str(entry["time"]), default=None)
    if last is not None:
        return Host(competition=last["competition"])
    raise ConfigError(
        f"{path.parent.name}: no competition is known; say --competition NAME, the last part of its address. Runs "
        "whose task says `host: {competition: NAME}` know it"
    )


def _submitted(root: Path, path: Path, submission: Path, wish: Entry, sender: Sender) -> Entry:
    """Send a file and return its entry with the host's number; a refusal takes the entry out of the record again."""
    try:
        ref = sender.submit(wish["competition"], submission, wish["message"])
    except HostError as error:
        if error.is_refused:
            amend(root, path, partial(without_entry, entry=wish))
            raise
        unknown = "Whether the file arrived is not known; `podium board --refresh` looks for it"
        raise HostError(f"{error}\n{unknown}", is_refused=False) from None
    except KeyboardInterrupt:
        raise _interrupted("interrupted while sending: whether the file arrived is not known") from None
    entry = {**wish, "ref": ref}
    amend(root, path, partial(with_entry, entry=entry))
    return entry


def _awaited(sender: Sender, entry: Entry, patience: Patience, say: Say) -> Seen | None:
    """Return what the host shows of a sending once it is scored, or what it shows when patience ends."""
    start, pause = patience.clock(), patience.first_pause_sec
    found: Seen | None = None
    try:
        while True:
            try:
                found = match(sender.submissions(entry["competition"]), entry)
            except HostError as error:
                if error.is_refused:
                    raise
                say(str(error))  # a network that is gone for a moment
            elapsed = patience.clock() - start
            if (found is not None and found.status != "pending") or elapsed + pause > patience.limit_sec:
                return found
            say(f"waiting for the score: {clock_text(elapsed)}")
            patience.sleep(pause)
            pause = min(1.5 * pause, patience.longest_pause_sec)
    except KeyboardInterrupt:
        raise _interrupted(f"the file is sent ({when(entry)}), its score is not there yet") from None


def _settle(root: Path, path: Path, entry: Entry, found: Seen) -> bool:
    """Write the host's number, scores and complaint into a record; return whether that changed it."""
    settled = {**entry, "ref": found.ref} | (
        {"error": found.error or "no reason given"} if found.status == "error" else {}
    )
    before = whole_record(path)

    def change(present: dict[str, Any]) -> dict[str, Any]:
        present = with_entry(present, settled)
        # The file may have been written anew meanwhile, and these are the scores of the old one.
        is_current = present.get("sha256") == entry["sha256"] and found.status == "complete"
        return with_scores(present, public=found.public, private=found.private) if is_current else present

    return amend(root, path, change) != before


def _result_line(name: str, found: Seen) -> str:
    if found.status == "error":
        return f"{name}: the host could not score it: {found.error or 'no reason given'}"
    if found.status == "pending":
        return f"{name}: number {found.ref} waits for its score"
    scores = [
        f"{board} {score:g}"
        for board, score in (("public", found.public), ("private", found.private))
        if score is not None
    ]
    return f"{name}: {', '.join(scores) or 'scored, but the host does not show the score'}"


def _interrupted(what: str) -> StopRequestedError:
    error = StopRequestedError(f"{what}; `podium board --refresh` fetches what the host knows")
    error.exit_code = INTERRUPTED
    return error
