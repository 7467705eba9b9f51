"""Random graphs that run: operators that change shapes, shapes that are computed, branches, loops and functions.

The generator follows the sizes that the values have at one set of input sizes, so that every graph it makes is valid;
the file may state these sizes as dynamic all the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["random_graph"]

OPSET = 18
_SWITCHES = 3  # inputs that decide which branch is taken, one for each depth
_MOST = 2000  # elements of a value
_I64, _FLOAT, _BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL
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
    b.inputs.append(helper.make_tensor_value_info(name, _I64, [len(numbers)]))
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
    return b.node("Cast", [small], to=_I64)[0]


def _by_where(b: Builder, numbers: list[int]) -> str:
    given = _plain(b, numbers)
    (mask,) = b.node("Equal", [given, _plain(b, [-7])])
    return b.node("Where", [mask, _plain(b, [1] * len(numbers)), given])[0]


# ---- operators: each adds what it makes to the builder --------------------------------------------------------------


def _factors(rng: random.Random, size: int, rank: int) -> list[int]:
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


def _unary(b: Builder, x: Tensor) -> None:
    b.add(x.shape, b.rng.choice(["Relu", "Neg", "Identity", "Sigmoid", "Erf", "Round"]), [x.name])


def _microsoft(b: Builder, x: Tensor) -> None:
    b.add(x.shape, b.rng.choice(["Gelu", "QuickGelu"]), [x.name], domain="com.microsoft")


def _reshape(b: Builder, x: Tensor) -> None:
    rank = b.rng.randint(0 if x.size == 1 else 1, b.highest)
    target = _factors(b.rng, x.size, rank)
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
        if size == 1 and math.prod(shape) * 2 <= _MOST and b.rng.random() < 0.4:
            shape[axis] = 2
    b.add(shape, "Expand", [x.name, b.numbers(*shape)])


def _transpose(b: Builder, x: Tensor) -> None:
    if x.rank:
        perm = b.rng.sample(range(x.rank), x.rank)
        b.add([x.shape[axis] for axis in perm], "Transpose", [x.name], perm=perm)


def _concat(b: Builder, x: Tensor) -> None:
    if x.rank and x.size * 2 <= _MOST:
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
    if x.rank and x.size * math.prod(repeats) <= _MOST:
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
        b.add(shape, "Cast", [found], to=_FLOAT)


def _matmul(b: Builder, x: Tensor) -> None:
    if not x.rank:
        return
    inner = x.shape[-1]
    front = (1,) * b.rng.randint(0, max(b.highest - 2, 0)) if b.rng.random() < 0.3 else ()
    weight = (inner,) if not front and b.rng.random() < 0.2 else (*front, inner, 3)
    shape = np.matmul(np.ones(x.shape), np.ones(weight)).shape
    if math.prod(shape) <= _MOST:
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
    b.add([x.rank], "Cast", [shape], to=_FLOAT)


def _range(b: Builder, x: Tensor) -> None:
    (size,) = b.node("Size", [x.name])
    ends = [b.constant(np.array(number, np.int64)) for number in (0, 1)]
    (numbers,) = b.node("Range", [ends[0], size, ends[1]])
    b.add([x.size], "Cast", [numbers], to=_FLOAT)


def _non_zero(b: Builder, x: Tensor) -> None:
    """Of ones, so that it is known how many there are."""
    if x.rank:
        (ones,) = b.node("ConstantOfShape", b.node("Shape", [x.name]), value=numpy_helper.from_array(
            np.ones(1, np.float32)))  # fmt: skip
        (found,) = b.node("NonZero", [ones])
        b.add([x.rank, x.size], "Cast", [found], to=_FLOAT)


def _one_hot(b: Builder, x: Tensor) -> None:
    if 0 < x.rank < b.highest and x.size * 2 <= _MOST:
        (indices,) = b.node("Cast", [x.name], to=_I64)
        depth, values = b.constant(np.array(2, np.int64)), b.constant(np.array([0, 1], np.float32))
        b.add([*x.shape, 2], "OneHot", [indices, depth, values])


def _pad(b: Builder, x: Tensor) -> None:
    if x.rank:
        pads = [0] * x.rank + [b.rng.randint(0, 1) for _ in x.shape]
        shape = [size + more for size, more in zip(x.shape, pads[x.rank :], strict=True)]
        if math.prod(shape) <= _MOST:
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
    if not x.rank or x.size * 2 > _MOST:
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


# ---- graphs within graphs ------------------------------------------------------------------------------------------


def _body(b: Builder, start: Tensor, steps: int) -> tuple[Builder, Tensor]:
    inner = b.inner(start)
    for _ in range(steps):
        _step(inner)
    if not inner.nodes:
        inner.add(start.shape, "Identity", [start.name])
    return inner, inner.values[-1]


def _if(b: Builder, x: Tensor) -> None:
    """Branches of the same size, and perhaps of another rank."""
    target = _factors(b.rng, x.size, b.rng.randint(1, b.highest))
    graphs: list[GraphProto] = []
    for _ in range(2):
        inner, _ = _body(b, x, b.rng.randint(0, 3))
        own = target if b.rng.random() < 0.95 else _factors(b.rng, x.size, b.rng.randint(1, b.highest))
        out = inner.add(own, "Reshape", [x.name, inner.numbers(*own)])
        graphs.append(helper.make_graph(inner.nodes, b.name("g"), [], [_port(out.name)]))
    (result,) = b.node("If", [f"c{b.depth % _SWITCHES}"], then_branch=graphs[0], else_branch=graphs[1])
    b.add(target, "Reshape", [result, b.numbers(*target)])


def _port(name: str, elem: int = _FLOAT, shape: Sequence[int] | None = None):
    return helper.make_tensor_value_info(name, elem, shape)


def _loop(b: Builder, x: Tensor) -> None:
    """Carries a value of one shape, or one that grows; collects another."""
    rounds = 2
    carried = Tensor(b.name("a"), x.shape)
    on, i, on2 = b.name("on"), b.name("i"), b.name("on2")
    grows = b.rng.random() < 0.15 and x.rank + rounds <= b.highest
    if grows:
        inner = b.inner()
        out = inner.add((1, *x.shape), "Unsqueeze", [carried.name, inner.constant(np.array([0], np.int64))])
        end: Shape = (1,) * rounds + x.shape
    else:
        inner, _ = _body(b, carried, b.rng.randint(1, 3))
        out = inner.add(x.shape, "Reshape", [carried.name, inner.numbers(*x.shape)])
        end = x.shape
    outputs = [_port(on2, _BOOL, []), _port(out.name)]
    collected = None
    if not grows and b.rng.random() < 0.5:
        collected = b.rng.choice([v for v in inner.values if v.name != carried.name])
        if collected.rank < b.highest and collected.size * rounds <= _MOST:
            copy = inner.add(collected.shape, "Identity", [collected.name])
            outputs.append(_port(copy.name))
        else:
            collected = None
    inner.nodes.append(helper.make_node("Identity", [on], [on2]))
    ports = [_port(i, _I64, []), _port(on, _BOOL, []), _port(carried.name)]
    graph = helper.make_graph(inner.nodes, b.name("g"), ports, outputs)
    limit, yes = b.constant(np.array(rounds, np.int64)), b.constant(np.array(True))
    names = b.node("Loop", [limit, yes, x.name], len(outputs) - 1, body=graph)
    b.keep(names[0], end)
    if collected is not None:
        b.keep(names[1], [rounds, *collected.shape])


def _scan(b: Builder, x: Tensor) -> None:
    if not x.rank or not x.shape[0]:
        return
    item = Tensor(b.name("e"), x.shape[1:])
    inner, out = _body(b, item, b.rng.randint(1, 3))
    if out.rank < b.highest and out.size * x.shape[0] <= _MOST:
        last = inner.add(out.shape, "Identity", [out.name])
        graph = helper.make_graph(inner.nodes, b.name("g"), [_port(item.name)], [_port(last.name, _FLOAT, out.shape)])
        (result,) = b.node("Scan", [x.name], body=graph, num_scan_inputs=1)
        b.keep(result, [x.shape[0], *out.shape])


def _function(b: Builder, x: Tensor) -> None:
    """Called once or twice; its weights are Constant nodes, for a function sees nothing from outside."""
    weights: list[TensorProto] = []
    inner = Builder(b.rng, b.highest, weights, b.functions, values=[Tensor("a", x.shape)], depth=b.depth + 2,
                    counter=b.counter)  # fmt: skip
    for _ in range(b.rng.randint(1, 3)):
        _step(inner, _SIMPLE)
    if not inner.nodes:
        return
    constants = [helper.make_node("Constant", [], [w.name], value=w) for w in weights]
    name, out = b.name("F"), inner.values[-1]
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    function = helper.make_function("my", name, ["a"], [out.name], [*constants, *inner.nodes], imports)
    b.functions.append(function)
    b.add(out.shape, name, [x.name], domain="my")


_Step = Callable[[Builder, Tensor], None]
_SIMPLE: tuple[_Step, ...] = (
    _unary, _microsoft, _reshape, _reshape, _unsqueeze, _squeeze, _expand, _transpose, _concat, _gather, _gather_nd,
    _tile, _slice, _split, _reduce, _arg_max, _matmul, _add, _where, _conv, _pool, _flatten, _einsum,
    _constant_of_shape, _shape_as_numbers, _range, _non_zero, _one_hot, _pad, _depth_to_space, _quantize, _sequence,
    _top_k,
)  # fmt: skip
_ALL = (*_SIMPLE, _if, _loop, _scan, _function)


def _step(b: Builder, steps: Sequence[_Step] = _ALL) -> None:
    """One operator on one of the latest values."""
    x = b.rng.choice(b.values[-4:])
    if b.depth >= 3:
        steps = _SIMPLE
    b.rng.choice(steps)(b, x)


def random_graph(seed: int) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """A model, and what to feed it; some stay within rank 4 throughout."""
    rng = random.Random(seed)
    b = Builder(rng, highest=rng.choice([4, 4, 5, 6]))
    for i in range(rng.randint(1, 2)):
        shape = tuple(rng.choice([1, 2, 3, 4]) for _ in range(rng.randint(0, b.highest)))
        stated = [rng.choice([size, f"d{i}_{axis}", None]) if rng.random() < 0.5 else size
                  for axis, size in enumerate(shape)]  # fmt: skip
        x = b.keep(f"x{i}", shape)
        b.inputs.append(_port(x.name, _FLOAT, stated))
        b.feeds[x.name] = np.ones(shape, np.float32)
    b.inputs += [_port(f"c{i}", _BOOL, []) for i in range(_SWITCHES)]
    for _ in range(rng.randint(3, 14)):
        _step(b)
    if not b.nodes:
        _unary(b, b.values[-1])
    made = {name for n in b.nodes for name in n.output}
    outputs = [_port(v.name) for v in b.values if v.name in made][-2:]
    graph = helper.make_graph(b.nodes, "g", b.inputs, outputs, initializer=b.weights)
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("my", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=b.functions, ir_version=10), b.feeds
