"""Faults of torch.onnx and onnxsim, told alike by both exports."""

from __future__ import annotations

import onnxsim
import pytest
import torch

from edge4d.errors import ExportError
from edge4d.exporters.translating import simplified, translating
from edge4d.quiet import quiet
from tests.onnx_models import plain


def test_a_fault_is_told_by_its_type_and_the_beginning_of_its_message():
    fault = LookupError("x" * 5000)
    with pytest.raises(ExportError) as caught, translating("the graph", "leave it"):
        raise fault
    assert caught.value.message == f"torch.onnx cannot translate the graph: LookupError: {'x' * 1500}"
    assert caught.value.hint == "leave it"
    assert caught.value.__cause__ is fault


def test_an_operator_that_torch_onnx_does_not_know_is_named():
    """What torch says first is advice to its own developers, three hundred characters before the operator."""

    class Bessel(torch.nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x) + 1

    with pytest.raises(ExportError) as caught, quiet(), translating("the graph", "leave it"):
        torch.onnx.export(torch.export.export(Bessel(), (torch.ones(2, 3),)), dynamo=True, verbose=False)
    begin = "torch.onnx cannot translate prims.bessel_j0.default of the graph: DispatchError: No ONNX function found"
    assert caught.value.message.startswith(begin)
    assert "Next steps" not in caught.value.message


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
