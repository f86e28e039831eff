"""What an embedded group (processes = 0) has to do without. Pure."""

from __future__ import annotations

EMBEDDED_OFF = {
    "between gateway and worker": (
        *("listen-backlog", "connect-timeout", "queue-timeout", "socket-timeout"),
        *("max-waiting", "client-gone-delay"),
    ),
    "ending a request": ("request-timeout", "interrupt-timeout", "deadlock-timeout", "cancel-on-disconnect"),
    "replacing a process": (
        *("startup-timeout", "inactivity-timeout", "restart-interval", "maximum-requests"),
        *("cpu-time-limit", "memory-limit", "script-reloading"),
        *("graceful-timeout", "eviction-timeout", "shutdown-timeout"),
    ),
    "what processes are given": (
        *("user", "group", "umask", "home", "lang", "locale", "env", "display-name", "nice"),
        *("stack-size", "virtual-memory-limit"),
    ),
}
"""Settings without effect there: each of them acts on a process of the group's own, and there is none."""


def notes_on_embedded() -> tuple[str, ...]:
    """The same in words."""
    return (
        "it runs in the gateway's own process (processes = 0); off are thereby",
        *(f"{what}: {', '.join(names)}" for what, names in EMBEDDED_OFF.items()),
        "a request that does not end keeps its thread for ever",
        "what keeps the GIL keeps the whole gateway, its health probes too; only a watchdog outside of it notices",
    )
