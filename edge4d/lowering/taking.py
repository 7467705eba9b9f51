"""Puts what an input goes through before the model into the captured graph: cast, order of axes, normalisation.

A normalised input is ``u * a - b`` by channel. Where every reader is a convolution with known weights, a goes there:

    conv(u * a - b, w) = conv(u, w * a) - sum(w * b)      without zero padding
                       = conv(u - b / a, w * a)           with it: the zeros stand for normalised zeros, and 0 * a = 0

so at most a subtraction is left. Elsewhere it is one multiplication and one subtraction. The cast comes first: TensorRT
takes uint8 for nothing but that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import fx
from torch._ops import OpOverload

from edge4d.lowering.calls import argument
from edge4d.lowering.conv.overloads import OVERLOADS, is_transposed
from edge4d.lowering.values import Const

if TYPE_CHECKING:
    from edge4d.capture import Captured
    from edge4d.intake import Intake, Normalize

__all__ = ["FOLDS", "Fold", "take_in"]

aten = torch.ops.aten

Fold = Literal["all", "scale", "none"]
"""What moves into the weights: all that is exact; only the scale, so that what is quantised lies about 0; nothing,
where the weights would become too small for the type."""

FOLDS: dict[str, Fold] = {"fp32": "all", "int8": "scale", "fp16": "none"}
"""By the precision that the graph is converted to."""


def take_in(captured: Captured, fold: Fold) -> None:
    """Change the inputs in place, in `captured`'s graph and constants.

    Args:
        captured: its batch norms are folded already; its `intakes` say which inputs.
        fold: how much may move into the weights of the first convolutions.
    """
    nodes = {node.name: node for node in captured.graph.nodes if node.op == "placeholder"}
    for name, intake in captured.intakes.items():
        _Taking(captured, nodes[name], intake).run(fold)


def _like(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A tensor that has a shape and a type, and no data."""
    return torch.empty(tuple(shape), dtype=dtype, device="meta")


