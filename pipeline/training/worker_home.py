"""The process that workers are forked from has this module imported, and with it all that training would import.

Nothing here starts a thread or looks for a device, or the workers could not do so. No signal ends that process: one to
the whole group is for the workers, which save themselves, and it ends with the process that started it.
"""

from __future__ import annotations

import atexit
import os
import signal

from matplotlib.backends import backend_agg

from pipeline.base.interrupt import SIGNALS
from pipeline.training import unit

__all__ = ["backend_agg", "unit"]

atexit.register(os._exit, 0)  # else it would take more than a second to clear what was imported
for number in SIGNALS:
    signal.signal(number, signal.SIG_IGN)
