"""What the control socket of a gateway understands, and does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gatekeep._console import Command, CommandError, Commands, NoArguments
from gatekeep._events import Logger
from gatekeep._groups import ServedGroup
from gatekeep._status import STOPPING, GatewayStatus


class Drain(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of `drain`."""

    pid: int


class Stop(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of `stop`. `now`: wait for nothing."""

    now: bool = False


def commands_of(
    groups: Sequence[ServedGroup],
    status: Callable[[], GatewayStatus],
    stop: Callable[[bool], bool],
    log: Logger,
) -> Commands:
    """The table of commands.

    Args:
        stop: asks the program around the gateway to stop, true means at once; tells whether anybody there listens.
    """

    def expect_no_stop() -> None:
        if status().state == STOPPING:
            raise CommandError("it is stopping")

    async def tell_stacks(_: NoArguments) -> dict[str, Any]:
        return {"processes": [each for served in groups for each in await served.supervisor.reports.stacks()]}

    async def tell_status(_: NoArguments) -> dict[str, Any]:
        return {"status": status()}

    async def reload(_: NoArguments) -> dict[str, Any]:
        log.info("command.received", command="reload")
        expect_no_stop()
        return {"processes": sum(served.supervisor.reload() for served in groups)}

    async def drain(arguments: Drain) -> dict[str, Any]:
        log.info("command.received", command="drain", pid=arguments.pid)
        expect_no_stop()
        if not any(served.supervisor.evict(arguments.pid) for served in groups):
            raise CommandError(f"there is no process {arguments.pid}, or it is going already")
        return {}

    async def end(arguments: Stop) -> dict[str, Any]:
        log.info("command.received", command="stop now" if arguments.now else "stop")
        return {"heard": stop(arguments.now)}

    return {
        "stacks": Command(NoArguments, tell_stacks),
        "status": Command(NoArguments, tell_status),
        "reload": Command(NoArguments, reload),
        "drain": Command(Drain, drain),
        "stop": Command(Stop, end),
    }
