"""The operating system as a `Host`: sockets, processes, clocks, threads. Nothing is decided here."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import mmap
import os
import pwd
import random
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from gatekeep._host import DUMP_SIGNAL, GroupHome, Listener, Peer, Process, Socket, SpoolFile, Usage, Waiter
from gatekeep._launch import Launch, prepare, start
from gatekeep._process_options import ProcessOptions
from gatekeep._waiters import AsyncioLoop, Hub, LoopWaiter, TrioLoop, TrioWaiter, is_asyncio
from gatekeep.settings._bind import Bind, BindKind, parse_bind

T = TypeVar("T")

# --- sockets --------------------------------------------------------------------------------------------------------


_UNIX, _STREAM = int(socket.AF_UNIX), socket.SOCK_STREAM | socket.SOCK_NONBLOCK


class RealNet:
    """The system's sockets. Made inside the event loop that is to wait for them.

    Args:
        inherited: listening sockets that another gateway has opened, by the address that it opened them for.
    """

    def __init__(self, inherited: Mapping[str, Sequence[int]] = MappingProxyType({})) -> None:
        self._inherited = dict(inherited)
        self._others: list[int] = [fd for fds in inherited.values() for fd in fds]
        self._inherited_files: list[Bind] = []
        self._hub: Hub | None = None
        if hasattr(select, "epoll"):
            self._hub = Hub(AsyncioLoop() if is_asyncio() else TrioLoop())
            self.waiter: Callable[[Any], Waiter] = self._hub.waiter
        else:
            self.waiter = LoopWaiter if is_asyncio() else TrioWaiter
        self._unix: dict[Bind, tuple[int, int]] = {}

    def listen(self, bind: Bind, backlog: int) -> Sequence[tuple[Listener, str]]:
        if fds := self._inherited_for(bind):
            if bind.kind is BindKind.UNIX:
                self._inherited_files.append(bind)
            return [_inherited(fd) for fd in fds]
        if bind.kind is BindKind.FD:
            return [_inherited(bind.fd)]
        if bind.kind is BindKind.UNIX:
            return [self._listen_unix(bind, backlog)]
        return _listen_tcp(bind, backlog)

    def _inherited_for(self, bind: Bind) -> Sequence[int]:
        # What is spoken there may be new. (Two that differ in nothing else are possible where the system chooses the port.)
        names = [name for name in self._inherited if parse_bind(name).address == bind.address]
        name = str(bind) if str(bind) in names else next(iter(names), "")
        return self._inherited.pop(name, ())

    def _listen_unix(self, bind: Bind, backlog: int) -> tuple[socket.socket, str]:
        _remove_stale(bind.path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(bind.path)
            sock.listen(backlog)
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        self._remember(bind)
        return sock, bind.address

    def _remember(self, bind: Bind) -> None:
        status = os.stat(bind.path)
        self._unix[bind] = status.st_dev, status.st_ino

    def adopt(self) -> None:
        while self._inherited_files:
            with contextlib.suppress(OSError):  # somebody has removed it
                self._remember(self._inherited_files.pop())
        while self._others:
            os.close(self._others.pop())

    def disown(self) -> None:
        """What was listened on is another gateway's: nothing is removed."""
        self._unix.clear()

    def unlisten(self, bind: Bind) -> None:
        """Remove a UNIX socket's file, unless another program has put its own there."""
        identity = self._unix.pop(bind, None)
        if identity is None:
            return
        with contextlib.suppress(OSError):
            status = os.stat(bind.path)
            if (status.st_dev, status.st_ino) == identity:
                os.unlink(bind.path)

    def accept(self, listener: Listener) -> Peer:
        assert isinstance(listener, socket.socket)
        sock, address = listener.accept()
        sock.setblocking(False)
        if sock.family == socket.AF_UNIX:
            # CGI wants a name and a port that are not empty (PEP 3333); behind a UNIX socket they mean nothing.
            return Peer(sock, None, ("localhost", "80"))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = sock.getsockname()[:2]
        return Peer(sock, (address[0], address[1]), (host, str(port)))

    def connect(self, address: str) -> Socket:
        # The C type: what `socket.socket` adds to it costs a microsecond for each request.
        sock = socket.SocketType(_UNIX, _STREAM)
        error = sock.connect_ex(address)
        if error:
            sock.close()
            raise OSError(error, os.strerror(error))
        return sock

    def describe(self, address: str) -> str:
        try:
            path = os.readlink(address)
        except OSError:
            path = address
        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            user = str(os.geteuid())
        return f"{path} as user {user}"

    def descriptors(self) -> int:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return 1 << 30 if limit == resource.RLIM_INFINITY else limit

    def unread(self, sock: Socket) -> int:
        assert isinstance(sock, socket.SocketType)
        try:
            return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
        except OSError:
            return 0  # not every system tells it for these sockets

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._hub is not None:
            self._hub.close()

    def abort(self, sock: Socket) -> None:
        assert isinstance(sock, socket.socket)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()


