"""The calls of Kaggle's official client, each in a process of its own: `python -m pipeline.stages.board.kaggle_calls`.

Importing that client authenticates, prints, and may end the process; in verbose mode it prints the token. Here that
harms nobody: a request comes in as JSON, an answer or an error goes out as one line of JSON, nothing else is printed,
and whatever is a credential is blotted out of it. `kaggle_host` is the other side.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

BLOT = "[secret]"
PAGE_SIZE = 100
"""How many of the newest submissions are looked through."""
_LONGEST_BODY = 1000
_SHORTEST_SECRET = 6  # shorter texts would be blotted out of ordinary words


class _UploadError(Exception):
    """The file did not reach the host, so nothing was submitted."""


def main() -> None:
    """Read one request from standard input and print its answer as one line."""
    request = json.loads(sys.stdin.read())
    # Verbose mode prints the headers of every request, and the token is one of them.
    for name in ("VERBOSE", "VERBOSE_OUTPUT"):
        os.environ.pop(name, None)
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            answer = {"answer": _answer(request)}
    except (Exception, SystemExit) as error:
        answer = {"error": _explained(error, printed.getvalue())}
    print(json.dumps(_blotted(answer, _secrets())))


def _answer(request: dict[str, Any]) -> Any:
    client = _client()
    if request["call"] == "submit":
        return _submit(client, request["competition"], request["file"], request["message"])
    found = client.competition_submissions(request["competition"], page_size=PAGE_SIZE) or []
    return [_facts(submission) for submission in found if submission is not None]


def _client() -> Any:
    client = importlib.import_module("kaggle").api  # authenticates, and keeps quiet about why it could not
    if not getattr(client, "_authenticated", True):
        client.authenticate()
    return client


def _submit(client: Any, competition: str, file: str, message: str) -> dict[str, Any]:
    response = client.competition_submit(file, message, competition, quiet=True)
    if response.message == client.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
        raise _UploadError(response.message)
    return {"ref": response.ref or None, "message": response.message}


def _facts(submission: Any) -> dict[str, Any]:
    date = submission.date
    return {
        "ref": submission.ref,
        "description": submission.description,
        "date": date.replace(tzinfo=None).isoformat(timespec="seconds") + "+00:00" if date else "",
        "status": submission.status.name.lower(),
        "public": submission.public_score,
        "private": submission.private_score,
        "error": submission.error_description,
    }


def _explained(error: BaseException, printed: str) -> dict[str, Any]:
    """Return the kind of an error, the status of the answer if there was one, and all that was said."""
    response = getattr(error, "response", None)
    body = str(getattr(response, "text", "") or "").strip()[:_LONGEST_BODY]
    status = _status_of(response, body)
    said = [printed.strip(), "" if isinstance(error, SystemExit) else str(error) or type(error).__name__]
    said.append(
        "" if body in said[1] or "<html" in body.lower() or str(_told(body, "message", body)) in said[1] else body
    )
    if isinstance(error, ModuleNotFoundError):
        kind = "missing"
    elif isinstance(error, SystemExit) or status == 401:
        kind = "login"
    else:
        kind = "upload" if isinstance(error, _UploadError) else "http" if status else "other"
    name = getattr(error, "name", None)
    return {"kind": kind, "status": status, "text": "\n".join(part for part in said if part), "module": name}


def _status_of(response: Any, body: str) -> int | None:
    """Return the status of an answer; one that is an error by its content only says it there."""
    status = getattr(response, "status_code", None)
    return int(_told(body, "code", status)) if status is not None and status < 400 else status


def _told(body: str, key: str, default: Any) -> Any:
    try:
        return json.loads(body)[key]
    except (ValueError, KeyError, TypeError):
        return default


def _secrets() -> list[str]:
    """Return every credential that the client may have read, and the form in which it is sent; the longest first."""
    values = [os.environ.get(name, "") for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY", "KAGGLE_IAP_TOKEN")]
    paths = [Path.home() / ".kaggle" / name for name in ("access_token", "access_token.txt")]
    paths += [Path(os.environ[name]) for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN") if os.environ.get(name)]
    values += [text for path in paths if (text := _text_of(path))]
    config = getattr(getattr(sys.modules.get("kaggle"), "api", None), "config_values", {})
    values += [str(config.get(name) or "") for name in ("token", "key")]
    user = str(config.get("username") or os.environ.get("KAGGLE_USERNAME", ""))
    values += [base64.b64encode(f"{user}:{value}".encode()).decode() for value in list(values) if value]
    return sorted({value for value in values if len(value) >= _SHORTEST_SECRET}, key=len, reverse=True)


def _text_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _blotted(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _blotted(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_blotted(item, secrets) for item in value]
    if not isinstance(value, str):
        return value
    for secret in secrets:
        value = value.replace(secret, BLOT)
    return value


if __name__ == "__main__":
    main()
