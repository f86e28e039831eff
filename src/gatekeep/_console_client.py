"""Finds the gateways of this user that run, and asks them over their control sockets. Blocking; for the command."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import stat
import tempfile
import time
from pathlib import Path

import attrs

from gatekeep._run_folder import CONSOLE_FILE, RUN_PREFIX

CONNECT_PAUSE = 0.05
"""Seconds between attempts where the backlog is full: a connection to a UNIX socket does not wait for it."""


class NoAnswer(Exception):
    """A gateway does not answer; says why, in words that follow "it"."""


@attrs.frozen
class Running:
    """A gateway that runs. Several may live in one process."""

    pid: int
    folder: str


def places() -> list[str]:
    """The folders in which run folders are made: `$XDG_RUNTIME_DIR`, or what it usually is, and the temporary folder."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return list(dict.fromkeys(map(os.path.realpath, (runtime, tempfile.gettempdir()))))


def find() -> list[Running]:
    """This user's gateways, by their pids. What a gateway left behind that was killed is none."""
    found = []
    for place in places():
        for path in Path(place).glob(f"{RUN_PREFIX}*-*"):
            match = re.fullmatch(rf"{RUN_PREFIX}(\d+)-.+", path.name)
            if match and _is_running(path):
                found.append(Running(int(match[1]), str(path)))
    return sorted(found, key=lambda gateway: (gateway.pid, gateway.folder))


def _is_running(folder: Path) -> bool:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # The socket first: a gateway that starts makes it when it has locked the folder, and must not find our lock there.
        return os.fstat(fd).st_uid == os.geteuid() and _has_socket(fd) and _is_locked(fd)
    finally:
        os.close(fd)


def _has_socket(folder: int) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(CONSOLE_FILE, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _is_locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def command_of(pid: int) -> str:
    """How a process was started, for people; empty where that is not told."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return command.replace(b"\0", b" ").decode("utf-8", "replace").strip()


def ask(gateway: Running, request: bytes, patience: float) -> bytes:
    """The answer to a request, both as lines.

    Args:
        patience: seconds for all of it.

    Raises:
        NoAnswer: there was none, in that time or at all.
    """
    deadline = time.monotonic() + patience
    try:
        with _connect(gateway.folder, deadline) as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(request)
            return _read_line(connection, deadline)
    except TimeoutError:
        raise NoAnswer(f"does not answer within {patience:g} s") from None
    except OSError as error:
        raise NoAnswer(f"cannot be asked: {error.strerror or error}") from error


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(folder: str, deadline: float) -> socket.socket:
    with contextlib.ExitStack() as on_failure:
        connection = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            connection.setblocking(False)
            # Through the open folder: a socket's path has 108 bytes at most.
            while _is_crowded(connection, f"/proc/self/fd/{fd}/{CONSOLE_FILE}"):
                time.sleep(min(CONNECT_PAUSE, _left(deadline)))
        finally:
            os.close(fd)
        on_failure.pop_all()
    return connection


def _is_crowded(connection: socket.socket, address: str) -> bool:
    """Connect, or tell that there is no room for it now."""
    try:
        connection.connect(address)
    except BlockingIOError:
        return True
    return False


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    parts: list[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
        connection.settimeout(_left(deadline))
        data = connection.recv(1 << 16)
        if not data:
            raise NoAnswer("has ended the connection without an answer")
        parts.append(data)
    return b"".join(parts)
