"""A graph that is being made, value by value: its sizes are known while the file may state them as dynamic."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

__all__ = ["BOOL", "FLOAT", "I64", "MOST", "Builder", "Shape", "Tensor", "factors"]

MOST = 2000  # elements of a value
I64, FLOAT, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL
Shape = tuple[int, ...]


@dataclass
class Tensor:
    """A float value of the graph and its sizes."""

    name: str
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass
class Builder:
    """One graph that is being made; bodies share the counter, the randomness and the weights of the whole."""

    rng: random.Random
    highest: int
    weights: list[TensorProto] = field(default_factory=list)
    functions: list = field(default_factory=list)
    nodes: list[NodeProto] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    inputs: list = field(default_factory=list)
    feeds: dict[str, np.ndarray] = field(default_factory=dict)
    depth: int = 0
    counter: list[int] = field(default_factory=lambda: [0])

    def name(self, hint: str = "v") -> str:
        self.counter[0] += 1
        return f"{hint}{self.counter[0]}"

    def inner(self, *values: Tensor) -> Builder:
        """For a body, which sees these values."""
        return Builder(
            self.rng, self.highest, self.weights, self.functions, values=list(values), inputs=self.inputs,
            feeds=self.feeds, depth=self.depth + 1, counter=self.counter,
        )  # fmt: skip

    def node(self, op: str, inputs: Sequence[str], count: int = 1, **attributes) -> list[str]:
        outputs = [self.name() for _ in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, **attributes))
        return outputs

    def add(self, shape: Sequence[int], op: str, inputs: Sequence[str], **attributes) -> Tensor:
        return self.keep(self.node(op, inputs, **attributes)[0], shape)

    def keep(self, name: str, shape: Sequence[int]) -> Tensor:
        self.values.append(Tensor(name, tuple(shape)))
        return self.values[-1]

    def constant(self, array) -> str:
        """A weight, or a Constant node."""
        array = np.asarray(array)
        name = self.name("k")
        if self.rng.random() < 0.7:
            self.weights.append(numpy_helper.from_array(array, name))
            return name
        self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        return name

    def floats(self, *shape: int) -> str:
        return self.constant(np.ones(shape, np.float32))

    # ---- numbers of a shape, in the ways in which exporters write them --------------------------------------------

    def numbers(self, *numbers: int) -> str:
        """A list of integers that is a constant, an input, or computed from something with these numbers."""
        way = self.rng.choice((_plain, _plain, _from_pieces, _from_input, _by_arithmetic, _through_int32, _by_where))
        return way(self, list(numbers))


# ---- ways to come by a list of integers ----------------------------------------------------------------------------


def _plain(b: Builder, numbers: list[int]) -> str:
    return b.constant(np.array(numbers, np.int64))


def _from_input(b: Builder, numbers: list[int]) -> str:
    if b.depth:
        return _plain(b, numbers)
    name = b.name("s")
    b.inputs.append(helper.make_tensor_value_info(name, I64, [len(numbers)]))
    b.feeds[name] = np.array(numbers, np.int64)
    return name


def _from_pieces(b: Builder, numbers: list[int]) -> str:
    """Concat of sizes gathered from shapes of values, and of constants."""
    pieces = []
    for number in numbers:
        source = next((v for v in b.values[::-1] if number in v.shape), None)
        if source is None or b.rng.random() < 0.3:
            pieces.append(_plain(b, [number]))
            continue
        axis = source.shape.index(number)
        (shape,) = b.node("Shape", [source.name])
        if b.rng.random() < 0.5:
            (size,) = b.node("Gather", [shape, b.constant(np.array(axis, np.int64))])
            pieces += b.node("Unsqueeze", [size, b.constant(np.array([0], np.int64))])
        else:
            ends = [b.constant(np.array([end], np.int64)) for end in (axis, axis + 1)]
            pieces += b.node("Slice", [shape, *ends])
    return b.node("Concat", pieces, axis=0)[0] if pieces else _plain(b, numbers)


def _by_arithmetic(b: Builder, numbers: list[int]) -> str:
    (double,) = b.node("Mul", [_plain(b, numbers), _plain(b, [2] * len(numbers))])
    return b.node("Div", [double, _plain(b, [2])])[0]


def _through_int32(b: Builder, numbers: list[int]) -> str:
    (small,) = b.node("Cast", [_plain(b, numbers)], to=TensorProto.INT32)
    return b.node("Cast", [small], to=I64)[0]


def _by_where(b: Builder, numbers: list[int]) -> str:
    given = _plain(b, numbers)
    (mask,) = b.node("Equal", [given, _plain(b, [-7])])
    return b.node("Where", [mask, _plain(b, [1] * len(numbers)), given])[0]


def factors(rng: random.Random, size: int, rank: int) -> list[int]:
    """Sizes of that product."""
    sizes = [1] * rank
    if not size:
        return [0, *sizes[1:]]
    rest = size
    for prime in (2, 3, 5, 7, 11, 13):
        while rest % prime == 0 and rank:
            sizes[rng.randrange(rank)] *= prime
            rest //= prime
    if rank:
        sizes[-1] *= rest
    return sizes
