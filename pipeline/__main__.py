"""The command `podium`, also `python -m pipeline`.

Exit codes: 0, 1 (user error), 75 (asked to stop, resumable), 130 (Ctrl-C). `PODIUM_MALLOC=off` in the environment
leaves the allocator of the process as it is (`base/allocator.py`).
"""

from __future__ import annotations

import atexit
import os
import sys

from pipeline.base.allocator import keep_freed_memory
from pipeline.base.errors import PodiumError
from pipeline.base.interrupt import INTERRUPTED


def command() -> None:
    """Be the process of one command: run `main` and end at once, without the second in which Python clears torch away.

    Everything that asked to be called at the end is called, threads are waited for, and output is written out.
    """
    code: object = 1  # of an error that nobody foresaw

    def leave() -> None:
        number = code if isinstance(code, int) else 0 if code is None else 1
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (BrokenPipeError, ValueError):  # its reader has gone, or it was closed
                pass
            except OSError:  # a full disk
                number = number or 1
        os._exit(number)

    atexit.register(leave)  # the first to be registered is the last to be called
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
        raise


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
    command()
