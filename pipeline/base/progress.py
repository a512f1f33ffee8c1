"""What the user sees while work goes on: events from units become live bars in a terminal and plain lines elsewhere.

Everything goes to stderr, so that stdout holds results only (`print_table`). `say` prints a line without breaking bars.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from rich.console import Console

DisplayKind = Literal["auto", "bar", "lines", "quiet"]

_SECONDS_BETWEEN_LINES = 10.0  # for counts where there is no terminal


@dataclass(frozen=True)
class Event:
    """How far one unit of work has come; picklable, so that it can cross processes.

    The event with `step == n_steps` ends its epoch and carries the epoch's metrics; one with step 0 and epoch 0, or the
    first after a resume, starts the clock of the unit.
    """

    unit: str
    """Such as `fold 0`; also names the bar."""
    epoch: int
    """From 0; shown from 1."""
    n_epochs: int
    """Epochs of the unit."""
    step: int
    """Steps done in this epoch, 0..n_steps."""
    n_steps: int
    """Steps of an epoch."""
    images_per_sec: float = 0.0
    """Items trained per second, 0 while unknown."""
    train_loss: float | None = None
    """Mean over the epoch so far."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What was measured on held-out rows, by the name to show (`held-out`, `accuracy`)."""
    finished: bool = False
    """The unit is done, whatever its step says."""
    message: str | None = None
    """A line for the user, shown in every kind of display."""


class Progress(Protocol):
    """Takes events; called in the process that owns the screen."""

    def __call__(self, event: Event) -> None:
        """Show one event."""


@contextmanager
def display(kind: DisplayKind, n_units: int) -> Iterator[Progress]:
    """Yield a Progress that shows the events of `n_units` units until the block ends.

    `auto` takes `bar` where stderr is a terminal and `lines` (one per epoch) elsewhere; `quiet` shows messages only.
    """
    kind = _resolved(kind)
    if kind == "bar":
        with _bars(_unit_columns()) as bars:
            yield _BarDisplay(bars, n_units)
    elif kind == "lines":
        yield _LineDisplay()
    else:
        yield _show_message


@contextmanager
def count_progress(label: str, kind: DisplayKind = "auto") -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, total) that shows a count: a bar in a terminal, elsewhere a line now and then."""
    kind = _resolved(kind)
    if kind == "bar":
        with _bars(_count_columns()) as bars:
            task = bars.add_task(label, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
    elif kind == "lines":
        yield _CountLines(label)
    else:
        yield lambda done, total: None


@contextmanager
def told_to(say: Callable[[str], None], logger_name: str) -> Iterator[None]:
    """Pass what is logged under a name to `say` inside the block, from INFO upward."""
    handler = logging.Handler()
    handler.emit = lambda record: say(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def say(text: str) -> None:
    """Print a line to stderr as it is, above any live bars."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table to stdout; numbers stand right, floats with five digits, None is empty.

    Piped into a file the table is as wide as it needs to be.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*[Text(_cell(value)) for value in row])
    console = Console(width=None if sys.stdout.isatty() else 1000)
    console.print("", Text(title), table, "", sep="\n")  # the title apart, or it is wrapped to the width of the table


def epoch_line(event: Event, eta_sec: float | None) -> str:
    """Return the line of an epoch: `fold 0  epoch 3/10  12,345 images/s  eta 0:12  train 0.1234  accuracy 0.9871`."""
    place = f"epoch {event.epoch + 1}/{event.n_epochs}"
    return "  ".join([event.unit, place, _speed(event), f"eta {clock_text(eta_sec)}", *_scores(event)])


