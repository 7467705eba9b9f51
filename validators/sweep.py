"""One walk over a model that ONNX has inferred: collects what is known, and writes what `rank_rules` adds into it."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from edge4d.validators.folding import fold
from edge4d.validators.inventory import FunctionId, callee, normal_domain
from edge4d.validators.lengths import infer_length
from edge4d.validators.rank_rules import infer_ranks
from edge4d.validators.slimming import number_of, result_of
from edge4d.validators.values import Value, element_type, ranked_type, type_of_initializer

if TYPE_CHECKING:
    import onnx

__all__ = ["Call", "Occurrence", "Place", "Sweep", "known"]

_MOST_AXES = 64  # as many as numpy has; beyond, every value of a chain of nodes would hold them all

_T = TypeVar("_T")

Names = MutableMapping[str, "Value | None"]
"""What is known about the names of a graph and of those around it; None for what it makes but nothing is known of."""

Place = tuple[int | str, ...]
"""Where a node stands in a copy: (node, attribute, graph, node, …). Inference never reorders."""


Call = tuple[FunctionId, tuple[bytes, ...], tuple[bytes, ...]]
"""A function, the types of its inputs and its attributes: calls that agree in these give the same result."""


@dataclass(frozen=True)
class Occurrence:
    """A node of the file as it is met: once, or for a node of a function once for each call.

    Attributes:
        site: the number of the node in the `Inventory`.
        node: the node with the attributes of this call.
        inputs: what is known about its inputs, in order; a missing optional one has the name ``""``.
        outputs: the same for its outputs.
        formals: of its subgraphs' inputs, by (attribute name, number within the attribute).
    """

    site: int
    node: onnx.NodeProto
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    formals: Mapping[tuple[str, int], tuple[Value, ...]]


_Types = list["onnx.TypeProto | None"]
_Ask = Callable[
    [FunctionId, "tuple[onnx.TypeProto | None, ...]", "Mapping[str, onnx.AttributeProto]"], tuple["Call", _Types]
]
"""From a function, the types of its inputs and its attributes to what calls it, and the types of its outputs."""


class Sweep:
    """One walk over an inferred copy: collects what is known, and writes what `rank_rules` adds into the copy."""

    def __init__(
        self,
        model: onnx.ModelProto,
        functions: Collection[FunctionId],
        ask: _Ask,
        rejected: set[Place] | None,
        written: set[tuple[Place, str]],
        *,
        frozen: bool = False,
    ) -> None:
        self.model = model
        self._functions = functions
        self._ask = ask
        self.rejected = rejected
        self.written = written  # by this and earlier walks; what ONNX then ignores must not count as learnt again
        self.frozen = frozen  # only reads; learns nothing
        self.calls: set[Call] = set()
        self.learnt = False
        self.occurrences: list[Occurrence] = []
        self.results: list[tuple[tuple[int, int], Value]] = []
        self.names: Names = {}
        self._guesses: dict[Place, tuple[int, Value]] = {}
        self._opset = {normal_domain(entry.domain): entry.version for entry in model.opset_import}

    def graph(
        self,
        graph: onnx.GraphProto,
        outer: Names,
        outer_data: MutableMapping[str, onnx.TensorProto],
        place: Place,
    ) -> Names:
        """Walk one graph; names of the outer scope are visible in it."""
        data = _within(outer_data, _small_weights(graph))
        # A name made here hides one of the outer scope even before its type is known.
        made = [*(entry.name for entry in graph.input), *(name for node in graph.node for name in node.output)]
        names = _within(outer, dict.fromkeys(made))
        entries = _Entries(graph)
        for name, type_proto in _stated_types(graph):
            value = Value(name, type_proto, data.get(name))
            if value.settled or known(names, name).type is None:
                names[name] = value
        if not place:
            self.names = names
        for i, node in enumerate(graph.node):
            inputs = tuple(known(names, name) for name in node.input)
            inner = dict(self._subgraphs(node, inputs, names, data, (*place, i)))
            constant = _constant(node) or fold(node, inputs)
            if not self.frozen:
                self._learn(entries, node, inputs, inner, names, (*place, i), constant)
            if constant is not None:
                data[node.output[0]] = constant
                value = known(names, node.output[0])
                names[node.output[0]] = Value(value.name, value.type, constant)
            outputs = tuple(known(names, name) for name in node.output)
            if (call := result_of(node)) is not None:
                self.results.append((call, outputs[0]))
            if (site := number_of(node)) is not None:
                formals = {
                    key: tuple(known(values, formal.name) for formal in body.input)
                    for key, (body, values) in inner.items()
                }
                self.occurrences.append(Occurrence(site, node, inputs, outputs, formals))
        return names

    def unproven(self) -> set[Place]:
        """The assumptions about carried values of loops that the loop's own body does not confirm."""
        return {place for place, (rank, given_back) in self._guesses.items() if given_back.rank != rank}

    def _subgraphs(
        self,
        node: onnx.NodeProto,
        inputs: tuple[Value, ...],
        names: Names,
        data: MutableMapping[str, onnx.TensorProto],
        place: Place,
    ) -> Iterator[tuple[tuple[str, int], tuple[onnx.GraphProto, Names]]]:
        loop = node.op_type == "Loop" and not normal_domain(node.domain)
        for attribute in node.attribute:
            for i, graph in enumerate([attribute.g] if attribute.HasField("g") else attribute.graphs):
                here = (*place, attribute.name, i)
                if loop:
                    self._assume(graph, inputs, here)
                values = self.graph(graph, names, data, here)
                if loop:
                    self._compare(graph, inputs, values, here)
                yield (attribute.name, i), (graph, values)

    def _assume(self, body: onnx.GraphProto, inputs: tuple[Value, ...], place: Place) -> None:
        """Give a loop's body the ranks it starts with: a scalar counter, a scalar condition, the initial values."""
        for i, formal in enumerate(body.input):
            value = Value(formal.name, formal.type)
            if value.rank is not None or self.rejected is None or (*place, i) in self.rejected:
                continue
            initial = inputs[i] if i < len(inputs) else Value("")
            rank = 0 if i == 0 or (i == 1 and not initial.name) else initial.rank
            if rank is not None:
                elem = (7, 9)[i] if i < 2 else element_type(initial.type)  # int64 counter, bool condition
                formal.type.CopyFrom(ranked_type(rank, elem))
                if (place, formal.name) not in self.written:
                    self.written.add((place, formal.name))
                    self.learnt = True

    def _compare(self, body: onnx.GraphProto, inputs: tuple[Value, ...], values: Names, place: Place) -> None:
        """Remember what the body gives back for each value that it carries; ONNX fixes the counter's rank."""
        for i, formal in enumerate(body.input):
            rank = known(values, formal.name).rank
            if i > 0 and rank is not None and i - 1 < len(body.output):
                name = body.output[i - 1].name
                carried = (*place, i)
                self._guesses[carried] = (rank, known(values, name))

    def _learn(
        self,
        entries: _Entries,
        node: onnx.NodeProto,
        inputs: tuple[Value, ...],
        inner: Mapping[tuple[str, int], tuple[onnx.GraphProto, Names]],
        names: Names,
        place: Place,
        constant: onnx.TensorProto | None,
    ) -> None:
        """Where ONNX left an output open, ask the function that is called, or the rules of rank."""
        types: _Types
        if self._functions and (key := callee(node)) in self._functions:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            call, types = self._ask(key, tuple(value.type for value in inputs), attributes)
            self.calls.add(call)
        elif not any(_is_open(known(names, name)) for name in node.output if name):
            return
        else:
            bodies = {name: [known(values, v.name) for v in body.output] for (name, _), (body, values) in inner.items()}
            ranks = infer_ranks(node, inputs, bodies, self._opset.get("", 0))
            elem = element_type(next((v.type for v in inputs if v.type is not None), None))
            length = infer_length(node, inputs) if ranks[:1] == [1] else None
            if constant is not None and len(constant.dims) == 1:
                length = int(constant.dims[0])
            types = [
                None if rank is None or rank > _MOST_AXES else ranked_type(rank, elem, None if i else length)
                for i, rank in enumerate(ranks)
            ]
        for name, type_proto in zip(node.output, types, strict=False):
            before = known(names, name)
            if not name or type_proto is None or not _is_open(before):
                continue
            learnt = Value(name, type_proto)
            if learnt.settled and (not before.settled or learnt.length is not None):
                if before.type is not None and type_proto.HasField("tensor_type") and before.type.tensor_type.elem_type:
                    type_proto.tensor_type.elem_type = before.type.tensor_type.elem_type
                names[name] = learnt
                if (place, name) not in self.written:
                    self.written.add((place, name))
                    entries.write(name, type_proto)
                    self.learnt = True


