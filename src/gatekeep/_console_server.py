"""The control socket of a running gateway: takes connections and answers requests. `_console` knows what they mean."""

from __future__ import annotations

import anyio

from gatekeep import _console
from gatekeep._channel import Channel
from gatekeep._console import CommandError, Commands, Lines
from gatekeep._events import Logger
from gatekeep._host import Listener, Net, Peer
from gatekeep.transport._accept import Door, Room

MOST_CLIENTS = 8
"""Connections at once; more wait in the backlog."""

PATIENCE = 5.0
"""Seconds for a request's line to come, and for a client to take some of its answer."""


class Console:
    """Serves the control socket. The listener stays its owner's."""

    def __init__(self, net: Net, listener: Listener, commands: Commands, log: Logger) -> None:
        self._net = net
        self._listener = listener
        self._commands = commands
        self._log = log

    async def run(self) -> None:
        """Answer until cancelled."""
        async with anyio.create_task_group() as clients:
            room = Room(MOST_CLIENTS, lambda: None)
            await Door(self._net, self._listener, room, self._serve, clients, self._log).serve()

    async def _serve(self, peer: Peer) -> None:
        channel = Channel(self._net, peer.socket, send_timeout=PATIENCE)
        try:
            try:
                await self._converse(channel)
            except CommandError as error:
                await channel.send(_console.refusal(str(error)))
        except OSError:
            pass  # it has left, or takes nothing
        finally:
            channel.close()

    async def _converse(self, channel: Channel) -> None:
        lines = Lines()
        while (line := await _next_line(channel, lines)) is not None:
            await channel.send(await _console.answer(line, self._commands, self._report_fault))

    def _report_fault(self, command: str, error: Exception) -> None:
        self._log.error("console.fault", command=command, reason=repr(error))


async def _next_line(channel: Channel, lines: Lines) -> bytes | None:
    """The next request; None at the client's end."""
    with anyio.move_on_after(PATIENCE):
        while (line := lines.next_line()) is None:
            data = await channel.receive()
            if not data:
                return lines.rest() or None
            lines.feed(data)
        return line
    raise CommandError(f"no request came within {PATIENCE:g} s")
