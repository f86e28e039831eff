"""All settings, each declared once: type, default with its precedent, limits, help. Pure.

The command line's flags are made from these declarations, so a setting has one name, one default and one explanation.
Nothing is silently corrected: what cannot be is refused with a `SettingsError` that names the setting, its value and what is
allowed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, cast

import attrs

from gatekeep._errors import SettingsError


@attrs.frozen
class Spec:
    """What is declared of a setting beside its type and default.

    Attributes:
        help: one or two sentences for people.
        unit: "seconds", "bytes", or empty for a plain number.
        precedent: where the default comes from.
        aliases: further flags that mean the same, as people know them from other servers.
        least, most: the allowed range of a number, both inclusive.
        choices: the allowed words.
        pattern, described: the allowed form of a text, as a regular expression and in words.
    """

    help: str
    unit: str = ""
    precedent: str = ""
    aliases: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    described: str = ""

    def allowed(self) -> str:
        """What is allowed, in words."""
        if self.described:
            return self.described
        if self.choices:
            return "one of " + ", ".join(self.choices)
        unit = f" {self.unit}" if self.unit else ""
        if self.most is None:
            return f"{self.least:g}{unit} or more"
        return f"{self.least:g} to {self.most:g}{unit}"


def _check(name: str, value: object, spec: Spec) -> None:
    if spec.pattern and not re.fullmatch(spec.pattern, cast("str", value)):
        raise SettingsError(f"{dashed(name)} = {value!r}: allowed is {spec.allowed()}")
    if spec.choices and value not in spec.choices:
        raise SettingsError(f"{dashed(name)} = {value!r}: allowed is {spec.allowed()}")
    if spec.least is None or isinstance(value, str):
        return
    number = cast("float", value)
    # The negated form refuses NaN too.
    if not number >= spec.least or (spec.most is not None and number > spec.most):
        raise SettingsError(f"{dashed(name)} = {value}: allowed is {spec.allowed()}")


def _validate(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    kind = attribute.type
    if kind is float and type(value) is int:
        pass
    elif isinstance(kind, type) and (not isinstance(value, kind) or (kind is int and type(value) is bool)):
        raise SettingsError(
            f"{dashed(attribute.name)} = {value!r}: a value of type {kind.__name__} is needed"
        )
    _check(attribute.name, value, attribute.metadata["spec"])


def setting(default: Any, help: str, **spec: Any) -> Any:
    """Declare a setting."""
    return attrs.field(default=default, validator=_validate, metadata={"spec": Spec(help, **spec)})


def dashed(name: str) -> str:
    """A setting's name as people type it."""
    return name.replace("_", "-")


# --- where to listen ------------------------------------------------------------------------------------------------


class BindKind(StrEnum):
    """What an address is."""

    TCP = "tcp"
    UNIX = "unix"
    FD = "fd"


@attrs.frozen
class Bind:
    """One address to listen on. Make it with `parse_bind`."""

    kind: BindKind
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    def __str__(self) -> str:
        if self.kind is BindKind.UNIX:
            return f"unix:{self.path}"
        if self.kind is BindKind.FD:
            return f"fd://{self.fd}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


_TCP = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?)\]|(?P<host>(?![0-9]+$)[^:\[\]/]*))(?::(?P<port>[0-9]{1,5}))?"
)

DEFAULT_PORT = 8000