def _inherited(fd: int) -> tuple[socket.socket, str]:
    # A copy, so that closing ours leaves the descriptor's owner with his.
    sock = socket.socket(fileno=os.dup(fd))
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise OSError(errno.EINVAL, "it is no listening stream socket")
    sock.setblocking(False)
    return sock, _address(sock)


def _listen_tcp(bind: Bind, backlog: int) -> list[tuple[socket.socket, str]]:
    """One listener for every address that the host's name stands for; all on one port, also where that is chosen for us."""
    port = bind.port
    found = socket.getaddrinfo(bind.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners = []
    with contextlib.ExitStack() as on_failure:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = on_failure.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], port, *address[2:]))
            sock.listen(backlog)
            sock.setblocking(False)
            port = sock.getsockname()[1]
            listeners.append((sock, _address(sock)))
        on_failure.pop_all()
    return listeners


def _address(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        name = sock.getsockname()
        return f"unix:@{name[1:].decode('utf-8', 'replace')}" if isinstance(name, bytes) else f"unix:{name}"
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)


# --- run folder, groups, processes ----------------------------------------------------------------------------------

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


def _listen_console(folder: RunFolder) -> socket.socket:
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
        return _listen_console(self._run_folder())

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


# --- temporary files ------------------------------------------------------------------------------------------------


class RealSpoolFile:
    """A temporary file.

    The lock is for a thread whose task did not wait for its end (asyncio cancels whatever is awaited): without it a `close`
    lets the thread write into whatever file or socket gets the descriptor's number next, or make a file that nobody closes.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder or None
        self._lock = threading.Lock()
        self._file: io.FileIO | None = None
        self._closed = False

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        with self._lock:
            return os.pwrite(self._descriptor(), data, offset)

    def pread(self, size: int, offset: int) -> bytes:
        with self._lock:
            return os.pread(self._descriptor(), size, offset)

    def _descriptor(self) -> int:
        if self._closed:
            raise OSError(errno.EBADF, "the temporary file is closed")
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115
        return self._file.fileno()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()


# --- the rest -------------------------------------------------------------------------------------------------------


class RealClock:
    """`time.monotonic` is one clock for all processes of a Linux host; an event loop's own is not (trio adds an offset)."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class RealChance:
    """The system's randomness."""

    bits = random.SystemRandom().getrandbits


class RealHost:
    """The operating system. Made inside the event loop that is to use it; `close` it last."""

    def __init__(self, inherited: Mapping[str, Sequence[int]] = MappingProxyType({})) -> None:
        self._limiter = anyio.CapacityLimiter(8)
        self.net = RealNet(inherited)
        self.processes = RealProcesses(self.net, self.run_blocking)
        self.clock = RealClock()
        self.chance = RealChance()

    def spool_file(self, folder: str) -> SpoolFile:
        return RealSpoolFile(folder)

    async def run_blocking(self, function: Callable[..., T], *args: Any) -> T:
        return await anyio.to_thread.run_sync(function, *args, limiter=self._limiter)

    def close(self) -> None:
        """Remove what was made in the file system, and wait for nothing any more."""
        self.processes.close()
        self.net.close()
