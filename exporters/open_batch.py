"""A graph whose batch is open, from graphs of three fixed batches.

Rules and planner work on fixed sizes, and that keeps them exact. So the network is translated at batch 2, 3 and 5, with
the same formulations. The three graphs must be the same but for integers, and every integer that differs must be
a·N + b. There it is replaced: by -1 where it is one size of a Reshape, else by arithmetic on the size of the input. A
constant that is repeated for each clip, such as a class token, is kept once and tiled; one that counts on from clip to
clip, such as the rows of a grid_sample, is counted. Anything else that depends on the batch (a weight, an attribute,
another node) is refused by name. The outcome is compared with PyTorch at further batches, as any artifact is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge4d.errors import ExportError, UsageError
from edge4d.exporters.layer_outputs import forget_layers
from edge4d.packing import MAX_RANK
from edge4d.ports import OPEN, Port, shape_text

if TYPE_CHECKING:
    import onnx

    from edge4d.exporters.onnx import OnnxGraph
    from edge4d.intake_options import Asked
    from edge4d.lowered import Lowered
    from edge4d.lowering.taking import Fold
    from edge4d.planning import Planner

__all__ = ["SYMBOL", "WITNESSES", "open_batch"]

WITNESSES = (2, 3, 5)
"""Two would tell a and b; the third tells whether a·N + b is what it is."""

SYMBOL = "N"
"""Name of the batch in shapes (`dim_param`)."""

_BATCH = "edge4d/batch"
_WAY_OUT = "export it for one batch (leave --dynamic out), or make the network's forward take any batch"


@dataclass(frozen=True)
class _Affine:
    """Integers a·N + b, of the shape of the tensor that they fill."""

    a: np.ndarray
    b: np.ndarray


@dataclass(frozen=True)
class _Tiled:
    """`block` N times along `axis`, each time `step` more than before: a table of places counts through the clips."""

    block: np.ndarray
    axis: int
    step: int = 0

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray]) -> _Tiled | None:
        """What the arrays of the witnesses are repetitions of; None where they are not."""
        first = arrays[0]
        axes = [
            axis for axis, size in enumerate(first.shape) if any(a.shape[axis : axis + 1] != (size,) for a in arrays)
        ]
        if len({a.ndim for a in arrays}) > 1 or len(axes) != 1 or first.shape[axes[0]] % WITNESSES[0]:
            return None
        (axis,) = axes
        size = first.shape[axis] // WITNESSES[0]
        block = first.take(range(size), axis)
        counts = block.size > 0 and block.dtype == np.int64 and block.ndim < MAX_RANK
        step = int((first.take(size, axis) - block.take(0, axis)).flat[0]) if counts else 0
        for n, array in zip(WITNESSES, arrays, strict=True):
            steps = [block + i * step for i in range(n)] if step else [block] * n
            if not np.array_equal(np.concatenate(steps, axis), array):
                return None
        return cls(block, axis, step)

    @property
    def repeats(self) -> _Affine:
        """What ONNX's Tile is given."""
        a = np.eye(self.block.ndim, dtype=np.int64)[self.axis]
        return _Affine(a, 1 - a)


