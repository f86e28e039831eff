"""A gateway that is replaced by another one: new code and settings, the same listening sockets, and no request lost.

The old gateway starts the new one with its listening sockets. Both accept until the new one is ready; then the old one finishes
what it has, as at every stop, and the connections that wait in the kernel are the new one's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

import anyio
import anyio.to_thread
import attrs
import msgspec

from gatekeep._errors import SettingsError
from gatekeep._events import Logger
from gatekeep._gateway import Served
from gatekeep._host_processes import describe_status
from gatekeep._keeper import say_replaced

VARIABLE = "GATEKEEP_HANDOVER"

READY = b"\1"
"""What the new gateway says when it is ready; one that fails says nothing."""

SITTERS = ("tini", "docker-init", "dumb-init", "catatonit", "supervisord", "runsv", "s6-supervise")
"""Programs that end, or start the service again, when the process that they started ends (the first: `docker run --init`)."""

Listeners = Mapping[str, Sequence[int]]
"""Descriptors of listening sockets, by the address that they were opened for."""


class Handover(msgspec.Struct):
    """What the new gateway is told.

    Attributes:
        listeners: the sockets that it inherits.
        ready: the descriptor on which it says that it is ready.
        keeper: the descriptor on which the container's first process hears who replaces it; None outside of containers.
        failing: the groups that the old gateway has no process for: the new one may begin without them, too.
    """

    listeners: dict[str, list[int]]
    ready: int
    keeper: int | None = None
    failing: list[str] = []

    def say_ready(self) -> None:
        """The old gateway may go."""
        try:
            os.write(self.ready, READY)
            os.close(self.ready)
        except OSError:
            pass  # it has gone already


def received() -> Handover | None:
    """What this gateway was told by the one that it replaces, once; None where it replaces none.

    Raises:
        SettingsError: the environment variable holds something else.
    """
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    try:
        handover = msgspec.json.decode(text, type=Handover)
        for fd in _descriptors(handover):
            os.set_inheritable(fd, False)  # not for daemon processes
    except (msgspec.MsgspecError, OSError, OverflowError) as error:
        raise SettingsError(
            f"${VARIABLE} is set, and not by a gateway that is being replaced: {error}"
        ) from None
    return handover


def _descriptors(handover: Handover) -> list[int]:
    listeners = [fd for fds in handover.listeners.values() for fd in fds]
    return [*listeners, handover.ready, *([] if handover.keeper is None else [handover.keeper])]


@attrs.frozen
class Origin:
    """How a gateway was started, so that it can be started again.

    Attributes:
        command, folder, environment: as for `subprocess.Popen`.
    """

    command: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]

    @classmethod
    def here(cls) -> Origin:
        """This process's. Ask before the folder is changed, or a variable is taken out."""
        environment = dict(os.environ)
        if environment.get("WATCHDOG_PID") == str(os.getpid()):
            del environment["WATCHDOG_PID"]  # what systemd wants of us, it will want of another process then
        return cls((sys.executable, *sys.orig_argv[1:]), os.getcwd(), environment)


def why_not(environment: Mapping[str, str], parent: int, parents_name: str) -> str:
    """Why a gateway cannot be replaced by a child of its own; empty where it can."""
    if "INVOCATION_ID" in environment and parent == 1 and "NOTIFY_SOCKET" not in environment:
        return "systemd would take this process's end for the service's; the unit needs Type=notify"
    if parents_name in SITTERS:
        return f"{parents_name}, its parent, would take this process's end for the service's"
    return ""


def _name_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


class Successor:
    """The gateway that replaces this one, if one does.

    Args:
        keeper: as in `Handover`.
        has_taken_over: called with its pid when it is ready, before this gateway goes.

    Attributes:
        tried: the pid of the one that was started last; 0 where none was.
    """

    def __init__(
        self, origin: Origin, log: Logger, keeper: int | None, has_taken_over: Callable[[int], None]
    ) -> None:
        self._origin = origin
        self._keeper = keeper
        self._log = log
        self._has_taken_over = has_taken_over
        self._asked = anyio.Event()
        self.tried = 0

    def ask(self) -> None:
        """Replace this gateway, or go on with trying to."""
        self._asked.set()

    async def take_over(self, served: Served) -> None:
        """Wait until this is asked for, and done."""
        while True:
            await self._asked.wait()
            parent = os.getppid()
            if reason := why_not(self._origin.environment, parent, _name_of(parent)):
                self._log.error("gateway.replace_refused", reason=reason)
            elif await self._try(served):
                return
            self._asked = anyio.Event()

    async def _try(self, served: Served) -> bool:
        reader, writer = os.pipe()
        try:
            process = await anyio.to_thread.run_sync(
                self._start, served.listeners(), writer, served.failing_groups()
            )
        except OSError as error:
            self._log.error("gateway.replace_failed", reason=str(error))
            os.close(reader)
            return False
        finally:
            os.close(writer)
        try:
            self._log.info("gateway.successor_started", successor=process.pid)
            await anyio.wait_readable(reader)
            is_ready = os.read(reader, 1) == READY
        except BaseException:
            process.terminate()  # we are to stop, and so is it
            raise
        finally:
            os.close(reader)
        if is_ready:
            served.hand_over()
            if self._keeper is not None:
                say_replaced(self._keeper, process.pid)
            self._has_taken_over(process.pid)
            self._log.info("gateway.replaced", successor=process.pid)
        else:
            status = await anyio.to_thread.run_sync(process.wait)
            reason = f"the new gateway ended with {describe_status(status)}; this one goes on"
            self._log.error("gateway.replace_failed", successor=process.pid, reason=reason)
        return is_ready

    def _start(self, listeners: Listeners, ready: int, failing: list[str]) -> subprocess.Popen[bytes]:
        listening = {name: list(each) for name, each in listeners.items()}
        handover = Handover(listening, ready, self._keeper, failing)
        process = subprocess.Popen(
            self._origin.command,
            cwd=self._origin.folder,
            env={**self._origin.environment, VARIABLE: msgspec.json.encode(handover).decode()},
            pass_fds=_descriptors(handover),
        )
        self.tried = process.pid
        return process
