"""What gateway and daemon say to each other arrives as it was said."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, strategies as st

from gatekeep._frames import Decoder
from gatekeep.lifecycle import _control
from gatekeep.lifecycle._control import (
    App,
    DaemonSettings,
    Failed,
    Kind,
    LogRecord,
    Ready,
    Stacks,
    Thread,
    Why,
)
from gatekeep.lifecycle._drain import Order

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COUNT = st.integers(0, 2**31)
VALUES = TEXT | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.booleans() | st.none()

SETTINGS = st.builds(
    DaemonSettings,
    group=TEXT,
    row=COUNT,
    rows=COUNT,
    processes=COUNT,
    threads=COUNT,
    apps=st.lists(st.builds(App, TEXT, TEXT, TEXT, TEXT, st.booleans()), max_size=3),
    folders=st.lists(TEXT, max_size=3),
    module_path=st.lists(TEXT, max_size=3),
    shutdown_timeout=st.floats(0),
    queue_timeout=st.floats(0),
    socket_timeout=st.floats(0),
    fire=st.floats(0),
    interrupt_timeout=st.floats(0),
    maximum_requests=COUNT,
    inactivity_timeout=st.floats(0),
    script_reloading=TEXT,
    tells_folders=st.booleans(),
    debug=st.booleans(),
    virtual_memory_limit=st.integers(0, 2**60),
    stack_size=COUNT,
)


def one_frame(data: bytes) -> tuple[int, bytes]:
    decoder = Decoder()
    decoder.feed(data)
    (item,) = decoder.frames()
    assert decoder.is_between_frames()
    return item


@given(SETTINGS)
def test_settings_arrive_as_they_were_sent(settings: DaemonSettings) -> None:
    kind, payload = one_frame(_control.encode(settings))
    assert (kind, _control.decode_settings(payload)) == (Kind.SETTINGS, settings)


@given(st.builds(Ready, load_time=st.floats(0)))
def test_ready_arrives_as_it_was_sent(ready: Ready) -> None:
    kind, payload = one_frame(_control.encode(ready))
    assert (kind, _control.decode_ready(payload)) == (Kind.READY, ready)


@given(st.builds(Failed, reason=TEXT, traceback=TEXT))
def test_a_failure_arrives_as_it_was_sent(failed: Failed) -> None:
    kind, payload = one_frame(_control.encode(failed))
    assert (kind, _control.decode_failed(payload)) == (Kind.FAILED, failed)


@given(
    st.builds(
        LogRecord, level=TEXT, event=TEXT, fields=st.dictionaries(TEXT, VALUES, max_size=4), dropped=COUNT
    )
)
def test_a_log_record_is_one_packet_without_a_frame(record: LogRecord) -> None:
    assert _control.decode_log(_control.encode_log(record)) == record


@given(
    st.builds(
        Stacks,
        st.lists(
            st.builds(Thread, name=TEXT, number=COUNT, request=COUNT, stack=TEXT, age=st.just(1.5)),
            max_size=3,
        ),
    )
)
def test_stacks_arrive_as_they_were_sent(stacks: Stacks) -> None:
    kind, payload = one_frame(_control.encode(stacks))
    assert (kind, _control.decode_stacks(payload)) == (Kind.STACKS, stacks)


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (_control.ASK, Kind.ASK),
        (_control.BEAT, Kind.BEAT),
    ],
)
def test_some_frames_have_no_payload(sent: bytes, kind: Kind) -> None:
    assert one_frame(sent) == (kind, b"")


@pytest.mark.parametrize(
    ("order", "kind"), [(Order.HOPE, Kind.HOPE), (Order.FINISH, Kind.FINISH), (Order.STOP, Kind.STOP)]
)
@given(st.builds(Why, TEXT, TEXT))
def test_an_order_arrives_with_its_reason(order: Order, kind: Kind, why: Why) -> None:
    got, payload = one_frame(_control.order_frame(order, why))
    assert (got, _control.ORDERS[got], _control.decode_why(payload)) == (kind, order, why)


@pytest.mark.parametrize("order", [Order.RESTART, Order.KILL])
def test_what_is_done_to_a_process_is_not_told_to_it(order: Order) -> None:
    with pytest.raises(KeyError):
        _control.order_frame(order, _control.GATEWAY_STOPS)


TO_DAEMON = (Kind.SETTINGS, Kind.HOPE, Kind.FINISH, Kind.STOP, Kind.ASK)


def test_the_kinds_of_both_directions_are_apart() -> None:
    assert all((kind < 16) == (kind in TO_DAEMON) for kind in Kind)


def test_what_has_no_kind_is_not_sent() -> None:
    with pytest.raises(KeyError):
        _control.encode(LogRecord("info", "x", {}, 0))


@pytest.mark.parametrize(
    "decode",
    [
        _control.decode_settings,
        _control.decode_ready,
        _control.decode_why,
        _control.decode_failed,
        _control.decode_log,
        _control.decode_stacks,
    ],
)
@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x90", msgspec.msgpack.encode({"a": 1})])
def test_garbage_is_refused_with_an_error_of_msgspec(decode, payload: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(payload)


def test_fields_of_a_record_are_plain_data() -> None:
    with pytest.raises(msgspec.ValidationError):
        _control.decode_log(msgspec.msgpack.encode(["info", "x", {"a": [1]}, 0]))
