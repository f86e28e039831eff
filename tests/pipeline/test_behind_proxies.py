"""Behind proxies: whom we believe, on real sockets, and connections that begin with a PROXY header."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from client import Client
from conftest import BOTH_BACKENDS, TESTS, Site, start_site, wait_until
from gatekeep import Gateway, Settings
from gatekeep.transport._proxy_protocol import SIGNATURE

Start = Callable[..., Site]

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
"""Two addresses of this machine; only the first is trusted where nothing else is said."""

FORGED = (
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil",
    "X-Forwarded-Port: 1",
    "X-Forwarded-User: root",
    "X-Real-IP: 192.0.2.1",
    "Forwarded: for=192.0.2.1;proto=https",
)

LINE = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"

pytestmark = BOTH_BACKENDS


@pytest.fixture(scope="module")
def site(loop: str) -> Iterator[Site]:
    with ExitStack() as stack:
        yield start_site(stack, "apps:echo", loop, processes=1)


@pytest.fixture(scope="module", params=["strict", "h11"])
def http(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def introduced(loop: str, http: str) -> Iterator[Site]:
    """A site whose connections begin with a PROXY header."""
    options: dict[str, Any] = {"processes": 1, "http": http, "proxy_protocol": "auto"}
    with ExitStack() as stack:
        yield start_site(stack, "apps:echo", loop, health_bind="127.0.0.1:0", **options)


@pytest.fixture(scope="module")
def impatient(loop: str, http: str) -> Iterator[Site]:
    """Another one, which does not wait long for a header or a head."""
    options: dict[str, Any] = {"processes": 1, "http": http, "proxy_protocol": "auto"}
    with ExitStack() as stack:
        yield start_site(stack, "apps:echo", loop, header_timeout=4, **options)


class Caller(Client):
    """A client that connects from an address of its own."""

    def __init__(self, address: tuple[str, int], source: str = HERE) -> None:
        super().__init__(address)
        if source != HERE:
            self.socket.close()
            self.socket = socket.create_connection(address, timeout=30, source_address=(source, 0))

    @property
    def name(self) -> str:
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def environ(self, *fields: str, target: str = "/") -> dict[str, Any]:
        answer = self.get(target, *fields)
        assert answer.status == 200
        environ: dict[str, Any] = json.loads(answer.body)["environ"]
        return environ


def of_the_request(environ: dict[str, Any]) -> dict[str, Any]:
    """Without what is another's in each request."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("gatekeep.") and name != "REMOTE_PORT"
    }


def asked(environ: dict[str, Any]) -> tuple[Any, ...]:
    """Who has asked for what, as the application sees it."""
    names = (
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "wsgi.url_scheme",
        "HTTPS",
        "HTTP_HOST",
        "SERVER_NAME",
        "SERVER_PORT",
    )
    return tuple(environ.get(name) for name in names)


# --- the fields


def test_an_untrusted_peers_fields_change_nothing_are_not_seen_and_are_warned_of_once(start: Start) -> None:
    site = start("apps:echo", processes=1)
    with Caller(site.address, ELSEWHERE) as plain:
        honest = plain.environ()
    for _ in range(2):
        with Caller(site.address, ELSEWHERE) as client:
            for _ in range(2):
                environ = client.environ(*FORGED)
                assert of_the_request(environ) == of_the_request(honest)
            record = site.log.wait_for("request.finished", client=client.name)
            assert "peer" not in record
    (warning,) = site.log.find(event="proxies.untrusted", level="warning")
    assert (warning["peer"], warning["setting"]) == (ELSEWHERE, f"--trusted-proxies {ELSEWHERE}")
    assert "X-Forwarded-For" in warning["headers"]


def test_the_setting_that_the_warning_names_trusts_the_peer(start: Start) -> None:
    site = start("apps:echo", processes=1, trusted_proxies=ELSEWHERE)
    with Caller(site.address, ELSEWHERE) as client:
        assert client.environ("X-Forwarded-For: 192.0.2.1")["REMOTE_ADDR"] == "192.0.2.1"
    with Caller(site.address, HERE) as client:
        assert client.environ("X-Forwarded-For: 192.0.2.1")["REMOTE_ADDR"] == HERE


