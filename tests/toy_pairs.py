"""Few layouts in which all sensible pairs of values occur.

    layouts = pairwise()        # every sensible pair of values of STRUCTURE occurs, and every value of DETAILS

The structure of a competition is covered in pairs. Its details (which format a file has, which delimiter a table) are
met by code that does not look at the rest, so each occurs a few times, in turn; pairs of those would be hundreds.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache, reduce
from itertools import combinations

from toy_layouts import AXES, DETAILS, RULES, STRUCTURE, Layout

Pair = tuple[tuple[str, str], tuple[str, str]]
"""Two axes with a value each, in the order of the axes; the same value twice stands for it alone."""

_BESIDES: frozenset[Pair] = frozenset(
    {
        (("separator", "comma"), ("dialect", "comma")),
        (("separator", "semicolon"), ("dialect", "semicolon")),
        (("separator", "space"), ("dialect", "tab")),
        (("encoding", "cell"), ("dialect", "pipe")),
        (("ids", "suffix"), ("file", "mixed")),
        (("ids", "stem"), ("file", "mixed")),
    }
)
"""Further pairs that every set of layouts holds, as they are known to be read wrongly."""


def pairs_of(values: Mapping[str, str]) -> set[Pair]:
    """Return all pairs of axis values of a layout, or of a part of one."""
    return set(combinations(((axis, values[axis]) for axis in AXES if axis in values), 2))


def wanted_pairs() -> set[Pair]:
    """Return the pairs that a set of layouts must hold, as far as they are sensible: see `pairwise`."""
    every = [(axis, value) for axis, values in STRUCTURE.items() for value in values]
    pairs = {(one, two) for one, two in combinations(every, 2) if one[0] != two[0]}
    details = {(one, one) for one in ((axis, value) for axis, values in DETAILS.items() for value in values)}
    return pairs | details | _BESIDES


@cache
def pairwise(seed: int = 0, n_tries: int = 8) -> tuple[Layout, ...]:
    """Return few layouts in which every sensible pair of structure occurs, and every sensible value of a detail.

    Greedy, as AETG: each layout starts from a pair that is still missing and takes, axis by axis in random order, the
    value that brings most missing pairs; of `n_tries` such layouts the one with most is kept (Cohen et al. 1997,
    https://doi.org/10.1109/32.605761). Details are taken in turn, the rarest so far first.
    """
    rng, missing = random.Random(seed), wanted_pairs()
    layouts: list[Layout] = []
    used: Counter[str] = Counter()
    while missing:
        firsts = rng.sample(sorted(missing), min(n_tries, len(missing)))
        found = {first: complete(dict(first), missing, used, rng) for first in firsts}
        missing -= {first for first, values in found.items() if values is None}  # no sensible layout has them
        sensible = [values for values in found.values() if values is not None]
        if sensible:
            best = max(sensible, key=lambda values: len(_covered(values) & missing))
            missing -= _covered(best)
            used.update(f"{axis}={best[axis]}" for axis in DETAILS)
            layouts.append(Layout(**best))
    return tuple(layouts)


def complete(
    start: Mapping[str, str],
    missing: AbstractSet[Pair] = frozenset(),
    used: Mapping[str, int] | None = None,
    rng: random.Random | None = None,
) -> dict[str, str] | None:
    """Return a sensible choice for all axes that holds `start`, or None when no layout does.

    Args:
        start: values of some axes.
        missing: pairs to bring in where there is a choice; without them, the usual values come first.
        used: how often a detail, as `axis=value`, was taken already.
        rng: the order of the axes; without it, that of `AXES`.
    """
    order = [axis for axis in AXES if axis not in start]
    if rng is not None:
        rng.shuffle(order)
        order.sort(key=lambda axis: _PLACES[axis] if axis in DETAILS else -1)
    state = reduce(lambda left, item: left & _masks()[item], start.items(), _EVERYTHING)
    return _search(state, dict(start), order, missing, used or {}) if _is_open(state) else None


def _covered(values: Mapping[str, str]) -> set[Pair]:
    """Return the pairs of a layout, and each of its values as a pair with itself."""
    return pairs_of(values) | {(item, item) for item in values.items()}


def _search(
    state: int, chosen: dict[str, str], order: Sequence[str], missing: AbstractSet[Pair], used: Mapping[str, int]
) -> dict[str, str] | None:
    """Return `chosen` with a value for each axis of `order` out of `state`, depth first; None if there is none."""
    if not order:
        return {axis: chosen[axis] for axis in AXES}
    axis = order[0]

    def worth(value: str) -> tuple[int, int]:
        item = (axis, value)
        pairs = [(item, other) if _PLACES[axis] < _PLACES[other[0]] else (other, item) for other in chosen.items()]
        return -sum(pair in missing for pair in pairs) - ((item, item) in missing), used.get(f"{axis}={value}", 0)

    for value in sorted((value for value in AXES[axis] if state & _BITS[axis, value]), key=worth):
        left = state & _masks()[axis, value]
        found = _search(left, chosen | {axis: value}, order[1:], missing, used) if _is_open(left) else None
        if found is not None:
            return found
    return None


_PLACES = {axis: place for place, axis in enumerate(AXES)}
_BITS = {item: 1 << n for n, item in enumerate((axis, value) for axis, values in AXES.items() for value in values)}
_EVERYTHING = (1 << len(_BITS)) - 1
_OF_AXIS = tuple(sum(_BITS[axis, value] for value in values) for axis, values in AXES.items())


def _is_open(state: int) -> bool:
    """Return whether each axis has a value left."""
    return all(state & own for own in _OF_AXIS)


@cache
def _masks() -> dict[tuple[str, str], int]:
    """Return for each value what it leaves of all values, as bits: the rules, read in both directions."""
    masks = {item: _EVERYTHING & ~_OF_AXIS[_PLACES[item[0]]] | bit for item, bit in _BITS.items()}
    for one, two in _conflicts():
        masks[one] &= ~_BITS[two]
        masks[two] &= ~_BITS[one]
    return masks


def _conflicts() -> Iterator[Pair]:
    for rule in RULES:
        for value in rule.values:
            for other in set(AXES[rule.other]) - rule.allowed:
                yield (rule.axis, value), (rule.other, other)
