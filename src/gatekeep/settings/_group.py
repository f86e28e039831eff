"""The settings of a process group. Pure."""

from __future__ import annotations

import re
from typing import Any

import attrs

from gatekeep._deadlines import fire_after
from gatekeep._errors import SettingsError
from gatekeep._process_options import ProcessOptions, check_variable, parse_umask, parse_variables
from gatekeep.settings import _embedded
from gatekeep.settings._app import AppTarget, check_reachable, parse_app, target_of
from gatekeep.settings._spec import Alias, Spec, never_if_zero, setting, several


def _app(value: object) -> AppTarget | None:
    return None if value is None else target_of(value)


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


def _check_stack(value: int) -> None:
    if 0 < value < LEAST_STACK:
        raise SettingsError(f"stack-size = {value}: allowed is 0 or {LEAST_STACK} bytes and more")


_ACCOUNT: dict[str, Any] = {"pattern": r"[^\0:\n]*", "described": "a name or a number"}
_FOLDER: dict[str, Any] = {"pattern": r"[^\0\ud800-\udfff]*", "described": "a folder's path"}


@attrs.frozen(kw_only=True)
class GroupSettings:
    """A process group: N daemon processes of M worker threads that run one application, or M threads of the gateway itself."""

    name: str = setting(
        "default",
        "The group's name in the log.",
        pattern=r"[A-Za-z0-9_-]{1,32}",
        described="1 to 32 letters, digits, _ and -",
    )
    app: AppTarget | None = attrs.field(
        default=None,
        converter=_app,
        metadata={
            "spec": Spec("The application: module:callable, module, module:factory() or a script's path.")
        },
    )
    processes: int = setting(
        2,
        "Daemon processes. 0: the application runs in the gateway's own process, where nothing can end what hangs.",
        least=0,
        most=1024,
        aliases=("-w", "--workers"),
        precedent="the specification's starter configuration",
    )
    threads: int = setting(
        5,
        "Worker threads in each process.",
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
        foreign=(
            Alias(
                ("--limit-concurrency", "--backpressure"),
                note="here it bounds the requests that wait in the gateway, beside those that run or stand in the listen-backlog",
            ),
        ),
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
        foreign=(
            Alias(
                ("-t", "--timeout"),
                note="gunicorn's is the heartbeat of a worker; here it ends the request, after that time times 1 + ln threads",
            ),
        ),
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
    graceful_timeout: float = setting(
        15.0,
        "How long requests may take to finish in a process that must go, and when the gateway is told to stop.",
        unit="seconds",
        least=0,
        aliases=("--timeout-graceful-shutdown",),
        precedent="the specification's starter configuration",
    )
    eviction_timeout: float | None = setting(
        None,
        "How long requests may take to finish in a process that got SIGUSR1, or `gatekeep drain`. 0: as graceful-timeout.",
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
        "Up to so many requests more than maximum-requests, drawn for each process, so that they are not due together.",
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
        "Up to so much longer than restart-interval, drawn for each process, so that they are not due together.",
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
        foreign=(Alias(("--workers-max-rss",), unit="MiB"),),
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
        aliases=("--app-dir",),
        foreign=(Alias(("--pythonpath",), separator=","),),
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
        "The system's group, by name or number, that these processes run as.",
        aliases=("-g",),
        derived="the user's own",
        **_ACCOUNT,
    )
    supplementary_groups: tuple[str, ...] = several(
        "supplementary-groups",
        "Further groups of these processes, instead of those that the user belongs to; repeatable.",
        item="group",
    )
    umask: str = setting(
        "",
        "The umask of the application's processes: an octal number such as 0027.",
        pattern=r"((0o)?0*[0-7]{1,3})?",
        described="an octal number of up to three digits, such as 0027",
        aliases=("-m",),
        derived="the gateway's own",
    )
    home: str = setting(
        "",
        "The folder that the application's processes run in; --chdir is for the gateway itself.",
        derived="the gateway's own",
        precedent="mod_wsgi",
        **_FOLDER,
    )
    lang: str = setting(
        "",
        "LANG in the environment of the application's processes.",
        pattern=r"[^\0]*",
        described="a text without NUL",
    )
    locale: str = setting(
        "",
        "LC_ALL in the environment of the application's processes.",
        pattern=r"[^\0]*",
        described="a text without NUL",
    )
    env: tuple[str, ...] = several(
        "env",
        "A variable, NAME=VALUE, for the application's processes, beside the gateway's own; repeatable.",
        check_variable,
        item="NAME=VALUE",
        aliases=("-e",),
    )
    display_name: str = setting(
        "(gatekeep:%{GROUP})",
        "What ps shows of the application's processes; %{GROUP} is the name of the process group. Empty: the command line.",
        pattern=r"[^\0-\x1f\x7f\ud800-\udfff]{0,200}",
        described="up to 200 printable characters",
        aliases=("-n", "--name", "--process-name"),
        precedent="mod_wsgi",
    )
    nice: int | None = setting(
        None,
        "The priority of the application's processes, from -20, the highest, to 19, the lowest; only root may raise it.",
        least=-20,
        most=19,
        aliases=("--cpu-priority",),
        derived="the gateway's own",
        precedent="mod_wsgi's cpu-priority",
    )
    stack_size: int = setting(
        0,
        f"The size of a worker thread's stack, {LEAST_STACK} at least. 0: the system's.",
        check=_check_stack,
        unit="bytes",
        least=0,
        most=1 << 30,
        precedent="mod_wsgi",
    )
    virtual_memory_limit: int = setting(
        0,
        "How much address space a process may have, the stacks of its threads included; beyond it MemoryError. 0: no limit.",
        unit="bytes",
        least=0,
        most=1 << 60,
        precedent="mod_wsgi",
    )

    def __attrs_post_init__(self) -> None:
        if self.is_embedded:
            _embedded.check(self)
        elif self.app is not None:
            check_reachable(self.app)

    @property
    def is_embedded(self) -> bool:
        """Whether it has no processes, and its application runs in the gateway's own."""
        return self.processes == 0

    @property
    def in_effect(self) -> GroupSettings:
        """The settings as they count: in the gateway's own process many are off (see `_embedded`)."""
        return _embedded.in_effect(self) if self.is_embedded else self

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
    def eviction_timeout_or_default(self) -> float:
        """eviction-timeout in seconds; graceful-timeout where it is not given, or 0, which means that with mod_wsgi, too."""
        return self.eviction_timeout or self.graceful_timeout

    @property
    def socket_timeout_or_default(self) -> float:
        """socket-timeout in seconds, derived where it is not given; `math.inf` for never.

        It must outlast every request that is not wedged, and the drain of one that is: the longest that a request may run, its
        interruption, graceful-timeout or eviction-timeout, shutdown-timeout, and five seconds.
        """
        if self.socket_timeout is not None:
            return never_if_zero(self.socket_timeout)
        longest_run = fire_after(self.request_timeout, self.threads) + self.interrupt_timeout
        window = max(self.graceful_timeout, self.eviction_timeout_or_default)
        return longest_run + window + self.shutdown_timeout + 5.0

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
