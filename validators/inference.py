"""What can be proven about the rank of every value: ONNX shape inference, and what it leaves open.

The model is copied without weights and claims, functions are inlined, and ONNX infers. What stays unknown is tried by
`rank_rules`, and inference continues from there until nothing new is learnt. Loops are proven by induction: the rank
of a carried value is assumed to be that of its initial value, and the assumption is withdrawn, with all that followed
from it, unless the body gives the same rank back.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from edge4d.validators.contained import CouldNotInfer, infer_shapes, inline_functions
from edge4d.validators.folding import fold
from edge4d.validators.inventory import FunctionId, Inventory, callee, normal_domain
from edge4d.validators.lengths import infer_length
from edge4d.validators.rank_rules import infer_ranks
from edge4d.validators.slimming import number_of, result_of, slim_function_call, slim_model
from edge4d.validators.values import Value, element_type, fill_sizes, ranked_type, type_of_initializer

if TYPE_CHECKING:
    import onnx

__all__ = ["Inferred", "Occurrence", "infer"]

# Beyond each of these what is not known yet stays unknown. Real models stay far below: their nodes come in an order
# in which one round suffices, plus one for every time that ONNX needs what only `rank_rules` knows.
_MOST_ROUNDS = 50
_MOST_RETRIES = 20
_MOST_AXES = 1000
_TIME_LIMIT_S = 60.0
_TIME_LIMIT_S_PER_NODE = 0.002

_T = TypeVar("_T")

_Names = MutableMapping[str, "Value | None"]
"""What is known about the names of a graph and of those around it; None for what it makes but nothing is known of."""

_Place = tuple[int | str, ...]
"""Where a node stands in a copy: (node, attribute, graph, node, …). Inference never reorders."""


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


@dataclass
class Inferred:
    """All that was learnt.

    Attributes:
        occurrences: every node of the model at least once, except calls of local functions that were inlined.
        results: of calls of local functions, by (number of the call, which output), each time the call is met.
        problems: what ONNX itself said when a step failed as a whole.
    """

    occurrences: list[Occurrence] = field(default_factory=list)
    results: dict[tuple[int, int], list[Value]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def infer(inventory: Inventory) -> Inferred:
    """Infer the whole model, then each function that nothing calls, with inputs of unknown rank."""
    run = _Run(inventory)
    results = [run.analyse(slim_model(inventory))]
    waiting = set(results[0].calls) | {run.call(name, (), {}) for name in inventory.callers_of_nothing()}
    seen = set(waiting)
    while waiting:
        results.append(run.results[waiting.pop()])
        fresh = results[-1].calls - seen
        waiting |= fresh
        seen |= fresh
    inferred = Inferred(problems=run.problems)
    for result in results:
        inferred.occurrences += result.occurrences
        for place, value in result.results:
            inferred.results.setdefault(place, []).append(value)
    return inferred


_Call = tuple[FunctionId, tuple[bytes, ...], tuple[bytes, ...]]
"""A function, the types of its inputs and its attributes: calls that agree in these give the same result."""


@dataclass(frozen=True)
class _Result:
    """Of one model or call: its nodes, results of its inlined calls, types of its outputs, and calls it makes."""

    occurrences: list[Occurrence]
    results: list[tuple[tuple[int, int], Value]]
    types: list[onnx.TypeProto | None]
    calls: frozenset[_Call]


class _Run:
    """The state of one inference: function calls that were analysed already, and what went wrong."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.problems: list[str] = []
        self.results: dict[_Call, _Result] = {}
        self._until = monotonic() + _TIME_LIMIT_S + _TIME_LIMIT_S_PER_NODE * len(inventory.sites)
        self._given_up = False

    @property
    def given_up(self) -> bool:
        """Whether nothing more is inferred: it was too much for ONNX's process, or took too long altogether."""
        if not self._given_up and monotonic() > self._until:
            self._note("the inference took too long")
            self._given_up = True
        return self._given_up

    def analyse(self, slim: onnx.ModelProto) -> _Result:
        """Analyse one model; assumptions that fail are withdrawn together with all that followed from them."""
        base = self._inlined(slim)
        rejected: set[_Place] = set()
        for _ in range(_MOST_RETRIES):
            sweep = self._converged(base, rejected)
            failed = sweep.unproven()
            if not failed:
                break
            rejected |= failed
        else:
            sweep = self._converged(base, None)
        sweep = self._with_sizes(sweep)
        types = [_known(sweep.names, v.name).type for v in sweep.model.graph.output]
        return _Result(sweep.occurrences, sweep.results, types, frozenset(sweep.calls))

    def call(
        self, name: FunctionId, types: tuple[onnx.TypeProto | None, ...], attributes: Mapping[str, onnx.AttributeProto]
    ) -> _Call:
        """Analyse a call that was not inlined: its function is written in another version of the operator set."""
        key = (
            name,
            tuple(b"" if t is None else t.SerializeToString(deterministic=True) for t in types),
            tuple(sorted(a.SerializeToString(deterministic=True) for a in attributes.values())),
        )
        if key not in self.results and self.given_up:
            self.results[key] = _Result([], [], [], frozenset())
        elif key not in self.results:
            slim = slim_function_call(self.inventory, self.inventory.functions[name], types, attributes)
            self.results[key] = self.analyse(slim)
        return key

    def _inlined(self, model: onnx.ModelProto) -> onnx.ModelProto:
        if not model.functions or self.given_up:
            return model
        try:
            return inline_functions(model)
        except CouldNotInfer as error:
            self._note(f"inlining the local functions failed: {error}")
            self._given_up |= error.fatal
            return model

    def _converged(self, base: onnx.ModelProto, rejected: set[_Place] | None) -> _Sweep:
        """Alternate ONNX inference and `rank_rules` until neither learns anything, or for long enough.

        Args:
            base: is not changed.
            rejected: assumptions that failed; None to assume nothing.
        """
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(base)
        del model.functions[:]  # the calls left are analysed by `call`, in their own operator set
        written: set[tuple[_Place, str]] = set()
        for _ in range(_MOST_ROUNDS):
            model = self._onnx_inference(model)
            sweep = _Sweep(self, model, rejected, written)
            sweep.graph(model.graph, {}, {}, ())
            if not sweep.learnt:
                break
        return sweep

    def _with_sizes(self, sweep: _Sweep) -> _Sweep:
        """Ask ONNX for sizes that only data propagation tells. No rank is learnt from it, nor anything from a size."""
        if not self._computes_shapes or self.given_up:
            return sweep
        try:
            sized = infer_shapes(sweep.model, propagate=True)
        except CouldNotInfer:  # what is known without it suffices for the ranks
            return sweep
        if not fill_sizes(sweep.model.graph, sized.graph):
            return sweep
        filled = _Sweep(self, sweep.model, None, set(), frozen=True)
        filled.graph(sweep.model.graph, {}, {}, ())
        filled.calls = sweep.calls
        return filled

    @cached_property
    def _computes_shapes(self) -> bool:
        return any(site.node.op_type in ("Shape", "Size") for site in self.inventory.sites)

    def _onnx_inference(self, model: onnx.ModelProto) -> onnx.ModelProto:
        if self.given_up:
            return model
        try:
            return infer_shapes(model)
        except CouldNotInfer as error:
            self._note(f"ONNX shape inference failed: {error}")
            self._given_up |= error.fatal
            return model

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


