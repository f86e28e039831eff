"""The operating system's processes, as the `Processes` of a `Host`: daemon processes are started with exec, watched and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gatekeep._host import DUMP_SIGNAL, GroupHome, Listener, Process, Socket, Usage
from gatekeep._host_net import RealNet
from gatekeep._launch import Launch, prepare, start
from gatekeep._process_options import ProcessOptions
from gatekeep._run_folder import RealGroupHome, RunFolder, listen_console

DUMP_LIMIT = 1 << 20
"""Bytes of a dump that are read: some thousand frames."""


own_children: set[int] = set()
"""The daemon processes whose ends are waited for: nobody else may reap them."""


class RealProcess:
    """A daemon process."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        control: socket.socket,
        log: socket.socket,
        dump: int,
        net: RealNet,
        run_blocking: Callable[..., Awaitable[Any]],
        oom_kills: int,
    ) -> None:
        self._run_blocking = run_blocking
        self.pid = popen.pid
        self.control: Socket = control
        self.log: Socket = log
        self._popen = popen
        self._dump = dump
        self._net = net
        own_children.add(popen.pid)
        self._pidfd = os.pidfd_open(popen.pid)
        self._oom_kills = oom_kills

    async def wait(self) -> str:
        waiter = self._net.waiter(_Descriptor(self._pidfd))
        try:
            while (status := self._popen.poll()) is None:
                await waiter.wait_readable()
        finally:
            waiter.close()
        end = describe_status(status)
        if status == -signal.SIGKILL and await self._run_blocking(count_oom_kills) > self._oom_kills:
            end += ", by the kernel: its memory has run out"
        return end

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        # Through the descriptor: the pid may be another process's by now.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def ask_dump(self) -> bool:
        if self._dump < 0 or not _catches(self.pid, DUMP_SIGNAL):
            return False  # the process is gone, or the signal would end it
        os.ftruncate(self._dump, 0)
        os.lseek(self._dump, 0, os.SEEK_SET)
        self._send(DUMP_SIGNAL)
        return True

    def read_dump(self) -> str:
        return os.pread(self._dump, DUMP_LIMIT, 0).decode("utf-8", "replace") if self._dump >= 0 else ""

    def usage(self) -> Usage | None:
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        # proc_pid_stat(5): utime and stime are the fields 14 and 15, rss is 24; here the third is the first.
        return Usage((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE)

    def close(self) -> None:
        self.control.close()
        self.log.close()
        os.close(self._dump)
        self._dump = -1
        os.close(self._pidfd)
        own_children.discard(self.pid)


_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for the signal and lets it through."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    masks = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith("Sig"))
    bit = 1 << (number - 1)
    return bool(int(masks["SigCgt"], 16) & bit) and not int(masks["SigBlk"], 16) & bit


CGROUPS = Path("/sys/fs/cgroup")


def count_oom_kills(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """How many processes of our control group the kernel has killed for want of memory; 0 where that is not told."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":  # version 1
            return _read_oom_kills(root / "memory" / path.lstrip("/") / "memory.oom_control")
    return max(
        (
            _read_oom_kills(root / line[3:].lstrip("/") / "memory.events")
            for line in lines
            if line[:3] == "0::"
        ),
        default=0,
    )


def _read_oom_kills(file: Path) -> int:
    try:
        return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])
    except (OSError, KeyError, ValueError):
        return 0


def describe_status(status: int) -> str:
    """A process's end in words, from `subprocess`'s return code."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


class _Descriptor(int):
    """A bare descriptor that can be waited for like a socket."""

    def fileno(self) -> int:
        return int(self)


class RealProcesses:
    """Starts daemon processes with exec."""

    def __init__(self, net: RealNet, run_blocking: Callable[..., Any]) -> None:
        self._net = net
        self._run_blocking = run_blocking
        self._folder: RunFolder | None = None
        self._launches: dict[ProcessOptions, Launch] = {}

    def prepare(self, options: ProcessOptions) -> Launch:
        """Look up how processes with these options are started, once. Blocks.

        Raises:
            SettingsError: they cannot be.
        """
        if options not in self._launches:
            self._launches[options] = prepare(options)
        return self._launches[options]

    def open_group(self, name: str, backlog: int, board_size: int) -> GroupHome:
        return RealGroupHome(self._run_folder(), name, backlog, board_size)

    def open_console(self) -> Listener | None:
        return listen_console(self._run_folder())

    def _run_folder(self) -> RunFolder:
        if self._folder is None:
            self._folder = RunFolder()
        return self._folder

    async def spawn(self, home: GroupHome, options: ProcessOptions) -> Process:
        assert isinstance(home, RealGroupHome)
        launch = self.prepare(options)
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as always:
            ours, theirs = socket.socketpair()
            on_failure.callback(ours.close)
            always.callback(theirs.close)
            log, their_log = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            on_failure.callback(log.close)
            always.callback(their_log.close)
            ours.setblocking(False)
            log.setblocking(False)
            # Its own, not a pipe: a pipe that is full would stop the process in its signal handler.
            dump = os.memfd_create("gatekeep-stacks")
            on_failure.callback(os.close, dump)
            oom_kills = await self._run_blocking(count_oom_kills)
            popen = await self._run_blocking(_start, launch, home, theirs.fileno(), their_log.fileno(), dump)
            on_failure.callback(_end, popen)
            process = RealProcess(popen, ours, log, dump, self._net, self._run_blocking, oom_kills)
            on_failure.pop_all()
        return process

    def close(self) -> None:
        """Remove the run folder."""
        if self._folder is not None:
            self._folder.close()
            self._folder = None


def _end(popen: subprocess.Popen[bytes]) -> None:
    popen.kill()
    popen.wait()


_BLOCKED = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP}


def _start(launch: Launch, home: RealGroupHome, control: int, log: int, dump: int) -> subprocess.Popen[bytes]:
    """Start `gatekeep.pool` with its descriptors. Runs in a thread: its signal mask is inherited, nobody else's is touched.

    `-P` and the script's path instead of `-m` keep the present folder out of the path until the application's own settings
    are known: with `-m` alone a user's `queue.py` shadows the standard library's. An own process group leaves Ctrl-C to the
    gateway. Signals whose default action would kill stay blocked until the daemon's handlers stand. Another user is set
    before exec, so that the new process's own files in /proc belong to that user.
    """
    program = str(Path(__file__).parent / "pool" / "__main__.py")
    descriptors = (control, log, home.listener.fileno(), home.board_fd, dump)
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        return start(
            launch,
            [sys.executable, *flags, "-P", program, *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            process_group=0,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
