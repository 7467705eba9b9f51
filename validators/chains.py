"""How a value came about: the nodes from a graph input to it, with those left out that change no rank."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge4d.validators.findings import Shape, Step
from edge4d.validators.inventory import Inventory, Scope, Site

if TYPE_CHECKING:
    from edge4d.validators.values import Value

__all__ = ["Chains", "Trails"]

_LONGEST = 8  # changes of rank that a chain shows, the last ones
_UNKNOWN = 10**9  # above every known rank


@dataclass(frozen=True)
class _Link:
    """A value and where it comes from.

    Attributes:
        step: how a chain shows it.
        parent: the value that it has its rank from; None for an input.
        start: the first value of the run of equal ranks that it ends.
        length: how many nodes there are from that first value to it.
        root: the first value of all.
        fed: whether an input of the graph goes into it, and not only weights and constants.
    """

    step: Step
    parent: Hashable | None
    start: Hashable
    length: int
    root: Hashable
    fed: bool


class Trails:
    """Answers where values come from, each in a time that does not depend on the size of the graph."""

    def __init__(self) -> None:
        self._links: dict[Hashable, _Link] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._links

    def add(self, key: Hashable, step: Step, sources: Iterable[Hashable] = (), *, weight: bool = False) -> None:
        """Add a value after all that it is made of.

        Args:
            key: what tells it from all others.
            step: its name, shape, operator and node.
            sources: what it is made of. The one of the greatest rank is followed, an unknown rank before every known
                one: that is the one that the result has its rank from, or that keeps it unknown. Of equal ranks
                the one is followed that depends on an input of the graph.
            weight: whether it is a weight.
        """
        known = [source for source in sources if source in self._links]
        parent = max(known, key=self._priority, default=None)
        above = None if parent is None else self._links[parent]
        if above is None:
            self._links[key] = _Link(step, parent, key, 0, key, fed=step.op is None and not weight)
            return
        fed = any(self._links[source].fed for source in known)
        if _height(above.step) == _height(step):
            self._links[key] = _Link(step, parent, above.start, above.length + 1, above.root, fed)
        else:
            self._links[key] = _Link(step, parent, key, 0, above.root, fed)

    def _priority(self, key: Hashable) -> tuple[int, bool]:
        return _height(self._links[key].step), self._links[key].fed

    def of(self, key: Hashable) -> tuple[Step, ...]:
        """The steps from an input, a weight or a constant to the value, it included; empty when it is unheard of."""
        steps: list[Step] = []
        here = self._links.get(key)
        while here is not None:
            start = self._links[here.start]
            if here is not start:
                steps.append(_shown(here.step, max(here.length - 1, 0)))
            steps.append(start.step)
            if len(steps) >= _LONGEST and start.parent is not None:
                root = self._links[here.root].step
                steps.append(Step(root.value, root.shape, cut=True))
                break
            here = None if start.parent is None else self._links[start.parent]
        return tuple(reversed(steps))


def _height(step: Step) -> int:
    return _UNKNOWN if step.shape is None else len(step.shape)


def _shown(step: Step, skipped: int) -> Step:
    return Step(step.value, step.shape, step.op, step.node, skipped)


class Chains:
    """The trails of an ONNX model.

    Args:
        inventory: the model taken apart.
        values: every value that is no weight: its node or scope, its name, what is known about it.
        weights: sizes of the weights by scope and name.
    """

    def __init__(
        self,
        inventory: Inventory,
        values: Iterable[tuple[Site | Scope, str, Sequence[Value]]],
        weights: Mapping[tuple[int, str], Shape],
    ) -> None:
        self._trails = Trails()
        self._shapes: dict[tuple[int, str], Shape | None] = dict(weights)
        for home, name, met in values:
            self._shapes[id(home.scope if isinstance(home, Site) else home), name] = _widest(met)
        for key, shape in weights.items():
            self._trails.add(key, Step(key[1], shape), weight=True)
        for scope in (inventory.main, *inventory.functions.values()):
            self._walk(scope)

    def of(self, home: Site | Scope, name: str) -> tuple[Step, ...]:
        """The steps to a value of a node or a scope (see `Trails.of`)."""
        return self._trails.of((id(home.scope if isinstance(home, Site) else home), name))

    def _walk(self, scope: Scope) -> None:
        for i, name in enumerate(scope.input_names):
            key = (id(scope), name)
            self._trails.add(key, Step(name, self._shapes.get(key)), self._formal(scope, i))
        for site in scope.sites:
            for inner in site.scopes.values():
                self._walk(inner)
            for i, name in enumerate(site.node.output):
                if name:
                    key = (id(scope), name)
                    step = Step(name, self._shapes.get(key), site.op, site.label)
                    self._trails.add(key, step, self._sources(site, i))

    def _sources(self, site: Site, i: int) -> list[Hashable]:
        place = i + 1 if site.node.op_type == "Loop" else i  # a loop's body gives its condition first
        inside: list[Hashable] = []
        for inner in site.scopes.values():
            names = inner.output_names
            inside += self._visible(inner, names[place]) if place < len(names) else []
        # What a subgraph gives back says more than what its node takes in.
        return inside or [key for name in site.node.input for key in self._visible(site.scope, name)]

    def _formal(self, scope: Scope, i: int) -> list[Hashable]:
        """What the body of a Loop or Scan gets from its node."""
        if scope.owner is None or scope.owner[0].node.op_type not in ("Loop", "Scan"):
            return []
        site = scope.owner[0]
        return self._visible(site.scope, site.node.input[i]) if i < len(site.node.input) else []

    def _visible(self, scope: Scope | None, name: str) -> list[Hashable]:
        while name and scope is not None:
            if (id(scope), name) in self._shapes:
                return [(id(scope), name)]
            scope = scope.parent
        return []


def _widest(met: Sequence[Value]) -> Shape | None:
    """Of all that a value is met as, the most axes; unknown before all."""
    if not met or any(not value.settled for value in met):
        return None
    return max((value.shape for value in met if value.shape is not None), key=len, default=None)
