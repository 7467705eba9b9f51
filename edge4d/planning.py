"""Which exact formulation each 3-D convolution gets, and what it costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge4d.lowering.conv.cost import Cost
    from edge4d.lowering.conv.spec import ConvSpec

__all__ = ["LayerPlan", "choose", "costs"]


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


def choose(spec: ConvSpec) -> str:
    """The formulation of one 3-D convolution: of those near the cheapest the simplest, which is listed first."""
    found = costs(spec)
    limit = NEAR * min(cost.total for cost in found.values())
    return next(name for name, cost in found.items() if cost.total <= limit)


def costs(spec: ConvSpec) -> dict[str, Cost]:
    """What each formulation that fits would cost."""
    from edge4d.lowering.conv.rules import FORMULATIONS

    return {name: form.cost(spec) for name, form in FORMULATIONS.items() if form.applies(spec) is None}
