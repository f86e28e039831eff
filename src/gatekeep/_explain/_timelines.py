"""What happens when: to requests that do not end, to processes without a sign of life, at a replacement, at the stop. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gatekeep._errors import HopExpired, Interrupted, ProcessLost, Stopped
from gatekeep._explain._derived import fire_value, t_fire
from gatekeep._explain._model import Moment, Timeline
from gatekeep.lifecycle._drain import LAST_WORDS
from gatekeep.lifecycle._liveness import DUMP_WAIT, SUSPECT_AFTER
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._settings import Settings
from gatekeep.settings._spec import never_if_zero


def group_timelines(group: GroupSettings) -> tuple[Timeline, ...]:
    """Those of a group with processes of its own."""
    return wedge(group), deadlock(group), replacement(group)


def _moments(moments: Iterator[Moment]) -> tuple[Moment, ...]:
    return tuple(sorted((moment for moment in moments if moment.at < math.inf), key=lambda moment: moment.at))


# --- a request that does not end


def wedge(group: GroupSettings) -> Timeline:
    """A request that does not end by itself, whatever it does."""
    note = (
        "a response that has begun is cut instead of 504; the process goes earlier if nothing else runs in it"
    )
    if t_fire(group) == math.inf:
        note = "request-timeout is off: nothing ends the request, and its thread is lost with it"
    return Timeline(
        name="request",
        title="A request that does not end",
        since="its claim by a worker",
        moments=_moments(_wedge(group)),
        note=note,
    )


def _wedge(group: GroupSettings) -> Iterator[Moment]:
    fire, grace, socket = t_fire(group), group.interrupt_timeout, group.socket_timeout_or_default
    given_up = fire + grace
    yield Moment(at=0.0, what="the application has it, in one thread")
    if socket < given_up:
        yield Moment(
            at=socket,
            setting="socket-timeout",
            status=HopExpired.status,
            what="unless it has sent something; it runs on, and keeps its thread",
        )
    if grace:
        yield Moment(
            at=fire,
            setting="request-timeout",
            status=0 if socket < fire else Interrupted.status,
            what=f"{_formula(group)}: RequestTimeout is raised inside it; if it ends, only it is lost",
        )
    yield Moment(
        at=given_up,
        setting="interrupt-timeout" if grace else "request-timeout",
        status=0 if socket < given_up else Interrupted.status,
        what=("" if grace else f"{_formula(group)}: ")
        + "its process is given up, a successor starts; what else runs there may finish",
    )
    yield from _drain(group, given_up, group.graceful_timeout)


def _formula(group: GroupSettings) -> str:
    return f"T_fire = {fire_value(group).derived}"


def _drain(
    group: GroupSettings, begin: float, window: float, timer: str = "graceful-timeout"
) -> Iterator[Moment]:
    """A process that goes."""
    end = begin + window
    yield Moment(at=end, setting=timer, what="the process must end, and accepts no more, at the latest")
    yield Moment(
        at=end + group.shutdown_timeout,
        setting="shutdown-timeout",
        status=ProcessLost.status,
        what="it ends, with whatever still runs in it",
    )
    yield Moment(
        at=end + group.shutdown_timeout + LAST_WORDS, what="it is killed, if even that does not help"
    )


# --- a process that gives no sign of life


def deadlock(group: GroupSettings) -> Timeline:
    """A process whose GIL is held, or that was stopped."""
    note = "an interrupt cannot help here: no Python runs in that process"
    if not group.deadlock_timeout:
        note = "deadlock-timeout is off: such a process is never noticed"
    return Timeline(
        name="deadlock",
        title="A process that gives no sign of life (its GIL is held)",
        since="the last one",
        moments=_moments(_deadlock(group)),
        note=note,
    )


def _deadlock(group: GroupSettings) -> Iterator[Moment]:
    socket = group.socket_timeout_or_default
    dump = max(never_if_zero(group.deadlock_timeout), SUSPECT_AFTER)
    yield Moment(at=0.0, what="no thread of it moves any more")
    if group.deadlock_timeout:
        yield Moment(
            at=SUSPECT_AFTER, what="suspected: what it has not begun is offered to the other processes"
        )
    if socket < dump + DUMP_WAIT:
        yield Moment(
            at=socket,
            setting="socket-timeout",
            status=HopExpired.status,
            what="about now, for what it runs (this one counts from the claim)",
        )
    yield Moment(at=dump, setting="deadlock-timeout", what="the stacks of all its threads go to the log")
    yield Moment(
        at=dump + DUMP_WAIT,
        status=ProcessLost.status if socket >= dump + DUMP_WAIT else 0,
        what="it is killed, with all that it runs, at the latest; a successor starts",
    )


# --- a process that is replaced


def replacement(group: GroupSettings) -> Timeline:
    """A planned replacement. The old process serves on until its successor is ready, so no request waits for it."""
    return Timeline(
        name="replacement",
        title="A process that is due to be replaced",
        since="when its successor is ready, until which it serves",
        moments=_moments(_replacement(group)),
        note="it goes as soon as nothing runs in it",
    )


def _replacement(group: GroupSettings) -> Iterator[Moment]:
    yield Moment(at=0.0, what="it accepts no more; its streams of events are ended")
    yield from _drain(group, 0.0, group.graceful_timeout)


# --- the gateway's own end


def stop(settings: Settings) -> Timeline:
    """The gateway is told to stop (SIGTERM, Ctrl-C, `gatekeep stop`)."""
    return Timeline(
        name="stop",
        title="The gateway is told to stop (SIGTERM, Ctrl-C, gatekeep stop)",
        since="that moment",
        moments=_moments(_stop(settings)),
        note="it ends as soon as nothing is left to do; a second signal means now",
    )


def _stop(settings: Settings) -> Iterator[Moment]:
    delay, graceful = settings.shutdown_delay, settings.graceful_timeout
    shutdowns = [group.shutdown_timeout for group in settings.groups if not group.is_embedded]
    then = "processes must end" if shutdowns else "a thread that is stuck is left behind"
    if delay:
        yield Moment(at=0.0, what="readiness probes get 503; everything is served on")
    yield Moment(
        at=delay,
        setting="shutdown-delay" if delay else "",
        what="idle clients are closed, those with a request after its response",
    )
    yield Moment(
        at=delay + graceful,
        setting="graceful-timeout",
        status=Stopped.status,
        what=f"for what has not begun, {ProcessLost.status} for what has; {then}",
    )
    if shutdowns:
        yield Moment(
            at=delay + graceful + max(shutdowns),
            setting="shutdown-timeout",
            what="what is left of them is killed",
        )
