"""What gateway and daemon say to each other over the control socket. Pure: the messages and their frames.

    gateway → daemon   SETTINGS (first)   HOPE   FINISH   STOP   ASK
    daemon → gateway   READY   FAILED   BEAT   STACKS (the answer to ASK)   WISH

HOPE, FINISH and STOP are the orders of a drain (see `_drain.Order`): each may follow those before it, and says why. A WISH is a
reason for a drain that the daemon has found itself; whether and when there is one decides the gateway.

An end of stream at the daemon means that the gateway is gone; at the gateway it means nothing: the process's end comes from
the system.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from gatekeep._deadlines import fire_after
from gatekeep._frames import frame
from gatekeep._process_options import display_name
from gatekeep.lifecycle._drain import Order
from gatekeep.lifecycle._slots import rows_for
from gatekeep.settings._app import AppTarget
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._spec import never_if_zero


class Kind(IntEnum):
    """The kinds of frames."""

    SETTINGS = 1
    STOP = 2
    ASK = 3
    HOPE = 4
    FINISH = 5
    READY = 16
    FAILED = 17
    BEAT = 18
    STACKS = 19
    WISH = 20


class App(msgspec.Struct, array_like=True):
    """An application: see `gatekeep.settings._app.AppTarget`. `name` is what requests ask for it by."""

    name: str
    module: str
    path: str
    attribute: str
    factory: bool


class DaemonSettings(msgspec.Struct, array_like=True):
    """What a daemon process must know; argv carries only descriptors.

    Attributes:
        group: the group's name.
        row, rows: its row on the scoreboard, and how many there are.
        processes, threads: the group's size.
        apps: the applications, the group's own first.
        folders: folders that come first on the module path, in order.
        module_path: the gateway's own module path, which comes after them.
        shutdown_timeout: seconds after which an orphan, whose gateway is gone, ends whatever it does.
        queue_timeout: seconds that a request may have waited when a worker picks it up; inf for ever.
        socket_timeout: seconds that one read or write on a hop may wait; inf for ever.
        fire: seconds after which a request is interrupted, `math.inf` for never.
        interrupt_timeout: seconds that its end may take then.
        interrupt_sockets: whether the socket that its thread is blocked in may be shut.
        cancel_on_disconnect: whether requests are interrupted whose clients have gone.
        beats: whether it gives signs of life.
        maximum_requests: after so many it wishes to be replaced; 0 for never.
        inactivity_timeout: seconds without a request after which it wishes to end; inf for never.
        script_reloading: "off", "on" or "strict".
        tells_folders: whether READY shall say where modules were loaded from.
        debug: whether events at debug are wanted.
        home: the folder to run in; empty for the one that it was started in.
        display_name: what tools such as `ps` shall show; empty for the command line.
        virtual_memory_limit: bytes of address space that it may have, 0 for no limit of ours.
        stack_size: bytes of a worker thread's stack, 0 for the system's.
        import_scripts: modules and scripts' paths that are imported before the application.
    """

    group: str
    row: int
    rows: int
    processes: int
    threads: int
    apps: list[App]
    folders: list[str]
    module_path: list[str]
    shutdown_timeout: float
    queue_timeout: float
    socket_timeout: float
    fire: float
    interrupt_timeout: float
    interrupt_sockets: bool
    cancel_on_disconnect: bool
    beats: bool
    maximum_requests: int
    inactivity_timeout: float
    script_reloading: str
    tells_folders: bool
    debug: bool
    home: str
    display_name: str
    virtual_memory_limit: int
    stack_size: int
    import_scripts: list[str]


def settings_for(
    group: GroupSettings,
    *,
    row: int,
    apps: list[AppTarget],
    folders: list[str],
    module_path: list[str],
    maximum_requests: int,
    tells_folders: bool,
    debug: bool,
) -> DaemonSettings:
    """A group's settings, as the process with that row is told them."""
    return DaemonSettings(
        group=group.name,
        row=row,
        rows=rows_for(group.processes),
        processes=group.processes,
        threads=group.threads,
        apps=[App(str(app), app.module, app.path, app.attribute, app.factory) for app in apps],
        folders=folders,
        module_path=module_path,
        shutdown_timeout=group.shutdown_timeout,
        queue_timeout=never_if_zero(group.queue_timeout),
        socket_timeout=group.socket_timeout_or_default,
        fire=fire_after(group.request_timeout, group.threads),
        interrupt_timeout=group.interrupt_timeout,
        interrupt_sockets=group.interrupt_sockets,
        cancel_on_disconnect=group.cancel_on_disconnect,
        beats=group.deadlock_timeout > 0,
        maximum_requests=maximum_requests,
        inactivity_timeout=never_if_zero(group.inactivity_timeout),
        script_reloading=group.script_reloading,
        tells_folders=tells_folders,
        debug=debug,
        home=group.home,
        display_name=display_name(group.display_name, group.name),
        virtual_memory_limit=group.virtual_memory_limit,
        stack_size=group.stack_size,
        import_scripts=list(group.import_scripts),
    )


