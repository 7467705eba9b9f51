"""What can be proven about the rank of every value: ONNX shape inference, and what it leaves open.

The model is copied without weights and claims, functions are inlined, and ONNX infers. What stays unknown is tried by
`rank_rules`, and inference continues from there until nothing new is learnt. Loops are proven by induction: the rank
of a carried value is assumed to be that of its initial value, and the assumption is withdrawn, with all that followed
from it, unless the body gives the same rank back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING

from edge4d.validators.contained import CouldNotInfer, infer_shapes, inline_functions
from edge4d.validators.inventory import FunctionId, Inventory
from edge4d.validators.slimming import slim_function_call, slim_model
from edge4d.validators.sweep import Call, Occurrence, Place, Sweep, known
from edge4d.validators.values import Value, fill_sizes

if TYPE_CHECKING:
    import onnx

__all__ = ["Inferred", "Occurrence", "infer"]

# Beyond each of these what is not known yet stays unknown. Real models stay far below: their nodes come in an order
# in which one round suffices, plus one for every time that ONNX needs what only `rank_rules` knows.
_MOST_ROUNDS = 50
_MOST_RETRIES = 20
_TIME_LIMIT_S = 60.0
_TIME_LIMIT_S_PER_NODE = 0.002


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


@dataclass(frozen=True)
class _Result:
    """Of one model or call: its nodes, results of its inlined calls, types of its outputs, and calls it makes."""

    occurrences: list[Occurrence]
    results: list[tuple[tuple[int, int], Value]]
    types: list[onnx.TypeProto | None]
    calls: frozenset[Call]


class _Run:
    """The state of one inference: function calls that were analysed already, and what went wrong."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.problems: list[str] = []
        self.results: dict[Call, _Result] = {}
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
        rejected: set[Place] = set()
        for _ in range(_MOST_RETRIES):
            sweep = self._converged(base, rejected)
            failed = sweep.unproven()
            if not failed:
                break
            rejected |= failed
        else:
            sweep = self._converged(base, None)
        sweep = self._with_sizes(sweep)
        types = [known(sweep.names, v.name).type for v in sweep.model.graph.output]
        return _Result(sweep.occurrences, sweep.results, types, frozenset(sweep.calls))

    def call(
        self, name: FunctionId, types: tuple[onnx.TypeProto | None, ...], attributes: Mapping[str, onnx.AttributeProto]
    ) -> Call:
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

    def _ask(
        self, name: FunctionId, types: tuple[onnx.TypeProto | None, ...], attributes: Mapping[str, onnx.AttributeProto]
    ) -> tuple[Call, list[onnx.TypeProto | None]]:
        key = self.call(name, types, attributes)
        return key, self.results[key].types

    def _inlined(self, model: onnx.ModelProto) -> onnx.ModelProto:
        if not model.functions or self.given_up:
            return model
        try:
            return inline_functions(model)
        except CouldNotInfer as error:
            self._note(f"inlining the local functions failed: {error}")
            self._given_up |= error.fatal
            return model

    def _converged(self, base: onnx.ModelProto, rejected: set[Place] | None) -> Sweep:
        """Alternate ONNX inference and `rank_rules` until neither learns anything, or for long enough.

        Args:
            base: is not changed.
            rejected: assumptions that failed; None to assume nothing.
        """
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(base)
        del model.functions[:]  # the calls left are analysed by `call`, in their own operator set
        written: set[tuple[Place, str]] = set()
        for _ in range(_MOST_ROUNDS):
            model = self._onnx_inference(model)
            sweep = Sweep(model, self.inventory.functions, self._ask, rejected, written)
            sweep.graph(model.graph, {}, {}, ())
            if not sweep.learnt:
                break
        return sweep

    def _with_sizes(self, sweep: Sweep) -> Sweep:
        """Ask ONNX for sizes that only data propagation tells. No rank is learnt from it, nor anything from a size."""
        if not self._computes_shapes or self.given_up:
            return sweep
        try:
            sized = infer_shapes(sweep.model, propagate=True)
        except CouldNotInfer:  # what is known without it suffices for the ranks
            return sweep
        if not fill_sizes(sweep.model.graph, sized.graph):
            return sweep
        filled = Sweep(sweep.model, self.inventory.functions, self._ask, None, set(), frozen=True)
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
