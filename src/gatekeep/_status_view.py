"""The state of a gateway as text for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gatekeep._console_view import duration, printable
from gatekeep._status import GatewayStatus, GroupStatus, ProcessStatus


def render(status: GatewayStatus) -> str:
    """All of it, with a line's end."""
    return "\n".join(map(printable, _lines(status))) + "\n"


def _lines(status: GatewayStatus) -> Iterator[str]:
    loop = f", on {status.loop}" if status.loop else ""
    yield f"gatekeep {status.version}, gateway {status.pid}: {status.state}, up {duration(status.uptime)}{loop}"
    for address in status.addresses:
        yield f"  {address}"
    yield f"  requests in flight {status.in_flight}, clients {status.connections}"
    if status.outcomes:
        yield f"  ended: {_counts(status.outcomes)}"
    if status.timers:
        yield f"  timers: {_counts(status.timers)}"
    for group in status.groups:
        yield from _group(group)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _group(group: GroupStatus) -> Iterator[str]:
    where = (
        f"{len(group.processes)} of {group.wanted} processes"
        if group.wanted
        else "in the gateway's own process"
    )
    yield f"group {group.name}: {group.state}, {where}"
    if group.failure:
        yield f"  the last start failed: {group.failure}"
    if group.next_start:
        yield f"  the next one comes in {duration(group.next_start)}"
    if group.waiting or group.standing:
        yield (
            f"  {group.standing} requests stand in the backlog, {group.waiting} wait for a place there, "
            f"the oldest for {duration(group.oldest)}"
        )
    rows = [["pid", "seat", "state", "up", "running", "memory", ""], *map(_cells, group.processes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if group.processes:
        for row in rows:
            yield (
                "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            )


def _cells(process: ProcessStatus) -> list[str]:
    return [
        str(process.pid),
        str(process.seat),
        process.state,
        duration(process.uptime),
        f"{process.running} of {process.threads}",
        f"{process.memory / 1e6:.0f} MB" if process.memory else "",
        f"because of {process.trigger}" if process.trigger else "",
    ]
