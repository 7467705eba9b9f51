"""`edge4d build`."""

from __future__ import annotations

import json

import pytest

from edge4d.cli import main
from tests.onnx_models import artifact, save


@pytest.fixture
def model(tmp_path):
    return save(artifact(), tmp_path / "m.onnx")


def test_the_engine_lies_beside_the_model(model, capsys):
    assert main(["build", str(model), "--runtime", "onnxruntime"]) == 0
    engine = model.with_name("m.onnxruntime.onnx")
    captured = capsys.readouterr()
    assert captured.out == f"{engine}\n"
    assert "building for onnxruntime" in captured.err
    assert engine.is_file()


def test_an_existing_engine_needs_force(model, capsys):
    args = ["build", str(model), "-r", "onnxruntime", "-o", str(model.with_name("e.onnx"))]
    assert main(args) == 0
    assert main(args) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*args, "--force"]) == 0


def test_json_says_what_was_written(model, capsys):
    out = model.with_name("e.ort")
    assert main(["build", str(model), "-r", "onnxruntime", "-o", str(out), "--threads", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == str(out)
    assert result["notes"]
    assert json.loads(out.with_name("e.ort.json").read_text())["options"]["threads"] == 1


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["-r", "onnxruntme"], 2, "did you mean 'onnxruntime'?"),
        (["-r", "onnxruntime", "--optimization", "more"], 2, "none, basic, extended, all"),
        (["-r", "onnxruntime", "--provider", "rknpu"], 3, "RknpuExecutionProvider is not in this build"),
        (["-r", "onnxruntime", "-o", "no/such/folder/e.onnx"], 2, "no such folder"),
    ],
)
def test_failures_are_explained(model, capsys, args, code, said):
    assert main(["build", str(model), *args]) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_a_folder_is_not_called_a_missing_file(tmp_path, capsys):
    assert main(["build", str(tmp_path), "-r", "onnxruntime"]) == 2
    assert "is a folder, expected an ONNX file" in capsys.readouterr().err


def test_a_missing_runtime_exits_with_3(model, capsys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["build", str(model), "-r", "onnxruntime"]) == 3
    assert 'pip install "edge4d[onnxruntime]"' in capsys.readouterr().err
