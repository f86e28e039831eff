"""A request's plan, and its story: what the client asks for, what the application does with it, and what each of them saw."""

from __future__ import annotations

import zlib
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from .sockets import End
    from .world import World


@attrs.define
class Seen:
    """What a client saw of a response.

    Attributes:
        status: 0 where no head came.
        whole: whether HTTP's framing told the client that it has all of it.
        end: how the connection ended before that: "eof", "reset", "nonsense", or "left" when it was the client who went.
        retry_after: what the head said of it.
    """

    status: int = 0
    body: bytes = b""
    whole: bool = False
    end: str = ""
    retry_after: str = ""


@attrs.frozen
class Habits:
    """How a client sends and reads. A pace is so many bytes, then so many seconds of nothing.

    Attributes:
        head_pace, body_pace: how it sends its request's head and body.
        silence: after so many bytes of its request it says nothing for so many seconds.
        ends_at: after so many bytes of its request it shuts its sending side.
        read_pace: how it reads.
        deaf: after so many bytes of the response it reads nothing for so many seconds.
        patience: it has enough after so many seconds, and then "leaves", "resets" or "half-closes".
        idle: seconds between two requests.
    """

    head_pace: tuple[int, float] | None = None
    body_pace: tuple[int, float] | None = None
    silence: tuple[int, float] | None = None
    ends_at: int | None = None
    read_pace: tuple[int, float] | None = None
    deaf: tuple[int, float] | None = None
    patience: float = inf
    way: str = "leaves"
    idle: float | None = None

    def sends_slowly(self) -> bool:
        """Whether its request may come too slowly."""
        return bool(self.head_pace or self.body_pace or self.silence)

    def longest_silence(self) -> float:
        """How long all the pauses in its request take, if there is but one."""
        return inf if self.head_pace or self.body_pace else self.silence[1] if self.silence else 0.0


NO_HABITS = Habits()


@attrs.define(eq=False)
class Plan:
    """One request.

    Attributes:
        framing: of the request's body: none, length or chunked.
        expect: the client waits for 100 Continue before it sends the body.
        app: plain, read, echo, raise, raise late.
        declared: whether the application gives a Content-Length.
        pieces: sizes of the response's blocks; with `pause` seconds after each, and `run_time` before the first.
        habits: of its client.
        well_behaved: the client reads the answer and does not go before it has it.
    """

    world: World
    path: str
    method: str = "GET"
    version: str = "1.1"
    close: bool = False
    framing: str = "none"
    expect: bool = False
    body: bytes = b""
    app: str = "plain"
    declared: bool = True
    pieces: tuple[int, ...] = (10,)
    run_time: float = 0.0
    pause: float = 0.0
    habits: Habits = NO_HABITS
    well_behaved: bool = True

    # The story.
    seen: Seen = attrs.field(factory=Seen)
    sent: bool = False
    connected: float = 0.0
    paused: bool = False
    went: list[tuple[float, int]] = attrs.field(factory=list)
    half_closed: float = inf
    left: float = inf
    reset_at: float = inf
    whole_at: float = inf
    read_at: float = 0.0
    stamp: float = 0.0
    claimed_at: float = 0.0
    ended_at: float = inf
    hop: End | None = None
    claims: list[int] = attrs.field(factory=list)
    entries: list[int] = attrs.field(factory=list)
    answered: bool = False
    body_cut: bool = False
    records: list[dict[str, Any]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.world.plans[self.path] = self

    # --- what is expected

    def expected(self) -> bytes:
        """The response's body, if all goes well."""
        if self.app == "echo":
            return self.body
        return pattern(self.path, sum(self.pieces))

    def request(self) -> tuple[bytes, bytes]:
        """Head and body as the client sends them."""
        lines = [f"{self.method} {self.path} HTTP/{self.version}", "Host: simulated.example"]
        if self.close:
            lines.append("Connection: close")
        if self.expect:
            lines.append("Expect: 100-continue")
        body = self.body
        if self.framing == "length":
            lines.append(f"Content-Length: {len(body)}")
        elif self.framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
            body = _chunked(body)
        return "\r\n".join([*lines, "", ""]).encode(), body

    # --- what the daemons did

    def picked_up(self, stamp: float) -> None:
        """A worker has read the envelope."""
        if self.stamp and stamp != self.stamp:
            self.world.violation(f"{self.path} is {self.stamp - stamp:+} s older than it was")
        self.stamp = stamp

    def claimed(self, pid: int, hop: End) -> None:
        """A worker's claim was sent, so its application will be entered, unless its process dies first."""
        self.world.note("claimed", self.path, pid)
        if self.claims:
            self.world.violation(f"{self.path} was claimed twice, by {self.claims[0]} and {pid}")
        if self.records:
            self.world.violation(f"{self.path} was claimed by {pid} after the front had given it up")
        if not self.claims:
            self.claimed_at = self.world.time.now
        self.claims.append(pid)
        self.hop = hop

    def entered(self, pid: int) -> None:
        """The application has it."""
        self.world.note("entered", self.path, pid)
        if self.entries:
            self.world.violation(f"{self.path} ran twice")
        self.entries.append(pid)


def pattern(path: str, size: int) -> bytes:
    """So many bytes that no other request's response has."""
    block = b"%s:%08x." % (path.encode(), zlib.crc32(path.encode()))
    return (block * (size // len(block) + 1))[:size]


def _chunked(body: bytes) -> bytes:
    pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def draw(world: World, **fixed: Any) -> Plan:
    """A request as it comes; what is fixed is not left to chance."""
    random = world.random
    options: dict[str, Any] = {
        "path": f"/{len(world.plans) + 1}",
        "version": random.choice(("1.1", "1.1", "1.1", "1.0")),
        "close": random.random() < 0.1,
        "app": random.choice(("plain",) * 6 + ("read", "read", "echo", "raise", "raise late")),
        "declared": random.random() < 0.5,
        "pieces": tuple(_size(random) for _ in range(random.randrange(4))),
        "run_time": random.choice((0.0, 0.0, random.uniform(0, 0.5), random.uniform(0, 3))),
        "pause": random.choice((0.0, 0.0, random.uniform(0, 0.2))),
        **fixed,
    }
    if "framing" not in options:
        with_body = options["app"] in ("read", "echo") or random.random() < 0.1
        options["framing"] = _framing(random, options["version"]) if with_body else "none"
    if options["framing"] != "none":
        options.setdefault("body", pattern(options["path"] + "?", _size(random)))
        options.setdefault("method", "POST")
        options.setdefault("expect", options["version"] == "1.1" and random.random() < 0.2)
    return Plan(world, **options)


def _size(random: Random) -> int:
    return random.choice((0, 1, random.randrange(100), random.randrange(20_000), random.randrange(100_000)))


def _framing(random: Random, version: str) -> str:
    return "length" if version == "1.0" or random.random() < 0.6 else "chunked"
