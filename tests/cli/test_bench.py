"""`edge4d bench`."""

from __future__ import annotations

import json
import re

import pytest

from edge4d.cli import main
from tests.onnx_models import artifact, save


@pytest.fixture
def model(tmp_path):
    return save(artifact(), tmp_path / "m.onnx")


def test_a_table_on_stdout(model, capsys):
    assert main(["bench", str(model), "--rounds", "2", "--warmup", "1", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "frames/s" in out
    assert "m.onnx" in out
    assert "2 interleaved rounds after 1 warm-up calls" in out


def test_json(model, capsys):
    assert main(["bench", str(model), "--rounds", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["rounds"] == 2


def test_a_model_that_cannot_be_read_exits_with_2_and_the_others_are_still_measured(model, tmp_path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    assert main(["bench", str(model), str(tmp_path / "bad.onnx"), "--rounds", "1", "--min-speedup", "1"]) == 2
    out = capsys.readouterr().out
    assert "bad.onnx failed" in out
    assert re.search(r"^m\.onnx +[0-9.]+", out, re.M)


def test_a_speedup_that_is_not_reached_exits_with_1(model, tmp_path, capsys):
    other = save(artifact(), tmp_path / "other.onnx")
    args = ["bench", str(model), str(other), "--rounds", "2"]
    assert main([*args, "--min-speedup", "1000000"]) == 1
    assert "other.onnx is not 1e+06 times as fast" in capsys.readouterr().err
    assert main([*args, "--min-speedup", "0.000001"]) == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--input-shape", "1x"], "--input-shape"),
        (["--time-limit", "0"], "--time-limit"),
        (["absent.onnx"], "no such file"),
    ],
)
def test_usage_errors(model, capsys, args, said):
    assert main(["bench", str(model), *args]) == 2
    assert said in capsys.readouterr().err
