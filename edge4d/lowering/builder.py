"""What rules speak to, on two levels.

`lower` takes an ATen operator on *logical* operands and finds its rule, so a rule may be written as a small program of
other operators. `emit` (of `Emitter`, see `emitting.py`) appends one call on *physical* nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from edge4d.errors import InternalError
from edge4d.lowering import registry
from edge4d.lowering.emitting import Emitter, Provenance, hashable
from edge4d.lowering.registry import Decline, Site
from edge4d.lowering.unknown import unknown
from edge4d.lowering.values import Const, Value
from edge4d.offers import CHANNELS_LAST, GATHERS
from edge4d.planning import Planner, choose, estimates

if TYPE_CHECKING:
    from edge4d.lowering.conv.spec import ConvSpec

__all__ = ["Builder", "Declined", "Provenance"]

aten = torch.ops.aten

Planned: TypeAlias = "tuple[str | None, int, dict[str, float], bool]"
"""Formulation, multiply-accumulates, milliseconds of each formulation weighed, whether those are measured."""

_NOTHING: Planned = (None, 0, {}, False)


class Declined(Exception):
    """A call that no rule takes; not an error yet, the driver collects them."""

    def __init__(self, op: str, decline: Decline) -> None:
        super().__init__(decline.reason)
        self.op = op
        self.decline = decline


class Builder(Emitter):
    """Lowers calls on logical operands into one graph; computes what is constant, plans convolutions."""

    def __init__(self, mode: FakeTensorMode, planner: Planner | None = None) -> None:
        self._planner = planner or Planner()
        super().__init__(mode, channels_last=self._planner.runtime in CHANNELS_LAST)
        self._planned = _NOTHING
        self._folded: dict[Any, Const] = {}

    def lower(self, op: OpOverload, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """Lower one ATen call on logical operands; computed at once where every operand is constant.

        Args:
            op: the overload.
            args: operands (`Value`, `Const`, plain tensors are not allowed) and attributes, as the schema has them.
            name: the name of a constant result.
            kwargs: likewise.

        Raises:
            Declined: no rule takes the call.
        """
        leaves = pytree.tree_leaves((args, kwargs))
        if not any(isinstance(leaf, Value) for leaf in leaves):
            return self._fold(op, args, kwargs, name)
        return self.dispatch(op, args, kwargs, self.logical_result(op, args, kwargs))

    def dispatch(
        self,
        op: OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        result: Any,
        used: frozenset[int] = frozenset(),
    ) -> Any:
        """Find the rule, check the call, rewrite it, and hold the outcome against the expected logical result.

        What has no elements depends on no input, whatever made it: it is a constant, and never a value of the graph.
        """
        results = result if isinstance(result, tuple | list) else [result]
        if results and all(isinstance(one, torch.Tensor) and one.numel() == 0 for one in results):
            empty = [Const(torch.empty(one.shape, dtype=one.dtype), self._label("empty")) for one in results]
            return empty if isinstance(result, tuple | list) else empty[0]
        rule = registry.find(op)
        if rule is None:
            raise Declined(str(op), unknown(op))
        site = Site(op, _by_schema(op, args, kwargs), result, used)
        spec = rule.check(site)
        if isinstance(spec, Decline):
            raise Declined(str(op), spec)
        if site.unread:
            raise InternalError(f"rule {type(rule).__name__} for {op} ignores its arguments {site.unread}")
        before, self.at = self.at, replace(self.at, rule=self.at.rule or type(rule).__name__)
        try:
            lowered = rule.rewrite(self, spec)
        finally:
            self.at = before
        self._hold_against(op, lowered, result)
        return lowered

    def logical_result(self, op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Fake tensors with the logical shape(s) and dtype(s) a call would return."""

        def fake(leaf: Any) -> Any:
            if isinstance(leaf, Value | Const):
                return torch.empty(leaf.shape, dtype=leaf.dtype)
            return leaf

        with self._mode:
            fakes, named = pytree.tree_map(fake, (tuple(args), dict(kwargs)))
            return op(*fakes, **named)

    def _fold(self, op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], name: str | None) -> Any:
        """Compute a call on constants; a random one is no constant."""
        if torch.Tag.nondeterministic_seeded in op.tags:
            reason = "draws random numbers, so no two runs of the model agree"
            raise Declined(str(op), Decline(reason, "make the model deterministic, e.g. model.eval()"))
        names = [leaf.name for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Const)]
        key = ("const", op, hashable(pytree.tree_map(_identity, (args, kwargs))), name)
        if (known := self._folded.get(key)) is not None:
            return known
        label = name or (f"{names[0]}.{op._schema.name.split('::')[-1]}" if names else self._label("constant"))
        plain, named = pytree.tree_map(
            lambda leaf: leaf.tensor if isinstance(leaf, Const) else leaf, (tuple(args), dict(kwargs))
        )
        with torch.no_grad():
            result = op(*plain, **named)
        self._anchors += [leaf.tensor for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Const)]
        if isinstance(result, torch.Tensor):
            return self._folded.setdefault(key, Const(result, label))
        if isinstance(result, tuple | list):
            return [Const(r, f"{label}.{i}") if isinstance(r, torch.Tensor) else r for i, r in enumerate(result)]
        return result

    def derive(self, source: Const, recipe: Hashable, make: Callable[[], torch.Tensor], name: str) -> Const:
        """A constant made of another one: once, however often the same recipe is asked for."""
        key = ("derived", id(source.tensor), recipe)
        if (known := self._folded.get(key)) is None:
            known = self._folded[key] = Const(make(), name)
            self._anchors.append(source.tensor)
        return known

    def _hold_against(self, op: OpOverload, lowered: Any, result: Any) -> None:
        got = lowered if isinstance(lowered, list) else [lowered]
        want = list(result) if isinstance(result, tuple | list) else [result]
        if len(got) != len(want):
            raise InternalError(f"rule for {op} returned {len(got)} results, expected {len(want)}")
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            if g is None:  # a result that the rule does not provide; using it is refused by the driver
                continue
            if tuple(g.shape) != tuple(w.shape) or g.dtype != w.dtype:
                raise InternalError(
                    f"rule for {op} at {self.at.layer!r}, result {i}: got {tuple(g.shape)} {g.dtype}, "
                    f"expected {tuple(w.shape)} {w.dtype}"
                )

    @property
    def gathers(self) -> bool:
        """Whether every n-th place along an axis is taken by a Gather, not by a slice with a step."""
        return self._planner.runtime in GATHERS

    def plan(self, spec: ConvSpec) -> str:
        """The formulation of a 3-D convolution, remembered for the report."""
        name = choose(spec, self._planner, self.at.layer)
        self._planned = (name, self._planned[1] + spec.macs, *estimates(spec, self._planner))
        return name

    def take_plan(self) -> Planned:
        """What was planned of convolutions since the last call."""
        planned, self._planned = self._planned, _NOTHING
        return planned


def _by_schema(op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by schema name, defaults filled in."""
    bound: dict[str, Any] = {}
    for i, argument in enumerate(op._schema.arguments):
        if i < len(args) and not argument.kwarg_only:
            bound[argument.name] = args[i]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value
    return bound


def _identity(leaf: Any) -> Any:
    return id(leaf.tensor) if isinstance(leaf, Const) else leaf
