"""`python -m gatekeep` is the `gatekeep` command.

What it needs is loaded after the first thing to do: a gateway that is still loading its own modules may be sent signals already.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

PREMATURE = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)
"""There is nothing yet that they could change, and their default action would end or stop the gateway."""


def main() -> NoReturn:
    """Run the command. Never returns."""
    _be_ready_for_signals(serves=sys.argv[1:2] == ["serve"])
    from gatekeep._cli import main

    main()


def _be_ready_for_signals(*, serves: bool) -> None:
    """Until the program itself takes them."""
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # Python's own way is a traceback of whatever is being loaded
    if not serves:
        return
    for number in PREMATURE:
        signal.signal(number, signal.SIG_IGN)
    # A parent that ignored it has us ignore it too, and then the kernel keeps no exit status of our processes.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.getpid() == 1:
        # The kernel sends the first process of a container nothing that it has no handler for.
        for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(ending, lambda number, _: os._exit(128 + number))


if __name__ == "__main__":
    main()
