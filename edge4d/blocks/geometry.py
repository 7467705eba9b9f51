"""What a Conv3d does to shapes: everything a structure must share with the convolution it replaces."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from edge4d.errors import UsageError

__all__ = ["Geometry"]

Triple = tuple[int, int, int]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """The attributes of a Conv3d, every one explicit; axes are T, H, W.

    Attributes:
        in_channels, out_channels: C and S of the paper.
        kernel, stride, dilation: one number an axis.
        padding: (before, after) an axis; the strings ``same`` and ``valid`` are resolved.
        groups: channel groups.
        bias: whether there is one.
        padding_mode: ``zeros``, ``reflect``, ``replicate`` or ``circular``.
    """

    in_channels: int
    out_channels: int
    kernel: Triple
    stride: Triple
    padding: tuple[Pair, Pair, Pair]
    dilation: Triple
    groups: int
    bias: bool
    padding_mode: str

    @classmethod
    def of(cls, conv: nn.Conv3d) -> Geometry:
        """Read a Conv3d.

        Raises:
            UsageError: something else, or a lazy one that has not seen its input.
        """
        if not isinstance(conv, nn.Conv3d):
            raise UsageError(f"a block replaces an nn.Conv3d, got {type(conv).__name__}")
        if isinstance(conv, nn.LazyConv3d):
            raise UsageError("a LazyConv3d has no weight yet", hint="run the model once on a clip before swapping")
        kernel, stride, dilation = (_triple(v) for v in (conv.kernel_size, conv.stride, conv.dilation))
        if isinstance(conv.padding, str):
            spans = [d * (k - 1) if conv.padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
            t, h, w = ((span // 2, span - span // 2) for span in spans)
        else:
            t, h, w = ((p, p) for p in _triple(conv.padding))
        return cls(
            conv.in_channels,
            conv.out_channels,
            kernel,
            stride,
            (t, h, w),
            dilation,
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
        )

    @property
    def parameters(self) -> int:
        """Weights of the Conv3d: t·h·w·C·S / groups, and S of the bias."""
        taps = self.kernel[0] * self.kernel[1] * self.kernel[2]
        return taps * self.in_channels * self.out_channels // self.groups + self.bias * self.out_channels

    @property
    def centre(self) -> Triple:
        """The middle tap of each axis, the earlier of two when their number is even."""
        t, h, w = self.kernel
        return ((t - 1) // 2, (h - 1) // 2, (w - 1) // 2)

    def offset(self, axis: int) -> int:
        """The input position that the middle tap reads for output 0; negative inside the padding."""
        return self.centre[axis] * self.dilation[axis] - self.padding[axis][0]

    def result(self, axis: int, size: int) -> int:
        """Output size along an axis for an input of `size`."""
        before, after = self.padding[axis]
        span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + before + after - span) // self.stride[axis] + 1


def _triple(values: tuple[int, ...] | int) -> Triple:
    t, h, w = (values,) * 3 if isinstance(values, int) else values
    return int(t), int(h), int(w)
