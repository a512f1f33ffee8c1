"""How rows find their files: every column of a table is tried with every way of naming a file, and the best fit wins.

A fit is better when more rows find their file, when more files of the folder are found, and when it takes less to say
it. Decoys (the same pictures in another format, masks, old versions) lose by that, or by the words in their path.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pipeline.records.suffixes import IMAGE_SUFFIXES
from pipeline.stages.infer.affixes import find_affixes
from pipeline.stages.infer.columns import Column, Table, hints_at, words_of
from pipeline.stages.infer.survey import File, stem_of, suffix_of

Part = Literal["train", "test"]
Prefer = Callable[[str, str], float]
Way = Literal["name", "path", "stem", "other suffix", "number", "affix", "folder"]

DECOYS = ("mask", "noise", "old", "thumb", "annot", "augm", "extra", "segm", "backup", "heatmap", "preview", "unused")
"""Beginnings of words in the path of what is not the real thing."""
_OTHER = {"train": ("test", "unlabel"), "test": ("train",)}
_COMPLEXITY: dict[Way, float] = {
    "name": 0,
    "path": 0,
    "stem": 0,
    "number": 1,
    "other suffix": 2,
    "affix": 2,
    "folder": 3,
}
_ENOUGH = 0.5
"""Below this share of rows with a file a fit is none."""
_TRIED = 300
"""How many cells or files are looked at before all are."""


@dataclass(frozen=True)
class Match:
    """Rows of a table joined to files by one column."""

    column: str
    way: Way
    root: str
    """The deepest folder that holds all the files."""
    files: tuple[tuple[str, ...], ...]
    """For each row the paths of its files; empty where there is none."""
    files_used: float
    """Which share of the items below `root` is found, 0..1."""
    score: float

    @property
    def rows_found(self) -> float:
        """Return which share of the rows has a file, 0..1."""
        return sum(map(bool, self.files)) / len(self.files)

    @property
    def all_files(self) -> set[str]:
        """Return every file that a row finds."""
        return {path for paths in self.files for path in paths}


class FileIndex:
    """Item files by the parts of their names."""

    def __init__(self, files: Sequence[File]) -> None:
        self.files = list(files)
        self.below: Counter[str] = Counter()
        """How many items lie below each folder."""
        self._names: dict[str, list[File]] = defaultdict(list)
        for file in files:
            self._names[file.name].append(file)
            self.below.update(parents(file.path))

    def by_name(self, name: str) -> list[File]:
        """Return the files of this name."""
        return self._names.get(name, [])

    @cached_property
    def by_stem(self) -> dict[str, list[File]]:
        """Return the files by their name without suffix."""
        return _grouped((stem_of(file.name), file) for file in self.files)

    @cached_property
    def by_number(self) -> dict[str, list[File]]:
        """Return the files whose name is a number by that number without zeros on the left."""
        stems = ((stem_of(file.name), file) for file in self.files)
        return _grouped((str(int(stem)), file) for stem, file in stems if stem.isdecimal())

    @cached_property
    def by_folder(self) -> dict[str, list[File]]:
        """Return the files by the name of each folder above them."""
        return _grouped((part, file) for file in self.files for part in file.path.split("/")[1:-1])


def best_match(
    table: Table, index: FileIndex, part: Part, columns: Iterable[str] | None = None, like: frozenset[str] = frozenset()
) -> Match | None:
    """Return how the rows of a table find their files, or None where no column finds half of them.

    Args:
        table: the rows.
        index: all item files.
        part: whether these are labelled rows; decides between folders that fit alike.
        columns: which columns may name files; all when left out.
        like: suffixes of the files of the other part; of several formats of the same pictures these are taken.
    """
    prefer = _preference(part, like)
    names = list(table.columns) if columns is None else [name for name in columns if name in table.columns]
    fits = [match for name in names for match in _matches(table.columns[name], index, prefer)]
    return max(fits, key=lambda match: match.score, default=None)


def further_columns(table: Table, match: Match, index: FileIndex, part: Part) -> list[Match]:
    """Return fits of further columns that each name another file of the same rows (`left`, `right`)."""
    taken, more, prefer = match.all_files, [], _preference(part, frozenset(suffix_of(path) for path in match.all_files))
    for name in table.columns:
        if name == match.column or hints_at(words_of(name), DECOYS):
            continue
        for other in _matches(table.columns[name], index, prefer):
            is_plain = other.way in ("name", "path", "stem") and other.rows_found > 0.99
            if is_plain and not hints_at(words_of(other.root), DECOYS) and not taken & other.all_files:
                more.append(other)
                taken |= other.all_files
                break
    return more


def share_found(column: Column, index: FileIndex) -> float:
    """Return which share of some cells of a column names a file in a plain way, 0..1."""
    cells = column.cells[:: max(1, len(column.cells) // _TRIED)]
    if not len(cells):
        return 0.0
    return sum(any(_find(way, index)(cell) for way in ("name", "path", "stem", "number")) for cell in cells) / len(
        cells
    )


def parents(path: str) -> Iterator[str]:
    """Yield every folder above a path, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def word_bonus(folder: str, part: Part) -> float:
    """Return what the words of a folder's path say for or against it as the place of a part."""
    words = words_of(folder)
    own, other = hints_at(words, (part,)), hints_at(words, _OTHER[part])
    return 3.0 * own - 3.0 * (other and not own) - 30.0 * hints_at(words, DECOYS)