class Ready(msgspec.Struct, array_like=True):
    """The application is loaded and the workers accept requests.

    Attributes:
        load_time: seconds that the load took.
        folders: where modules were loaded from that are not installed, if that was asked.
    """

    load_time: float
    folders: list[str] = []


class Why(msgspec.Struct, array_like=True, frozen=True):
    """Why a process must end: goes with every order. Of several the process believes the first.

    Attributes:
        trigger: its name in `_triggers.TRIGGERS`, or "stop".
        reason: a sentence.
    """

    trigger: str
    reason: str


GATEWAY_STOPS = Why("stop", "the gateway stops")


class Wish(msgspec.Struct, array_like=True):
    """Something asks for this process's end.

    Attributes:
        trigger: its name in `_triggers.TRIGGERS`.
        reason: a sentence for the log.
    """

    trigger: str
    reason: str


class Failed(msgspec.Struct, array_like=True):
    """The application could not be loaded: one line for people, and the application's own traceback if there is one."""

    reason: str
    traceback: str


class Thread(msgspec.Struct, array_like=True):
    """What one thread does: see `gatekeep._processes.ThreadReport`. `request` is the request's number, 0 for none."""

    name: str
    number: int
    request: int
    method: str
    path: str
    age: float
    stack: str


class Stacks(msgspec.Struct, array_like=True):
    """All threads of the process."""

    threads: list[Thread]


class LogRecord(msgspec.Struct, array_like=True):
    """A record on the log socket: one packet each. `dropped` counts those before it that found the socket full."""

    level: str
    event: str
    fields: dict[str, str | int | float | bool | None]
    dropped: int


_KINDS: dict[type[msgspec.Struct], Kind] = {
    DaemonSettings: Kind.SETTINGS,
    Ready: Kind.READY,
    Failed: Kind.FAILED,
    Stacks: Kind.STACKS,
    Wish: Kind.WISH,
}

_encode = msgspec.msgpack.Encoder().encode
encode_log = _encode
decode_settings = msgspec.msgpack.Decoder(DaemonSettings).decode
decode_ready = msgspec.msgpack.Decoder(Ready).decode
decode_failed = msgspec.msgpack.Decoder(Failed).decode
decode_stacks = msgspec.msgpack.Decoder(Stacks).decode
decode_wish = msgspec.msgpack.Decoder(Wish).decode
decode_why = msgspec.msgpack.Decoder(Why).decode
decode_log = msgspec.msgpack.Decoder(LogRecord).decode

ORDERS = {int(Kind.HOPE): Order.HOPE, int(Kind.FINISH): Order.FINISH, int(Kind.STOP): Order.STOP}
"""The kinds of frames that are orders; the other orders are for nobody but the gateway itself."""

_ORDER_KINDS = {order: kind for kind, order in ORDERS.items()}
ASK = frame(Kind.ASK)
BEAT = frame(Kind.BEAT)

BEAT_INTERVAL = 1.0
"""Seconds between the heartbeats of a process."""


def encode(message: msgspec.Struct) -> bytes:
    """One message as a frame."""
    return frame(_KINDS[type(message)], _encode(message))


def order_frame(order: Order, why: Why) -> bytes:
    """An order as a frame."""
    return frame(_ORDER_KINDS[order], _encode(why))
