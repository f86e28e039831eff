"""Named sets of values to begin with. Pure.

`tuned` is the defaults of the settings themselves: mod_wsgi-express' starter values, except that a request is interrupted before
its process is replaced, that a start has more time, and that socket-timeout is derived so that it hides no other timer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROFILES: Mapping[str, Mapping[str, Any]] = {
    "tuned": {},
    # "mod_wsgi-express already does this. Its generated configuration applies a starter set of values that has been tuned over
    # many deployments."
    "express": {
        "processes": 2,
        "threads": 5,
        "listen_backlog": 100,
        "lang": "en_US.UTF-8",
        "locale": "en_US.UTF-8",
        "queue_timeout": 45.0,
        "socket_timeout": 60.0,
        "connect_timeout": 15.0,
        "request_timeout": 60.0,
        "interrupt_timeout": 0.0,
        "startup_timeout": 15.0,
        "deadlock_timeout": 60.0,
        "graceful_timeout": 15.0,
        "eviction_timeout": 0.0,
        "inactivity_timeout": 0.0,
        "restart_interval": 0.0,
        "shutdown_timeout": 5.0,
        "maximum_requests": 0,
    },
    # "Most of the timeout options are off by default for backwards-compatibility reasons." The values of a bare
    # WSGIDaemonProcess; socket-timeout is then Apache's own Timeout.
    "directive": {
        "processes": 1,
        "threads": 15,
        "listen_backlog": 100,
        "connect_timeout": 15.0,
        "queue_timeout": 0.0,
        "socket_timeout": 60.0,
        "request_timeout": 0.0,
        "interrupt_timeout": 0.0,
        "deadlock_timeout": 300.0,
        "startup_timeout": 0.0,
        "inactivity_timeout": 0.0,
        "graceful_timeout": 15.0,
        "eviction_timeout": 0.0,
        "shutdown_timeout": 5.0,
        "restart_interval": 0.0,
        "maximum_requests": 0,
    },
}
"""By name: values by setting. A profile is the lowest layer: whatever else is said goes first."""

DEFAULT_PROFILE = "tuned"
