"""Where the command's log goes: standard output, or a file that is opened again when somebody has moved it away (logrotate)."""

from __future__ import annotations

import os
import sys

from gatekeep._errors import CannotStart
from gatekeep._events import Logger

STANDARD_OUTPUT = "-"


class LogFile:
    """An open file for the log; closed with the process.

    Args:
        path: the file's; `-` for standard output.

    Attributes:
        fd: the descriptor to write to. It stays the same when the file is opened again.

    Raises:
        CannotStart: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self.fd = _standard_output() if path == STANDARD_OUTPUT else _open(path)
        except OSError as error:
            raise CannotStart(f"log-file = {path!r}: {error.strerror}") from error

    def reopen(self, log: Logger) -> None:
        """Write to the file that has the path now; it is made if there is none. If it cannot be opened, the old one stays in use.

        What became of it is logged.
        """
        if self._path == STANDARD_OUTPUT:
            log.warning(
                "signal.ignored",
                signal="SIGUSR1",
                reason="the log goes to standard output, not to a log-file",
            )
            return
        try:
            fresh = _open(self._path)
        except OSError as error:
            log.error("log.not_reopened", path=self._path, reason=error.strerror)
            return
        os.dup2(fresh, self.fd, inheritable=False)  # in one step: the log's thread may be writing
        os.close(fresh)
        log.info("log.reopened", path=self._path)


def _open(path: str) -> int:
    # Without O_NONBLOCK a named pipe that nobody reads would keep us here.
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
    os.set_blocking(fd, True)
    return fd


def _standard_output() -> int:
    """Its descriptor, or that of the null device where somebody has closed it (`>&-`): the exit status still tells."""
    return os.open(os.devnull, os.O_WRONLY) if sys.stdout is None else sys.stdout.fileno()