def test_a_trusted_proxy_tells_the_client_and_the_scheme_and_the_log_has_both(site: Site) -> None:
    with Caller(site.address) as client:
        fields = ("X-Forwarded-For: 6.6.6.6, 192.0.2.1", "X-Forwarded-Proto: https", "X-Real-IP: 6.6.6.6")
        for _ in range(2):
            environ = client.environ(*fields, target="/told")
            assert asked(environ) == ("192.0.2.1", None, "https", "on", "test", site.address[0], "443")
            assert environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.1"
            assert environ["HTTP_X_FORWARDED_PROTO"] == "https"
            assert "6.6.6.6" not in str(environ)
        site.log.wait_for("request.finished", count=2, path="/told", client="192.0.2.1", peer=client.name)
        # What one request tells is not the next one's.
        assert client.environ()["REMOTE_ADDR"] == HERE
        assert "peer" not in site.log.wait_for("request.finished", client=client.name)


def test_the_host_and_the_prefix_are_told_where_they_are_named(start: Start) -> None:
    site = start(
        "apps:echo", processes=1, trusted_proxy_headers="x-forwarded-host,x-forwarded-port,x-forwarded-prefix"
    )
    with Caller(site.address) as client:
        environ = client.environ(
            "X-Forwarded-Host: example.com",
            "X-Forwarded-Port: 444",
            "X-Forwarded-Prefix: /shop/",
            target="/a?b",
        )
    assert asked(environ) == (HERE, environ["REMOTE_PORT"], "http", None, "example.com", "example.com", "444")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["REQUEST_URI"]) == ("/shop", "/a", "/a?b")


def test_a_unix_sockets_peer_is_trusted(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "site.sock")
    site = start("apps:echo", processes=1, bind=f"unix:{path}", trusted_proxies=[])
    with Client(path) as client:
        environ = json.loads(client.get("/", "X-Forwarded-For: 192.0.2.1:80").body)["environ"]
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("192.0.2.1", "80")
    site.log.wait_for("request.finished", client="192.0.2.1:80", peer="unix")


def test_nobody_is_believed_where_no_proxy_is_to_be(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "site.sock")
    site = start("apps:echo", processes=1, bind=["127.0.0.1:0", f"unix:{path}"], proxy_headers=False)
    with Caller(site.address) as client, Client(path) as local:
        seen = [client.environ(*FORGED), json.loads(local.get("/", *FORGED).body)["environ"]]
    assert [environ["REMOTE_ADDR"] for environ in seen] == [HERE, ""]
    assert "192.0.2.1" not in str(seen)
    assert not [event for event in site.log.events if event["event"].startswith("proxies.")]


def test_a_malformed_field_is_logged_once(start: Start) -> None:
    site = start("apps:echo", processes=1)
    with Caller(site.address) as client:
        for _ in range(2):
            assert client.environ("X-Forwarded-For: 192.0.2.1, localhost")["REMOTE_ADDR"] == HERE
    (warning,) = site.log.find(event="proxies.malformed", level="warning")
    assert (warning["peer"], warning["header"], warning["value"]) == (HERE, "x-forwarded-for", "localhost")


@pytest.mark.parametrize(
    ("options", "setting", "value"),
    [
        ({"trusted_proxies": "*"}, "trusted-proxies", "*"),
        ({"proxy_allow_from": "0.0.0.0/0", "proxy_protocol": "v1"}, "proxy-allow-from", "0.0.0.0/0"),
    ],
)
def test_that_anybody_is_trusted_is_said_at_the_start(
    start: Start, options: dict[str, Any], setting: str, value: str
) -> None:
    site = start(processes=1, **options)
    (warning,) = site.log.find(event="proxies.anybody_is_trusted")
    assert (warning["level"], warning["setting"], warning["value"]) == ("warning", setting, value)


# --- the PROXY protocol


def block(payload: bytes = b"", command: int = 1, family: int = 0x11) -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(payload)) + payload


