"""The command `podium`, also `python -m pipeline`.

Exit codes: 0, 1 (user error), 75 (asked to stop, resumable), 130 (Ctrl-C). `PODIUM_MALLOC=off` in the environment
leaves the allocator of the process as it is (`base/allocator.py`).
"""

from __future__ import annotations

import os
import sys

from pipeline.base.allocator import keep_freed_memory
from pipeline.base.errors import PodiumError
from pipeline.base.interrupt import INTERRUPTED


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code; a user's mistake is one message, never a traceback."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the package index for news
    keep_freed_memory()
    from pipeline.commands import run

    try:
        sys.exit(run(sys.argv[1:] if arguments is None else arguments))
    except PodiumError as error:
        print(f"podium: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("podium: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a full disk, a folder without permission: the system's own words say it
        print(f"podium: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
