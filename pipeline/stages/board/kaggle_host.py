"""Kaggle as a host of submissions: send a file, list what was sent. Its official client works in another process.

Credentials stay there: this side never reads them, so they cannot come into a record, a log or a message.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pipeline
from pipeline.base.errors import PodiumError

LIST_TIMEOUT_SEC = 120.0
"""For a call without an upload; an upload takes as long as it takes."""

_LOGIN = (
    "Kaggle does not know who you are. Put a token of https://www.kaggle.com/settings/api into the file "
    "~/.kaggle/access_token or the variable KAGGLE_API_TOKEN, or run `kaggle auth login`"
)


class HostError(PodiumError):
    """The host refused a call or could not be asked; `is_refused` says that surely nothing was submitted."""

    def __init__(self, message: str, is_refused: bool) -> None:
        super().__init__(message)
        self.is_refused = is_refused


@dataclass(frozen=True)
class Seen:
    """A submission as the host shows it."""

    ref: int
    """The host's number."""
    description: str
    date: str
    """When it came in, ISO 8601 in UTC."""
    status: Literal["pending", "complete", "error"]
    public: float | None
    """None while it is not scored, or not shown."""
    private: float | None
    error: str = ""
    """What the host says is wrong with the file."""


class KaggleHost:
    """The two calls that Podium makes."""

    def submit(self, competition: str, file: Path, message: str) -> int | None:
        """Send a file and return the host's number of it, None where the host gives none.

        Raises:
            HostError: it was refused, or it is not known whether it arrived.
        """
        request = {"call": "submit", "competition": competition, "file": str(file.resolve()), "message": message}
        ref = _call(request, None)["ref"]
        return None if ref is None else int(ref)

    def submissions(self, competition: str) -> list[Seen]:
        """Return the newest hundred submissions of the user's team, newest first; raises HostError."""
        found = _call({"call": "submissions", "competition": competition}, LIST_TIMEOUT_SEC)
        return [_seen(facts) for facts in found]


def _call(request: dict[str, Any], timeout_sec: float | None) -> Any:
    # -P: a folder `kaggle` of the user's is not imported for the client.
    command = [sys.executable, "-P", "-m", "pipeline.stages.board.kaggle_calls"]
    root = str(Path(pipeline.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            capture_output=True,
            encoding="utf-8",
            env=environment,
            timeout=timeout_sec,
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"kaggle: no answer within {timeout_sec:g} s; try again later", is_refused=False) from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        # What it wrote elsewhere may hold anything, so it is not shown.
        raise HostError(
            f"kaggle: the client ended with code {done.returncode} and no answer", is_refused=False
        ) from None
    if "error" in answer:
        raise _host_error(answer["error"], request["competition"])
    return answer["answer"]


def _host_error(fault: dict[str, Any], competition: str) -> HostError:
    """Return what the client said, with what to do about it."""
    kind, status, text = fault["kind"], fault["status"], fault["text"]
    advice = _advice(kind, status, text, competition, fault["module"])
    is_refused = kind in ("missing", "login", "upload") or (kind == "http" and 400 <= status < 500)
    return HostError("\n".join(part for part in (f"kaggle: {text}", advice) if part), is_refused)


def _advice(kind: str, status: int | None, text: str, competition: str, module: str | None) -> str:
    if kind == "missing":
        return f'Module {module} is missing: pip install "podium[kaggle]"'
    if kind == "upload":
        return "The file was not uploaded, so nothing was submitted; try again"
    if kind == "login":
        return _LOGIN
    if status == 403:
        return (
            f"If the rules are not accepted yet: https://www.kaggle.com/competitions/{competition}/rules; "
            "teams and phone verification are set there too"
        )
    if status == 404:
        return f"Is '{competition}' the last part of the competition's address? (host.competition in the task)"
    if status == 429 or "limit" in text.lower():
        return "Kaggle counts submissions per day from 00:00 UTC"
    return "" if status else "Kaggle could not be asked; is there a network?"


def _seen(facts: dict[str, Any]) -> Seen:
    public, private = _score(facts["public"]), _score(facts["private"])
    return Seen(facts["ref"], facts["description"], facts["date"], facts["status"], public, private, facts["error"])


def _score(text: str) -> float | None:
    try:
        score = float(text)
    except ValueError:
        return None
    return score if math.isfinite(score) else None