TLS = bytes([0x20, 0, 5, 1, 0, 0, 0, 0])
BLOCK = block(
    socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 56324, 443)
)
BLOCK_TLS = block(BLOCK[16:] + TLS)


@pytest.mark.parametrize("header", [LINE.encode(), BLOCK])
def test_a_header_tells_the_client_of_all_requests_of_a_connection(introduced: Site, header: bytes) -> None:
    with Caller(introduced.address) as client:
        client.send(header)
        for _ in range(2):
            told = asked(client.environ(target="/introduced"))
            assert told == ("192.0.2.1", "56324", "http", None, "test", "198.51.100.1", "443")
        introduced.log.wait_for(
            "request.finished", count=2, path="/introduced", client="192.0.2.1:56324", peer=client.name
        )


def test_a_header_and_a_request_may_come_in_one_piece_or_byte_by_byte(introduced: Site) -> None:
    whole = BLOCK + b"GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    for pieces in ([whole], [whole[at : at + 1] for at in range(len(whole))]):
        with Caller(introduced.address) as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                client.send(piece)
                if len(pieces) > 1:
                    time.sleep(0.002)
            assert json.loads(client.read().body)["environ"]["REMOTE_ADDR"] == "192.0.2.1"


def test_a_client_that_speaks_tls_with_the_proxy_has_asked_by_https(introduced: Site) -> None:
    with Caller(introduced.address) as client:
        client.send(BLOCK_TLS)
        assert asked(client.environ())[2:4] == ("https", "on")


@pytest.mark.parametrize(
    "header", [b"PROXY UNKNOWN\r\n", block(command=0, family=0), block(b"x" * 216, family=0x31)]
)
def test_where_a_header_tells_nobody_the_connections_own_address_counts_and_no_field_is_believed(
    introduced: Site, header: bytes
) -> None:
    with Caller(introduced.address) as client:
        client.send(header)
        environ = client.environ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https")
        assert f"{environ['REMOTE_ADDR']}:{environ['REMOTE_PORT']}" == client.name
        assert (environ["wsgi.url_scheme"], "HTTP_X_FORWARDED_FOR" in environ) == ("http", False)


def test_whom_a_header_tells_is_the_peer_that_is_trusted_or_not(start: Start) -> None:
    site = start("apps:echo", processes=1, proxy_protocol="v1", trusted_proxies="192.0.2.1")
    with Caller(site.address) as client:
        client.send(LINE)
        assert client.environ("X-Forwarded-For: 203.0.113.5")["REMOTE_ADDR"] == "203.0.113.5"
        site.log.wait_for("request.finished", client="203.0.113.5", peer=client.name)
    for stranger in ("192.0.2.2", "192.0.2.3"):
        with Caller(site.address) as client:
            client.send(LINE.replace("192.0.2.1", stranger))
            assert client.environ("X-Forwarded-For: 203.0.113.5")["REMOTE_ADDR"] == stranger
    (warning,) = site.log.find(event="proxies.untrusted", level="warning")
    assert (warning["peer"], warning["via"].partition(":")[0]) == ("192.0.2.2", HERE)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 65536\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n",
        b"PROXY nonsense\r\n",
        b"\x16\x03\x01\x02\0\x01",
        block(b"\0" * 12, command=2),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_header_ends_the_connection_without_a_word_and_is_counted(
    introduced: Site, sent: bytes
) -> None:
    wait_until(lambda: introduced.served.statistics().in_flight == 0)
    before = introduced.served.statistics()
    with Caller(introduced.address) as client:
        client.send(sent)
        assert client.is_closed()
    wait_until(lambda: introduced.served.statistics().not_introduced == before.not_introduced + 1)
    assert introduced.served.statistics().requests == before.requests
    introduced.log.wait_for("proxy_protocol.malformed", level="warning")


def test_a_header_has_header_timeout_and_silence_is_nobodys_fault(impatient: Site) -> None:
    before = impatient.served.statistics()
    with Caller(impatient.address) as slow:
        slow.send(LINE[:20])
        with Caller(impatient.address) as silent, Caller(impatient.address) as brief:
            brief.close()
            assert slow.is_closed()
            assert silent.is_closed()
    wait_until(lambda: impatient.served.statistics().idle_closed >= before.idle_closed + 2)
    wait_until(lambda: impatient.served.statistics().connections == 0)
    assert impatient.served.statistics().not_introduced == before.not_introduced + 1


