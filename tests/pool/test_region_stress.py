"""Exceptions are sent into worker threads at random moments: they hit the application of their own request, or nothing.

Threads pick up and serve short requests through the code that a daemon process uses, over real hops. Another thread interrupts
them. Each exception that is sent is of a class of its own that knows its request, so that one which is raised anywhere else is
found out; every hop is read to its end and its frames are judged.
"""

from __future__ import annotations

import math
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_until
from gatekeep._errors import RequestInterrupted
from gatekeep._events import SilentLogger
from gatekeep._frames import frame
from gatekeep.lifecycle._watchdog import Fate
from gatekeep.pool import _region
from gatekeep.pool._input import body_stream
from gatekeep.pool._pickup import pick_up
from gatekeep.pool._region import Disconnect, Kind as Sent, Region, Timeout
from gatekeep.pool._respond import FileWrapper, Responder
from gatekeep.pool._stacks import inject
from gatekeep.pool._wsgi import run
from gatekeep.transport import _wire
from gatekeep.transport._wire import Kind

WHILE = 5.0
"""Seconds that exceptions are sent for at the most, unless so few were sent that they prove nothing."""

AT_THE_LATEST = 80.0
"""Seconds after which a slow machine has had its time."""

ENOUGH = 4000
"""Exceptions that were sent: then it is over before that."""

FEW = 100
"""Exceptions that were sent: so few prove nothing."""

ENDS = ("whole", "failed, interrupted", "whole, interrupted")
"""Ends that must have occurred, each more than ten times."""

THREADS = 3
BLOCKS = [b"%06d," % number for number in range(40)]
WHOLE = b"".join(BLOCKS)
LOG = SilentLogger()

Environ = dict[str, Any]
Start = Callable[..., Any]


def compute(rounds: int = 150) -> int:
    """The application's own frames, for about 10 µs."""
    total = 0
    for number in range(rounds):
        total += number
    return total


# --- applications


def returns_a_list(environ: Environ, start_response: Start) -> Any:
    compute()
    start_response("200 OK", [("Content-Type", "text/plain")])
    compute()
    return BLOCKS


def writes(environ: Environ, start_response: Start) -> Any:
    write = start_response("200 OK", [("Content-Length", str(len(WHOLE)))])
    for block in BLOCKS[:20]:
        write(block)
        compute(20)
    return BLOCKS[20:]


