"""One non-blocking connection: try first, wait only when the kernel says so.

anyio's streams cost 115 µs more a request, so the front speaks to sockets itself. Used for clients, hops and control sockets.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint

from gatekeep._alarms import Alarm
from gatekeep._host import MSG_PEEK, SHUT_RD, SHUT_WR, Ended, Socket, SocketNet

READ_SIZE = 65536

# An attempt that succeeds never yields to the event loop by itself: 6 GB were once moved without one task switch, past a
# deadline of 0.2 s. So after this many bytes without a wait there is a checkpoint; a small operation counts like 4 KiB.
CHECKPOINT_BYTES = 1 << 20
OPERATION_COST = 4096


class WaitExpired(TimeoutError):
    """A wait took too long: the alarm rang, or a send's time was over. (A plain TimeoutError is TCP's own.)"""


class Channel:
    """Reads and writes one socket.

    Every method may raise `OSError` as the socket does. A send that was cancelled or timed out has condemned the connection:
    nobody knows how much of it went out.

    Args:
        alarm: bounds the waits of `receive`: when it rings they raise `WaitExpired`. One alarm serves one channel at a time.
        send_timeout: how long a send may wait until some of it goes out, in seconds; then it raises `WaitExpired`.
    """

    __slots__ = (
        "_alarm",
        "_credit",
        "_interrupted",
        "_maybe_more",
        "_net",
        "_send_timeout",
        "_waiter",
        "socket",
    )

    def __init__(
        self, net: SocketNet, socket: Socket, alarm: Alarm | None = None, send_timeout: float = math.inf
    ) -> None:
        self.socket = socket
        self._net = net
        self._waiter = net.waiter(socket)
        self._alarm = alarm
        if alarm is not None:
            alarm.ring = self._waiter.interrupt
        self._send_timeout = send_timeout
        self._credit = CHECKPOINT_BYTES
        self._maybe_more = False
        self._interrupted = False

    @property
    def ended(self) -> Ended:
        """How far the peer has ended the connection, as far as that is known without a read."""
        return self._waiter.ended

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call back whenever the peer ends its connection further, whoever waits for what."""
        self._waiter.on_end = callback

    async def receive(self, size: int = READ_SIZE) -> bytes:
        """What is there, or what comes next; empty at the end of the stream."""
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            self._maybe_more = False
            return b"" if self._take_interrupt() else await self.receive_next(size)
        self._maybe_more = len(data) == size
        self._interrupted = False
        self._credit -= len(data) + OPERATION_COST
        if self._credit < 0:
            await self._yield()
        return data

    async def receive_next(self, size: int = READ_SIZE) -> bytes:
        """Like `receive`, where it is likely that nothing has come yet: waits first."""
        if self._maybe_more or self._interrupted:
            return await self.receive(size)
        while True:
            if self._alarm is not None and self._alarm.rang:
                raise WaitExpired("nothing came in time")
            self._credit = CHECKPOINT_BYTES
            await self._waiter.wait_readable()
            try:
                data = self.socket.recv(size)
            except BlockingIOError:
                if self._take_interrupt():
                    return b""
            else:
                self._maybe_more = len(data) == size
                self._interrupted = False
                return data

    def _take_interrupt(self) -> bool:
        taken, self._interrupted = self._interrupted, False
        return taken

    def interrupt(self) -> None:
        """Let the pending receive, or the next one, return empty instead of waiting. What is there already still comes first."""
        self._interrupted = True
        self._waiter.interrupt()

    async def send(self, data: bytes | memoryview) -> None:
        """All of it."""
        rest = self.send_nowait(data)
        if rest:
            await self.send_rest(rest)
        elif self._credit < 0:
            await self._yield()

    def send_nowait(self, data: bytes | memoryview) -> memoryview | None:
        """As much as goes at once: what is left of it, or None. `send_rest` must be called with what is left.

        Where most sends go through at once this saves a coroutine for each; it does not look after the checkpoints.
        """
        size = len(data)
        self._credit -= size + OPERATION_COST
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        return None if sent == size else memoryview(data)[sent:]

    def send_parts_nowait(self, parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
        """As much of them as goes at once, in one write where they are small; what is left."""
        if len(parts) > 1 and sum(map(len, parts)) <= READ_SIZE:
            rest = self.send_nowait(b"".join(parts))
            return [rest] if rest else []
        for index, part in enumerate(parts):
            rest = self.send_nowait(part)
            if rest:
                return [rest, *parts[index + 1 :]]
        return []

    async def send_rest(self, rest: memoryview) -> None:
        """What `send_nowait` has left."""
        while rest:
            self._credit = CHECKPOINT_BYTES
            with anyio.move_on_after(self._send_timeout) as patience:
                await self._waiter.wait_writable()
            # The kernel calls a socket writable only when much of its buffer is free: a slow reader may have taken something.
            left = self.send_nowait(rest)
            if left is None:
                return
            if patience.cancelled_caught and len(left) == len(rest):
                raise WaitExpired(f"nothing was taken for {self._send_timeout:g} s")
            rest = left

    async def _yield(self) -> None:
        self._credit = CHECKPOINT_BYTES
        await checkpoint()

    def is_unread(self) -> bool:
        """Whether the peer (of a UNIX socket) has not read all that was sent."""
        return self._net.unread(self.socket) > 0

    def has_data(self) -> bool:
        """Whether bytes are there that nobody has read, looked at without waiting. An end is none."""
        try:
            return bool(self.socket.recv(1, MSG_PEEK))
        except OSError:
            return False

    def stop_reading(self) -> None:
        """Make a pending and every later `receive` return what is queued and then the end; the peer's sends fail (UNIX)."""
        self._shutdown(SHUT_RD)

    def stop_writing(self) -> None:
        """Tell the peer that no more comes."""
        self._shutdown(SHUT_WR)

    def _shutdown(self, how: int) -> None:
        try:
            self.socket.shutdown(how)
        except OSError:
            pass  # it has ended already, which is what was wanted

    def forget(self) -> None:
        """Wait for the socket no more, and leave it open. Nobody may be waiting."""
        self._waiter.close()

    def close(self) -> None:
        """Close it in order. Nobody may be waiting."""
        self._waiter.close()
        self.socket.close()

    def abort(self) -> None:
        """Close it with a reset, so that the peer cannot take what it has for the whole."""
        self._waiter.close()
        self._net.abort(self.socket)