def test_the_first_request_has_header_timeout_of_its_own(impatient: Site) -> None:
    with Caller(impatient.address) as client:
        client.send(LINE + "GET / HT")
        assert client.read().status == 408
        impatient.log.wait_for("request.finished", client="192.0.2.1:56324", status=408, peer=client.name)


def test_a_peer_that_may_not_introduce_anybody_may_not_connect(start: Start) -> None:
    site = start("apps:echo", processes=1, proxy_protocol="auto", trusted_proxies="*")
    for header in (LINE, "", LINE):
        with Caller(site.address, ELSEWHERE) as client:
            try:
                client.send(header + "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            except OSError:
                pass  # it was closed before
            assert client.is_closed()
    wait_until(lambda: site.served.statistics().not_introduced == 3)
    site.log.wait_for("proxy_protocol.not_allowed", level="warning")
    (warning,) = site.log.find(event="proxy_protocol.not_allowed", level="warning")
    assert warning["setting"] == f"--proxy-allow-from {ELSEWHERE}"
    assert warning["peer"].startswith(f"{ELSEWHERE}:")
    assert not site.served.statistics().requests


def test_health_probes_are_introduced_by_nobody(introduced: Site) -> None:
    (address,) = introduced.served.health_addresses
    with Client((HERE, int(address.rpartition(":")[2]))) as client:
        assert client.get("/livez").status == 200


def test_each_address_may_have_a_protocol_of_its_own(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "site.sock")
    site = start(
        "apps:echo",
        processes=1,
        bind=["127.0.0.1:0", "127.0.0.1:0,proxy-protocol=v2", f"unix:{path},proxy-protocol=v1"],
    )
    plain, second, unix = site.served.addresses
    assert unix == f"unix:{path}"
    with Caller((HERE, int(plain.rpartition(":")[2]))) as client:
        assert client.environ()["REMOTE_ADDR"] == HERE
    with Caller((HERE, int(second.rpartition(":")[2]))) as client:
        client.send(BLOCK)
        assert client.environ()["REMOTE_ADDR"] == "192.0.2.1"
    with Caller((HERE, int(second.rpartition(":")[2]))) as client:
        client.send(LINE)
        assert client.is_closed()
    with Client(path) as local:
        local.send(LINE)
        environ = json.loads(local.get("/", "X-Forwarded-For: 6.6.6.6").body)["environ"]
        assert (environ["REMOTE_ADDR"], "HTTP_X_FORWARDED_FOR" in environ) == ("192.0.2.1", False)
    site.log.wait_for("request.finished", client="192.0.2.1:56324", peer="unix")


@pytest.mark.parametrize("first", ["127.0.0.1:0", "127.0.0.1:0,proxy-protocol=v1"])
def test_sockets_are_taken_over_whatever_is_spoken_there_from_now_on(start: Start, first: str) -> None:
    site = start(processes=1, bind=first)
    sockets = {name: [os.dup(fd) for fd in fds] for name, fds in site.served.listeners().items()}
    settings = Settings.for_app("apps:hello", bind="127.0.0.1:0,proxy-protocol=v2", python_path=[str(TESTS)])
    with Gateway(settings, inherited=sockets).serving_in_thread() as served:
        assert served.addresses == site.served.addresses


def test_connections_that_are_not_introduced_yet_end_when_the_gateway_stops(loop: str) -> None:
    with ExitStack() as stack:
        site = start_site(
            stack, loop=loop, processes=1, proxy_protocol="auto", header_timeout=600, graceful_timeout=600
        )
        clients = [stack.enter_context(Caller(site.address)) for _ in range(3)]
        clients[1].send("PROXY")
        clients[2].send(LINE)
        wait_until(lambda: site.served.statistics().connections == 3)
        began = time.monotonic()
        stack.pop_all().close()
        assert time.monotonic() - began < 100, "it has waited for them"
