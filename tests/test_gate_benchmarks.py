"""The gate's benchmarks: what they measure and count, on models that are small."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest

from benchmarks import gate, gate_peers
from edge4d.validators import check_rank
from tests.validators.corpus import CASES


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(gate, "_LAYERS", 2)
    monkeypatch.setattr(gate, "_NODES", 30)


@pytest.mark.parametrize("name", gate.MODELS)
def test_the_models_are_good_and_of_their_size(tmp_path, name):
    path = tmp_path / "model.onnx"
    onnx.save(gate.MODELS[name](path), path)
    assert check_rank(path).ok
    if name == "2 GB within the file":
        assert path.stat().st_size > 2 * 16 * 2**20
    if name == "2 GB beside the file":
        assert path.stat().st_size < 10_000
        onnx.checker.check_model(str(path))  # the weights are where the file says


def test_seconds_memory_and_exit_code():
    code = "import time; data = b'x' * 64 * 2**20; time.sleep(0.3); raise SystemExit(3)"
    run = gate.Run([sys.executable, "-c", code])
    assert run.exit_code == 3
    assert run.seconds >= 0.3
    assert run.peak_mib > 64


def test_a_tool_that_does_not_end_is_stopped():
    run = gate.Run([sys.executable, "-c", "import time; time.sleep(60)"], limit_s=0.2)
    assert run.seconds is None
    assert run.exit_code is None


def test_a_record_is_written(tmp_path, monkeypatch, capsys):
    tools = {"a": lambda path: ["-c", "pass"], "b": lambda path: ["-c", "raise SystemExit(1)"]}
    monkeypatch.setattr(gate, "TOOLS", tools)
    out = tmp_path / "gate.jsonl"
    assert gate.main(["--rounds", "2", "--models", "100,000 nodes", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["tool"], row["exit_codes"], row["rounds"]) for row in rows] == [("a", [0], 2), ("b", [1], 2)]
    assert {"machine", "versions", "commit", "date", "peak_mib", "seconds"} <= set(rows[0])
    assert capsys.readouterr().out.count("100,000 nodes") == 2


def test_the_committed_records_can_be_read():
    files = sorted((Path(gate.__file__).parent / "results").glob("gate-*.jsonl"))
    assert files
    for path in files:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert {row["model"] for row in rows} == set(gate.MODELS)
        assert all(row["exit_codes"] == [0] for row in rows if row["tool"] == "edge4d verify")


def test_every_model_of_the_corpus_is_in_one_group():
    for case in CASES.values():
        assert sum(belongs(case) for belongs in gate_peers.GROUPS.values()) == 1, case.name


def test_the_table_counts_what_is_flagged():
    names = ["plain", "hidden_rank_5", "conv_3d", "conv_2d", "input_without_shape", "undefined_name"]
    text = gate_peers.table({"all": dict.fromkeys(names, True), "one": {name: name == "conv_3d" for name in names}})
    assert "| all | 2 | 1 | 1 | 2 | 0 |" in text
    assert "| one | 1 | 0 | 0 | 0 | 1 |" in text


def test_an_error_an_exit_code_and_a_crash_are_flags(tmp_path, monkeypatch):
    imports = "import numpy, onnx, onnxruntime, onnxsim\n"  # so that each fork has them; seconds, and no use here
    assert imports in gate_peers._DRIVER
    monkeypatch.setattr(gate_peers, "_DRIVER", gate_peers._DRIVER.replace(imports, ""))
    paths = [tmp_path / name for name in ("good", "raises", "exits", "dies")]
    code = (
        "import os, sys; "
        "'raises' in path and 1 / 0; 'exits' in path and sys.exit(3); 'dies' in path and os.kill(os.getpid(), 11)"
    )
    python = Path(sys.executable)
    assert gate_peers.flags(python, ["-c", code], paths) == [False, True, True, True]
    with pytest.raises(RuntimeError, match="nosuchtool"):
        gate_peers.flags(python, ["nosuchtool"], paths)
