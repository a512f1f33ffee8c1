"""What a host tells in words: READMEs, descriptions and rules as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_MAX_BYTES = 1_000_000


def read_texts(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file that can be read, its first megabyte, without the tags of HTML."""
    for path in paths:
        try:
            text = path.read_bytes()[:_MAX_BYTES].decode("utf-8", errors="replace")
        except OSError:
            continue
        yield path.name, re.sub(r"<[^>]+>", " ", text) if path.suffix.lower() in (".html", ".htm") else text
