"""The daemon's end of the control socket: the gateway's word, signals, and what the process tells of itself."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from gatekeep._frames import Decoder
from gatekeep.lifecycle import _control
from gatekeep.lifecycle._control import DaemonSettings, Kind, Stacks, Why
from gatekeep.lifecycle._drain import Order
from gatekeep.pool._hop import LONGEST_POLL


class Control:
    """The daemon's end of the control socket, blocking.

    Attributes:
        why: what came with the first order; until one comes, only the gateway's own end can be the reason.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.load_time = 0.0
        self.why = Why("gateway-gone", "the gateway is gone")
        self._is_ordered = False
        self._decoder = Decoder()
        self._sending = threading.Lock()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)
        self._poll.register(self._wake_reader, select.POLLIN)
        self.stacks: Callable[[], Stacks] = lambda: Stacks([])

    def receive_settings(self) -> DaemonSettings:
        """The gateway's first message."""
        while (item := self._decoder.next_frame()) is None:
            data = self.socket.recv(65536)
            if not data:
                os._exit(0)  # the gateway was gone before it said anything
            self._decoder.feed(data)
        return _control.decode_settings(item[1])

    def send(self, message: Any) -> None:
        """Tell the gateway something; if it is gone, the next read will say so."""
        try:
            with self._sending:
                self.socket.sendall(_control.encode(message))
        except OSError:
            pass

    def beat(self) -> None:
        """A sign of life. Waits for nothing: where the gateway does not read, it was stopped, and knows that when it goes on."""
        if self._sending.acquire(blocking=False):
            try:
                self.socket.send(_control.BEAT, socket.MSG_DONTWAIT)
            except OSError:
                pass
            finally:
                self._sending.release()

    def signalled(self, number: int) -> None:
        """A signal has come (called by its handler)."""
        try:
            os.write(self._wake_writer, bytes((number,)))
        except BlockingIOError:
            pass

    def wait(self, timeout: float | None = None) -> Iterator[Order | int]:
        """What has come: the gateway's orders (its own end is one), and the numbers of signals.

        Args:
            timeout: seconds to wait for it, 24 days at most; None for ever.
        """
        pause = None if timeout is None else min(max(0.0, timeout) * 1000, LONGEST_POLL)
        for fd, _ in self._poll.poll(pause):
            if fd == self._wake_reader:
                yield from os.read(fd, 64)
            else:
                yield from self._orders()

    def _orders(self) -> Iterator[Order]:
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._poll.unregister(self.socket)
            yield Order.STOP  # the gateway is gone
        self._decoder.feed(data)
        for kind, payload in self._decoder.frames():
            if kind == Kind.ASK:
                self._answer()
            elif kind in _control.ORDERS:
                if not self._is_ordered:
                    self._is_ordered, self.why = True, _control.decode_why(payload)
                yield _control.ORDERS[kind]

    def _answer(self) -> None:
        try:
            self.send(self.stacks())
        except Exception:
            # Whatever is odd about the application's threads: the gateway gets no answer, and asks by a signal.
            traceback.print_exc()


class Guard:
    """A thread that watches nothing but the end of the control socket: no orphan survives its gateway.

    While the application loads nobody else would notice (a daemon that hung in its import outlived a gateway that was killed).
    Later the main thread notices too and ends in order; the guard sees to it that this has an end.
    """

    def __init__(self, control: socket.socket, grace: float) -> None:
        self._control = control
        self._grace = 0.0
        self._later = grace
        threading.Thread(target=self._watch, name="gatekeep-guard", daemon=True).start()

    def loaded(self) -> None:
        """From now on the main thread ends the process in order and gets the time for it."""
        self._grace = self._later

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._control, 0)  # an end is reported without being asked for
        poll.poll()
        time.sleep(self._grace)
        os._exit(1)
