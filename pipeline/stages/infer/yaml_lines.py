"""YAML with the reason for each line behind or above it; read again, it gives the same values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.base.errors import ConfigError
from pipeline.records.config import parse_overrides

Values = Mapping[str, Any]

_WIDTH = 120
_COLUMN = 44
"""Where comments begin, if the line leaves room."""


@dataclass(frozen=True)
class Told:
    """What is told about the keys of a file, each named whole (`train.table`); "" is nothing."""

    value: Callable[[str], str]
    """Why a value is as it is."""
    is_leaf: Callable[[str, Values], bool]
    """Whether a block stands on one line, as a value does."""
    block: Callable[[str], str] = lambda _: ""
    """What stands behind the head of a block."""


def entry(key: str, value: Any, told: Told, prefix: str = "", indent: str = "") -> str:
    """Return the lines of one key: a block goes on below it, a value stands behind it.

    Args:
        key: as it stands in the file.
        value: a block, a list or a plain value.
        told: what is told about it.
        prefix: what comes before the key in the whole key.
        indent: blanks before the line.
    """
    whole = f"{prefix}{key}"
    if isinstance(value, Mapping) and value and not told.is_leaf(whole, value):
        inner = "".join(entry(name, item, told, f"{whole}.", f"{indent}  ") for name, item in value.items())
        return _line(f"{indent}{scalar(key)}:", told.block(whole), indent) + inner
    return _line(f"{indent}{scalar(key)}: {scalar(value)}", told.value(whole), indent)


def _line(text: str, reason: str, indent: str) -> str:
    if not reason:
        return f"{text}\n"
    behind = f"{text:<{_COLUMN}}  # {reason}\n"
    if len(behind) <= _WIDTH:
        return behind
    return wrapped(f"{indent}# {reason}\n") + f"{text}\n"


def wrapped(comment: str) -> str:
    """Return a comment as several lines, none wider than the page."""
    import textwrap

    indent = comment[: len(comment) - len(comment.lstrip())]
    words = comment.strip().removeprefix("# ")
    return "".join(
        f"{line}\n"
        for line in textwrap.wrap(words, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    )


def scalar(value: Any) -> str:
    """Return a value on one line, as YAML that is read back to the same value."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(scalar(item) for item in value) + "]"
    if not isinstance(value, str):
        return "null" if value is None else json.dumps(value)
    plain = re.fullmatch(r"[A-Za-z0-9_./ -]*[A-Za-z0-9_./-]", value) is not None and value == value.strip()
    if plain and "  " not in value and _reads_as(value, value):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return quoted if _reads_as(quoted, value) else yaml.safe_dump(value, default_style='"', width=10**6).strip()


def _reads_as(text: str, value: str) -> bool:
    try:
        return bool(parse_overrides([f"value={text}"])["value"] == value)
    except ConfigError:
        return False


def one_line(text: str) -> str:
    """Return a text without breaks of lines."""
    return " ".join(text.split())
