"""A daemon process's end of its control socket."""

from __future__ import annotations

import signal
import socket

from gatekeep.pool._control import Control


def test_a_wait_may_be_longer_than_poll_can_take() -> None:
    ours, gateways = socket.socketpair()
    with ours, gateways:
        control = Control(ours)
        control.signalled(signal.SIGUSR1)
        assert [*control.wait(30 * 86400.0)] == [signal.SIGUSR1], "which is too many milliseconds for a C int"
