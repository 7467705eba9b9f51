"""What the rules of the gate look at: every value and tensor of a model, and what was proven about each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from edge4d.validators.chains import Chains
from edge4d.validators.findings import Shape
from edge4d.validators.inference import Inferred, Occurrence
from edge4d.validators.inventory import Inventory, Scope, Site, callee
from edge4d.validators.values import Value, rank_of

if TYPE_CHECKING:
    import onnx

__all__ = ["Facts"]


@dataclass(frozen=True)
class Facts:
    """What the rules look at.

    Attributes:
        inventory: the model taken apart.
        inferred: what is known about its values.
        max_rank: the limit; None for none.
        three_axes: whether operators on three spatial axes are findings.
    """

    inventory: Inventory
    inferred: Inferred
    max_rank: int | None = 4
    three_axes: bool = True

    @cached_property
    def at(self) -> dict[int, list[Occurrence]]:
        """What each node was met as, by its number; the worst (unknown outputs, then high ranks) first."""
        met: dict[int, list[Occurrence]] = {}
        for one in self.inferred.occurrences:
            met.setdefault(one.site, []).append(one)
        return met

    def results(self, site: Site, i: int) -> list[Value]:
        """What is known about an output of a node, each time it is met; one unknown value if it never was."""
        name = site.node.output[i]
        if self.inventory.functions and callee(site.node) in self.inventory.functions:
            return self.inferred.results.get((site.index, i)) or [Value(name)]
        return [one.outputs[i] for one in self.at.get(site.index, ())] or [Value(name)]

    def formals(self, scope: Scope, i: int) -> list[Value]:
        """What is known about an input of the main graph, of a subgraph or of a function."""
        name = scope.input_names[i]
        if scope is self.inventory.main:
            entry = self.inventory.model.graph.input[i]
            return [Value(name, entry.type)]
        if scope.owner is not None:
            site, key = scope.owner
            # A reference to an attribute of the call, in a node that has a graph of its own too, puts it aside.
            met = [one.formals.get(key, ()) for one in self.at.get(site.index, ())]
            return [formals[i] if i < len(formals) else Value(name) for formals in met] or [Value(name)]
        return []  # an input of a function is a value of its caller, and looked at there

    @cached_property
    def values(self) -> list[tuple[Site | Scope, str, list[Value], str]]:
        """Every value that is no weight: (its node or its scope, its name, what is known, what it is)."""
        found: list[tuple[Site | Scope, str, list[Value], str]] = []
        for scope in self.inventory.scopes:
            kind = "graph input" if scope is self.inventory.main else "subgraph input"
            weights = {t.name: len(t.dims) for t in scope.graph.initializer} if scope.graph is not None else {}
            for i, name in enumerate(scope.input_names):
                met = self.formals(scope, i)
                # A weight is an input's default, in whose place a user may put what the input declares.
                if met and (name not in weights or (met[0].rank != weights[name] and self.defaults)):
                    found.append((scope, name, met, kind))
            for site in scope.sites:
                for i, name in enumerate(site.node.output):
                    if name:
                        found.append((site, name, self.results(site, i), "value"))
        for key in self.inventory.callers_of_nothing():
            scope = self.inventory.functions[key]
            found += [
                (scope, name, [Value(name)], "input of a function that nothing calls") for name in scope.input_names
            ]
        return found

    @property
    def defaults(self) -> bool:
        """Whether weights that are inputs too are defaults; before IR 4 every weight was an input as well."""
        return int(self.inventory.model.ir_version) >= 4

    @cached_property
    def tensors(self) -> list[tuple[Site | Scope, str, Shape, str]]:
        """Every weight and tensor attribute: (its node or its scope, its name, its sizes, what it is)."""
        found: list[tuple[Site | Scope, str, Shape, str]] = []
        for scope in self.inventory.scopes:
            if (graph := scope.graph) is not None:
                found += [(scope, t.name, tuple(t.dims), "initializer") for t in graph.initializer]
                found += [(scope, s.values.name, _widest(s), "sparse initializer") for s in graph.sparse_initializer]
            for site in scope.sites:
                found += [
                    (site, name, dims, "tensor attribute")
                    for name, dims in _tensors(site.node.attribute)
                    # What a Constant holds is its result, which is looked at as such.
                    if site.op != "Constant" or name not in ("value", "sparse_value")
                ]
        for scope in self.inventory.functions.values():
            defaults = getattr(scope.body, "attribute_proto", ())
            found += [(scope, a, dims, "default of attribute") for a, dims in _tensors(defaults)]
        return found

    @cached_property
    def declared(self) -> dict[int, dict[str, list[int]]]:
        """How many axes the file says that values have, each time it says so: by the scope's identity, and by name."""
        found: dict[int, dict[str, list[int]]] = {}
        for scope in self.inventory.scopes:
            said = found.setdefault(id(scope), {})
            entries = list(scope.body.value_info)
            if (graph := scope.graph) is not None:
                entries += [*graph.input, *graph.output]
            for entry in entries:
                if (rank := rank_of(entry.type)) is not None:
                    said.setdefault(entry.name, []).append(rank)
        return found

    @cached_property
    def chains(self) -> Chains:
        """How the values came about."""
        weights = {
            (id(home), name): shape
            for home, name, shape, kind in self.tensors
            if isinstance(home, Scope) and kind in ("initializer", "sparse initializer")
        }
        return Chains(self.inventory, ((home, name, met) for home, name, met, _ in self.values), weights)

    @cached_property
    def checked(self) -> dict[str, int]:
        """How many of each thing were looked at."""
        weights = sum("initializer" in kind for *_, kind in self.tensors)
        return {
            "graphs": len(self.inventory.scopes) - len(self.inventory.functions),
            "functions": len(self.inventory.functions),
            "nodes": len(self.inventory.sites),
            "values": len(self.values),
            "initializers": weights,
            "attributes": len(self.tensors) - weights,
        }

    @cached_property
    def highest_rank(self) -> int | None:
        """The greatest rank seen anywhere; None when none is known."""
        ranks = [len(shape) for _, _, shape, _ in self.tensors]
        ranks += [value.rank for _, _, met, _ in self.values for value in met if value.rank is not None]
        return max(ranks, default=None)


def _tensors(attributes: Iterable[onnx.AttributeProto]) -> Iterator[tuple[str, Shape]]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.name, tuple(attribute.t.dims)
        if attribute.HasField("sparse_tensor"):
            yield attribute.name, _widest(attribute.sparse_tensor)
        yield from ((attribute.name, tuple(tensor.dims)) for tensor in attribute.tensors)
        yield from ((attribute.name, _widest(sparse)) for sparse in attribute.sparse_tensors)


def _widest(sparse: onnx.SparseTensorProto) -> Shape:
    """The sizes of a sparse tensor, or of what it is made of where that has more axes."""
    return max((tuple(part.dims) for part in (sparse, sparse.values, sparse.indices)), key=len)
