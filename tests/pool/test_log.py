"""What a daemon process prints and logs reaches the gateway, line by line, with its request; a slow reader stops nothing."""

from __future__ import annotations

import contextvars
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gatekeep.lifecycle._control import LogRecord, decode_log
from gatekeep.pool import _log
from gatekeep.pool._log import (
    LONGEST,
    LogSocket,
    OutputStream,
    capture_output,
    current_request,
    one_line,
    sendable,
)

PACKET = 1 << 18


class Gateway:
    """The reading end of a log socket."""

    def __init__(self, *, debug: bool = False) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs = theirs
        self.log = LogSocket(theirs, debug=debug)

    def read(self) -> LogRecord:
        """The next record, waited for."""
        return decode_log(self.ours.recv(PACKET))

    def records(self) -> list[LogRecord]:
        """All that has come."""
        found = []
        self.ours.setblocking(False)
        try:
            while packet := self.ours.recv(PACKET):
                found.append(decode_log(packet))
        except BlockingIOError:
            pass
        finally:
            self.ours.setblocking(True)
        return found

    def said(self) -> list[str]:
        """The texts of all output that has come."""
        return [record.fields["text"] for record in self.records()]  # type: ignore[misc]

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.close()


@pytest.fixture
def out(gateway: Gateway) -> OutputStream:
    return OutputStream(gateway.log, "stdout", 1)


# --- records


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_a_record_arrives_as_it_was_said(gateway: Gateway, level: str) -> None:
    getattr(gateway.log, level)("run.failed", reason="x", excess=3, share=0.5, yes=True, nothing=None)
    fields = {"reason": "x", "excess": 3, "share": 0.5, "yes": True, "nothing": None}
    assert gateway.records() == [LogRecord(level, "run.failed", fields, 0)]


@pytest.mark.parametrize("debug", [True, False])
def test_debug_is_sent_where_it_is_wanted(debug: bool) -> None:
    gateway = Gateway(debug=debug)
    gateway.log.debug("respond.abandoned")
    assert len(gateway.records()) == debug
    gateway.close()


def test_a_record_carries_the_request_that_its_thread_works_for(gateway: Gateway) -> None:
    gateway.log.info("outside")
    token = current_request.set(0xABC)
    gateway.log.info("inside")
    gateway.log.info("named", request_id="other")
    contextvars.copy_context().run(gateway.log.info, "in a task it started")
    current_request.reset(token)
    gateway.log.info("outside again")
    assert [record.fields.get("request_id") for record in gateway.records()] == [
        *[None, "0000000000000abc", "other", "0000000000000abc", None]
    ]


def test_two_threads_work_for_two_requests(gateway: Gateway) -> None:
    both = threading.Barrier(2)

    def work(number: int) -> None:
        current_request.set(number)
        both.wait()
        gateway.log.info("said", number=number)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for record in gateway.records():
        assert record.fields["request_id"] == f"{record.fields['number']:016x}"


# --- texts


@given(st.text(st.characters(categories=None), max_size=20))
def test_every_text_can_be_sent(text: str) -> None:
    assert isinstance(sendable(text).encode(), bytes)
    if text.isprintable():
        assert sendable(text) == text


@pytest.mark.parametrize("letter", ["a", "\xe4", "\u20ac", "\U0001f600", "\udcff", "\n"], ids=ascii)
def test_a_text_that_is_too_long_is_cut_and_still_fits_twice_into_a_packet(
    gateway: Gateway, letter: str
) -> None:
    gateway.log.error("run.failed", reason=letter * LONGEST * 2, traceback=letter * LONGEST * 2)
    (record,) = gateway.records()
    for text in (record.fields["reason"], record.fields["traceback"]):
        assert isinstance(text, str)
        assert len(text.encode()) <= LONGEST + len("…".encode())
        assert text.endswith("…")
        assert text[:6] == sendable(letter * 6)[:6]


def test_a_text_that_just_fits_is_not_touched(gateway: Gateway) -> None:
    gateway.log.info("said", text="x" * LONGEST)
    assert gateway.records()[0].fields["text"] == "x" * LONGEST


def test_a_lone_surrogate_is_written_out(gateway: Gateway) -> None:
    gateway.log.info("said", text="a\udcffb")
    assert gateway.records()[0].fields["text"] == "a\\udcffb"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ValueError: x\n", "ValueError: x"),
        ("first\n  second\r\n\tthird", "first second third"),
        ("", ""),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 500 + "…"),
        ("\udcff", "\\udcff"),
    ],
)
def test_one_line_is_one_line_of_bounded_length(text: str, line: str) -> None:
    assert one_line(text) == line


# --- a slow reader


def fill(gateway: Gateway) -> int:
    """Fill the socket with records; how many there was room for."""
    count = 0
    packet = b"\x94\xa4info\xa3old\x80\x00"  # LogRecord("info", "old", {}, 0)
    try:
        while True:
            gateway.theirs.send(packet)
            count += 1
    except BlockingIOError:
        return count


def test_a_full_socket_drops_counts_and_says_so_in_the_next_record_that_gets_through(
    gateway: Gateway,
) -> None:
    room = fill(gateway)
    gateway.log.info("lost")
    gateway.log.error("lost too")
    assert [record.event for record in gateway.records()] == ["old"] * room
    gateway.log.info("through")
    gateway.log.info("and on")
    assert [(record.event, record.dropped) for record in gateway.records()] == [("through", 2), ("and on", 0)]


def test_a_reader_that_is_only_late_loses_nothing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_log, "PATIENCE_MS", 60_000)  # as late as a busy machine makes it
    fill(gateway)
    said = threading.Thread(target=gateway.log.info, args=("late",))
    said.start()
    record = gateway.read()
    while record.event == "old":
        record = gateway.read()
    said.join()
    assert (record.event, record.dropped) == ("late", 0)


