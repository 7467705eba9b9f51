"""`edge4d verify`."""

from __future__ import annotations

import json

import onnx
import pytest

from edge4d.cli import main
from tests.validators import onnx_models as zoo


@pytest.fixture
def files(tmp_path):
    paths = {}
    for make in (zoo.plain, zoo.conv3d, zoo.unknown_operator):
        paths[make.__name__] = str(tmp_path / f"{make.__name__}.onnx")
        onnx.save(make(), paths[make.__name__])
    paths["broken"] = str(tmp_path / "broken.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"?")
    return paths


def test_a_good_file(files, capsys):
    assert main(["verify", files["plain"]]) == 0
    out, err = capsys.readouterr()
    assert out == f"✓ {files['plain']}: ok (checked 1 graph, 1 node, 2 values; highest rank 4)\n"
    assert err == ""


def test_several_files_and_the_worst_exit_code(files, capsys):
    assert main(["verify", files["plain"], files["conv3d"]]) == 1
    out, _ = capsys.readouterr()
    assert out.count("✓") == 1
    assert f"✗ {files['conv3d']}: 1 three-axis-operator, 3 rank-over-limit" in out
    assert main(["verify", files["broken"], files["conv3d"], files["plain"]]) == 2
    out, err = capsys.readouterr()
    assert "not an ONNX model" in err
    assert "Traceback" not in err
    assert "✓" in out
    assert "✗" in out


@pytest.mark.parametrize("option", [["--json"], ["--format", "json"]])
def test_json(files, capsys, option):
    assert main(["verify", files["plain"], files["broken"], *option]) == 2
    data = json.loads(capsys.readouterr().out)
    assert (data["ok"], data["exit_code"]) == (False, 2)
    assert [report["ok"] for report in data["reports"]] == [True, False]
    assert data["reports"][1]["error"]["type"] == "ValidationError"


def test_the_limit(files):
    assert main(["verify", files["conv3d"], "--max-rank", "5"]) == 0
    assert main(["verify", files["plain"], "--max-rank", "3"]) == 1
    assert main(["verify", files["plain"], "--max-rank", "0"]) == 2


def test_an_unknown_format_lists_those_there_are(files, capsys):
    assert main(["verify", files["plain"], "--format", "yaml"]) == 2
    assert "expected one of: text, json" in capsys.readouterr().err
