"""The Date field."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given, strategies as st

from gatekeep.transport._date import HttpDate


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (0.0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784111777.0, "Sun, 06 Nov 1994 08:49:37 GMT"),  # the example of RFC 9110 section 5.6.7
        (951827696.5, "Tue, 29 Feb 2000 12:34:56 GMT"),
        (4102444799.999, "Thu, 31 Dec 2099 23:59:59 GMT"),
    ],
)
def test_a_date_is_an_imf_fixdate(wall: float, text: str) -> None:
    assert HttpDate().at(wall) == text


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=20))
def test_it_is_right_also_when_the_clock_was_set_back(walls: list[float]) -> None:
    date = HttpDate()
    for wall in walls:
        assert parsedate_to_datetime(date.at(wall)).timestamp() == int(wall)


def test_the_text_is_made_once_a_second() -> None:
    date = HttpDate()
    assert date.at(1000.0) is date.at(1000.999)
    assert date.at(1001.0) != date.at(1000.0)
