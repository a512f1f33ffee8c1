"""Ways of doing one thing, timed in turns, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` counts what this process computes, with all its threads: for a look while the machine does other work."""


def seconds_of(
    ways: Mapping[str, Callable[[], object]],
    n_rounds: int,
    n_calls: int,
    clock: str = "wall",
    before: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Return the seconds of a call of each way in each round, after two calls that are not counted.

    `before` is called ahead of all calls of a round, and of those that are not counted; its time counts for none.
    """
    now, before = CLOCKS[clock], before or (lambda: None)
    for way in ways.values():
        for _ in range(2):
            before()
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(n_rounds):
        for name, way in ways.items():
            before()
            began = now()
            for _ in range(n_calls):
                way()
            seconds[name].append((now() - began) / n_calls)
    return seconds


def table_of(title: str, unit: str, values: Mapping[str, Sequence[float]], ratio: str, is_rate: bool = False) -> str:
    """Return a Markdown table of each way: median, spread, and how it compares with the first.

    Args:
        title: above the table.
        unit: of the values.
        values: of each way, in every round.
        ratio: heading of the last column. For seconds it says how much less time than the first a way takes, or, where
            the heading starts with `cost`, how much more; for rates how much more the way gets done.
        is_rate: the values are a rate and not a time.
    """
    first = median(next(iter(values.values())))
    lines = [f"**{title}**\n", f"| way | {unit} | lowest to highest | {ratio} |", "|---|---:|---:|---:|"]
    for name, found in values.items():
        share = median(found) / first
        factor = share if is_rate or ratio.startswith("cost") else 1 / share
        numbers = f"{_short(median(found))} | {_short(min(found))} to {_short(max(found))} | {factor:.2f}x"
        lines.append(f"| {name} | {numbers} |")
    return "\n".join(lines) + "\n"


def origin(threads: int, clock: str = "wall") -> str:
    """Return the line that says where and when numbers were made."""
    what = "" if clock == "wall" else ", seconds of CPU"
    return (
        f"Made on {platform.processor() or platform.machine()}, {threads} threads{what}; {time.strftime('%Y-%m-%d')}.\n"
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
