"""The settings of what the front accepts from clients. Pure."""

from __future__ import annotations

import attrs

from gatekeep._access_format import FIELD_NAME
from gatekeep._errors import SettingsError
from gatekeep._trust import LOOPBACK, check_headers, parse_header, parse_network
from gatekeep.settings._bind import PROXY_PROTOCOLS
from gatekeep.settings._spec import Alias, listed, setting

FEW_CONNECTIONS = 256
"""Where the system's descriptors allow fewer than this and than max-connections, that is warned of."""


def parse_field_name(setting: str, text: str) -> str:
    """A field's name in lower case.

    Raises:
        SettingsError: it is none.
    """
    if not FIELD_NAME.fullmatch(text):
        raise SettingsError(f"{setting} = {text!r}: allowed are names of fields, such as user-agent")
    return text.lower()


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
        aliases=("--h11-max-incomplete-event-size", "--http1-buffer-size"),
    )
    limit_request_body: int = setting(
        0, "The largest request body; beyond it 413. 0: no limit.", unit="bytes", least=0
    )
    header_timeout: float = setting(
        15.0,
        "How long a client may take for a request's head; what arrives extends it at header-min-rate. Then 408. 0: for ever.",
        unit="seconds",
        least=0,
        foreign=(
            Alias(
                ("--http1-header-read-timeout",),
                unit="ms",
                note="what arrives extends it, up to header-max-timeout; header-min-rate = 0 takes it to the letter",
            ),
        ),
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
        "How long a client may keep the gateway waiting for a request's body; what arrives makes up for it at body-min-rate. "
        "Then 408. 0: for ever.",
        unit="seconds",
        least=0,
        precedent="mod_wsgi-express",
    )
    body_max_timeout: float = setting(
        0.0,
        "How long the gateway waits for a request's body in all, however steadily it comes. 0: no limit.",
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
        foreign=(Alias(("--no-http1-keep-alive",), value="0"),),
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
        "The largest temporary file of a response; beyond it the worker waits for the client.",
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
        "The path at which the gateway itself answers that it runs, on every address. Empty: none.",
        aliases=("--health-check-path",),
        pattern=_PROBE_PATH,
        described=_PROBE_PATH_DESCRIBED,
    )
    readyz_path: str = setting(
        "",
        "The path at which the gateway itself answers whether a request that came now would be served: 200 or 503. Empty: none.",
        pattern=_PROBE_PATH,
        described=_PROBE_PATH_DESCRIBED,
    )
    proxy_headers: bool = setting(
        True, "Whether any proxy is believed. Otherwise applications see nothing of what proxies say."
    )
    trusted_proxies: tuple[str, ...] = listed(
        "trusted-proxies",
        "Peers, usually proxies, that are believed about their clients: addresses, networks or * (anybody), with commas; "
        "repeatable. UNIX sockets' always are.",
        parse_network,
        LOOPBACK,
        item="network",
        aliases=("--forwarded-allow-ips",),
        precedent="gunicorn",
    )
    trusted_proxy_headers: tuple[str, ...] = listed(
        "trusted-proxy-headers",
        "The fields that trusted proxies are believed about, with commas; repeatable. Name those that your proxy sets or "
        "removes in every request, and no others.",
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
        foreign=(Alias(("--no-server-header",), value=""),),
    )

    log_url: bool = setting(
        False,
        "Put the scheme and the target, as the client sent it, into each request's record. By default that has only the path, "
        "since queries may hold secrets.",
    )
    log_request_headers: tuple[str, ...] = listed(
        "log-request-headers",
        "Fields of requests that are put into the requests' records, with commas; repeatable.",
        parse_field_name,
        (),
        item="header",
    )
    log_response_headers: tuple[str, ...] = listed(
        "log-response-headers",
        "Fields of the application's responses that are put into the requests' records, with commas; repeatable.",
        parse_field_name,
        (),
        item="header",
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
