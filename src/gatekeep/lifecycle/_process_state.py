"""The life of a daemon process, as the supervisor sees it: one table. Pure.

    STARTING ─ready─▶ SERVING ─drain─▶ DRAINING ─succeed─▶ FINISHING
        │               │                 │                   │
        └────stop───────┴──────stop───────┴───────stop────────┴──▶ STOPPING ─exit─▶ EXITED

* DRAINING: it is to be replaced, and takes requests on, until its replacement is ready.
* FINISHING: its replacement is ready, so it takes no more requests and becomes idle however many come.
* STOPPING: what still runs has shutdown-timeout; then the supervisor kills it.

A process may exit in any state. No state is ever left backwards, and after DRAINING nothing is accepted any more.
"""

from __future__ import annotations

from enum import Enum, auto


class ProcessState(Enum):
    """What a daemon process does."""

    STARTING = auto()
    SERVING = auto()
    DRAINING = auto()
    FINISHING = auto()
    STOPPING = auto()
    EXITED = auto()


class ProcessEvent(Enum):
    """What happens to it."""

    READY = auto()
    """It has loaded the application."""
    DRAIN = auto()
    """Something asks for its replacement, or its end."""
    SUCCEED = auto()
    """Its replacement is ready, or it gets none."""
    STOP = auto()
    """It must end now."""
    EXIT = auto()
    """It has ended."""


_S, _E = ProcessState, ProcessEvent

TRANSITIONS: dict[tuple[ProcessState, ProcessEvent], ProcessState] = {
    (_S.STARTING, _E.READY): _S.SERVING,
    # One that has not begun has nothing to finish.
    (_S.STARTING, _E.DRAIN): _S.STOPPING,
    (_S.STARTING, _E.STOP): _S.STOPPING,
    (_S.STARTING, _E.EXIT): _S.EXITED,
    (_S.SERVING, _E.DRAIN): _S.DRAINING,
    (_S.SERVING, _E.STOP): _S.STOPPING,
    (_S.SERVING, _E.EXIT): _S.EXITED,
    (_S.DRAINING, _E.DRAIN): _S.DRAINING,
    (_S.DRAINING, _E.SUCCEED): _S.FINISHING,
    (_S.DRAINING, _E.STOP): _S.STOPPING,
    (_S.DRAINING, _E.EXIT): _S.EXITED,
    (_S.FINISHING, _E.DRAIN): _S.FINISHING,
    (_S.FINISHING, _E.SUCCEED): _S.FINISHING,
    (_S.FINISHING, _E.STOP): _S.STOPPING,
    (_S.FINISHING, _E.EXIT): _S.EXITED,
    # It had finished loading when it was told to stop.
    (_S.STOPPING, _E.READY): _S.STOPPING,
    (_S.STOPPING, _E.DRAIN): _S.STOPPING,
    (_S.STOPPING, _E.SUCCEED): _S.STOPPING,
    (_S.STOPPING, _E.STOP): _S.STOPPING,
    (_S.STOPPING, _E.EXIT): _S.EXITED,
}

ACCEPTING = frozenset({ProcessState.SERVING, ProcessState.DRAINING})
"""The states in which a process takes requests."""


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


def table() -> str:
    """The table as Markdown: a row for each state, a column for each event. The documentation has it from here."""
    states = [state for state in ProcessState if state is not ProcessState.EXITED]
    lines = [
        "| state | " + " | ".join(event.name.lower() for event in ProcessEvent) + " |",
        "|---|" + "---|" * len(ProcessEvent),
    ]
    for state in states:
        cells = [_cell(TRANSITIONS.get((state, event)), state) for event in ProcessEvent]
        lines.append(f"| {state.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(following: ProcessState | None, state: ProcessState) -> str:
    if following is None:
        return "–"
    return "·" if following is state else following.name
