"""Winograd's tiles worked off in parts, in the engine: combined frames of one part make way for those of the next.

    y = W2 · conv(W1 · x)   →   y = concat_p( W2[rows of p, columns of p] · conv(W1[rows of p] · x) )

The graph that edge4d writes holds all tiles of a layer in one call, as few nodes as there can be. On CPUs those
combined frames are the widest values of a network: of r3d_18 49 MiB are alive at once where native Conv3d needs 37. In
four parts it is 40, in pieces that fill each other's places better. Numbers stay what they are: each result is the sum
it was, less the products with zeros of W2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge4d.tile_parts import parts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto

__all__ = ["split_tiles"]

_BY_SAMPLE = frozenset({"Conv", "FusedConv", "ReorderInput", "ReorderOutput", "Relu"})
"""What computes each element of the first axis by itself, from one value and constants."""

Shape = tuple[int, ...]


@dataclass
class _Layer:
    """One layer's chain: MatMul, Reshape, what convolves, Reshape, MatMul.

    Attributes:
        nodes: in order.
        first, last: W1 (1, tiles · groups, T), W2 (1, R, tiles · groups); product j of tile i has place i · groups + j.
        batch: samples.
        tiles: of a sample.
        there, back: what the reshapes give.
    """

    nodes: list[NodeProto]
    first: NDArray[np.float32]
    last: NDArray[np.float32]
    batch: int
    tiles: int
    there: Shape
    back: Shape

    def cuts(self, parts: int) -> list[tuple[slice, slice]] | None:
        """Places and result rows of each part; None where a result needs tiles of two parts."""
        groups = self.first.shape[1] // self.tiles
        bounds = [part * self.tiles // parts * groups for part in range(parts + 1)]
        found, row = [], 0
        for start, stop in pairwise(bounds):
            after = row
            while after < self.last.shape[1] and self.last[0, after, start:stop].any():
                after += 1
            if after == row or self.last[0, row:after, :start].any() or self.last[0, row:after, stop:].any():
                return None
            found.append((slice(start, stop), slice(row, after)))
            row = after
        return found if row == self.last.shape[1] else None


def split_tiles(model: Path) -> int:
    """Rewrite an ONNX file, whose weights may lie beside it; gives how many layers are in parts now."""
    import onnx

    loaded = onnx.load(model, load_external_data=False)
    graph = _Graph(loaded.graph, model.parent)
    for node in loaded.graph.node:
        layer = graph.layer(node)
        if layer is None:
            continue
        parts = parts_of(4 * (math.prod(layer.there) + math.prod(layer.back)), layer.tiles)
        cuts = layer.cuts(parts) if parts > 1 else None
        if cuts is not None:
            graph.replace(layer, cuts)
    if graph.made:
        graph.finish()
        model.write_bytes(loaded.SerializeToString())
    return len(graph.made)


class _Graph:
    """What is asked of a graph, and what comes in the place of its layers."""

    def __init__(self, graph: GraphProto, folder: Path) -> None:
        self.graph, self.folder = graph, folder
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.infos: dict[str, ValueInfoProto] = {info.name: info for info in graph.value_info}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.results = {out.name for out in graph.output}
        self.taken = {name for node in graph.node for name in (node.name, *node.input, *node.output)}
        self.made: dict[str, list[NodeProto]] = {}  # by the result of a layer
        self.gone: set[str] = set()  # the first results of nodes that were replaced

    def layer(self, node: NodeProto) -> _Layer | None:
        """The chain that begins at a node, or None."""
        if node.op_type != "MatMul":
            return None
        nodes = [node]
        while (reader := self._reader(nodes[-1])) is not None:
            nodes.append(reader)
            if reader.op_type == "MatMul":
                break
        kinds = [one.op_type for one in nodes]
        if len(nodes) < _SHORTEST or kinds[1] != "Reshape" or kinds[-2:] != ["Reshape", "MatMul"]:
            return None
        first, last = self._matrix(node.input[0]), self._matrix(nodes[-1].input[0])
        there, back = self._target(nodes[1], 4), self._target(nodes[-2], 3)
        if not set(kinds[2:-2]) <= _BY_SAMPLE or first is None or last is None or there is None or back is None:
            return None
        batch, rows = back[0], first.shape[1]
        tiles = there[0] // batch
        if there[0] % batch or tiles < 2 or rows % tiles or rows != last.shape[2] or rows != back[1]:
            return None
        return _Layer(nodes, first, last, batch, tiles, there, back)

    def replace(self, layer: _Layer, cuts: list[tuple[slice, slice]]) -> None:
        """Note the parts and their join for the place of a chain."""
        from onnx import NodeProto, helper

        groups = layer.first.shape[1] // layer.tiles
        head, tail, ends = layer.nodes[0], layer.nodes[-1], []
        made: list[NodeProto] = []
        for places, rows in cuts:
            count, given = places.stop - places.start, head.input[1]
            samples = layer.batch * count // groups
            for node in layer.nodes:
                copy = NodeProto()
                copy.CopyFrom(node)
                copy.name, copy.output[:] = self._fresh(node.name), [self._fresh(node.output[0])]
                sizes: Shape = (samples,)
                if node is head:
                    sizes = (layer.batch, count)
                    copy.input[0] = self._constant(head.input[0], layer.first[:, places])
                elif node is tail:
                    sizes = (layer.batch, rows.stop - rows.start)
                    copy.input[0] = self._constant(tail.input[0], layer.last[:, rows, places])
                elif node.op_type == "Reshape":
                    back = node is layer.nodes[-2]
                    sizes = (layer.batch, count, layer.back[2]) if back else (samples, *layer.there[1:])
                    copy.input[1] = self._constant(node.input[1], np.array(sizes, np.int64))
                copy.input[1 if node in (head, tail) else 0] = given
                given = copy.output[0]
                self._tell(node.output[0], given, sizes)
                made.append(copy)
            ends.append(given)
        made.append(helper.make_node("Concat", ends, [tail.output[0]], name=self._fresh(tail.name), axis=1))
        self.made[tail.output[0]] = made
        self.gone.update(node.output[0] for node in layer.nodes)

    def finish(self) -> None:
        """Write what was noted into the graph; constants that nobody reads any more go."""
        from onnx import NodeProto

        nodes = []
        for node in self.graph.node:
            name = node.output[0] if node.output else ""
            for one in self.made.get(name, [] if name in self.gone else [node]):
                nodes.append(NodeProto())
                nodes[-1].CopyFrom(one)
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input} | self.results
        for place in reversed(range(len(self.graph.initializer))):
            if self.graph.initializer[place].name not in read:
                del self.graph.initializer[place]
        for place in reversed(range(len(self.graph.value_info))):
            if self.graph.value_info[place].name in self.gone - set(self.made):
                del self.graph.value_info[place]

    def _reader(self, node: NodeProto) -> NodeProto | None:
        """What alone goes on with a node's only result, all its other inputs being constants."""
        name = node.output[0]
        readers = self.readers.get(name, [])
        if len(node.output) != 1 or len(readers) != 1 or name in self.results:
            return None
        others = [other for other in readers[0].input if other and other != name]
        own = 1 if readers[0].op_type == "MatMul" else 0
        fits = readers[0].input[own] == name and all(other in self.constants for other in others)
        return readers[0] if fits else None

    def _matrix(self, name: str) -> NDArray[np.float32] | None:
        """A constant (1, rows, columns), float32."""
        import onnx

        if name not in self.constants:
            return None
        tensor = self.constants[name]
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) != 3 or tensor.dims[0] != 1:
            return None
        return onnx.numpy_helper.to_array(tensor, base_dir=str(self.folder))

    def _target(self, node: NodeProto, rank: int) -> Shape | None:
        """The shape that a Reshape is told, if it is of that rank and plain numbers."""
        from onnx import numpy_helper

        tensor = self.constants.get(node.input[1])
        if tensor is None or tensor.external_data:
            return None
        sizes = tuple(int(size) for size in numpy_helper.to_array(tensor).ravel())
        return sizes if len(sizes) == rank and min(sizes) > 0 else None

    def _constant(self, like: str, array: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = self._fresh(like)
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _tell(self, old: str, new: str, sizes: Shape) -> None:
        """The shape of a part, where that of the whole is known."""
        if old not in self.infos:
            return
        info = self.graph.value_info.add()
        info.CopyFrom(self.infos[old])
        info.name = new
        for dim, size in zip(info.type.tensor_type.shape.dim, sizes, strict=False):
            dim.dim_value = size

    def _fresh(self, name: str) -> str:
        serial = 0
        while (found := f"{name}_part{serial}") in self.taken:
            serial += 1
        self.taken.add(found)
        return found


_SHORTEST = 5
