"""Conv and ConvTranspose over one to three axes, with every padding that ONNX knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from edge4d.loading.onnx.node import Node, Unsupported
from edge4d.loading.onnx.registry import imports

__all__ = ["PaddedConv", "auto_pads", "padded", "split_pads"]

_CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_FUNCTIONS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def split_pads(node: Node, axes: int) -> tuple[list[int], list[int], str]:
    """(at the beginnings, at the ends, mode): mode is NOTSET, SAME_UPPER or SAME_LOWER."""
    mode = node.text("auto_pad", "NOTSET")
    pads = node.integers("pads") or [0] * (2 * axes)
    if len(pads) != 2 * axes:
        raise Unsupported(f"pads has {len(pads)} numbers for {axes} axes")
    if mode == "VALID":
        return [0] * axes, [0] * axes, "NOTSET"
    if mode not in ("NOTSET", "SAME_UPPER", "SAME_LOWER"):
        raise Unsupported(f"auto_pad={mode}")
    return pads[:axes], pads[axes:], mode


def auto_pads(
    mode: str, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Padding for which an axis of `size` gives ceil(size / stride): at the beginnings and at the ends."""
    begins, ends = [], []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        total = max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
        begin = total // 2 if mode == "SAME_UPPER" else total - total // 2
        begins.append(begin)
        ends.append(total - begin)
    return begins, ends


def padded(x: torch.Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> torch.Tensor:
    """`x` with that much of `value` around its last axes; negative numbers cut."""
    if not any(begins) and not any(ends):
        return x
    flat = [size for pair in zip(reversed(begins), reversed(ends), strict=True) for size in pair]
    return F.pad(x, flat, value=value)


class PaddedConv(nn.Module):
    """A convolution whose padding differs between begin and end, or hangs on the size of the input.

    Args:
        conv: without padding.
        begins, ends: one each axis.
        mode: NOTSET, or how the padding follows from the size.
    """

    def __init__(self, conv: nn.Module, begins: Sequence[int], ends: Sequence[int], mode: str) -> None:
        super().__init__()
        self.conv = conv
        self.begins, self.ends, self.mode = list(begins), list(ends), mode

    def pads(self, shape: Sequence[int]) -> tuple[list[int], list[int]]:
        """For an input of that shape (N, C, *sizes)."""
        if self.mode == "NOTSET":
            return self.begins, self.ends
        conv: Any = self.conv
        return auto_pads(self.mode, shape[2:], conv.kernel_size, conv.stride, conv.dilation)

    def plain(self, shape: Sequence[int]) -> nn.Module | None:
        """The same as one convolution of PyTorch at that shape; None where begin and end differ."""
        begins, ends = self.pads(shape)
        return _with_padding(self.conv, begins) if begins == ends else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, *sizes) → (N, K, *sizes)."""
        result: torch.Tensor = self.conv(padded(x, *self.pads(x.shape)))
        return result


def _with_padding(conv: Any, padding: Sequence[int]) -> nn.Module:
    """The same weights with another padding."""
    made = _bare(conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)
    made.train(conv.training)
    return made


def _bare(
    weight: nn.Parameter,
    bias: nn.Parameter | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> nn.Module:
    out_channels, per_group, *kernel = weight.shape
    made: Any = _CONVS[len(kernel)](
        per_group * groups, out_channels, tuple(kernel), tuple(stride), tuple(padding), tuple(dilation), groups,
        bias=bias is not None, device="meta",
    )  # fmt: skip
    made.weight = weight
    if bias is not None:
        made.bias = bias
    conv: nn.Module = made
    return conv


def _geometry(node: Node, weight_shape: Sequence[int] | None) -> tuple[list[int], list[int], list[int], int]:
    kernel = node.integers("kernel_shape") or (list(weight_shape[2:]) if weight_shape is not None else None)
    if kernel is None:
        raise Unsupported("neither kernel_shape nor a constant weight tells its kernel")
    axes = len(kernel)
    if weight_shape is not None and kernel != list(weight_shape[2:]):
        raise Unsupported(f"kernel_shape {kernel} is not that of the weight, {list(weight_shape[2:])}")
    if axes not in _CONVS:
        raise Unsupported(f"a convolution over {axes} axes", "PyTorch has them over one to three")
    stride, dilation = node.integers("strides") or [1] * axes, node.integers("dilations") or [1] * axes
    if len(stride) != axes or len(dilation) != axes:
        raise Unsupported(f"strides or dilations do not fit its {axes} axes")
    return kernel, stride, dilation, node.integer("group", 1)


@imports("Conv")
def _conv(node: Node) -> nn.Module | Callable[..., Any]:
    weight, bias = node.constant(1), node.constant(2)
    kernel, stride, dilation, groups = _geometry(node, weight.shape if weight is not None else None)
    begins, ends, mode = split_pads(node, len(kernel))
    if weight is not None and (bias is not None or not node.given(2)):
        own_bias = node.parameter(2) if bias is not None else None
        symmetric = mode == "NOTSET" and begins == ends
        made = _bare(node.parameter(1), own_bias, stride, begins if symmetric else [0] * len(kernel), dilation, groups)
        return made if symmetric else PaddedConv(made, begins, ends, mode)

    def run(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> Any:
        at = (begins, ends) if mode == "NOTSET" else auto_pads(mode, x.shape[2:], kernel, stride, dilation)
        return _FUNCTIONS[len(kernel)](padded(x, *at), w, b, stride, 0, dilation, groups)

    return run


@imports("ConvTranspose")
def _conv_transpose(node: Node) -> Callable[..., Any]:
    weight = node.constant(1)
    kernel, stride, dilation, groups = _geometry(node, weight.shape if weight is not None else None)
    axes = len(kernel)
    begins, ends, mode = split_pads(node, axes)
    extra = node.integers("output_padding") or [0] * axes
    wanted = node.integers("output_shape")
    if len(extra) != axes or (wanted is not None and len(wanted) != axes):
        raise Unsupported(f"output_padding or output_shape does not fit its {axes} axes")

    def run(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> Any:
        first, last = list(begins), list(ends)
        for i in range(axes):
            whole = stride[i] * (x.shape[2 + i] - 1) + extra[i] + dilation[i] * (kernel[i] - 1) + 1
            size = wanted[i] if wanted is not None else x.shape[2 + i] * stride[i] if mode != "NOTSET" else None
            if size is None:
                continue
            total = whole - size
            if total < 0:
                raise Unsupported(f"its output has {size} places where the kernel reaches {whole}")
            # of an odd number the larger half goes from the beginning, but for SAME_UPPER
            first[i] = total // 2 if mode == "SAME_UPPER" else total - total // 2
            last[i] = total - first[i]
        # PyTorch pads both sides alike; what is padded more at one end is a part of output_padding, or cut.
        both = [min(pair) for pair in zip(first, last, strict=True)]
        more = [e + p - q for e, p, q in zip(extra, both, last, strict=True)]
        cut = [p - q for p, q in zip(first, both, strict=True)]
        limit = [max(s, d) for s, d in zip(stride, dilation, strict=True)]
        inside = [max(0, m) for m in more]
        if any(m >= most for m, most in zip(inside, limit, strict=True)):
            raise Unsupported(f"output_padding {inside} is not below stride or dilation {limit}")
        y = _TRANSPOSED[axes](x, w, b, stride, both, inside, groups, dilation)
        for i in range(axes):
            size = y.shape[2 + i] - cut[i] + min(0, more[i])
            if size != y.shape[2 + i]:
                y = y.narrow(2 + i, cut[i], size)
        return y

    return run
