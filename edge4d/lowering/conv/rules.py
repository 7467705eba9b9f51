"""The convolution rule: every ATen spelling becomes one `ConvSpec`; a formulation rewrites it."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from edge4d.lowering.conv import (
    folded,
    interleaved,
    padded,
    patchify,
    ranges,
    regrouped,
    shifted,
    space_to_depth,
    stacked,
    taps,
    temporal,
    transposed,
)
from edge4d.lowering.conv.overloads import OVERLOADS
from edge4d.lowering.conv.plane import plane_conv
from edge4d.lowering.conv.rows import Rows
from edge4d.lowering.conv.spec import ConvSpec
from edge4d.lowering.conv.winograd import Short, Winograd
from edge4d.lowering.conv.winograd_split import Split
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.values import Operand

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["FORMULATIONS", "Convolution"]

aten = torch.ops.aten

FORMULATIONS: dict[str, ModuleType | Winograd | Short | Split | Rows] = {
    "patchify": patchify,
    "temporal": temporal,
    "taps": taps,
    "padded": padded,
    "shifted": shifted,
    "ranges": ranges,
    "stacked": stacked,
    "folded": folded,
    "winograd-2": Winograd(2),
    "winograd-3": Winograd(3),
    "winograd-4": Winograd(4),
    "short": Short(),
    "winograd-split": Split(2),
    "winograd-split-4": Split(4),
    "space-to-depth": space_to_depth,
    "regrouped": regrouped,
    "taps+rows-2": Rows(2, taps),
    "taps+rows-4": Rows(4, taps),
    "winograd-2+rows-2": Rows(2, Winograd(2)),
    "winograd-2+rows-4": Rows(4, Winograd(2)),
    "winograd-4+rows-2": Rows(2, Winograd(4)),
    "winograd-4+rows-4": Rows(4, Winograd(4)),
    "short+rows-2": Rows(2, Short()),
    "short+rows-4": Rows(4, Short()),
    "interleaved": interleaved,
    "phases": transposed,
}
"""Exact formulations of a 3-D convolution by name, the simplest first; each has `applies`, `cost` and `rewrite`."""


@lowers(*OVERLOADS)
class Convolution:
    """Convolutions of one to three axes, transposed or not, batched or not."""

    def check(self, site: Site) -> ConvSpec | Decline:
        x: Operand = site.take("input")
        weight: Operand = site.take("weight")
        axes = len(weight.shape) - 2
        if axes > 3:
            return Decline(f"a convolution over {axes} axes", "edge4d lowers one, two and three axes")
        kernel = weight.shape[2:]
        stride, dilation = _per_axis(site.take("stride"), axes), _per_axis(site.take("dilation"), axes)
        transposed_ = "transpose" in site.op._schema.name or (site.has("transposed") and site.take("transposed"))
        given = site.take("padding")
        if isinstance(given, str):
            spans = [d * (k - 1) if given == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
            padding = tuple((span // 2, span - span // 2) for span in spans)
        else:
            padding = tuple((p, p) for p in _per_axis(given, axes))
        output_padding = _per_axis(site.take("output_padding"), axes) if site.has("output_padding") else (0,) * axes
        for name in (
            "benchmark",
            "deterministic",
            "cudnn_enabled",
            "allow_tf32",
        ):  # choices of a kernel, not of a number
            if site.has(name):
                site.take(name)
        return ConvSpec(
            x,
            weight,
            site.take("bias"),
            stride,
            padding,
            dilation,
            output_padding,
            site.take("groups"),
            transposed_,
            site.shape,
        )

    def rewrite(self, b: Builder, spec: ConvSpec) -> Operand:
        if len(spec.x.shape) == len(spec.stride) + 1:  # unbatched
            batched = replace(spec, x=b.lower(aten.unsqueeze.default, spec.x, 0), shape=(1, *spec.shape))
            squeezed: Operand = b.lower(aten.squeeze.dim, self.rewrite(b, batched), 0)
            return squeezed
        if len(spec.stride) < 3:
            return plane_conv(b, spec)
        name = b.plan(spec)
        result: Operand = FORMULATIONS[name].rewrite(b, spec)
        return result


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * axes if len(values) == 1 else values
