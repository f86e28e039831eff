"""What an embedded group (processes = 0) has to do without. Pure."""

from __future__ import annotations

from gatekeep.settings._embedded import OFF, REFUSED, WITHOUT_MEANING
from gatekeep.settings._spec import dashed

EMBEDDED_OFF = {kind: tuple(map(dashed, names)) for kind, names in OFF.items()} | {
    "what processes are given": tuple(map(dashed, (*REFUSED, *WITHOUT_MEANING)))
}
"""Settings without effect there, by kind: each of them acts on a hop, or a process of the group's own, and there is none."""


def notes_on_embedded() -> tuple[str, ...]:
    """The same in words."""
    return (
        "it runs in the gateway's own process (processes = 0); off are thereby",
        *(f"{what}: {', '.join(names)}" for what, names in EMBEDDED_OFF.items()),
        "a request that does not end keeps its thread for ever",
        "what keeps the GIL keeps the whole gateway, its health probes too; only a watchdog outside of it notices",
    )
