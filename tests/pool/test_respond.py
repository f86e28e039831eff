"""`start_response`, `write` and the frames that they become."""

from __future__ import annotations

import io
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from gatekeep.pool import _respond
from gatekeep.pool._respond import (
    LONGEST_HEAD,
    LONGEST_KNOWN,
    MOST_KNOWN,
    ContractBroken,
    FileCut,
    FileWrapper,
    HopLost,
    Responder,
)
from gatekeep.transport import _wire
from gatekeep.transport._wire import End, Fail, Head, Kind

NOW = 12.5


class Hop:
    """Both ends of a hop; what the worker's end sends is read by a thread."""

    def __init__(self, kind: int = socket.SOCK_STREAM) -> None:
        self.worker, self.front = socket.socketpair(socket.AF_UNIX, kind)
        self.writes: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while data := self.front.recv(1 << 20):
            self.writes.append(data)

    def heard(self) -> list[tuple[Kind, Any]]:
        """Everything that was sent: kind and message, the pieces of a body joined; LAST as what it stands for.

        Ends the worker's end.
        """
        self.worker.close()
        self._reader.join()
        decoder = _wire.front_decoder()
        decoder.feed(b"".join(self.writes))
        found: list[tuple[Kind, Any]] = []
        for number, payload in decoder.frames():
            kind = Kind(number)
            decode = {Kind.HEAD: _wire.decode_head, Kind.END: _wire.decode_end, Kind.FAIL: _wire.decode_fail}
            if kind is Kind.LAST:
                found += [(Kind.DATA, payload)] if payload else []
                found.append((Kind.END, End(NOW)))
            elif kind is not Kind.DATA:
                found.append((kind, decode[kind](payload)))
            elif found and found[-1][0] is Kind.DATA:
                found[-1] = kind, found[-1][1] + payload
            else:
                found.append((kind, payload))
        assert decoder.is_between_frames()
        return found

    def close(self) -> None:
        self.worker.close()
        self._reader.join()
        self.front.close()


@pytest.fixture
def hop() -> Iterator[Hop]:
    pair = Hop()
    yield pair
    pair.close()


@pytest.fixture
def responder(hop: Hop) -> Responder:
    return Responder(hop.worker, "GET")


def response(
    *fields: tuple[str, str], body: bytes | None = None, status: int = 200, reason: str = "OK"
) -> list:
    """The frames of a whole response."""
    data = [(Kind.DATA, body)] if body else []
    return [(Kind.HEAD, Head(status, reason, list(fields))), *data, (Kind.END, End(NOW))]


EMPTY = ("Content-Length", "0")


def raised(error: Exception) -> Any:
    """`sys.exc_info()` of an error that was raised."""
    try:
        raise error
    except type(error):
        return sys.exc_info()


# --- start_response


def test_it_returns_write_and_sends_nothing_yet(hop: Hop, responder: Responder) -> None:
    assert responder.start_response("200 OK", []) == responder.write
    assert (responder.called, responder.started) == (True, False)
    assert hop.heard() == []


def test_what_the_application_makes_of_its_fields_later_is_in_no_response(
    hop: Hop, responder: Responder
) -> None:
    fields = [("A", "b")]
    responder.start_response("200 OK", fields)
    fields.append(("C", "d"))
    responder.end(NOW)
    again = Responder(hop.worker, "GET")
    again.start_response("200 OK", [("A", "b")])
    again.end(NOW)
    assert hop.heard() == response(("A", "b"), EMPTY) * 2


def test_a_head_that_differs_a_little_from_the_last_one_is_checked_and_sent_as_it_is(hop: Hop) -> None:
    heads: list[tuple[str, tuple[str, str]]] = [
        ("200 OK", ("A", "b")),
        ("200 OK", ("A", "B")),
        ("200 Ok", ("A", "B")),
        ("200 Ok", ("a", "B")),
    ]
    for status, field in heads * 2:
        responder = Responder(hop.worker, "GET")
        responder.start_response(status, [field])
        responder.end(NOW)
    told = [response(field, EMPTY, reason=status[4:]) for status, field in heads * 2]
    assert hop.heard() == [frame for whole in told for frame in whole]


