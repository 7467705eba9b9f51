"""Follows the outputs of source layers from the lowered graph into the ONNX graph, through the simplifier.

A simplifier may keep a value's name and change what it means: a convolution takes up the bias added after it, and its
output is from then on the sum. Such a value is no layer's output any more and is left out; nothing is guessed.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge4d.layer_values import METADATA_KEY, LayerValue, said_layers

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from edge4d.lowered import Lowered

__all__ = ["LayerOutputs", "forget_layers"]

_TAKE_UP = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Operators into which simplifiers fold what follows, by other weights or one input more."""

Signature = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class LayerOutputs:
    """Layers by the ONNX value that holds their output.

    Attributes:
        values: layers by the value's name.
        signatures: what computed each of them before the simplifier ran.
    """

    values: Mapping[str, list[LayerValue]]
    signatures: Mapping[str, Signature]

    @classmethod
    def of(cls, graph: ir.Graph, provenance: Mapping[str, tuple[str, ...]], lowered: Lowered) -> LayerOutputs:
        """Find the layers' outputs in the graph that torch.onnx made.

        Args:
            graph: weights among its initializers.
            provenance: by value name (node of the lowered graph, …), or () where that is not known.
            lowered: what it was made from.
        """
        given = _results(graph, provenance)
        nodes = {node.name: node for node in lowered.module.graph.nodes}
        weights = set(graph.initializers)
        values: dict[str, list[LayerValue]] = defaultdict(list)
        signatures: dict[str, Signature] = {}
        for layer in lowered.values:
            node, place = nodes[layer.value], 0
            if node.target is operator.getitem:
                node, place = node.args
            found = given.get(node.name, [])
            if len(found) > place and (place or len(found) == 1 or layer.value != node.name):
                value = found[place]
                values[value.name].append(layer)
                signatures[value.name] = _signature(
                    value.producer().op_type,
                    [v.name if v is not None else "" for v in value.producer().inputs],
                    weights,
                )
        return cls(values, signatures)

    def still_in(self, graph: onnx.GraphProto, beside: Collection[str]) -> dict[str, str]:
        """What to write at the nodes that still compute the same, by the name of their output.

        Args:
            graph: simplified.
            beside: names of weights that are held outside it.
        """
        weights = {tensor.name for tensor in graph.initializer}.union(beside)
        found = {}
        for node in graph.node:
            kept = [
                (place, layer.at(name))
                for place, name in enumerate(node.output)
                if self.signatures.get(name) == _signature(node.op_type, list(node.input), weights)
                for layer in self.values[name]
            ]
            for name in node.output:
                if kept and name:
                    found[name] = said_layers(kept)
        return found


def forget_layers(proto: onnx.ModelProto) -> None:
    """Take out what the nodes say about the layers whose outputs they give."""
    for node in proto.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != METADATA_KEY]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def _results(graph: ir.Graph, provenance: Mapping[str, tuple[str, ...]]) -> dict[str, list[Any]]:
    """By lowered node the values that others read, in order of the node's outputs."""
    results: dict[str, list[Any]] = defaultdict(list)
    final = {id(value) for value in graph.outputs}
    for node in graph:
        for value in node.outputs:
            mark = provenance.get(value.name or "", ())
            readers = [provenance.get(reader.outputs[0].name or "", ()) for reader, _ in value.uses()]
            if mark and (id(value) in final or any(reader[:1] != mark[:1] for reader in readers)):
                results[mark[0]].append(value)
    return results


def _signature(op_type: str, inputs: list[str], weights: Collection[str]) -> Signature:
    if op_type not in _TAKE_UP:
        return op_type, ()
    return op_type, tuple(name for name in inputs if name in weights)