def generates(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", [])
    for block in BLOCKS:
        yield block
        compute(20)


def generates_with_cleanup(environ: Environ, start_response: Start) -> Any:
    try:
        start_response("200 OK", [])
        for block in BLOCKS:
            try:
                yield block
            finally:
                compute(20)
    finally:
        compute()


def reads(environ: Environ, start_response: Start) -> Any:
    body = environ["wsgi.input"].read(), environ["wsgi.input"].read(10)
    start_response("200 OK", [])
    return list(body)


def sends_a_file(environ: Environ, start_response: Start) -> Any:
    compute()
    start_response("200 OK", [("Content-Length", str(len(WHOLE)))])
    return FileWrapper(environ["test.file"])


def swallows(environ: Environ, start_response: Start) -> Any:
    """Finishes in spite of it, however often it comes."""
    for _ in range(10):
        try:
            compute()
        except RequestInterrupted:
            pass
    start_response("200 OK", [])
    return BLOCKS


def swallows_while_it_writes(environ: Environ, start_response: Start) -> Any:
    """Goes on with the next block, so a block may be missing."""
    return write_and_swallow(start_response("200 OK", []))


def swallows_with_a_length(environ: Environ, start_response: Start) -> Any:
    """As above; whoever misses a block must not have promised its bytes."""
    return write_and_swallow(start_response("200 OK", [("Content-Length", str(len(WHOLE)))]))


def write_and_swallow(write: Any) -> list[bytes]:
    for block in BLOCKS:
        try:
            write(block)
            compute(20)
        except RequestInterrupted:
            pass
    return []


def fails(environ: Environ, start_response: Start) -> Any:
    compute()
    raise ValueError("on purpose")


APPLICATIONS = [
    returns_a_list, writes, generates, generates_with_cleanup, reads, sends_a_file, swallows, swallows_while_it_writes,
    swallows_with_a_length, fails,
]  # fmt: skip
MISSES_BLOCKS = swallows_while_it_writes, swallows_with_a_length
UNPROMISED = generates, generates_with_cleanup, swallows_while_it_writes


# --- what came over a hop


def unfold(kind: Kind, payload: bytes) -> list[tuple[Kind, bytes]]:
    """LAST as what it stands for."""
    return [(Kind.DATA, payload), (Kind.END, b"")] if kind is Kind.LAST else [(kind, payload)]


def judge(data: bytes, application: Any, interrupted: bool) -> str:
    """How a hop ended: `whole`, `failed`, or `cut`; what must not be is an `AssertionError`."""
    decoder = _wire.front_decoder()
    decoder.feed(data)
    frames = [unfolded for kind, payload in decoder.frames() for unfolded in unfold(Kind(kind), payload)]
    kinds = [kind for kind, _ in frames]
    assert kinds[0] is Kind.GO
    ends = [kind for kind in kinds if kind in (Kind.END, Kind.FAIL)]
    assert len(ends) <= 1, kinds
    if not ends or not decoder.is_between_frames():
        # Only a file's frame may be left unfinished, and then nothing can follow it.
        assert application is sends_a_file, f"the hop ended inside a frame, or without a word: {kinds}"
        return "cut"
    assert kinds[-1] is ends[0], f"something follows the end: {kinds}"
    assert set(kinds[1:]) <= {Kind.HEAD, Kind.DATA, Kind.END, Kind.FAIL}
    assert kinds.count(Kind.HEAD) <= 1
    if Kind.DATA in kinds or ends[0] is Kind.END:
        assert kinds[1] is Kind.HEAD, f"no head comes first: {kinds}"
    body = b"".join(payload for kind, payload in frames if kind is Kind.DATA)
    if ends[0] is Kind.FAIL:
        fail = _wire.decode_fail(frames[-1][1])
        assert WHOLE.startswith(body) or application in MISSES_BLOCKS
        if fail.timer or application is not fails:
            assert interrupted, f"nobody has interrupted it: {fail}"
        return "failed"
    judge_whole(_wire.decode_head(frames[1][1]), body, application, interrupted)
    return "whole"


def judge_whole(head: _wire.Head, body: bytes, application: Any, interrupted: bool) -> None:
    """What its client takes for a whole response."""
    lengths = [int(value) for name, value in head.fields if name == "Content-Length"]
    assert lengths == [] or lengths == [len(body)], (
        f"{application.__name__}: {lengths}, but {len(body)} bytes"
    )
    assert bool(lengths) or application in UNPROMISED
    if application in MISSES_BLOCKS and interrupted:
        left = body.split(b",")[:-1]
        assert left == sorted(set(left)), "each block is there once at the most, in order"
        assert set(left) <= set(WHOLE.split(b","))
    else:
        assert body == WHOLE, application.__name__


# --- worker threads


class Tries:
    """The requests into which somebody has tried to send an exception."""

    def __init__(self) -> None:
        self.requests: set[int] = set()
        self.sent = 0


class Server:
    """One worker thread: it picks up requests and serves them until it is told to stop.

    Attributes:
        faults: what must not have happened.
        ends: how requests ended, and how many exceptions were raised.
        served: requests.
    """

    def __init__(self, number: int, file: str, tries: Tries) -> None:
        self.region = Region()
        self.faults: list[str] = []
        self.ends: Counter[str] = Counter()
        self.served = 0
        self.is_to_stop = False
        self._request = number
        self._raised: list[int] = []
        self._file = file
        self._tries = tries
        self._chance = random.Random(number)
        self.thread = threading.Thread(target=self._work, daemon=True)

    def exception(self, request: int, kind: Sent) -> Sent:
        """A class that is sent into that request; it notes each time that it is raised."""

        def note(error: Any) -> None:
            self._raised.append(request)
            kind.__init__(error)  # last, for from then on it counts as raised

        return type(f"{kind.__name__}In{request}", (kind,), {"__init__": note})

    def _work(self) -> None:
        self.region.bind()
        while not self.is_to_stop:
            self._request += THREADS
            application = self._chance.choice(APPLICATIONS)
            try:
                self._serve(self._request, application)
            except BaseException as error:
                self.faults.append(f"request {self._request}, {application.__name__}: {error!r}")
            self.served += 1

    def _serve(self, request: int, application: Any) -> None:
        worker, front = socket.socketpair()
        with worker, front:
            front.sendall(envelope(request))
            with open(self._file, "rb") as file:
                self._serve_hop(worker, front, application, file)
            worker.shutdown(socket.SHUT_WR)
            data = read_all(front)
        assert self.region.request == 0
        assert not self.region.is_inside
        raised, self._raised = self._raised, []
        assert set(raised) <= {request}, f"it met what was sent into {raised}"
        interrupted = request in self._tries.requests
        assert interrupted or not raised
        end = judge(data, application, interrupted)
        self.ends[f"{end}, interrupted" if raised else end] += 1
        self.ends["raised"] += len(raised)

    def _serve_hop(
        self, worker: socket.SocketType, front: socket.SocketType, application: Any, file: Any
    ) -> None:
        picked = pick_up(worker, 1, 0, 0.0)
        assert picked is not None
        cut = self._chance.randrange(len(WHOLE))
        front.sendall(frame(Kind.BODY, WHOLE[:cut]) + frame(Kind.BODY, WHOLE[cut:]) + _wire.BODY_END)
        environ = {**picked.environ, "test.file": file}
        responder = Responder(worker, "GET", math.inf, self.region)
        body = body_stream(picked, worker, math.inf, self.region)
        run(application, environ, body, responder, self.region, picked.request, time.monotonic, LOG)


def envelope(request: int) -> bytes:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    return _wire.encode(_wire.Envelope(request, 0.0, time.monotonic(), 0.0, 1, environ, b"", True))


def read_all(front: socket.SocketType) -> bytes:
    parts = []
    while data := front.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)


