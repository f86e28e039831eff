"""Requests whose connections belong to another server, which hands them in one by one (ASGI)."""

from __future__ import annotations

from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import current_token

from gatekeep._errors import RequestFailed, StartsFail, Stopped
from gatekeep._stages import Stage


class Guest(Protocol):
    """One such request."""

    def stop(self) -> None:
        """The grace is over: end it, with an answer if it has none yet. It leaves a moment later."""


class Guests:
    """Those that are here. A stop waits for them as for our own clients' requests.

    Made inside the event loop that is to serve them.
    """

    def __init__(self) -> None:
        self._loop = current_token()
        self._here: dict[Guest, None] = {}
        self._is_open = self._was_open = False
        self._all_gone = anyio.Event()

    def check_loop(self) -> None:
        """Sockets and events belong to one event loop: requests of another one cannot be served.

        Raises:
            RuntimeError: this is another one.
        """
        if current_token() != self._loop:
            raise RuntimeError(
                "this gateway was started in another event loop: as an ASGI application it serves requests of the one that "
                "its lifespan, or serving(), runs in"
            )

    def refusal(self) -> RequestFailed | None:
        """Why a request that comes now is turned away; None where it is welcome."""
        if self._is_open:
            return None
        if self._was_open:
            return Stopped(Stage.ADMIT, started=False)
        return StartsFail("the gateway still starts", pause=RequestFailed.retry_after - 1)

    def open(self, clients: TaskGroup) -> None:
        """Let them in until `stop`; the group lasts until the last has left, and ends them where it is cancelled."""
        self._is_open = self._was_open = True
        clients.start_soon(self._stay)

    async def _stay(self) -> None:
        try:
            await self._all_gone.wait()
        finally:
            self.stop()
            for guest in tuple(self._here):
                guest.stop()
            with anyio.CancelScope(shield=True):
                await self._all_gone.wait()

    def stop(self) -> None:
        """Let no more in."""
        self._is_open = False
        self._look()

    def enter(self, guest: Guest) -> None:
        """One more is here."""
        self._here[guest] = None

    def leave(self, guest: Guest) -> None:
        """It has ended."""
        del self._here[guest]
        self._look()

    def _look(self) -> None:
        if self._was_open and not self._is_open and not self._here:
            self._all_gone.set()
