"""Which exact formulation each 3-D convolution gets, and what it costs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

from edge4d.errors import UsageError
from edge4d.offers import AVOIDED, BLOCKED, CHANNELS_LAST, GENERAL_WITHOUT, MILDER, RUNTIMES

if TYPE_CHECKING:
    from edge4d.lowering.conv.cost import Cost
    from edge4d.lowering.conv.spec import ConvSpec

__all__ = [
    "LayerPlan",
    "Planner",
    "Tuner",
    "choose",
    "costs",
    "estimates",
]


@dataclass(frozen=True)
class LayerPlan:
    """What one operator above rank 4 became.

    Attributes:
        layer: module path in the user's model.
        line: Python line that called it.
        op: ATen overload.
        shape: logical shape of the result in the model.
        becomes: formulation or rule, or None when declined.
        reason: why it was declined, empty otherwise.
        hint: what to do about it.
        macs: multiply-accumulates (convolutions; 0 for the rest).
        nodes: emitted calls.
        moves: those of them that only move data: slices, pads, joins, transposes.
        estimates: milliseconds of each formulation that was weighed, the chosen one among them.
        measured: whether the runtime was timed (`--autotune`) or a model of it asked.
        filled: channels that the result has in the graph, zeros among them; None where it has the model's own.
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
    moves: int = 0
    estimates: Mapping[str, float] = field(default_factory=dict)
    measured: bool = False
    filled: int | None = None

    @property
    def why(self) -> str:
        """The chosen formulation's milliseconds and those of the next best, for people."""
        filled = [] if self.filled is None else [f"channels filled up to {self.filled}"]
        if self.becomes is None or self.becomes not in self.estimates:
            return "; ".join(filled)
        own = self.estimates[self.becomes]
        others = sorted((ms, name) for name, ms in self.estimates.items() if name != self.becomes)[:2]
        said = [f"{own:.3g} ms {'measured' if self.measured else 'predicted'}", *(f"{n} {ms:.3g}" for ms, n in others)]
        return "; ".join([*said, *filled])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping."""
        estimates = {name: float(f"{ms:.4g}") for name, ms in self.estimates.items()}
        return asdict(self) | {"shape": list(self.shape), "estimates": estimates}


NEAR = 1.1
"""The estimate is no better than this; what lies within it counts as equal."""

WORTH_TIMING = 2.5
"""A formulation that is predicted to take longer than this many times the best is not timed."""


class Tuner(Protocol):
    """Times formulations of one layer; see `edge4d.exporters.autotune`."""

    def times(self, spec: ConvSpec, names: Iterable[str]) -> Mapping[str, float]:
        """Milliseconds of those that could be timed."""
        ...


@dataclass(frozen=True)
class Planner:
    """What the user asks of the choice of formulations.

    Attributes:
        runtime: for which runtime the graph is meant; None for one that is good on all.
        formulations: (layer pattern, formulation); a later one overrides an earlier one.
        max_weight_growth: how many times its own weights a layer may get; None for no limit.
        max_activation_memory: bytes that may lie between a layer's input and its result; None for no limit.
        mild: how many steps of `MILDER` are taken.
        tuner: times the formulations; None to predict.
        precision: what the graph will be computed in; formulations that lose too much in it are left out.
    """

    runtime: str | None = None
    formulations: tuple[tuple[str, str], ...] = ()
    max_weight_growth: float | None = None
    max_activation_memory: int | None = None
    mild: int = 0
    tuner: Tuner | None = None
    precision: str = "fp32"

    @property
    def blocked(self) -> bool:
        """Whether the graph is made for blocks of channels, see `offers.BLOCKED`."""
        return self.runtime in BLOCKED

    @classmethod
    def of(
        cls,
        runtime: str | None = None,
        formulations: Iterable[str | tuple[str, str]] = (),
        max_weight_growth: float | None = None,
        max_activation_memory: int | None = None,
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
        if max_activation_memory is not None and max_activation_memory < 0:
            raise UsageError(f"activations cannot be kept within {max_activation_memory} bytes", hint="give 0 or more")
        rules = []
        for item in formulations:
            pattern, _, name = item.rpartition("=") if isinstance(item, str) else (item[0], "=", item[1])
            if name not in FORMULATIONS:
                raise UsageError(f"unknown formulation {name!r}", hint=_known(name, FORMULATIONS))
            rules.append((pattern or "*", name))
        return cls(runtime, tuple(rules), max_weight_growth, max_activation_memory, precision=precision)

    def to_dict(self) -> dict[str, Any]:
        """What a recipe keeps; empty when nothing was asked."""
        asked = {
            "for": self.runtime,
            "formulations": [f"{pattern}={name}" for pattern, name in self.formulations],
            "max_weight_growth": self.max_weight_growth,
            "max_activation_memory": self.max_activation_memory,
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
    found, measured = estimates(spec, planner)
    limit = (1 if measured else NEAR) * min(found.values())
    return next(name for name, ms in found.items() if ms <= limit)


def estimates(spec: ConvSpec, planner: Planner) -> tuple[dict[str, float], bool]:
    """Milliseconds of the formulations that a layer may get, simplest first, and whether they are measured.

    Where only some could be timed, the others do not compete; where none could, the prediction stands.
    """
    from edge4d.lowering.conv.cost import frame_sizes
    from edge4d.lowering.conv.rates import GENERAL, RATES

    found = costs(spec)
    without = MILDER[planner.mild] | AVOIDED.get(planner.precision, frozenset())
    without |= GENERAL_WITHOUT if planner.runtime is None else RUNTIMES[planner.runtime]
    given, made = frame_sizes(spec)
    if 2 * made > given:  # timed where results are small alone
        without |= {"shifted"}
    found = {name: cost for name, cost in found.items() if name not in without} or found
    allowed = {name: cost for name, cost in found.items() if _within(spec, cost, planner)}
    if not allowed:  # a layer has to become something: what asks least of the memory that is limited
        least = min((cost.held, cost.weights) for cost in found.values())
        allowed = {name: cost for name, cost in found.items() if (cost.held, cost.weights) == least}
    rates = RATES.get(planner.runtime or "", GENERAL)
    if planner.runtime in CHANNELS_LAST and spec.groups > 1 and spec.kernel[0] > 1 and "temporal" in allowed:
        # a view there, and one pass in place of one a tap; without groups the sums that follow are dearer behind it
        allowed["temporal"] = replace(allowed["temporal"], moved=0)
    predicted = {name: rates.milliseconds(cost) for name, cost in allowed.items()}
    if planner.tuner is None or len(predicted) == 1:
        return predicted, False
    limit = WORTH_TIMING * min(predicted.values())
    times = planner.tuner.times(spec, [name for name, ms in predicted.items() if ms <= limit])
    timed = {name: times[name] for name in predicted if name in times}
    return (timed, True) if timed else (predicted, False)


def _within(spec: ConvSpec, cost: Cost, planner: Planner) -> bool:
    """Whether a formulation keeps the user's limits on memory."""
    held, own = cost.held * spec.x.dtype.itemsize, math.prod(spec.weight.shape)
    if planner.max_activation_memory is not None and held > planner.max_activation_memory:
        return False
    return planner.max_weight_growth is None or cost.weights <= planner.max_weight_growth * own


def costs(spec: ConvSpec) -> dict[str, Cost]:
    """What each formulation that fits would cost."""
    from edge4d.lowering.conv.rules import FORMULATIONS

    return {name: form.cost(spec) for name, form in FORMULATIONS.items() if form.applies(spec) is None}


def _known(given: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(names), n=1, cutoff=0.4)
    return f"{f'did you mean {near[0]!r}? ' if near else ''}known: {', '.join(names)}"