def test_a_head_is_refused_however_like_it_the_last_one_was(responder: Responder) -> None:
    responder.start_response("200 OK", [("A", "1")])
    refused: list[Any] = [[("A", 1)], [["A", "1"]], (("A", "1"),), [("A", "1\n")]]
    for fields in refused:
        responder.called = False
        with pytest.raises(ContractBroken):
            responder.start_response("200 OK", fields)


def test_a_second_call_without_exc_info_is_refused(responder: Responder) -> None:
    responder.start_response("200 OK", [])
    with pytest.raises(ContractBroken, match="a second time without exc_info"):
        responder.start_response("200 OK", [])


def test_a_second_call_with_exc_info_replaces_all_of_the_first(hop: Hop, responder: Responder) -> None:
    responder.start_response("200 OK", [("Content-Length", "3"), ("A", "b")])
    responder.start_response("500 Sorry", [("C", "d")], raised(ValueError("x")))
    responder.write(b"longer than three")
    responder.end(NOW)
    assert hop.heard() == response(("C", "d"), body=b"longer than three", status=500, reason="Sorry")


def test_a_first_call_may_have_exc_info(hop: Hop, responder: Responder) -> None:
    responder.start_response("500 Sorry", [], raised(ValueError("x")))
    responder.end(NOW)
    assert hop.heard() == response(EMPTY, status=500, reason="Sorry")


def test_exc_info_after_the_head_is_out_is_raised_again_with_its_traceback(
    hop: Hop, responder: Responder
) -> None:
    responder.start_response("200 OK", [])
    responder.write(b"out")
    error = ValueError("x")
    with pytest.raises(ValueError) as again:
        responder.start_response("500 Sorry", [], raised(error))
    assert again.value is error
    assert [frame.name for frame in again.traceback][-1] == "raised"
    assert hop.heard() == [(Kind.HEAD, Head(200, "OK", [])), (Kind.DATA, b"out")]


def test_a_call_that_was_refused_does_not_count(hop: Hop, responder: Responder) -> None:
    with pytest.raises(ContractBroken):
        responder.start_response("200 OK", [("A b", "c")])
    assert not responder.called
    responder.start_response("200 OK", [("A-b", "c")])
    responder.end(NOW)
    assert hop.heard() == response(("A-b", "c"), EMPTY)


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        ("200 OK", 200, "OK"),
        ("200 ", 200, ""),
        ("200", 200, ""),
        ("404 Not Found", 404, "Not Found"),
        ("299 \t ", 299, "\t "),
        ("999 \xe4", 999, "\xe4"),
    ],
)
def test_a_status_is_three_digits_and_a_reason(
    hop: Hop, responder: Responder, status: str, code: int, reason: str
) -> None:
    responder.start_response(status, [])
    responder.end(NOW)
    assert hop.heard() == response(EMPTY, status=code, reason=reason)


@pytest.mark.parametrize(
    "status",
    [
        *[
            "",
            "OK",
            "20",
            "2000",
            "20x OK",
            "100 Continue",
            "101 Switching",
            "199 x",
            "099 x",
            "-20 x",
            " 200 OK",
        ],
        *[
            "200OK",
            "200\tOK",
            "200 OK\n",
            "200 OK\r\nA: b",
            "200 \0",
            "200 \x7f",
            "200 \u20ac",
            "\u0662\u0660\u0660 OK",
        ],
        *[200, None, b"200 OK", ("200", "OK")],
    ],
)
def test_any_other_status_is_refused(responder: Responder, status: Any) -> None:
    with pytest.raises(ContractBroken, match="the status is"):
        responder.start_response(status, [])


@pytest.mark.parametrize(
    "fields",
    [
        *[None, (), {}, "A: b", {"A": "b"}, (("A", "b"),), iter([])],
        *[
            ["A: b"],
            [["A", "b"]],
            [("A",)],
            [("A", "b", "c")],
            [None],
            [("A", None)],
            [("A", 1)],
            [(b"A", "b")],
        ],
        *[[("A", b"b")], [(None, "b")]],
    ],
)
def test_fields_are_a_list_of_pairs_of_str(responder: Responder, fields: Any) -> None:
    with pytest.raises(ContractBroken, match=r"the header fields are a list|a header field"):
        responder.start_response("200 OK", fields)


TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
ODD = st.sampled_from("\r\n\0\t \x7f\x80\xff\u0100\u2028\ud800:aA1_-")
ODD_TEXT = st.text(ODD, max_size=8) | st.text(st.characters(), max_size=8)


@pytest.fixture(scope="module")
def nowhere() -> Iterator[socket.socket]:
    with socket.socket() as unused:
        yield unused


@given(name=ODD_TEXT, value=ODD_TEXT)
@settings(max_examples=500)
def test_nothing_passes_that_could_break_out_of_its_line(
    nowhere: socket.socket, name: str, value: str
) -> None:
    responder = Responder(nowhere, "GET")
    good = bool(TOKEN.fullmatch(name)) and all(
        c == "\t" or " " <= c <= "~" or "\x80" <= c <= "\xff" for c in value
    )
    try:
        responder.start_response("200 OK", [(name, value)])
        passed = True
    except ContractBroken:
        passed = False
    assert passed == (good and name.lower() != "content-length")
    if passed:
        assert not set("\r\n\0") & set(name + value)
        assert (name + value).encode("latin-1")


@given(reason=ODD_TEXT)
def test_no_reason_passes_that_could_break_out_of_its_line(nowhere: socket.socket, reason: str) -> None:
    responder = Responder(nowhere, "GET")
    try:
        responder.start_response(f"200 {reason}", [])
    except ContractBroken:
        return
    assert not set("\r\n\0") & set(reason)
    assert reason.encode("latin-1") is not None


@pytest.mark.parametrize(
    ("length", "body"), [("0", b""), ("3", b"abc"), ("003", b"abc"), ("000000000000000003", b"abc")]
)
def test_a_content_length_is_a_decimal_number(
    hop: Hop, responder: Responder, length: str, body: bytes
) -> None:
    responder.start_response("200 OK", [("content-LENGTH", length)])
    responder.end(NOW, [body])
    assert hop.heard() == response(("content-LENGTH", length), body=body)


@pytest.mark.parametrize(
    "length",
    ["", " ", " 3", "3 ", "+3", "-3", "3.0", "0x3", "1_0", "3,3", "\u0663", "\xb3", "9" * 19, "three"],
)
def test_any_other_content_length_is_refused(responder: Responder, length: str) -> None:
    with pytest.raises(ContractBroken):
        responder.start_response("200 OK", [("Content-Length", length)])


def test_two_content_lengths_are_refused_though_they_agree(responder: Responder) -> None:
    with pytest.raises(ContractBroken, match="given once"):
        responder.start_response("200 OK", [("Content-Length", "3"), ("content-length", "3")])


def test_what_the_application_does_to_its_list_afterwards_changes_nothing(
    hop: Hop, responder: Responder
) -> None:
    fields = [("A", "b")]
    responder.start_response("200 OK", fields)
    fields.append(("C", "d\r\nSet-Cookie: stolen=1"))
    responder.end(NOW)
    assert hop.heard() == response(("A", "b"), EMPTY)


# --- the body


def test_blocks_are_sent_as_they_come_with_the_head_before_the_first(hop: Hop, responder: Responder) -> None:
    responder.start_response("200 OK", [("A", "b")])
    responder.write(b"")
    assert not responder.started
    responder.write(b"one ")
    responder.write(b"")
    responder.write(b"two")
    responder.end(NOW)
    assert hop.heard() == response(("A", "b"), body=b"one two")


@pytest.mark.parametrize("blocks", [[b"whole"], (b"who", b"", b"le")])
def test_a_list_and_a_tuple_get_a_length(
    hop: Hop, responder: Responder, blocks: list[bytes] | tuple[bytes, ...]
) -> None:
    responder.start_response("200 OK", [("A", "b")])
    responder.end(NOW, blocks)
    assert hop.heard() == response(("A", "b"), ("Content-Length", "5"), body=b"whole")


