"""How many samples a second signals have: from a number beside them, a column of their table, or the host's words.

A wrong rate moves every filter, so it is concluded only where all that is said agrees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import listed
from pipeline.stages.infer.arrays import ArrayFacts, load_values
from pipeline.stages.infer.columns import Column, plain_form
from pipeline.stages.infer.findings import Findings
from pipeline.stages.infer.texts import read_texts

Given = dict[str, Any]

KEY = "sample_rate_hz"
LEAST_HZ = 1.0
"""A number below, under a name such as fs, is more likely kHz, or a sign that nobody filled it in."""

_NAMES = re.compile(r"(fs|sf|sr|srate|sfreq|fsample|fsamp|samp(l(e|ing))?(rate|freq(uency)?))(hz)?")  # of `plain_form`
_WORD = (
    r"(?<![a-z])(?P<again>(?:down|re|up|sub)-?)?"
    r"(?:sampled|sampling|sample[\s_-]*(?:rate|freq(?:uency)?)|digiti[sz]ed|srate|sfreq|fs)(?![a-z])"
)
_BETWEEN = (
    r"(?:[\s:=|*_`\"'(\[-]|(?<![a-z])"
    r"(?:at|of|is|was|are|were|with|an?|the|to|uniformly|constant|fixed|rate|freq|frequency|fs)(?![a-z]))*"
)
_NUMBER = r"(?P<number>\d{1,3}(?:,\d{3})+(?![\d.])|\d+(?:\.\d+)?)"
_UNIT = r"[\s-]?\s*(?P<unit>k?hz|(?:kilo)?hertz|samples?\s*(?:per|/)\s*s(?:ec(?:ond)?)?)(?![a-z])"
_STATED = (
    re.compile(rf"{_WORD}{_BETWEEN}{_NUMBER}{_UNIT}"),
    re.compile(
        rf"(?P<again>(?!))?(?<![\d.,\u2013-]){_NUMBER}{_UNIT}[\s-]+(?:sampling|sample[\s-]+(?:rate|freq))(?![a-z])"
    ),
    re.compile(
        r"(?P<again>(?!))?(?:rate|freq|frequency|\bfs|\bsrate|\bsfreq)[\s_]*[\[(]?(?P<unit>hz)[\])]?[*_`]*\s*[:=|][\s*_`|]*"
        rf"{_NUMBER}(?!\s*[\w,.]*\d|\s*[a-z])"
    ),
)
"""`sampled at 250 Hz`, `sampling rate: 1 kHz`; `a 250 Hz sampling rate`; `sample rate (Hz): 250`; in lower case."""
_ANY = re.compile(rf"(?<![\w.,]){_NUMBER}{_UNIT}")
_RESAMPLED = re.compile(r"\b(?:down|re|up|sub)-?sampl|\bdecimat")


@dataclass(frozen=True)
class Stated:
    """A rate that somebody states."""

    hz: float
    where: str
    """What states it, as a user knows it."""


@dataclass(frozen=True)
class Told:
    """What texts say of the rate."""

    stated: tuple[Stated, ...] = ()
    doubt: str = ""
    """Why none of it is to be trusted alone."""


def rates_beside(arrays: Sequence[ArrayFacts]) -> tuple[tuple[ArrayFacts, ...], tuple[Stated, ...]]:
    """Return the arrays that hold no rate, and the rates that the others hold.

    A rate is an array with a usual name (`fs`, `sfreq`, `sampling_rate`, ...) that holds one number, or one for each
    row. Numbers that differ are all stated, and stay among the arrays.
    """
    others, found = [], []
    for facts in arrays:
        values = _rate_values(facts)
        found += [Stated(hz, facts.shown) for hz in values]
        if len(values) != 1:
            others.append(facts)
    return tuple(others), tuple(found)


def rates_in_columns(columns: Mapping[str, Column]) -> tuple[Stated, ...]:
    """Return the rates that columns of a usual name hold, one for each number in them."""
    found = []
    for name, column in columns.items():
        if not _NAMES.fullmatch(plain_form(name)):
            continue
        try:
            values = sorted({float(cell) for cell in column.values})
        except ValueError:
            continue
        found += [Stated(hz, f"the column {name}") for hz in values if _is_rate(hz)]
    return tuple(found)


def rates_in_texts(paths: Iterable[Path]) -> Told:
    """Return the rates that a README or description states, and what speaks against trusting them.

    A frequency that no signal of the stated rate holds, or a word on resampling without the new rate, is a doubt.
    """
    stated: dict[Stated, None] = {}
    frequencies: list[Stated] = []
    resampled, is_target_told = "", False
    for name, text in read_texts(paths):
        # Paragraphs and items of lists are apart; other breaks of lines mean nothing.
        plain = re.sub(r"\s*\n\s*", " ", re.sub(r"\n\s*(?=\n|[-*#|+]|\d+\.\s)", "; ", text.lower()))
        for pattern in _STATED:
            for hit in pattern.finditer(plain):
                stated[Stated(_hz(hit), name)] = None
                is_target_told |= bool(hit["again"])
        frequencies += [Stated(hz, name) for hit in _ANY.finditer(plain) for hz in _readings(hit)]
        resampled = resampled or (name if _RESAMPLED.search(plain) else "")
    return Told(tuple(stated), _doubt(tuple(stated), frequencies, "" if is_target_told else resampled))


def find_rate(beside: Sequence[Stated], told: Told, given: Given, findings: Findings) -> Given:
    """Return `sample_rate_hz` of a task, if it can be concluded.

    Args:
        beside: what stands in the host's arrays and tables.
        told: what his texts say.
        given: what the user states, as in task.yaml.
        findings: gets the conclusion, or why there is none.
    """
    if KEY in given:
        return {}
    stated = [*beside, *told.stated]
    values = sorted({each.hz for each in stated})
    shown = listed([f"{each.hz:g} Hz in {each.where}" for each in dict.fromkeys(stated)], 4)
    if not values:
        why = "no array, column or text states it; filters and seconds need it"
        findings.add(KEY, "not known", f"{why}: {KEY}=...", "guess")
        return {}
    if len(values) > 1 or (told.doubt and not beside):
        why = "these contradict each other" if len(values) > 1 else told.doubt
        flag = " or ".join(f"{KEY}={hz:g}" for hz in values[:3])
        findings.add(KEY, "not concluded", f"{shown}: {why}", "guess", flag)
        return {}
    findings.add(KEY, f"{values[0]:g}", shown, "certain" if beside else "likely")
    return {KEY: int(values[0]) if values[0].is_integer() else values[0]}


def _rate_values(facts: ArrayFacts) -> list[float]:
    """Return the distinct rates that an array holds; none if it is none of a usual name."""
    name = facts.key or Path(facts.path).stem
    is_column = len(facts.shape) <= 1 or int(np.prod(facts.shape)) == 1
    if not _NAMES.fullmatch(plain_form(name)) or not is_column or facts.dtype.kind not in "iuf":
        return []
    values = np.unique(np.asarray(load_values(facts), dtype=np.float64))
    return [float(value) for value in values] if len(values) and all(map(_is_rate, values.tolist())) else []


def _is_rate(hz: float) -> bool:
    return bool(np.isfinite(hz)) and hz >= LEAST_HZ


def _hz(hit: re.Match[str]) -> float:
    return float(hit["number"].replace(",", "")) * (1000.0 if hit["unit"].startswith("k") else 1.0)


def _readings(hit: re.Match[str]) -> list[float]:
    """Return the frequencies that a number may mean: some write 1.000 for a thousand."""
    is_unclear = re.fullmatch(r"\d{1,3}\.\d{3}", hit["number"]) is not None
    return [_hz(hit), 1000 * _hz(hit)] if is_unclear else [_hz(hit)]


def _doubt(stated: Sequence[Stated], frequencies: Sequence[Stated], resampled: str) -> str:
    """Return what speaks against a rate that texts state."""
    if len({each.hz for each in stated}) != 1:
        return ""
    hz = stated[0].hz
    if hz < LEAST_HZ:
        return f"below {LEAST_HZ:g} Hz"
    if other := [each for each in frequencies if each.hz >= hz / 2 and each.hz != hz]:
        return f"{other[0].where} also speaks of {other[0].hz:g} Hz, which signals of that rate do not hold"
    return f"{resampled} also speaks of resampling, and not to which rate" if resampled else ""
