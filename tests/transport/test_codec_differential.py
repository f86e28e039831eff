"""Mutated requests in random packets: both codecs, and h11 alone where ours let something through, must tell the same story.

GATEKEEP_DIFFERENTIAL is the number of examples, GATEKEEP_SEED the first of their seeds; a failure names its own, so that
`GATEKEEP_SEED=… GATEKEEP_DIFFERENTIAL=1` shows it again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import h11
import pytest

from gatekeep._errors import BodyLost, Refused
from gatekeep.transport import _environ
from gatekeep.transport._codec import Codec, Limits
from gatekeep.transport._codec_h11 import H11Codec
from gatekeep.transport._codec_strict import StrictCodec

EXAMPLES = int(os.environ.get("GATEKEEP_DIFFERENTIAL", "1500"))
SEED = int(os.environ.get("GATEKEEP_SEED", "9112"))

# Small, so that mutations cross them.
LIMITS = Limits(request_line=300, field_size=300, fields=20, head_size=900, body=2000)

CORPUS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a%20b?c=d HTTP/1.1\r\nHost: example.com:8080\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://b:1/c?d HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t z \t\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nUpgrade: h2c\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\nhello\r\n\r\nab",
    b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nHost: a\r\n\r\n0003;a=b;c\r\nabc\r\nA\r\n0123456789\r\n00\r\n\r\n",
    b'POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n1;a="b\\" c"\r\n\r\r\n0;z\r\nX-Sum: 1\r\nY: \xe9\r\n\r\n',
    b"POST / HTTP/1.1\r\nHost: a\r\nX_Y: z\r\nProxy: p\r\nContent-Length: 1\r\n\r\n\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nLong: " + b"v" * 250 + b"\r\nLong: " + b"w" * 250 + b"\r\n\r\n",
]

ALPHABET = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"/",
    b"#",
    b"?",
    b"*",
    b'"',
    b"=",
]
ALPHABET += [
    b"\x0b",
    b"\x7f",
    b"\x80",
    b"\x85",
    b"\xa0",
    b"\xff",
    b"_",
    b"-",
    b"+",
    b"0",
    b"1",
    b"9",
    b"f",
    b"0x",
    b"a" * 200,
]
ALPHABET += [
    b"chunked",
    b"close",
    b"Host: b\r\n",
    b"Content-Length: 4\r\n",
    b"Transfer-Encoding: chunked\r\n",
]
ALPHABET += [
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/1.2",
    b"http://a/",
    b"Connection: close\r\n",
    b"Expect: x\r\n",
    b"0\r\n\r\n",
    b"%",
]


def insert(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(ALPHABET) + data[at:]


def replace(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(ALPHABET) + data[at + chance.randrange(1, 4) :]


def flip(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]


def delete(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.randrange(1, 6) :]


def swap_case(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[at : at + 8].swapcase() + data[at + 8 :]


def change_lines(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\r\n")
    at = chance.randrange(len(lines))
    change = chance.randrange(4)
    if change == 0:
        lines.insert(at, chance.choice(lines))
    elif change == 1:
        del lines[at]
    elif change == 2:
        chance.shuffle(lines)
    else:
        lines.insert(at, chance.choice(chance.choice(CORPUS).split(b"\r\n")))
    return b"\r\n".join(lines) or b"\r\n"


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    insert,
    replace,
    flip,
    delete,
    swap_case,
    change_lines,
]


def mutated(chance: random.Random) -> bytes:
    data = b"".join(chance.choices(CORPUS, k=chance.choice([1, 1, 2, 3])))
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        data = chance.choice(MUTATIONS)(data, chance) or b"\n"
    return data[: chance.randrange(len(data) + 1)] if chance.randrange(8) == 0 else data


def packets(data: bytes, chance: random.Random) -> list[bytes]:
    kind = chance.randrange(4)
    if kind == 0:
        return [data]
    size = 1 if kind == 1 else chance.choice([2, 3, 10, 50])
    cuts = range(size, len(data), size)
    if kind == 3:
        cuts = sorted(chance.sample(range(len(data) + 1), min(len(data), 4)))  # type: ignore[assignment]
    ends = [*cuts, len(data)]
    return [piece for start, end in zip([0, *ends], ends, strict=False) if (piece := data[start:end])]


Event = tuple[object, ...]


def story(make: type[Codec], pieces: list[bytes]) -> list[Event]:
    """What a front would see of a connection whose client sends these packets, and then the end."""
    codec = make(LIMITS)
    events: list[Event] = []
    body: list[bytes] | None = None
    try:
        for piece in [*pieces, b""]:
            codec.receive(piece)
            while True:
                if body is None:
                    head = codec.next_request()
                    if head is None:
                        break
                    body = []
                    facts = [(name, getattr(head, name)) for name in head.__slots__]
                    environ = _environ.build(head, scheme="http", client=None, server=("a", "1"))
                    events.append(("head", facts, environ))
                while data := codec.read_body():
                    body.append(data)
                if not codec.body_complete:
                    break
                events.append(("body", b"".join(body)))
                body = None
                answer = codec.start_response(204, "No Content", [], date="", server="", close=False)
                events.append(("answer", answer, codec.reusable))
                if not codec.reusable:
                    return events
                codec.next_cycle()
    except Refused as refusal:
        events.append(("refused", refusal.status, refusal.reason))
    except BodyLost:
        events.append(("cut", b"".join(body or [])))
    else:
        events.append(("end", codec.idle, codec.buffered))
    return events


def alone(data: bytes) -> Iterator[Event]:
    """What h11 by itself makes of the first request."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data.removeprefix(b"\r\n"))
    request = connection.next_event()
    assert type(request) is h11.Request
    yield request.method.decode(), request.target.decode(), f"HTTP/{request.http_version.decode()}"
    body = b""
    while type(event := connection.next_event()) is h11.Data:
        body += event.data
    assert type(event) is h11.EndOfMessage
    yield ("body", body)


def check(seed: int) -> list[Event]:
    chance = random.Random(seed)
    data = mutated(chance)
    pieces, others = packets(data, chance), packets(data, chance)
    told = story(StrictCodec, pieces)
    assert told == story(H11Codec, others)
    if told[0][0] == "head":
        head, oracle = dict(told[0][1]), alone(data)  # type: ignore[call-overload]
        assert (head["method"], head["target"], head["version"]) == next(oracle)
        if told[1][0] == "body":
            assert told[1] == next(oracle)
    return told


def test_both_codecs_and_h11_alone_agree_on_mutated_requests_in_random_packets() -> None:
    accepted = refused = 0
    for seed in range(SEED, SEED + EXAMPLES):
        try:
            told = check(seed)
        except Exception as error:
            pytest.fail(f"GATEKEEP_SEED={seed}: {mutated(random.Random(seed))!r}: {error!r}")
        accepted += told[0][0] == "head"
        refused += told[-1][0] == "refused"
    if EXAMPLES > 100:  # the mutations are neither too tame nor too wild
        assert accepted > EXAMPLES / 4
        assert refused > EXAMPLES / 4


@pytest.mark.parametrize("data", CORPUS, ids=range(len(CORPUS)))
def test_the_requests_that_are_mutated_are_good_ones(data: bytes) -> None:
    assert [event[0] for event in story(StrictCodec, [data])][:2] == ["head", "body"]