def _preference(part: Part, like: frozenset[str]) -> Prefer:
    """Return what speaks for a folder and suffix, beside how many rows and files they join."""

    def prefer(root: str, suffix: str) -> float:
        is_like = suffix in like if len(like) == 1 else bool(like) and not suffix
        return word_bonus(root, part) + _ease(suffix) + 2.0 * is_like - (0.25 if not suffix else 0.0)

    return prefer


def _matches(column: Column, index: FileIndex, prefer: Prefer) -> Iterator[Match]:
    """Yield the best fit of a column for each way of naming files that fits at all."""
    if column.is_constant and len(column.cells) > 1:
        return
    cells = column.cells.tolist()
    tried = cells[:: max(1, len(cells) // _TRIED)]
    ways: list[tuple[Way, Callable[[str], list[File]]]] = []
    for way in _COMPLEXITY:
        if way != "affix" and (way != "folder" or column.is_key):
            ways.append((way, _find(way, index)))
    found_plainly = False
    for way, find in ways:
        if sum(map(bool, map(find, tried))) < _ENOUGH * len(tried):
            continue
        match = _fit(column.name, way, [find(cell) for cell in cells], index, prefer)
        if match is not None:
            found_plainly = found_plainly or match.score > 90  # of a decoy there may be a better one
            yield match
    if not found_plainly and column.is_key:
        yield from _affix_matches(column, index, prefer)


def _find(way: Way, index: FileIndex) -> Callable[[str], list[File]]:
    """Return the function from a cell to the files that it names."""

    def by_path(cell: str) -> list[File]:
        path = cell.replace("\\", "/").removeprefix("./").lstrip("/")
        ending = f"/{path}"
        return (
            [file for file in index.by_name(path.rpartition("/")[2]) if file.path.endswith(ending)]
            if "/" in path
            else []
        )

    def by_path_without_suffix(cell: str) -> list[File]:
        ending = f"/{cell.lstrip('/')}"
        stems = index.by_stem.get(ending.rpartition("/")[2], [])
        return [file for file in stems if file.path.removesuffix(file.suffix).endswith(ending)]

    functions: dict[Way, Callable[[str], list[File]]] = {
        "name": index.by_name,
        "path": lambda cell: by_path(cell) or (by_path_without_suffix(cell) if "/" in cell else []),
        "stem": lambda cell: index.by_stem.get(cell, []) if cell else [],
        "number": lambda cell: index.by_number.get(str(int(cell)), []) if cell.isdecimal() else [],
        "other suffix": lambda cell: (
            index.by_stem.get(stem_of(cell.rpartition("/")[2]), []) if cell != stem_of(cell) else []
        ),
        "folder": lambda cell: index.by_folder.get(cell, []) if cell else [],
    }
    return functions[way]


def _fit(
    column: str, way: Way, found: list[list[File]], index: FileIndex, prefer: Prefer, n_each: int = 1
) -> Match | None:
    """Return the fit of the best folder and suffix: most rows with `n_each` files, then most of its files found."""
    hits: Counter[tuple[str, str]] = Counter()
    used: Counter[tuple[str, str]] = Counter()
    for files in found:
        places = Counter(place for file in files for place in _places(file))
        hits.update({place: 1 for place, n in places.items() if n == n_each or way == "folder"})
        used.update(places)
    if not hits:
        return None
    n_rows = len(found)

    def score(place: tuple[str, str]) -> float:
        n_below = index.below[place[0]]
        files_used = min(1.0, used[place] / n_below) if n_below else 0.0
        return 100 * hits[place] / n_rows + 10 * files_used + prefer(*place)

    # A folder around the one that holds all of it says nothing of its own, and hides what that one is called.
    closed = {
        (parent, suffix)
        for root, suffix in hits
        if (parent := root.rpartition("/")[0])
        and (hits[parent, suffix], used[parent, suffix]) == (hits[root, suffix], used[root, suffix])
    }
    best = max(hits.keys() - closed, key=lambda place: (round(score(place), 6), len(place[0]), place))
    if hits[best] < _ENOUGH * n_rows:
        return None
    root, suffix = best
    chosen = tuple(tuple(file.path for file in files if _is_at(file, root, suffix)) for files in found)
    if way != "folder":
        chosen = tuple(paths if len(paths) == n_each else () for paths in chosen)
    distinct = len({path for paths in chosen for path in paths})
    twice = 1 - distinct / max(1, sum(map(len, chosen)))  # of a column such as a class, whose values happen to be names
    used_share = min(1.0, distinct / index.below[root])
    total = score(best) - _COMPLEXITY[way] - 50 * twice
    return Match(column, way, _deepest(chosen, root), chosen, used_share, total)


def _ease(suffix: str) -> float:
    """Return how readily a format is read, to choose between pictures that lie there in several."""
    return 0.5 if suffix in (".png", ".jpg", ".jpeg", ".bmp", ".webp") else 0.3 if suffix in IMAGE_SUFFIXES else 0.0


def _places(file: File) -> Iterator[tuple[str, str]]:
    for folder in parents(file.path):
        yield folder, file.suffix
        yield folder, ""


def _is_at(file: File, root: str, suffix: str) -> bool:
    return file.path.startswith(f"{root}/") and suffix in ("", file.suffix)


def _deepest(files: Iterable[Sequence[str]], root: str) -> str:
    """Return the deepest folder that all files have in common, at or below `root`."""
    common: list[str] | None = None
    for paths in files:
        for path in paths:
            parts = path.split("/")[:-1]
            if common is None:
                common = parts
            else:
                same = 0
                while same < min(len(common), len(parts)) and common[same] == parts[same]:
                    same += 1
                common = common[:same]
    return "/".join(common) if common else root


def _affix_matches(column: Column, index: FileIndex, prefer: Prefer) -> Iterator[Match]:
    """Yield a fit for names that have a fixed text before or after the cell (`img_12.png`, `00012_red.png`).

    Several files of a row (`12_red.png`, `12_green.png`) make one fit with all of them.
    """
    by_stem = index.by_stem
    affixes = find_affixes(column, [stem_of(file.name) for file in index.files], by_stem)
    if not affixes:
        return
    found = [[file for affix in affixes for file in by_stem.get(affix.around(cell), [])] for cell in column.cells]
    match = _fit(column.name, "affix", found, index, prefer, len(affixes))
    if match is not None:
        yield match


def _grouped(pairs: Iterable[tuple[str, File]]) -> dict[str, list[File]]:
    groups: dict[str, list[File]] = defaultdict(list)
    for key, file in pairs:
        groups[key].append(file)
    return dict(groups)
