"""What is said over a running gateway's control socket, and how its commands are found. Pure.

    {"command": "stacks"}   →   {"ok": true, "processes": […]}   or   {"ok": false, "error": "…"}

One JSON object a line in both directions, as many requests on a connection as the client likes, answered in turn. What else a
request holds besides `command` are the command's arguments.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import attrs
import msgspec

from gatekeep._processes import ProcessReport
from gatekeep._status import GatewayStatus

MOST_BYTES = 1 << 16
"""Bytes of a request's line, without its end."""

SHOWN = 100
"""Characters of what a client sent that an error repeats."""

T = TypeVar("T")

Result = Mapping[str, Any]
"""What a command has found out, by the names that its answer has: what msgspec can write as JSON."""


class CommandError(Exception):
    """A request that cannot be fulfilled; says why, in one line, to whoever asked."""


class LineTooLong(CommandError):
    """A request has more than `MOST_BYTES`. Where the next one begins is not known."""


class NoArguments(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of a command that takes none."""


@attrs.frozen
class Command:
    """One command.

    Attributes:
        arguments: a msgspec Struct: what they are.
        handle: called with one of these. May raise `CommandError`.
    """

    arguments: type[msgspec.Struct]
    handle: Callable[[Any], Awaitable[Result]]


Commands = Mapping[str, Command]
"""The table of commands, by name."""


class Stacks(msgspec.Struct):
    """The answer to `stacks`."""

    processes: list[ProcessReport]


class Status(msgspec.Struct):
    """The answer to `status`."""

    status: GatewayStatus


class Reloading(msgspec.Struct):
    """The answer to `reload`: how many processes are being replaced."""

    processes: int


class Stopping(msgspec.Struct):
    """The answer to `stop`: whether anybody around the gateway listens for it."""

    heard: bool = True


class Done(msgspec.Struct):
    """The answer to what has no other."""


class Lines:
    """Cuts what arrives into lines."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """More has arrived."""
        self._buffer += data

    def next_line(self) -> bytes | None:
        """The next whole line, without its end; None when it has not come yet.

        Raises:
            LineTooLong: it has more than `MOST_BYTES`, or will have.
        """
        end = self._buffer.find(b"\n", 0, MOST_BYTES + 1)
        if end >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            return line
        if len(self._buffer) > MOST_BYTES:
            raise LineTooLong(f"a request has at most {MOST_BYTES} bytes")
        return None

    def rest(self) -> bytes:
        """What came last, where the stream has ended without the end of a line."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


async def answer(line: bytes, commands: Commands, on_fault: Callable[[str, Exception], None]) -> bytes:
    """The answer to one request, as a line.

    Never raises but for a cancellation. A command that fails in a way of its own is a fault of ours: `on_fault` is told its name
    and the error, and whoever asked that there was one.
    """
    name = ""
    try:
        name, arguments = _parse(line)
        command = commands.get(name)
        if command is None:
            raise CommandError(f"unknown command {name[:SHOWN]!r}; known: {', '.join(sorted(commands))}")
        return _encode({"ok": True} | dict(await command.handle(_arguments(name, command, arguments))))
    except CommandError as error:
        return refusal(str(error))
    except Exception as error:
        on_fault(name, error)
        return refusal(f"a fault of gatekeep: {error!r}")


def _parse(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        request = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CommandError(f'not a request, such as {{"command": "stacks"}}: {error}') from error
    name = request.pop("command", None)
    if not isinstance(name, str):
        raise CommandError('a request has a "command", which is text')
    return name, request


def _arguments(name: str, command: Command, arguments: dict[str, Any]) -> msgspec.Struct:
    try:
        return msgspec.convert(arguments, command.arguments)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise CommandError(f"{name}: {error}") from error


def refusal(reason: str) -> bytes:
    """The answer, as a line, to what is no request, or cannot be fulfilled."""
    return _encode({"ok": False, "error": reason})


def request(command: str, **arguments: Any) -> bytes:
    """A request as a line."""
    return _encode({"command": command} | arguments)


def result(line: bytes, form: type[T]) -> T:
    """What an answer says; fields that are not known are passed over.

    Args:
        form: the answer's form, such as `Stacks`.

    Raises:
        CommandError: the gateway refused, or this is no answer.
    """
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
        if fields.pop("ok", None) is True:
            return msgspec.convert(fields, form)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CommandError(f"what it answered makes no sense: {error}") from error
    raise CommandError(str(fields.get("error", "it says no and not why")))


def _encode(message: Any) -> bytes:
    try:
        return msgspec.json.encode(message) + b"\n"
    except UnicodeEncodeError:
        # Names of files and threads may hold halves of a character (surrogates), which JSON cannot.
        return msgspec.json.encode(_whole(msgspec.to_builtins(message))) + b"\n"


def _whole(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case list() | tuple():
            return [_whole(item) for item in value]
        case dict():
            return {_whole(key): _whole(item) for key, item in value.items()}
    return value
