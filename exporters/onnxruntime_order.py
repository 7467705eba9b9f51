"""The order of an engine's nodes, by which ONNX Runtime decides what is in memory at once.

ONNX Runtime runs a graph depth first from its results, and of a node's inputs that one first whose node comes last in
the file. Where a shortcut waits for its branch, it matters which of them goes first: the input of both stays in memory
until the other has read it (x3d_m: 32 MB beside its widest values in place of 8). This module looks for the better
choice, node by node, and writes the file in the order that makes ONNX Runtime follow it. Numbers stay what they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

__all__ = ["Flow", "flow_of", "improved", "reorder"]

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
_LIKE_INPUT = frozenset({"Add", "Mul", "Sub", "Sigmoid", "Relu", "QuickGelu", "HardSigmoid", "HardSwish", "Clip"})
_LIKE_INPUT |= {"Tanh", "ReorderInput", "Softmax", "Elu", "LeakyRelu", "Gelu"}
_MOST_NODES, _MOST_TRIALS, _INPUTS = 3000, 1500, 4
"""Nodes of a graph, choices that are tried and inputs of a node that are looked at: a second or two, a few at worst."""


@dataclass
class Flow:
    """What matters of a graph here: nodes by their place in the file.

    Attributes:
        inputs: for each node the nodes whose results it reads, each once.
        sizes: bytes of each node's results; 0 where they are views.
        holds: for each node the nodes whose memory it reads: those behind views instead of the views.
        ends: nodes that nobody reads.
        kept: nodes whose memory is a result of the graph.
    """

    inputs: list[list[int]]
    sizes: list[int]
    holds: list[list[int]]
    ends: list[int]
    kept: set[int] = field(default_factory=set)

    def order(self, first: Sequence[Sequence[int]]) -> list[int]:
        """Depth first from the ends, inputs in the given order of each node."""
        done, found = [False] * len(self.inputs), []
        for end in self.ends:
            stack = [(end, False)]
            while stack:
                node, ready = stack.pop()
                if ready:
                    found.append(node)
                    continue
                if done[node]:
                    continue
                done[node] = True
                stack.append((node, True))
                stack += [(source, False) for source in reversed(first[node]) if not done[source]]
        return found

    def weight(self, order: Sequence[int]) -> tuple[int, int]:
        """Most bytes alive at once, and their sum over the nodes."""
        left = [0] * len(self.inputs)
        for node in order:
            for source in self.holds[node]:
                left[source] += 1
        alive = most = total = 0
        for node in order:
            alive += self.sizes[node]
            most, total = max(most, alive), total + alive
            for source in self.holds[node]:
                left[source] -= 1
                if not left[source] and source not in self.kept:
                    alive -= self.sizes[source]
        return most, total


def reorder(model: Path) -> bool:
    """Write the nodes of an ONNX file, whose weights may lie beside it, in a better order; whether there was one."""
    import onnx

    loaded = onnx.load(model, load_external_data=False)
    flow = flow_of(loaded.graph)
    if flow is None:
        return False
    first = improved(flow)
    if first is None:
        return False
    # What is gone for first has to come last among a node's inputs, so the file is written the other way round.
    order = flow.order([list(reversed(inputs)) for inputs in first])
    nodes = [loaded.graph.node[i] for i in order]
    copies = [onnx.NodeProto() for _ in nodes]
    for copy, node in zip(copies, nodes, strict=True):
        copy.CopyFrom(node)
    del loaded.graph.node[:]
    loaded.graph.node.extend(copies)
    model.write_bytes(loaded.SerializeToString())
    return True


def improved(flow: Flow) -> list[list[int]] | None:
    """Which input goes first for each node, or None where nothing is gained over what ONNX Runtime does by itself."""
    first = [sorted(inputs, reverse=True) for inputs in flow.inputs]
    best = start = flow.weight(flow.order(first))
    trials = [(node, place) for node, inputs in enumerate(first) for place in range(1, min(len(inputs), _INPUTS))]
    for node, place in trials[:_MOST_TRIALS]:
        kept = first[node]
        first[node] = [kept[place], *kept[:place], *kept[place + 1 :]]
        weight = flow.weight(flow.order(first))
        if weight < best:
            best = weight
        else:
            first[node] = kept
    return first if best < start else None


def flow_of(graph: GraphProto) -> Flow | None:
    """None where a size is not known, or nodes hold graphs of their own."""
    if not 1 < len(graph.node) <= _MOST_NODES:
        return None
    shapes, targets = _shapes(graph), _targets(graph)
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    views: dict[int, int] = {}
    flow = Flow([], [], [], [])
    for i, node in enumerate(graph.node):
        if (
            any(attribute.type in _GRAPHS for attribute in node.attribute)
            or (sizes := _made(node, shapes, targets)) is None
        ):
            return None
        sources = list(dict.fromkeys(makers[name] for name in node.input if name in makers))
        flow.inputs.append(sources)
        flow.holds.append(list(dict.fromkeys(views.get(source, source) for source in sources)))
        view = node.op_type in _VIEWS and bool(sources)
        if view:
            views[i] = flow.holds[-1][0]
        flow.sizes.append(0 if view else sizes)
    read = {source for sources in flow.inputs for source in sources}
    flow.ends = [i for i in range(len(graph.node)) if i not in read]
    flow.kept = {views.get(makers[out.name], makers[out.name]) for out in graph.output if out.name in makers}
    return flow


_GRAPHS = (5, 10)  # AttributeProto.GRAPH, GRAPHS

Shape = tuple[int, ...]


def _shapes(graph: GraphProto) -> dict[str, Shape]:
    known: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            known[value.name] = tuple(dim.dim_value for dim in dims)
    return known


def _targets(graph: GraphProto) -> dict[str, Shape]:
    """Small whole numbers that lie within the file: the shapes that nodes are told."""
    import onnx

    inside = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT64 and not t.external_data]
    return {t.name: tuple(onnx.numpy_helper.to_array(t).ravel().tolist()) for t in inside if math.prod(t.dims) <= _RANK}


def _made(node: NodeProto, shapes: dict[str, Shape], targets: Mapping[str, Shape]) -> int | None:
    """Bytes of a node's results (four each element: an engine's values are floats); remembers shapes it works out."""
    total = 0
    for place, name in enumerate(node.output):
        if not name:
            continue
        if name not in shapes:
            shape = _worked_out(node, shapes, targets) if place == 0 else None
            if shape is None:
                return None
            shapes[name] = shape
        total += 4 * math.prod(shapes[name])
    return total


def _worked_out(node: NodeProto, shapes: Mapping[str, Shape], targets: Mapping[str, Shape]) -> Shape | None:
    """The shape of what only ONNX Runtime knows: its blocked layout has as many channels as fill whole blocks."""
    given = [shapes.get(name) for name in node.input]
    x = given[0] if given else None
    if node.op_type in _LIKE_INPUT:
        found = [shape for shape in given if shape is not None]
        return max(found, key=math.prod) if len(found) == len(given) and found else None
    values: dict[str, Any] = {a.name: list(a.ints) or a.i for a in node.attribute}
    if x is None:
        return None
    if node.op_type == "Transpose" and sorted(values.get("perm", ())) == list(range(len(x))):
        return tuple(x[axis] for axis in values["perm"])
    if node.op_type == "Reshape":
        return _reshaped(x, targets.get(node.input[1]))
    if len(x) != _PLANE:
        return None
    if node.op_type == "ReorderOutput":
        known = "channels" in values and not values.get("channels_last")
        return (x[0], int(values["channels"]), *x[2:]) if known else None
    if node.op_type == "GlobalAveragePool":
        return (*x[:2], 1, 1)
    if node.op_type in ("Conv", "FusedConv", "MaxPool", "AveragePool"):
        w = given[1] if node.op_type.endswith("Conv") and len(given) > 1 else None
        if node.op_type.endswith("Conv") and (w is None or len(w) != _PLANE):
            return None
        kernel = values.get("kernel_shape") or list(w[2:] if w else ())
        pads, ones = values.get("pads") or [0] * 4, [1, 1]
        strides, dilations = values.get("strides") or ones, values.get("dilations") or ones
        automatic = any(a.name == "auto_pad" and a.s not in (b"", b"NOTSET") for a in node.attribute)
        if len(kernel) != len(ones) or values.get("ceil_mode") or automatic:
            return None
        places = [
            (size + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
            for i, size in enumerate(x[2:])
        ]
        return (x[0], w[0] if w else x[1], *places)
    return None


def _reshaped(x: Shape, target: Shape | None) -> Shape | None:
    """0 keeps a size, −1 is what is left over."""
    if target is None or any(not size and place >= len(x) for place, size in enumerate(target)):
        return None
    sizes = [size or x[place] for place, size in enumerate(target)]
    known = math.prod(size for size in sizes if size > 0)
    found = tuple(size if size > 0 else math.prod(x) // max(1, known) for size in sizes)
    return found if math.prod(found) == math.prod(x) else None


_PLANE, _RANK = 4, 8