def known(names: Mapping[str, Value | None], name: str) -> Value:
    """What is known about a name; nothing where it is not known, or made here and not yet come by."""
    return names.get(name) or Value(name)


def _is_open(value: Value) -> bool:
    """Whether the rank is not known, or of a list not its length, which another value's rank may be."""
    return not value.settled or value.shape == (None,)


def _stated_types(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TypeProto]]:
    """Names and types that a graph of a copy holds: what ONNX inferred, and weights; the surest last."""
    for entry in (*graph.value_info, *graph.output, *graph.input):
        if entry.type.WhichOneof("value") is not None:
            yield entry.name, entry.type
    yield from type_of_initializer(graph).items()


def _small_weights(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    from onnx import TensorProto

    return {t.name: t for t in graph.initializer if t.data_location != TensorProto.EXTERNAL}


class _Entries:
    """What a graph states about its values by name, for ONNX inference to find."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph

    @cached_property
    def _by_name(self) -> dict[str, onnx.ValueInfoProto]:
        return {entry.name: entry for entry in (*self._graph.value_info, *self._graph.output)}

    def write(self, name: str, type_proto: onnx.TypeProto) -> None:
        if name not in self._by_name:
            self._by_name[name] = self._graph.value_info.add(name=name)
        self._by_name[name].type.CopyFrom(type_proto)


def _within(outer: MutableMapping[str, _T], own: dict[str, _T]) -> MutableMapping[str, _T]:
    """Names of a graph, and behind them, not copied, those of the graphs around it."""
    around = outer.maps if isinstance(outer, ChainMap) else [outer] if outer else []
    return ChainMap(own, *around) if around else own


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node, whichever attribute holds it; None when it is large or in another file."""
    if node.op_type != "Constant" or normal_domain(node.domain) or len(node.output) != 1:
        return None
    from onnx import TensorProto

    for attribute in node.attribute:
        if attribute.name == "value" and attribute.t.data_location != TensorProto.EXTERNAL:
            tensor: onnx.TensorProto = attribute.t
            return tensor
        if attribute.name == "value_int":
            return _tensor(TensorProto.INT64, [], [attribute.i])
        if attribute.name == "value_ints":
            return _tensor(TensorProto.INT64, [len(attribute.ints)], attribute.ints)
        if attribute.name == "value_floats":
            return _tensor(TensorProto.FLOAT, [len(attribute.floats)], attribute.floats)
    return None


def _tensor(elem: int, dims: Sequence[int], numbers: Sequence[float]) -> onnx.TensorProto:
    from onnx import helper

    made: onnx.TensorProto = helper.make_tensor("", elem, dims, numbers)
    return made