class _Taking:
    def __init__(self, captured: Captured, node: fx.Node, intake: Intake) -> None:
        self.captured, self.node, self.intake = captured, node, intake
        self.own: torch.Tensor = node.meta["val"]

    def run(self, fold: Fold) -> None:
        readers = list(self.node.users)
        normalize = self.intake.normalize
        shape = self.intake.shape([int(size) for size in self.own.shape])
        self.node.meta["val"] = _like(shape, torch.uint8 if normalize is not None else self.own.dtype)
        after = self.node
        if normalize is not None:
            wide = self.own.dtype if self.own.dtype == torch.float64 else torch.float32
            after = self._call(after, aten._to_copy.default, _like(shape, wide), dtype=wide)
        if self.intake.last:
            rank = len(shape)
            order = [0, rank - 1, *range(1, rank - 1)]
            after = self._call(after, aten.permute.default, _like(self.own.shape, after.meta["val"].dtype), order)
        if normalize is not None:
            after = self._normalised(after, normalize, readers, fold)
            if after.meta["val"].dtype != self.own.dtype:
                own = self.own.dtype
                after = self._call(after, aten._to_copy.default, _like(self.own.shape, own), dtype=own)
        for reader in readers:
            reader.replace_input_with(self.node, after)

    def _normalised(self, x: fx.Node, normalize: Normalize, readers: list[fx.Node], fold: Fold) -> fx.Node:
        a, b = normalize.factors()
        if fold == "none" or self.own.dtype != x.meta["val"].dtype or not self._foldable(readers):
            return self._minus(self._times(x, a), b)
        if fold == "all" and not any(map(self._padded, readers)):
            self._into_weights(readers, a, b)
            return x
        self._into_weights(readers, a, np.zeros_like(b))
        return self._minus(x, b / a)

    def _times(self, x: fx.Node, a: np.ndarray) -> fx.Node:
        return x if (a == 1).all() else self._with(x, aten.mul.Tensor, a, "scale")

    def _minus(self, x: fx.Node, b: np.ndarray) -> fx.Node:
        """A subtraction rather than an addition: that one would be quantised for int8, which frames need not be."""
        return x if (b == 0).all() else self._with(x, aten.sub.Tensor, b, "shift")

    def _with(self, x: fx.Node, op: OpOverload, numbers: np.ndarray, what: str) -> fx.Node:
        dtype = x.meta["val"].dtype
        if (numbers == numbers[0]).all():
            numbers = numbers[:1]
        tensor = torch.from_numpy(numbers.copy()).to(dtype).reshape(-1, *[1] * (self.own.dim() - 2))
        constant = self._constant(Const(tensor, f"{self.node.name}.normalize.{what}"), x)
        return self._call(x, op, _like(self.own.shape, dtype), constant)

    def _call(self, x: fx.Node, op: OpOverload, result: torch.Tensor, *args: Any, **kwargs: Any) -> fx.Node:
        graph = self.captured.graph
        behind = x if not args or not isinstance(args[0], fx.Node) else args[0]
        with graph.inserting_after(behind):
            node = graph.call_function(op, (x, *args), kwargs)
        node.meta["val"] = result
        return node

    def _constant(self, const: Const, behind: fx.Node) -> fx.Node:
        with self.captured.graph.inserting_after(behind):
            node = self.captured.graph.placeholder(const.name.replace(".", "_"))
        self.captured.constants[node.name] = const
        return node

    # ---- into the weights -------------------------------------------------------------------------------------------

    def _foldable(self, readers: Sequence[fx.Node]) -> bool:
        """Whether all that read the input are convolutions of known weights, over its own channels."""
        return bool(readers) and all(self._conv(reader) for reader in readers)

    def _conv(self, reader: fx.Node) -> bool:
        if reader.op != "call_function" or reader.target not in OVERLOADS or reader.args[0] is not self.node:
            return False
        if is_transposed(reader):
            return False
        weight, bias = argument(reader, "weight"), argument(reader, "bias")
        constants = self.captured.constants
        if weight.name not in constants or (bias is not None and bias.name not in constants):
            return False
        return len(constants[weight.name].shape) == self.own.dim()  # without a batch, axis 1 is not the channels

    def _into_weights(self, readers: Sequence[fx.Node], a: np.ndarray, b: np.ndarray) -> None:
        constants = self.captured.constants
        channels = int(self.own.shape[1])
        scale, shift = (torch.from_numpy(np.broadcast_to(f, (channels,)).copy()) for f in (a, b))
        for conv in readers:
            weight, bias = constants[argument(conv, "weight").name], argument(conv, "bias")
            w = weight.tensor.double()
            groups = int(argument(conv, "groups"))
            spread = [f.reshape(groups, 1, -1).expand(groups, w.shape[0] // groups, -1) for f in (scale, shift)]
            by_row = [f.reshape(w.shape[0], -1, *[1] * (w.dim() - 2)) for f in spread]
            made = [Const((w * by_row[0]).to(weight.dtype), weight.name)]
            if bias is not None or bool((shift != 0).any()):
                own = constants[bias.name] if bias is not None else None
                label = own.name if own is not None else f"{weight.name.removesuffix('weight').rstrip('.')}.bias"
                row = (w * by_row[1]).flatten(1).sum(1)
                made.append(Const(((own.tensor.double() if own is not None else 0.0) - row).to(weight.dtype), label))
            nodes = []
            for const, kind in zip(made, ("weight", "bias"), strict=False):
                with self.captured.graph.inserting_before(conv):
                    node = self.captured.graph.placeholder(f"{conv.name}_taking_{kind}")
                constants[node.name] = const
                nodes.append(node)
            rest = conv.args[3:] if len(nodes) == 2 else (None, *conv.args[3:]) if len(conv.args) > 2 else ()
            conv.args = (conv.args[0], *nodes, *rest)
            conv.kwargs = {name: value for name, value in conv.kwargs.items() if name not in ("weight", "bias")}

    def _padded(self, conv: fx.Node) -> bool:
        """Whether a convolution sees zeros beyond the border."""
        padding = argument(conv, "padding")
        if isinstance(padding, str):
            kernel = self.captured.constants[argument(conv, "weight").name].shape[2:]
            return padding != "valid" and any(size > 1 for size in kernel)
        return any(padding) if isinstance(padding, list | tuple) else bool(padding)
