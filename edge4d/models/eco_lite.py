"""ECO-Lite as the paper modifies it (Table I), with any structure in place of its 3-D convolutions.

The 2D-Net is the first layers of Inception-V3 on every frame; the 3D-Net is the last three stages of 3D-ResNet18 on
the stacked features. Table I leaves open how its rows are to be read; Table II decides it. With 16 frames and a
multiply-accumulate counted as one operation:

- A stage is *two basic residual blocks, four 3×3×3 convolutions*. Three a stage, as the row ``[…] [… ]×2`` could be
  read, come to 24.5 M parameters and 25.9 G; the paper says 33.7 M and 35.6 G.
- *Each* stage has a 1×1×1 projection in its first shortcut, the first too, for its channels grow from 96 to 128. The
  convolutions then cost 35.606 G, the paper's 35.6; without projections 35.375 G. So the FLOPs of the paper are
  multiply-accumulates *of the 3D-Net alone*: the 2D-Net would nearly double them.
- Parameters are those of the *whole* network with 400 classes: 32.81 M of 3D-Net, 0.78 M of 2D-Net and 0.21 M of
  classifier are 33.79 M.
- Inception (3c) has 96 channels: as in ECO, the double 3×3 branch up to its first 3×3 convolution (64, then 96).

The structures replace the 3×3×3 convolutions; the two proposed ones replace the projections too. Proposed-Cat must,
since it doubles the channels of what it is added to. For Proposed-Add it comes nearer to the paper's 16.3 M and 17.1 G:
16.50 M and 17.26 G with, 16.00 M and 16.80 G without.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edge4d import blocks
from edge4d.errors import UsageError

__all__ = ["EcoLite", "Net2d", "Net3d", "eco_lite", "eco_lite_small"]

_OPTIONS: dict[str, dict[str, Any]] = {"proposed-cat": {"width": "full"}}
"""The paper's form of a structure, where the one that suits a trained network is another."""

_WIDENS = {"proposed-cat": 2}
"""How many times the channels of the Conv3d a structure gives."""

_PROJECTS = ("proposed-add", "proposed-cat")
"""Structures that stand in the shortcuts too."""

_MIN_FRAMES = 4
"""conv3D-2 and conv3D-3 halve the frames."""


class ConvUnit(nn.Sequential):
    """Conv2d without bias, batch norm, ReLU: what Inception-V3 is made of."""

    def __init__(self, channels: int, out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__(
            nn.Conv2d(channels, out, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(out, eps=1e-3),
            nn.ReLU(),
        )


class InceptionA(nn.Module):
    """Inception-V3's first module: (N, C, H, W) → (N, branches' sum, H, W).

    Args:
        channels: C.
        widths: output channels of the 1×1, 5×5, double 3×3 and pooled branches.
        reduced: channels after the 1×1 reductions of the 5×5 and double 3×3 branches.
    """

    def __init__(self, channels: int, widths: tuple[int, int, int, int], reduced: tuple[int, int]) -> None:
        super().__init__()
        one, five, double, pooled = widths
        self.single = ConvUnit(channels, one, 1)
        self.large = nn.Sequential(ConvUnit(channels, reduced[0], 1), ConvUnit(reduced[0], five, 5, padding=2))
        self.deep = nn.Sequential(
            ConvUnit(channels, reduced[1], 1),
            ConvUnit(reduced[1], double, 3, padding=1),
            ConvUnit(double, double, 3, padding=1),
        )
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), ConvUnit(channels, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.single(x), self.large(x), self.deep(x), self.pooled(x)), 1)


class Net2d(nn.Sequential):
    """Inception-V3 up to Inception (3c), frame by frame: (N·T, 3, 243, 243) → (N·T, 96, 28, 28).

    Args:
        width: multiplies every number of channels.
    """

    def __init__(self, width: float = 1.0) -> None:
        def w(channels: int) -> int:
            return max(1, round(channels * width))

        in_3b = w(64) + w(64) + w(96) + w(32)
        in_3c = w(64) + w(64) + w(96) + w(64)
        self.channels = w(96)
        super().__init__()
        layers = {
            "conv1": ConvUnit(3, w(32), 3, stride=2),
            "conv2": ConvUnit(w(32), w(32), 3),
            "conv3": ConvUnit(w(32), w(64), 3, padding=1),
            "pool1": nn.MaxPool2d(3, 2),
            "conv4": ConvUnit(w(64), w(80), 1),
            "conv5": ConvUnit(w(80), w(192), 3),
            "pool2": nn.MaxPool2d(3, 2),
            "inception_3a": InceptionA(w(192), (w(64), w(64), w(96), w(32)), (w(48), w(64))),
            "inception_3b": InceptionA(in_3b, (w(64), w(64), w(96), w(64)), (w(48), w(64))),
            "inception_3c": nn.Sequential(ConvUnit(in_3c, w(64), 1), ConvUnit(w(64), self.channels, 3, padding=1)),
        }
        for name, layer in layers.items():
            self.add_module(name, layer)


