"""The first process of a container, once another gateway has taken its place: its end would be the container's, so it stays.

It passes signals on to the gateway that serves, and ends as the last one does. Of all those it has started the first only. So a
pipe is handed from each to the next, and whoever is replaced says there by whom; when it has ended, that one is our child.
"""

from __future__ import annotations

import os

import anyio.to_thread


class Keeper:
    """The gateways that have come after this process, in order."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._said = b""

    def successors(self) -> list[int]:
        """Their pids; the last one serves. Empty while this process does so itself."""
        try:
            self._said += os.read(self._reader, 4096)
        except BlockingIOError:
            pass
        return [int(line) for line in self._said.split()]

    def pass_on(self, number: int) -> bool:
        """Send the gateway that serves a signal. False where that is this process."""
        if not (pids := self.successors()):
            return False
        try:
            os.kill(pids[-1], number)
        except ProcessLookupError:
            pass  # which ends the container anyway
        return True

    async def stay(self) -> int:
        """Wait until all of them have ended. Returns the last one's exit status, as a shell has it; 0 where there was none."""
        status = ended = 0
        while ended < len(pids := self.successors()):
            _, how = await anyio.to_thread.run_sync(os.waitpid, pids[ended], 0)
            status, ended = os.waitstatus_to_exitcode(how), ended + 1
        return status if status >= 0 else 128 - status


def say_replaced(writer: int, successor: int) -> None:
    """Tell the keeper, over the pipe that it made, who serves from now on."""
    try:
        os.write(writer, b"%d\n" % successor)
    except OSError:
        pass  # there is none any more
