"""The command line's options for settings, made from the settings' own declarations. Shared by all commands that take an
application."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

import attrs
import click

from gatekeep._errors import SettingsError
from gatekeep.settings._app import AppTarget, parse_app
from gatekeep.settings._bind import DEFAULT_PORT, Bind, BindKind, parse_bind
from gatekeep.settings._declared import declared
from gatekeep.settings._environment import ARGUMENTS
from gatekeep.settings._foreign_flags import Takes
from gatekeep.settings._layers import Layer
from gatekeep.settings._profiles import DEFAULT_PROFILE, PROFILES
from gatekeep.settings._spec import Spec, dashed, plain_type, value_of
from gatekeep.settings._understood import Understood, all_flags, takes_of, understood

Command = TypeVar("Command", bound=Callable[..., Any])

_NO_FLAG = frozenset({"name"})

FOREIGN = {f"foreign_{number}": flag for number, flag in enumerate(all_flags())}
"""Flags of other servers that are none of ours, by the names that click has for them."""


def configured(command: Command) -> Command:
    """Give a command the argument APP, a flag for each setting, and those that say where else settings are."""
    for foreign in _foreign_options():
        # One object for all commands: it takes a while to make so many.
        command = click.option(cls=cast("type[click.Option]", lambda *_, made=foreign, **__: made))(command)
    for option in (
        click.option("--factory", is_flag=True, help="APP names a factory: call it for the application."),
        click.option("--fd", metavar="N", help="Listen on this descriptor; the same as --bind fd://N."),
        click.option(
            "--uds", metavar="PATH", help="Listen on this UNIX socket; the same as --bind unix:PATH."
        ),
        click.option("--port", metavar="PORT", help="Listen on this port."),
        click.option(
            "--host", metavar="HOST", help="Listen on this host; with --port the same as --bind HOST:PORT."
        ),
    ):
        command = option(command)
    for name, (_, attribute) in reversed(tuple(declared().items())):
        if name not in _NO_FLAG:
            command = _option(name, attribute)(command)
    for option in (
        click.option(
            "--profile",
            metavar="|".join(PROFILES).upper(),
            help="The defaults: tuned; express, mod_wsgi-express' starter values; directive, those of a bare WSGIDaemonProcess."
            f"  [default: {DEFAULT_PROFILE}]",
        ),
        click.option(
            "--from",
            "from_file",
            metavar="FILE",
            help="A configuration of another server, gunicorn.conf.py or uwsgi.ini; all other settings override it. The flags of "
            "gunicorn, uvicorn, granian and hypercorn are understood, too.",
        ),
        click.option(
            "-c",
            "--config",
            metavar="FILE",
            help="A file of settings.  [default: gatekeep.toml or a pyproject.toml with [tool.gatekeep], where there is one]",
        ),
    ):
        command = option(command)
    return click.argument("app", required=False)(command)


def _option(name: str, attribute: attrs.Attribute[Any]) -> Callable[[Command], Command]:
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
    if spec.bare:
        return click.option(
            name, own, *flags, is_flag=False, flag_value=spec.bare, default=None, metavar="|".join(spec.choices).upper(),
            help=_help(spec, attribute),
        )  # fmt: skip
    is_number = plain_type(attribute) in (int, float)
    metavar = spec.unit or ("number" if is_number else "|".join(spec.choices) or "text")
    return click.option(name, own, *flags, default=None, metavar=metavar.upper(), help=_help(spec, attribute))


@cache
def _foreign_options() -> list[click.Option]:
    """The flags of other servers, which the help does not show."""
    return [_foreign_option(name, flag) for name, flag in FOREIGN.items()]


def _foreign_option(name: str, flag: str) -> click.Option:
    takes, is_repeatable = takes_of(flag)
    if takes is Takes.NOTHING:
        return click.Option([name, flag], is_flag=True, default=None, hidden=True)
    if takes is Takes.MAYBE:
        return click.Option([name, flag], is_flag=False, flag_value="auto", default=None, hidden=True)
    return click.Option([name, flag], multiple=is_repeatable, default=None, hidden=True)


def _help(spec: Spec, attribute: attrs.Attribute[Any]) -> str:
    default = attribute.default
    if isinstance(default, tuple):
        shown = ", ".join(map(str, default))
    elif isinstance(default, bool):
        shown = "on" if default else "off"
    else:
        plain = f"{default:g}" if isinstance(default, float) else f"{default}"
        shown = plain if default not in (None, attrs.NOTHING, "") else spec.derived
    return f"{spec.help}{f'  [default: {shown}]' if shown else ''}"


# --- what was typed


def typed_layer(options: Mapping[str, Any], place: str = "") -> Layer:
    """What the flags say, as a layer.

    Raises:
        SettingsError: a value is none of its setting's, or a flag of another server has no meaning here.
    """
    try:
        return _typed_layer(options, place)
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}" if place else str(error)) from None


def _typed_layer(options: Mapping[str, Any], place: str) -> Layer:
    known = declared()
    foreign = typed_foreign(options)
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name in known and value not in (None, ()):
            values[name] = value_of(known[name][1], value) if isinstance(value, str) else value
    if options["profile"] is not None:
        values["profile"] = options["profile"]
    if binds := _binds(options):
        values["binds"] = binds
    for name, value in foreign.values.items():
        values[name] = _both(name, values[name], value) if name in values else value
    if options["app"] is not None:
        values["app"] = _app(options)
    elif options["factory"]:
        raise SettingsError("factory: APP is needed: what is to be called?")
    return Layer(place, values, mounts=[{"path": foreign.path}] if foreign.path else None)


def typed_foreign(options: Mapping[str, Any]) -> Understood:
    """What the flags of other servers say.

    Raises:
        SettingsError: one has no meaning here.
    """
    typed = {flag: options.get(name) for name, flag in FOREIGN.items()}
    return understood({flag: value for flag, value in typed.items() if value not in (None, ())})


def _both(name: str, ours: Any, theirs: Any) -> Any:
    """A setting that was given by its own name and by another server's."""
    if isinstance(theirs, list):
        return [*ours, *theirs]
    if name == "access_log":  # it comes with --access-logfile
        return ours
    raise SettingsError(f"{dashed(name)} is given twice, by two names")