def clock_text(seconds: float | None) -> str:
    """Return a duration as `0:12`, `12:34` or `1:02:03`; `-:--` when unknown."""
    if seconds is None:
        return "-:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class _Clock:
    """Time left per unit, from the share of its steps done since its first event (so a resume is not counted in)."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._starts: dict[str, tuple[float, float]] = {}

    def eta_sec(self, event: Event) -> float | None:
        done, now = _share(event), self._now()
        if event.epoch == event.step == 0:  # it starts, or starts again
            self._starts[event.unit] = (now, done)
        started, done_before = self._starts.setdefault(event.unit, (now, done))
        if done <= done_before:
            return None
        return (now - started) / (done - done_before) * (1 - done)


class _LineDisplay:
    """One line at the end of each epoch, and only one where the end of the unit is told by an event of its own."""

    def __init__(self, clock: _Clock | None = None) -> None:
        self._clock = clock or _Clock()
        self._shown: set[tuple[str, int]] = set()

    def __call__(self, event: Event) -> None:
        _show_message(event)
        eta_sec = self._clock.eta_sec(event)
        place = (event.unit, event.epoch)
        if event.step == 0:  # a unit that starts again has its epochs before it
            self._shown = {(unit, epoch) for unit, epoch in self._shown if unit != event.unit or epoch < event.epoch}
        if event.step >= event.n_steps and place not in self._shown:
            self._shown.add(place)
            say(epoch_line(event, eta_sec))


class _BarDisplay:
    """A live bar per unit that has begun, and one for all units when there are several."""

    def __init__(self, bars: Any, n_units: int, clock: _Clock | None = None) -> None:
        self._bars = bars
        self._clock = clock or _Clock()
        self._tasks: dict[str, Any] = {}
        self._shares: dict[str, float] = {}
        self._metrics: dict[str, dict[str, float]] = {}
        self._total = bars.add_task("total", total=float(n_units), detail="") if n_units > 1 else None

    def __call__(self, event: Event) -> None:
        _show_message(event)
        share = 1.0 if event.finished else _share(event)
        self._shares[event.unit] = share
        if event.unit not in self._tasks:
            self._tasks[event.unit] = self._bars.add_task(event.unit, total=1.0, detail="")
        eta_sec = self._clock.eta_sec(event)
        # Only the end of an epoch brings metrics; they stay in sight until the next.
        metrics = self._metrics[event.unit] = event.metrics or self._metrics.get(event.unit, {})
        detail = _bar_detail(replace(event, metrics=metrics), eta_sec)
        self._bars.update(self._tasks[event.unit], completed=share, detail=detail)
        if self._total is not None:
            self._bars.update(self._total, completed=sum(self._shares.values()))


class _CountLines:
    """A line at the end, and in between at most one every few seconds."""

    def __init__(self, label: str, now: Callable[[], float] = time.monotonic) -> None:
        self._label = label
        self._now = now
        self._last = now()

    def __call__(self, done: int, total: int) -> None:
        now = self._now()
        if done >= total or now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            say(f"{self._label}  {done:,}/{total:,}")


@cache
def _console() -> Console:
    """Return the one console of stderr: rich keeps bars whole only when all lines pass through the same one."""
    from rich.console import Console

    return Console(stderr=True)


def _resolved(kind: DisplayKind) -> DisplayKind:
    if kind == "auto":
        return "bar" if sys.stderr.isatty() else "lines"
    return kind


def _bars(columns: Sequence[Any]) -> Any:
    from rich.progress import Progress as Bars

    return Bars(*columns, console=_console())


def _unit_columns() -> list[Any]:
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn

    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    ]


def _count_columns() -> list[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    label = TextColumn("{task.description}", markup=False)
    return [label, BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn()]


def _show_message(event: Event) -> None:
    if event.message is not None:
        say(f"{event.unit}  {event.message}")


def _bar_detail(event: Event, eta_sec: float | None) -> str:
    when = "done" if event.finished else f"eta {clock_text(eta_sec)}"
    return "  ".join([f"epoch {event.epoch + 1}/{event.n_epochs}", _speed(event), when, *_scores(event)])


def _share(event: Event) -> float:
    """Return which part of the unit is done, 0..1."""
    return min(1.0, (event.epoch + event.step / max(event.n_steps, 1)) / max(event.n_epochs, 1))


def _speed(event: Event) -> str:
    return f"{event.images_per_sec:,.0f} images/s"


def _scores(event: Event) -> list[str]:
    train = [] if event.train_loss is None else [f"train {event.train_loss:.4f}"]
    return train + [f"{name} {value:.4f}" for name, value in event.metrics.items()]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
