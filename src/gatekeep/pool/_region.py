"""Where a worker thread may be interrupted: only while the application's own frames run.

An exception that is sent into a thread is raised at whatever it does next. Raised inside our own code it would tear a frame in
two, or be taken for a fault of ours; raised after the request it would hit the next one. So our callables mask the thread while
they change what is theirs (`write`, the response's end, `wsgi.input`), and what was sent and not raised yet is settled at the
border:

* Entering our code with an exception on its way, it is raised there and then, as if the call had not begun.
* Leaving our code, one that was asked for meanwhile is raised.
* At the end of the request it is taken back: the application has finished in spite of it, and its response is served.

The lock makes these decisions one with the sending. Whoever holds it knows that the thread is not inside our code, or that it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gatekeep._errors import ClientDisconnected, RequestInterrupted, RequestTimeout
from gatekeep.lifecycle._watchdog import Fate
from gatekeep.pool._stacks import NOTHING, inject, is_in_chain, set_async_exc

if TYPE_CHECKING:
    from gatekeep.pool._respond import Responder


class _Local(threading.local):
    region: Region | None = None


_this_thread = _Local()


def _landed() -> None:
    """An exception of ours is raised in this thread."""
    region = _this_thread.region
    if region is not None:
        region.landed = True


class Timeout(RequestTimeout):
    """What is sent: it tells that it has come, since Python calls it in the thread that it was sent to."""

    def __init__(self) -> None:
        super().__init__("the request has run longer than request-timeout allows")
        _landed()


class Disconnect(ClientDisconnected):
    """Likewise."""

    def __init__(self) -> None:
        super().__init__("the client has gone")
        _landed()


Kind = type[Timeout] | type[Disconnect]


class Region:
    """One worker thread's. The thread itself calls all but the methods that say otherwise.

    As a context it masks the thread: nobody interrupts what is done inside.

    Attributes:
        request: the number of the request that the application has; 0 for none. Negative while its subscribers are told that
            it is over.
        began: when it got it, or the one before (`time.monotonic`).
        ident, tid: the thread, as Python and as the kernel number it.
        responder: the request's response.
        method, path: what was asked.
        landed: whether the exception that was sent last has been raised.
        given_up: whether the front was told that the request failed, while its thread stays where it is.
    """

    def __init__(self) -> None:
        self.request = 0
        self.ident = self.tid = 0
        self.responder: Responder | None = None
        self.method = self.path = ""
        self.landed = self.given_up = False
        self._lock = threading.Lock()
        self._inside = False
        self.began = 0.0
        self._away = 0.0
        self._left_at = 0.0
        self._sent: Kind | None = None
        self._wanted: Kind | None = None

    def bind(self) -> None:
        """It is this thread's."""
        self.ident, self.tid = threading.get_ident(), threading.get_native_id()
        _this_thread.region = self

    # --- the thread's own way

    def enter(self, request: int, responder: Responder, method: str, path: str) -> None:
        """The application gets the request: it may be interrupted from now on."""
        self.responder, self.method, self.path = responder, method, path
        self.landed = self.given_up = False
        self._away = 0.0
        self._sent = self._wanted = None
        self.began = time.monotonic()
        self.request = request
        self._inside = True

    def leave(self) -> None:
        """The application is done: what was sent and has not come yet is taken back. May be called again.

        Raises:
            RequestInterrupted: it came in this very moment. Call it again: there is no second one.
        """
        if not self.request:
            return
        with self._lock:
            self._inside = False
            self.request = 0
            self.responder = None
            sent, self._sent = self._sent, None
            if sent is not None and not self.landed:
                set_async_exc(self.ident, NOTHING)

    def __enter__(self) -> None:
        self.mask()

    def __exit__(self, *_: object) -> None:
        self.unmask()

    def mask(self) -> None:
        """The application calls us: it cannot be interrupted until `unmask`, and its clock stands still.

        Raises:
            RequestInterrupted: it was interrupted just before.
        """
        if not self.request or _this_thread.region is not self:
            return  # the application is done, or it is a thread of its own: nobody interrupts that
        now = time.monotonic()
        with self._lock:
            sent = self._sent
            if sent is None or self.landed:
                self._inside = False
                self._left_at = now
                return
            set_async_exc(self.ident, NOTHING)
        raise sent

    def unmask(self) -> None:
        """Back to the application.

        Raises:
            RequestInterrupted: it was to be interrupted meanwhile.
        """
        if not self.request or _this_thread.region is not self:
            return
        now = time.monotonic()
        with self._lock:
            self._away += now - self._left_at
            self._inside = self.request != 0
            wanted, self._wanted = self._wanted, None
            if wanted is not None:
                self._sent = wanted
        if wanted is not None:
            raise wanted

    def run(
        self,
        request: int,
        responder: Responder,
        method: str,
        path: str,
        call: Callable[[], BaseException | None],
    ) -> BaseException | None:
        """Call something as the application, from `enter` to `leave`. Returns what it returns, or the interrupt that came."""
        error: BaseException | None
        # An interrupt comes at a call's end or a loop's jump, until `leave` has returned: so all of them stand inside, and there
        # is no loop. Two may come, for the request's time may be over and its client gone; a third one there is not.
        try:
            try:
                self.enter(request, responder, method, path)
                error = call()
                self.leave()
            except RequestInterrupted as interrupted:
                error = interrupted
                self.leave()
        except RequestInterrupted as interrupted:
            error = interrupted
            self.leave()
        return error

    # --- other threads

    def elapsed(self, now: float) -> float:
        """For how many seconds the application has had its request, without waits inside our code."""
        inside, left_at = self._inside, self._left_at
        return (now if inside else left_at) - self.began - self._away

    def interrupt(self, request: int, kind: Kind) -> bool:
        """Send an exception into the thread, if it still has that request."""
        with self._lock:
            if self.request != request:
                return False
            if self._inside:
                self._sent, self.landed = kind, False
                inject(self.ident, kind)
            else:
                self._wanted = kind
            return True

    def fate(self) -> Fate:
        """What became of the exception that was sent last."""
        if self._sent is None or not self.landed:
            return Fate.PENDING
        return Fate.UNWINDING if is_in_chain(self.ident, RequestInterrupted) else Fate.SWALLOWED

    @property
    def is_inside(self) -> bool:
        """Whether the application's frames run, and not our code. It may be over in a moment."""
        return self._inside

    def give_up(self, request: int, reason: str, timer: str) -> bool:
        """Tell the front that the request failed, in place of the thread, which stays where it is.

        While the lock is held the thread cannot enter our code, so no frame is half sent. False when it has another request by
        now, or is inside our code: then it is not stuck.
        """
        with self._lock:
            if self.request != request or not self._inside or self.responder is None:
                return False
            self.responder.give_up(reason, time.monotonic(), timer)
            self.given_up = True
            return True
