"""Paths of files as templates of task.yaml: `train_images/{chain}/{id:0>5}.png`, where one says them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.stages.infer.columns import Column

_LONGEST_PREFIX = 3
"""Folders that are named after the first letters of an id take at most so many."""


def find_template(paths: Sequence[str], columns: Mapping[str, Column], main: str) -> str | None:
    """Return a template that gives exactly these paths, one for each row, or None.

    Args:
        paths: (N,) one path for each row.
        columns: the table, for folders that are named after another column.
        main: the column that names the file; it is in every template.
    """
    parts = [path.split("/") for path in paths]
    depths = {len(each) for each in parts}
    if len(depths) != 1 or main not in columns:
        return None
    found = []
    for level in range(depths.pop()):
        names = [each[level] for each in parts]
        part = next(_templates(names, columns, main), None)
        if part is None:
            return None
        found.append(part)
    template = "/".join(found)
    return template if "{" + main in template else None


def _templates(names: Sequence[str], columns: Mapping[str, Column], main: str) -> Iterator[str]:
    """Yield templates of one part of the path, the simplest first."""
    if len(set(names)) == 1 and not set(names[0]) & set("{}"):
        yield names[0]
    cells = columns[main].cells.tolist()
    if all(cell.isdecimal() for cell in cells):
        yield from _padded(names, cells, main)
    if (plain := _around(names, cells, main)) is not None:
        yield plain
    for length in range(1, _LONGEST_PREFIX + 1):
        if all(name == cell[:length] for name, cell in zip(names, cells, strict=True)):
            yield f"{{{main}:.{length}}}"
    for column in columns.values():
        if column.name != main and (other := _around(names, column.cells.tolist(), column.name)) is not None:
            yield other


def _around(names: Sequence[str], cells: Sequence[str], column: str) -> str | None:
    """Return `before{column}after` where the same texts stand around the cell in every name."""
    if not is_template_name(column) or "" in cells:
        return None
    for start in _places(names[0], cells[0]):
        before, after = names[0][:start], names[0][start + len(cells[0]) :]
        if set(before + after) & set("{}"):
            continue
        if all(name == f"{before}{cell}{after}" for name, cell in zip(names, cells, strict=True)):
            return f"{before}{{{column}}}{after}"
    return None


def _padded(names: Sequence[str], cells: Sequence[str], column: str) -> Iterator[str]:
    """Yield `before{column:0>5}after` where zeros on the left fill up the cell, the widest first.

    The widest, because these rows may all have long numbers and others not.
    """
    short = min(range(len(cells)), key=lambda row: len(cells[row]))
    for start in _places(names[short], cells[short]) if is_template_name(column) else ():
        stop = start + len(cells[short])
        n_zeros = start - len(names[short][:start].rstrip("0"))
        for first in range(start - n_zeros, start):
            before, after, width = names[short][:first], names[short][stop:], stop - first
            if all(name == f"{before}{cell:0>{width}}{after}" for name, cell in zip(names, cells, strict=True)):
                yield f"{before}{{{column}:0>{width}}}{after}"


def _places(text: str, part: str) -> Iterator[int]:
    start = text.find(part) if part else -1
    while start >= 0:
        yield start
        start = text.find(part, start + 1)


def is_template_name(column: str) -> bool:
    """Say whether a column can stand in braces: no sign that a template reads in another way."""
    return bool(column) and not set(column) & set("{}:!")
