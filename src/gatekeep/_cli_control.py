"""The commands that ask a running gateway, or tell it something, over its control socket."""

from __future__ import annotations

import os
import pwd
import time
from typing import Any, TypeVar

import click
import msgspec

from gatekeep import _console, _console_client, _console_view, _status_view
from gatekeep._console_client import Running
from gatekeep._status import GatewayStatus
from gatekeep._terminal import FAULT, USAGE, die, write

T = TypeVar("T")

ANSWER_PATIENCE = 10.0
"""Seconds that a running gateway may take to answer a question."""

LOOK = 0.25
"""Seconds between looks where a command waits for something."""


@click.command("stacks", short_help="What all threads of its processes do.")
@click.argument("pid", type=int, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stacks(pid: int | None, as_json: bool) -> None:
    """Print what all threads of a running gateway's processes do, and for which requests.

    PID is the gateway's. It need not be given where only one of this user's gateways runs.
    """
    processes = []
    for gateway in _choose(pid):
        processes += _ask(gateway, "stacks", _console.Stacks).processes
    if as_json:
        write(msgspec.json.encode(_console.Stacks(processes)).decode() + "\n")
    else:
        write(_console_view.render(processes))


def _choose(pid: int | None) -> list[Running]:
    """The gateways that are meant: those of one process, which are usually one."""
    running = _console_client.find()
    pids = list(dict.fromkeys(gateway.pid for gateway in running))
    if not pids:
        places = " or ".join(_console_client.places())
        die(USAGE, f"no gateway of user {_user()} runs: none has its run folder in {places}")
    if pid is None and len(pids) == 1:
        (pid,) = pids
    if pid not in pids:
        why = "several gateways run, say which" if pid is None else f"gateway {pid} does not run; these do"
        commands = "\n".join(f"{each}  {_console_client.command_of(each)}" for each in pids)
        die(USAGE, f"{why}: {', '.join(map(str, pids))}", commands)
    return [gateway for gateway in running if gateway.pid == pid]


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _ask(gateway: Running, command: str, form: type[T], **arguments: Any) -> T:
    try:
        return _answer(gateway, command, form, **arguments)
    except _console_client.NoAnswer as error:
        die(FAULT, f"gateway {gateway.pid} {error}")
    except _console.CommandError as error:
        die(FAULT, f"gateway {gateway.pid} refuses: {error}")


def _answer(gateway: Running, command: str, form: type[T], **arguments: Any) -> T:
    answer = _console_client.ask(gateway, _console.request(command, **arguments), ANSWER_PATIENCE)
    return _console.result(answer, form)


@click.command("status", short_help="What a running gateway does.")
@click.argument("pid", type=int, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(pid: int | None, as_json: bool) -> None:
    """Print what a running gateway does: its groups, its processes, what waits, what became of requests.

    PID is the gateway's. It need not be given where only one of this user's gateways runs.
    """
    found = [_status(gateway) for gateway in _choose(pid)]
    if as_json:
        write(msgspec.json.encode({"gateways": found}).decode() + "\n")
    else:
        write("\n".join(map(_status_view.render, found)))


def _status(gateway: Running) -> GatewayStatus:
    return _ask(gateway, "status", _console.Status).status


@click.command("reload", short_help="Replace all processes, one after the other.")
@click.argument("pid", type=int, required=False)
@click.option("--wait", is_flag=True, help="Return when all old processes have gone.")
def reload(pid: int | None, wait: bool) -> None:
    """Have a running gateway replace all of its processes, one after the other, as SIGHUP does. No request notices.

    PID is the gateway's. It need not be given where only one of this user's gateways runs.
    """
    for gateway in _choose(pid):
        before = _pids(_status(gateway))
        replaced = _ask(gateway, "reload", _console.Reloading).processes
        write(
            f"{_processes(replaced)} of gateway {gateway.pid} {'is' if replaced == 1 else 'are'} being replaced\n"
        )
        if wait:
            _wait_until_replaced(gateway, before)


def _processes(count: int) -> str:
    return f"{count} process{'' if count == 1 else 'es'}"


def _pids(status: GatewayStatus) -> set[int]:
    return {process.pid for group in status.groups for process in group.processes}


def _wait_until_replaced(gateway: Running, pids: set[int]) -> None:
    while True:
        found = _status(gateway)
        # A group that has no process, because starts failed, has none that could be gone.
        if not pids & _pids(found) and all(group.state in ("ready", "sleeping") for group in found.groups):
            return
        for group in found.groups:
            if group.failure:
                others = ", the old ones serve on" if group.state == "ready" else ""
                die(FAULT, f"the new processes of group {group.name} do not start{others}: {group.failure}")
        time.sleep(LOOK)


@click.command("drain", short_help="Replace one process now.")
@click.argument("process", type=int)
@click.option("--gateway", "pid", type=int, metavar="PID", help="Ask this gateway only.")
def drain(process: int, pid: int | None) -> None:
    """Have a gateway replace one of its processes now, as SIGUSR1 to that process does.

    PROCESS is the process's pid, as `gatekeep status` shows it. What it runs has eviction-timeout.
    """
    gateway = _owner_of(process, _console_client.find() if pid is None else _choose(pid))
    if gateway is None:
        whose = f"no gateway of user {_user()} has a" if pid is None else f"gateway {pid} has no"
        die(USAGE, f"{whose} process {process}")
    _ask(gateway, "drain", _console.Done, pid=process)
    write(f"process {process} of gateway {gateway.pid} is being replaced\n")


def _owner_of(process: int, gateways: list[Running]) -> Running | None:
    """The one that has it. Who does not answer may be another one; where nobody else has it, the command ends with that.

    One that has ended meanwhile has none.
    """
    silent: dict[Running, str] = {}
    for gateway in gateways:
        try:
            status = _answer(gateway, "status", _console.Status).status
        except (_console_client.NoAnswer, _console.CommandError) as error:
            silent[gateway] = f"gateway {gateway.pid} {error}\n"
            continue
        if process in _pids(status):
            return gateway
    if reasons := [silent[gateway] for gateway in _console_client.find() if gateway in silent]:
        die(FAULT, f"no gateway that answers has a process {process}", "".join(reasons))
    return None


@click.command("stop", short_help="Stop a running gateway.")
@click.argument("pid", type=int, required=False)
@click.option("--now", is_flag=True, help="Wait for nothing: requests in flight are lost.")
def stop(pid: int | None, now: bool) -> None:
    """Stop a running gateway, as SIGTERM does: requests in flight finish. Returns when it has ended.

    PID is the gateway's. It need not be given where only one of this user's gateways runs.
    """
    gateways = _choose(pid)
    deaf = [each.pid for each in gateways if not _ask(each, "stop", _console.Stopping, now=now).heard]
    if deaf:
        die(
            FAULT,
            f"gateway {deaf[0]} was asked, but the program that it is part of does not listen: stop that one",
        )
    folders = {gateway.folder for gateway in gateways}
    while folders & {gateway.folder for gateway in _console_client.find()}:
        time.sleep(LOOK)


COMMANDS = (stacks, status, reload, drain, stop)
