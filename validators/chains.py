"""How a value came about: the nodes from a graph input to it, with those left out that change no rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from edge4d.validators.findings import Shape, Step
from edge4d.validators.inventory import Inventory, Scope, Site

if TYPE_CHECKING:
    from edge4d.validators.values import Value

__all__ = ["Chains"]

_Key = tuple[int, str]
"""A value: (identity of its scope, its name)."""

_LONGEST = 8  # changes of rank that a chain shows, the last ones
_UNKNOWN = 10**9  # the weight of an unknown rank


class Chains:
    """Answers where values come from, each in a time that does not depend on the size of the graph.

    Of a node's inputs the one of the greatest rank is followed, an unknown rank before every known one: that is the
    one that the result has its rank from, or that keeps it unknown.

    Args:
        inventory: the model taken apart.
        values: every value that is no weight: its node or scope, its name, what is known about it.
        weights: sizes of the weights by scope and name.
    """

    def __init__(
        self,
        inventory: Inventory,
        values: Iterable[tuple[Site | Scope, str, Sequence[Value]]],
        weights: Mapping[_Key, Shape],
    ) -> None:
        self._shapes: dict[_Key, Shape | None] = dict(weights)
        self._sites: dict[_Key, Site] = {}
        self._parents: dict[_Key, _Key | None] = {}
        self._starts: dict[_Key, _Key] = {}  # the first value of the run of equal ranks that a value ends
        self._lengths: dict[_Key, int] = {}  # how many nodes there are from that first value to it
        self._roots: dict[_Key, _Key] = {}
        for home, name, met in values:
            self._shapes[id(home.scope if isinstance(home, Site) else home), name] = _widest(met)
        for scope in (inventory.main, *inventory.functions.values()):
            self._walk(scope)

    def _walk(self, scope: Scope) -> None:
        for i, name in enumerate(scope.input_names):
            self._link((id(scope), name), self._formal(scope, i))
        for site in scope.sites:
            for inner in site.scopes.values():
                self._walk(inner)
            for i, name in enumerate(site.node.output):
                if name:
                    self._sites[id(scope), name] = site
                    self._link((id(scope), name), self._parent(site, i))

    def of(self, home: Site | Scope, name: str) -> tuple[Step, ...]:
        """The steps from an input, a weight or a constant to the value, it included; empty when it is unheard of."""
        key: _Key | None = (id(home.scope if isinstance(home, Site) else home), name)
        steps: list[Step] = []
        last = key
        while key is not None and key in self._starts:
            start = self._starts[key]
            if key != start:
                steps.append(self._step(key, max(self._lengths[key] - 1, 0)))
            steps.append(self._step(start, 0))
            last, key = start, self._parents[start]
            if len(steps) >= _LONGEST and key is not None:
                break
        if key is not None and key in self._starts:
            steps.append(self._step(self._roots[key], 0, cut=True))
        elif key is not None and key != last:
            steps.append(self._step(key, 0))
        return tuple(reversed(steps))

    def _link(self, key: _Key, parent: _Key | None) -> None:
        self._parents[key] = parent
        self._roots[key] = key if parent is None else self._roots.get(parent, parent)
        same = parent in self._starts and self._rank(key) == self._rank(parent) if parent is not None else False
        self._starts[key] = self._starts[parent] if same and parent is not None else key
        self._lengths[key] = self._lengths[parent] + 1 if same and parent is not None else 0

    def _parent(self, site: Site, i: int) -> _Key | None:
        candidates: list[_Key | None] = []
        place = i + 1 if site.node.op_type == "Loop" else i  # a loop's body gives its condition first
        for inner in site.scopes.values():
            names = inner.output_names
            candidates += [self._visible(inner, names[place])] if place < len(names) else []
        # What a subgraph gives back says more than what its node takes in.
        candidates = candidates or [self._visible(site.scope, name) for name in site.node.input]
        best: tuple[int, _Key] | None = None
        for key in candidates:
            if key is None or (key not in self._starts and key in self._sites):  # made later: no valid graph
                continue
            rank = self._rank(key)
            weight = _UNKNOWN if rank is None else rank
            if best is None or weight > best[0]:
                best = (weight, key)
        return None if best is None else best[1]

    def _formal(self, scope: Scope, i: int) -> _Key | None:
        """What the body of a Loop or Scan gets from its node."""
        if scope.owner is None or scope.owner[0].node.op_type not in ("Loop", "Scan"):
            return None
        site = scope.owner[0]
        return self._visible(site.scope, site.node.input[i]) if i < len(site.node.input) else None

    def _visible(self, scope: Scope | None, name: str) -> _Key | None:
        while name and scope is not None:
            if (id(scope), name) in self._shapes:
                return id(scope), name
            scope = scope.parent
        return None

    def _rank(self, key: _Key | None) -> int | None:
        shape = self._shapes.get(key) if key is not None else None
        return None if shape is None else len(shape)

    def _step(self, key: _Key, skipped: int, *, cut: bool = False) -> Step:
        site = self._sites.get(key)
        op, node = (None, None) if site is None or cut else (site.op, site.label)
        return Step(key[1], self._shapes.get(key), op, node, skipped, cut)


def _widest(met: Sequence[Value]) -> Shape | None:
    """Of all that a value is met as, the most axes; unknown before all."""
    if not met or any(not value.settled for value in met):
        return None
    return max((value.shape for value in met if value.shape is not None), key=len, default=None)
