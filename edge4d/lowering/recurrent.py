"""LSTM and GRU as one call each: their values have three axes, and every runtime knows them whole.

Unrolled they would be a dozen calls a frame. What ONNX's operators cannot say (LSTM with projections) is unrolled by
PyTorch's own decomposition; `edge4d.capture` asks `is_whole` which of the two it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx

from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Operand, Value
from edge4d.packing import Packing

if TYPE_CHECKING:
    from torch._ops import OpOverload

    from edge4d.lowering.builder import Builder

__all__ = ["is_whole"]

aten = torch.ops.aten


def is_whole(node: fx.Node) -> bool:
    """Whether a call in a captured graph is no LSTM with projections, which ONNX has no operator for."""
    if node.target is not aten.lstm.input:
        return True
    hidden, cell = node.args[1]  # type: ignore[misc, str-unpack]
    return bool(hidden.meta["val"].shape[-1] == cell.meta["val"].shape[-1])  # type: ignore[union-attr]


@dataclass(frozen=True)
class RecurrentSpec:
    """Layers of LSTM or GRU cells over a sequence.

    Attributes:
        op: the overload.
        x: (T, N, features), or (N, T, features) with `batch_first`.
        states: the first hidden state, and the first cell state of an LSTM: (layers · directions, N, hidden) each.
        weights: four or, without biases, two a layer and direction, as torch keeps them.
    """

    op: OpOverload
    x: Operand
    states: tuple[Operand, ...]
    weights: tuple[Operand, ...]
    biases: bool
    layers: int
    bidirectional: bool
    batch_first: bool
    shapes: tuple[tuple[int, ...], ...]


@lowers(aten.lstm.input, aten.gru.input)
class Recurrent:
    """LSTM and GRU, of any number of layers, in one direction or both."""

    def check(self, site: Site) -> RecurrentSpec | Decline:
        dropout, training = site.take("dropout"), site.take("train")
        if dropout and training:
            return Decline("its dropout draws random numbers", "call model.eval() before exporting")
        states = site.take("hx")
        return RecurrentSpec(
            site.op,
            site.take("input"),
            tuple(states) if isinstance(states, Sequence) else (states,),
            tuple(site.take("params")),
            site.take("has_biases"),
            site.take("num_layers"),
            site.take("bidirectional"),
            site.take("batch_first"),
            tuple(tuple(result.shape) for result in site.result),
        )

    def rewrite(self, b: Builder, spec: RecurrentSpec) -> list[Value]:
        x, *states = (_plain(b, operand) for operand in (spec.x, *spec.states))
        weights = [_plain(b, weight) for weight in spec.weights]
        given = states if spec.op is aten.lstm.input else states[0]
        rest = (spec.biases, spec.layers, 0.0, False, spec.bidirectional, spec.batch_first)
        made = b.emit(spec.op, x, given, weights, *rest)
        return [b.value(b.item(made, i), Packing.of(shape)) for i, shape in enumerate(spec.shapes)]


def _plain(b: Builder, x: Operand) -> fx.Node:
    """x with each logical axis as one physical axis, in their order."""
    return b.arrange(x, (x.packing if isinstance(x, Value) else Packing.of(x.shape)).logical)
