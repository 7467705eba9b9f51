"""`edge4d parity`."""

from __future__ import annotations

import json

import pytest

from edge4d.cli import main
from tests.test_checking import _onnx

pytest.importorskip("onnxruntime", reason="parity runs ONNX files on ONNX Runtime")


@pytest.fixture
def files(tmp_path):
    return [str(_onnx(tmp_path / f"{i}.onnx", scale=scale)) for i, scale in enumerate((1, 1, 1.9))]


def test_text_and_exit_code(files, capsys):
    assert main(["parity", *files[:2]]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{files[1]} against {files[0]}\n✓ 2 outputs agree on 2 input sets\n")
    assert main(["parity", *files, "--sets", "1"]) == 1
    out = capsys.readouterr().out
    assert "✓ 2 outputs agree on 1 input set" in out
    assert "✗ 2 of 2 outputs differ" in out


def test_json(files, capsys):
    assert main(["parity", *files, "--json", "--seed", "3"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["ok"], data["exit_code"], data["reference"]) == (False, 1, files[0])
    assert [(entry["path"], entry["ok"]) for entry in data["candidates"]] == [(files[1], True), (files[2], False)]


def test_the_limit_can_be_set_and_must_make_sense(files, capsys):
    assert main(["parity", files[0], files[2], "--max-error", "2"]) == 0
    assert main(["parity", *files[:2], "--max-error", "nan"]) == 2
    assert main(["parity", files[0]]) == 2
    assert main(["parity", files[0], "none.onnx"]) == 2
    assert "Traceback" not in capsys.readouterr().err
