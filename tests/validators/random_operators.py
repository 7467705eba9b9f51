"""Operators for random graphs: each is given a value and adds to the graph what it makes of it, if it fits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from onnx import numpy_helper

from tests.validators.random_builder import FLOAT, I64, MOST, Builder, Tensor, factors

__all__ = ["SIMPLE", "Step", "unary"]

Step = Callable[[Builder, Tensor], None]


def unary(b: Builder, x: Tensor) -> None:
    b.add(x.shape, b.rng.choice(["Relu", "Neg", "Identity", "Sigmoid", "Erf", "Round"]), [x.name])


def _microsoft(b: Builder, x: Tensor) -> None:
    b.add(x.shape, b.rng.choice(["Gelu", "QuickGelu"]), [x.name], domain="com.microsoft")


def _reshape(b: Builder, x: Tensor) -> None:
    rank = b.rng.randint(0 if x.size == 1 else 1, b.highest)
    target = factors(b.rng, x.size, rank)
    stated = list(target)
    if rank and b.rng.random() < 0.4:
        stated[b.rng.randrange(rank)] = -1
    b.add(target, "Reshape", [x.name, b.numbers(*stated)])


def _unsqueeze(b: Builder, x: Tensor) -> None:
    if x.rank < b.highest:
        axis = b.rng.randint(0, x.rank)
        shape = [*x.shape[:axis], 1, *x.shape[axis:]]
        b.add(shape, "Unsqueeze", [x.name, b.constant(np.array([axis], np.int64))])


def _squeeze(b: Builder, x: Tensor) -> None:
    ones = [axis for axis, size in enumerate(x.shape) if size == 1]
    if not ones:
        return
    if b.rng.random() < 0.3:
        b.add([size for size in x.shape if size != 1], "Squeeze", [x.name])
        return
    axis = b.rng.choice(ones)
    shape = [*x.shape[:axis], *x.shape[axis + 1 :]]
    b.add(shape, "Squeeze", [x.name, b.constant(np.array([axis - x.rank if b.rng.random() < 0.3 else axis]))])


def _expand(b: Builder, x: Tensor) -> None:
    rank = b.rng.randint(x.rank, b.highest) if x.rank < b.highest else x.rank
    shape = [1] * (rank - x.rank) + list(x.shape)
    for axis, size in enumerate(shape):
        if size == 1 and math.prod(shape) * 2 <= MOST and b.rng.random() < 0.4:
            shape[axis] = 2
    b.add(shape, "Expand", [x.name, b.numbers(*shape)])


def _transpose(b: Builder, x: Tensor) -> None:
    if x.rank:
        perm = b.rng.sample(range(x.rank), x.rank)
        b.add([x.shape[axis] for axis in perm], "Transpose", [x.name], perm=perm)


def _concat(b: Builder, x: Tensor) -> None:
    if x.rank and x.size * 2 <= MOST:
        axis = b.rng.randrange(x.rank)
        shape = list(x.shape)
        shape[axis] *= 2
        b.add(shape, "Concat", [x.name, x.name], axis=axis)


def _gather(b: Builder, x: Tensor) -> None:
    if x.rank and x.size:
        axis = b.rng.randrange(x.rank)
        picked = b.rng.choice([(), (1,), (2,), (1, 2)])
        if x.rank - 1 + len(picked) <= b.highest:
            shape = [*x.shape[:axis], *picked, *x.shape[axis + 1 :]]
            b.add(shape, "Gather", [x.name, b.constant(np.zeros(picked, np.int64))], axis=axis)


def _gather_nd(b: Builder, x: Tensor) -> None:
    if x.rank:
        depth = b.rng.randint(1, x.rank)
        front = b.rng.choice([(), (2,), (1, 2)])
        if len(front) + x.rank - depth <= b.highest:
            b.add([*front, *x.shape[depth:]], "GatherND", [x.name, b.constant(np.zeros((*front, depth), np.int64))])


def _tile(b: Builder, x: Tensor) -> None:
    repeats = [b.rng.choice([1, 1, 2]) for _ in x.shape]
    if x.rank and x.size * math.prod(repeats) <= MOST:
        shape = [size * times for size, times in zip(x.shape, repeats, strict=True)]
        b.add(shape, "Tile", [x.name, b.numbers(*repeats)])


def _slice(b: Builder, x: Tensor) -> None:
    if x.rank and x.size:
        axis = b.rng.randrange(x.rank)
        end = b.rng.randint(1, x.shape[axis])
        ends = [b.constant(np.array([number], np.int64)) for number in (0, end, axis)]
        b.add([*x.shape[:axis], end, *x.shape[axis + 1 :]], "Slice", [x.name, *ends])


def _split(b: Builder, x: Tensor) -> None:
    even = [axis for axis, size in enumerate(x.shape) if size % 2 == 0 and size]
    if even:
        axis = b.rng.choice(even)
        shape = [*x.shape[:axis], x.shape[axis] // 2, *x.shape[axis + 1 :]]
        for name in b.node("Split", [x.name], 2, axis=axis, num_outputs=2):
            b.keep(name, shape)


def _reduce(b: Builder, x: Tensor) -> None:
    axes = sorted(b.rng.sample(range(x.rank), b.rng.randint(0, x.rank)))
    keep = b.rng.random() < 0.5
    chosen = axes or list(range(x.rank))
    shape = [1 if i in chosen else size for i, size in enumerate(x.shape) if keep or i not in chosen]
    op = b.rng.choice(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2"])
    inputs = [x.name] + ([b.constant(np.array(axes, np.int64))] if axes else [])
    b.add(shape, op, inputs, keepdims=int(keep))


def _arg_max(b: Builder, x: Tensor) -> None:
    if x.rank:
        axis, keep = b.rng.randrange(x.rank), b.rng.random() < 0.5
        shape = [1 if i == axis else size for i, size in enumerate(x.shape) if keep or i != axis]
        (found,) = b.node("ArgMax", [x.name], axis=axis, keepdims=int(keep))
        b.add(shape, "Cast", [found], to=FLOAT)


def _matmul(b: Builder, x: Tensor) -> None:
    if not x.rank:
        return
    inner = x.shape[-1]
    front = (1,) * b.rng.randint(0, max(b.highest - 2, 0)) if b.rng.random() < 0.3 else ()
    weight = (inner,) if not front and b.rng.random() < 0.2 else (*front, inner, 3)
    shape = np.matmul(np.ones(x.shape), np.ones(weight)).shape
    if math.prod(shape) <= MOST:
        op, domain = ("FusedMatMul", "com.microsoft") if min(x.rank, len(weight)) > 1 and b.rng.random() < 0.2 else (
            "MatMul", ""
        )  # fmt: skip
        b.add(shape, op, [x.name, b.floats(*weight)], domain=domain)


def _add(b: Builder, x: Tensor) -> None:
    other = tuple(b.rng.choice([1, size]) for size in x.shape)
    if b.rng.random() < 0.3:
        other = other[b.rng.randint(0, len(other)) :]
    elif x.rank < b.highest and b.rng.random() < 0.3:
        other = (1, *other)
    shape = np.broadcast_shapes(x.shape, other)
    b.add(shape, b.rng.choice(["Add", "Mul", "Max", "Sub"]), [x.name, b.floats(*other)])


def _where(b: Builder, x: Tensor) -> None:
    (mask,) = b.node("Greater", [x.name, b.floats()])
    b.add(x.shape, "Where", [mask, x.name, b.floats()])


def _conv(b: Builder, x: Tensor) -> None:
    axes = x.rank - 2
    if 1 <= axes <= 3 and all(x.shape) and x.shape[1] <= 16:
        weight = b.floats(2, x.shape[1], *[1] * axes)
        b.add([x.shape[0], 2, *x.shape[2:]], "Conv", [x.name, weight])


def _pool(b: Builder, x: Tensor) -> None:
    axes = x.rank - 2
    if 1 <= axes <= 3 and all(x.shape):
        if b.rng.random() < 0.5:
            b.add([*x.shape[:2], *[1] * axes], "GlobalAveragePool", [x.name])
        else:
            b.add(x.shape, b.rng.choice(["MaxPool", "AveragePool"]), [x.name], kernel_shape=[1] * axes)


def _flatten(b: Builder, x: Tensor) -> None:
    axis = b.rng.randint(0, x.rank)
    b.add([math.prod(x.shape[:axis]), math.prod(x.shape[axis:])], "Flatten", [x.name], axis=axis)


def _einsum(b: Builder, x: Tensor) -> None:
    if 1 <= x.rank <= 5 and x.rank < b.highest:
        letters = "abcde"[: x.rank]
        kept = "".join(sorted(b.rng.sample(letters, b.rng.randint(0, x.rank))))
        equation = f"{letters},{letters[-1]}z->{kept}z"
        shape = [x.shape[letters.index(letter)] for letter in kept]
        b.add([*shape, 2], "Einsum", [x.name, b.floats(x.shape[-1], 2)], equation=equation)


def _constant_of_shape(b: Builder, x: Tensor) -> None:
    (shape,) = b.node("Shape", [x.name])
    b.add(x.shape, "ConstantOfShape", [shape])


def _shape_as_numbers(b: Builder, x: Tensor) -> None:
    (shape,) = b.node("Shape", [x.name])
    b.add([x.rank], "Cast", [shape], to=FLOAT)


def _range(b: Builder, x: Tensor) -> None:
    (size,) = b.node("Size", [x.name])
    ends = [b.constant(np.array(number, np.int64)) for number in (0, 1)]
    (numbers,) = b.node("Range", [ends[0], size, ends[1]])
    b.add([x.size], "Cast", [numbers], to=FLOAT)


def _non_zero(b: Builder, x: Tensor) -> None:
    """Of ones, so that it is known how many there are."""
    if x.rank:
        (ones,) = b.node("ConstantOfShape", b.node("Shape", [x.name]), value=numpy_helper.from_array(
            np.ones(1, np.float32)))  # fmt: skip
        (found,) = b.node("NonZero", [ones])
        b.add([x.rank, x.size], "Cast", [found], to=FLOAT)


def _one_hot(b: Builder, x: Tensor) -> None:
    if 0 < x.rank < b.highest and x.size * 2 <= MOST:
        (indices,) = b.node("Cast", [x.name], to=I64)
        depth, values = b.constant(np.array(2, np.int64)), b.constant(np.array([0, 1], np.float32))
        b.add([*x.shape, 2], "OneHot", [indices, depth, values])


def _pad(b: Builder, x: Tensor) -> None:
    if x.rank:
        pads = [0] * x.rank + [b.rng.randint(0, 1) for _ in x.shape]
        shape = [size + more for size, more in zip(x.shape, pads[x.rank :], strict=True)]
        if math.prod(shape) <= MOST:
            b.add(shape, "Pad", [x.name, b.numbers(*pads)])


def _depth_to_space(b: Builder, x: Tensor) -> None:
    if x.rank == 4 and x.shape[1] % 4 == 0 and x.size:
        n, c, h, w = x.shape
        b.add([n, c // 4, h * 2, w * 2], "DepthToSpace", [x.name], blocksize=2)


def _quantize(b: Builder, x: Tensor) -> None:
    scale = b.constant(np.array(0.5, np.float32))
    zero = b.constant(np.array(3, np.uint8))
    (small,) = b.node("QuantizeLinear", [x.name, scale, zero])
    b.add(x.shape, "DequantizeLinear", [small, scale, zero])


def _sequence(b: Builder, x: Tensor) -> None:
    """Stacked along a new axis, or put together again."""
    if not x.rank or x.size * 2 > MOST:
        return
    (pair,) = b.node("SequenceConstruct", [x.name, x.name])
    if b.rng.random() < 0.5 and x.rank < b.highest:
        b.add([2, *x.shape], "ConcatFromSequence", [pair], axis=0, new_axis=1)
    else:
        b.add(x.shape, "SequenceAt", [pair, b.constant(np.array(1, np.int64))])


def _top_k(b: Builder, x: Tensor) -> None:
    if x.rank and x.shape[-1]:
        values, _ = b.node("TopK", [x.name, b.numbers(1)], 2)
        b.keep(values, [*x.shape[:-1], 1])


SIMPLE: tuple[Step, ...] = (
    unary, _microsoft, _reshape, _reshape, _unsqueeze, _squeeze, _expand, _transpose, _concat, _gather, _gather_nd,
    _tile, _slice, _split, _reduce, _arg_max, _matmul, _add, _where, _conv, _pool, _flatten, _einsum,
    _constant_of_shape, _shape_as_numbers, _range, _non_zero, _one_hot, _pad, _depth_to_space, _quantize, _sequence,
    _top_k,
)  # fmt: skip
