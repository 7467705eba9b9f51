"""What an export costs: the targets, what counts as missed, and that one broken export is said and not recorded."""

from __future__ import annotations

import json
import subprocess

import pytest

from benchmarks import export_cost

TOLD = {
    "seconds": 10.0, "cpu_s": 5.0, "stages": {}, "peak_mib": 900.0, "before_mib": 500.0, "weight_bytes": 100 * 2**20,
    "written_bytes": 1, "nodes": 146, "threads": 1,
}  # fmt: skip


def run(monkeypatch, tmp_path, *words, code=0, **told):
    """The command, whose children say `told`; its exit code and the children's own words."""
    asked = []

    def child(command, **_):
        asked.append(command[-2:])
        said = "a line before\n" + json.dumps(TOLD | told) + "\n"
        return subprocess.CompletedProcess(command, code, said if code == 0 else "", "no memory left\n")

    monkeypatch.setattr(export_cost.subprocess, "run", child)
    return export_cost.main([*words, "--out", str(tmp_path / "cost.jsonl")]), asked


@pytest.fixture(autouse=True)
def stamp(monkeypatch):
    """Versions and commit are asked of git, which the fake child stands in for."""
    monkeypatch.setattr(export_cost, "stamp_of", lambda: {"date": "2026-11-27", "commit": "abc", "versions": {}})


def test_every_network_is_exported_for_all_and_for_one_runtime(monkeypatch, tmp_path, capsys):
    code, asked = run(monkeypatch, tmp_path)
    assert code == 0
    assert asked == [[name, runtime] for name in ("r3d_18", "swin3d_t") for runtime in ("", "onnxruntime")]
    rows = [json.loads(line) for line in (tmp_path / "cost.jsonl").read_text().splitlines()]
    targets = [(row["model"], row["for"], row["target_s"]) for row in rows]
    assert targets == [(name, r, s) for name, s in export_cost.TARGETS.items() for r in (None, "onnxruntime")]
    assert {row["target_mib"] for row in rows} == {4 * 100 + 1024}
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| r3d_18"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["r3d_18", "-", "10.0", "5.0", "15", "900", "1424", "500", "100", "146"]


@pytest.mark.parametrize("told", [{"seconds": 15.1}, {"peak_mib": 1424.1}])
def test_a_missed_target_is_the_exit_code_and_recorded(monkeypatch, tmp_path, told):
    assert run(monkeypatch, tmp_path, "r3d_18", **told)[0] == 1
    assert (tmp_path / "cost.jsonl").is_file()
    assert run(monkeypatch, tmp_path, "swin3d_t", "--force", seconds=15.1)[0] == 0


def test_an_export_that_fails_is_said_and_nothing_is_recorded(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, tmp_path, "r3d_18", code=9)[0] == 2
    assert "r3d_18: its export ended with 9\nno memory left" in capsys.readouterr().err
    assert not (tmp_path / "cost.jsonl").exists()


def test_wrong_usage_is_said_before_anything_is_exported(monkeypatch, tmp_path, capsys):
    code, asked = run(monkeypatch, tmp_path, "resnet")
    assert (code, asked) == (2, [])
    assert "no target for resnet" in capsys.readouterr().err
    (tmp_path / "cost.jsonl").write_text("kept")
    assert run(monkeypatch, tmp_path, "r3d_18") == (2, [])
    assert (tmp_path / "cost.jsonl").read_text() == "kept"


@pytest.mark.slow
def test_a_real_export_tells_what_it_took(capsys):
    assert export_cost.main(["--child", "r3d_18", ""]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told) == set(TOLD)
    assert told["weight_bytes"] > 33e6 * 4
    assert 0 < told["before_mib"] <= told["peak_mib"]
