"""Clients that are no library: bytes on a socket, as browsers send them, and the curl program."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

# What current browsers send with a navigation, in their order and spelling.
CHROME = (
    ("Connection", "keep-alive"),
    ("Cache-Control", "max-age=0"),
    ("sec-ch-ua", '"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"'),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", '"Linux"'),
    ("Upgrade-Insecure-Requests", "1"),
    (
        "User-Agent",
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/142.0.0.0 Safari/537.36"
        ),
    ),
    (
        "Accept",
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
            "application/signed-exchange;v=b3;q=0.7"
        ),
    ),
    ("Sec-Fetch-Site", "none"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-User", "?1"),
    ("Sec-Fetch-Dest", "document"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-GB,en-US;q=0.9,en;q=0.8"),
)
FIREFOX = (
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Connection", "keep-alive"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "none"),
    ("Sec-Fetch-User", "?1"),
    ("Priority", "u=0, i"),
)


@dataclass
class RawResponse:
    """A response as it stood on the wire; header names in lower case, the body decoded from its chunks."""

    version: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)

    def header(self, name: str) -> str:
        """The field's value, or nothing; two values would be a mistake."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else ""


class RawConnection:
    """One connection to a server. It sends what it is given and reads exactly one response at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.host = f"127.0.0.1:{port}"
        self._input: BinaryIO = self.socket.makefile("rb")

    def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        version: str = "1.1",
    ) -> bytes:
        """A request's bytes, with Host first and, where there is a body, its length last."""
        fields = [("Host", self.host), *headers]
        if body:
            fields.append(("Content-Length", str(len(body))))
        lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in fields)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def ask(self, method: str, target: str, *args: Any, **options: Any) -> RawResponse:
        """Send one request and read its response."""
        self.send(self.request(method, target, *args, **options))
        return self.receive(head_only=method == "HEAD")

    def receive(self, *, head_only: bool = False) -> RawResponse:
        """Read one response, which must be framed as RFC 9112 says; an interim response is one of its own."""
        version, status, _reason = self._line().split(" ", 2)
        headers = []
        while line := self._line():
            name, value = line.split(":", 1)
            headers.append((name.lower(), value.strip()))
        response = RawResponse(version, int(status), headers)
        if not (head_only or response.status in (204, 304) or response.status < 200):
            self._read_body(response)
        return response

    def _read_body(self, response: RawResponse) -> None:
        if response.header("transfer-encoding") == "chunked":
            assert not response.header("content-length")
            response.chunks = list(self._chunks())
            response.body = b"".join(response.chunks)
        elif length := response.header("content-length"):
            response.body = self._input.read(int(length))
            assert len(response.body) == int(length), "the body is shorter than its declared length"
        else:
            response.body = self._input.read()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._line(), 16):
            yield self._input.read(size)
            assert self._line() == "", "a chunk is longer than it says"
        assert self._line() == "", "there are trailers"

    def _line(self) -> str:
        line = self._input.readline()
        assert line.endswith(b"\r\n"), f"the connection ended in the line {line!r}"
        return line[:-2].decode("latin-1")

    def is_closed_by_server(self) -> bool:
        """Wait for the connection's end; False if something comes instead."""
        return self._input.read(1) == b""

    def close(self) -> None:
        """Close it."""
        self._input.close()
        self.socket.close()


@contextmanager
def connect(port: int) -> Iterator[RawConnection]:
    """A connection that is closed at the end."""
    connection = RawConnection(port)
    try:
        yield connection
    finally:
        connection.close()


# The user's .curlrc and proxies stay out of it.
OWN_ARGUMENTS = ("-q", "-sS", "-v", "--noproxy", "*", "--max-time", "30", "-w", "%{json}")


@dataclass
class CurlResult:
    """What one run of curl has to tell: `exit_status` 0 is success, `facts` is its `%{json}`."""

    exit_status: int
    facts: dict[str, Any]
    head: str
    body: bytes
    conversation: str

    @property
    def status(self) -> int:
        """The response's status."""
        return int(self.facts["http_code"])

    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


def has_curl() -> bool:
    """Whether this machine has curl."""
    return shutil.which("curl") is not None


def curl(*arguments: str, stdin: bytes = b"") -> CurlResult:
    """Run curl; its body, head and conversation are kept apart."""
    with tempfile.TemporaryDirectory() as folder:
        head, body = Path(folder, "head"), Path(folder, "body")
        head.touch()
        body.touch()
        run = subprocess.run(
            ["curl", *OWN_ARGUMENTS, "-D", head, "-o", body, *arguments],
            input=stdin,
            capture_output=True,
            check=False,
        )
        return CurlResult(
            run.returncode,
            json.loads(run.stdout),
            head.read_text("latin-1"),
            body.read_bytes(),
            run.stderr.decode("utf-8", "backslashreplace"),
        )
