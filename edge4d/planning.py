"""Which exact formulation each 3-D convolution gets, and what it costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge4d.lowering.conv.spec import ConvSpec

__all__ = ["LayerPlan", "choose"]

_STACK_UP_TO = 48
"""kT·C_in up to which one stacked convolution beats kT separate ones; wider layers gain less and need more memory."""


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


def choose(spec: ConvSpec) -> str:
    """The formulation for one 3-D convolution, by name."""
    if spec.transposed:
        return "phases"
    taps = spec.kernel[0]
    if taps > 1 and spec.kernel[1:] == (1, 1):
        return "temporal"  # slow_r50, r2plus1d_18 and x3d_s as a whole are each about a tenth faster than with `taps`
    if taps > 1 and spec.groups == 1 and taps * spec.x.shape[1] <= _STACK_UP_TO:
        return "stacked"
    return "taps"
