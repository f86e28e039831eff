"""One hop: a connection to a worker that carries one request. The envelope, the claim, giving up, the frames that follow."""

from __future__ import annotations

import msgspec

from gatekeep._channel import Channel, WaitExpired
from gatekeep._events import Record
from gatekeep._frames import READ_SIZE, FrameError, frame
from gatekeep.transport import _wire
from gatekeep.transport._claim import SETTLED, ClaimError, Event, State, after
from gatekeep.transport._wire import Kind

_EVENTS = {int(Kind.GO): Event.GO, int(Kind.REJECT): Event.REJECT, int(Kind.EXPIRED): Event.EXPIRED}
_REASONS = {Event.GO: "claimed", Event.REJECT: "a worker rejected it", Event.EXPIRED: "it waited too long"}

# Looking a member up in its class costs a tenth of a microsecond in Python 3.11.
_STANDING, _GO = State.STANDING, Event.GO


class Hop:
    """A request's way to a worker, from the connection to the end of the response.

    Attributes:
        go: the worker's claim, once there is one.
        pid: the process that has claimed it; 0 while none has.
        state: what is known of the claim (see `_claim`).
        since: when its request was first offered to the group, in seconds of the shared clock.
        record: its request's.
        taken_back: whether we gave it up, so that its end says nothing against the request.
        reason: why it ended unstarted, for the log.
        stream_ended: whether we ended its response, a stream of events.
        next_frame: gives the next frame of the response, or piece of it, that has been read already; None where there is none.
    """

    __slots__ = (
        "_channel",
        "_decoder",
        "_is_new",
        "go",
        "next_frame",
        "pid",
        "reason",
        "record",
        "since",
        "state",
        "stream_ended",
        "taken_back",
    )

    def __init__(self, channel: Channel, since: float, record: Record) -> None:
        self._channel = channel
        self.since = since
        self.record = record
        self._decoder = decoder = _wire.front_decoder()
        self.next_frame = decoder.next_frame
        self.state = _STANDING
        self.go: _wire.Go | None = None
        self.pid = 0
        self._is_new = True
        self.taken_back = self.stream_ended = False
        self.reason = ""

    def offer_nowait(self, envelope: bytes) -> memoryview | None:
        """Write the envelope: what is left of it, or None. `offer_rest` must be called with what is left."""
        try:
            return self._channel.send_nowait(envelope)
        except OSError as error:
            self.broke(error)
            return None

    async def offer_rest(self, rest: memoryview) -> None:
        """Write what `offer_nowait` has left."""
        try:
            await self._channel.send_rest(rest)
        except OSError as error:
            self.broke(error)

    def broke(self, error: OSError) -> None:
        """The connection broke before the claim."""
        self._happened(Event.END_OF_STREAM, str(error))

    def take_back(self) -> None:
        """Give the hop up so that the request can be offered again, if a worker has it and has not spoken.

        One that nobody has read stands in the backlog and will be accepted there, so it is left alone. So is one that has an
        answer which we have not come to read: it may be a claim, and to shut our side would cost a process that is well its
        response. Looking is an optimisation, the last thing before the shut; what is queued after it decides.
        """
        if self.state is State.STANDING and not self._channel.is_unread() and not self._channel.has_data():
            self.give_up()

    def give_up_unread(self) -> None:
        """Give the hop up if it stands in the backlog: one that a worker has read is about to be claimed."""
        if self.state is State.STANDING and self._channel.is_unread():
            self.give_up()

    def reclaim(self) -> None:
        """Give the hop up if it has no answer, whether a worker has read it or not: it may be in a process that is wedged."""
        if self.state is State.STANDING and not self._channel.has_data():
            self.give_up()

    def give_up(self) -> None:
        """Give the hop up: unless a claim is queued already, there will be none, and whoever waits for it is told so."""
        if self.state is State.STANDING:
            self.taken_back = True
            self.state = after(self.state, Event.GIVE_UP)
            self._channel.stop_reading()

    def process_ended(self) -> None:
        """The process that claimed it is gone: what it sent is still read, then comes the end."""
        self._channel.stop_reading()

    def end_stream(self) -> None:
        """Its response would not end by itself: what the worker has sent is still read, then it is complete."""
        self.stream_ended = True
        self._channel.stop_reading()

    def settle_nowait(self) -> State:
        """Give the hop up and read what is queued: afterwards it is STARTED, or will never be.

        A claim that is there already is read first: to shut our side would cost its process the response.
        """
        if self.state is State.STANDING and self._channel.has_data():
            self._read_claim_nowait()
        self.give_up()
        while self.state not in SETTLED:
            self._read_claim_nowait()
        return self.state

    def _read_claim_nowait(self) -> None:
        try:
            self.receive_claim(self._channel.socket.recv(READ_SIZE))
        except (OSError, ClaimError):
            self._happened(Event.END_OF_STREAM, "given up")

    def receive_claim(self, data: bytes) -> None:
        """Take what has come of the claim; empty is the end of the stream.

        Raises:
            ClaimError: it is no claim. Perhaps the application has written to a descriptor that was not its own any more, and the
                worker's claim comes behind that: the request must not be offered again.
        """
        if not data:
            self._happened(Event.END_OF_STREAM, "the worker's end closed")
            return
        self._decoder.feed(data)
        try:
            item = self.next_frame()
            if item is None:
                return
            kind, payload = item
            event = _EVENTS.get(kind)
            if event is None:
                raise ClaimError(f"a frame of kind {kind} before the claim")
            if event is _GO:
                self.go = _wire.decode_go(payload)
                self.pid = self.go.pid
        except (FrameError, msgspec.MsgspecError) as error:
            raise ClaimError(f"what came in the claim's place is none: {error}") from error
        self._happened(event, _REASONS[event])

    def _happened(self, event: Event, reason: str) -> None:
        self.reason = reason
        self.state = after(self.state, event)

    async def read_more(self) -> bool:
        """Read what comes next of the response. False at its end, in order or not.

        Raises:
            WaitExpired: the channel's alarm rang.
        """
        try:
            if self._is_new:
                # The claim came alone, so the application has something to do: to look at once would mostly be in vain.
                self._is_new = False
                data = await self._channel.receive_next(READ_SIZE)
            else:
                data = await self._channel.receive(READ_SIZE)
        except WaitExpired:
            raise
        except OSError:
            return False
        self._decoder.feed(data)
        return bool(data)

    async def send_body(self, data: bytes) -> bool:
        """Send a piece of the request's body. False when the worker wants no more."""
        return await self._send(frame(Kind.BODY, data))

    async def send_body_end(self) -> bool:
        """The request's body is complete."""
        return await self._send(_wire.BODY_END)

    async def _send(self, data: bytes) -> bool:
        try:
            await self._channel.send(data)
        except OSError:
            return False
        return True

    def abandon(self) -> None:
        """Tell the worker that the request is void: its sends fail, its reads end; what it has sent is still read.

        In this order: a read that ends wakes it at once, and what it makes of that must not pass for a response.
        """
        self._channel.stop_reading()
        self._channel.stop_writing()

    def close(self) -> None:
        """Close the connection: the worker's reads end and its sends fail."""
        self._channel.close()
