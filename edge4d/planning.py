"""Which exact formulation each 3-D convolution gets, and what it costs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError

if TYPE_CHECKING:
    from edge4d.lowering.conv.cost import Cost
    from edge4d.lowering.conv.spec import ConvSpec

__all__ = ["RUNTIMES", "LayerPlan", "Planner", "choose", "costs"]


@dataclass(frozen=True)
class LayerPlan:
    """What one operator above rank 4 became.

    Attributes:
        layer: module path in the user's model.
        line: Python line that called it.
        op: ATen overload.
        shape: logical shape of the result.
        becomes: formulation or rule, or None when declined.
        reason: why it was declined, empty otherwise.
        hint: what to do about it.
        macs: multiply-accumulates (convolutions; 0 for the rest).
        nodes: emitted calls.
    """

    layer: str
    line: str
    op: str
    shape: tuple[int, ...]
    becomes: str | None
    reason: str = ""
    hint: str = ""
    macs: int = 0
    nodes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping."""
        return asdict(self) | {"shape": list(self.shape)}


NEAR = 1.1
"""The estimate is no better than this; what lies within it counts as equal."""

_MATRIX_FORMS = frozenset({"winograd-2", "winograd-3", "winograd-4", "short"})

RUNTIMES: dict[str, frozenset[str]] = {
    "onnxruntime": frozenset({"winograd-split"}),
    "openvino": frozenset({"winograd-split"}),
    "tensorrt": frozenset(),
    "rknn": _MATRIX_FORMS,
}
"""What a runtime handles badly and `--for` therefore leaves out. RKNN's compiler makes a product along time a 1x1
convolution with a change of layout before it, which it runs on the CPU."""

AVOIDED: dict[str, frozenset[str]] = {"int8": _MATRIX_FORMS | {"winograd-split"}}
"""What a precision cannot bear. Winograd's sums of frames and its combined taps have ranges so unlike each other that
eight bits for all of them lose the small ones; docs/precision.md has the figures."""


@dataclass(frozen=True)
class Planner:
    """What the user asks of the choice of formulations.

    Attributes:
        runtime: for which runtime the graph is meant; None for one that is good on all.
        formulations: (layer pattern, formulation); a later one overrides an earlier one.
        max_weight_growth: how many times its own weights a layer may get; None for no limit.
        precision: what the graph will be computed in; formulations that lose too much in it are left out.
    """

    runtime: str | None = None
    formulations: tuple[tuple[str, str], ...] = ()
    max_weight_growth: float | None = None
    precision: str = "fp32"

    @classmethod
    def of(
        cls,
        runtime: str | None = None,
        formulations: Iterable[str | tuple[str, str]] = (),
        max_weight_growth: float | None = None,
        precision: str = "fp32",
    ) -> Planner:
        """Read what the user gave; a formulation is ``"layer4.*=taps"``, ``"taps"`` for every layer, or a pair.

        Raises:
            UsageError: an unknown runtime or formulation, a growth below 1.
        """
        from edge4d.lowering.conv.rules import FORMULATIONS

        if runtime is not None and runtime not in RUNTIMES:
            raise UsageError(f"no formulations are chosen for runtime {runtime!r}", hint=_known(runtime, RUNTIMES))
        if max_weight_growth is not None and not max_weight_growth >= 1:
            raise UsageError(
                f"weights cannot be kept below {max_weight_growth} times their size", hint="give 1 or more"
            )
        rules = []
        for item in formulations:
            pattern, _, name = item.rpartition("=") if isinstance(item, str) else (item[0], "=", item[1])
            if name not in FORMULATIONS:
                raise UsageError(f"unknown formulation {name!r}", hint=_known(name, FORMULATIONS))
            rules.append((pattern or "*", name))
        return cls(runtime, tuple(rules), max_weight_growth, precision)

    def to_dict(self) -> dict[str, Any]:
        """What a recipe keeps; empty when nothing was asked."""
        asked = {
            "for": self.runtime,
            "formulations": [f"{pattern}={name}" for pattern, name in self.formulations],
            "max_weight_growth": self.max_weight_growth,
        }
        return {key: value for key, value in asked.items() if value}

    def check_used(self, layers: Iterable[str]) -> None:
        """Every pattern must name a 3-D convolution.

        Raises:
            UsageError: one that names none.
        """
        known = sorted(set(layers))
        for pattern, name in self.formulations:
            if not any(fnmatchcase(layer, pattern) for layer in known):
                near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.3) or known[:5]
                raise UsageError(
                    f"--formulation {pattern}={name} fits none of the {len(known)} 3-D convolutions",
                    hint=f"layers: {', '.join(near) or 'there are none'}",
                )


def choose(spec: ConvSpec, planner: Planner | None = None, layer: str = "") -> str:
    """The formulation of one 3-D convolution: of those near the cheapest the simplest, which is listed first.

    Raises:
        UsageError: the user names a formulation for this very layer, and it does not fit.
    """
    from edge4d.lowering.conv.rules import FORMULATIONS

    planner = planner or Planner()
    for pattern, name in reversed(planner.formulations):
        if not fnmatchcase(layer, pattern):
            continue
        reason = FORMULATIONS[name].applies(spec)
        if reason is None:
            return name
        if pattern == layer:
            raise UsageError(f"layer {layer} cannot be {name}: {reason}", hint="edge4d plan shows what it becomes")
        break  # a pattern for many layers means those that it fits
    found = costs(spec)
    allowed = {name: cost for name, cost in found.items() if _allowed(spec, name, cost, planner)} or found
    limit = NEAR * min(cost.total for cost in allowed.values())
    return next(name for name, cost in allowed.items() if cost.total <= limit)


def _allowed(spec: ConvSpec, name: str, cost: Cost, planner: Planner) -> bool:
    if planner.runtime is not None and name in RUNTIMES[planner.runtime]:
        return False
    if name in AVOIDED.get(planner.precision, ()):
        return False
    own = math.prod(spec.weight.shape)
    return planner.max_weight_growth is None or cost.weights <= planner.max_weight_growth * own


def costs(spec: ConvSpec) -> dict[str, Cost]:
    """What each formulation that fits would cost."""
    from edge4d.lowering.conv.rules import FORMULATIONS

    return {name: form.cost(spec) for name, form in FORMULATIONS.items() if form.applies(spec) is None}


def _known(given: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(names), n=1, cutoff=0.4)
    return f"{f'did you mean {near[0]!r}? ' if near else ''}known: {', '.join(names)}"
