"""Random graphs that run: operators that change shapes, shapes that are computed, branches, loops and functions.

The generator follows the sizes that the values have at one set of input sizes, so that every graph it makes is valid;
the file may state these sizes as dynamic all the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper

from tests.validators.random_builder import BOOL, FLOAT, I64, MOST, Builder, Shape, Tensor, factors
from tests.validators.random_operators import SIMPLE, Step, unary

__all__ = ["random_graph"]

OPSET = 18
_SWITCHES = 3  # inputs that decide which branch is taken, one for each depth


def _body(b: Builder, start: Tensor, steps: int) -> tuple[Builder, Tensor]:
    inner = b.inner(start)
    for _ in range(steps):
        _step(inner)
    if not inner.nodes:
        inner.add(start.shape, "Identity", [start.name])
    return inner, inner.values[-1]


def _if(b: Builder, x: Tensor) -> None:
    """Branches of the same size, and perhaps of another rank."""
    target = factors(b.rng, x.size, b.rng.randint(1, b.highest))
    graphs: list[GraphProto] = []
    for _ in range(2):
        inner, _ = _body(b, x, b.rng.randint(0, 3))
        own = target if b.rng.random() < 0.95 else factors(b.rng, x.size, b.rng.randint(1, b.highest))
        out = inner.add(own, "Reshape", [x.name, inner.numbers(*own)])
        graphs.append(helper.make_graph(inner.nodes, b.name("g"), [], [_port(out.name)]))
    (result,) = b.node("If", [f"c{b.depth % _SWITCHES}"], then_branch=graphs[0], else_branch=graphs[1])
    b.add(target, "Reshape", [result, b.numbers(*target)])


def _port(name: str, elem: int = FLOAT, shape: Sequence[int] | None = None):
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
    outputs = [_port(on2, BOOL, []), _port(out.name)]
    collected = None
    if not grows and b.rng.random() < 0.5:
        collected = b.rng.choice([v for v in inner.values if v.name != carried.name])
        if collected.rank < b.highest and collected.size * rounds <= MOST:
            copy = inner.add(collected.shape, "Identity", [collected.name])
            outputs.append(_port(copy.name))
        else:
            collected = None
    inner.nodes.append(helper.make_node("Identity", [on], [on2]))
    ports = [_port(i, I64, []), _port(on, BOOL, []), _port(carried.name)]
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
    if out.rank < b.highest and out.size * x.shape[0] <= MOST:
        last = inner.add(out.shape, "Identity", [out.name])
        graph = helper.make_graph(inner.nodes, b.name("g"), [_port(item.name)], [_port(last.name, FLOAT, out.shape)])
        (result,) = b.node("Scan", [x.name], body=graph, num_scan_inputs=1)
        b.keep(result, [x.shape[0], *out.shape])


def _function(b: Builder, x: Tensor) -> None:
    """Called once or twice; its weights are Constant nodes, for a function sees nothing from outside."""
    weights: list[TensorProto] = []
    inner = Builder(b.rng, b.highest, weights, b.functions, values=[Tensor("a", x.shape)], depth=b.depth + 2,
                    counter=b.counter)  # fmt: skip
    for _ in range(b.rng.randint(1, 3)):
        _step(inner, SIMPLE)
    if not inner.nodes:
        return
    constants = [helper.make_node("Constant", [], [w.name], value=w) for w in weights]
    name, out = b.name("F"), inner.values[-1]
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    function = helper.make_function("my", name, ["a"], [out.name], [*constants, *inner.nodes], imports)
    b.functions.append(function)
    b.add(out.shape, name, [x.name], domain="my")


_ALL = (*SIMPLE, _if, _loop, _scan, _function)


def _step(b: Builder, steps: Sequence[Step] = _ALL) -> None:
    """One operator on one of the latest values."""
    x = b.rng.choice(b.values[-4:])
    if b.depth >= 3:
        steps = SIMPLE
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
        b.inputs.append(_port(x.name, FLOAT, stated))
        b.feeds[x.name] = np.ones(shape, np.float32)
    b.inputs += [_port(f"c{i}", BOOL, []) for i in range(_SWITCHES)]
    for _ in range(rng.randint(3, 14)):
        _step(b)
    if not b.nodes:
        unary(b, b.values[-1])
    made = {name for n in b.nodes for name in n.output}
    outputs = [_port(v.name) for v in b.values if v.name in made][-2:]
    graph = helper.make_graph(b.nodes, "g", b.inputs, outputs, initializer=b.weights)
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("my", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=b.functions, ir_version=10), b.feeds
