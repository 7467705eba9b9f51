"""The benchmark of memory: ratios of like with like, and no row for a form whose numbers are wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks import memory
from benchmarks.candidates import EDGE4D, NATIVE
from benchmarks.cases import load_cases
from edge4d import exporters
from edge4d.errors import UsageError

PEAKS = {(NATIVE, "defaults"): 300, (NATIVE, "opened"): 250, (NATIVE, "built"): 200,
         (EDGE4D, "defaults"): 600, (EDGE4D, "opened"): 300, (EDGE4D, "built"): 220}  # fmt: skip
ROWS = [{"case": "net", "form": form, "way": way, "peak_mib": peak} for (form, way), peak in PEAKS.items()]


@pytest.mark.parametrize(
    ("way", "to", "expected"), [("defaults", None, 2.0), ("built", None, 1.1), ("built", "defaults", 220 / 300)]
)
def test_a_ratio_is_to_native_run_in_the_same_way_unless_told(way, to, expected):
    assert memory.ratio(ROWS, "net", EDGE4D, way, to) == pytest.approx(expected)


def test_the_table_of_a_record(tmp_path, capsys):
    record = tmp_path / "memory.jsonl"
    record.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert memory.main(["--render", str(record)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "net", "300", "250", "200", "600 (2.00×)", "300 (1.20×)", "220 (1.10×)", "0.73×",
    ]  # fmt: skip


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """`measure` with files that are not run: what `give` returns for a file's name stands for its result."""

    def run(give):
        files = {form: tmp_path / f"{form}.onnx" for form in (NATIVE, EDGE4D)}

        def child(path, way, _threads, folder):
            path.write_bytes(b"x")
            np.save(folder / "result.npy", give(path.name))
            return {"peak_mib": float(PEAKS[path.name.split(".")[0], way])}

        monkeypatch.setattr(memory, "network_of", lambda case: torch.nn.Identity())
        monkeypatch.setattr(memory, "clips_of", lambda case, seed: (torch.zeros(1),))
        monkeypatch.setattr(memory, "make_onnx", lambda *_args, **_how: files)
        monkeypatch.setattr(type(exporters.get("onnxruntime")), "build", lambda *_args, **_how: None)
        monkeypatch.setattr(memory, "_in_child", child)
        return memory.measure(load_cases()[0], tmp_path, {})

    return run


def test_every_form_is_measured_in_every_way(measured):
    rows = measured(lambda name: np.arange(4.0))
    assert {(row["form"], row["way"]): row["peak_mib"] for row in rows} == PEAKS
    assert {row["error"] for row in rows if row["way"] != "defaults"} == {0.0}


@pytest.mark.parametrize("wrong", [0.5, np.nan])
def test_a_form_with_other_numbers_than_native_ends_it(measured, wrong):
    with pytest.raises(UsageError, match=rf"{EDGE4D}, built: .* of the range from native"):
        measured(lambda name: np.arange(4.0) + (wrong if name == f"{EDGE4D}.built.onnx" else 0))
