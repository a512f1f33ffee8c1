"""How every benchmark starts as a command: mistakes are one line, a stop has its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from pipeline.base.errors import PodiumError
from pipeline.base.interrupt import INTERRUPTED


def start(name: str, main: Callable[[], None]) -> None:
    """Run `main` and end the process as `podium` would."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the package index for news
    try:
        main()
    except PodiumError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