def parse_bind(text: str) -> Bind:
    """`host:port`, `:port`, `host`, `[::1]:port`, `unix:/path` or `fd://N`, as gunicorn and hypercorn have it.

    Raises:
        SettingsError: it is none of these.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path[2:] if path.startswith("//") else path
        if path:
            return Bind(BindKind.UNIX, path=path)
    elif text.startswith("fd://"):
        if text[5:].isascii() and text[5:].isdigit():
            return Bind(BindKind.FD, fd=int(text[5:]))
    elif (found := _TCP.fullmatch(text)) and text:
        port = int(found["port"]) if found["port"] else DEFAULT_PORT
        if port <= 65535:
            return Bind(BindKind.TCP, host=found["six"] or found["host"] or "0.0.0.0", port=port)
    raise SettingsError(
        f"bind = {text!r}: allowed is host:port (port 0 to 65535), [ipv6]:port, unix:/path or fd://N"
    )


# --- what to serve --------------------------------------------------------------------------------------------------


@attrs.frozen
class AppTarget:
    """Where the application is. Make it with `parse_app`.

    Attributes:
        module: a dotted module name, or empty where `path` is given.
        path: a script's path.
        attribute: a dotted name in it; empty for `application`, then `app`.
        factory: whether that is to be called, without arguments, for the application.
    """

    module: str = ""
    path: str = ""
    attribute: str = ""
    factory: bool = False

    def __str__(self) -> str:
        place = self.path or self.module
        call = "()" if self.factory else ""
        return f"{place}:{self.attribute}{call}" if self.attribute else place


_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_APP = re.compile(rf"(?P<place>[^:]+?)(?::(?P<attribute>{_DOTTED})(?P<call>\(\))?)?")


def parse_app(text: str, *, factory: bool = False) -> AppTarget:
    """`module:callable`, `module`, `module:factory()` or a script's path (`site/wsgi.py`, `site/wsgi.py:callable`).

    A path has a slash in it or ends in `.py`: `mysite.wsgi` is a module, `./mysite.wsgi` a file.

    Raises:
        SettingsError: it is none of these.
    """
    found = _APP.fullmatch(text.strip())
    if found and not any("\ud800" <= letter <= "\udfff" for letter in text):  # bytes that are no UTF-8
        place, attribute = found["place"], found["attribute"] or ""
        called = factory or bool(found["call"])
        if "/" in place or place.endswith(".py"):
            return AppTarget(path=place, attribute=attribute, factory=called)
        if re.fullmatch(_DOTTED, place):
            return AppTarget(module=place, attribute=attribute, factory=called)
    raise SettingsError(
        f"app = {text!r}: allowed is module:callable, module, module:factory() or a script's path (site/wsgi.py)"
    )


def _app_text(app: object) -> str:
    """An application as text that another process can find; callables that it could not find are refused."""
    if isinstance(app, str):
        return app
    module, name = getattr(app, "__module__", None), getattr(app, "__qualname__", None)
    if not module or not name:
        raise SettingsError(
            f"app = {app!r}: daemon processes must find it by name: give it as 'module:callable'"
        )
    if module == "__main__" or "<" in name:
        raise SettingsError(
            f"app = {app!r}: daemon processes cannot reach {'the main program' if module == '__main__' else 'a local function'}: "
            "put it at the top level of a module of its own and give it as 'module:callable'"
        )
    return f"{module}:{name}"


# --- the settings ---------------------------------------------------------------------------------------------------


def _binds(value: Bind | str | Iterable[Bind | str]) -> tuple[Bind, ...]:
    items = [value] if isinstance(value, (Bind, str)) or not isinstance(value, Iterable) else list(value)
    if not items:
        raise SettingsError("bind: at least one address is needed")
    return tuple(item if isinstance(item, Bind) else parse_bind(_text("bind", item)) for item in items)


def _target(value: object) -> AppTarget:
    return value if isinstance(value, AppTarget) else parse_app(_app_text(value))


def _strings(value: Iterable[str]) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    return tuple(_text("python-path", item) for item in items)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{name} = {value!r}: text is needed")
    return value


@attrs.frozen(kw_only=True)
class GroupSettings:
    """A process group: N daemon processes of M worker threads that run one application."""

    name: str = setting(
        "default",
        "The group's name in the log.",
        pattern=r"[A-Za-z0-9_-]{1,32}",
        described="1 to 32 letters, digits, _ and -",
    )
    app: AppTarget = attrs.field(
        converter=_target,
        metadata={
            "spec": Spec("The application: module:callable, module, module:factory() or a script's path.")
        },
    )
    processes: int = setting(
        2,
        "Daemon processes.",
        least=1,
        most=1024,
        aliases=("-w", "--workers"),
        precedent="the specification's starter configuration",
    )
    threads: int = setting(
        5,
        "Worker threads in each daemon process.",
        least=1,
        most=1024,
        aliases=("--blocking-threads",),
        precedent="the specification's starter configuration",
    )
    listen_backlog: int = setting(
        100,
        "Requests that may wait in the kernel for a worker, for the whole group (not the TCP backlog: that is --backlog).",
        least=1,
        most=65535,
        precedent="mod_wsgi",
    )
    connect_timeout: float = setting(
        15.0,
        "How long a request tries to get into a full listen-backlog before it is answered 503. 0: one try.",
        unit="seconds",
        least=0,
        precedent="mod_wsgi",
    )
    shutdown_timeout: float = setting(
        5.0,
        "How long a daemon process that was told to stop may take before it is killed.",
        unit="seconds",
        least=0,
        aliases=("--workers-kill-timeout",),
        precedent="mod_wsgi",
    )
    python_path: tuple[str, ...] = attrs.field(
        default=(),
        converter=_strings,
        metadata={
            "spec": Spec(
                "Folders that the application's modules are looked for in, first.",
                aliases=("--pythonpath", "--app-dir"),
            )
        },
    )


@attrs.frozen(kw_only=True)
class HttpSettings:
    """What the front accepts from clients."""

    http: str = setting(
        "auto",
        "The HTTP codec: strict is ours (auto means it), h11 is the library of that name behind the same policy.",
        choices=("auto", "strict", "h11"),
    )
    limit_request_line: int = setting(
        8190,
        "The longest request line; beyond it 414.",
        unit="bytes",
        least=64,
        most=1 << 20,
        precedent="Apache",
    )
    limit_request_field_size: int = setting(
        8190,
        "The longest header field line; beyond it 431.",
        unit="bytes",
        least=64,
        most=1 << 20,
        aliases=("--limit-request-field_size",),
        precedent="Apache",
    )
    limit_request_fields: int = setting(
        100, "The most header fields; beyond it 431.", least=1, most=32768, precedent="Apache"
    )
    limit_request_head: int = setting(
        65536,
        "The largest request head in all; beyond it 431.",
        unit="bytes",
        least=256,
        most=1 << 22,
        aliases=("--h11-max-incomplete-event-size",),
    )
    limit_request_body: int = setting(
        0, "The largest request body; beyond it 413. 0: no limit.", unit="bytes", least=0
    )
    allow_trace: bool = setting(False, "Pass TRACE on to the application instead of answering 405.")
    server_header: str = setting(
        "gatekeep",
        "The Server field of responses that have none; empty leaves it out.",
        pattern=r"[ -~]{0,256}",
        described="up to 256 printable ASCII characters",
    )


@attrs.frozen(kw_only=True)
class Settings:
    """Everything a gateway needs to know.

    Raises:
        SettingsError: a value is not allowed, or settings exclude one another.
    """

    binds: tuple[Bind, ...] = attrs.field(
        default=(Bind(BindKind.TCP, "127.0.0.1", DEFAULT_PORT),),
        converter=_binds,
        metadata={
            "spec": Spec(
                "Where to listen: host:port, unix:/path or fd://N; repeatable.",
                aliases=("-b", "--bind"),
                precedent="gunicorn",
            )
        },
    )
    backlog: int = setting(
        1024,
        "Connections of clients that may wait in the kernel for the front (not the hop's: that is --listen-backlog).",
        least=1,
        most=65535,
        precedent="granian, puma",
    )
    graceful_timeout: float = setting(
        15.0,
        "How long requests in flight may take to finish when the gateway is told to stop.",
        unit="seconds",
        least=0,
        aliases=("--timeout-graceful-shutdown",),
        precedent="the specification's starter configuration",
    )
    http: HttpSettings = attrs.field(factory=HttpSettings)
    groups: tuple[GroupSettings, ...] = attrs.field(converter=tuple[GroupSettings, ...])

    @groups.validator
    def _one_group(self, attribute: object, value: tuple[GroupSettings, ...]) -> None:
        if len(value) != 1:
            raise SettingsError(f"groups: exactly one process group is needed, there are {len(value)}")

    @classmethod
    def for_app(cls, app: str | AppTarget | Callable[..., Any], **options: Any) -> Settings:
        """Settings for one application, everything else at its default unless named.

        Args:
            app: `module:callable`, `module`, `module:factory()`, a script's path, or a callable that other processes can import.
            options: any setting of `Settings`, `HttpSettings` or `GroupSettings` by its name.

        Raises:
            SettingsError: an option is unknown or its value is not allowed.
        """
        shares: dict[type, dict[str, Any]] = {cls: {}, HttpSettings: {}, GroupSettings: {}}
        for name, value in options.items():
            share, plain = shares[owner_of(name)], _ALIASED.get(name, name)
            if plain in share:
                raise SettingsError(f"{dashed(plain)} is given twice, by two names")
            share[plain] = value
        group = GroupSettings(app=app, **shares[GroupSettings])
        return cls(http=HttpSettings(**shares[HttpSettings]), groups=(group,), **shares[cls])


for _class in (Settings, GroupSettings, HttpSettings):
    attrs.resolve_types(_class, globals())

_ALIASED = {"bind": "binds", "workers": "processes"}
_NOT_OPTIONS = frozenset({"app", "groups"})


def declared() -> Mapping[str, tuple[type, attrs.Attribute[Any]]]:
    """Every setting that is an option, by name, with the class that holds it. `http` names the codec, not its section."""
    found: dict[str, tuple[type, attrs.Attribute[Any]]] = {}
    for owner in (Settings, GroupSettings, HttpSettings):
        for attribute in attrs.fields(owner):
            if attribute.name not in _NOT_OPTIONS and "spec" in attribute.metadata:
                found[attribute.name] = owner, attribute
    return found


def owner_of(name: str) -> type:
    """The class that holds the setting.

    Raises:
        SettingsError: there is none of that name; the nearest one is suggested.
    """
    known = declared()
    plain = _ALIASED.get(name, name)
    if plain in known:
        return known[plain][0]
    near = difflib.get_close_matches(name, [*known, *_ALIASED], n=1)
    hint = f"; did you mean {dashed(near[0])}?" if near else ""
    raise SettingsError(f"unknown setting {dashed(name)}{hint}")