def _app(options: Mapping[str, Any]) -> AppTarget:
    return parse_app(options["app"], factory=options["factory"])


def _binds(options: Mapping[str, Any]) -> list[Bind]:
    """Every way to say where to listen, as binds."""
    binds = [parse_bind(text) for text in options["binds"]]
    host, port = options["host"], options["port"]
    if host is not None or port is not None:
        number = DEFAULT_PORT if port is None else _number("port", port, 65535)
        text = "127.0.0.1" if host is None else _host(host)
        binds.append(parse_bind(f"{text}:{number}"))
    if options["uds"] is not None:
        if not options["uds"]:
            raise SettingsError("uds = '': allowed is a socket's path")
        binds.append(parse_bind(f"unix://{options['uds']}"))
    if options["fd"] is not None:
        binds.append(Bind(BindKind.FD, fd=_number("fd", options["fd"], 2**31 - 1)))
    return binds


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= most):
        raise SettingsError(f"{name} = {text!r}: allowed is 0 to {most}")
    return int(text)


def _host(text: str) -> str:
    """A host as it stands in an address with a port."""
    plain = text.removeprefix("[").removesuffix("]")
    try:
        return f"[{plain}]" if ipaddress.ip_address(plain).version == 6 else plain
    except ValueError:
        if not text or ":" in text:
            raise SettingsError(f"host = {text!r}: allowed is a name or an address, without a port") from None
        return text


@cache
def _parser() -> click.Command:
    """Never called: it only knows the flags."""

    def arguments(**options: Any) -> None: ...

    return click.command(add_help_option=False)(configured(arguments))


@cache
def options_of(text: str) -> Mapping[str, Any]:
    """The flags in `$GATEKEEP_CMD_ARGS`, as on the command line.

    Raises:
        SettingsError: they make no sense.
    """
    try:
        return _parser().make_context("", shlex.split(text)).params
    except click.ClickException as error:
        raise SettingsError(f"${ARGUMENTS}: {error.format_message()}") from None
    except ValueError as error:
        raise SettingsError(f"${ARGUMENTS} = {text!r}: {error}") from None