class _Sweep:
    """One walk over an inferred copy: collects what is known, and writes what `rank_rules` adds into the copy."""

    def __init__(
        self,
        run: _Run,
        model: onnx.ModelProto,
        rejected: set[_Place] | None,
        written: set[tuple[_Place, str]],
        *,
        frozen: bool = False,
    ) -> None:
        self.run = run
        self.model = model
        self.rejected = rejected
        self.written = written  # by this and earlier walks; what ONNX then ignores must not count as learnt again
        self.frozen = frozen  # only reads; learns nothing
        self.calls: set[_Call] = set()
        self.learnt = False
        self.occurrences: list[Occurrence] = []
        self.results: list[tuple[tuple[int, int], Value]] = []
        self.names: _Names = {}
        self._guesses: dict[_Place, tuple[int, Value]] = {}
        self._opset = {normal_domain(entry.domain): entry.version for entry in model.opset_import}

    def graph(
        self,
        graph: onnx.GraphProto,
        outer: _Names,
        outer_data: MutableMapping[str, onnx.TensorProto],
        place: _Place,
    ) -> _Names:
        """Walk one graph; names of the outer scope are visible in it."""
        data = _within(outer_data, _small_weights(graph))
        # A name made here hides one of the outer scope even before its type is known.
        made = [*(entry.name for entry in graph.input), *(name for node in graph.node for name in node.output)]
        names = _within(outer, dict.fromkeys(made))
        entries = _Entries(graph)
        for name, type_proto in _stated_types(graph):
            value = Value(name, type_proto, data.get(name))
            if value.settled or _known(names, name).type is None:
                names[name] = value
        if not place:
            self.names = names
        for i, node in enumerate(graph.node):
            inputs = tuple(_known(names, name) for name in node.input)
            inner = dict(self._subgraphs(node, inputs, names, data, (*place, i)))
            constant = _constant(node) or fold(node, inputs)
            if not self.frozen:
                self._learn(entries, node, inputs, inner, names, (*place, i), constant)
            if constant is not None:
                data[node.output[0]] = constant
                value = _known(names, node.output[0])
                names[node.output[0]] = Value(value.name, value.type, constant)
            outputs = tuple(_known(names, name) for name in node.output)
            if (call := result_of(node)) is not None:
                self.results.append((call, outputs[0]))
            if (site := number_of(node)) is not None:
                formals = {
                    key: tuple(_known(values, formal.name) for formal in body.input)
                    for key, (body, values) in inner.items()
                }
                self.occurrences.append(Occurrence(site, node, inputs, outputs, formals))
        return names

    def unproven(self) -> set[_Place]:
        """The assumptions about carried values of loops that the loop's own body does not confirm."""
        return {place for place, (rank, given_back) in self._guesses.items() if given_back.rank != rank}

    def _subgraphs(
        self,
        node: onnx.NodeProto,
        inputs: tuple[Value, ...],
        names: _Names,
        data: MutableMapping[str, onnx.TensorProto],
        place: _Place,
    ) -> Iterator[tuple[tuple[str, int], tuple[onnx.GraphProto, _Names]]]:
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

    def _assume(self, body: onnx.GraphProto, inputs: tuple[Value, ...], place: _Place) -> None:
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

    def _compare(self, body: onnx.GraphProto, inputs: tuple[Value, ...], values: _Names, place: _Place) -> None:
        """Remember what the body gives back for each value that it carries; ONNX fixes the counter's rank."""
        for i, formal in enumerate(body.input):
            rank = _known(values, formal.name).rank
            if i > 0 and rank is not None and i - 1 < len(body.output):
                name = body.output[i - 1].name
                carried = (*place, i)
                self._guesses[carried] = (rank, _known(values, name))

    def _learn(
        self,
        entries: _Entries,
        node: onnx.NodeProto,
        inputs: tuple[Value, ...],
        inner: Mapping[tuple[str, int], tuple[onnx.GraphProto, _Names]],
        names: _Names,
        place: _Place,
        constant: onnx.TensorProto | None,
    ) -> None:
        """Where ONNX left an output open, ask the function that is called, or the rules of rank."""
        types: list[onnx.TypeProto | None]
        functions = self.run.inventory.functions
        if functions and (key := callee(node)) in functions:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            call = self.run.call(key, tuple(value.type for value in inputs), attributes)
            self.calls.add(call)
            types = self.run.results[call].types
        elif not any(_is_open(_known(names, name)) for name in node.output if name):
            return
        else:
            bodies = {
                name: [_known(values, v.name) for v in body.output] for (name, _), (body, values) in inner.items()
            }
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
            before = _known(names, name)
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


def _known(names: Mapping[str, Value | None], name: str) -> Value:
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
