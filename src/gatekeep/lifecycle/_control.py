"""What gateway and daemon say to each other over the control socket. Pure: the messages and their frames.

    gateway → daemon   SETTINGS (first)   STOP   ASK
    daemon → gateway   READY   FAILED   BEAT   STACKS (the answer to ASK)

An end of stream at the daemon means that the gateway is gone; at the gateway it means nothing: the process's end comes from
the system.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from gatekeep._frames import frame


class Kind(IntEnum):
    """The kinds of frames."""

    SETTINGS = 1
    STOP = 2
    ASK = 3
    READY = 16
    FAILED = 17
    BEAT = 18
    STACKS = 19


class DaemonSettings(msgspec.Struct, array_like=True):
    """What a daemon process must know; argv carries only descriptors.

    Attributes:
        group: the group's name.
        row, rows: its row on the scoreboard, and how many there are.
        processes, threads: the group's size.
        module, path, attribute, factory: the application (see `gatekeep._settings.AppTarget`).
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
        graceful_timeout: seconds in which a process that must be replaced hopes to become idle.
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
    module: str
    path: str
    attribute: str
    factory: bool
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
    graceful_timeout: float
    debug: bool
    home: str
    display_name: str
    virtual_memory_limit: int
    stack_size: int
    import_scripts: list[str]


class Ready(msgspec.Struct, array_like=True):
    """The application is loaded and the workers accept requests."""

    load_time: float


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
}

_encode = msgspec.msgpack.Encoder().encode
encode_log = _encode
decode_settings = msgspec.msgpack.Decoder(DaemonSettings).decode
decode_ready = msgspec.msgpack.Decoder(Ready).decode
decode_failed = msgspec.msgpack.Decoder(Failed).decode
decode_stacks = msgspec.msgpack.Decoder(Stacks).decode
decode_log = msgspec.msgpack.Decoder(LogRecord).decode

STOP = frame(Kind.STOP)
ASK = frame(Kind.ASK)
BEAT = frame(Kind.BEAT)

BEAT_INTERVAL = 1.0
"""Seconds between the heartbeats of a process."""


def encode(message: msgspec.Struct) -> bytes:
    """One message as a frame."""
    return frame(_KINDS[type(message)], _encode(message))
