"""The servers that are measured: what each needs, how it is started, and which of its processes are workers.

Logging of requests is off everywhere, and each has as many threads as the others, in as many processes, as
far as it can.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from processes import Process

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Launch:
    """One start of one server."""

    app: str
    port: int
    processes: int
    threads: int
    folder: Path
    python_path: tuple[str, ...]

    @property
    def bind(self) -> str:
        return f"127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Whatever a server leaves in a temporary folder goes into ours."""
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(self.python_path),
            "TMPDIR": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder),
            "BENCHMARK_APP": self.app,
            "BENCHMARK_THREADS": str(self.threads),
        }


def any_but_the_first(process: Process, first: int) -> bool:
    return process.pid != first


@dataclass(frozen=True)
class Server:
    name: str
    command: Callable[[Launch], list[str]]
    missing: Callable[[], str | None]
    """Why it cannot be measured here, in a line; None when it can."""
    is_worker: Callable[[Process, int], bool] = any_but_the_first
    """Told a process and the pid of the first: does it run the application?"""
    has_front: bool = False
    """Whether requests pass through another process before the worker."""
    may_pack: bool = False
    """Whether one worker may get all kept-alive connections while the others idle."""
    many_processes: bool = False
    """Whether it is measured with each number of --processes, or with the first only."""
    has_threads: bool = True
    """Whether a process runs more than one request at once."""
    fixed_processes: int | None = None
    """How many processes it has whatever --processes says."""
    processes: int = 0

    def with_processes(self, number: int, *, first: bool) -> Server:
        name = self.name if first else f"{self.name}@{number}"
        return replace(self, name=name, processes=self.fixed_processes or number)

    def all_threads(self, threads: int) -> int:
        """How many requests it can run at once, with `threads` in each process; one process alone has twice as many."""
        if not self.has_threads:
            return self.processes
        return (2 if self.fixed_processes else self.processes) * threads


