"""Scaled dot-product attention in float64, masked in every way; guarded only where a row may be masked altogether."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import edge4d
from edge4d.errors import LoweringError
from edge4d.lowered import lower
from tests.lowering.harness import Fn, lowered_equals_eager, ops_of

attend = F.scaled_dot_product_attention


def tokens(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SEEN = torch.arange(30).view(5, 6) % 4 != 1
NOWHERE = SEEN & (torch.arange(5) != 2)[:, None]
BIAS = tokens(3, 5, 6, seed=9)

WAYS = {
    "plain": lambda q, k, v: attend(q, k, v),
    "scaled": lambda q, k, v: attend(q, k, v, scale=0.7),
    "causal": lambda q, k, v: attend(q, k, v, is_causal=True),
    "mask": lambda q, k, v: attend(q, k, v, SEEN),
    "mask_of_nothing": lambda q, k, v: attend(q, k, v, torch.ones(5, 6, dtype=torch.bool)),
    "bias": lambda q, k, v: attend(q, k, v, BIAS),
    "a_row_sees_nothing": lambda q, k, v: attend(q, k, v, NOWHERE),
    "computed_mask": lambda q, k, v: attend(q, k, v, (q @ k.transpose(-1, -2)) > 0.4),
    "computed_bias": lambda q, k, v: attend(q, k, v, -((q @ k.transpose(-1, -2)) ** 2)),
    "windows": lambda q, k, v: attend(*(x[:, None].expand(2, 2, 3, *x.shape[-2:]) for x in (q, k, v))),
    "three_axes": lambda q, k, v: attend(q[:, 0], k[:, 1], v[:, 2]),
    "two_axes": lambda q, k, v: attend(q[0, 0], k[0, 1], v[0, 2]),
    "broadcast": lambda q, k, v: attend(q, k[:1, :1], v[:, :1]),
    "grouped_heads": lambda q, k, v: attend(torch.cat([q, q * 2], 1), k, v, enable_gqa=True),
}
GUARDED = {"a_row_sees_nothing", "computed_mask", "computed_bias"}


def qkv():
    return tokens(2, 3, 5, 4), tokens(2, 3, 6, 4, seed=1), tokens(2, 3, 6, 7, seed=2)


@pytest.mark.parametrize("name", WAYS)
def test_attention(name):
    lowered = lowered_equals_eager(Fn(WAYS[name]), *qkv())
    ops = ops_of(lowered)
    assert ops.count("aten.softmax.int") + ops.count("aten._softmax.default") == 1
    assert ("aten.eq.Scalar" in ops) == (name in GUARDED)
    assert ("aten.add.Tensor" in ops) == (name in GUARDED | {"causal", "mask", "bias"})


def test_onnx_runtime_agrees(tmp_path):
    query, key, value = (x.float() for x in qkv())
    module = Fn(lambda q, k, v: [WAYS[name](q, k, v) for name in ("plain", "causal", "a_row_sees_nothing")])
    report = edge4d.export(module, (query, key, value), output=tmp_path / "attention.onnx")
    assert report.ok, report.to_dict()["parity"]


def test_dropout_is_refused():
    with pytest.raises(LoweringError, match="draws random numbers"):
        lower(Fn(lambda q, k, v: attend(q, k, v, dropout_p=0.5)), qkv())
