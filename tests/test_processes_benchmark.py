"""`benchmarks.accuracy.processes`: what it calls speed, and that unlike results are noticed."""

from __future__ import annotations

import json

import pytest

from benchmarks.accuracy import processes


def row(turn, way, speed):
    return {"round": turn, "processes": way[0], "threads": way[1], "clips_per_second": speed}


def test_speed_is_of_the_steps_between_first_and_last_measurement():
    history = [{"step": 0, "seconds": 5.0}, {"step": 10, "seconds": 8.0}, {"step": 40, "seconds": 15.0}]
    assert processes.clips_a_second({"history": history}, batch=8) == pytest.approx(32.0)


def test_ratios_are_taken_within_a_round():
    rows = [
        row(turn, way, speed * (1 + turn))
        for turn in range(3)
        for way, speed in zip(processes.WAYS, (2, 3, 4), strict=True)
    ]
    lines = processes.table(rows).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["1", "1", "4.0", "1.00×", "1.00 to 1.00"]
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == ["2", "1", "8.0", "2.00×", "2.00 to 2.00"]


@pytest.mark.parametrize(("moved", "code"), [(0.01, 0), (0.1, 1)])
def test_a_way_that_ends_elsewhere_is_a_finding(tmp_path, monkeypatch, moved, code):
    def tuned(place, count, threads, *, steps, batch):
        history = [{"step": 0, "seconds": 0.0, "loss": 9.0}, {"step": steps, "seconds": 1.0, "loss": 2.0}]
        history[-1]["loss"] *= 1 + moved if count > 1 else 1
        return {"history": history}

    monkeypatch.setattr(processes, "_tune", tuned)
    out = tmp_path / "log.jsonl"
    assert processes.main(["--rounds", "1", "--steps", "2", "--batch", "4", "--out", str(out)]) == code
    assert [json.loads(line)["apart"] for line in out.read_text().splitlines()] == pytest.approx([moved] * 3)
    assert processes.main(["--out", str(out)]) == 2, "a record is not replaced unasked"
