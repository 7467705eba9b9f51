"""Every value of a `torch.export` program and its rank, proven by running each operator on shapes alone.

A program records for every value what tracing saw. In a file that is a claim, so each operator is run once more on
fake tensors, which have a shape and no numbers. What agrees is proven, since it holds step by step from the inputs on;
what differs is told, and the result of the run is believed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from edge4d.validators.chains import Trails
from edge4d.validators.findings import Shape, Step, Where
from edge4d.validators.program_axes import three_axis_reason_of
from edge4d.validators.program_calls import Call, call_of
from edge4d.validators.provenance import user_frame

if TYPE_CHECKING:
    from torch.export.graph_signature import InputSpec

__all__ = ["Block", "ProgramFacts", "ProgramValue", "Spot", "ThreeAxisUse", "Weight", "look_at"]

_Key = tuple[int, str]  # what the trails know a node by: identity of its block, its name
_NONE = object()  # that nothing is known about a node, not even whether it gives tensors
_BATCHED = "torch._functorch"  # where the functions live that torch.vmap leaves in a graph


@dataclass(frozen=True, eq=False)
class Block:
    """One graph of the program.

    Attributes:
        path: for people, e.g. ``graph / cond 'cond' / true_graph_0``.
        module: the graph with its subgraphs.
        caller: the node that runs it; None for the main graph.
    """

    path: str
    module: fx.GraphModule
    caller: Spot | None = None


@dataclass(frozen=True, eq=False)
class Spot:
    """A node where it stands."""

    block: Block
    node: fx.Node

    @property
    def op(self) -> str | None:
        """``aten.conv3d.default``; None for an input of a graph."""
        return None if self.node.op == "placeholder" else _target_name(self.node)

    @property
    def source(self) -> tuple[str | None, str | None]:
        """Layer and Python line; of a subgraph that knows none, those of its caller."""
        stack = self.node.meta.get("nn_module_stack") or {}
        paths = [entry[0] for entry in stack.values() if isinstance(entry, tuple) and entry]
        layer = re.sub(r"^L\['self'\]\.?", "", paths[-1]) if paths and isinstance(paths[-1], str) else ""
        line = user_frame(str(self.node.meta.get("stack_trace") or ""))
        caller = self.block.caller
        if caller is not None and not (layer and line):
            outer_layer, outer_line = caller.source
            return layer or outer_layer, line or outer_line
        return layer or None, line or None

    def where(self, value: str | None = None, shape: Shape | None = None) -> Where:
        """The place of a finding."""
        layer, line = self.source
        node = None if self.op is None else self.node.name
        return Where(self.block.path, node, self.op, value, shape, layer, line)


@dataclass(frozen=True)
class ProgramValue:
    """A tensor that some node gives, or an input.

    Attributes:
        spot: its node.
        name: its own.
        shape: its sizes; None when the rank is unknown.
        kind: what it is, e.g. ``graph input``.
        claimed: how many axes the program records, where nothing confirms it or where it is wrong.
        why: of an unknown rank, the reason.
        follows: of an unknown rank, the value of unknown rank that it follows from.
        key: what the trails know it by.
    """

    spot: Spot
    name: str
    shape: Shape | None
    kind: str
    claimed: int | None
    why: str
    follows: str | None
    key: tuple[int, str, str]


@dataclass(frozen=True)
class Weight:
    """A parameter, buffer or constant, used or not.

    Attributes:
        name: as the model calls it, e.g. ``layer1.0.conv1.weight``.
        shape: its sizes.
        kind: ``parameter``, ``buffer`` or ``constant``.
        block: the graph that holds it.
    """

    name: str
    shape: Shape
    kind: str
    block: Block


@dataclass(frozen=True)
class ThreeAxisUse:
    """A node that works on three spatial axes.

    Attributes:
        spot: the node.
        reason: how one sees it.
        name: its first result; None when it has none.
        shape: the sizes of that.
        key: what the trails know it by.
    """

    spot: Spot
    reason: str
    name: str | None
    shape: Shape | None
    key: tuple[int, str]


@dataclass
class ProgramFacts:
    """What there is in a program.

    Attributes:
        values: inputs and results of nodes, in their order.
        weights: parameters, buffers and constants.
        three_axes: nodes that work on three spatial axes.
        broken: graphs that are none, and why; nothing in them was looked at.
        blocks: the main graph and its subgraphs.
        nodes: how many operators there are.
        trails: how the values came about.
    """

    values: list[ProgramValue] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    three_axes: list[ThreeAxisUse] = field(default_factory=list)
    broken: list[tuple[Block, str]] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    nodes: int = 0
    trails: Trails = field(default_factory=Trails)


def look_at(program: torch.export.ExportedProgram) -> ProgramFacts:
    """Look at everything in a program, whose numbers and structure stay as they are.

    Args:
        program: of `torch.export.export`, or read from a file.
    """
    facts = ProgramFacts()
    main = Block("graph", program.graph_module)
    tensors: dict[str, Any] = {**program.state_dict, **program.constants}
    for name, tensor in tensors.items():
        kind = "parameter" if isinstance(tensor, torch.nn.Parameter) else "buffer"
        kind = kind if name in program.state_dict else "constant"
        if isinstance(tensor, torch.Tensor):
            facts.weights.append(Weight(name, _sizes(tensor), kind, main))
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    recorded = (node.meta.get("val") for node in program.graph_module.graph.nodes)
    with torch.no_grad():
        _Walk(facts, specs, tensors, _mode_of(recorded)).graph(main, None)
    return facts


class _Walk:
    """Goes through the graphs, each node after what it needs."""

    def __init__(
        self, facts: ProgramFacts, specs: Mapping[str, InputSpec], tensors: Mapping[str, Any], mode: FakeTensorMode
    ) -> None:
        self.facts, self.specs, self.tensors, self.mode = facts, specs, tensors, mode
        self.results: dict[int, list[_Key]] = {}  # of a block, what the trails know its results by

    def graph(self, block: Block, inputs: Sequence[Any] | None, keys: Sequence[_Key | None] = ()) -> list[Any] | None:
        """Go through one graph.

        Args:
            block: the graph.
            inputs: what its caller gives it; None for the main graph, and where no rule tells.
            keys: what the trails know these by, None for what they do not.

        Returns:
            What it gives back, flat; None when that is not known.
        """
        self.facts.blocks.append(block)
        if (problem := _broken_rule(block.module.graph)) is not None:
            self.facts.broken.append((block, problem))
            return None
        nodes = block.module.graph.nodes
        formals = [node for node in nodes if node.op == "placeholder"]
        same = inputs is not None and len(inputs) == len(formals)
        given = dict(zip(formals, inputs, strict=True)) if inputs is not None and same else {}
        origins = dict(zip(formals, keys, strict=True)) if len(keys) == len(formals) else {}
        env: dict[fx.Node, Any] = {}
        unknown: dict[fx.Node, str] = {}
        names = _names_of_parts(block.module.graph)
        result: list[Any] | None = None
        for node in nodes:
            spot = Spot(block, node)
            if node.op == "placeholder":
                self._input(spot, given.get(node, _NONE), env, unknown, origins.get(node))
            elif node.op == "get_attr":
                self._attribute(spot, env)
            elif node.op == "output":
                leaves = pytree.tree_leaves(fx.node.map_arg(node.args, lambda n: env.get(n, _NONE)))
                result = None if any(leaf is _NONE for leaf in leaves) else leaves
                self.results[id(block)] = [(id(block), source.name) for source in node.all_input_nodes]
            else:
                self._node(spot, env, unknown, names)
        return result

    def _input(
        self, spot: Spot, given: Any, env: dict[fx.Node, Any], unknown: dict[fx.Node, str], origin: _Key | None
    ) -> None:
        node, recorded = spot.node, spot.node.meta.get("val", _NONE)
        if spot.block.caller is not None:
            why = "edge4d has no rule for what its operator gives to a subgraph"
            self._settle(spot, given, env, unknown, {}, kind="subgraph input", why=why, sources=[origin])
            return
        spec = self.specs.get(node.name)
        tensor = self.tensors.get(spec.target) if spec is not None and spec.target is not None else None
        if isinstance(tensor, torch.Tensor):  # a weight, looked at as such; what the node records is held to it
            agrees = isinstance(recorded, torch.Tensor) and recorded.dim() == tensor.dim()
            env[node] = recorded if agrees else self._fake(tensor)
            if isinstance(recorded, torch.Tensor) and not agrees:
                self._add(spot, node.name, _sizes(tensor), "weight", claimed=recorded.dim())
            target = spec.target if spec is not None and spec.target else node.name
            self._trail(spot, target, _sizes(tensor), (), weight=True)
            return
        # The sizes of an input are the contract that the program was made for: there is nothing to hold them to.
        self._settle(spot, recorded, env, unknown, {}, kind="graph input", why="it has no shape")

    def _attribute(self, spot: Spot, env: dict[fx.Node, Any]) -> None:
        node = spot.node
        held: Any = spot.block.module
        for part in str(node.target).split("."):
            held = getattr(held, part)
        if isinstance(held, torch.Tensor):
            env[node] = self._fake(held)
            self.facts.weights.append(Weight(str(node.target), _sizes(held), "constant", spot.block))
            self._trail(spot, str(node.target), _sizes(held), (), weight=True)
        else:
            env[node] = held

    def _fake(self, tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        return self.mode.from_tensor(tensor.detach(), static_shapes=True)

    def _node(self, spot: Spot, env: dict[fx.Node, Any], unknown: dict[fx.Node, str], names: _Names) -> None:
        node = spot.node
        self.facts.nodes += not _is_getitem(node)
        cause = next((unknown[n] for n in node.all_input_nodes if n in unknown), None)
        open_inputs = [n for n in node.all_input_nodes if env.get(n, _NONE) is _NONE]
        if open_inputs:
            self._settle(spot, _NONE, env, unknown, names, cause=cause or open_inputs[0].name)
            self._three_axes(spot, env, names)
            return
        sources: list[_Key] = []
        if any(isinstance(env[n], fx.GraphModule) for n in node.all_input_nodes):
            value, why = self._call(spot, env, sources)
        else:
            value, why = _run(node, env)
        cause = cause if value is _NONE else None
        self._settle(spot, value, env, unknown, names, why=why, cause=cause, sources=sources)
        self._three_axes(spot, env, names)

    def _call(self, spot: Spot, env: dict[fx.Node, Any], sources: list[_Key]) -> tuple[Any, str]:
        """A higher-order operator: its subgraphs are gone through with what it gives them.

        Args:
            spot: its node.
            env: values of the nodes before it.
            sources: gets the keys of what its subgraphs give back.
        """
        node = spot.node
        name = _target_name(node)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: env[n])
        call = call_of(name, args, kwargs)
        if call is None:
            for leaf in pytree.tree_leaves((node.args, node.kwargs)):
                if isinstance(leaf, fx.Node) and isinstance(env[leaf], fx.GraphModule):
                    self.graph(self._inner(spot, leaf, env), None)
            return _NONE, f"{name} is a higher-order operator that edge4d has no rule for"
        made = self._bodies(spot, call, env, sources)
        if any(result is None for result in made):
            return _NONE, "that of what its subgraphs give back is"
        versions = [list(version) for version in call.results([result for result in made if result is not None])]
        if any(_ranks(version) != _ranks(versions[0]) for version in versions[1:]):
            return _NONE, "its subgraphs do not agree on one rank"
        return tuple(versions[0]), ""

    def _bodies(self, spot: Spot, call: Call, env: dict[fx.Node, Any], sources: list[_Key]) -> list[list[Any] | None]:
        made: list[list[Any] | None] = []
        within = torch.autocast(**call.context) if call.context is not None else contextlib.nullcontext()
        for place, inputs in call.bodies:
            leaf = spot.node.args[place]
            if not isinstance(leaf, fx.Node) or not isinstance(env[leaf], fx.GraphModule):
                return [None]
            origins = {id(env[n]): (id(spot.block), n.name) for n in spot.node.all_input_nodes}
            inner = self._inner(spot, leaf, env)
            with within:
                made.append(self.graph(inner, inputs, [origins.get(id(value)) for value in inputs]))
            sources += self.results.get(id(inner), [])
        return made

    def _inner(self, spot: Spot, leaf: fx.Node, env: dict[fx.Node, Any]) -> Block:
        path = f"{spot.block.path} / {_target_name(spot.node)} {spot.node.name!r} / {leaf.target}"
        return Block(path, env[leaf], spot)

    def _settle(
        self,
        spot: Spot,
        made: Any,
        env: dict[fx.Node, Any],
        unknown: dict[fx.Node, str],
        names: _Names,
        *,
        kind: str = "value",
        why: str = "",
        cause: str | None = None,
        sources: Sequence[_Key | None] = (),
    ) -> None:
        """Hold what a node gives against what the program records, and note every tensor in it."""
        node = spot.node
        parents = [key for key in sources if key is not None]
        parents = parents or [(id(spot.block), source.name) for source in node.all_input_nodes]
        recorded = node.meta.get("val", _NONE)
        if _ranks(made) == _ranks(recorded) and made is not _NONE:
            made = recorded  # the same ranks; its sizes have the names that the other nodes use too
        env[node] = recorded if made is _NONE else made
        proven = made is not _NONE
        believed = _leaves(env[node])
        claims = dict(_leaves(recorded)) if recorded is not _NONE else {}
        if not proven and recorded is _NONE:
            unknown[node] = node.name
            self._add(spot, node.name, None, kind, why=why, follows=cause, sources=parents)
        if _is_getitem(node) and proven:  # names a part of what another node gives, which was looked at there
            for path, leaf in believed:
                self._trail(spot, node.name + path, _sizes(leaf), parents)
            return
        for path, leaf in believed:
            name = names.get((node, path), f"{node.name}{path}")
            claim = claims.get(path)
            claimed = claim.dim() if isinstance(claim, torch.Tensor) else None
            hidden = _is_wrapped(leaf)
            if not proven or hidden:
                unknown[node] = name
                reason = "torch.vmap hides an axis of it; `program.run_decompositions()` shows it" if hidden else why
                self._add(spot, name, None, kind, claimed=claimed, why=reason, follows=cause, sources=parents)
            else:
                shape = _sizes(leaf)
                wrong = claimed if recorded is not _NONE and claimed != len(shape) else None
                self._add(spot, name, shape, kind, claimed=wrong, sources=parents)

    def _add(
        self,
        spot: Spot,
        name: str,
        shape: Shape | None,
        kind: str,
        *,
        claimed: int | None = None,
        why: str = "",
        follows: str | None = None,
        sources: Sequence[_Key] = (),
    ) -> None:
        key = (id(spot.block), spot.node.name, name)
        self.facts.values.append(ProgramValue(spot, name, shape, kind, claimed, why, follows, key))
        self._trail(spot, name, shape, sources, key)

    def _trail(
        self,
        spot: Spot,
        name: str,
        shape: Shape | None,
        sources: Sequence[_Key],
        key: object = None,
        *,
        weight: bool = False,
    ) -> None:
        """Note where a value comes from; the node as a whole stands for what it gives first."""
        block = id(spot.block)
        step = Step(name, shape, spot.op if spot.node.op == "call_function" else None, spot.node.name)
        step = step if step.op is not None else Step(name, shape)
        for one in (key, (block, spot.node.name)):
            if one is not None and (one is key or one not in self.facts.trails):
                self.facts.trails.add(one, step, sources, weight=weight)

    def _three_axes(self, spot: Spot, env: Mapping[fx.Node, Any], names: _Names) -> None:
        node = spot.node
        order = [argument.name for argument in _schema(node)]
        given: dict[str, Any] = {**dict(zip(order, node.args, strict=False)), **node.kwargs}
        ranks = {
            name: (env[x].dim() if isinstance(env.get(x), torch.Tensor) else None)
            for name, x in given.items()
            if isinstance(x, fx.Node)
        }
        lengths = {name: len(x) for name, x in given.items() if isinstance(x, (list, tuple))}
        reason = three_axis_reason_of(_plain_name(node), ranks, lengths)
        if reason is not None:
            path, result = next(iter(_leaves(env[node])), ("", None))
            name = None if result is None else names.get((node, path), f"{node.name}{path}")
            shape = None if result is None else _sizes(result)
            self.facts.three_axes.append(ThreeAxisUse(spot, reason, name, shape, (id(spot.block), node.name)))


_Names = Mapping[tuple[fx.Node, str], str]


def _run(node: fx.Node, env: Mapping[fx.Node, Any]) -> tuple[Any, str]:
    """What a node gives when it is run on shapes alone; `_NONE` and the reason when it cannot be."""
    if node.op != "call_function" or not callable(node.target):
        return _NONE, f"{node.op} is no kind of node that an exported program has"
    if str(getattr(node.target, "__module__", "")).startswith(_BATCHED):
        return _NONE, "torch.vmap hides an axis of it; `program.run_decompositions()` shows it"
    changes = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable

    def value(source: fx.Node) -> Any:
        held = env[source]
        return pytree.tree_map_only(torch.Tensor, torch.Tensor.clone, held) if changes else held

    try:
        with _on_shapes(_mode_of(env[n] for n in node.all_input_nodes)):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
            return node.target(*args, **kwargs), ""
    except Exception as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        said = f": {lines[0][:160]}" if lines else ""
        return _NONE, f"running {_target_name(node)} on shapes alone fails ({type(error).__name__}{said})"


def _mode_of(values: Iterable[Any]) -> FakeTensorMode:
    """The mode that these values' fake tensors belong to; a new one where there are none."""
    leaves = (leaf for value in values for leaf in pytree.tree_leaves(value))
    modes = (leaf.fake_mode for leaf in leaves if isinstance(leaf, FakeTensor))
    return next(modes, None) or FakeTensorMode()


