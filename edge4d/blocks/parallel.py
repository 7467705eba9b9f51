"""Spatial beside temporal: the two branches of the paper's figure 3, each at the resolution of the Conv3d's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge4d.blocks.base import SpatialConv, TemporalConv, pick_frames, pick_pixels
from edge4d.blocks.geometry import Geometry
from edge4d.errors import UsageError

__all__ = ["ALIGNMENTS", "POOLS", "SpatialBranch", "TemporalBranch"]

ALIGNMENTS = ("spatial", "paper")
POOLS = ("conv", "select")


class SpatialBranch(nn.Module):
    """kH×kW on every frame, then pooled in time "by a 1-by-1 convolution with stride s (if necessary)" (paper, II.A).

    The sentence has two readings, which differ only where the Conv3d changes the number of frames:

    - ``conv`` (ours by default): a learned 1×1 convolution S → S on the pooled frames, S²/groups more parameters. It
      runs after the spatial convolution of *all* frames, as the paper orders it. With it the paper's Table II comes
      out (ECO-Lite: 16.50 M for Proposed-Add, 15.85 M without; the paper says 16.3 M).
    - ``select``: "1-by-1" as a mere subsampling, no parameters. Frames are dropped *before* the spatial convolution,
      which gives the same numbers for less work.

    Where the stride is 1 the convolution is not necessary, and neither reading has one. Which frames: those under the
    Conv3d's middle temporal tap, so that the branch is a Conv3d whose other taps are zero.

    Args:
        geometry: of the Conv3d.
        in_channels, out_channels, groups, bias: of this branch.
        pool: ``conv`` or ``select``.
    """

    def __init__(
        self, geometry: Geometry, in_channels: int, out_channels: int, *, groups: int, bias: bool, pool: str
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise UsageError(f"unknown temporal_pool {pool!r}", hint=f"one of: {', '.join(POOLS)}")
        self.geometry = geometry
        learned = pool == "conv" and geometry.stride[0] > 1
        self.conv = SpatialConv(geometry, in_channels, out_channels, groups=groups, bias=bias and not learned)
        self.pool = nn.Conv2d(out_channels, out_channels, 1, groups=groups, bias=bias) if learned else None

    def forward(self, clip: Tensor) -> Tensor:
        """(N, C, T, H, W) → (N, S, T', H', W')."""
        if self.pool is None:
            result: Tensor = self.conv(pick_frames(clip, self.geometry))
            return result
        frames = pick_frames(self.conv(clip), self.geometry)
        n, s, t, h, w = frames.shape
        pooled: Tensor = self.pool(frames.reshape(n, s, t, h * w))
        return pooled.reshape(n, s, t, h, w)

    def columns(self, clip: Tensor) -> Tensor:
        """What the spatial weight multiplies where the pooling passes channels on, as a fit leaves it."""
        return self.conv.columns(pick_frames(clip, self.geometry))

    @property
    def bias(self) -> Tensor | None:
        """The bias of the branch, wherever it stands."""
        return self.conv.bias if self.pool is None else self.pool.bias

    def adopt(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take the middle temporal tap (S, C/groups, kH, kW); the pooling passes channels on."""
        self.conv.weight.copy_(weight)
        last: nn.Conv2d = self.conv
        if self.pool is not None:
            per_group = self.pool.weight.shape[1]
            channels = torch.arange(self.pool.out_channels, device=self.pool.weight.device)
            self.pool.weight.zero_()
            self.pool.weight[channels, channels % per_group, 0, 0] = 1
            last = self.pool
        if last.bias is not None:
            last.bias.copy_(bias if bias is not None else torch.zeros_like(last.bias))

    def tap(self) -> Tensor:
        """The kernel (S, C/groups, kH, kW) under the middle temporal tap, float64."""
        weight = self.conv.weight.detach().double()
        if self.pool is None:
            return weight
        groups = self.pool.groups
        mix = self.pool.weight.detach().double()[..., 0, 0].reshape(groups, -1, self.pool.weight.shape[1])
        return torch.einsum("gsm,gmchw->gschw", mix, weight.reshape(groups, -1, *weight.shape[1:])).flatten(0, 1)


class TemporalBranch(nn.Module):
    """kT×1 on every pixel's history, at the output's pixels (paper, II.B).

    - ``spatial`` alignment (the default): the pixels under the Conv3d's middle spatial tap are taken first. They are
      the very pixels that the spatial branch centres on; any stride and size will do, and nothing is computed in vain.
    - ``paper``: stride s² on the flattened X·Y axis, as printed. Output pixel j then sees input pixel j·s² of the
      flattened frame, which for s > 1 is *not* the pixel that the spatial branch centres on (with s = 2 and a width
      of 4, output row 0 sees input row 0 and output row 1 input row 2, but at columns 0 and 0 rather than 0 and 2).
      The number of pixels comes out right only where ⌈X·Y/s²⌉ = X'·Y'; otherwise there is an error.

    Args:
        geometry: of the Conv3d.
        in_channels, out_channels, groups, bias: of this branch.
        alignment: ``spatial`` or ``paper``.
    """

    def __init__(
        self, geometry: Geometry, in_channels: int, out_channels: int, *, groups: int, bias: bool, alignment: str
    ) -> None:
        super().__init__()
        if alignment not in ALIGNMENTS:
            raise UsageError(f"unknown alignment {alignment!r}", hint=f"one of: {', '.join(ALIGNMENTS)}")
        vertical, horizontal = geometry.stride[1:]
        if alignment == "paper" and vertical != horizontal:
            raise UsageError(
                f"alignment 'paper' needs one stride for both spatial axes, got {vertical} and {horizontal}",
                hint="use alignment='spatial'",
            )
        self.geometry = geometry
        self.flattened = alignment == "paper"
        pixel_stride = vertical * horizontal if self.flattened else 1
        self.conv = TemporalConv(
            geometry, in_channels, out_channels, groups=groups, bias=bias, pixel_stride=pixel_stride
        )

    @property
    def aligned(self) -> bool:
        """Whether each output pixel sees the input pixel under the Conv3d's middle spatial tap."""
        g = self.geometry
        return not self.flattened or (g.stride[1:] == (1, 1) and g.offset(1) == 0 and g.offset(2) == 0)

    def forward(self, clip: Tensor) -> Tensor:
        """(N, C, T, H, W) → (N, S, T', H', W')."""
        if not self.flattened:
            result: Tensor = self.conv(pick_pixels(clip, self.geometry))
            return result
        height, width = clip.shape[3:]
        sizes = self.geometry.result(1, height), self.geometry.result(2, width)
        stride = self.geometry.stride[1] ** 2
        found = -(-height * width // stride)
        if found != sizes[0] * sizes[1]:
            raise UsageError(
                f"alignment 'paper' cannot stride {height}x{width} pixels: every {stride}th of them makes {found}, "
                f"the spatial branch makes {sizes[0]}x{sizes[1]} = {sizes[0] * sizes[1]}",
                hint="use alignment='spatial'",
            )
        strided: Tensor = self.conv(clip, sizes)
        return strided

    def columns(self, clip: Tensor) -> Tensor:
        """What the weight multiplies."""
        return self.conv.columns(clip if self.flattened else pick_pixels(clip, self.geometry))

    def adopt(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take the middle spatial tap (S, C/groups, kT)."""
        self.conv.weight.copy_(weight.unsqueeze(-1))
        if bias is not None and self.conv.bias is not None:
            self.conv.bias.copy_(bias)

    def tap(self) -> Tensor:
        """The kernel (S, C/groups, kT), float64."""
        return self.conv.weight.detach().double()[..., 0]
