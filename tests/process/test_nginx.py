"""Behind a real nginx: over TCP, over a UNIX socket, and with the PROXY protocol."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client import Client
from conftest import TESTS, wait_until
from served import Served, free_port, serve

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(NGINX, os.X_OK), reason="nginx is not installed"),
]

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
{modules}
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto https;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://{tcp}; }}
        location /unix/ {{ proxy_pass http://unix:{unix}:/; }}
        location /twice/ {{ proxy_pass http://127.0.0.1:{port}/; }}
    }}
}}
{stream}
"""

STREAMED = """
stream {{
    server {{ listen 127.0.0.1:{port}; proxy_pass {introduced}; proxy_protocol on; }}
}}
"""


class Nginx:
    """An nginx before a gateway.

    Attributes:
        port: where it speaks HTTP.
        stream_port: where it passes connections on with a PROXY header.
    """

    def __init__(self, server: Served, folder: Path, unix: Path) -> None:
        tcp, _, introduced = (address.removeprefix("http://").rstrip("/") for address in server.addresses)
        self.server = server
        self.port, self.stream_port = free_port(), free_port()
        (folder / "nginx.conf").write_text(
            CONFIGURATION.format(
                folder=folder,
                port=self.port,
                tcp=tcp,
                unix=unix,
                modules=f"load_module {STREAM};" if STREAM.exists() else "",
                stream=STREAMED.format(port=self.stream_port, introduced=introduced)
                if STREAM.exists()
                else "",
            )
            + ("user root;\n" if os.geteuid() == 0 else "")  # it must reach the test's folder
        )
        self.process = subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"])

    def answers(self) -> bool:
        assert self.process.poll() is None, "nginx has ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

    def environ(self, target: str, *fields: str, port: int = 0) -> dict[str, Any]:
        """What the application sees of a request from 127.0.0.1."""
        with Client(("127.0.0.1", port or self.port)) as client:
            answer = client.get(target, *fields)
        assert answer.status == 200
        environ: dict[str, Any] = json.loads(answer.body)["environ"]
        return environ


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("nginx")
    unix = folder / "site.sock"
    flags = ["--bind", f"unix:{unix}", "--bind", "127.0.0.1:0,proxy-protocol=v1", "--processes", "1"]
    with serve("apps:echo", *flags, cwd=TESTS) as server:
        nginx = Nginx(server, folder, unix)
        try:
            wait_until(nginx.answers)
            yield nginx
        finally:
            nginx.process.terminate()
            nginx.process.wait(20)


@pytest.mark.parametrize(
    ("target", "path", "peer"), [("/tcp", "/tcp", "127.0.0.1"), ("/unix/a", "/a", "unix")]
)
def test_nginx_tells_who_the_client_is_and_the_client_does_not(
    nginx: Nginx, target: str, path: str, peer: str
) -> None:
    environ = nginx.environ(
        target, "X-Forwarded-For: 6.6.6.6, 127.0.0.9", "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6"
    )
    # The chain is 6.6.6.6, 127.0.0.9, and 127.0.0.1 from nginx: that is trusted, and 127.0.0.9 is not.
    assert (environ["REMOTE_ADDR"], environ["HTTP_X_FORWARDED_FOR"]) == ("127.0.0.9", "127.0.0.9, 127.0.0.1")
    assert (environ["wsgi.url_scheme"], environ["HTTPS"], environ["SERVER_PORT"]) == ("https", "on", "443")
    assert environ["HTTP_HOST"] == "test"
    assert "6.6.6.6" not in str(environ)
    event = nginx.server.wait_for_event("request.finished", path=path, client="127.0.0.9")
    assert event["peer"].partition(":")[0] == peer


def test_a_request_may_come_through_several_proxies(nginx: Nginx) -> None:
    environ = nginx.environ("/twice/", "X-Forwarded-For: 6.6.6.6, 192.0.2.1")
    assert environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.1, 127.0.0.1, 127.0.0.1"
    assert environ["REMOTE_ADDR"] == "192.0.2.1"


@pytest.mark.skipif(not STREAM.exists(), reason="nginx has no stream module")
def test_nginx_introduces_its_clients_by_the_proxy_protocol(nginx: Nginx) -> None:
    with Client(("127.0.0.1", nginx.stream_port)) as client:
        host, port = client.socket.getsockname()
        for _ in range(2):
            environ = json.loads(client.get("/introduced").body)["environ"]
            assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == (host, str(port))
            assert environ["SERVER_PORT"] == str(
                nginx.stream_port if environ["wsgi.url_scheme"] == "http" else 443
            )
    event = nginx.server.wait_for_event("request.finished", path="/introduced")
    assert event["client"] == f"{host}:{port}"
    assert event["peer"] != event["client"]