def test_a_gateway_that_is_gone_is_no_error(gateway: Gateway) -> None:
    gateway.ours.close()
    gateway.log.error("to nobody")
    print("to nobody", file=OutputStream(gateway.log, "stdout", 1))


INTERRUPTED = """
import signal, socket
from gatekeep.pool._log import LogSocket

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
log = LogSocket(theirs, debug=False)
calls = 0

def interrupt(*_):
    global calls
    calls += 1
    log.info("from the handler")

signal.signal(signal.SIGVTALRM, interrupt)
signal.setitimer(signal.ITIMER_VIRTUAL, 0.001, 0.001)
ours.setblocking(False)
while calls < 60:
    log.info("said")
    try:
        while ours.recv(1 << 18):
            pass
    except BlockingIOError:
        pass
signal.setitimer(signal.ITIMER_VIRTUAL, 0)
"""


def test_a_record_said_by_a_signal_or_a_finalizer_does_not_wait_for_the_one_that_it_interrupted() -> None:
    """Handlers, and from Python 3.12 on the garbage collector, run other people's code at any place, and it may print."""
    subprocess.run([sys.executable, "-c", INTERRUPTED], check=True, timeout=60)


# --- what is printed


def test_each_line_is_a_record(gateway: Gateway, out: OutputStream) -> None:
    print("one", 1, file=out)
    print("two", file=out)
    assert gateway.records() == [
        LogRecord("info", "app.output", {"stream": "stdout", "text": text}, 0) for text in ("one 1", "two")
    ]


def test_standard_error_is_a_warning(gateway: Gateway) -> None:
    print("oops", file=OutputStream(gateway.log, "stderr", 2))
    (record,) = gateway.records()
    assert (record.level, record.fields) == ("warning", {"stream": "stderr", "text": "oops"})


def test_what_is_written_at_once_stays_one_record(gateway: Gateway, out: OutputStream) -> None:
    out.write("Traceback:\n  line\nError\n")
    assert gateway.said() == ["Traceback:\n  line\nError"]


def test_a_logged_exception_is_one_record(gateway: Gateway, out: OutputStream) -> None:
    logger = logging.Logger("site")
    logger.addHandler(logging.StreamHandler(out))
    try:
        raise KeyError("x")
    except KeyError:
        logger.exception("failed")
    (text,) = gateway.said()
    assert text.startswith("failed\nTraceback (most recent call last):\n")
    assert text.endswith("KeyError: 'x'")


def test_empty_lines_say_nothing(gateway: Gateway, out: OutputStream) -> None:
    print(file=out)
    out.write("\n\n")
    out.write("")
    assert gateway.said() == []


def test_a_line_that_is_not_finished_waits_for_its_rest(gateway: Gateway, out: OutputStream) -> None:
    out.write("un")
    out.write("finish")
    out.flush()
    assert gateway.said() == []
    out.write("ed\nand")
    assert gateway.said() == ["unfinished"]
    out.write(" more\n")
    assert gateway.said() == ["and more"]


@pytest.mark.parametrize("text", ["unfinished", ".", "two\nlines"])
def test_a_request_that_ends_finishes_its_line(gateway: Gateway, out: OutputStream, text: str) -> None:
    token = current_request.set(7)
    out.write(text)
    out.lines.finish_line()
    out.lines.finish_line()
    current_request.reset(token)
    records = gateway.records()
    assert "\n".join(str(record.fields["text"]) for record in records) == text
    assert {record.fields["request_id"] for record in records} == {f"{7:016x}"}
    out.write("next\n")
    assert [record.fields for record in gateway.records()] == [{"stream": "stdout", "text": "next"}]


def test_threads_do_not_mix_their_lines(gateway: Gateway, out: OutputStream) -> None:
    turns = threading.Barrier(4)

    def work(number: int) -> None:
        current_request.set(number + 1)
        for line in range(25):
            turns.wait()
            for part in (str(number), "-", str(line), "\n"):
                out.write(part)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts: dict[int, list[str]] = {number: [] for number in range(4)}
    for record in gateway.records():
        number = int(str(record.fields["request_id"]), 16) - 1
        texts[number].append(str(record.fields["text"]))
    assert texts == {number: [f"{number}-{line}" for line in range(25)] for number in range(4)}


def test_a_line_without_an_end_is_said_when_it_is_too_long_to_keep(
    gateway: Gateway, out: OutputStream
) -> None:
    for _ in range(7):
        out.write("x" * 10_000)
    assert gateway.said() == ["x" * 60_000]
    out.write("\n")
    assert gateway.said() == ["x" * 10_000]


def test_any_text_can_be_printed(gateway: Gateway, out: OutputStream) -> None:
    print("\xe4\u20ac\U0001f600 \udcff\0\x1b", file=out)
    assert gateway.said() == ["\xe4\u20ac\U0001f600 \\udcff\0\x1b"]


def test_bytes_may_be_written_below_the_text(gateway: Gateway, out: OutputStream) -> None:
    out.buffer.write(b"raw \xff\n")
    assert gateway.said() == ["raw \ufffd"]


def test_a_stream_keeps_the_number_of_the_descriptor_that_it_stands_for(out: OutputStream) -> None:
    assert (out.fileno(), out.isatty(), out.writable(), out.readable()) == (1, False, True, False)


def test_standard_output_and_error_are_replaced(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    output, errors = capture_output(gateway.log)
    print("printed")
    print("complained", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == (output, errors)
    assert [record.level for record in gateway.records()] == ["info", "warning"]
    assert capfd.readouterr() == ("", "")
