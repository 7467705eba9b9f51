"""From an ONNX graph to an `OnnxModel`; everything that cannot be imported is refused at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from edge4d.errors import LoadError, LoweringError
from edge4d.loading.onnx.folding import Folded, random
from edge4d.loading.onnx.module import ALIAS, Call, GraphInput, OnnxModel, Step, flat, with_signature
from edge4d.loading.onnx.node import Node, Unsupported, torch_type
from edge4d.loading.onnx.reading import opset_of, read_file, to_array, weight_files
from edge4d.loading.onnx.registry import lookup

if TYPE_CHECKING:
    import onnx

__all__ = ["import_graph", "load_onnx"]

_STANDARD = ("", "ai.onnx")
_SHOWN = 40

_REASONS = {
    ("If", "Loop", "Scan", "SequenceMap"): (
        "control flow inside the graph",
        "export the network with fixed shapes, so that it is unrolled; an If over shapes alone is imported",
    ),
    ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"): (
        "a quantized network",
        "give the float network it was made from, and quantize afterwards with --precision int8",
    ),
    ("DequantizeLinear",): ("a quantized network", "give the float network it was made from"),
    ("NonZero", "Unique", "Compress", "NonMaxSuppression"): (
        "the shape of its result depends on the values of the input",
        "cut the graph before it, e.g. with onnx.utils.extract_model",
    ),
    tuple(random): ("draws random numbers", "export the network in inference mode"),
}


@dataclass(frozen=True)
class _Refused:
    op: str
    name: str
    reason: str
    hint: str

    def __str__(self) -> str:
        return f"  {self.op} at node {self.name!r}: {self.reason}" + (f"; {self.hint}" if self.hint else "")


def load_onnx(path: Path) -> tuple[OnnxModel, tuple[Path, ...]]:
    """The network of an ONNX file, in evaluation mode, and the files that it lies in: its own one first.

    Raises:
        LoadError: the file cannot be read, or its weights lie elsewhere than in its folder.
        LoweringError: it holds operators or attributes that are not imported; the message lists every one of them.
    """
    model = read_file(path)
    return import_graph(model, path), (path, *weight_files(model, path))


def import_graph(model: onnx.ModelProto, path: Path) -> OnnxModel:
    """The same of a model that has been read; `path` is where it came from, also for its files of weights."""
    return _Importing(model, path).run()


class _Importing:
    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self.graph = model.graph
        self.opset = opset_of(model)
        self.path = path
        self.constants: dict[str, np.ndarray[Any, Any]] = {}
        self.known: set[str] = set()  # values that hang on shapes alone
        self.parameters: dict[str, nn.Parameter] = {}
        self.steps: list[Step] = []
        self.children: dict[str, nn.Module] = {}
        self.refused: list[_Refused] = []
        self.used = _used(self.graph)

    def run(self) -> OnnxModel:
        for tensor in self.graph.initializer:
            where = f"{self.path}: the weight {tensor.name!r}"
            self.constants[tensor.name] = to_array(tensor, self.path.parent, where)
        if self.graph.sparse_initializer:
            raise LoadError(f"{self.path}: has sparse weights", hint="make them dense before exporting")
        inputs = [_input(value, self.path) for value in self.graph.input if value.name not in self.constants]
        seen = {port.name for port in inputs} | self.constants.keys()
        self._nodes(self.graph.node, seen)
        if self.refused:
            raise _refusal(self.path, self.refused, len(self.graph.node))
        outputs = [output.name for output in self.graph.output]
        lost = [name for name in outputs if name not in seen]
        if lost or not outputs:
            raise LoadError(f"{self.path}: nothing gives its output {lost[0] if lost else ''!r}")
        needed = {name for step in flat(self.steps) for name in step.inputs} | set(outputs)
        owned = {name for name in self.parameters if not self._in_numpy(name)}
        kept = {name: array for name, array in self.constants.items() if name in needed and name not in owned}
        made = OnnxModel(inputs, outputs, self.steps, kept | dict.fromkeys(owned & needed))  # type: ignore[arg-type]
        for name, child in self.children.items():
            made.add(name, child)
        made.eval()
        return with_signature(made)

    def _nodes(self, nodes: Sequence[onnx.NodeProto], seen: set[str], prefix: str = "") -> None:
        """Import nodes in order; `seen` are the values that there are, `prefix` that of the nodes' names."""
        for proto, plain in zip(nodes, _names(nodes), strict=True):
            name = prefix + plain
            missing = [value for value in proto.input if value and value not in seen]
            if missing:
                raise LoadError(
                    f"{self.path}: node {name!r} takes {missing[0]!r}, which nothing before it gives",
                    hint="the file is damaged; check it with onnx.checker",
                )
            seen.update(proto.output)
            try:
                if proto.op_type == "If" and proto.domain in _STANDARD:
                    self._if(proto, name, seen)
                else:
                    self._node(proto, name)
            except Unsupported as error:
                self.refused.append(_Refused(proto.op_type, name, error.reason, error.hint))

    def _in_numpy(self, name: str) -> bool:
        """Whether a step needs the numbers themselves, or the graph returns them."""
        if any(output.name == name for output in self.graph.output):
            return True
        for step in flat(self.steps):
            if name in step.inputs:
                child = self.children.get(step.name)
                if child is None:
                    return True
                places = [i for i, given in enumerate(step.inputs) if given == name]
                if isinstance(child, Call) and any(i not in child.places for i in places):
                    return True
        return False

    def _if(self, proto: onnx.NodeProto, name: str, seen: set[str]) -> None:
        """An If whose condition is constant, or hangs on shapes alone, as PyTorch writes a squeeze."""
        condition = proto.input[0]
        graphs = {attribute.name: attribute.g for attribute in proto.attribute}
        if condition not in self.constants and condition not in self.known:
            raise _unknown("If")
        if condition in self.constants:
            chosen = "then_branch" if bool(self.constants[condition]) else "else_branch"
            self.known |= set(self._branch(graphs[chosen], f"{name}.{chosen}.", proto.output, seen))
            return
        outer, branches, known = self.steps, [], []
        for chosen in ("then_branch", "else_branch"):
            self.steps = []
            known.append(set(self._branch(graphs[chosen], f"{name}.{chosen}.", proto.output, seen)))
            branches.append(tuple(self.steps))
        self.steps = [*outer, Step(name, "If", (condition,), tuple(proto.output), branches=(branches[0], branches[1]))]
        self.known |= known[0] & known[1]

    def _branch(self, graph: onnx.GraphProto, prefix: str, outputs: Sequence[str], seen: set[str]) -> Iterator[str]:
        """Import the nodes of a branch; yields those of its outputs that hang on shapes alone.

        Its values get names of their own: both branches may use the same ones.
        """
        graph = _prefixed(graph, prefix)
        self.used |= _used(graph)
        for tensor in graph.initializer:
            self.constants[tensor.name] = to_array(tensor, self.path.parent, f"{self.path}: {tensor.name!r}")
            seen.add(tensor.name)
        self._nodes(graph.node, seen, prefix)
        for output, inner in zip(outputs, graph.output, strict=True):
            self.steps.append(Step(f"{prefix}{output}", ALIAS, (inner.name,), (output,)))
            if inner.name in self.constants or inner.name in self.known:
                yield output

    def _node(self, proto: onnx.NodeProto, name: str) -> None:
        if proto.domain not in _STANDARD:
            raise Unsupported(
                f"an operator of the domain {proto.domain}",
                "export the network without the optimisations of a runtime, in ONNX's own operators",
            )
        if proto.op_type == "Constant":
            self.constants[proto.output[0]] = _constant(proto, self.path)
            return
        given = [value for value in proto.input if value]
        shape_only = proto.op_type in ("Shape", "Size")
        importer = lookup(proto.op_type)
        foldable = proto.op_type not in random and not any(a.HasField("g") or a.graphs for a in proto.attribute)
        if foldable and all(value in self.constants for value in given) and (given or importer is None):
            arrays = [self.constants[value] if value else None for value in proto.input]
            results = Folded(proto, self.opset)(*arrays)
            self.constants.update(zip(proto.output, results, strict=False))
            return
        on_shapes = all(value in self.constants or value in self.known for value in given)
        # A weight repeated over the batch is left to PyTorch, which does not write out its copies.
        spread = proto.op_type in ("Expand", "Tile") and given[0] in self.constants
        if foldable and (shape_only or (on_shapes and not spread)):
            self.steps.append(self._step(proto, name, folded=Folded(proto, self.opset)))
            self.known.update(proto.output)
            return
        if importer is None:
            raise _unknown(proto.op_type)
        wanted = max((i + 1 for i, output in enumerate(proto.output) if output in self.used), default=1)
        node = Node(proto, name, self.opset, self.constants, self.parameters, wanted)
        for i in importer.sizes:
            if node.given(i) and proto.input[i] not in self.constants and proto.input[i] not in self.known:
                raise Unsupported(
                    f"its input {_label(proto.op_type, i)} depends on the values of the network's input",
                    "a graph of fixed shapes is needed; make it a constant, or cut the graph there",
                )
        built = importer.build(node)
        if unread := node.unread():
            raise Unsupported(f"the attribute {', '.join(unread)} is not one that {proto.op_type} has in this opset")
        if not isinstance(built, nn.Module):
            kept = {*importer.sizes, *importer.either}
            places = [i for i in range(len(proto.input)) if node.constant(i) is not None and i not in kept]
            labels = {i: _label(proto.op_type, i) for i in places}
            self.children[name] = Call(built, {i: node.parameter(i) for i in places}, frozenset(kept), labels)
            self.steps.append(self._step(proto, name))
        else:
            self.children[name] = built
            self.steps.append(self._step(proto, name, alone=True))

    def _step(self, proto: onnx.NodeProto, name: str, *, folded: Folded | None = None, alone: bool = False) -> Step:
        inputs = proto.input[:1] if alone else proto.input
        return Step(name, proto.op_type, tuple(inputs), tuple(proto.output), folded, alone)


