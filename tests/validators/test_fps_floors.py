"""Floors of speed: what is too slow or unknown falls short, with its own exit code."""

from __future__ import annotations

import pytest

from edge4d.errors import UsageError
from edge4d.validators.fps import summarise
from edge4d.validators.fps_floors import Floors
from tests.validators.timings import four, measured


@pytest.mark.parametrize(
    ("floors", "short"),
    [
        ({}, []),
        ({"min_ratio": 1.0}, ["slow", "dead"]),
        ({"min_ratio": 2.0}, ["slow", "dead"]),
        ({"min_ratio": 2.5}, ["fast", "slow", "dead"]),
        ({"min_fps": 1600}, ["dead"]),
        ({"min_fps": 1601}, ["slow", "dead"]),
        ({"min_fps": 6401}, ["fast", "slow", "dead"]),
        ({"min_fps": 1601, "min_ratio": 2.5}, ["slow", "dead", "fast", "slow", "dead"]),
    ],
)
def test_what_is_below_a_floor_or_not_known_falls_short(floors, short):
    assert [found.name for found in four(**floors).shortfalls] == short


def test_a_shortfall_says_got_and_expected():
    slow, dead = four(min_fps=2000).shortfalls
    assert slow.to_text() == "slow is too slow: 1600 frames/s, expected at least 2000 frames/s (--min-fps)"
    assert "dead is too slow: no frames/s (it failed), expected at least 2000" in dead.to_text()
    slow, _ = four(min_ratio=0.75).shortfalls
    assert "0.5 times as fast as the reference, expected at least 0.75 times (--min-ratio)" in slow.to_text()
    told = four(min_fps=2000).to_dict()["floors"]
    assert told["min_frames_per_s"] == 2000
    assert told["shortfalls"][0]["got"] == pytest.approx(1600)


def test_one_that_is_too_slow_weighs_more_than_a_missing_runtime_and_that_alone_keeps_its_code():
    assert four().exit_code == 3
    assert four(min_fps=1).exit_code == 3
    assert four(min_fps=2000).exit_code == 1
    assert not four(min_fps=2000).ok


def test_a_floor_holds_for_a_reference_that_stands_alone_and_never_for_native_forms():
    alone = summarise({"ref": measured([10])}, rounds=1, warmup=0)
    assert [found.name for found in alone.held_to(Floors(min_fps=3201)).shortfalls] == ["ref"]
    gathered = {"ref": measured([10]), "a": measured([5]), "n": measured([50], is_native=True)}
    report = summarise(gathered, rounds=1, warmup=0).held_to(Floors(min_fps=3201, min_ratio=1))
    assert report.ok


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["min_fps", "min_ratio"])
def test_a_floor_that_could_not_fail_or_not_hold_is_refused(name, value):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} .*, expected a finite number above 0"):
        Floors(**{name: value})
