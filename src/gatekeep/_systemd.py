"""What systemd tells a service and wants to hear of it: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).

A datagram and three environment variables. Nothing here raises for what systemd does; without systemd nothing happens.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import MutableMapping

import anyio

from gatekeep._errors import SettingsError

FIRST_FD = 3
"""SD_LISTEN_FDS_START: the first of the sockets that systemd has opened."""


class Notifier:
    """Tells the service manager.

    Args:
        address: `$NOTIFY_SOCKET`; empty where nobody wants to hear.
        watchdog: seconds within which a sign of life must come, `math.inf` for never.
    """

    def __init__(self, address: str = "", watchdog: float = math.inf) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = watchdog

    @classmethod
    def take(cls, environment: MutableMapping[str, str], pid: int) -> Notifier:
        """From the environment, and out of it: it is not meant for the processes that we start."""
        address = environment.pop("NOTIFY_SOCKET", "")
        interval = environment.pop("WATCHDOG_USEC", "")
        meant_for = environment.pop("WATCHDOG_PID", "") or str(pid)
        if not (address and interval.isdecimal() and int(interval) and meant_for == str(pid)):
            return cls(address)
        return cls(address, int(interval) / 1e6)

    def say(self, **state: str | int) -> None:
        """Send what there is to say, such as `READY=1`. Waits for nothing."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in state.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(text.encode(), self._address)
        except OSError:
            pass  # whoever wanted to hear it has gone, or is too busy

    def resign(self, successor: int) -> None:
        """Another process is the service from now on: its signs of life count, and ours would hide that it gives none."""
        self._watchdog = math.inf
        self.say(MAINPID=successor)

    async def feed_watchdog(self) -> None:
        """Give signs of life while the event loop runs, twice as often as they must come. Returns if nobody wants any."""
        while self._watchdog < math.inf:
            self.say(WATCHDOG=1)
            await anyio.sleep(self._watchdog / 2)


def take_listeners(environment: MutableMapping[str, str], pid: int) -> list[int]:
    """The descriptors of the sockets that systemd has opened for us, out of the environment.

    Raises:
        SettingsError: `$LISTEN_FDS` is no number.
    """
    meant_for = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if not count or meant_for != str(pid):
        return []
    if not (count.isascii() and count.isdigit()):
        raise SettingsError(f"$LISTEN_FDS = {count!r}: a number is needed")
    found = list(range(FIRST_FD, FIRST_FD + int(count)))
    for fd in found:
        try:
            os.set_inheritable(fd, False)  # ours, not our processes'
        except OSError as error:
            raise SettingsError(f"$LISTEN_FDS = {count!r}: descriptor {fd}: {error.strerror}") from error
    return found
