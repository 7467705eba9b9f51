"""``python -m benchmarks.numerics``: each formulation's error against float64, in float32 and float16, as a table.

Standard normal clips, weights as PyTorch initialises them, computed by PyTorch on the CPU. The error is the largest
difference of any element, relative to the range of the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["LAYERS", "errors", "main"]

LAYERS = {
    "64→64, 3×3×3, T = 16": (64, 64, (3, 3, 3), (1, 1, 1), (1, 1, 1), 1, 16),
    "64→64, 3×3×3, T = 2": (64, 64, (3, 3, 3), (1, 1, 1), (1, 1, 1), 1, 2),
    "64→64, 3×1×1, T = 8": (64, 64, (3, 1, 1), (1, 1, 1), (1, 0, 0), 1, 8),
    "64→64, 3×3×3, stride 2, T = 8": (64, 64, (3, 3, 3), (2, 2, 2), (1, 1, 1), 1, 8),
    "64 depthwise, 3×3×3, T = 13": (64, 64, (3, 3, 3), (1, 1, 1), (1, 1, 1), 64, 13),
    "3→64, 2×14×14 patches, T = 4": (3, 64, (2, 14, 14), (2, 14, 14), (0, 0, 0), 1, 4),
}
"""Name to channels in and out, kernel, stride, padding, groups, frames; 28 × 28 pixels each."""


def errors(module: nn.Conv3d, clip: torch.Tensor) -> dict[str, tuple[float, float]]:
    """Errors in float32 and float16 of Conv3d itself, first, and of each formulation that fits."""
    import copy

    import torch

    from edge4d.lowered import lower
    from edge4d.lowering.conv.rules import FORMULATIONS
    from edge4d.planning import Planner

    def error(result: torch.Tensor) -> float:
        return float((result.double() - exact).abs().max() / (exact.max() - exact.min()))

    found = {}
    with torch.no_grad():
        exact = copy.deepcopy(module).double()(clip.double())
        half = copy.deepcopy(module).half()(clip.half())
        found["Conv3d"] = (error(module(clip)), error(half))
        for name in FORMULATIONS:
            lowered = lower(module, (clip,), planner=Planner.of(formulations=[name]))
            if lowered.layers[-1].becomes != name:
                continue
            packed = lowered.pack(clip)
            single = lowered.unpack(lowered.module(*packed))
            halved = lowered.unpack(lowered.module.half()(*(part.half() for part in packed)))
            found[name] = (error(single), error(halved))
    return found


def main() -> None:
    """Print the table."""
    import torch

    from benchmarks.compare import markdown

    columns = {}
    for label, (ins, outs, kernel, stride, padding, groups, frames) in LAYERS.items():
        torch.manual_seed(0)
        module = torch.nn.Conv3d(ins, outs, kernel, stride, padding, groups=groups).eval()
        columns[label] = errors(module, torch.randn(1, ins, frames, 28, 28))
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    body = [
        [name, *(" / ".join(f"{e:.0e}" for e in column[name]) if name in column else "" for column in columns.values())]
        for name in names
    ]
    print(markdown(["formulation", *columns], body, left=1))


if __name__ == "__main__":
    main()
