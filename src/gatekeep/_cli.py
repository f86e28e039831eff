"""The `gatekeep` command: a thin program around `Gateway`. `_terminal` prints, and ends the process.

Exit status: 0 stopped, or answered; 1 a fault of ours, or a gateway that does not answer; 2 usage or settings, or no such
gateway; 3 cannot start.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import anyio
import attrs
import click

from gatekeep import __version__, _cli_control
from gatekeep._errors import CannotStart, SettingsError
from gatekeep._events import Logger
from gatekeep._handover import Handover, Origin, received
from gatekeep._logging import LEVELS, make_logger
from gatekeep._program import Program
from gatekeep._settings import (
    Bind,
    BindKind,
    Settings,
    Spec,
    dashed,
    declared,
    parse_app,
    parse_bind,
    plain_type,
)
from gatekeep._systemd import Notifier, take_listeners
from gatekeep._terminal import CANNOT_START, FAULT, USAGE, die

LOG_PATIENCE = 2.0
"""Seconds that the last log lines may take to be written."""


def main() -> NoReturn:
    """Run the command. Never returns."""
    try:
        _commands(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.Abort:
        sys.exit(FAULT)
    except click.ClickException as error:
        die(USAGE, error.format_message())
    except SettingsError as error:
        die(USAGE, str(error))
    except CannotStart as error:
        die(CANNOT_START, f"cannot start: {error}", error.details)
    except Exception as error:
        # Ours by definition: it is reported in one line, after the place for whoever mends it.
        die(FAULT, f"a fault of gatekeep: {_innermost(error)!r}", traceback.format_exc())
    sys.exit(0)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


# --- options --------------------------------------------------------------------------------------------------------


def _option(name: str, attribute: attrs.Attribute[Any]) -> Callable[..., Any]:
    """The command line's option for a setting, from the setting's own declaration."""
    spec: Spec = attribute.metadata["spec"]
    flags = [flag for flag in spec.aliases if flag.startswith("-")]
    own = f"--{dashed(name)}"
    if attribute.type is bool:
        return click.option(name, f"{own}/--no-{dashed(name)}", default=None, help=_help(spec, attribute))
    if name in ("binds", "health_binds"):
        return click.option(name, *flags, multiple=True, metavar="ADDRESS", help=_help(spec, attribute))
    if spec.item:
        metavar = spec.item.upper()
        return click.option(name, own, *flags, multiple=True, metavar=metavar, help=_help(spec, attribute))
    plain = plain_type(attribute)
    kind = plain if plain in (int, float) else str
    metavar = (
        spec.unit or {int: "NUMBER", float: "SECONDS"}.get(kind, "|".join(spec.choices) or "TEXT")
    ).upper()
    return click.option(
        name, own, *flags, type=kind, default=None, metavar=metavar, help=_help(spec, attribute)
    )


def _help(spec: Spec, attribute: attrs.Attribute[Any]) -> str:
    default = attribute.default
    if isinstance(default, tuple):
        shown = ", ".join(map(str, default))
    else:
        shown = f"{default}" if default not in (None, attrs.NOTHING, "") else spec.derived
    return f"{spec.help}{f'  [default: {shown}]' if shown else ''}"


def _settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, (_, attribute) in reversed(tuple(declared().items())):
        if name not in ("name", "http"):
            command = _option(name, attribute)(command)
    return command


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, no_args_is_help=False
)
@click.version_option(__version__, prog_name="gatekeep")
def _commands() -> None:
    """The gateway that Python web applications cannot hang."""


@_commands.command("serve", short_help="Serve an application.")
@click.argument("app")
@_settings_options
@click.option("--host", metavar="HOST", help="Listen on this host; with --port the same as --bind HOST:PORT.")
@click.option("--port", type=int, metavar="PORT", help="Listen on this port.")
@click.option("--uds", metavar="PATH", help="Listen on this UNIX socket; the same as --bind unix:PATH.")
@click.option("--fd", type=int, metavar="N", help="Listen on this descriptor; the same as --bind fd://N.")
@click.option("--factory", is_flag=True, help="APP names a factory: call it for the application.")
@click.option("--chdir", metavar="FOLDER", help="Change to this folder first.")
@click.option(
    "--loop",
    type=click.Choice(["auto", "asyncio", "uvloop", "trio"]),
    default="auto",
    help="The event loop of the front; auto is uvloop where it is installed.  [default: auto]",
)
@click.option(
    "--http",
    type=click.Choice(["auto", "strict", "h11", "httptools"]),
    default="auto",
    help="The HTTP codec: strict is ours (auto means it), h11 the library of that name behind the same policy. [default: auto]",
)
@click.option("--log-level", type=click.Choice(list(LEVELS)), default="info", help="[default: info]")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    help="auto is console on a terminal, json otherwise.  [default: auto]",
)
@click.option(
    "--access-log/--no-access-log", default=True, help="Whether each request is logged when it has ended."
)
def serve(app: str, **options: Any) -> None:
    """Serve APP: module:callable, module (its application, then app), module:factory(), or a script's path.

    \b
    gatekeep serve mysite.wsgi:application
    gatekeep serve site/wsgi.py --bind 0.0.0.0:8080 --processes 4

    Where nothing else is said, $PORT is the port to listen on (on every address) and $WEB_CONCURRENCY the number of processes.
    """
    origin = Origin.here()
    if folder := options.pop("chdir"):
        _change_folder(folder)
    loop = _choose_loop(options.pop("loop"))
    # Somebody may have closed standard output (`>&-`); the exit status still tells.
    stream = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    logger, writer = make_logger(
        options["log_level"], options.pop("log_format"), stream, access=options.pop("access_log")
    )
    try:
        handover, notifier = received(), Notifier.take(os.environ, os.getpid())
        settings = _settings(app, options, logger, _inherited_binds(handover))
        _raise_descriptor_limit()
        debug = options["log_level"] == "debug"
        is_first = os.getpid() == 1
        program = Program(settings, loop, logger, origin, handover, notifier, is_first=is_first, debug=debug)
        status = _run(program, loop)
    finally:
        writer.close(LOG_PATIENCE)
    sys.exit(status)


def _change_folder(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise SettingsError(f"chdir = {folder!r}: {error.strerror}") from error


def _choose_loop(loop: str) -> str:
    if loop == "auto":
        return "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
    if loop != "asyncio" and importlib.util.find_spec(loop) is None:
        raise SettingsError(f"loop = {loop!r}: {loop} is not installed in {sys.prefix}")
    return loop


def _inherited_binds(handover: Handover | None) -> list[Bind]:
    """Sockets that a service manager has opened are known by nothing but their descriptors."""
    fds = [Bind(BindKind.FD, fd=fd) for fd in take_listeners(os.environ, os.getpid())]
    if fds or handover is None:
        return fds
    return [parse_bind(name) for name in handover.listeners if name.startswith("fd://")]


def _settings(app: str, options: dict[str, Any], log: Logger, inherited: list[Bind]) -> Settings:
    """The settings that the command line and the environment ask for."""
    if options["http"] == "httptools":
        log.warning("setting.replaced", setting="http", value="httptools", used="strict")
        options["http"] = "strict"
    known = declared()
    given = {name: value for name, value in options.items() if name in known and value not in (None, ())}
    binds = _binds(options, inherited)
    if unused := [bind for bind in inherited if bind not in binds]:
        log.warning(
            "socket.unused",
            addresses=list(map(str, unused)),
            reason="the command line says where to listen",
        )
    if binds:
        given["binds"] = binds
    if "processes" not in given and (concurrency := os.environ.get("WEB_CONCURRENCY")):
        given["processes"] = _environment_number("WEB_CONCURRENCY", concurrency)
    return Settings.for_app(parse_app(app, factory=options["factory"]), **given)


def _binds(options: dict[str, Any], inherited: list[Bind]) -> list[Bind]:
    """Every way to say where to listen, as binds; `$PORT` counts where nothing else was said, as with gunicorn.

    Args:
        inherited: what counts where the command line says nothing.
    """
    binds = [parse_bind(text) for text in options["binds"]]
    host, port = options["host"], options["port"]
    if host is not None or port is not None:
        text = host or "127.0.0.1"
        binds.append(
            parse_bind(f"[{text}]:{_or(port, 8000)}" if ":" in text else f"{text}:{_or(port, 8000)}")
        )
    if options["uds"]:
        binds.append(Bind(BindKind.UNIX, path=options["uds"]))
    if options["fd"] is not None:
        binds.append(Bind(BindKind.FD, fd=options["fd"]))
    binds = binds or inherited
    if not binds and (text := os.environ.get("PORT")):
        binds.append(parse_bind(f"0.0.0.0:{_environment_number('PORT', text)}"))
    return binds


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _environment_number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise SettingsError(f"${name} = {text[:20]!r}: a number is needed")
    return int(text)


def _raise_descriptor_limit() -> None:
    """Every client costs a descriptor and every request another: take what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            pass


# --- running --------------------------------------------------------------------------------------------------------


def _run(program: Program, loop: str) -> int:
    backend = "trio" if loop == "trio" else "asyncio"
    options = {"use_uvloop": True} if loop == "uvloop" else {}
    return anyio.run(program.run, backend=backend, backend_options=options)


for _command in _cli_control.COMMANDS:
    _commands.add_command(_command)