def needs(*modules: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        absent = [module for module in modules if find_spec(module) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    return missing


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


# mod_wsgi, behind Apache.


def missing_mod_wsgi() -> str | None:
    if find_spec("mod_wsgi") is None:
        return "not installed: mod_wsgi (it builds only where Apache and its headers are)"
    if shutil.which("apxs") is None:
        return "not installed: Apache's apxs (Debian: apache2-dev)"
    if os.geteuid() == 0 and shutil.which("unshare") is None:
        return "not installed: unshare, without which Apache does not run as root"
    return None


def without_root(command: list[str]) -> list[str]:
    """Apache refuses to serve as root, and the user that it would change to may not read this interpreter.

    So root calls itself something else in a user namespace, and keeps its rights over its files.
    """
    if os.geteuid() != 0:
        return command
    return ["unshare", "--user", "--map-user=65534", "--map-group=65534", *command]


def mod_wsgi_express(launch: Launch) -> list[str]:
    name, _, callable_object = launch.app.partition(":")
    paths = [word for path in launch.python_path for word in ("--python-path", path)]
    return without_root(
        [
            str(Path(sys.executable).with_name("mod_wsgi-express")),
            *("start-server", "--application-type", "module", "--callable-object", callable_object, name),
            *("--processes", str(launch.processes), "--threads", str(launch.threads), *paths),
            *("--host", "127.0.0.1", "--port", str(launch.port), "--locale", "C.UTF-8"),
            *("--server-root", str(launch.folder / "root"), "--log-to-terminal"),
        ]
    )


BARE_CONFIGURATION = """\
ServerName 127.0.0.1
ServerRoot "{folder}"
PidFile "{folder}/httpd.pid"
DefaultRuntimeDir "{folder}"
ErrorLog /dev/stderr
LogLevel warn
Listen {bind}
LoadModule mpm_event_module "{modules}/mod_mpm_event.so"
LoadModule authz_core_module "{modules}/mod_authz_core.so"
{wsgi}
ServerLimit 1
StartServers 1
ThreadsPerChild 64
MaxRequestWorkers 64
MinSpareThreads 1
MaxSpareThreads 64
KeepAlive On
MaxKeepAliveRequests 0
<Directory "/">
    AllowOverride None
    Require all granted
</Directory>
WSGISocketPrefix "{folder}/wsgi"
WSGIRestrictEmbedded On
WSGIDaemonProcess daemons display-name=(wsgi:daemons) home="{folder}" python-path="{path}" \\
    processes={processes} threads={threads}
WSGIScriptAlias / "{folder}/handler.py" process-group=daemons application-group=%{{GLOBAL}}
"""


def mod_wsgi_bare(launch: Launch) -> list[str]:
    """Apache without what mod_wsgi-express adds to it, mod_rewrite first of all."""
    name, _, callable_object = launch.app.partition(":")
    (launch.folder / "handler.py").write_text(f"from {name} import {callable_object} as application\n")
    configuration = launch.folder / "httpd.conf"
    configuration.write_text(
        BARE_CONFIGURATION.format(
            folder=launch.folder,
            bind=launch.bind,
            modules=output_of("apxs", "-q", "LIBEXECDIR"),
            wsgi=output_of(str(Path(sys.executable).with_name("mod_wsgi-express")), "module-config"),
            processes=launch.processes,
            threads=launch.threads,
            path=os.pathsep.join(launch.python_path),
        )
    )
    httpd = f"{output_of('apxs', '-q', 'SBINDIR')}/{output_of('apxs', '-q', 'PROGNAME')}"
    return without_root([httpd, "-f", str(configuration), "-DFOREGROUND"])


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def is_mod_wsgi_daemon(process: Process, first: int) -> bool:
    return process.command.startswith("(wsgi:")


# Servers in Python (and one in Rust).


def gunicorn_sync(launch: Launch) -> list[str]:
    return module("gunicorn", "-b", launch.bind, "-w", str(launch.processes), "-k", "sync", launch.app)


def gunicorn_gthread(launch: Launch) -> list[str]:
    workers = ("-w", str(launch.processes), "-k", "gthread", "--threads", str(launch.threads))
    return module("gunicorn", "-b", launch.bind, *workers, launch.app)


def waitress(launch: Launch) -> list[str]:
    return module("waitress", f"--listen={launch.bind}", f"--threads={2 * launch.threads}", launch.app)


def granian(launch: Launch) -> list[str]:
    workers = ("--workers", str(launch.processes), "--blocking-threads", str(launch.threads))
    quiet = ("--log-level", "warning", "--no-access-log")
    where = ("--host", "127.0.0.1", "--port", str(launch.port))
    return module("granian", "--interface", "wsgi", *where, *workers, *quiet, launch.app)


def uvicorn(launch: Launch) -> list[str]:
    where = ("--host", "127.0.0.1", "--port", str(launch.port), "--workers", str(launch.processes))
    return module("uvicorn", *where, "--log-level", "warning", "--no-access-log", "asgi_bridge:application")


def hypercorn(launch: Launch) -> list[str]:
    return module("hypercorn", "-b", launch.bind, "-w", str(launch.processes), f"wsgi:{launch.app}")


# gatekeep.


def gatekeep(loop: str, http: str) -> Server:
    def command(launch: Launch) -> list[str]:
        size = ("-w", str(launch.processes), "--threads", str(launch.threads))
        how = ("--loop", loop, "--http", http, "--log-level", "warning")
        return module("gatekeep", "serve", launch.app, "--bind", launch.bind, *size, *how)

    def missing() -> str | None:
        absent = needs("gatekeep", loop)()
        if absent is None and find_spec("gatekeep._cli") is None:
            return "this gatekeep has no command yet"
        return absent

    return Server(
        f"gatekeep-{loop}-{http}",
        command,
        missing,
        has_front=True,
        many_processes=True,
    )


SERVERS = {
    server.name: server
    for server in (
        Server("mod_wsgi", mod_wsgi_express, missing_mod_wsgi, is_mod_wsgi_daemon, has_front=True),
        Server("mod_wsgi-bare", mod_wsgi_bare, missing_mod_wsgi, is_mod_wsgi_daemon, has_front=True),
        Server("gunicorn-sync", gunicorn_sync, needs("gunicorn"), has_threads=False),
        Server("gunicorn-gthread", gunicorn_gthread, needs("gunicorn"), may_pack=True),
        Server("waitress", waitress, needs("waitress"), fixed_processes=1),
        Server("granian", granian, needs("granian")),
        Server("uvicorn", uvicorn, needs("uvicorn", "a2wsgi")),
        Server("hypercorn", hypercorn, needs("hypercorn")),
        gatekeep("uvloop", "strict"),
        gatekeep("asyncio", "strict"),
        gatekeep("trio", "strict"),
        gatekeep("asyncio", "h11"),
    )
}

OPTIONAL = {"mod_wsgi-bare", "granian", "uvicorn", "hypercorn"}
"""Measured only when --servers names them, or says "all"."""

DEFAULT = [name for name in SERVERS if name not in OPTIONAL]
