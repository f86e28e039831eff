"""A request's way, stage by stage: what bounds each, and what its client gets then. Pure.

The statuses are those of the errors themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

from gatekeep import _errors
from gatekeep._explain._derived import fire_value, response_socket_value, socket_value
from gatekeep._explain._model import Limit, StagePlan, Value
from gatekeep._explain._words import limit_of, value_of
from gatekeep._stages import Stage
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._http import HttpSettings
from gatekeep.settings._settings import Settings


def front_stages(settings: Settings) -> tuple[StagePlan, ...]:
    """Until a group is chosen."""
    return (
        StagePlan(Stage.ACCEPT, tuple(_accept(settings))),
        StagePlan(Stage.PARSE, tuple(_parse(settings.http))),
        StagePlan(Stage.ROUTE, tuple(_route(settings))),
    )


def group_stages(group: GroupSettings, settings: Settings) -> tuple[StagePlan, ...]:
    """From then on. An embedded group has no hop, and nothing that bounds what the application does."""
    if not group.processes:
        return (
            StagePlan(Stage.BODY, tuple(_body(group, settings.http))),
            StagePlan(Stage.RESPOND, tuple(_to_client(settings))),
        )
    return (
        StagePlan(Stage.BODY, tuple(_body(group, settings.http))),
        StagePlan(Stage.ADMIT, tuple(_admit(group))),
        StagePlan(Stage.CONNECT, tuple(_connect(group))),
        StagePlan(Stage.QUEUE, tuple(_queue(group))),
        StagePlan(Stage.PICKUP, tuple(_pickup(group))),
        StagePlan(Stage.RUN, tuple(_run(group))),
        StagePlan(Stage.RESPOND, (*_from_worker(group), *_to_client(settings))),
    )


def _accept(settings: Settings) -> Iterator[Limit]:
    yield Limit(
        bound=value_of(settings.http, "max_connections"),
        then="then idle ones are closed, or new ones wait",
    )
    yield Limit(bound=value_of(settings, "backlog"), then="so many may wait, in the kernel")


def _parse(http: HttpSettings) -> Iterator[Limit]:
    status = _errors.HeadExpired.status
    begin = "from connecting, or a later head's first byte"
    yield Limit(
        bound=limit_of(http, "header_timeout"),
        since=f"{begin}; {_given_back(http.header_min_rate)}",
        status=status,
        then="closed",
    )
    yield Limit(
        bound=limit_of(http, "header_max_timeout"),
        since="the same, whatever comes",
        status=status,
        then="closed",
    )
    for name, refusal in (
        ("limit_request_line", 414),
        ("limit_request_field_size", 431),
        ("limit_request_fields", 431),
        ("limit_request_head", 431),
    ):
        yield Limit(bound=value_of(http, name), status=refusal, then="closed")
    yield Limit(
        bound=value_of(http, "keep_alive_timeout"),
        since="without a next request",
        then="closed",
    )


def _given_back(rate: int) -> str:
    return f"{rate} bytes give a second back" if rate else "nothing gives any back"


def _route(settings: Settings) -> Iterator[Limit]:
    yield Limit(
        bound=Value("mounts", len(settings.mount_table)),
        status=_errors.NotMounted.status if _leaves_gaps(settings) else 0,
        then="for what none of them fits" if _leaves_gaps(settings) else "one of them fits every path",
    )
    for name in ("livez_path", "readyz_path"):
        if path := getattr(settings.http, name):
            yield Limit(bound=Value(name.replace("_", "-"), path), then="answered here, 200 or 503")


def _leaves_gaps(settings: Settings) -> bool:
    return not any(not mount.host and not mount.path for mount in settings.mount_table)


def _body(group: GroupSettings, http: HttpSettings) -> Iterator[Limit]:
    held = "no worker held" if group.request_buffering else "a worker held"
    status = _errors.BodyExpired.status
    yield Limit(
        bound=limit_of(http, "body_timeout"),
        since=f"while it is awaited; {_given_back(http.body_min_rate)}",
        status=status,
        then=held,
    )
    yield Limit(
        bound=limit_of(http, "body_max_timeout"),
        since="while it is awaited, in all",
        status=status,
        then=held,
    )
    yield Limit(bound=limit_of(http, "limit_request_body"), status=413, then="closed")


def _admit(group: GroupSettings) -> Iterator[Limit]:
    yield Limit(
        bound=value_of(group, "max_waiting"),
        status=_errors.Overloaded.status,
        then="at once, where so many wait already",
    )


def _connect(group: GroupSettings) -> Iterator[Limit]:
    yield Limit(
        bound=value_of(group, "listen_backlog"),
        then="places in the kernel; others wait for one",
    )
    yield Limit(
        bound=value_of(group, "connect_timeout"),
        since="from its first try",
        status=_errors.ConnectExpired.status,
        then="it has not run",
    )


def _queue(group: GroupSettings) -> Iterator[Limit]:
    if group.queue_shed == "deadline":
        yield Limit(
            bound=limit_of(group, "queue_timeout"),
            since="from its first place there",
            status=_errors.QueueOverdue.status,
            then="it has not run",
        )
    yield Limit(
        bound=value_of(group, "client_gone_delay"),
        since="after its client's end",
        then="dropped unrun",
    )
    yield Limit(
        bound=Value("attempts", 2 * group.processes + 1, "", "2 * processes + 1"),
        status=_errors.NeverClaimed.status,
        then="so many processes ended before they began it",
    )


def _pickup(group: GroupSettings) -> Iterator[Limit]:
    yield Limit(
        bound=limit_of(group, "queue_timeout"),
        since="from its first place there"
        + ("" if group.queue_shed == "deadline" else ", not before a worker is free"),
        status=_errors.QueueExpired.status,
        then="discarded unrun",
    )
    if group.script_reloading == "strict":
        yield Limit(
            bound=value_of(group, "script_reloading"),
            then="its file has changed: offered to a new process",
        )


def _run(group: GroupSettings) -> Iterator[Limit]:
    yield Limit(
        bound=socket_value(group),
        since="without a byte from its worker",
        status=_errors.HopExpired.status,
        then="it runs on, and keeps its thread",
    )
    fire = fire_value(group)
    raised = "RequestTimeout is raised inside it"
    given_up = "its process is given up and replaced"
    yield Limit(
        bound=Value("request-timeout", fire.value, "seconds", fire.derived),
        since="of the application's own time",
        status=_errors.Interrupted.status,
        then=raised if group.interrupt_timeout else given_up,
    )
    if group.interrupt_timeout and fire.value is not None:
        yield Limit(
            bound=value_of(group, "interrupt_timeout"),
            since="from then",
            status=_errors.Interrupted.status,
            then=given_up,
        )
    yield Limit(
        bound=limit_of(group, "deadlock_timeout"),
        since="without a sign of life from its process",
        status=_errors.ProcessLost.status,
        then="that is replaced",
    )
    if group.cancel_on_disconnect:
        yield Limit(
            bound=value_of(group, "cancel_on_disconnect"),
            since="after a reset by its client",
            then="ClientDisconnected is raised inside it",
        )


def _from_worker(group: GroupSettings) -> Iterator[Limit]:
    socket = socket_value(group)
    yield Limit(
        bound=Value(
            socket.setting, socket.value, socket.unit
        ),  # how it was derived stands at the stage before
        since="without a byte from its worker",
        then="cut, visibly; T_fire runs on",
    )


def _to_client(settings: Settings) -> Iterator[Limit]:
    yield Limit(
        bound=response_socket_value(settings),
        since="without a byte read by its client",
        then="cut",
    )
    yield Limit(
        bound=value_of(settings.http, "response_spool_size"),
        then="more than that unread: its worker waits, too",
    )