@pytest.mark.parametrize("blocks", [[], (), [b""]])
def test_a_response_that_turns_out_empty_gets_a_length_too(
    hop: Hop, responder: Responder, blocks: list[bytes] | tuple[bytes, ...]
) -> None:
    responder.start_response("200 OK", [])
    responder.end(NOW, blocks)
    assert hop.heard() == response(EMPTY)


def test_nothing_in_answer_to_head_says_nothing_about_the_length(hop: Hop) -> None:
    responder = Responder(hop.worker, "HEAD")
    responder.start_response("200 OK", [])
    responder.end(NOW)
    assert hop.heard() == response()


def test_a_list_after_write_gets_none(hop: Hop, responder: Responder) -> None:
    responder.start_response("200 OK", [])(b"written, ")
    responder.end(NOW, [b"returned"])
    assert hop.heard() == response(body=b"written, returned")


def test_the_applications_own_length_is_not_touched(hop: Hop, responder: Responder) -> None:
    responder.start_response("200 OK", [("Content-Length", "5")])
    responder.end(NOW, [b"whole"])
    assert hop.heard() == response(("Content-Length", "5"), body=b"whole")


def test_a_length_is_added_to_a_copy_of_the_applications_list(responder: Responder) -> None:
    fields = [("A", "b")]
    responder.start_response("200 OK", fields)
    responder.end(NOW, [b"whole"])
    assert fields == [("A", "b")]


@pytest.mark.parametrize("blocks", [[b"small"], [b"a" * 100] * 100])
def test_a_small_response_is_one_write(blocks: list[bytes]) -> None:
    packets = Hop(socket.SOCK_SEQPACKET)
    responder = Responder(packets.worker, "GET")
    responder.start_response("200 OK", [])
    responder.end(NOW, blocks)
    packets.heard()
    (written,) = packets.writes
    decoder = _wire.front_decoder()
    decoder.feed(written)
    assert [kind for kind, _ in decoder.frames()] == [Kind.HEAD, Kind.LAST]
    packets.close()


@pytest.mark.parametrize("sizes", [[10_000_000], [1, 3_000_000, 1, 65536, 65537]])
def test_a_large_response_arrives_whole(hop: Hop, responder: Responder, sizes: list[int]) -> None:
    blocks = [bytes([number]) * size for number, size in enumerate(sizes)]
    responder.start_response("200 OK", [])
    responder.end(NOW, blocks)
    assert hop.heard() == response(("Content-Length", str(sum(sizes))), body=b"".join(blocks))


@pytest.mark.parametrize(
    "block", ["text", bytearray(b"x"), memoryview(b"x"), 7, None], ids=lambda block: type(block).__name__
)
def test_a_body_is_bytes_and_nothing_else(hop: Hop, responder: Responder, block: Any) -> None:
    responder.start_response("200 OK", [])
    with pytest.raises(ContractBroken, match=f"of bytes, not of {type(block).__name__}"):
        responder.write(block)
    with pytest.raises(ContractBroken, match=f"of bytes, not of {type(block).__name__}"):
        responder.end(NOW, [b"good", block])
    assert hop.heard() == []


def test_a_body_before_start_response_is_refused(hop: Hop, responder: Responder) -> None:
    for offend in (
        lambda: responder.write(b"x"),
        lambda: responder.end(NOW, [b"x"]),
        lambda: responder.end(NOW),
        lambda: responder.send_file(0, 0, 1),
    ):
        with pytest.raises(ContractBroken, match="start_response was not called"):
            offend()
    assert hop.heard() == []


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [
        ("HEAD", "200 OK", ["Content-Length"]),
        ("GET", "204 x", []),
        ("GET", "304 x", []),
        ("HEAD", "304 x", []),
    ],
)
def test_a_response_without_a_body_has_none_whatever_the_application_produces(
    hop: Hop, method: str, status: str, length: list[str]
) -> None:
    responder = Responder(hop.worker, method)
    responder.start_response(status, [])
    responder.end(NOW, [b"some", b"thing"])
    assert responder.excess == 0
    (kind, head), end = hop.heard()
    assert (kind, end) == (Kind.HEAD, (Kind.END, End(NOW)))
    assert [name for name, _ in head.fields] == length


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not Modified")])
def test_a_declared_length_without_a_body_is_not_short(hop: Hop, method: str, status: str) -> None:
    responder = Responder(hop.worker, method)
    responder.start_response(status, [("Content-Length", "1000")])
    responder.write(b"some of it")
    responder.end(NOW)
    (_, head), end = hop.heard()
    assert (head.fields, end) == ([("Content-Length", "1000")], (Kind.END, End(NOW)))


