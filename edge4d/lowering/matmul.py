"""Linear layers and matrix products of any rank, at rank 2 where one side has no batch and at rank 3 otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Const, Operand, Value
from edge4d.lowering.view import broadcast, reshape
from edge4d.packing import Packing

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["matmul"]

aten = torch.ops.aten


@dataclass(frozen=True)
class LinearSpec:
    """x · weightᵀ + bias over the last axis; weight (out, in), bias (out,)."""

    x: Operand
    weight: Operand
    bias: Operand | None


@lowers(aten.linear.default)
class Linear:
    """All other axes are rows: [(rest), in] · [in, out]."""

    def check(self, site: Site) -> LinearSpec | Decline:
        spec = LinearSpec(site.take("input"), site.take("weight"), site.take("bias"))
        if len(spec.weight.shape) != 2:
            return Decline("a linear layer with a vector for a weight", "give the weight the shape (out, in)")
        return spec

    def rewrite(self, b: Builder, spec: LinearSpec) -> Value:
        x = b.given(spec.x)
        last = len(x.shape) - 1
        inner = x.packing.logical[last]
        outer = tuple(atom for atom in x.packing.memory if atom not in inner)
        node = b.arrange(x, (outer, inner))
        out = spec.weight.shape[0]
        weight = b.given(spec.weight)
        bias = [b.given(spec.bias).node] if spec.bias is not None else []
        packing = x.packing.reorder((outer, inner)).resize(last, 1, out)
        return b.value(b.emit(aten.linear.default, node, b.arrange(weight, _matrix(weight)), *bias), packing)


def _matrix(x: Value) -> tuple[tuple[int, ...], ...]:
    """Physical axes that equal the logical ones (rank ≤ 4)."""
    return x.packing.logical


def matmul(b: Builder, x: Operand, y: Operand) -> Value:
    """x (…, M, K) · y (…, K, N) → (…, M, N), batch axes broadcast."""
    rows, columns = x.shape[-2], y.shape[-1]
    batch = tuple(torch.broadcast_shapes(x.shape[:-2], y.shape[:-2]))  # type: ignore[no-untyped-call]
    if math.prod(y.shape[:-2]) == 1:
        return _by_one_matrix(b, b.given(x), y, (*batch, rows, columns))
    full = [_batched(b, side, batch) for side in (x, y)]
    nodes = [b.arrange(side, side.packing.logical) for side in full]
    product = b.emit(aten.bmm.default, *nodes)
    flat = Packing.of((math.prod(batch), rows, columns))
    return reshape(b, b.value(product, flat), (*batch, rows, columns))


def _by_one_matrix(b: Builder, x: Value, y: Operand, shape: tuple[int, ...]) -> Value:
    last = len(x.shape) - 1
    inner = x.packing.logical[last]
    outer = tuple(atom for atom in x.packing.memory if atom not in inner)
    node = b.arrange(x, (outer, inner))
    flat: Operand = b.lower(aten.reshape.default, y, list(y.shape[-2:]))
    matrix = b.given(flat)
    product = b.emit(aten.mm.default, node, b.arrange(matrix, _matrix(matrix)))
    return reshape(b, b.value(product, x.packing.reorder((outer, inner)).resize(last, 1, y.shape[-1])), shape)


def _batched(b: Builder, x: Operand, batch: tuple[int, ...]) -> Value:
    """x as (B, rows, columns) with every batch axis present."""
    value = b.given(x)
    padded = (1,) * (len(batch) + 2 - len(x.shape)) + x.shape
    wide = broadcast(b, reshape(b, value, padded), (*batch, *x.shape[-2:]))
    return reshape(b, wide, (math.prod(batch), *x.shape[-2:]))


@dataclass(frozen=True)
class ProductSpec:
    """beta · addend + alpha · (left · right), in the result's shape; vectors count as a row and a column."""

    left: Operand
    right: Operand
    addend: Operand | None
    alpha: float
    beta: float
    shape: tuple[int, ...]


@lowers(
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    aten.mv.default,
    aten.dot.default,
    aten.addmm.default,
    aten.baddbmm.default,
)
class MatMul:
    """Every matrix product."""

    def check(self, site: Site) -> ProductSpec | Decline:
        given: dict[str, Any] = site.take_all()
        if site.op in (aten.addmm.default, aten.baddbmm.default):
            left, right = (given["mat1"], given["mat2"]) if "mat1" in given else (given["batch1"], given["batch2"])
            return ProductSpec(left, right, given["self"], given["alpha"], given["beta"], site.shape)
        left = given["self"]
        right = next(given[name] for name in ("other", "mat2", "vec", "tensor") if name in given)
        return ProductSpec(left, right, None, 1, 1, site.shape)

    def rewrite(self, b: Builder, spec: ProductSpec) -> Operand:
        left: Operand = spec.left if len(spec.left.shape) > 1 else b.lower(aten.unsqueeze.default, spec.left, 0)
        right: Operand = spec.right if len(spec.right.shape) > 1 else b.lower(aten.unsqueeze.default, spec.right, 1)
        if isinstance(left, Const) and isinstance(right, Const):
            product: Operand = b.lower(aten.matmul.default, left, right)
        else:
            product = matmul(b, left, right)
        product = b.lower(aten.reshape.default, product, list(spec.shape))
        if spec.alpha != 1:
            product = b.lower(aten.mul.Tensor, product, spec.alpha)
        if spec.addend is None or spec.beta == 0:
            return product
        addend = spec.addend if spec.beta == 1 else b.lower(aten.mul.Tensor, spec.addend, spec.beta)
        result: Operand = b.lower(aten.add.Tensor, product, addend)
        return result


@dataclass(frozen=True)
class TrilinearSpec:
    """Σ x · y · z over the axes `summed`, each operand with axes of 1 put in at its `expands`."""

    operands: tuple[Operand, ...]
    expands: tuple[tuple[int, ...], ...]
    summed: tuple[int, ...]


@lowers(aten._trilinear.default)
class Trilinear:
    """Products and a sum, as `nn.Bilinear` has them."""

    def check(self, site: Site) -> TrilinearSpec | Decline:
        site.take("unroll_dim")  # how it is computed, not what
        operands = tuple(site.take(f"i{i}") for i in (1, 2, 3))
        expands = tuple(tuple(sorted(site.take(f"expand{i}"))) for i in (1, 2, 3))
        return TrilinearSpec(operands, expands, tuple(site.take("sumdim")))

    def rewrite(self, b: Builder, spec: TrilinearSpec) -> Operand:
        factors = []
        for operand, expand in zip(spec.operands, spec.expands, strict=True):
            for axis in expand:
                operand = b.lower(aten.unsqueeze.default, operand, axis)
            factors.append(operand)
        product = b.lower(aten.mul.Tensor, b.lower(aten.mul.Tensor, factors[0], factors[1]), factors[2])
        result: Operand = b.lower(aten.sum.dim_IntList, product, list(spec.summed))
        return result
