"""Every value of a `torch.export` program and its rank, proven by running each operator on shapes alone.

A program records for every value what tracing saw. In a file that is a claim, so each operator is run once more on
fake tensors. What agrees is proven, since it holds step by step from the inputs on; what differs is told, and the
result of the run is believed.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from edge4d.torch_private import is_transformed
from edge4d.validators.findings import Shape, Step
from edge4d.validators.program_axes import three_axis_reason_of
from edge4d.validators.program_calls import Call, call_of
from edge4d.validators.program_facts import (
    Block,
    Key,
    ProgramFacts,
    ProgramValue,
    Spot,
    ThreeAxisUse,
    Weight,
    sizes_of,
    target_name,
)
from edge4d.validators.program_run import HIDDEN, UNSEEN, broken_rule, leaves, mode_of, ranks, run

if TYPE_CHECKING:
    from torch.export.graph_signature import InputSpec

__all__ = ["look_at"]

_Names = Mapping[tuple[fx.Node, str], str]
_PLAIN = (bool, int, float, complex, str, type(None), torch.SymInt, torch.SymFloat, torch.SymBool, torch.dtype,
          torch.device, torch.layout, torch.memory_format)  # fmt: skip


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
            facts.weights.append(Weight(name, sizes_of(tensor), kind, main))
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    recorded = (node.meta.get("val") for node in program.graph_module.graph.nodes)
    with torch.no_grad():
        _Walk(facts, specs, tensors, mode_of(recorded)).graph(main, None)
    return facts


class _Walk:
    """Goes through the graphs, each node after what it needs."""

    def __init__(
        self, facts: ProgramFacts, specs: Mapping[str, InputSpec], tensors: Mapping[str, Any], mode: FakeTensorMode
    ) -> None:
        self.facts, self.specs, self.tensors, self.mode = facts, specs, tensors, mode
        self.results: dict[int, list[Key]] = {}  # of a block, what the trails know its results by

    def graph(self, block: Block, inputs: Sequence[Any] | None, keys: Sequence[Key | None] = ()) -> list[Any] | None:
        """Go through one graph.

        Args:
            block: the graph.
            inputs: what its caller gives it; None for the main graph, and where no rule tells.
            keys: what the trails know these by, None for what they do not.

        Returns:
            What it gives back, flat; None when that is not known.
        """
        self.facts.blocks.append(block)
        if (problem := broken_rule(block.module.graph)) is not None:
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
                self._input(spot, given.get(node, UNSEEN), env, unknown, origins.get(node))
            elif node.op == "get_attr":
                self._attribute(spot, env)
            elif node.op == "output":
                flat = pytree.tree_leaves(fx.node.map_arg(node.args, lambda n: env.get(n, UNSEEN)))
                result = None if any(leaf is UNSEEN for leaf in flat) else flat
                self.results[id(block)] = [(id(block), source.name) for source in node.all_input_nodes]
            else:
                self._node(spot, env, unknown, names)
        return result

    def _input(
        self, spot: Spot, given: Any, env: dict[fx.Node, Any], unknown: dict[fx.Node, str], origin: Key | None
    ) -> None:
        node, recorded = spot.node, spot.node.meta.get("val", UNSEEN)
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
                self._add(spot, node.name, sizes_of(tensor), "weight", claimed=recorded.dim())
            target = spec.target if spec is not None and spec.target else node.name
            self._trail(spot, target, sizes_of(tensor), (), weight=True)
            return
        if recorded is not UNSEEN and not all(
            isinstance(leaf, (torch.Tensor, *_PLAIN)) for leaf in pytree.tree_leaves(recorded)
        ):
            env[node] = recorded
            self._add(spot, node.name, None, "graph input", why="it is an object, and nothing shows what is in it")
            return
        # The sizes of an input are the contract that the program was made for: there is nothing to hold them to.
        self._settle(spot, recorded, env, unknown, {}, kind="graph input", why="it has no shape")

    def _attribute(self, spot: Spot, env: dict[fx.Node, Any]) -> None:
        node = spot.node
        held: Any = spot.block.module
        for part in str(node.target).split("."):
            held = getattr(held, part, UNSEEN)
        if isinstance(held, torch.Tensor):
            env[node] = self._fake(held)
            self.facts.weights.append(Weight(str(node.target), sizes_of(held), "constant", spot.block))
            self._trail(spot, str(node.target), sizes_of(held), (), weight=True)
        else:
            env[node] = held

    def _fake(self, tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        return self.mode.from_tensor(tensor.detach(), static_shapes=True)

    def _node(self, spot: Spot, env: dict[fx.Node, Any], unknown: dict[fx.Node, str], names: _Names) -> None:
        node = spot.node
        self.facts.nodes += node.target is not operator.getitem
        cause = next((unknown[n] for n in node.all_input_nodes if n in unknown), None)
        open_inputs = [n for n in node.all_input_nodes if env.get(n, UNSEEN) is UNSEEN]
        if open_inputs:
            self._settle(spot, UNSEEN, env, unknown, names, cause=cause or open_inputs[0].name)
            self._three_axes(spot, env, names)
            return
        sources: list[Key] = []
        if any(isinstance(env[n], fx.GraphModule) for n in node.all_input_nodes):
            value, why = self._call(spot, env, sources)
        else:
            value, why = run(node, env)
        cause = cause if value is UNSEEN else None
        self._settle(spot, value, env, unknown, names, why=why, cause=cause, sources=sources)
        self._three_axes(spot, env, names)

    def _call(self, spot: Spot, env: dict[fx.Node, Any], sources: list[Key]) -> tuple[Any, str]:
        """A higher-order operator: its subgraphs are gone through with what it gives them.

        Args:
            spot: its node.
            env: values of the nodes before it.
            sources: gets the keys of what its subgraphs give back.
        """
        node = spot.node
        name = target_name(node)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: env[n])
        call = call_of(name, args, kwargs)
        if call is None:
            for leaf in pytree.tree_leaves((node.args, node.kwargs)):
                if isinstance(leaf, fx.Node) and isinstance(env[leaf], fx.GraphModule):
                    self.graph(self._inner(spot, leaf, env), None)
            return UNSEEN, f"{name} is a higher-order operator that edge4d has no rule for"
        made = self._bodies(spot, call, env, sources)
        if any(result is None for result in made):
            return UNSEEN, "that of what its subgraphs give back is"
        versions = [list(version) for version in call.results([result for result in made if result is not None])]
        if any(ranks(version) != ranks(versions[0]) for version in versions[1:]):
            return UNSEEN, "its subgraphs do not agree on one rank"
        return tuple(versions[0]), ""

    def _bodies(self, spot: Spot, call: Call, env: dict[fx.Node, Any], sources: list[Key]) -> list[list[Any] | None]:
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
        path = f"{spot.block.path} / {target_name(spot.node)} {spot.node.name!r} / {leaf.target}"
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
        sources: Sequence[Key | None] = (),
    ) -> None:
        """Hold what a node gives against what the program records, and note every tensor in it."""
        node = spot.node
        parents = [key for key in sources if key is not None]
        parents = parents or [(id(spot.block), source.name) for source in node.all_input_nodes]
        recorded = node.meta.get("val", UNSEEN)
        if ranks(made) == ranks(recorded) and made is not UNSEEN:
            made = recorded  # the same ranks; its sizes have the names that the other nodes use too
        env[node] = recorded if made is UNSEEN else made
        proven = made is not UNSEEN
        believed = leaves(env[node])
        claims = dict(leaves(recorded)) if recorded is not UNSEEN else {}
        if not proven and recorded is UNSEEN:
            unknown[node] = node.name
            self._add(spot, node.name, None, kind, why=why, follows=cause, sources=parents)
        if proven and _is_part(node, env):  # names a part of what another node gives, which was looked at there
            for path, leaf in believed:
                self._trail(spot, node.name + path, sizes_of(leaf), parents)
            return
        for path, leaf in believed:
            name = names.get((node, path), f"{node.name}{path}")
            claim = claims.get(path)
            claimed = claim.dim() if isinstance(claim, torch.Tensor) else None
            hidden = is_transformed(leaf)
            if not proven or hidden:
                unknown[node] = name
                reason = HIDDEN if hidden else why
                self._add(spot, name, None, kind, claimed=claimed, why=reason, follows=cause, sources=parents)
            else:
                shape = sizes_of(leaf)
                wrong = claimed if recorded is not UNSEEN and claimed != len(shape) else None
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
        sources: Sequence[Key] = (),
    ) -> None:
        key = (id(spot.block), spot.node.name, name)
        self.facts.values.append(ProgramValue(spot, name, shape, kind, claimed, why, follows, key))
        self._trail(spot, name, shape, sources, key)

    def _trail(
        self,
        spot: Spot,
        name: str,
        shape: Shape | None,
        sources: Sequence[Key],
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
        known = {
            name: (env[x].dim() if isinstance(env.get(x), torch.Tensor) else None)
            for name, x in given.items()
            if isinstance(x, fx.Node)
        }
        lengths = {name: len(x) for name, x in given.items() if isinstance(x, (list, tuple))}
        reason = three_axis_reason_of(_plain_name(node), known, lengths)
        if reason is not None:
            path, result = next(iter(leaves(env[node])), ("", None))
            name = None if result is None else names.get((node, path), f"{node.name}{path}")
            shape = None if result is None else sizes_of(result)
            self.facts.three_axes.append(ThreeAxisUse(spot, reason, name, shape, (id(spot.block), node.name)))


def _names_of_parts(graph: fx.Graph) -> dict[tuple[fx.Node, str], str]:
    """What the parts of a result are called: the names of the nodes that take them out."""
    homes: dict[fx.Node, tuple[fx.Node, str]] = {}
    for node in graph.nodes:
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
            base, path = homes.get(node.args[0], (node.args[0], ""))
            homes[node] = (base, f"{path}[{node.args[1]!r}]")
    names: dict[tuple[fx.Node, str], str] = {}
    for node, home in homes.items():
        names.setdefault(home, node.name)
    return names


def _is_part(node: fx.Node, env: Mapping[fx.Node, Any]) -> bool:
    """Whether a node takes a part out of what another gives; of a tensor it would make a new one."""
    whole = env.get(node.args[0]) if node.target is operator.getitem and isinstance(node.args[0], fx.Node) else None
    return isinstance(whole, (tuple, list, dict))


def _plain_name(node: fx.Node) -> str:
    """``conv3d`` of ``aten.conv3d.default``."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.partition("::")[2]
    return target_name(node)


def _schema(node: fx.Node) -> Sequence[Any]:
    return node.target._schema.arguments if isinstance(node.target, torch._ops.OpOverload) else ()
