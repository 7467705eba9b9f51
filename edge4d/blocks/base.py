"""What every structure shares: how it is made from a Conv3d, and the two convolutions that all of them are made of.

A clip is (N, C, T, H, W) outside, as for the Conv3d. Inside it is reshaped to at most four axes before anything is
computed: ``(N·T, C, H, W)`` for a spatial convolution, ``(N, C, T, H·W)`` for a temporal one (paper, section II).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge4d.blocks.geometry import Geometry, Pair
from edge4d.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "ACTIVATIONS",
    "Block",
    "SpatialConv",
    "System",
    "TemporalConv",
    "activation_of",
    "pick_frames",
    "pick_pixels",
]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU}
"""What may stand between two convolutions of a serial structure."""


@dataclass(frozen=True)
class System:
    """Weights of a block in which some of its output channels are linear, given everything else: to be solved for.

    Attributes:
        convs: their sum makes the channels.
        columns: what each of them multiplies, (groups, rows, taps); a row is a place (n, t', h', w').
        bias: of the channels, None where they have none.
        members: which of the block's output channels they are (group after group), None for all.
        offset: what else adds to the channels, (N, S, T', H', W'); None for nothing.
    """

    convs: tuple[nn.Conv2d, ...]
    columns: tuple[Tensor, ...]
    bias: Tensor | None
    members: Tensor | None = None
    offset: Tensor | None = None


class Block(nn.Module):
    """A structure in the place of one Conv3d: (N, C, T, H, W) → (N, S, T', H', W'), or without N, as the Conv3d.

    Args:
        geometry: of the Conv3d.

    A subclass takes its options as keyword-only arguments, and gives `transform`, `adopt` and `kernel`.
    """

    name: ClassVar[str]

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry

    @classmethod
    def like(cls, conv: nn.Conv3d, **options: Any) -> Self:
        """A block with random weights for the place of `conv`: same shapes, device, dtype and mode.

        Raises:
            UsageError: an option the structure does not have, or a value that does not suit it.
        """
        block = cls(Geometry.of(conv), **options)
        return block.to(device=conv.weight.device, dtype=conv.weight.dtype).train(conv.training)

    @classmethod
    def fit(cls, conv: nn.Conv3d, **options: Any) -> Self:
        """A block with the weights that come nearest to the trained `conv`, from its weight alone.

        Raises:
            UsageError: as for `like`, or a weight that is not finite.
        """
        weight = conv.weight.detach()
        for name, tensor in (("weight", weight), ("bias", conv.bias)):
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                count = int((~torch.isfinite(tensor)).sum())
                raise UsageError(f"the {name} of the Conv3d holds {count} values that are NaN or infinite")
        block = cls.like(conv, **cls.options_for(conv, options))
        with torch.no_grad():
            block.adopt(weight.double(), conv.bias.detach().double() if conv.bias is not None else None)
        return block

    @classmethod
    def options_for(cls, conv: nn.Conv3d, options: dict[str, Any]) -> dict[str, Any]:
        """Options as the constructor takes them; a structure whose width depends on the weight resolves it here."""
        return options

    def transform(self, clip: Tensor) -> Tensor:
        """The structure on a batch of clips (N, C, T, H, W)."""
        raise NotImplementedError

    def adopt(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take the data-free best fit to a Conv3d's `weight` (S, C/groups, kT, kH, kW) and `bias` (S,), in float64."""
        raise NotImplementedError

    def kernel(self) -> Tensor | None:
        """The weight of the Conv3d that this block equals, float64; None where it equals none (a ReLU inside, …)."""
        raise NotImplementedError

    def systems(self, clip: Tensor) -> tuple[System, ...]:
        """The least-squares systems of a calibration, for a batch of clips (N, C, T, H, W) as this block sees it."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, T, H, W), or (C, T, H, W), as the Conv3d does; named `input`, for that is what callers may write.

        Raises:
            UsageError: another number of axes, or an axis that the kernel does not fit into.
        """
        if input.dim() not in (4, 5):
            raise UsageError(f"{self.name} takes clips (N, C, T, H, W), got a tensor of shape {tuple(input.shape)}")
        for axis, size in enumerate(input.shape[-3:]):
            if self.geometry.result(axis, size) < 1:
                raise UsageError(
                    f"{self.name}: {size} along {'THW'[axis]}, padded by {self.geometry.padding[axis]}, is too little "
                    f"for a kernel of {self.geometry.kernel[axis]} with dilation {self.geometry.dilation[axis]}"
                )
        return self.transform(input) if input.dim() == 5 else self.transform(input.unsqueeze(0)).squeeze(0)

    # What a network may ask a Conv3d for in its own forward.

    @property
    def in_channels(self) -> int:
        return self.geometry.in_channels

    @property
    def out_channels(self) -> int:
        return self.geometry.out_channels

    @property
    def kernel_size(self) -> tuple[int, int, int]:
        return self.geometry.kernel

    @property
    def stride(self) -> tuple[int, int, int]:
        return self.geometry.stride

    @property
    def dilation(self) -> tuple[int, int, int]:
        return self.geometry.dilation

    @property
    def groups(self) -> int:
        return self.geometry.groups

    def extra_repr(self) -> str:
        g = self.geometry
        return f"{g.in_channels}, {g.out_channels}, kernel_size={g.kernel}, stride={g.stride}, groups={g.groups}"


class SpatialConv(nn.Conv2d):
    """The kH×kW convolution of every frame.

    Args:
        geometry: kernel, stride, padding and dilation along H and W.
        in_channels, out_channels, groups, bias: of this convolution.
        axes: which of H and W it filters (and strides); the other is left alone.
    """

    def __init__(
        self,
        geometry: Geometry,
        in_channels: int,
        out_channels: int,
        *,
        groups: int,
        bias: bool,
        axes: str = "hw",
    ) -> None:
        used = {1: "h" in axes, 2: "w" in axes}
        pads = [geometry.padding[a] if used[a] else (0, 0) for a in (1, 2)]
        own, self.pads = _own_padding(pads, geometry.padding_mode)
        super().__init__(
            in_channels,
            out_channels,
            [geometry.kernel[a] if used[a] else 1 for a in (1, 2)],  # type: ignore[arg-type]
            [geometry.stride[a] if used[a] else 1 for a in (1, 2)],  # type: ignore[arg-type]
            own,  # type: ignore[arg-type]
            [geometry.dilation[a] if used[a] else 1 for a in (1, 2)],  # type: ignore[arg-type]
            groups,
            bias,
        )
        self.mode = geometry.padding_mode

    def forward(self, clip: Tensor) -> Tensor:
        """(N, C, T, H, W) → (N, S, T, H', W')."""
        n, c, t, h, w = clip.shape
        frames = _pad(clip.transpose(1, 2).reshape(n * t, c, h, w), self.pads, self.mode)
        out = super().forward(frames)
        return out.reshape(n, t, *out.shape[1:]).transpose(1, 2)

    def columns(self, clip: Tensor) -> Tensor:
        """What the weight multiplies: (N, C, T, H, W) → (groups, N·T·H'·W', C/groups·kH·kW)."""
        n, c, t, h, w = clip.shape
        return _columns(self, _pad(clip.transpose(1, 2).reshape(n * t, c, h, w), self.pads, self.mode))


class TemporalConv(nn.Conv2d):
    """The kT×1 convolution of every pixel's history.

    Args:
        geometry: kernel, stride, padding and dilation along T.
        in_channels, out_channels, groups, bias: of this convolution.
        pixel_stride: along the flattened H·W axis (the paper's s²).
    """

    def __init__(
        self,
        geometry: Geometry,
        in_channels: int,
        out_channels: int,
        *,
        groups: int,
        bias: bool,
        pixel_stride: int = 1,
    ) -> None:
        own, self.pads = _own_padding([geometry.padding[0], (0, 0)], geometry.padding_mode)
        super().__init__(
            in_channels,
            out_channels,
            (geometry.kernel[0], 1),
            (geometry.stride[0], pixel_stride),
            own,  # type: ignore[arg-type]
            (geometry.dilation[0], 1),
            groups,
            bias,
        )
        self.mode = geometry.padding_mode

    def forward(self, clip: Tensor, sizes: Pair | None = None) -> Tensor:
        """(N, C, T, H, W) → (N, S, T', H, W), or (N, S, T', *sizes) when pixels are strided."""
        n, c, t, h, w = clip.shape
        out = super().forward(_pad(clip.reshape(n, c, t, h * w), self.pads, self.mode))
        return out.reshape(n, out.shape[1], out.shape[2], *(sizes or (h, w)))

    def columns(self, clip: Tensor) -> Tensor:
        """What the weight multiplies: (N, C, T, H, W) → (groups, N·T'·H·W, C/groups·kT)."""
        n, c, t, h, w = clip.shape
        return _columns(self, _pad(clip.reshape(n, c, t, h * w), self.pads, self.mode))


def _columns(conv: nn.Conv2d, image: Tensor) -> Tensor:
    """(B, C, *) → (groups, B·places, C/groups·taps), in the order of the weight's axes."""
    unfolded = F.unfold(image, conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # type: ignore[arg-type]
    batch, _, places = unfolded.shape
    return unfolded.reshape(batch, conv.groups, -1, places).permute(1, 0, 3, 2).reshape(conv.groups, batch * places, -1)


def _own_padding(pads: list[Pair], mode: str) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """What the convolution pads itself, and what must be padded before it (as `F.pad` orders it), None for nothing."""
    if mode == "zeros" and all(before == after for before, after in pads):
        return tuple(before for before, _ in pads), None
    flat = tuple(amount for pad in reversed(pads) for amount in pad)
    return (0, 0), flat if any(flat) else None


def _pad(tensor: Tensor, pads: tuple[int, ...] | None, mode: str) -> Tensor:
    if pads is None:
        return tensor
    return F.pad(tensor, pads, mode="constant" if mode == "zeros" else mode)


def pick_frames(clip: Tensor, geometry: Geometry) -> Tensor:
    """The frames that the middle temporal tap reads: (N, C, T, H, W) → (N, C, T', H, W)."""
    n, c, t, h, w = clip.shape
    before, after, start, count = _reads(geometry, 0, t)
    if (before, after, start, count, geometry.stride[0]) == (0, 0, 0, t, 1):
        return clip
    flat = clip.reshape(n, c, t, h * w)
    if before or after:
        flat = _pad(flat, (0, 0, before, after), geometry.padding_mode)
    stride = geometry.stride[0]
    return flat[:, :, start : start + (count - 1) * stride + 1 : stride].reshape(n, c, count, h, w)


def pick_pixels(clip: Tensor, geometry: Geometry) -> Tensor:
    """The pixels that the middle spatial tap reads: (N, C, T, H, W) → (N, C, T, H', W')."""
    n, c, t, h, w = clip.shape
    above, below, top, rows = _reads(geometry, 1, h)
    left, right, first, columns = _reads(geometry, 2, w)
    sh, sw = geometry.stride[1:]
    if (above, below, top, rows, sh, left, right, first, columns, sw) == (0, 0, 0, h, 1, 0, 0, 0, w, 1):
        return clip
    flat = clip.reshape(n, c * t, h, w)
    if above or below or left or right:
        flat = _pad(flat, (left, right, above, below), geometry.padding_mode)
    flat = flat[:, :, top : top + (rows - 1) * sh + 1 : sh, first : first + (columns - 1) * sw + 1 : sw]
    return flat.reshape(n, c, t, rows, columns)


def _reads(geometry: Geometry, axis: int, size: int) -> tuple[int, int, int, int]:
    """Padding before and after, the first position in the padded axis, and how many are read."""
    count = geometry.result(axis, size)
    offset = geometry.offset(axis)
    last = offset + (count - 1) * geometry.stride[axis]
    before, after = max(0, -offset), max(0, last - (size - 1))
    return before, after, offset + before, count


def activation_of(name: str | None) -> nn.Module | None:
    """The module of an activation's name.

    Raises:
        UsageError: a name that is not known.
    """
    if name is None:
        return None
    if name not in ACTIVATIONS:
        raise UsageError(f"unknown activation {name!r}", hint=f"None or one of: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
