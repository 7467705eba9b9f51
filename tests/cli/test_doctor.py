"""`edge4d doctor`."""

from __future__ import annotations

import json
import sys

from edge4d.cli import main


def test_it_lists_packages_and_runtimes(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("Python", "torch", "onnxsim", "onnxruntime"):
        assert name in out


def test_a_missing_runtime_comes_with_its_install_command(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["doctor"]) == 0
    assert 'pip install "edge4d[onnxruntime]"' in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    (runtime,) = [r for r in json.loads(capsys.readouterr().out)["runtimes"] if r["name"] == "onnxruntime"]
    assert runtime["ok"] is False
    assert runtime["why_not"] == "it is not installed"
    assert runtime["install"] == 'pip install "edge4d[onnxruntime]"'


def test_a_missing_package_is_said(capsys, monkeypatch):
    from edge4d import recipe

    monkeypatch.setattr(recipe, "_version", lambda package: None if package == "onnxsim" else "1.0")
    assert main(["doctor", "--json"]) == 0
    packages = {p["name"]: p for p in json.loads(capsys.readouterr().out)["packages"]}
    assert packages["onnxsim"] == {"name": "onnxsim", "version": None, "install": "pip install onnxsim"}
    assert packages["torch"]["install"] is None