# --- who interrupts


def once(server: Server, request: int, tries: Tries, chance: random.Random) -> None:
    """One exception for a request."""
    if request not in tries.requests:
        send(server, request, Timeout, tries)


def again(server: Server, request: int, tries: Tries, chance: random.Random) -> None:
    """As the watchdog does it: another one where the first was swallowed."""
    if request not in tries.requests or server.region.fate() is Fate.SWALLOWED:
        send(server, request, Timeout, tries)


def both(server: Server, request: int, tries: Tries, chance: random.Random) -> None:
    """It runs too long, and its client leaves, at the same time."""
    if request not in tries.requests:
        for kind in chance.sample([Timeout, Disconnect], 2):
            send(server, request, kind, tries)


def send(server: Server, request: int, kind: Sent, tries: Tries) -> None:
    tries.requests.add(request)
    tries.sent += server.region.interrupt(request, server.exception(request, kind))


def is_over(seconds: float, servers: list[Server], tries: Tries) -> bool:
    if seconds < WHILE or seconds > AT_THE_LATEST:
        return seconds > AT_THE_LATEST or tries.sent >= ENOUGH
    ends = all_ends(servers)
    return tries.sent > FEW and all(ends[end] > 10 for end in ENDS)


def all_ends(servers: list[Server]) -> Counter[str]:
    return sum((server.ends for server in servers), Counter())


def interrupt_for_a_while(servers: list[Server], tries: Tries, way: Callable[..., None]) -> None:
    chance = random.Random(1)
    began = time.monotonic()
    before: dict[Server, int] = dict.fromkeys(servers, 0)
    while not is_over(time.monotonic() - began, servers, tries):
        server = chance.choice(servers)
        request = server.region.request
        if chance.random() < 0.7:
            time.sleep(chance.random() * 0.0003)
        if chance.random() < 0.1:
            request = before[server]  # it is over, or will be
        if request:
            before[server] = request
            way(server, request, tries, chance)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns every 20 µs instead of every 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.fixture
