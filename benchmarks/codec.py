"""What the codecs and the environ cost a request: `python benchmarks/codec.py`, with gatekeep installed.

The request is a browser's with 13 fields, the response has six; the figure for a codec covers next_request, start_response,
encode, finish and next_cycle. Machines and days differ, so only the ratio of two figures of one run means anything. The figure
for a large body is per MiB, decoded from reads of 64 KiB, beside one copy of as many bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from timeit import repeat

from gatekeep.transport import _environ
from gatekeep.transport._codec import Codec, Limits
from gatekeep.transport._codec_h11 import H11Codec
from gatekeep.transport._codec_strict import StrictCodec

REQUEST = b"""\
GET /accounts/login/?next=/admin/ HTTP/1.1
Host: www.example.com
Connection: keep-alive
Cache-Control: max-age=0
sec-ch-ua: "Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99"
sec-ch-ua-mobile: ?0
Upgrade-Insecure-Requests: 1
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8
Sec-Fetch-Site: none
Sec-Fetch-Mode: navigate
Accept-Encoding: gzip, deflate, br
Accept-Language: en-GB,en;q=0.9,de;q=0.8
Cookie: sessionid=0123456789abcdef0123456789abcdef; csrftoken=abcdefghijklmnopqrstuvwxyz012345

""".replace(b"\n", b"\r\n")

BODY = b"Hello, world!\n"
FIELDS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Length", str(len(BODY))),
    ("X-Frame-Options", "DENY"),
    ("Vary", "Cookie"),
]
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


def exchange(codec: Codec) -> None:
    """One request and its response."""
    codec.receive(REQUEST)
    codec.next_request()
    codec.start_response(200, "OK", FIELDS, date=DATE, server="gatekeep", close=False)
    codec.encode(BODY)
    codec.finish()
    codec.next_cycle()


PACKET = bytes(65536)


def upload(codec: Codec, framing: bytes) -> None:
    """A MiB of body in 16 reads."""
    codec.receive(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
    codec.next_request()
    codec.read_body()
    for _ in range(16):
        codec.receive(PACKET)
        codec.read_body()


def tiny_chunks(codec: Codec, packet: bytes = b"1\r\na\r\n" * 10922) -> None:
    """64 KiB that are chunks of one byte: the most work that a client can make of them."""
    codec.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    codec.next_request()
    codec.receive(packet)
    codec.read_body()


def measure(name: str, call: Callable[[], object], number: int) -> float:
    """The best of nine runs, in microseconds a call."""
    best = min(repeat(call, number=number, repeat=9)) / number * 1e6
    print(f"{name:45} {best:9.2f} us")
    return best


def main() -> None:
    """Print the figures."""
    strict, other = StrictCodec(Limits()), H11Codec(Limits())
    fast = measure("strict: request and response", lambda: exchange(strict), 5000)
    slow = measure("h11: request and response", lambda: exchange(other), 500)
    print(f"{'strict / h11':45} {fast / slow:9.2f}")
    strict.receive(REQUEST)
    head = strict.next_request()
    assert head is not None
    client, server = ("192.0.2.1", 4711), ("www.example.com", "80")
    measure("environ", lambda: _environ.build(head, scheme="http", client=client, server=server), 5000)
    length, chunked = b"Content-Length: 1048576\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n100000\r\n"
    measure("strict: 1 MiB of a length", lambda: upload(StrictCodec(Limits()), length), 500)
    measure("strict: 1 MiB in one chunk", lambda: upload(StrictCodec(Limits()), chunked), 500)
    packet = (b"1000\r\n" + bytes(4096) + b"\r\n") * 16
    measure("strict: 64 KiB in chunks of 4 KiB", lambda: tiny_chunks(StrictCodec(Limits()), packet), 500)
    measure("strict: 64 KiB in chunks of a byte", lambda: tiny_chunks(StrictCodec(Limits())), 20)
    whole = 16 * PACKET
    measure("a copy of 1 MiB", lambda: bytearray(whole), 500)


if __name__ == "__main__":
    main()
