"""One HTML file that opens in a browser without a network: text, tables, and pictures inside of it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.files import write_text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 14px; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; }
img { max-width: 100%; height: auto; }
pre { background: #f5f5f5; padding: .7rem; overflow-x: auto; }
"""


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG file and what it shows."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it: paragraphs, tables, pictures, in order."""

    heading: str
    parts: Sequence[str | Table | Picture]


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page that needs no other file: pictures are data URIs, and there is no script."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        body.append(f"<h2>{html.escape(section.heading)}</h2>")
        body += [_part(part) for part in section.parts]
    head = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n"
    )
    write_text(path, head + "\n".join(body) + "\n</body>\n</html>\n")


def markdown_table(table: Table) -> str:
    """Return a table as Markdown; numbers stand right."""
    lines = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"


def _part(part: str | Table | Picture) -> str:
    if isinstance(part, str):
        return "\n".join(f"<p>{html.escape(text)}</p>" for text in part.split("\n\n"))
    if isinstance(part, Picture):
        data = base64.b64encode(part.path.read_bytes()).decode()
        return f'<p><img alt="{html.escape(part.caption)}" src="data:image/png;base64,{data}"></p>'
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in part.columns)
    rows = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in part.rows)
    return f"<table>\n<tr>{head}</tr>\n{rows}\n</table>"