def slow_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who interrupts often holds the region's lock for so long that the thread comes to its border and waits there."""
    chance = random.Random(2)

    def inject_slowly(ident: int, exception_type: Sent | None) -> bool:
        if exception_type is not None and chance.random() < 0.5:
            time.sleep(chance.random() * 0.0002)
        return inject(ident, exception_type)

    monkeypatch.setattr(_region, "inject", inject_slowly)


@pytest.fixture
def lost_in_destructors(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised inside a destructor, or a weak reference's callback, Python reports and drops. It was swallowed then."""
    told = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, RequestInterrupted):
            told(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", hook)


@pytest.mark.usefixtures("eager_threads", "slow_to_send", "lost_in_destructors")
@pytest.mark.parametrize("way", [once, again, both], ids=["once", "again", "both"])
def test_an_exception_hits_its_own_request_or_nothing_and_each_hop_is_whole_or_fails(
    tmp_path: Path, way: Callable[..., None]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(WHOLE)
    tries = Tries()
    servers = [Server(number, str(file), tries) for number in range(THREADS)]
    for server in servers:
        server.thread.start()
    interrupt_for_a_while(servers, tries, way)
    for server, served in [(server, server.served) for server in servers]:
        # What was sent too late would come now.
        wait_until(lambda server=server, served=served: server.served > served + 20)
    for server in servers:
        server.is_to_stop = True
        server.thread.join(20)
        assert not server.thread.is_alive()
    ends = all_ends(servers)
    faults = [fault for server in servers for fault in server.faults]
    assert not faults, f"{len(faults)} faults, of {tries.sent} exceptions; {ends}: " + "\n".join(faults[:8])
    assert tries.sent > FEW
    for end in ENDS:
        assert ends[end] > 10, f"{end}: {ends}"
    assert ends["raised"] <= tries.sent


# --- the same moments, one by one


class Meeting(Region):
    """A region whose thread meets an exception as it is about to enter our code for the nth time."""

    def __init__(self, nth: int) -> None:
        super().__init__()
        self.left = nth
        self.bind()

    def mask(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Timeout
        super().mask()


def frames_of(application: Any, region: Region) -> list[tuple[Kind, bytes]]:
    """What the application's response becomes."""
    worker, front = socket.socketpair()
    with worker, front:
        front.sendall(frame(Kind.BODY, WHOLE) + _wire.BODY_END)
        picked = _wire.Envelope(1, 0.0, 0.0, 0.0, 1, {}, b"", True)
        environ: Environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
        responder = Responder(worker, "GET", 20.0, region)
        body = body_stream(picked, worker, 20.0, region)
        run(application, environ, body, responder, region, 1, time.monotonic, LOG)
        worker.shutdown(socket.SHUT_WR)
        decoder = _wire.front_decoder()
        decoder.feed(read_all(front))
    frames = [
        unfolded for kind, payload in decoder.frames() for unfolded in unfold(Kind(kind), bytes(payload))
    ]
    assert decoder.is_between_frames()
    return frames


def test_a_block_that_an_exception_kept_back_can_be_written_again_and_the_response_is_whole() -> None:
    def stubborn(environ: Environ, start_response: Start) -> Any:
        write = start_response("200 OK", [("Content-Length", str(len(WHOLE)))])
        for block in BLOCKS:
            try:
                write(block)
            except RequestInterrupted:
                write(block)
        return []

    for nth in (1, 2, len(BLOCKS)):
        frames = frames_of(stubborn, Meeting(nth))
        assert [kind for kind, _ in frames] == [Kind.HEAD, *[Kind.DATA] * len(BLOCKS), Kind.END], nth
        assert b"".join(payload for kind, payload in frames if kind is Kind.DATA) == WHOLE


def test_an_exception_that_keeps_the_first_block_back_leaves_the_head_to_be_replaced() -> None:
    def apologises(environ: Environ, start_response: Start) -> Any:
        write = start_response("200 OK", [("Content-Length", "5")])
        try:
            write(b"first")
        except RequestInterrupted:
            start_response("503 Sorry", [("Content-Length", "5")], sys.exc_info())
        return [b"sorry"]

    frames = frames_of(apologises, Meeting(1))
    assert [kind for kind, _ in frames] == [Kind.HEAD, Kind.DATA, Kind.END]
    assert _wire.decode_head(frames[0][1]).status == 503


def test_an_exception_in_the_middle_of_a_file_is_told_after_a_whole_frame(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * 3)

    def sends(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])
        return FileWrapper(path.open("rb"))

    for nth in (1, 2, 3):
        kinds = [kind for kind, _ in frames_of(sends, Meeting(nth))]
        assert kinds[-1] in (Kind.FAIL, Kind.END), f"as our code is entered for the {nth}. time: {kinds}"


def test_a_body_has_no_hole_where_an_exception_was_swallowed() -> None:
    heard: list[bytes] = []

    def reads_on(environ: Environ, start_response: Start) -> Any:
        for _ in range(3):
            try:
                heard.append(environ["wsgi.input"].read())
            except RequestInterrupted:
                heard.clear()
            except ConnectionError:
                heard.append(b"cut")
        start_response("200 OK", [])
        return []

    for nth in (1, 2):
        heard.clear()
        frames_of(reads_on, Meeting(nth))
        assert b"cut" in heard or b"".join(heard) == WHOLE, f"piece {nth}: {heard}"


def interrupt_meanwhile(region: Region, request: int) -> bool:
    """Another thread interrupts."""
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(region.interrupt(request, Timeout)))
    thread.start()
    thread.join()
    return results[0]


def entered() -> Region:
    """This thread's, with request 7."""
    region = Region()
    region.bind()
    left, right = socket.socketpair()
    with left, right:
        region.enter(7, Responder(left, "GET", 20.0, region), "GET", "/")
    return region


def test_what_is_asked_for_inside_our_code_is_raised_as_it_is_left() -> None:
    region = entered()
    region.mask()
    assert interrupt_meanwhile(region, 7)
    compute()
    assert region.fate() is Fate.PENDING
    with pytest.raises(RequestInterrupted):
        region.unmask()
    assert region.fate() is Fate.SWALLOWED
    region.leave()


def test_what_is_sent_to_a_request_that_is_over_goes_nowhere() -> None:
    region = entered()
    region.leave()
    assert not interrupt_meanwhile(region, 7)
    assert not interrupt_meanwhile(region, 8)
    compute()


def test_what_is_asked_for_inside_our_code_and_not_raised_there_is_forgotten_with_the_request() -> None:
    region = entered()
    region.mask()
    assert interrupt_meanwhile(region, 7)
    region.leave()
    compute()
    region.enter(8, region.responder, "GET", "/")  # type: ignore[arg-type]
    region.mask()
    region.unmask()
    region.leave()


def test_an_application_that_finishes_while_it_is_being_interrupted_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    region, sending = Region(), threading.Event()
    region.bind()
    me = threading.get_ident()

    def inject_at_the_border(ident: int, exception_type: Sent | None) -> bool:
        if exception_type is not None:
            sending.set()
            wait_until(lambda: sys._current_frames()[me].f_code.co_name == "leave")
            time.sleep(0.1)  # it waits for the lock that we hold
        return inject(ident, exception_type)

    monkeypatch.setattr(_region, "inject", inject_at_the_border)
    monitor = threading.Thread(target=region.interrupt, args=(1, Timeout))

    def finishes(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])
        monitor.start()
        sending.wait(20)
        return [b"finished"]

    kinds = [kind for kind, _ in frames_of(finishes, region)]
    monitor.join()
    compute()
    assert kinds == [Kind.HEAD, Kind.DATA, Kind.END]
