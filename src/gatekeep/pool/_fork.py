"""Children that the application forks: they have our threads' stack below them, and must not come back into it.

A view that forks, works in the child and calls `sys.exit()` there is a classic. The child holds none of our connections (they are
closed in it at once), so when its request's code ends, it ends.
"""

from __future__ import annotations

import os
import sys
import traceback

_is_child = False


def became_child() -> None:
    """Called in the child, right after the fork."""
    global _is_child
    _is_child = True


def end_if_child(error: BaseException | None = None) -> None:
    """In such a child, end the process: with the status of a SystemExit, with 1 and a traceback after another error."""
    if not _is_child:
        return
    status = _status(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(status)


def _status(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
        return 1
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1