@contextlib.contextmanager
def _on_shapes(mode: FakeTensorMode) -> Iterator[None]:
    """Within it operators run on shapes alone, and sizes that depend on data get new names that nobody keeps."""
    fresh = contextlib.nullcontext() if mode.shape_env is None else mode.shape_env.ignore_fresh_unbacked_symbols()
    with mode, fresh:
        yield


def _broken_rule(graph: fx.Graph) -> str | None:
    """Why a graph is none, as far as torch can tell; None when it is one."""
    try:
        graph.lint()
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    return None


def _names_of_parts(graph: fx.Graph) -> dict[tuple[fx.Node, str], str]:
    """What the parts of a result are called: the names of the nodes that take them out."""
    homes: dict[fx.Node, tuple[fx.Node, str]] = {}
    for node in graph.nodes:
        if _is_getitem(node) and isinstance(node.args[0], fx.Node):
            base, path = homes.get(node.args[0], (node.args[0], ""))
            homes[node] = (base, f"{path}[{node.args[1]!r}]")
    names: dict[tuple[fx.Node, str], str] = {}
    for node, home in homes.items():
        names.setdefault(home, node.name)
    return names


def _leaves(value: Any) -> list[tuple[str, torch.Tensor]]:
    """Every tensor within a value, with the path to it: ``""`` for the value itself, ``[1]`` for a part."""
    if value is _NONE:
        return []
    found, _ = pytree.tree_flatten_with_path(value)
    return [(pytree.keystr(path), leaf) for path, leaf in found if isinstance(leaf, torch.Tensor)]


def _ranks(value: Any) -> list[tuple[str, int]] | None:
    return None if value is _NONE else [(path, leaf.dim()) for path, leaf in _leaves(value)]


def _sizes(tensor: torch.Tensor) -> Shape:
    """Sizes; a symbolic one by its name."""
    return tuple(size if isinstance(size, int) else str(size) for size in tensor.shape)


def _is_wrapped(value: torch.Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(value))


def _is_getitem(node: fx.Node) -> bool:
    return node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"


def _target_name(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, (str, torch._ops.OpOverload)):
        return str(target)
    return str(getattr(target, "_name", None) or getattr(target, "__name__", target))


def _plain_name(node: fx.Node) -> str:
    """``conv3d`` of ``aten.conv3d.default``."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.partition("::")[2]
    return _target_name(node)


def _schema(node: fx.Node) -> Sequence[Any]:
    return node.target._schema.arguments if isinstance(node.target, torch._ops.OpOverload) else ()