@pytest.mark.parametrize(
    ("blocks", "sent", "excess"),
    [
        ([b"12345"], b"12345", 0),
        ([b"123456"], b"12345", 1),
        ([b"123", b"456", b"789"], b"12345", 4),
        ([b"12345", b"6"], b"12345", 1),
    ],
)
def test_what_exceeds_the_declared_length_is_cut_and_counted(
    hop: Hop, responder: Responder, blocks: list[bytes], sent: bytes, excess: int
) -> None:
    responder.start_response("200 OK", [("Content-Length", "5")])
    for block in blocks:
        responder.write(block)
    responder.end(NOW)
    assert responder.excess == excess
    assert hop.heard() == response(("Content-Length", "5"), body=sent)


def test_of_statuses_and_names_that_are_made_from_data_few_are_kept_and_only_short_ones(
    hop: Hop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_respond, "_known_names", set())
    monkeypatch.setattr(_respond, "_known_statuses", {})
    long = "x" * (LONGEST_KNOWN + 1)
    for number in range(MOST_KNOWN + 10):
        fields = [(f"{number}-{long}", ""), (f"X-{number}", "")]
        Responder(hop.worker, "GET").start_response(f"200 {number}", fields)
        Responder(hop.worker, "GET").start_response(f"200 {number} {long}", fields)
    for known in (_respond._known_names, _respond._known_statuses):
        assert len(known) <= MOST_KNOWN
        assert max(map(len, known)) <= LONGEST_KNOWN


@pytest.mark.parametrize("blocks", [[b"123"], [b"1", b"23"], []])
def test_a_body_that_is_known_to_be_short_before_the_head_is_out_is_refused_whole(
    hop: Hop, responder: Responder, blocks: list[bytes]
) -> None:
    responder.start_response("200 OK", [("Content-Length", "5")])
    with pytest.raises(ContractBroken, match=f"has {sum(map(len, blocks))} bytes, its Content-Length says 5"):
        responder.end(NOW, blocks)
    assert hop.heard() == []


@pytest.mark.parametrize("blocks", [[b"3"], []])
def test_what_is_short_of_the_declared_length_is_sent_without_an_end(
    hop: Hop, responder: Responder, blocks: list[bytes]
) -> None:
    responder.start_response("200 OK", [("Content-Length", "5")])(b"12")
    with pytest.raises(ContractBroken, match=f"ended {3 - len(blocks)} bytes short"):
        responder.end(NOW, blocks)
    responder.fail("short", NOW)
    head = Kind.HEAD, Head(200, "OK", [("Content-Length", "5")])
    sent = Kind.DATA, b"".join([b"12", *blocks])
    assert hop.heard() == [head, sent, (Kind.FAIL, Fail("short", NOW))]


def test_a_head_that_nobody_would_take_is_refused(hop: Hop, responder: Responder) -> None:
    responder.start_response("200 OK", [("A", "b" * LONGEST_HEAD)])
    with pytest.raises(ContractBroken, match=r"a response head of \d+ bytes"):
        responder.write(b"x")
    responder.start_response("200 OK", [], raised(ValueError("another try")))
    responder.end(NOW, [b"x"])
    assert hop.heard() == response(("Content-Length", "1"), body=b"x")


