"""Scaled dot-product attention: two matrix products and a softmax, and a mask only where there is something to mask.

PyTorch's own decomposition guards every softmax against rows that are masked altogether, by comparisons and choices
over all scores. Here that guard stands only where such a row is possible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Const, Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

aten = torch.ops.aten


@dataclass(frozen=True)
class AttentionSpec:
    """softmax(scale · query · keyᵀ + mask) · value.

    Attributes:
        query: (…, L, E).
        key: (…, S, E).
        value: (…, S, E').
        mask: broadcasts to (…, L, S): added, or, boolean, True where a key takes part; None for none.
        causal: query i sees keys 0…i only.
        repeats: how many query heads share a key and a value head (axis -3).
    """

    query: Operand
    key: Operand
    value: Operand
    mask: Operand | None
    causal: bool
    scale: float
    repeats: int


@lowers(aten.scaled_dot_product_attention.default)
class Attention:
    """Attention of any leading axes, masked, causal, or with grouped heads."""

    def check(self, site: Site) -> AttentionSpec | Decline:
        given: dict[str, Any] = site.take_all()
        query, key, value = given["query"], given["key"], given["value"]
        if given["dropout_p"]:
            return Decline("its dropout draws random numbers", "call model.eval(), or pass dropout_p=0 in inference")
        if given["attn_mask"] is not None and given["is_causal"]:
            return Decline("a mask and is_causal together, which PyTorch refuses", "put both into the mask")
        scale = given["scale"] if given["scale"] is not None else 1 / math.sqrt(query.shape[-1])
        repeats = query.shape[-3] // key.shape[-3] if given["enable_gqa"] else 1
        return AttentionSpec(query, key, value, given["attn_mask"], given["is_causal"], scale, repeats)

    def rewrite(self, b: Builder, spec: AttentionSpec) -> Operand:
        key, value = spec.key, spec.value
        if spec.repeats > 1:
            key, value = (b.lower(aten.repeat_interleave.self_int, x, spec.repeats, -3) for x in (key, value))
        keys = b.lower(aten.transpose.int, key, -1, -2)
        scores = b.lower(aten.matmul.default, b.lower(aten.mul.Scalar, spec.query, spec.scale), keys)
        mask = _added(b, _causal(spec) if spec.causal else spec.mask, scores)
        if mask is not None:
            scores = b.lower(aten.add.Tensor, scores, mask)
        weights = b.lower(aten.softmax.int, scores, -1)
        if mask is not None and not _every_row_sees(mask):
            nowhere = b.lower(aten.all.dim, b.lower(aten.eq.Scalar, scores, -math.inf), -1, True)
            weights = b.lower(aten.masked_fill.Scalar, weights, nowhere, 0)
        result: Operand = b.lower(aten.matmul.default, weights, value)
        return result


def _causal(spec: AttentionSpec) -> Const:
    seen = torch.ones(spec.query.shape[-2], spec.key.shape[-2], dtype=torch.bool).tril()
    return Const(seen, "causal")


def _added(b: Builder, mask: Operand | None, scores: Operand) -> Operand | None:
    """The mask as numbers to add; None where it changes nothing."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        hidden = b.lower(aten.logical_not.default, mask)
        zeros = Const(torch.zeros((1,) * len(mask.shape), dtype=scores.dtype), "zero")
        mask = b.lower(aten.masked_fill.Scalar, zeros, hidden, -math.inf)
    return None if isinstance(mask, Const) and not mask.tensor.any() else mask


def _every_row_sees(mask: Operand) -> bool:
    """Whether it is known that each query has a key that is not masked."""
    return isinstance(mask, Const) and bool((mask.tensor > -math.inf).any(-1).all())