def open_batch(
    model: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    planner: Planner,
    *,
    opset: int,
    simplify: bool,
    asked: Asked | None = None,
    fold: Fold = "all",
    at: Callable[[tuple[Any, ...]], Any] | None = None,
) -> tuple[Lowered, OnnxGraph, tuple[Port, ...], tuple[Port, ...]]:
    """Lower and translate at the witnesses, and join the graphs.

    Args:
        model: an `nn.Module` (left unchanged), or an `ExportedProgram` whose own batch is open.
        args, kwargs: example inputs; the batch is the first size of the first tensor of two axes or more, and of all
            others that begin with the same size.
        planner: chooses formulations at the first witness; the others follow.
        opset, simplify: as in `to_onnx`.
        asked, fold: as in `edge4d.lower`.
        at: gives the model for arguments of another batch, where it is not the same one (TorchScript, traced anew).

    Returns:
        (lowered at the first witness, the graph, its inputs and outputs). Open sizes in the ports are `OPEN`.

    Raises:
        UsageError: an `ExportedProgram` of one batch, or no input with a batch.
        ExportError: something but an integer depends on the batch, or in another way than a·N + b; says which node.
        CaptureError, LoweringError: as of `edge4d.lower`.
    """
    from edge4d.exporters.onnx import to_onnx
    from edge4d.lowered import lower
    from edge4d.lowering.conv.rules import FORMULATIONS

    module = _any_batch(model)
    lowereds: list[Lowered] = []
    for batch in WITNESSES:
        given, named = _at(batch, args, kwargs)
        network = module if at is None else at(given)
        lowereds.append(lower(network, given, named, planner=planner, asked=asked, fold=fold))
        if len(lowereds) == 1:  # what a layer became at one batch it becomes at all
            chosen = {layer.layer: layer.becomes for layer in lowereds[0].layers if layer.becomes in FORMULATIONS}
            planner = replace(planner, formulations=tuple((k, v) for k, v in chosen.items() if v is not None))
    lowered = lowereds[0]
    graphs = [to_onnx(one, opset=opset, simplify=simplify) for one in lowereds]
    graph = graphs[0]
    forget_layers(graph.proto)  # their shapes are those of one batch
    _check_same(graphs)
    inputs, outputs = (_ports([getattr(one, side) for one in lowereds]) for side in ("inputs", "outputs"))
    for port in outputs:
        if port.packing is not None and port.shape.count(OPEN) > 1:
            raise _refusal(f"more than one axis of output {port.name!r}", f"its shape is {shape_text(port.shape)}")
    varying = _varying(graphs)
    _open_shapes([one.proto for one in graphs])
    for name in varying.keys() & graph.weights.keys():
        del graph.weights[name]
    _Opening(graph.proto, varying).run(inputs, lowered.inputs)
    return lowered, graph, inputs, outputs


def _any_batch(model: Any) -> Any:
    """A module that can be captured at any batch."""
    import torch

    if not isinstance(model, torch.export.ExportedProgram):
        return model
    names = set(model.graph_signature.user_inputs)
    values = [n.meta.get("val") for n in model.graph.nodes if n.op == "placeholder" and n.name in names]
    shaped = [value for value in values if isinstance(value, torch.Tensor) and value.dim() > 1]
    if not shaped or type(shaped[0].shape[0]) is int:
        raise UsageError(
            "--dynamic batch: this torch.export archive is of one batch, which its operators have written into them",
            hint="export it with dynamic_shapes={'x': {0: Dim('batch')}}, or use a state_dict and --factory",
        )
    return model.module(check_guards=False)


