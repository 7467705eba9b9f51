"""When a run measures, and when and why it ends."""

from __future__ import annotations

import pytest
import torch

from edge4d.tuning.options import TuneOptions
from edge4d.tuning.pace import Pace
from edge4d.tuning.processes import Processes
from edge4d.tuning.report import Measurement


def pace(clips=80, **settings):
    return Pace(TuneOptions(batch=8, **settings), clips, Processes(0, 1, torch.device("cpu")))


def last(step, seconds=0.0):
    return Measurement(step, seconds, 1.0, 1.0, None, None)


def test_the_rate_rises_and_falls():
    rates = [pace(steps=100).factor(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2, rel=0.01), "a fifth of the way up: warm-up is five steps of a hundred"
    assert max(rates) == rates[4]
    assert rates[50] == pytest.approx(0.5)
    assert rates[99] < 0.001


def test_measurements():
    assert [s for s in range(1, 31) if pace(steps=30).measuring_is_due(s, last(0))] == [10, 20, 30]
    assert [s for s in range(1, 31) if pace(epochs=3).measuring_is_due(s, last(0))] == list(range(1, 31))
    assert [s for s in range(1, 31) if pace(steps=30, every=7).measuring_is_due(s, last(0))] == [7, 14, 21, 28, 30]
    timed = pace(budget=200.0)
    timed.spent = 100.0
    assert [timed.measuring_is_due(1, last(0, seconds)) for seconds in (85, 95)] == [True, False]
    timed.measuring = 4.0  # so a tenth of the time is one every forty seconds, of which thirty-six are steps
    assert [timed.measuring_is_due(1, last(0, seconds)) for seconds in (60, 70)] == [True, False]


def test_why_a_run_ends():
    assert pace(steps=30).ended(29, 0, last(0)) == ""
    assert pace(steps=30).ended(30, 0, last(30)) == "all steps done"
    assert pace(steps=30).ended(20, 6, last(20)) == "no progress in 6 measurements"
    assert pace(steps=30).ended(20, 6, last(10)) == "", "that was asked when it was measured"
    assert pace(steps=30).ended(10, 6, last(10)) == "", "the rate is high"
    timed = pace(budget=200.0)
    timed.spent, timed.measuring = 190.0, 5.0
    assert timed.ended(10, 0, last(0)) == ""
    timed.measuring = 7.0
    assert timed.ended(10, 0, last(0)) == "the budget is used up"
