"""The picture of a measurement: who is in it, what it says, what it refuses."""

from __future__ import annotations

import re

import pytest

from edge4d.errors import RuntimeUnavailable, UsageError
from edge4d.validators.fps import Samples, summarise
from edge4d.validators.fps_plot import plot_fps


def report():
    ms = 1_000_000
    times = {"ref": [[10 * ms], [20 * ms]], "fast": [[5 * ms], [10 * ms]], "nat": [[8 * ms], [16 * ms]]}
    gathered = {name: Samples(run_ns=turns, frames=16) for name, turns in times.items()}
    gathered["fast"].native = gathered["nat"].native = "nat"
    gathered["nat"].is_native = True
    gathered["dead"] = Samples(failure="no such op")
    return summarise(gathered, rounds=2, warmup=0)


def test_an_svg_names_every_model_with_its_ratios(tmp_path):
    path = plot_fps(report(), tmp_path / "fps.svg")
    words = re.findall(r">([^<>\n]+)</text>", path.read_text())
    assert {"ref", "fast", "nat", "dead", "failed"} <= set(words)
    labels = " ".join(words)
    assert "2.00× reference" in labels
    assert "1.60× native" in labels
    assert labels.count("× native") == 1  # a native form is not held against itself
    first = path.read_bytes()
    assert plot_fps(report(), tmp_path / "again.svg").read_bytes() == first


def test_a_png(tmp_path):
    assert plot_fps(report(), tmp_path / "fps.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_a_plot_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"ends in \.png, \.svg, \.pdf"):
        plot_fps(report(), tmp_path / "fps.txt")
    nothing = summarise({"dead": Samples(failure="x")}, rounds=1, warmup=0)
    with pytest.raises(UsageError, match="no model gave numbers"):
        plot_fps(nothing, tmp_path / "fps.svg")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(RuntimeUnavailable) as refused:
        plot_fps(report(), tmp_path / "fps.svg")
    assert 'pip install "edge4d[plots]"' in str(refused.value)
