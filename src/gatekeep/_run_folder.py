"""A gateway's run folder, locked while it runs: its control socket, and the listener and scoreboard of each group."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path

RUN_PREFIX = "gatekeep-"

CONSOLE_FILE = "control.sock"
"""The control socket's name in the run folder."""

CONSOLE_BACKLOG = 16


class RunFolder:
    """`gatekeep-PID-XXXX`, 0700, in `$XDG_RUNTIME_DIR` or the temporary folder.

    Its owner holds a lock on it, so a folder that is not locked is left over from a gateway that was killed.

    Attributes:
        fd: the folder, open and locked.
    """

    def __init__(self) -> None:
        self._path = _make_folder()
        self.fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self.fd)


def _make_folder() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # A session's variable may outlive its folder (su, cron).
    parent = runtime if os.access(runtime, os.W_OK | os.X_OK) else tempfile.gettempdir()
    _clean_stale(parent)
    return tempfile.mkdtemp(prefix=f"{RUN_PREFIX}{os.getpid()}-", dir=parent)


def _clean_stale(parent: str) -> None:
    for path in Path(parent).glob(f"{RUN_PREFIX}*-*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            # Younger ones may belong to a gateway that has not come to locking its own yet.
            if (
                stat.S_ISDIR(status.st_mode)
                and status.st_uid == os.getuid()
                and time.time() - status.st_mtime > 5
            ):
                _remove_unless_locked(path)


def _remove_unless_locked(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(fd)


def listen_console(folder: RunFolder) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(f"/proc/self/fd/{folder.fd}/{CONSOLE_FILE}")
        # Nobody can connect before it listens. (The umask is the whole process's, so of other programs, too.)
        os.chmod(CONSOLE_FILE, 0o600, dir_fd=folder.fd)
        sock.listen(CONSOLE_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class RealGroupHome:
    """The listener and the scoreboard of one group."""

    def __init__(self, folder: RunFolder, name: str, backlog: int, board_size: int) -> None:
        file = f"{name}.sock"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # Through open descriptors: a socket's path has 108 bytes at most, and someone may tidy the temporary folder.
        self.listener.bind(f"/proc/self/fd/{folder.fd}/{file}")
        self.listener.listen(backlog)
        self._path_fd = os.open(file, os.O_PATH, dir_fd=folder.fd)
        self.address = f"/proc/self/fd/{self._path_fd}"
        self.board_fd = os.memfd_create("gatekeep-scoreboard")
        os.ftruncate(self.board_fd, board_size)
        self._map = mmap.mmap(self.board_fd, board_size)
        self.board = memoryview(self._map)

    def close(self) -> None:
        self.listener.close()
        os.close(self._path_fd)
        os.close(self.board_fd)
        self.board.release()
        with contextlib.suppress(BufferError):
            self._map.close()
