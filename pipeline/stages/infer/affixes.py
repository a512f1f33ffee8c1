"""What stands around an id in the names of its files: `img_12.png`, `00012_red.png` and `00012_green.png`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

from pipeline.stages.infer.columns import Column

_GAP = re.compile(r"[^0-9A-Za-z]+|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")
"""Between the words of a name."""
_TRIED = 300
"""So many names and cells are looked at."""
_NEARLY_ALL = 0.9


@dataclass(frozen=True, order=True)
class Affix:
    """What stands around a cell in the name of its file."""

    before: str
    after: str
    width: int = 0
    """Cells are filled up to it with zeros on the left."""

    def around(self, cell: str) -> str:
        """Return the name, without suffix, of the file of a cell."""
        return f"{self.before}{cell:0>{self.width}}{self.after}"


def find_affixes(column: Column, names: Sequence[str], known: Container[str]) -> list[Affix]:
    """Return what stands around the cells of a column in names of files, each fitting nearly all cells; sorted.

    It is read off some names: which of the cells stands in there, as whole words? That it is the whole name is no
    affix.

    Args:
        column: the ids.
        names: of files, without suffix.
        known: the same, for quick look-up.
    """
    seen: Counter[tuple[str, str]] = Counter()
    widths: dict[tuple[str, str], int] = {}
    for name in names[:: max(1, len(names) // _TRIED)]:
        gaps = [found.span() for found in _GAP.finditer(name)]
        starts, stops = [0, *(stop for _, stop in gaps)], [*(start for start, _ in gaps), len(name)]
        for start, stop in ((start, stop) for start in starts for stop in stops if start < stop):
            word, around = name[start:stop], (name[:start], name[stop:])
            is_filled = word.isdecimal() and word[0] == "0" and str(int(word)) in column.values
            if word != name and (word in column.values or is_filled):
                seen[around] += 1
                widths[around] = max(widths.get(around, 0), len(word) if is_filled else 0)
    tried = column.cells[:: max(1, len(column.cells) // _TRIED)].tolist()
    found = [Affix(before, after, widths[before, after]) for (before, after), count in seen.items() if count > 1]
    return sorted(
        each for each in found if sum(each.around(cell) in known for cell in tried) > _NEARLY_ALL * len(tried)
    )