def test_a_failure_before_the_head_has_none(hop: Hop, responder: Responder) -> None:
    responder.start_response("200 OK", [])
    responder.fail("ValueError: x", NOW)
    assert hop.heard() == [(Kind.FAIL, Fail("ValueError: x", NOW))]


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_front_that_is_gone_is_told_to_the_application_as_a_lost_hop(size: int) -> None:
    worker, front = socket.socketpair()
    with worker:
        responder = Responder(worker, "GET")
        responder.start_response("200 OK", [])
        front.close()
        with pytest.raises(HopLost):
            responder.write(b"x" * size)
        with pytest.raises(HopLost):
            responder.fail("x", NOW)


# --- socket-timeout


@pytest.fixture
def stalled() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The worker's end of a hop, and the front's, which reads nothing."""
    worker, front = socket.socketpair()
    with worker, front:
        yield worker, front


MUCH = b"x" * 5_000_000
Stalled = tuple[socket.socket, socket.socket]


@pytest.mark.parametrize("sends", ["write", "end", "head", "file"])
def test_a_front_that_takes_nothing_for_socket_timeout_has_lost_the_response(
    stalled: Stalled, tmp_path: Path, sends: str
) -> None:
    responder = Responder(stalled[0], "GET", 0.05)
    (tmp_path / "much").write_bytes(MUCH)
    responder.start_response("200 OK", [("A", "b" * 1_000_000)] if sends == "head" else [])
    with (tmp_path / "much").open("rb") as file, pytest.raises(HopLost, match=r"^socket-timeout: writing"):
        match sends:
            case "write":
                responder.write(MUCH)
            case "file":
                send(responder, FileWrapper(file))
            case _:
                responder.end(NOW, [MUCH])
    assert responder.timed_out


def test_a_lost_front_is_no_timeout(stalled: Stalled) -> None:
    worker, front = stalled
    responder = Responder(worker, "GET", 60.0)
    responder.start_response("200 OK", [])
    front.close()
    with pytest.raises(HopLost):
        responder.write(MUCH)
    assert not responder.timed_out


def test_nothing_follows_a_frame_that_was_not_finished(stalled: Stalled) -> None:
    """The application may catch the error and go on; the front would take what follows for the rest of the frame."""
    worker, front = stalled
    responder = Responder(worker, "GET", 0.05)
    responder.start_response("200 OK", [])
    with pytest.raises(HopLost):
        responder.write(MUCH)
    front.setblocking(False)
    taken = 0
    with pytest.raises(BlockingIOError):
        while True:
            taken += len(front.recv(1 << 20))
    assert 0 < taken < len(MUCH)
    for follow in (
        lambda: responder.write(b"x"),
        lambda: responder.end(NOW),
        lambda: responder.fail("x", NOW),
    ):
        with pytest.raises(HopLost, match="ends inside a frame"):
            follow()
    with pytest.raises(BlockingIOError):
        front.recv(1)


def test_nothing_follows_a_frame_in_which_an_exception_came(hop: Hop, path: Path) -> None:
    """Another thread may send one (`PyThreadState_SetAsyncExc`): it arrives between any two steps."""

    class Interrupting(Responder):
        def _send_range(self, *_: int) -> None:
            raise KeyboardInterrupt

    responder = Interrupting(hop.worker, "GET")
    responder.start_response("200 OK", [])
    with path.open("rb") as file, pytest.raises(KeyboardInterrupt):
        send(responder, FileWrapper(file))
    with pytest.raises(HopLost, match="ends inside a frame"):
        responder.fail("x", NOW)


def test_a_front_that_reads_slowly_gets_all_of_it(stalled: Stalled, path: Path) -> None:
    worker, front = stalled
    responder = Responder(worker, "GET", 60.0)
    responder.start_response("200 OK", [])
    got = bytearray()

    def read() -> None:
        while data := front.recv(10_000):
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    with path.open("rb") as file:
        send(responder, FileWrapper(file))
        responder.end(NOW, [])
    worker.shutdown(socket.SHUT_WR)
    reader.join()
    decoder = _wire.front_decoder()
    decoder.feed(bytes(got))
    pieces = [payload for kind, payload in decoder.frames() if kind == Kind.DATA]
    assert b"".join(pieces) == path.read_bytes()


# --- files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 10_000)
    return file


def send(responder: Responder, wrapper: FileWrapper) -> None:
    plain = wrapper.plain_file()
    assert plain is not None
    responder.send_file(*plain)


def test_a_plain_file_is_sent_whole_with_its_length(hop: Hop, responder: Responder, path: Path) -> None:
    responder.start_response("200 OK", [])
    with path.open("rb") as file:
        send(responder, FileWrapper(file))
    responder.end(NOW)
    content = path.read_bytes()
    assert hop.heard() == response(("Content-Length", str(len(content))), body=content)


def test_a_file_is_sent_from_where_it_stands(hop: Hop, responder: Responder, path: Path) -> None:
    responder.start_response("200 OK", [])
    with path.open("rb") as file:
        file.read(1000)
        send(responder, FileWrapper(file))
    responder.end(NOW)
    content = path.read_bytes()[1000:]
    assert hop.heard() == response(("Content-Length", str(len(content))), body=content)


def test_a_file_longer_than_the_declared_length_is_cut(hop: Hop, responder: Responder, path: Path) -> None:
    responder.start_response("200 OK", [("Content-Length", "5")])
    with path.open("rb") as file:
        send(responder, FileWrapper(file))
    responder.end(NOW)
    assert responder.excess == 2_560_000 - 5
    assert hop.heard() == response(("Content-Length", "5"), body=b"\0\1\2\3\4")


def test_a_file_shorter_than_the_declared_length_has_no_end(
    hop: Hop, responder: Responder, path: Path
) -> None:
    responder.start_response("200 OK", [("Content-Length", "2560001")])
    with path.open("rb") as file:
        send(responder, FileWrapper(file))
    with pytest.raises(ContractBroken, match="ended 1 bytes short"):
        responder.end(NOW)
    assert [kind for kind, _ in hop.heard()] == [Kind.HEAD, Kind.DATA]


def test_head_of_a_file_has_its_length_and_nothing_of_it(hop: Hop, path: Path) -> None:
    responder = Responder(hop.worker, "HEAD")
    responder.start_response("200 OK", [])
    with path.open("rb") as file:
        send(responder, FileWrapper(file))
    responder.end(NOW)
    assert hop.heard() == response(("Content-Length", "2560000"))


def test_a_file_that_became_shorter_meanwhile_breaks_the_hop(responder: Responder, path: Path) -> None:
    responder.start_response("200 OK", [])
    with path.open("rb") as file, pytest.raises(FileCut, match="became shorter"):
        responder.send_file(file.fileno(), 0, 2_560_001)
    with pytest.raises(HopLost, match="ends inside a frame"):
        responder.fail("the file became shorter", NOW)


class Chatty(io.BufferedReader):
    """Its `read` gives something else than its descriptor."""


def test_only_a_plain_file_is_taken_from_its_descriptor(path: Path) -> None:
    class OnlyRead:
        def read(self, size: int) -> bytes:
            return b""

    with path.open("rb") as buffered, path.open("rb", buffering=0) as raw, path.open() as text:
        chatty = Chatty(raw)
        assert FileWrapper(buffered).plain_file() == (buffered.fileno(), 0, 2_560_000)
        assert FileWrapper(raw).plain_file() == (raw.fileno(), 0, 2_560_000)
        for other in (text, chatty, io.BytesIO(b"x"), io.BufferedReader(io.BytesIO(b"x")), OnlyRead()):
            assert FileWrapper(other).plain_file() is None
        chatty.detach()
    reader, writer = socket.socketpair()
    with reader, writer, reader.makefile("rb") as stream:
        assert FileWrapper(stream).plain_file() is None


def test_a_wrapper_reads_in_blocks_and_closes_what_can_be_closed(path: Path) -> None:
    file = path.open("rb")
    wrapper = FileWrapper(file, 1_000_000)
    assert [len(block) for block in wrapper] == [1_000_000, 1_000_000, 560_000]
    wrapper.close()
    assert file.closed

    class OnlyRead:
        def read(self, size: int) -> bytes:
            return b""

    assert not hasattr(FileWrapper(OnlyRead()), "close")
