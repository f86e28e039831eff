"""Durations and sizes as people write them, and read them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gatekeep import Settings, SettingsError
from gatekeep.settings._units import parse_duration, parse_size, parse_whole, show_duration, show_size

SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
BYTES = {"k": 1 << 10, "M": 1 << 20, "g": 1 << 30, "T": 1 << 40}


# --- durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("0.5", 0.5),
        (" 90 ", 90),
        ("90s", 90),
        ("1m30s", 90),
        ("1.5m", 90),
        ("500ms", 0.5),
        ("1s500ms", 1.5),
        ("2h", 7200),
        ("1d", 86400),
        ("1d2h3m4s5ms", 93784.005),
        ("-5", -5),
    ],
)
def test_a_duration_is_seconds_or_has_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "1 m", "1m 30s", "1m30", "30 s", "-1m", "+5", "1e3", ".5", "5.", "1,5", "1_0", "inf", "nan", "1w",
     "1S", "1M", "\u0661", "\u0661s", "1m\n", "one minute"],
)  # fmt: skip
def test_anything_else_is_no_duration(text: str) -> None:
    if text == "1m\n":
        assert parse_duration(text) == 60, "white space around it is nothing"
        return
    with pytest.raises(ValueError, match=r".*"):
        parse_duration(text)


@given(st.dictionaries(st.sampled_from(list(SECONDS)), st.integers(0, 10**6), min_size=1))
def test_a_duration_is_the_sum_of_its_steps(steps: dict[str, int]) -> None:
    text = "".join(f"{steps[unit]}{unit}" for unit in SECONDS if unit in steps)
    assert parse_duration(text) == pytest.approx(
        sum(SECONDS[unit] * number for unit, number in steps.items())
    )


@given(st.integers(-(10**12), 10**12) | st.floats(0, 1e9).map(lambda number: round(number, 6)))
def test_a_plain_number_is_seconds(number: float) -> None:
    assert parse_duration(f"{number:f}" if isinstance(number, float) else str(number)) == number


@given(st.text(alphabet="0123456789.smhd -\n", max_size=12))
def test_what_is_read_as_a_duration_is_a_number(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert math.isfinite(seconds)
    assert seconds >= 0 or text.strip().startswith("-")


# --- sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("1024b", 1024),
        ("64k", 65536),
        ("64K", 65536),
        ("64Ki", 65536),
        ("64KiB", 65536),
        ("64 kib", 65536),
        ("64kB", 64000),
        ("8MiB", 8 << 20),
        ("8MB", 8_000_000),
        ("1.5G", 3 << 29),
        ("1GB", 10**9),
        ("2TiB", 2 << 40),
        ("1TB", 10**12),
        ("-5", -5),
    ],
)
def test_a_size_is_bytes_or_has_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "k", "kB", "5ib", "5i", "1.5", "1.5b", "1e3", "8 M iB", "8  MiB", "8MiBs", "8P", "-8k", "+8", "1_0", "\u0661k",
     "8M8k", "inf", "nan"],
)  # fmt: skip
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_size(text)


@given(
    st.integers(0, 10**15),
    st.sampled_from(list(BYTES)),
    st.sampled_from(["", "i", "iB", "ib"]),
    st.booleans(),
)
def test_units_are_powers_of_1024(number: int, unit: str, ending: str, spaced: bool) -> None:
    assert parse_size(f"{number}{' ' * spaced}{unit}{ending}") == number * BYTES[unit]


@given(st.integers(0, 10**15), st.sampled_from("kMGT"))
def test_units_that_are_written_as_kb_are_powers_of_1000(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}B") == number * 1000 ** ("kMGT".index(unit) + 1)


@given(st.integers(-(10**30), 10**30))
def test_a_plain_number_is_bytes(number: int) -> None:
    assert parse_size(str(number)) == number


# --- for people


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (45, "45 s"), (90, "90 s"), (120, "2 min"), (7200, "2 h"), (86400, "1 d"), (156.6, "156.6 s"),
     (0, "0 s"), (math.inf, "for ever")],
)  # fmt: skip
def test_seconds_are_shown_in_the_largest_unit_that_they_are_whole_in(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (8190, "7.998 KiB"),
        (65536, "64 KiB"),
        (3 << 29, "1.5 GiB"),
        (1 << 40, "1 TiB"),
    ],
)
def test_bytes_are_shown_in_the_largest_unit_that_they_fill(size: int, text: str) -> None:
    assert show_size(size) == text


@given(st.integers(1, 1023), st.sampled_from([1 << 10, 1 << 20, 1 << 30, 1 << 40]))
def test_a_size_that_is_shown_can_be_typed(number: int, unit: int) -> None:
    assert parse_size(show_size(number * unit)) == number * unit


# --- in settings


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"request_timeout": "1m30s"}, 90.0),
        ({"request_timeout": "0"}, 0.0),
        ({"request_timeout": 7}, 7),
        ({"memory_limit": "1.5G"}, 3 << 29),
        ({"memory_limit": "1000000"}, 1_000_000),
        ({"stack_size": "8MiB"}, 8 << 20),
        ({"socket_timeout": "2m"}, 120.0),
    ],
)
def test_a_text_with_a_unit_is_a_number_wherever_one_with_a_unit_is_meant(
    options: dict[str, Any], value: float
) -> None:
    (name,) = options
    assert getattr(Settings.for_app("apps:hello", **options).groups[0], name) == value


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"request_timeout": "soon"}, "request-timeout = 'soon': allowed is 0 seconds or more, such as 90 or 1m30s"),
        ({"memory_limit": "much"}, "memory-limit = 'much': allowed is 0 bytes or more, such as 1024 or 8MiB"),
        ({"request_timeout": "8MiB"}, "request-timeout = '8MiB': allowed is 0 seconds or more, such as 90 or 1m30s"),
        ({"memory_limit": "1m30s"}, "memory-limit = '1m30s': allowed is 0 bytes or more, such as 1024 or 8MiB"),
        ({"request_timeout": "-1"}, "request-timeout = -1.0: allowed is 0 seconds or more"),
        ({"memory_limit": "9" * 400 + ".0T"}, None),
    ],
)  # fmt: skip
def test_a_text_that_is_no_such_number_is_refused_with_an_example(
    options: dict[str, Any], line: str | None
) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.for_app("apps:hello", **options)
    said = str(refused.value)
    assert line is None or said == line
    assert ": allowed is 0 " in said


# --- whole numbers, and what is too large


@pytest.mark.parametrize("text", ["1_0", "+5", "\u0661\u0662", "\uff19", "5.0", "1e1", "0x5", ""])
def test_a_whole_number_is_written_with_digits_alone(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_whole(text)


@pytest.mark.parametrize(("text", "number"), [("5", 5), ("-5", -5), (" 5 ", 5), ("007", 7)])
def test_a_whole_number_is_read(text: str, number: int) -> None:
    assert parse_whole(text) == number


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "d"])
def test_digits_that_come_to_no_number_do_not_mean_for_ever(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_duration(text)


@pytest.mark.parametrize(
    "name", ["inactivity_timeout", "request_timeout", "keep_alive_timeout", "shutdown_delay"]
)
def test_no_duration_is_longer_than_clocks_can_tell(name: str) -> None:
    assert Settings.for_app("apps:hello", **{name: 10**9})
    with pytest.raises(SettingsError, match=r"= 1000000001: allowed is 0 to 1000000000 seconds$"):
        Settings.for_app("apps:hello", **{name: 10**9 + 1})


@pytest.mark.parametrize("name", ["maximum_requests", "memory_limit", "limit_request_body"])
def test_no_number_is_larger_than_messages_can_hold(name: str) -> None:
    assert Settings.for_app("apps:hello", **{name: 1 << 60})
    with pytest.raises(SettingsError, match=r"allowed is 0 to 1152921504606846976"):
        Settings.for_app("apps:hello", **{name: (1 << 60) + 1})
