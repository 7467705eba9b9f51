"""The page of networks that were exported: what stands around its lines, and which faults its lines may hide."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from edge4d.errors import ExportError
from tests.zoo import coverage
from tests.zoo.coverage import NONE, Outcome, native_nodes, page, rows_of, surveyed
from tests.zoo.models import find


def line(native, nodes=30, result="exact", error=1e-6):
    return Outcome(find("c3d"), result, error, nodes, native, 2.4).line()


@pytest.mark.parametrize(
    ("native", "shown"), [(10, "3.0"), (9, "3.3, above 3"), (None, NONE), (40, "0.8")], ids=["at", "above", "-", "less"]
)
def test_a_line_says_in_words_that_its_graph_is_larger_than_is_asked_for(native, shown):
    (row,) = rows_of(page({"c3d": line(native)})).values()
    assert row == f"| c3d | 1x3x16x112x112 | exact | 1.0e-06 | 30 | {shown} | 2 |"
    assert page({"c3d": row}) == page({"c3d": line(native)})


def test_a_refused_network_has_no_nodes():
    (row,) = rows_of(page({"c3d": line(None, 0, "refused: aten.rand", None)})).values()
    assert row == "| c3d | 1x3x16x112x112 | refused: aten.rand |  |  |  | 2 |"


def test_the_page_is_what_its_generator_writes_of_its_lines_and_of_the_records():
    text = coverage.PAGE.read_text(encoding="utf-8")
    assert text == page(rows_of(text)), "run `python -m tests.zoo.coverage --text`"


def test_networks_without_a_line_are_named():
    assert "without a line as yet: r3d_18, mc3_18," in page({"c3d": line(10)}).replace("\n", " ")


def record(folder, name, **told):
    empty = {"exact": 0, "refused": {}, "worst_error": 0.0, "worst_seed": None, "steps": {}}
    (folder / f"random-networks-{name}.json").write_text(json.dumps(empty | told))


def test_the_records_of_random_networks_are_added_up(tmp_path):
    record(tmp_path, "a", exact=1000, worst_error=1e-13)
    record(tmp_path, "b", exact=500, worst_error=2e-13, refused={"aten.mode": 2}, through="lower")
    record(tmp_path, "c", exact=90, worst_error=3e-6, coarse=1, through="onnx")
    _, lowered, whole = surveyed(tmp_path).replace("\n  ", " ").split("\n- ")
    assert "1,500 exact within 1e-9 of the range, the worst of them at 2.0e-13; 2 refused by name" in lowered
    assert "90 exact within 1e-5 of the range, the worst of them at 3.0e-06; 1 beyond that" in whole
    assert "none refused (`benchmarks/results/random-networks-c.json`)" in whole
    assert surveyed(tmp_path / "nothing") == ""


# ---- the native form ----------------------------------------------------------------------------------------------


def raising(error):
    def export(*_, **__):
        raise error

    return export


def test_a_network_that_torch_onnx_refuses_has_no_native_form_and_the_reason_is_told(monkeypatch, capsys):
    monkeypatch.setattr(torch.onnx, "export", raising(torch.onnx.errors.OnnxExporterError("no such operator")))
    assert native_nodes(nn.ReLU(), (torch.zeros(1),)) is None
    assert "OnnxExporterError: no such operator" in capsys.readouterr().err


def test_another_fault_is_no_refusal(monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", raising(MemoryError("none left")))
    with pytest.raises(ExportError, match="MemoryError: none left"):
        native_nodes(nn.ReLU(), (torch.zeros(1),))
