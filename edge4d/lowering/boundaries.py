"""Which nodes of a captured graph give the outputs of the source's modules.

A module call has an output here if exactly one value that was computed inside it is used outside. What returns several
tensors, or computes nothing (dropout in inference), has none; its parts and its neighbours do.
"""

from __future__ import annotations

from collections import defaultdict

from torch import fx

__all__ = ["Marks", "mark_layers", "take_over"]

_LAYERS, _FOLDED = "edge4d_layers", "edge4d_folded"


class Marks:
    """What `mark_layers` left at a node.

    Attributes:
        layers: module calls whose output the node is, the innermost first.
        folded: module calls whose work is in the node and which have no output of their own any more.
    """

    def __init__(self, node: fx.Node) -> None:
        self.layers: tuple[str, ...] = tuple(node.meta.get(_LAYERS, ()))
        self.folded: tuple[str, ...] = tuple(node.meta.get(_FOLDED, ()))


def mark_layers(graph: fx.Graph) -> None:
    """Write at each node of which module calls it is the output: ``PATH``, or ``PATH@1`` for the second call."""
    inside: dict[fx.Node, tuple[str, ...]] = {}
    given: dict[str, dict[fx.Node, None]] = defaultdict(dict)
    for node in graph.nodes:
        if node.op == "call_function":
            inside[node] = _calls(node)
    for node, calls in inside.items():
        for user in node.users:
            theirs = set(inside.get(user, ()))
            for call in calls:
                if call not in theirs:
                    given[call][node] = None
    outputs: dict[fx.Node, list[str]] = defaultdict(list)
    for call, nodes in given.items():
        if len(nodes) == 1:
            outputs[next(iter(nodes))].append(call)
    for node, names in outputs.items():
        node.meta[_LAYERS] = tuple(sorted(names, key=lambda name: inside[node].index(name), reverse=True))


def take_over(node: fx.Node, result: fx.Node) -> None:
    """`node` now computes what `result` did: it gives the outputs that `result` gave, and its own are gone."""
    own, new = Marks(node), Marks(result)
    node.meta[_LAYERS] = new.layers
    node.meta[_FOLDED] = (*own.folded, *own.layers)


def _calls(node: fx.Node) -> tuple[str, ...]:
    """The module calls that a node lies in, outermost first, the model itself left out."""
    calls = []
    for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
        name = str(path).removeprefix("L['self'].").removeprefix("L['self']")
        again = str(key).rpartition("@")[2] if "@" in str(key) else ""
        if name:
            calls.append(f"{name}@{again}" if again.isdigit() else name)
    return tuple(calls)
