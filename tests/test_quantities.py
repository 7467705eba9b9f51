"""Durations and amounts of memory, and what is neither."""

from __future__ import annotations

import pytest

from edge4d.errors import UsageError
from edge4d.quantities import parse_bytes, parse_duration


def test_durations():
    assert [parse_duration(text) for text in ("90", "90s", " 10m", "1.5 h")] == [90, 90, 600, 5400]


@pytest.mark.parametrize("text", ["", "ten", "0", "0s", "5d", "-3m", "1e3", "nan", "inf", "٣s", "64MiB"])
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match="is no duration"):
        parse_duration(text)


def test_amounts_of_memory():
    assert [parse_bytes(text) for text in ("0", "4096", "2 KiB", "64MiB", "1.5GB")] == [
        0,
        4096,
        2048,
        2**26,
        15 * 10**8,
    ]


@pytest.mark.parametrize("text", ["", "much", "64mib", "-1", "64MB2", "1 2MiB", "10m"])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(UsageError, match="is not an amount of memory"):
        parse_bytes(text)
