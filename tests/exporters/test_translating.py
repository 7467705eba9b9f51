"""Faults of torch.onnx and onnxsim, told alike by both exports."""

from __future__ import annotations

import onnxsim
import pytest

from edge4d.errors import ExportError
from edge4d.exporters.translating import simplified, translating
from tests.onnx_models import plain


def test_a_fault_is_told_by_its_type_and_the_beginning_of_its_message():
    fault = LookupError("x" * 5000)
    with pytest.raises(ExportError) as caught, translating("the graph", "leave it"):
        raise fault
    assert caught.value.message == f"torch.onnx cannot translate the graph: LookupError: {'x' * 1500}"
    assert caught.value.hint == "leave it"
    assert caught.value.__cause__ is fault


def test_ctrl_c_is_no_fault_of_the_graph():
    with pytest.raises(KeyboardInterrupt), translating("the graph", "leave it"):
        raise KeyboardInterrupt


def test_a_simplified_graph_that_differs_is_refused(monkeypatch):
    model = plain()
    assert simplified(model, "the graph").graph.node
    monkeypatch.setattr(onnxsim, "simplify", lambda proto: (proto, False))
    with pytest.raises(ExportError, match="onnxsim's own check says that the graph, simplified, differs") as caught:
        simplified(model, "the graph", "use --no-simplify")
    assert caught.value.hint == "use --no-simplify"