def _at(batch: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example inputs at another batch."""
    import torch
    from torch.utils import _pytree as pytree

    leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
    shaped = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim() > 1]
    if not shaped:
        raise UsageError("--dynamic batch: no input has a batch, i.e. two axes or more", hint="leave --dynamic out")
    own = shaped[0].shape[0]

    def resized(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or leaf.dim() < 2 or leaf.shape[0] != own:
            return leaf
        return leaf[:1].expand(batch, *leaf.shape[1:]).contiguous()

    moved: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten([resized(leaf) for leaf in leaves], spec)
    return moved


def _check_same(graphs: Sequence[OnnxGraph]) -> None:
    """The graphs have the same nodes, attributes and weights."""
    first, *others = (list(one.proto.graph.node) for one in graphs)
    for nodes in others:
        if len(nodes) != len(first):
            raise _refusal("the number of operators", f"{len(first)} at batch {WITNESSES[0]}, {len(nodes)} at another")
        for node, other in zip(first, nodes, strict=True):
            if node.op_type != other.op_type or node.input != other.input or node.output != other.output:
                raise _refusal(f"what stands at {node.name!r}", f"{node.op_type} or {other.op_type}")
            if [a.SerializeToString() for a in node.attribute] != [a.SerializeToString() for a in other.attribute]:
                names = [a.name for a, b in zip(node.attribute, other.attribute, strict=False) if a != b]
                raise _refusal(f"an attribute of {node.name!r}", ", ".join(names) or "their number")
    weights, *more = (one.weights for one in graphs)
    for found in more:
        for name in weights.keys() ^ found.keys():
            raise _refusal("a weight", f"{name} is there at one batch only")
        for name, array in weights.items():
            shapes = array.shape, found[name].shape
            if shapes[0] == shapes[1] and array.tobytes() != found[name].tobytes():
                raise _refusal("a weight", f"{name} has other numbers at another batch")


def _varying(graphs: Sequence[OnnxGraph]) -> dict[str, _Affine | _Tiled]:
    """The initializers that depend on the batch."""
    from onnx import numpy_helper

    tables = [{t.name: numpy_helper.to_array(t) for t in one.proto.graph.initializer} for one in graphs]
    for table, one in zip(tables, graphs, strict=True):
        table |= {name: array for name, array in one.weights.items() if array.shape != graphs[0].weights[name].shape}
    for name in tables[1].keys() & graphs[0].weights.keys():
        tables[0][name] = graphs[0].weights[name]
    found: dict[str, _Affine | _Tiled] = {}
    for name in tables[0].keys() | tables[1].keys() | tables[2].keys():
        arrays = [table.get(name) for table in tables]
        first, second, third = arrays
        if first is None or second is None or third is None:
            raise _refusal("a constant", f"{name} is there at one batch only")
        if all(a.shape == first.shape and a.tobytes() == first.tobytes() for a in (second, third)):
            continue
        if len({a.shape for a in (first, second, third)}) > 1 and (tiled := _Tiled.of((first, second, third))):
            found[name] = tiled
            continue
        if first.dtype.kind not in "iu" or len({a.shape for a in (first, second, third)}) > 1:
            raise _refusal("a constant", f"{name} is {first.shape} at batch {WITNESSES[0]}, {second.shape} at another")
        n0, n1, n2 = WITNESSES
        a = (second.astype(np.int64) - first) // (n1 - n0)
        b = first - a * n0
        if not np.array_equal(a * n1 + b, second) or not np.array_equal(a * n2 + b, third):
            raise _refusal("a size", f"{name} is {first.tolist()}, {second.tolist()}, {third.tolist()}: no a·N + b")
        found[name] = _Affine(a, b)
    return found


def _ports(sides: Sequence[Sequence[Port]]) -> tuple[Port, ...]:
    return tuple(
        replace(ports[0], shape=_opened([p.shape for p in ports]), physical=_opened([p.physical for p in ports]))
        for ports in zip(*sides, strict=True)
    )


def _opened(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sizes[0] if len(set(sizes)) == 1 else OPEN for sizes in zip(*shapes, strict=True))


def _open_shapes(protos: Sequence[onnx.ModelProto]) -> None:
    """Sizes in the first graph's inputs, outputs and values that depend on the batch get a name."""
    tables = []
    for proto in protos:
        graph = proto.graph
        tables.append({v.name: v.type.tensor_type.shape.dim for v in (*graph.input, *graph.output, *graph.value_info)})
    for name, dims in tables[0].items():
        if any(name not in table or len(table[name]) != len(dims) for table in tables[1:]):
            continue
        for axis, dim in enumerate(dims):
            sizes = [table[name][axis].dim_value for table in tables]
            if len(set(sizes)) > 1:
                a = (sizes[1] - sizes[0]) // (WITNESSES[1] - WITNESSES[0])
                dim.dim_param = _named(a, sizes[0] - a * WITNESSES[0])


def _named(a: int, b: int) -> str:
    product = SYMBOL if a == 1 else f"{a}*{SYMBOL}"
    return product if b == 0 else f"{product}{b:+d}"


class _Opening:
    """Puts -1 or arithmetic in the place of sizes that depend on the batch."""

    def __init__(self, proto: onnx.ModelProto, varying: dict[str, _Affine | _Tiled]) -> None:
        self.proto = proto
        self.varying = {name: sizes for name, sizes in varying.items() if isinstance(sizes, _Affine)}
        self.tiled = {name: tiled for name, tiled in varying.items() if isinstance(tiled, _Tiled)}
        self.new: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def run(self, inputs: Sequence[Port], at_first: Sequence[Port]) -> None:
        from onnx import numpy_helper

        uses: dict[str, list[tuple[Any, int]]] = {}
        for node in self.proto.graph.node:
            for place, name in enumerate(node.input):
                uses.setdefault(name, []).append((node, place))
        kept = [t for t in self.proto.graph.initializer if t.name not in {*self.varying, *self.tiled}]
        arithmetic: list[str] = []
        for name, sizes in self.varying.items():
            reshapes = all(node.op_type == "Reshape" and place == 1 for node, place in uses.get(name, ()))
            one = sizes.a.ndim == 1 and np.count_nonzero(sizes.a) == 1 and not sizes.b[sizes.a != 0].any()
            if reshapes and one and (sizes.b[sizes.a == 0] > 0).all():
                self.constants[name] = np.where(sizes.a != 0, -1, sizes.b)
            else:
                arithmetic.append(name)
        if arithmetic or self.tiled:
            self._batch(inputs, at_first)
            for name in arithmetic:
                self._compute(name, self.varying[name])
            for name, tiled in self.tiled.items():
                if tiled.step:
                    self._count(name, tiled)
                    continue
                kept.append(numpy_helper.from_array(np.ascontiguousarray(tiled.block), f"{name}/once"))
                self._compute(f"{name}/repeats", tiled.repeats)
                self._node("Tile", [f"{name}/once", f"{name}/repeats"], name)
        kept += [numpy_helper.from_array(array.astype(np.int64), name) for name, array in self.constants.items()]
        nodes = [*self.new, *self.proto.graph.node]
        del self.proto.graph.initializer[:]
        self.proto.graph.initializer.extend(kept)
        nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(nodes)

    def _batch(self, inputs: Sequence[Port], at_first: Sequence[Port]) -> None:
        """N as a tensor of one number, from the first input that has it."""
        port, sized = next((p, q) for p, q in zip(inputs, at_first, strict=True) if OPEN in p.physical)
        axis = port.physical.index(OPEN)
        factor = sized.physical[axis] // WITNESSES[0]
        self._node("Shape", [port.name], f"{_BATCH}/size", start=axis, end=axis + 1)
        self.constants[f"{_BATCH}/factor"] = np.array([factor])
        self._node("Div", [f"{_BATCH}/size", f"{_BATCH}/factor"], _BATCH)

    def _compute(self, name: str, sizes: _Affine) -> None:
        """The initializer `name` as a value: a·N + b."""
        self.constants |= {f"{name}/a": sizes.a.reshape(-1), f"{name}/b": sizes.b.reshape(-1)}
        self._node("Mul", [_BATCH, f"{name}/a"], f"{name}/product")
        scalar = sizes.a.ndim == 0
        self._node("Add", [f"{name}/product", f"{name}/b"], f"{name}/row" if scalar else name)
        if scalar:
            self.constants[f"{name}/axes"] = np.array([0])
            self._node("Squeeze", [f"{name}/row", f"{name}/axes"], name)

    def _count(self, name: str, tiled: _Tiled) -> None:
        """The initializer `name` as a value: the block and N multiples of the step, broadcast, then one axis."""
        before, inside = tiled.block.shape[: tiled.axis], tiled.block.shape[tiled.axis :]
        self.constants |= {
            f"{name}/zero": np.array(0),
            f"{name}/step": np.array(tiled.step),
            f"{name}/column": np.array([-1, *[1] * len(inside)]),
            f"{name}/block": tiled.block.reshape(*before, 1, *inside),
            f"{name}/shape": np.array([*before, -1, *inside[1:]]),
        }
        self._compute(f"{name}/end", _Affine(np.array(tiled.step), np.array(0)))
        self._node("Range", [f"{name}/zero", f"{name}/end", f"{name}/step"], f"{name}/steps")
        self._node("Reshape", [f"{name}/steps", f"{name}/column"], f"{name}/per_clip")
        self._node("Add", [f"{name}/block", f"{name}/per_clip"], f"{name}/table")
        self._node("Reshape", [f"{name}/table", f"{name}/shape"], name)

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.new.append(helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attributes))


def _refusal(what: str, how: str) -> ExportError:
    return ExportError(f"the batch cannot be left open: {what} depends on it ({how})", hint=_WAY_OUT)
