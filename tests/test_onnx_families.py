"""The families once more, through ONNX and ONNX Runtime: what torch.onnx and onnxsim make of the lowered calls."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edge4d
from tests.lowering.harness import randomise
from tests.lowering.test_conv import CONVS, TRANSPOSED
from tests.lowering.test_families import AXIS, NORMS, POINTWISE, POOLS, PRODUCTS, RESIZES
from tests.lowering.test_places import ORDER, PLACES
from tests.lowering.test_reduce import REDUCTIONS


class Many(nn.Module):
    """Several functions of one clip as one model; results by name."""

    def __init__(self, functions):
        super().__init__()
        self.names = list(functions)
        self.functions = nn.ModuleList(f if isinstance(f, nn.Module) else _Module(f) for f in functions.values())

    def forward(self, x):
        return {name: function(x) for name, function in zip(self.names, self.functions, strict=True)}


class _Module(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def float64_only(name: str) -> bool:
    """Cases written for float64 clips."""
    return name in {"cast", "soft_argmin", "bucketize", "gather_from_constant"}


GROUPS = {
    "conv": {name: nn.Conv3d(4, 6, **case) for name, case in CONVS.items() if case.get("groups", 1) in (1, 2)},
    "conv_transposed": {name: nn.ConvTranspose3d(4, 6, **case) for name, case in TRANSPOSED.items()},
    "pool": POOLS,
    "norm": {name: module for name, module in NORMS.items() if "layer" not in name and name != "rms"},
    "pointwise": {name: case for name, case in POINTWISE.items() if not float64_only(name)},
    "reduction": {name: case for name, case in REDUCTIONS.items() if not float64_only(name)},
    "axis": AXIS,
    "places": {name: case for name, case in PLACES.items() if not float64_only(name)},
    "order": ORDER,
    "resize": {name: lambda x, case=case: F.interpolate(x, **case) for name, case in RESIZES.items()},
}


@pytest.mark.parametrize("group", GROUPS)
def test_family_through_onnx(group, tmp_path):
    model = randomise(Many(GROUPS[group])).float().eval()
    clip = torch.randn(2, 4, 3 if group in ("axis", "reduction", "pointwise", "places", "order") else 6, 5, 6)
    report = edge4d.export(model, (clip,), output=tmp_path / f"{group}.onnx", sets=1)
    assert report.gate.ok, report.gate.to_text()
    assert report.parity is not None
    assert report.parity.ok, report.parity.to_text()
    assert len(report.outputs) >= len(GROUPS[group])


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_through_onnx(name, tmp_path):
    build, shapes = PRODUCTS[name]
    args = tuple(torch.randn(shape) for shape in shapes)
    report = edge4d.export(randomise(build()).float(), args, output=tmp_path / "product.onnx", sets=1)
    assert report.ok, report.to_text()


class Awkward(nn.Module):
    """Outputs that are inputs, outputs twice, a constant output, an input that is not used."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.arange(720.0).view(2, 3, 4, 5, 6))

    def forward(self, x, unused, index):
        y = x * 2
        return x, y, y, self.table, index + 1, (x > 0)


def test_awkward_outputs(tmp_path):
    x, index = torch.randn(1, 2, 3, 4, 5), torch.arange(24).view(1, 2, 3, 2, 2)
    report = edge4d.export(Awkward(), (x, torch.zeros(2), index), output=tmp_path / "awkward.onnx")
    assert report.ok, report.to_text()
    assert [port.dtype for port in report.outputs] == ["float32"] * 4 + ["int64", "bool"]