class Residual(nn.Module):
    """A basic block of ResNet: (N, C, T, H, W) → (N, S, T/stride, H/stride, W/stride).

    Args:
        structure: what its 3×3×3 convolutions are.
        channels: C.
        out: channels of each Conv3d; S is twice that for a structure that doubles them.
        stride: along T, H and W.
    """

    def __init__(self, structure: str, channels: int, out: int, stride: int) -> None:
        super().__init__()
        given = out * _WIDENS.get(structure, 1)
        self.conv1 = _convolution(structure, channels, out, 3, stride)
        self.bn1 = nn.BatchNorm3d(given)
        self.conv2 = _convolution(structure, given, out, 3, 1)
        self.bn2 = nn.BatchNorm3d(given)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != given:
            inside = structure if structure in _PROJECTS else "conv3d"
            self.shortcut = nn.Sequential(_convolution(inside, channels, out, 1, stride), nn.BatchNorm3d(given))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        result: Tensor = self.relu(y + self.shortcut(x))
        return result


def _convolution(structure: str, channels: int, out: int, kernel: int, stride: int) -> nn.Module:
    conv = nn.Conv3d(channels, out, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return blocks.get(structure).module_class.like(conv, **_OPTIONS.get(structure, {}))


class Net3d(nn.Module):
    """The last three stages of 3D-ResNet18 and the classifier: (N, 96, T, 28, 28) → (N, classes), logits.

    Args:
        structure: a name of `edge4d.blocks`.
        channels: of the input.
        widths: channels of conv3D-1, conv3D-2 and conv3D-3.
        classes: of the classifier.
    """

    def __init__(self, structure: str, channels: int, widths: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        stages = []
        for number, out in enumerate(widths):
            first = Residual(structure, channels, out, 1 if number == 0 else 2)
            channels = out * _WIDENS.get(structure, 1)
            stages.append(nn.Sequential(first, Residual(structure, channels, out, 1)))
        self.conv1, self.conv2, self.conv3 = stages
        self.fc = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        x = self.conv3(self.conv2(self.conv1(features)))
        logits: Tensor = self.fc(x.mean((2, 3, 4)))  # pool3 is as large as what it pools
        return logits


class EcoLite(nn.Module):
    """ECO-Lite: (N, 3, T, H, W) → (N, classes). Logits: the softmax of Table I is the loss's business.

    Attributes:
        structure: what stands in place of its 3-D convolutions.
        input_shape: (1, 3, T, H, W) that it was made for.
        net2d: the frames' part.
        net3d: the clip's part.
    """

    def __init__(self, structure: str, *, frames: int, classes: int, size: int, width: float) -> None:
        super().__init__()
        if frames < _MIN_FRAMES:
            raise UsageError(f"ECO-Lite takes clips of at least {_MIN_FRAMES} frames, got {frames}")
        blocks.get(structure)
        self.structure = structure
        self.input_shape = (1, 3, frames, size, size)
        self.net2d = Net2d(width)
        first, second, third = (max(1, round(channels * width)) for channels in (128, 256, 512))
        self.net3d = Net3d(structure, self.net2d.channels, (first, second, third), classes)

    def features(self, clip: Tensor) -> Tensor:
        """What the 3D-Net sees of a clip: (N, 3, T, H, W) → (N, 96, T, 28, 28)."""
        n, c, t, h, w = clip.shape
        frames = self.net2d(clip.transpose(1, 2).reshape(n * t, c, h, w))
        stacked: Tensor = frames.reshape(n, t, *frames.shape[1:]).transpose(1, 2)
        return stacked

    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.net3d(self.features(clip))
        return logits


def eco_lite(structure: str = "conv3d", *, frames: int = 16, classes: int = 400, size: int = 243) -> EcoLite:
    """ECO-Lite of Table I with random weights.

    Args:
        structure: a name of `edge4d.blocks`.
        frames: T of the clip, the paper's N; at least 4.
        classes: of the classifier; 400 as Kinetics has.
        size: H and W of the clip; 243 in the paper.

    Raises:
        UsageError: unknown structure, or too few frames.
    """
    return EcoLite(structure, frames=frames, classes=classes, size=size, width=1.0)


def eco_lite_small(structure: str = "conv3d", *, frames: int = 8, classes: int = 10, size: int = 83) -> EcoLite:
    """The same network an eighth as wide; its 3D-Net sees 8×8, 4×4 and 2×2 pixels. Arguments as for `eco_lite`."""
    return EcoLite(structure, frames=frames, classes=classes, size=size, width=0.125)
