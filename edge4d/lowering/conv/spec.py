"""The complete description of a convolution of one, two or three axes, and of its temporal taps."""

from __future__ import annotations

from dataclasses import dataclass

from edge4d.lowering.values import Operand

__all__ = ["ConvSpec", "TapRange", "tap_range"]


@dataclass(frozen=True)
class ConvSpec:
    """A convolution as its formula needs it; every attribute explicit.

    Attributes:
        x: input, logical (N, C_in, *sizes).
        weight: (C_out, C_in / groups, *kernel), or (C_in, C_out / groups, *kernel) when transposed.
        bias: (C_out,) or None.
        stride, dilation: one number an axis.
        padding: (before, after) zeros an axis; when transposed the amount cropped from the full result.
        output_padding: extra size after each axis of a transposed result.
        groups: channel groups.
        transposed: whether this is the transposed convolution.
        shape: logical shape of the result, (N, C_out, *sizes).
        rows: result rows in a tile of the 2-D convolutions it becomes (`rows.py`); 0 for none.
    """

    x: Operand
    weight: Operand
    bias: Operand | None
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    transposed: bool
    shape: tuple[int, ...]
    rows: int = 0

    @property
    def kernel(self) -> tuple[int, ...]:
        """Kernel size an axis."""
        return self.weight.shape[2:]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution as it stands (padding counted)."""
        result = 1
        for size in self.x.shape if self.transposed else self.shape:
            result *= size
        for size in self.weight.shape[1:]:
            result *= size
        return result


@dataclass(frozen=True)
class TapRange:
    """What one temporal tap sees: output frames [first, last] read input frames start, start + stride, …, stop."""

    first: int
    last: int
    start: int
    stop: int


def tap_range(tap: int, frames: int, results: int, stride: int, before: int, dilation: int) -> TapRange | None:
    """Output frame o reads input frame o·stride + tap·dilation − before; None when that is never inside.

    Args:
        tap: number of the tap.
        frames: T of the input.
        results: T of the output.
        stride, before, dilation: temporal stride, padding before, dilation.
    """
    offset = tap * dilation - before
    first = max(0, -(offset // stride))  # ceil(-offset / stride)
    last = min(results - 1, (frames - 1 - offset) // stride)
    if first > last:
        return None
    return TapRange(first, last, first * stride + offset, last * stride + offset)
