"""Flags of other servers that are no settings here: what happens when they are typed. Pure.

Those that are settings are declared beside them (`Spec.aliases`, `Spec.foreign`).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Any

import attrs


class Fate(StrEnum):
    """What becomes of something that another server knows."""

    SET = "set"
    SAME = "same"
    IGNORED = "ignored"
    REFUSED = "refused"


class Takes(StrEnum):
    """What follows a flag."""

    NOTHING = "nothing"
    ONE = "one"
    MAYBE = "maybe"


@attrs.frozen
class ForeignFlag:
    """Flags that are understood, and are no settings.

    Attributes:
        reason: why, and what to use instead; a sentence without its end.
        words: for some values (patterns) something else: the first one that fits counts.
        sets: settings that come with it.
    """

    flags: tuple[str, ...]
    reason: str
    fate: Fate = Fate.IGNORED
    takes: Takes = Takes.NOTHING
    words: tuple[tuple[str, Fate, str], ...] = ()
    sets: tuple[tuple[str, Any], ...] = ()

    def judge(self, value: str) -> tuple[Fate, str]:
        """What becomes of it with that value, and why."""
        for pattern, fate, reason in self.words:
            if fnmatch.fnmatchcase(value, pattern):
                return fate, reason
        return self.fate, self.reason


def _same(*flags: str, reason: str, takes: Takes = Takes.NOTHING) -> ForeignFlag:
    return ForeignFlag(flags, reason, Fate.SAME, takes)


def _ignored(*flags: str, reason: str, takes: Takes = Takes.NOTHING, **more: Any) -> ForeignFlag:
    return ForeignFlag(flags, reason, Fate.IGNORED, takes, **more)


def _refused(*flags: str, reason: str, takes: Takes = Takes.NOTHING, **more: Any) -> ForeignFlag:
    return ForeignFlag(flags, reason, Fate.REFUSED, takes, **more)


NO_TLS = (
    "gatekeep speaks no TLS yet, and traffic would be plain: put a proxy before it that ends TLS, and trust it "
    "(trusted-proxies)"
)
NO_ASGI = (
    "gatekeep serves WSGI applications; an ASGI application needs an ASGI server, in which a Gateway can be mounted for the "
    "WSGI part"
)
THREADS_ONLY = "the application runs in threads here: raise threads, and take out monkey-patching"
LOG_IS_ONE = "requests are logged where all is: in log-file"
LOG_IS_STDOUT = "the log goes to standard output, or to log-file"
LOG_IS_DATA = "log-format is console or json; for the lines of requests there is access-log-format, with gunicorn's atoms"
NO_METRICS = "there are no metrics to fetch yet: gatekeep status --json has the figures"
NO_STATIC = "gatekeep serves no files: let the proxy do that, or WhiteNoise in the application"
NO_HTTP2 = "clients are served over HTTP/1.1: let the proxy before it speak HTTP/2"
NO_WEBSOCKETS = "WebSockets are not served: give them to an ASGI server beside gatekeep"
STRICT_FRONT = "the front stays strict: such requests are refused"
ALWAYS_FRESH = "each process loads the application itself, so that a new one has new code"
FOREGROUND = (
    "gatekeep stays in the foreground: run it under systemd (examples/systemd) or as a container's process"
)
CONTROL = "the control socket is in the gateway's run folder, for its user alone; gatekeep status finds it"
ONE, MAYBE = Takes.ONE, Takes.MAYBE

FOREIGN_FLAGS: Sequence[ForeignFlag] = (
    # --- workers
    _refused(
        "-k",
        "--worker-class",
        takes=ONE,
        reason="that worker class is not known here: gatekeep runs threads in processes (threads, processes)",
        words=(
            ("sync", Fate.IGNORED, "the application runs in threads here; threads = 1 for one that may not"),
            ("gthread", Fate.SAME, "processes of threads are what gatekeep has"),
            ("gunicorn.workers.sync*", Fate.IGNORED, "the application runs in threads here; threads = 1 for one that may not"),
            ("gunicorn.workers.gthread*", Fate.SAME, "processes of threads are what gatekeep has"),
            ("*gevent*", Fate.REFUSED, THREADS_ONLY),
            ("*eventlet*", Fate.REFUSED, THREADS_ONLY),
            ("*tornado*", Fate.REFUSED, "a Tornado application is no WSGI application: run it with Tornado's own server"),
            ("*uvicorn*", Fate.REFUSED, NO_ASGI),
            ("*asgi*", Fate.REFUSED, NO_ASGI),
            ("asyncio", Fate.REFUSED, "hypercorn's means its event loop: use --loop asyncio"),
            ("uvloop", Fate.REFUSED, "hypercorn's means its event loop: use --loop uvloop"),
            ("trio", Fate.REFUSED, "hypercorn's means its event loop: use --loop trio"),
        ),
    ),
    _ignored("--preload", reason=f"{ALWAYS_FRESH}; nothing is shared by forking"),
    _ignored(
        "--worker-connections", takes=ONE, reason="max-connections bounds clients, for the whole gateway"
    ),
    _ignored("--worker-tmp-dir", takes=ONE, reason="signs of life need no files here"),
    _ignored("--sendfile", "--no-sendfile", reason="bodies pass through the front, which holds slow clients off the workers"),
    _ignored("--reuse-port", reason="one front owns the listening sockets, so that no process gets a connection that hangs"),
    _ignored("--timeout-worker-healthcheck", takes=ONE, reason="deadlock-timeout is the time without a sign of life"),
    _ignored("--blocking-threads-idle-timeout", takes=ONE, reason="threads stay"),
    _ignored(
        "--runtime-threads", "--runtime-blocking-threads", "--runtime-mode", "--task-impl", takes=ONE,
        reason="the front is one event loop (loop)",
    ),
    _same("--respawn-failed-workers", reason="a process that ends is replaced"),
    _ignored("--no-respawn-failed-workers", reason="a process that ends is replaced"),
    _ignored("--respawn-interval", takes=ONE, reason="processes are replaced one at a time, each when its successor is ready"),
    _ignored(
        "--rss-sample-interval", "--rss-samples", takes=ONE,
        reason="memory is looked at every second, and counts when it is above memory-limit three times in a row",
    ),
    _ignored("--reset-contextvars", reason="each request has a context of its own data (gatekeep.request_data)"),
    _ignored("--spew", reason="gatekeep stacks shows what all threads do"),
    _ignored("--debug", reason="use --log-level debug"),
    # --- what is served
    _refused(
        "--interface", takes=ONE, reason=NO_ASGI,
        words=(("wsgi", Fate.SAME, "it is WSGI"), ("auto", Fate.SAME, "it is WSGI")),
    ),
    _same("--no-factory", reason="APP is the application itself unless --factory is given"),
    _refused(
        "--lifespan", takes=ONE, reason=NO_ASGI,
        words=(("off", Fate.SAME, "WSGI has no lifespan"), ("auto", Fate.SAME, "WSGI has no lifespan")),
    ),
    _refused(
        "--ws", takes=MAYBE, reason=NO_WEBSOCKETS,
        words=(("none", Fate.SAME, "there are no WebSockets"), ("auto", Fate.IGNORED, NO_WEBSOCKETS)),
    ),
    _same("--no-ws", reason="there are no WebSockets"),
    _ignored(
        "--ws-max-size", "--ws-max-queue", "--ws-ping-interval", "--ws-ping-timeout", "--ws-per-message-deflate",
        "--websocket-ping-interval", "--websocket-max-message-size", takes=ONE, reason=NO_WEBSOCKETS,
    ),
    _ignored(
        "--asgi-loop", "--asgi-lifespan", "--asgi-disconnect-grace-period", takes=ONE,
        reason="it is for ASGI applications",
    ),
    _refused("--paste", "--paster", takes=ONE, reason="name a factory of your own that loads it: module:factory()"),
    _ignored("--paste-global", takes=ONE, reason="there is no --paste here"),
    _refused("--dirty-app", takes=ONE, reason="there are no such processes: give long jobs a group of their own ([groups])"),
    _ignored(
        "--dirty-workers", "--dirty-timeout", "--dirty-threads", "--dirty-graceful-timeout", takes=ONE,
        reason="there are no such processes: give long jobs a group of their own ([groups])",
    ),
    _refused("--server-name", takes=ONE, reason="name hosts in gatekeep.toml: [[mounts]] with host"),
    _ignored(
        "--static-path-route", "--static-path-mount", "--static-path-dir-to-file", "--static-path-expires", takes=ONE,
        reason=NO_STATIC,
    ),
    _ignored("--header", takes=ONE, reason="no setting adds fields to responses: the application or the proxy must"),
    _same("--date-header", reason="responses have a Date"),
    _ignored("--no-date-header", reason="responses have a Date"),
    # --- HTTP
    _refused(
        "--protocol", takes=ONE, reason="the front speaks HTTP: let the proxy do that, too (proxy_pass)",
        words=(("http", Fate.SAME, "it is HTTP"),),
    ),
    _ignored("--uwsgi-allow-from", takes=ONE, reason="the front speaks HTTP"),
    _ignored("--read-timeout", takes=ONE, reason="header-timeout and body-timeout bound what clients send"),
    _same("--http1-keep-alive", reason="keep-alive-timeout says for how long"),
    _ignored("--http1-pipeline-flush", "--no-http1-pipeline-flush", reason="responses go out as they come"),
    _ignored("--http-parser", takes=ONE, reason="the codec is --http"),
    _ignored(
        "--http-protocols", takes=ONE, reason=NO_HTTP2,
        words=(("h1", Fate.SAME, "clients are served over HTTP/1.1"),),
    ),
    _ignored("--http2", "--http2-adaptive-window", "--no-http2-adaptive-window", reason=NO_HTTP2),
    _ignored(
        "--http2-cleartext", "--http2-max-concurrent-streams", "--http2-initial-window-size", "--http2-max-frame-size",
        "--http2-max-header-list-size", "--http2-initial-connection-window-size", "--http2-initial-stream-window-size",
        "--http2-keep-alive-interval", "--http2-keep-alive-timeout", "--http2-max-headers-size",
        "--http2-max-send-buffer-size", takes=ONE, reason=NO_HTTP2,
    ),
    _ignored(
        "--permit-obsolete-folding", "--strip-header-spaces", "--permit-unconventional-http-method",
        "--permit-unconventional-http-version", "--casefold-http-method", reason=STRICT_FRONT,
    ),
    _ignored(
        "--header-map", takes=ONE, reason=STRICT_FRONT,
        words=(("refuse", Fate.SAME, STRICT_FRONT),),
    ),
    _ignored("--forwarder-headers", takes=ONE, reason="trusted-proxy-headers names what proxies are believed about"),
    # --- TLS
    _refused(
        "--keyfile", "--certfile", "--ca-certs", "--cert-reqs", "--ciphers", "--ssl-version", "--keyfile-password",
        "--verify-mode", "--insecure-bind", "--quic-bind", "--ssl-keyfile", "--ssl-certfile", "--ssl-certificate",
        "--ssl-keyfile-password", "--ssl-cert-reqs", "--ssl-ca-certs", "--ssl-ciphers", "--ssl-ca", "--ssl-crl",
        "--ssl-protocol-min", takes=ONE, reason=NO_TLS,
    ),
    _refused("--ssl-client-verify", reason=NO_TLS),
    _ignored("--no-ssl-client-verify", "--suppress-ragged-eofs", "--do-handshake-on-connect", reason="it is for TLS"),
    # --- the log
    _ignored(
        "--access-logfile", takes=ONE, reason=LOG_IS_ONE, sets=(("access_log", True),),
        words=(("-", Fate.SAME, "the log goes to standard output"),),
    ),
    _ignored(
        "--log-config", "--log-config-json", "--logger-class", takes=ONE,
        reason="gatekeep's own log is set by log-level and log-format; the application sets its logging itself",
    ),
    _ignored("--log-syslog", "--disable-redirect-access-to-syslog", reason=LOG_IS_STDOUT),
    _ignored(
        "--log-syslog-to", "--log-syslog-prefix", "--log-syslog-facility", takes=ONE,
        reason=LOG_IS_STDOUT,
    ),
    _ignored("--capture-output", "-R", "--enable-stdio-inheritance", reason="what the application prints is in the log anyway"),
    _ignored("--use-colors", "--no-use-colors", reason="log-format console is for people, json for programs"),
    _same("--log", reason="there is a log"),
    _ignored("--no-log", reason="there is a log; use --log-level error, --no-access-log"),
    # --- development
    _ignored("--reload-engine", "--reload-tick", "--reload-delay", takes=ONE, reason="the system tells of changes at once"),
    _ignored(
        "--reload-ignore-dirs", "--reload-ignore-patterns", "--reload-ignore-paths", takes=ONE,
        reason="use reload-exclude, which takes names of files as patterns, or whole paths (/srv/site/media/*)",
    ),
    _ignored("--reload-ignore-worker-failure", "--no-reload-ignore-worker-failure", reason="it is so with --reload"),
    # --- the program
    _refused("--check-config", reason="use the command: gatekeep check"),
    _refused("--print-config", reason="use the command: gatekeep explain"),
    _refused("-D", "--daemon", reason=FOREGROUND),
    _ignored("--initgroups", reason="with --user processes have that user's groups anyway"),
    _ignored(
        "--uds-permissions", takes=ONE,
        reason="a socket's file has the permissions of the umask that gatekeep is started with; or let systemd open it",
    ),
    _ignored("--control-socket", "--control-socket-mode", takes=ONE, reason=CONTROL),
    _ignored("--no-control-socket", reason=CONTROL),
    _ignored(
        "--statsd-host", "--statsd-prefix", "--dogstatsd-tags", "--metrics-scrape-interval", "--metrics-address",
        "--metrics-port", takes=ONE, reason=NO_METRICS,
    ),
    _ignored("--enable-backlog-metric", "--metrics", reason=NO_METRICS),
    _same("--no-metrics", reason="there are none"),
)  # fmt: skip

REPLACED: Mapping[tuple[str, str], str] = {
    ("http", "httptools"): "strict",
    ("http", "1"): "strict",
    ("log_level", "critical"): "error",
    ("log_level", "fatal"): "error",
    ("log_level", "warn"): "warning",
    ("log_level", "trace"): "debug",
    ("log_level", "notset"): "debug",
}
"""Values that other servers have, and what is meant by them here."""

PREFIXES = {
    "--root-path": "requests are expected with it in their path; where the proxy takes it away, leave this out and let the "
    "proxy say it (X-Forwarded-Prefix in trusted-proxy-headers)",
    "--url-path-prefix": "",
}
"""Flags that mount the application at a path, with how they differ."""

EXTRA_FILES = "--reload-extra-file"
"""A single file to watch: its folder and its name here."""


@cache
def foreign_flags() -> Mapping[str, ForeignFlag]:
    """By flag."""
    return {flag: foreign for foreign in FOREIGN_FLAGS for flag in foreign.flags}
