"""What there is in a `torch.export` program: its graphs, values and weights, each with its place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch
from torch import fx

from edge4d.validators.chains import Trails
from edge4d.validators.findings import Shape, Where
from edge4d.validators.provenance import user_frame

__all__ = ["Block", "Key", "ProgramFacts", "ProgramValue", "Spot", "ThreeAxisUse", "Weight", "sizes_of", "target_name"]

Key = tuple[int, str]
"""What the trails know a node by: the identity of its block, its name."""


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
        return None if self.node.op == "placeholder" else target_name(self.node)

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
    key: Key


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


def sizes_of(tensor: torch.Tensor) -> Shape:
    """Sizes; a symbolic one by its name."""
    return tuple(size if isinstance(size, int) else str(size) for size in tensor.shape)


def target_name(node: fx.Node) -> str:
    """``aten.conv3d.default``, ``cond``, ``getitem``."""
    target = node.target
    if isinstance(target, (str, torch._ops.OpOverload)):
        return str(target)
    return str(getattr(target, "_name", None) or getattr(target, "__name__", target))
