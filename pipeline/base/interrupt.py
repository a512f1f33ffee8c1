"""Stopping in good order: signals set a flag, and the work looks at the flag where it can save itself."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.base.errors import StopRequestedError

INTERRUPTED = 130  # 128 + SIGINT, as shells report Ctrl-C
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""What asks work to stop."""


class StopFlag:
    """Says whether work was asked to stop; calling it raises when it was.

    Args:
        also: a further source of the wish, such as an event that another process sets.
    """

    def __init__(self, also: Callable[[], bool] | None = None) -> None:
        self.signal_number: int | None = None
        self._also = also

    @property
    def is_set(self) -> bool:
        """Say whether a signal came, here or at the other source."""
        return self.signal_number is not None or (self._also is not None and self._also())

    def __call__(self) -> None:
        """Raise StopRequestedError if the flag is set."""
        if self.is_set:
            raise self._error()  # of no name here: it and this frame would hold each other, and all frames above

    def _error(self) -> StopRequestedError:
        error = StopRequestedError("stopped as asked; run the same command again to go on from here")
        if self.signal_number == signal.SIGINT:
            error.exit_code = INTERRUPTED
        return error


class Deadline:
    """Says when a time is over that runs from here."""

    def __init__(self, seconds: float | None) -> None:
        """Start it; without a number of seconds it is never over."""
        self.seconds = math.inf if seconds is None else seconds
        self._start = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Say whether the time is over."""
        return self.left_sec <= 0

    @property
    def left_sec(self) -> float:
        """Return the seconds that are left, below 0 when it is over; infinity where there is no end."""
        return self.seconds - (time.monotonic() - self._start)


@contextmanager
def stop_on_signals(also: Callable[[], bool] | None = None) -> Iterator[StopFlag]:
    """Yield a flag that `SIGNALS` set inside the block; a second Ctrl-C interrupts at once.

    Outside of the main thread, where Python allows no handlers, the flag is yielded without them.
    """
    flag = StopFlag(also)
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and flag.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.signal_number = number

    old = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
