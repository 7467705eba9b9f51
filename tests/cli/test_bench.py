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


@pytest.mark.parametrize("option", ["--min-ratio", "--min-speedup"])
def test_a_ratio_that_is_not_reached_exits_with_1(model, tmp_path, capsys, option):
    other = save(artifact(), tmp_path / "other.onnx")
    args = ["bench", str(model), str(other), "--rounds", "2"]
    assert main([*args, option, "1000000"]) == 1
    said = capsys.readouterr().err
    assert "other.onnx is too slow: " in said
    assert "expected at least 1e+06 times (--min-ratio)" in " ".join(said.split())
    assert main([*args, option, "0.000001"]) == 0


def test_frames_per_second_that_are_not_reached_exit_with_1_and_the_json_says_so(model, capsys):
    args = ["bench", str(model), "--rounds", "2", "--json"]
    assert main([*args, "--min-fps", "1e12"]) == 1
    done = capsys.readouterr()
    assert "m.onnx is too slow: " in done.err
    report = json.loads(done.out)
    assert report["ok"] is False
    (short,) = report["floors"]["shortfalls"]
    assert short["got"] == report["candidates"][0]["frames_per_s"]
    assert main([*args, "--min-fps", "0.000001"]) == 0


def test_json_has_every_column_with_its_unit(model, capsys):
    assert main(["bench", str(model), "--rounds", "2", "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["candidates"]
    numbers = {"clips_per_s", "frames_per_s", "load_rss_mib", "peak_rss_mib", "load_s", "pack_ms", "size_bytes"}
    assert all(line[name] > 0 for name in numbers)
    assert {"p50", "p90", "p99"} <= line["latency_ms"].keys()
    assert (line["build_s"], line["copy_ms"]) == (None, None)
    assert line["build_unknown"]
    assert line["copy_unknown"]


def test_a_plot_is_written_and_not_replaced_unasked(model, tmp_path, capsys):
    plot = tmp_path / "fps.svg"
    args = ["bench", str(model), "--rounds", "1", "--warmup", "0", "--plot", str(plot)]
    assert main(args) == 0
    assert "m.onnx" in plot.read_text()
    assert main(args) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*args, "--force"]) == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--input-shape", "1x"], "--input-shape"),
        (["--time-limit", "0"], "--time-limit"),
        (["absent.onnx"], "no such file"),
        (["--min-fps", "nan"], "--min-fps"),
        (["--min-fps", "0"], "--min-fps"),
        (["--min-ratio", "2"], "there is no candidate"),
        (["--native"], "a runtime's file already"),
        (["--plot", "fps.txt"], ".svg"),
        (["--plot", "absent/fps.svg"], "no folder"),
    ],
)
def test_usage_errors(model, capsys, args, said):
    assert main(["bench", str(model), *args]) == 2
    assert said in capsys.readouterr().err
