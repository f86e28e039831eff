"""The schedule as data. Times are seconds, sizes bytes; None is for ever, or no limit. Pure."""

from __future__ import annotations

import msgspec

from gatekeep._stages import Stage


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the machine that the gateway is to run on; None where it is not known, or not limited.

    Attributes:
        memory_limit: bytes that the container, or control group, may use.
        cpus: how many processors it may use; a part of one is possible.
        descriptors: file descriptors that the gateway may have.
        load_times: seconds that loading its applications took, by group.
    """

    memory_limit: int | None = None
    cpus: float | None = None
    descriptors: int | None = None
    load_times: dict[str, float] = {}


class Value(msgspec.Struct, frozen=True):
    """A setting and its effective value.

    Attributes:
        setting: its name as people type it; `T_fire` is none, but belongs beside them.
        unit: "seconds", "bytes", or empty.
        derived: what the value was made from; empty where it is as it was set, or its default.
    """

    setting: str
    value: int | float | str | None
    unit: str = ""
    derived: str = ""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds something.

    Attributes:
        bound: the setting.
        at_most: where the value varies (jitter), the highest.
        since: from when it counts; empty where it is no time.
        status: the HTTP status that the client gets then, 0 where it gets none.
        then: what happens, to client, thread and process.
    """

    bound: Value
    at_most: int | float | None = None
    since: str = ""
    status: int = 0
    then: str


class StagePlan(msgspec.Struct, frozen=True):
    """A stage of a request, and all that bounds it."""

    stage: Stage
    limits: tuple[Limit, ...]


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happens.

    Attributes:
        at: seconds from the timeline's beginning.
        setting: the setting by which it happens now; empty where there is none.
        status: the HTTP status that a client gets at this moment, 0 for none.
        what: what happens.
    """

    at: float
    setting: str = ""
    status: int = 0
    what: str


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """What happens when, if nothing else comes in between.

    Attributes:
        name: a word for machines.
        title: what it is about.
        since: from when it counts.
        moments: in order; a time that is never over ends the list.
        note: what is to be known besides; may be empty.
    """

    name: str
    title: str
    since: str
    moments: tuple[Moment, ...]
    note: str = ""


class GroupPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A process group.

    Attributes:
        processes: 0 for a group that is embedded in the gateway's own process.
        applications: its own first.
        mounts: what leads to it.
        t_fire: seconds after which a request is interrupted.
        stages: from the request's body to its response.
        lifetime: what ends a process that is well, or does not become ready.
        notes: what else is to be known.
    """

    name: str
    processes: int
    threads: int
    applications: tuple[str, ...]
    mounts: tuple[str, ...]
    t_fire: float | None
    stages: tuple[StagePlan, ...]
    timelines: tuple[Timeline, ...]
    lifetime: tuple[Limit, ...]
    notes: tuple[str, ...] = ()


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that hide or defeat each other, or that are seldom meant.

    Attributes:
        code: a word for machines, such as `socket-below-fire`.
        group: the group's name; empty where it concerns the whole gateway.
        settings: those that it is about.
        why: what is wrong with them.
        advice: what to do.
    """

    code: str
    group: str = ""
    settings: tuple[Value, ...]
    why: str
    advice: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The effective schedule.

    Attributes:
        addresses: where clients connect.
        health_addresses: where health probes are answered, and nothing else.
        stages: those before a group is chosen.
        stop: the gateway's own end.
    """

    addresses: tuple[str, ...]
    health_addresses: tuple[str, ...]
    stages: tuple[StagePlan, ...]
    groups: tuple[GroupPlan, ...]
    stop: Timeline
    warnings: tuple[Finding, ...]
