"""What was concluded about a competition: each key with its value, the reason, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Sure = Literal["certain", "likely", "guess"]
"""`certain`: stated, or counted and complete; `likely`: one reading fits far better; `guess`: others fit as well."""


@dataclass(frozen=True)
class Finding:
    """One conclusion and why."""

    key: str
    """A key of task.yaml (`submission.format`), or what else was looked for (`files`)."""
    value: str
    reason: str
    """A phrase that a reader can check on the files."""
    sure: Sure = "certain"
    flag: str = ""
    """What to add to the command for the other reading, where two are equally likely (`kind=ordinal`)."""


@dataclass
class Findings:
    """Findings in the order in which they were made; the last of a key counts."""

    _by_key: dict[str, Finding] = field(default_factory=dict)

    def add(self, key: str, value: object, reason: str, sure: Sure = "certain", flag: str = "") -> None:
        """Note a conclusion."""
        self.take(Finding(key, str(value), reason, sure, flag))

    def take(self, finding: Finding | None) -> None:
        """Note a finding; None is no finding."""
        if finding is not None:
            self._by_key[finding.key] = finding

    def __iter__(self) -> Iterator[Finding]:
        """Yield the findings in their order."""
        return iter(self._by_key.values())

    def of(self, key: str) -> Finding | None:
        """Return the finding of a key, if there is one."""
        return self._by_key.get(key)

    def rows(self) -> list[list[str]]:
        """Return key, value, reason and sureness of each, as they are printed."""
        return [[each.key, _short(each.value), each.reason, each.sure] for each in self]

    def open_questions(self) -> list[str]:
        """Return a line for each conclusion that another reading would fit as well, with the flag of the other."""
        return [
            f"{each.key} = {_short(each.value)} ({each.reason}); the other reading: {each.flag}"
            for each in self
            if each.flag
        ]


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 4]} ..."
