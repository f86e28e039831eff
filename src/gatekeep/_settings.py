"""All settings, each declared once: type, default with its precedent, limits, help. Pure.

The command line's flags are made from these declarations, so a setting has one name, one default and one explanation.
Nothing is silently corrected: what cannot be is refused with a `SettingsError` that names the setting, its value and what is
allowed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, cast

import attrs

from gatekeep._deadlines import fire_after
from gatekeep._errors import SettingsError
from gatekeep._process_options import ProcessOptions, check_variable, parse_umask, parse_variables
from gatekeep._trust import LOOPBACK, check_headers, parse_header, parse_network, trusts_everyone


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
        derived: what the value is made from where none is given.
        item: what one of several values is, for a setting that takes any number of them.
        bare: the value that the flag stands for where it is typed without one.
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
    derived: str = ""
    item: str = ""
    bare: str = ""

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


def plain_type(attribute: attrs.Attribute[Any]) -> type | None:
    """A setting's type, without the None of those that are derived where they are not given."""
    kind: Any = attribute.type
    if kind == (float | None):
        return float
    return int if kind == (int | None) else kind


def _validate(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    kind = plain_type(attribute)
    if value is None and attribute.default is None:
        return
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
    """One address to listen on. Make it with `parse_bind`.

    Attributes:
        proxy_protocol: what its connections begin with; empty: as the setting of that name says.
    """

    kind: BindKind
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1
    proxy_protocol: str = ""

    def __str__(self) -> str:
        return self.address + (f",proxy-protocol={self.proxy_protocol}" if self.proxy_protocol else "")

    @property
    def address(self) -> str:
        """Where it is, without what is said there."""
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

PROXY_PROTOCOLS = ("off", "v1", "v2", "auto")
_BIND = re.compile(rf"(.*?)(?:,proxy-protocol=({'|'.join(PROXY_PROTOCOLS)}))?", re.DOTALL)


def parse_bind(text: str, name: str = "bind") -> Bind:
    """`host:port`, `:port`, `host`, `[::1]:port`, `unix:/path` or `fd://N`, as gunicorn and hypercorn have it.

    `,proxy-protocol=off|v1|v2|auto` may follow.

    Raises:
        SettingsError: it is none of these; `name` is the setting's.
    """
    parts = _BIND.fullmatch(text)
    assert parts is not None, "the expression matches anything"
    return attrs.evolve(_parse_address(parts[1], text, name), proxy_protocol=parts[2] or "")


def _parse_address(text: str, given: str, name: str) -> Bind:
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
        f"{name} = {given!r}: allowed is host:port (port 0 to 65535), [ipv6]:port, unix:/path or fd://N"
        + (f", then ,proxy-protocol={'|'.join(PROXY_PROTOCOLS)}" if ",proxy" in given else "")
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


def _binds(value: Bind | str | Iterable[Bind | str], name: str = "bind") -> tuple[Bind, ...]:
    items = [value] if isinstance(value, (Bind, str)) or not isinstance(value, Iterable) else list(value)
    if not items and name == "bind":
        raise SettingsError("bind: at least one address is needed")
    return tuple(item if isinstance(item, Bind) else parse_bind(_text(name, item), name) for item in items)


def _health_binds(value: Bind | str | Iterable[Bind | str]) -> tuple[Bind, ...]:
    return _binds(value, "health-bind")


def _target(value: object) -> AppTarget:
    return value if isinstance(value, AppTarget) else parse_app(_app_text(value))


def several(
    name: str, help: str, check: Callable[[str], str] = str, default: tuple[str, ...] = (), **spec: Any
) -> Any:
    """Declare a setting that takes any number of texts; `check` returns one of them as it is kept, or refuses it."""

    def convert(value: object) -> tuple[str, ...]:
        items = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
        return tuple(check(_text(name, item)) for item in items)

    return attrs.field(default=default, converter=convert, metadata={"spec": Spec(help, **spec)})


def _python_folder(text: str) -> str:
    if not re.fullmatch(_FOLDER["pattern"], text):
        raise SettingsError(f"python-path = {text!r}: allowed is {_FOLDER['described']}, in UTF-8")
    return text


def _import_script(text: str) -> str:
    try:
        target = parse_app(text)
    except SettingsError:
        target = None
    if target is None or target.attribute:
        raise SettingsError(
            f"import-scripts = {text!r}: allowed is a module's name or a script's path (site/warm_up.py)"
        )
    return str(target)


LEAST_STACK = 32768
"""Bytes; Python refuses less."""


def _validate_stack(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if 0 < value < LEAST_STACK:
        raise SettingsError(f"stack-size = {value}: allowed is 0 or {LEAST_STACK} bytes and more")


def listed(
    name: str, help: str, check: Callable[[str, str], str], default: tuple[str, ...], **spec: Any
) -> Any:
    """The same for texts without commas, any number of which may be given as one text with commas between them; each once."""

    def convert(value: object) -> tuple[str, ...]:
        items = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
        texts = [text.strip() for item in items for text in _text(name, item).split(",")]
        return tuple(dict.fromkeys(check(name, text) for text in texts if text))

    return attrs.field(default=default, converter=convert, metadata={"spec": Spec(help, **spec)})


_ACCOUNT = {"pattern": r"[^\0:\n]*", "described": "a name or a number"}
_FOLDER = {"pattern": r"[^\0\ud800-\udfff]*", "described": "a folder's path"}


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
    max_waiting: int = setting(
        2048,
        "Requests that may wait in the gateway while the listen-backlog is full; one more is answered 503 at once.",
        least=0,
        most=1 << 20,
        precedent="the accept queues of gunicorn and uvicorn hold as many",
    )
    queue_timeout: float = setting(
        45.0,
        "How long a request may wait for a worker, from the first time it was offered; beyond it 504. 0: for ever.",
        unit="seconds",
        least=0,
        precedent="the specification's starter configuration",
    )
    queue_shed: str = setting(
        "deadline",
        "When a request beyond its queue-timeout is answered: at the deadline, or, as mod_wsgi does, not before its pickup.",
        choices=("deadline", "pickup"),
    )
    client_gone_delay: float = setting(
        0.25,
        "How long a request still waits for a worker after its client's sending side has ended: gone, or only half-closed?",
        unit="seconds",
        least=0,
    )
    socket_timeout: float | None = setting(
        None,
        "How long one read or write between gateway and worker may take, the wait for the head included; then 504. 0: for ever.",
        unit="seconds",
        least=0,
        derived="the longest a request can run and its process drain, and 5 seconds: 191.6 with 5 threads",
    )
    request_timeout: float = setting(
        60.0,
        "How long a request may run, times 1 + ln threads; then it is interrupted (no heartbeat as in gunicorn). 0: for ever.",
        unit="seconds",
        least=0,
        aliases=("-t", "--timeout"),
        precedent="the specification's starter configuration",
    )
    interrupt_timeout: float = setting(
        10.0,
        "How long an interrupted request may take to end before its process is replaced. 0: replace it at once.",
        unit="seconds",
        least=0,
        precedent="the least that mod_wsgi's guide recommends",
    )
    interrupt_sockets: bool = setting(
        True,
        "Shut the connection that an interrupted request waits for (Linux), since nothing else would wake it.",
    )
    deadlock_timeout: float = setting(
        60.0,
        "How long a process may give no sign of life (a C extension keeps the GIL) before it is replaced. 0: for ever.",
        unit="seconds",
        least=0,
        precedent="the specification's starter configuration; mod_wsgi's raw default is 300",
    )
    startup_timeout: float = setting(
        60.0,
        "How long a process may take from its start until the application is loaded; then a fresh one tries. 0: for ever.",
        unit="seconds",
        least=0,
        precedent="puma (mod_wsgi-express has 15, which several processes that start at once on a busy machine may need)",
    )
    inactivity_timeout: float = setting(
        0.0,
        "How long a process may have nothing to do before it ends; the next request starts one. 0: for ever.",
        unit="seconds",
        least=0,
        precedent="mod_wsgi",
    )
    eviction_timeout: float | None = setting(
        None,
        "How long requests may take to finish in a process that got SIGUSR1, or `gatekeep drain`.",
        unit="seconds",
        least=0,
        derived="graceful-timeout",
    )
    maximum_requests: int = setting(
        0,
        "A process that has had so many requests is replaced. 0: never.",
        least=0,
        aliases=("--max-requests", "--limit-max-requests"),
        precedent="mod_wsgi",
    )
    maximum_requests_jitter: int | None = setting(
        None,
        "Up to so many more, drawn for each process, so that they are not due together.",
        least=0,
        aliases=("--max-requests-jitter", "--limit-max-requests-jitter"),
        derived="a tenth of maximum-requests",
    )
    restart_interval: float = setting(
        0.0,
        "A process that has served for so long is replaced. 0: never.",
        unit="seconds",
        least=0,
        aliases=("--workers-lifetime",),
        precedent="mod_wsgi",
    )
    restart_interval_jitter: float | None = setting(
        None,
        "Up to so much longer, drawn for each process, so that they are not due together.",
        unit="seconds",
        least=0,
        derived="a tenth of restart-interval",
    )
    cpu_time_limit: float = setting(
        0.0,
        "A process that has used so much CPU time since its start is replaced. 0: never.",
        unit="seconds",
        least=0,
        precedent="mod_wsgi",
    )
    memory_limit: int = setting(
        0,
        "A process whose resident memory stays above this is replaced. 0: never.",
        unit="bytes",
        least=0,
        precedent="granian's workers-max-rss, which is in MiB",
    )
    script_reloading: str = setting(
        "on",
        "When the file of APP changes: replace the processes while the old ones serve (on), refuse the request and start anew "
        "as mod_wsgi does (strict), or nothing (off).",
        choices=("on", "strict", "off"),
        precedent="mod_wsgi",
    )
    cancel_on_disconnect: bool = setting(
        False, "Interrupt a request whose client's connection was reset while it runs."
    )
    request_buffering: bool = setting(
        True,
        "Receive a request's body before a worker is asked, so that a slow upload holds none. Off: pass it on as it comes.",
        precedent="nginx",
    )
    shutdown_timeout: float = setting(
        5.0,
        "How long a daemon process that was told to stop may take before it is killed.",
        unit="seconds",
        least=0,
        aliases=("--workers-kill-timeout",),
        precedent="mod_wsgi",
    )
    python_path: tuple[str, ...] = several(
        "python-path",
        "Folders that the application's modules are looked for in, first.",
        _python_folder,
        item="folder",
        aliases=("--pythonpath", "--app-dir"),
    )
    import_scripts: tuple[str, ...] = several(
        "import-scripts",
        "Modules or scripts' paths that each process imports before the application; repeatable.",
        _import_script,
        item="script",
        aliases=("--import-script",),
        precedent="mod_wsgi's WSGIImportScript",
    )
    user: str = setting(
        "",
        "The user, by name or number, that the application's processes run as; the gateway must be root. "
        "HOME, USER and LOGNAME are that user's.",
        aliases=("-u",),
        derived="the gateway's own",
        **_ACCOUNT,
    )
    group: str = setting(
        "",
        "Their group (the system's), by name or number.",
        aliases=("-g",),
        derived="the user's own",
        **_ACCOUNT,
    )
    supplementary_groups: tuple[str, ...] = several(
        "supplementary-groups",
        "Their further groups instead of those that the user belongs to; repeatable.",
        item="group",
    )
    umask: str = setting(
        "",
        "Permissions that files which they make do not get: an octal number such as 0027.",
        pattern=r"((0o)?0*[0-7]{1,3})?",
        described="an octal number of up to three digits, such as 0027",
        aliases=("-m",),
        derived="the gateway's own",
    )
    home: str = setting(
        "",
        "The folder that they run in; --chdir is the gateway's own.",
        derived="the gateway's own",
        precedent="mod_wsgi",
        **_FOLDER,
    )
    lang: str = setting("", "LANG in their environment.", pattern=r"[^\0]*", described="a text without NUL")
    locale: str = setting(
        "", "LC_ALL in their environment.", pattern=r"[^\0]*", described="a text without NUL"
    )
    env: tuple[str, ...] = several(
        "env",
        "NAME=VALUE, a variable in their environment, beside the gateway's own; repeatable.",
        check_variable,
        item="NAME=VALUE",
        aliases=("-e",),
    )
    display_name: str = setting(
        "(gatekeep:%{GROUP})",
        "What ps shows of them; %{GROUP} is the name of the process group. Empty: their command line.",
        pattern=r"[^\0-\x1f\x7f\ud800-\udfff]{0,200}",
        described="up to 200 printable characters",
        precedent="mod_wsgi",
    )
    nice: int | None = setting(
        None,
        "Their priority, from -20, all for them, to 19, only what nobody else wants; only root may raise it.",
        least=-20,
        most=19,
        aliases=("--cpu-priority",),
        derived="the gateway's own",
        precedent="mod_wsgi's cpu-priority",
    )
    stack_size: int = attrs.field(
        default=0,
        validator=[_validate, _validate_stack],
        metadata={
            "spec": Spec(
                f"The size of a worker thread's stack, {LEAST_STACK} at least. 0: the system's.",
                unit="bytes",
                least=0,
                most=1 << 30,
                precedent="mod_wsgi",
            )
        },
    )
    virtual_memory_limit: int = setting(
        0,
        "How much address space a process may have, the stacks of its threads included; beyond it MemoryError. 0: no limit.",
        unit="bytes",
        least=0,
        most=1 << 60,
        precedent="mod_wsgi",
    )

    @property
    def process_options(self) -> ProcessOptions:
        """What the system is to give its processes."""
        return ProcessOptions(
            user=self.user,
            group=self.group,
            supplementary_groups=self.supplementary_groups,
            umask=parse_umask(self.umask),
            environment=parse_variables(self.lang, self.locale, self.env),
            nice=self.nice,
            home=self.home,
            virtual_memory_limit=self.virtual_memory_limit,
        )

    @property
    def maximum_requests_jitter_or_default(self) -> int:
        """maximum-requests-jitter, derived where it is not given."""
        given = self.maximum_requests_jitter
        return self.maximum_requests // 10 if given is None else given

    @property
    def restart_interval_jitter_or_default(self) -> float:
        """restart-interval-jitter in seconds, derived where it is not given."""
        given = self.restart_interval_jitter
        return self.restart_interval / 10 if given is None or not self.restart_interval else given


LIVEZ, READYZ = "/livez", "/readyz"
"""Where health is asked for on addresses that are for nothing else; the names are Kubernetes' own."""

_PROBE_PATH = r"(/(?:(?![?#])[!-~])*)?"
_PROBE_PATH_DESCRIBED = "a path as clients send it: / first, printable ASCII without ? and #"


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
    header_timeout: float = setting(
        15.0,
        "How long a client may take for a request's head; what arrives extends it at header-min-rate. Then 408. 0: for ever.",
        unit="seconds",
        least=0,
        precedent="mod_wsgi-express",
    )
    header_max_timeout: float = setting(
        30.0,
        "How long a request's head may take however steadily it comes. 0: no limit.",
        unit="seconds",
        least=0,
        precedent="mod_wsgi-express",
    )
    header_min_rate: int = setting(
        500,
        "Bytes that extend header-timeout by a second. 0: nothing extends it.",
        unit="bytes",
        least=0,
        precedent="mod_wsgi-express",
    )
    body_timeout: float = setting(
        15.0,
        "How long a client may keep us waiting for a request's body; what arrives makes up for it at body-min-rate. Then 408. "
        "0: for ever.",
        unit="seconds",
        least=0,
        precedent="mod_wsgi-express",
    )
    body_max_timeout: float = setting(
        0.0,
        "How long we wait for a request's body in all, however steadily it comes. 0: no limit.",
        unit="seconds",
        least=0,
        precedent="mod_wsgi-express",
    )
    body_min_rate: int = setting(
        500,
        "Bytes that make up for a second of body-timeout. 0: nothing does.",
        unit="bytes",
        least=0,
        precedent="mod_wsgi-express",
    )
    keep_alive_timeout: float = setting(
        65.0,
        "How long an idle connection is kept for a client's next request. 0: it is closed after each response.",
        unit="seconds",
        least=0,
        aliases=("--keep-alive", "--timeout-keep-alive"),
        precedent="puma; load balancers keep theirs for 60 seconds",
    )
    response_socket_timeout: float | None = setting(
        None,
        "How long one write to a client may wait for it to read. 0: for ever.",
        unit="seconds",
        least=0,
        derived="socket-timeout",
    )
    max_connections: int = setting(
        10000,
        "Clients' connections at once. At the limit, or out of descriptors, idle ones are closed first, then new ones wait.",
        least=1,
        most=1 << 20,
        precedent="ten times gunicorn's worker-connections",
    )
    request_buffer_size: int = setting(
        131072,
        "What is held in memory of a request's body; the rest goes to a temporary file.",
        unit="bytes",
        least=16384,
        most=1 << 30,
        precedent="puma",
    )
    response_buffer_size: int = setting(
        262144,
        "What is held in memory of a response that its client reads slowly; the rest goes to a temporary file.",
        unit="bytes",
        least=16384,
        most=1 << 30,
    )
    response_spool_size: int = setting(
        1 << 27,
        "The largest such file; beyond it the worker waits for the client.",
        unit="bytes",
        least=0,
        precedent="Passenger",
    )
    spool_dir: str = setting(
        "",
        "The folder of temporary files; empty means the system's.",
        pattern=r"[^\0]*",
        described="a folder's path",
    )
    livez_path: str = setting(
        "",
        "The path at which we say ourselves that the gateway runs, on every address. Empty: none.",
        aliases=("--health-check-path",),
        pattern=_PROBE_PATH,
        described=_PROBE_PATH_DESCRIBED,
    )
    readyz_path: str = setting(
        "",
        "The path at which we say ourselves whether a request that came now would be served: 200 or 503. Empty: none.",
        pattern=_PROBE_PATH,
        described=_PROBE_PATH_DESCRIBED,
    )
    proxy_headers: bool = setting(
        True, "Whether any proxy is believed. Otherwise applications see nothing of what proxies say."
    )
    trusted_proxies: tuple[str, ...] = listed(
        "trusted-proxies",
        "Peers that are believed about whom they speak for: addresses, networks or * (anybody), with commas; repeatable. "
        "UNIX sockets' always are.",
        parse_network,
        LOOPBACK,
        item="network",
        aliases=("--forwarded-allow-ips",),
        precedent="gunicorn",
    )
    trusted_proxy_headers: tuple[str, ...] = listed(
        "trusted-proxy-headers",
        "The fields that they are believed about, with commas; repeatable. Name those that your proxy sets or removes in every "
        "request, and no others.",
        parse_header,
        ("x-forwarded-for", "x-forwarded-proto"),
        item="header",
        precedent="uvicorn",
    )
    proxy_protocol: str = setting(
        "off",
        "Every connection to the addresses of --bind begins with a PROXY header of that version, auto: of either; "
        "for one address alone: --bind ADDRESS,proxy-protocol=v2.",
        choices=PROXY_PROTOCOLS,
        bare="auto",
    )
    proxy_allow_from: tuple[str, ...] = listed(
        "proxy-allow-from",
        "Peers that may connect where the PROXY protocol is spoken: addresses, networks or * (anybody), with commas; repeatable. "
        "UNIX sockets' always may.",
        parse_network,
        LOOPBACK,
        item="network",
        precedent="gunicorn",
    )
    allow_trace: bool = setting(False, "Pass TRACE on to the application instead of answering 405.")
    server_header: str = setting(
        "gatekeep",
        "The Server field of responses that have none; empty leaves it out.",
        pattern=r"[ -~]{0,256}",
        described="up to 256 printable ASCII characters",
    )

    @trusted_proxy_headers.validator
    def _told_once(self, attribute: object, value: tuple[str, ...]) -> None:
        check_headers("trusted-proxy-headers", value)

    @readyz_path.validator
    def _two_paths(self, attribute: object, value: str) -> None:
        if value and value == self.livez_path:
            raise SettingsError(f"readyz-path = {value!r}: allowed is any other path than livez-path")

    @property
    def health_paths(self) -> tuple[str, str]:
        """Where the addresses of health-bind answer, livez first: at the paths that are set, or at their own."""
        return self.livez_path or LIVEZ, self.readyz_path or READYZ


@attrs.frozen(kw_only=True)
class ReloadSettings:
    """For development: processes that start again when a file changes."""

    reload: bool = setting(
        False, "For development: start again when a file changes, and show why where the import fails."
    )
    reload_dir: tuple[str, ...] = several(
        "reload-dir",
        "A folder to watch, beside the present one and those that modules were loaded from; repeatable.",
        item="folder",
        aliases=("--reload-dirs", "--reload-paths"),
    )
    reload_include: tuple[str, ...] = several(
        "reload-include",
        "Names of files that count, as patterns; repeatable.",
        default=("*.py",),
        item="pattern",
    )
    reload_exclude: tuple[str, ...] = several(
        "reload-exclude", "Names of files that do not, as patterns; repeatable.", item="pattern"
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
    health_binds: tuple[Bind, ...] = attrs.field(
        default=(),
        converter=_health_binds,
        metadata={
            "spec": Spec(
                "Where to answer health probes (/livez, /readyz) and nothing else, whatever users do; as --bind, repeatable.",
                aliases=("--health-bind",),
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
    shutdown_delay: float = setting(
        0.0,
        "How long everything is still served after the gateway was told to stop, while its readiness probe says so already.",
        unit="seconds",
        least=0,
        aliases=("--drain-delay",),
        precedent="Kubernetes: endpoints are taken away while the process gets its signal",
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
    reload: ReloadSettings = attrs.field(factory=ReloadSettings)
    groups: tuple[GroupSettings, ...] = attrs.field(converter=tuple[GroupSettings, ...])

    @groups.validator
    def _one_group(self, attribute: object, value: tuple[GroupSettings, ...]) -> None:
        if len(value) != 1:
            raise SettingsError(f"groups: exactly one process group is needed, there are {len(value)}")

    @health_binds.validator
    def _for_health_alone(self, attribute: object, value: tuple[Bind, ...]) -> None:
        taken = {bind.address for bind in self.binds}
        for bind in value:
            if bind.address in taken and (bind.kind is not BindKind.TCP or bind.port):
                raise SettingsError(
                    f"health-bind = '{bind}': allowed is any other address than those of bind"
                )
        livez, readyz = self.http.health_paths
        if value and livez == readyz:
            raise SettingsError(
                f"health-bind: livez-path and readyz-path are both {livez!r} there, one of them by default: set both"
            )

    def socket_timeout_of(self, group: GroupSettings) -> float:
        """A group's socket-timeout in seconds, derived where it is not given; `math.inf` for never.

        It must outlast every request that is not wedged, and the drain of one that is: the longest that a request may run, its
        interruption, graceful-timeout or eviction-timeout, shutdown-timeout, and five seconds.
        """
        if group.socket_timeout is not None:
            return never_if_zero(group.socket_timeout)
        longest_run = fire_after(group.request_timeout, group.threads) + group.interrupt_timeout
        window = max(self.graceful_timeout, group.eviction_timeout or 0.0)
        return longest_run + window + group.shutdown_timeout + 5.0

    @property
    def response_socket_timeout(self) -> float:
        """response-socket-timeout in seconds, `math.inf` for never ("defaults to the value of socket-timeout")."""
        given = self.http.response_socket_timeout
        if given is None:
            return max(map(self.socket_timeout_of, self.groups))
        return never_if_zero(given)

    def trusts_anybody(self) -> Mapping[str, str]:
        """The settings by which anybody is believed, with the item that says so."""
        http = self.http
        introduced = any((bind.proxy_protocol or http.proxy_protocol) != "off" for bind in self.binds)
        found = {
            "trusted-proxies": trusts_everyone(http.trusted_proxies) if http.proxy_headers else "",
            "proxy-allow-from": trusts_everyone(http.proxy_allow_from) if introduced else "",
        }
        return {name: item for name, item in found.items() if item}

    @classmethod
    def for_app(cls, app: str | AppTarget | Callable[..., Any], **options: Any) -> Settings:
        """Settings for one application, everything else at its default unless named.

        Args:
            app: `module:callable`, `module`, `module:factory()`, a script's path, or a callable that other processes can import.
            options: any setting of `Settings`, `HttpSettings` or `GroupSettings` by its name.

        Raises:
            SettingsError: an option is unknown or its value is not allowed.
        """
        shares: dict[type, dict[str, Any]] = {
            cls: {},
            HttpSettings: {},
            ReloadSettings: {},
            GroupSettings: {},
        }
        for name, value in options.items():
            share, plain = shares[owner_of(name)], _ALIASED.get(name, name)
            if plain in share:
                raise SettingsError(f"{dashed(plain)} is given twice, by two names")
            share[plain] = value
        group = GroupSettings(app=app, **shares[GroupSettings])
        return cls(
            http=HttpSettings(**shares[HttpSettings]),
            reload=ReloadSettings(**shares[ReloadSettings]),
            groups=(group,),
            **shares[cls],
        )


for _class in (Settings, GroupSettings, HttpSettings, ReloadSettings):
    attrs.resolve_types(_class, globals())


def never_if_zero(seconds: float) -> float:
    """A timer's setting as the code has it: 0 switches it off, which inside is `math.inf`."""
    return seconds or math.inf


_ALIASED = {"bind": "binds", "health_bind": "health_binds", "workers": "processes"}
_NOT_OPTIONS = frozenset({"app", "groups"})


def declared() -> Mapping[str, tuple[type, attrs.Attribute[Any]]]:
    """Every setting that is an option, by name, with the class that holds it. `http` and `reload` mean the
    settings of these names, not their sections."""
    found: dict[str, tuple[type, attrs.Attribute[Any]]] = {}
    for owner in (Settings, GroupSettings, HttpSettings, ReloadSettings):
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
