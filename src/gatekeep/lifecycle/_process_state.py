"""The life of a daemon process, as the supervisor sees it: one table. Pure.

    STARTING ─ready─▶ SERVING ─stop─▶ STOPPING ─exit─▶ EXITED
        └──────────────stop──────────────▲        (after shutdown-timeout the supervisor kills it)

A process may exit in any state. STOPPING never goes back: it accepts nothing any more.
"""

from __future__ import annotations

from enum import Enum, auto


class ProcessState(Enum):
    """What a daemon process does."""

    STARTING = auto()
    SERVING = auto()
    STOPPING = auto()
    EXITED = auto()


class ProcessEvent(Enum):
    """What happens to it."""

    READY = auto()
    STOP = auto()
    EXIT = auto()


TRANSITIONS: dict[tuple[ProcessState, ProcessEvent], ProcessState] = {
    (ProcessState.STARTING, ProcessEvent.READY): ProcessState.SERVING,
    (ProcessState.STARTING, ProcessEvent.STOP): ProcessState.STOPPING,
    (ProcessState.STARTING, ProcessEvent.EXIT): ProcessState.EXITED,
    (ProcessState.SERVING, ProcessEvent.STOP): ProcessState.STOPPING,
    (ProcessState.SERVING, ProcessEvent.EXIT): ProcessState.EXITED,
    # It had finished loading when it was told to stop.
    (ProcessState.STOPPING, ProcessEvent.READY): ProcessState.STOPPING,
    (ProcessState.STOPPING, ProcessEvent.STOP): ProcessState.STOPPING,
    (ProcessState.STOPPING, ProcessEvent.EXIT): ProcessState.EXITED,
}


class ProcessStateError(Exception):
    """An event that cannot happen in that state."""


def after(state: ProcessState, event: ProcessEvent) -> ProcessState:
    """The state that follows.

    Raises:
        ProcessStateError: the two do not go together.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ProcessStateError(f"{event.name} while {state.name}") from None