def _unknown(op: str) -> Unsupported:
    for ops, (reason, hint) in _REASONS.items():
        if op in ops:
            return Unsupported(reason, hint)
    return Unsupported(
        "an operator that is not imported", "rewrite it in others, or export the network from PyTorch instead"
    )


def _refusal(path: Path, refused: Sequence[_Refused], total: int) -> LoweringError:
    count = len(refused)
    lines = [str(one) for one in refused[:_SHOWN]]
    if count > _SHOWN:
        rest: dict[str, int] = {}
        for one in refused[_SHOWN:]:
            rest[one.op] = rest.get(one.op, 0) + 1
        lines.append("  and " + ", ".join(f"{times} more {op}" for op, times in rest.items()))
    covered = total - count
    return LoweringError(
        f"{path}: {count} {'node' if count == 1 else 'nodes'} cannot be imported:\n"
        + "\n".join(lines)
        + f"\n  {covered} of the graph's {total} nodes ({100 * covered / total:.1f} %) can",
        hint="change these nodes, or give the PyTorch model that the file was exported from",
    )


def _used(graph: onnx.GraphProto) -> set[str]:
    """Values that a node or an output of the graph, or of one within it, takes."""
    found = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found |= _used(inner) if inner.node or inner.output else set()
    return found


def _prefixed(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """A branch whose own values, and what takes them, have a prefix to their names."""
    copy = type(graph)()
    copy.CopyFrom(graph)
    own = {tensor.name for tensor in copy.initializer} | {name for node in copy.node for name in node.output if name}
    _rename(copy, {name: f"{prefix}{name}" for name in own})
    return copy


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Values of a graph, and of those within it, by their new names; in place."""
    for value in (*graph.initializer, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _rename(inner, names)


def _names(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """A unique path of modules for each node, its own name wherever that can be one."""
    names: list[str] = []
    taken: set[str] = set()
    owners: set[str] = set()  # a node may not lie inside another
    for i, node in enumerate(nodes):
        name = ".".join(part for part in re.sub(r"[^\w./:;@-]", "_", node.name).split(".") if part)
        name = name or f"{node.op_type}_{i}"
        if hasattr(OnnxModel, name.split(".")[0]):
            name = f"node_{name}"
        parents = [name[:at] for at, letter in enumerate(name) if letter == "."]
        if any(parent in taken for parent in parents):
            name, parents = name.replace(".", "_"), []
        plain, again = name, 1
        while name in taken or name in owners:
            name, again = f"{plain}_{again}", again + 1
        if name != plain:
            parents = [name[:at] for at, letter in enumerate(name) if letter == "."]
        names.append(name)
        taken.add(name)
        owners.update(parents)
    return names


def _label(op: str, i: int) -> str:
    """What ONNX calls an input."""
    from onnx import defs

    formal = defs.get_schema(op).inputs if defs.has(op) else []
    name = formal[min(i, len(formal) - 1)].name if formal else "input"
    return f"{name}{i}" if i >= len(formal) or (formal and i >= len(formal) - 1 and _variadic(formal[-1])) else name


def _variadic(formal: Any) -> bool:
    return str(formal.option).endswith("Variadic")


def _input(value: onnx.ValueInfoProto, path: Path) -> GraphInput:
    from edge4d.validators.values import shape_of

    if value.type.WhichOneof("value") != "tensor_type":
        raise LoadError(f"{path}: the input {value.name!r} is no tensor", hint="export a network that takes tensors")
    try:
        dtype = torch_type(value.type.tensor_type.elem_type)
    except Unsupported as error:
        raise LoadError(f"{path}: the input {value.name!r} has {error.reason}") from None
    return GraphInput(value.name, dtype, shape_of(value.type))


def _constant(proto: onnx.NodeProto, path: Path) -> np.ndarray[Any, Any]:
    import onnx

    values = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
    if len(values) != 1:
        raise Unsupported(f"has {len(values)} values, expected one")
    (name, value), *_ = values.items()
    if name == "value":
        return to_array(value, path.parent, f"{path}: the constant {proto.output[0]!r}")
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    if name not in kinds:
        raise Unsupported(f"holds {name}, not a tensor of numbers")
    return np.array(value, dtype=kinds[name])
