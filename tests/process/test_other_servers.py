"""What people who come from other servers start: their configuration files, their flags, their PID files."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from urllib.request import urlopen

import pytest

from conftest import wait_until
from served import ServeFailed, serve

APPLICATION = """
import os

def application(environ, start_response):
    names = [environ["SCRIPT_NAME"], os.environ.get("ONE", ""), os.environ.get("TWO", "")]
    body = " ".join(names).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def ask(port: int, path: str = "/") -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        return str(answer.read().decode())


def test_a_gunicorn_configuration_is_served(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "gunicorn.conf.py").write_text(
        'import os\nos.environ["ONE"] = "1"\nwsgi_app = "shop:application"\nbind = "127.0.0.1:0"\nworkers = 1\nthreads = 2\n'
        'raw_env = ["TWO=2"]\npreload_app = True\ntimeout = 30\n'
    )
    environment = {"UWSGI_HARAKIRI": "20"}
    with serve(None, "--from", "gunicorn.conf.py", cwd=tmp_path, bind=None, env=environment) as server:
        assert ask(server.port) == " 1 2"
        assert server.events_named("setting.ignored", setting="preload_app")
        assert server.events_named("setting.differs", setting="timeout", used="request-timeout")
        assert server.events_named("environment.unread", variable="UWSGI_HARAKIRI")
        assert server.events_named("gateway.ready", processes=1, threads=2)


def test_sighup_reads_a_gunicorn_configuration_again(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    conf = tmp_path / "gunicorn.conf.py"
    conf.write_text('wsgi_app = "shop:application"\nworkers = 1\nthreads = 2\n')
    with serve(None, "--from", "gunicorn.conf.py", cwd=tmp_path) as server:
        conf.write_text("workers = [\n")
        os.kill(server.pid, signal.SIGHUP)
        assert "gunicorn.conf.py:1: it is no Python" in server.wait_for_event("settings.refused")["reason"]
        conf.write_text('wsgi_app = "shop:application"\nworkers = 1\nthreads = 2\n')
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_event("process.exited")
        assert not server.events_named("settings.changed")


def test_a_uwsgi_configuration_is_served_in_its_folder(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "shop.py").write_text(APPLICATION)
    (tmp_path / "uwsgi.ini").write_text(
        "[uwsgi]\nbase = %d\nchdir = %(base)site\nmodule = shop\nhttp-socket = 127.0.0.1:0\nprocesses = 1\nthreads = 2\n"
        "env = ONE=u\nmount = /two=shop:application\n"
    )
    with serve(None, "--from", "uwsgi.ini", cwd=tmp_path, bind=None) as server:
        assert ask(server.port) == " u "
        assert ask(server.port, "/two") == "/two u "


def test_a_command_line_of_gunicorn_is_served(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "one.env").write_text("ONE=file\n")
    flags = "-w 1 -k gthread --threads 2 -t 30 --max-requests 1000 --preload --access-logfile - --error-logfile - -n shop "
    flags += "-p gw.pid --env-file one.env --root-path /shop --worker-tmp-dir /dev/shm"
    with serve("shop:application", *flags.split(), cwd=tmp_path) as server:
        assert ask(server.port, "/shop") == "/shop file "
        assert (tmp_path / "gw.pid").read_text() == f"{server.pid}\n"
        ignored = {event["setting"] for event in server.events_named("setting.ignored")}
        assert ignored == {"--preload", "--worker-tmp-dir"}
    assert not (tmp_path / "gw.pid").exists()


def test_the_pid_file_is_the_gateways_that_serves(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    file = tmp_path / "gw.pid"
    with serve("shop:application", "-w", "1", "-p", "gw.pid", cwd=tmp_path) as server:
        os.kill(server.pid, signal.SIGUSR2)
        successor = server.wait_for_event("gateway.replaced", 60)["successor"]
        assert server.wait() == 0
        assert file.read_text() == f"{successor}\n"
        os.kill(successor, signal.SIGTERM)
        wait_until(lambda: not file.exists())
        wait_until(lambda: len(server.events_named("gateway.stopped")) == 2)


def test_a_pid_file_that_cannot_be_written_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    with (
        pytest.raises(
            ServeFailed, match=r"cannot start: pid-file = 'nowhere/gw\.pid': No such file or directory"
        ),
        serve("shop:application", "-p", "nowhere/gw.pid", cwd=tmp_path),
    ):
        pass
