"""A client that says exactly what it is told and takes nothing for granted about the answer."""

from __future__ import annotations

import socket
from typing import NamedTuple


class Answer(NamedTuple):
    """A response as it stood on the wire. `complete` is what HTTP's framing says; `body` is decoded."""

    status: int
    reason: str
    fields: dict[str, str]
    body: bytes
    complete: bool


class Client:
    """One connection."""

    def __init__(self, address: tuple[str, int] | str, timeout: float = 40) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self._buffer = b""
        self.reset = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def get(self, target: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> Answer:
        """Send a request without a body and read its answer."""
        lines = [f"{method} {target} HTTP/{version}", "Host: test", *fields]
        self.send("\r\n".join(lines) + "\r\n\r\n")
        return self.read(method)

    def post(self, target: str, body: bytes, *fields: str) -> Answer:
        """Send a request with a body and read its answer."""
        head = "\r\n".join([f"POST {target} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *fields])
        self.send(head.encode("latin-1") + b"\r\n\r\n" + body)
        return self.read()

    # --- the answer

    def read(self, method: str = "GET") -> Answer:
        """The next response; interim ones (1xx) are returned like others."""
        head = self._until(b"\r\n\r\n")
        if not head.endswith(b"\r\n\r\n"):
            return Answer(0, "", {}, head, False)
        status_line, *lines = head[:-4].decode("latin-1").split("\r\n")
        version, status, reason = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            assert name.lower() not in fields or name.lower() == "set-cookie", f"{name} was sent twice"
            fields[name.lower()] = value.strip()
        body, complete = self._body(method, int(status), fields)
        return Answer(int(status), reason, fields, body, complete)

    def _body(self, method: str, status: int, fields: dict[str, str]) -> tuple[bytes, bool]:
        if method == "HEAD" or status < 200 or status in (204, 304):
            return b"", True
        if fields.get("transfer-encoding") == "chunked":
            return self._chunks()
        if "content-length" in fields:
            length = int(fields["content-length"])
            body = self._exactly(length)
            return body, len(body) == length
        body = self.rest()
        return body, not self.reset

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while True:
            line = self._until(b"\r\n")
            if not line.endswith(b"\r\n"):
                return body, False
            size = int(line.split(b";")[0], 16)
            data = self._exactly(size + 2)
            if len(data) < size + 2 or data[size:] != b"\r\n":
                return body + data[:size], False
            if size == 0:
                return body, True
            body += data[:size]

    def _more(self) -> bool:
        try:
            data = self.socket.recv(262144)
        except ConnectionResetError:
            self.reset = True
            return False
        self._buffer += data
        return bool(data)

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer and self._more():
            pass
        cut = self._buffer.find(end)
        size = cut + len(end) if cut >= 0 else len(self._buffer)
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _exactly(self, size: int) -> bytes:
        parts, have = [self._buffer], len(self._buffer)
        while have < size:
            self._buffer = b""
            if not self._more():
                break
            parts.append(self._buffer)
            have += len(self._buffer)
        data = b"".join(parts)
        self._buffer = data[size:]
        return data[:size]

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        while self._more():
            pass
        taken, self._buffer = self._buffer, b""
        return taken

    def is_closed(self) -> bool:
        """Whether the connection ends without another byte."""
        return self.rest() == b""
