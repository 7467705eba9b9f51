"""Kernels combined slice by slice: the same as all at once, whatever the size of a slice."""

from __future__ import annotations

import pytest
import torch

from edge4d.lowering.conv import combining
from edge4d.lowering.conv.combining import combined, scaled


@pytest.mark.parametrize("elements", [1, 50, 2**20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slices_do_not_show(monkeypatch, elements, dtype):
    monkeypatch.setattr(combining, "_SLICE", elements)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 4, 3, 2, 2, generator=generator, dtype=dtype)
    factors = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    expected = torch.einsum("jk,sckhw->jschw", factors, weight.double())
    found = combined(factors, weight, 2)
    assert (found.dtype, found.shape) == (dtype, expected.shape)
    torch.testing.assert_close(found.double(), expected, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    scale = torch.randn(5, 1, 1, 1, 1, generator=generator, dtype=torch.float64)
    assert torch.equal(scaled(weight, scale), (weight.double() * scale).to(dtype))


def test_the_axis_is_honoured():
    weight = torch.arange(2 * 3 * 3, dtype=torch.float32).reshape(2, 3, 3)
    factors = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.equal(combined(factors, weight, 1)[0], weight[:, 0])
    assert torch.equal(combined(factors, weight, 2)[0], weight[:, :, 0])
