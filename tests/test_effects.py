"""Matrix decompositions and other operators without a rule: named with layer, reason and way out, all at once."""

import pytest
import torch
from torch import nn

import edge4d
from edge4d.errors import CaptureError, LoweringError


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def refused(function):
    with pytest.raises(LoweringError) as caught:
        edge4d.lower(nn.Sequential(nn.ReLU(), Of(function)), (torch.randn(1, 2, 4, 4, 4),))
    return caught.value.message


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (torch.linalg.inv, "aten.linalg_inv_ex.default"),
        (torch.linalg.cholesky, "aten.linalg_cholesky_ex.default"),
        (lambda x: torch.linalg.solve(x, x), "aten._linalg_solve_ex.default"),
        (lambda x: torch.linalg.inv(torch.linalg.inv(x)), "aten.linalg_inv_ex.default"),
        (torch.linalg.eigvalsh, "aten._linalg_eigh.default"),
        (torch.linalg.svdvals, "aten._linalg_svd.default"),
        (lambda x: torch.linalg.qr(x)[0], "aten.linalg_qr.default"),
        (torch.linalg.det, "aten._linalg_det.default"),
        (torch.linalg.pinv, "aten.linalg_pinv.atol_rtol_tensor"),
        (lambda x: torch.linalg.lu(x)[1], "aten.linalg_lu.default"),
        (torch.linalg.matrix_exp, "aten.linalg_matrix_exp.default"),
    ],
)
def test_decompositions(function, op):
    said = refused(function)
    assert f"{op} at layer '1' (" in said
    assert "for which ONNX has no operator; compute it outside of the model" in said


def test_fourier_transforms():
    assert "a Fourier transform" in refused(lambda x: torch.fft.rfft(x).real)


def test_others_are_asked_a_rule_for():
    said = refused(lambda x: torch.mode(x, -1)[0])
    assert "aten.mode.default at layer '1'" in said
    assert "edge4d has no rule for this operator" in said


def test_checks_leave_the_other_operators_countable():
    said = refused(lambda x: torch.mode(torch.linalg.inv(x), -1)[0].relu())
    assert said.startswith("2 operators have no way to rank 4:")
    assert "2 of the model's 4 operators" in said


class Whitening(nn.Module):
    """x (N, C, T, H, W) times the inverse of a constant matrix (C, C): nothing of it hangs on the input."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(3) + 0.1 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return torch.einsum("oc,ncthw->nothw", torch.linalg.inv(self.matrix), x)


def test_of_a_constant_it_is_computed_beforehand():
    model, x = Whitening(), torch.randn(1, 3, 2, 4, 5)
    lowered = edge4d.lower(model, (x,))
    calls = [str(node.target) for node in lowered.module.graph.nodes if node.op == "call_function"]
    assert "aten.mm.default" in calls
    assert not any("linalg" in call for call in calls)
    with torch.no_grad():
        torch.testing.assert_close(lowered.unpack(lowered.module(*lowered.pack(x))), model(x))


def test_what_does_something_besides_is_refused():
    def telling(x):
        torch.ops.aten._print("here")
        return x + 1

    with pytest.raises(CaptureError, match=r"besides computing its results.*: aten\._print") as caught:
        edge4d.lower(Of(telling), (torch.randn(2, 3),))
    assert "take it out of forward" in str(caught.value)
