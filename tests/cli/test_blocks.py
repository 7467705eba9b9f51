"""`edge4d blocks`."""

from __future__ import annotations

import json
import sys

import pytest

from edge4d import blocks
from edge4d.cli import main

SMALL = ["blocks", "--model", "eco-lite-small", "--frames", "4", "--block", "conv3d"]


def test_the_list(capsys):
    assert main(["blocks"]) == 0
    out = capsys.readouterr().out
    for name in blocks.names():
        assert blocks.get(name).summary in out
    assert "eco-lite" in out
    assert main(["blocks", "--json"]) == 0
    assert [b["name"] for b in json.loads(capsys.readouterr().out)["blocks"]] == list(blocks.names())


def test_a_measured_comparison_and_its_plot(tmp_path, capsys):
    target = tmp_path / "out.png"
    args = [*SMALL, "--block", "proposed-add", "--rounds", "1", "--threads", "1", "--json", "--plot", str(target)]
    assert main(args) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert [r["ok"] for r in report["rows"]] == [True, True]
    assert all(r["frames_per_s"] > 0 for r in report["rows"])
    assert report["native"]["frames_per_s"] > 0
    assert target.read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_counts_alone(tmp_path):
    target = tmp_path / "out.svg"
    assert main([*SMALL, "--rounds", "0", "--plot", str(target)]) == 0
    assert b"<svg" in target.read_bytes()
    assert main([*SMALL, "--rounds", "0", "--plot", str(target)]) == 2
    assert main([*SMALL, "--rounds", "0", "--plot", str(target), "--force"]) == 0


def test_without_matplotlib(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    assert main([*SMALL, "--rounds", "0", "--plot", str(tmp_path / "out.png")]) == 3
    assert 'pip install "edge4d[plots]"' in capsys.readouterr().err


def test_without_onnxruntime(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(SMALL) == 3
    assert "--rounds 0" in capsys.readouterr().err
    assert main([*SMALL, "--rounds", "0"]) == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model", "eco-light"], "did you mean 'eco-lite'"),
        (["--model", "eco-lite", "--block", "p3d-d"], "did you mean 'p3d-"),
        (["--model", "eco-lite", "--frames", "2", "--rounds", "0"], "at least 4 frames"),
        (["--model", "eco-lite", "--plot", "out.docx"], ".png"),
        (["--model", "eco-lite", "--plot", "gone/out.png"], "no folder gone"),
        (["--model", "eco-lite", "--block", "p3d-a", "--plot", "out.png"], "--block conv3d"),
        (["--plot", "out.png"], "--model eco-lite"),
        (["--model", "eco-lite", "--rounds", "-1"], "--rounds"),
    ],
)
def test_usage_errors(capsys, args, said):
    assert main(["blocks", *args]) == 2
    assert said in capsys.readouterr().err
