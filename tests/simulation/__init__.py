"""The gateway in a simulated world: a thousand bad nights in a minute.

The races that lose requests live between two system calls of the front, where another process moves; no test with real
processes hits them twice. Here front, hop, relay, dispatch, supervisor and gateway run unchanged on a `Host` whose sockets,
processes and time are simulated, and everything that happens follows from one seed.

    runtime     virtual time and replayable scheduling, on asyncio and trio
    sockets     sockets as the kernel has them          test_conformance  … held to the real ones
    world       the Host, the actors, the faults        checks            what must be true of every request and run
    daemons     daemon processes, as generators         lives             … and of the lives of processes
    clients     clients, as generators                  scenarios         the bad nights
    test_*      … × backends × seeds; planted bugs      changes           … and those in which processes are replaced

`GATEKEEP_SEEDS=5000 python -m pytest tests/simulation` looks longer. A failure prints the one command that replays it.
"""
