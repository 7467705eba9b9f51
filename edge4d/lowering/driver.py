"""Interprets a captured graph once on packed values, and proves the promise on the result."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils import _pytree as pytree

from edge4d.capture import Captured, layer_of, source_line
from edge4d.errors import InternalError, LoweringError
from edge4d.layer_values import LayerValue
from edge4d.lowering.assembling import assemble, prove
from edge4d.lowering.boundaries import Marks, mark_layers
from edge4d.lowering.builder import Builder, Declined, Provenance
from edge4d.lowering.captured_results import data_dependent, is_arithmetic, shapes_of
from edge4d.lowering.filling import FILLED, fill_channels
from edge4d.lowering.fold import fold_batch_norm
from edge4d.lowering.gathering import without_masks
from edge4d.lowering.joins import activations_before_joins
from edge4d.lowering.picks import CHECKS, select_by_tensors
from edge4d.lowering.registry import Decline
from edge4d.lowering.sums import later_first
from edge4d.lowering.taking import Fold, take_in
from edge4d.lowering.values import Const, Value
from edge4d.packing import MAX_RANK, Packing
from edge4d.patterns import frames_pattern
from edge4d.planning import LayerPlan, Planner
from edge4d.ports import Port

__all__ = ["Interpretation", "interpret"]

aten = torch.ops.aten

_MOVES = {
    aten.slice.Tensor,
    aten.constant_pad_nd.default,
    aten.cat.default,
    aten.permute.default,
    aten.index_select.default,
}
"""Calls that only move data; a reshape of ours never does."""


@dataclass
class Interpretation:
    """What one pass over the graph gave.

    Attributes:
        module: the new graph on packed tensors; None when something was declined.
        inputs, outputs: the graph's ports, logical and physical.
        layers: what every operator that touches more than four axes became, or why it was declined.
        folded: batch norms taken up by convolutions.
        operators: calls in the captured graph, of any rank.
        values: which nodes of the new graph hold the outputs of the source's modules.
        plain: results of the model that are no tensors (None, numbers, texts), by their place among all; no outputs.
    """

    module: fx.GraphModule | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    layers: tuple[LayerPlan, ...]
    folded: int
    operators: int
    values: tuple[LayerValue, ...] = ()
    plain: Mapping[int, Any] = field(default_factory=dict)

    @property
    def declined(self) -> list[LayerPlan]:
        """Operators without a way to rank 4."""
        return [layer for layer in self.layers if layer.becomes is None]


def interpret(
    captured: Captured,
    *,
    planner: Planner | None = None,
    progress: Callable[[int, int], None] | None = None,
    fold: Fold = "all",
) -> Interpretation:
    """Lower every node. Declined nodes are collected, not raised, so that all of them can be reported at once.

    Args:
        captured: changed in place.
        planner, progress: as in `edge4d.lower`.
        fold: how much of the inputs' normalisation may move into the weights behind it.

    Raises:
        UsageError: what the planner is asked for fits no layer.
    """
    select_by_tensors(captured.graph)
    mark_layers(captured.graph)
    folded = fold_batch_norm(captured)
    take_in(captured, fold)
    if planner is None or (planner.blocked and planner.precision != "int8"):  # kernels of zeros have no scale
        fill_channels(captured)
    found = _Interpreter(captured, folded, planner, progress).run()
    if planner is not None:
        planner.check_used(layer.layer for layer in found.layers if layer.macs)
    return found


class _Interpreter:
    def __init__(
        self,
        captured: Captured,
        folded: int,
        planner: Planner | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.captured = captured
        self.folded = folded
        self.blocked = planner is None or planner.blocked
        self.progress = progress
        self.b = Builder(FakeTensorMode(allow_non_fake_inputs=True), planner)
        self.env: dict[fx.Node, Any] = {}
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self.layers: list[LayerPlan] = []
        self.values: list[LayerValue] = []
        self.plain: dict[int, Any] = {}

    def run(self) -> Interpretation:
        nodes = list(self.captured.graph.nodes)
        by_name = {node.name: node for node in nodes if node.op == "placeholder"}
        for placeholder in self.captured.inputs:
            self._input(by_name[placeholder], placeholder)
        for done, node in enumerate(nodes):
            if self.progress is not None:
                self.progress(done, len(nodes))
            if node.op == "placeholder":
                if node.name in self.captured.constants:
                    self.env[node] = self.captured.constants[node.name]
                else:
                    self.env.setdefault(node, node.meta.get("val"))
            elif node.op == "output":
                self._output(node)
            elif node.op == "call_function":
                self.env[node] = self._call(node)
                self._remember(node)
            elif (
                node.op == "get_attr"
            ):  # the branches of torch.cond and the like, which are refused where they are called
                self.env[node] = None
            else:
                raise InternalError(f"captured graph holds a {node.op} node {node.name!r}")
        module = None
        values: tuple[LayerValue, ...] = ()
        if all(layer.becomes is not None for layer in self.layers):
            self.b.graph.eliminate_dead_code()
            if self.b.channels_last and activations_before_joins(self.b.graph):
                self.b.graph.eliminate_dead_code()
            if self.blocked:
                later_first(self.b.graph)
            module = assemble(self.b)
            prove(module)
            alive = {node.name for node in module.graph.nodes}
            values = tuple(value for value in self.values if value.value in alive)
        operators = sum(node.op == "call_function" and node.target is not operator.getitem for node in nodes)
        return Interpretation(
            module,
            tuple(self.inputs),
            tuple(self.outputs),
            tuple(self.layers),
            self.folded,
            operators,
            values,
            self.plain,
        )

    def _remember(self, node: fx.Node) -> None:
        """Where the output of a module now lies; one that is constant, or an input seen otherwise, is left out."""
        value, marks = self.env[node], Marks(node)
        if FILLED in node.meta:  # its channels are not those of the source
            return
        if isinstance(value, Value) and value.node.op == "call_function":
            for layer in marks.layers:
                self.values.append(LayerValue.of(layer, value.node.name, value.packing, marks.folded))

    def _input(self, node: fx.Node, name: str) -> None:
        val = node.meta["val"]
        shape = tuple(int(size) for size in val.shape)
        intake = self.captured.intakes.get(name)
        last = intake is not None and intake.last
        packing = Packing.of(shape) if last else Packing.frames(shape)
        fresh = self.b.placeholder(name, packing.physical_shape, val.dtype)
        self.env[node] = self.b.value(fresh, packing)
        port = replace(_port(name, shape, packing, val.dtype), intake=intake)
        if intake is not None and last:
            port = replace(port, packing=intake.pattern(len(shape)))
        self.inputs.append(port)

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            return self._item(node)
        if node.target in CHECKS:
            return None
        args, kwargs = pytree.tree_map_only(fx.Node, self.env.__getitem__, (node.args, node.kwargs))
        leaves = pytree.tree_leaves((args, kwargs))
        if any(leaf is _UNKNOWN for leaf in leaves):
            return _UNKNOWN
        if node.target is aten.sym_size.int:
            return args[0].shape[args[1]]
        result = node.meta.get("val")
        where = Provenance(layer_of(node), source_line(node), str(node.target))
        self.b.at = where
        before = len(self.b.graph.nodes)
        try:
            if not isinstance(node.target, OpOverload):
                if (
                    callable(node.target)
                    and is_arithmetic(node.target)
                    and not any(isinstance(leaf, Value | Const) for leaf in leaves)
                ):
                    return node.target(*args, **kwargs)
                raise Declined(
                    str(node.target),
                    Decline(
                        "control flow inside the graph",
                        "compute both branches and choose by torch.where; write a loop out for a fixed number of steps",
                    ),
                )
            if not any(isinstance(leaf, Value) for leaf in leaves):
                return self.b.lower(node.target, *args, **kwargs)
            if data_dependent(result):
                # a size that constants decide is known by now; one that the input decides stays unknown
                if node.target is aten.index.Tensor:
                    args = (args[0], without_masks(args[1]))
                result = self._known_shapes(node.target, args, kwargs)
            picked = [user.args[1] for user in node.users if user.target is operator.getitem]
            used = frozenset(index for index in picked if isinstance(index, int))
            lowered = self.b.dispatch(node.target, args, kwargs, result, used)
        except Declined as declined:
            self._declined(node, declined)
            if data_dependent(result):
                return _UNKNOWN
            return pytree.tree_map_only(torch.Tensor, self._hole, result)
        fresh = islice(reversed(self.b.graph.nodes), len(self.b.graph.nodes) - before)
        self._note(node, list(fresh))
        return lowered

    def _known_shapes(self, op: OpOverload, args: Any, kwargs: Any) -> Any:
        """The result's shapes from operands whose shapes are known, where the operator's shape follows from those."""
        try:
            return self.b.logical_result(op, args, kwargs)
        except DataDependentOutputException:
            reason = "a number is read from a tensor that depends on the input"
            raise Declined(
                str(op), Decline(reason, "leave .item() out: a tensor of one number does the same")
            ) from None
        except DynamicOutputShapeException:
            reason = "the shape of its result depends on the values of the input"
            raise Declined(str(op), Decline(reason, "keep the shape: use torch.where, or top-k of a fixed k")) from None

    def _item(self, node: fx.Node) -> Any:
        source, index = node.args
        assert isinstance(source, fx.Node)
        if self.env[source] is _UNKNOWN:
            return _UNKNOWN
        item = self.env[source][index]
        if item is None:
            op = str(source.target)
            self._declined(node, Declined(op, Decline(f"result {index} of {op} is used", "use only its first result")))
            return self._hole(node.meta["val"])
        return item

    def _hole(self, val: torch.Tensor) -> Value:
        """Stands in for a declined result, so that what follows is looked at too."""
        packing = Packing.frames(tuple(val.shape))
        return self.b.value(self.b.placeholder("declined", packing.physical_shape, val.dtype), packing)

    def _note(self, node: fx.Node, fresh: list[fx.Node]) -> None:
        emitted, moves = len(fresh), sum(made.target in _MOVES for made in fresh)
        shapes = shapes_of(node)
        fed = [tuple(n.meta["val"].shape) for n in node.all_input_nodes if hasattr(n.meta.get("val"), "shape")]
        if max((len(shape) for shape in [*shapes, *fed]), default=0) <= MAX_RANK:
            return
        formulation, macs, weighed, measured = self.b.take_plan()
        becomes = formulation or (
            "packing only" if emitted == 0 else f"{emitted} {'call' if emitted == 1 else 'calls'} of rank ≤ {MAX_RANK}"
        )
        at, shape, filled = self.b.at, shapes[0], None
        if FILLED in node.meta:
            filled, shape = shape[1], (shape[0], node.meta[FILLED], *shape[2:])
        self.layers.append(
            LayerPlan(
                at.layer,
                at.line,
                at.op,
                shape,
                becomes,
                macs=macs,
                nodes=emitted,
                moves=moves,
                estimates=weighed,
                measured=measured,
                filled=filled,
            )
        )

    def _declined(self, node: fx.Node, declined: Declined) -> None:
        shapes = shapes_of(node)
        at, why = self.b.at, declined.decline
        shape = shapes[0] if shapes else ()
        self.layers.append(LayerPlan(at.layer, at.line, declined.op, shape, None, why.reason, why.hint or ""))

    def _output(self, node: fx.Node) -> None:
        self.b.at = Provenance(op="output", rule="output")
        results = []
        for i, leaf in enumerate(pytree.tree_leaves(node.args[0])):
            item = self.env[leaf] if isinstance(leaf, fx.Node) else leaf
            if item is _UNKNOWN:  # what it hangs on has been declined
                continue
            if item is None or isinstance(item, bool | int | float | str):
                self.plain[i] = item
                continue
            if not isinstance(item, Value | Const):
                raise LoweringError(
                    f"output {i} of the model is {item!r}, not a tensor",
                    hint="return tensors only, e.g. wrap the model",
                )
            name = self.captured.outputs[i]
            if 0 in item.shape:
                sizes = "x".join(map(str, item.shape))
                raise LoweringError(
                    f"output {name!r} of the model has no elements (shape {sizes})",
                    hint="leave it out of what forward returns",
                )
            packing = Packing.frames(item.shape)
            results.append(self.b.arrange_as(item, packing))
            self.outputs.append(_port(name, item.shape, packing, item.dtype))
        if not results and len(self.plain) == len(self.captured.outputs):
            raise LoweringError("the model returns no tensor", hint="return what shall be computed")
        self.b.graph.output(tuple(results))


class _Unknown:
    """Stands for what follows from a declined result of unknown shape: nothing more can be said about it."""


_UNKNOWN = _Unknown()


def _port(name: str, shape: Sequence[int], packing: Packing, dtype: torch.dtype) -> Port:
    numpy_name = str(dtype).removeprefix("torch.")
    return Port(name, tuple(shape), packing.physical_shape, numpy_name, frames_pattern(len(shape)))
