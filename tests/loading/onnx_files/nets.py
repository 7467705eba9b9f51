"""Small networks of the families that reach us as ONNX files."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """The layout of r3d_18, small."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(outputs)
        self.down = None
        if stride != 1 or inputs != outputs:
            self.down = nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))


def r3d():
    return nn.Sequential(
        nn.Conv3d(3, 8, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(8), nn.ReLU(),
        Residual(8, 16, 2), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


class X3d(nn.Module):
    """A depthwise bottleneck with squeeze and excitation, as in X3D."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.expand = nn.Conv3d(8, 16, 1)
        self.depthwise = nn.Conv3d(16, 16, 3, padding=1, groups=16)
        self.norm = nn.BatchNorm3d(16)
        self.squeeze, self.excite = nn.Conv3d(16, 4, 1), nn.Conv3d(4, 16, 1)
        self.project = nn.Conv3d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = self.norm(self.depthwise(F.relu(self.expand(x))))
        gate = self.excite(F.relu(self.squeeze(y.mean((2, 3, 4), keepdim=True)))).sigmoid()
        y = self.project(F.silu(y * gate)) + x
        return self.head(F.avg_pool3d(y, (4, 8, 8)).flatten(1)).softmax(-1)


class Attention(nn.Module):
    """Pooling attention over tokens of a clip, as in MViT."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv3d(3, 16, (2, 4, 4), (2, 4, 4))
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.norm = nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.pool = nn.Conv3d(4, 4, 3, (1, 2, 2), 1, groups=4)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        n, (t, h, w) = x.shape[0], (x.shape[2] // 2, x.shape[3] // 4, x.shape[4] // 4)
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(n, -1, -1), x], 1)
        q, k, v = self.qkv(self.norm(x)).reshape(n, -1, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)

        def pooled(tokens):
            first, rest = tokens[:, :, :1], tokens[:, :, 1:]
            clip = rest.reshape(n * 4, t, h, w, 4).permute(0, 4, 1, 2, 3)
            return torch.cat([first, self.pool(clip).flatten(2).transpose(1, 2).reshape(n, 4, -1, 4)], 2)

        attention = ((q * 0.5) @ pooled(k).transpose(-2, -1)).softmax(-1)
        x = x + self.out((attention @ pooled(v)).transpose(1, 2).reshape(n, -1, 16))
        x = x + self.mlp(self.norm(x))
        return self.head(x[:, 0])


class Volume(nn.Module):
    """A 3-D U-Net of one level, with what segmentation has and the others lack."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv3d(1, 4, 3, 2, 1), nn.InstanceNorm3d(4, affine=True), nn.PReLU(4))
        self.up = nn.ConvTranspose3d(4, 4, 2, 2)
        self.skip = nn.Conv3d(1, 4, 3, padding=1, padding_mode="replicate")
        self.head = nn.Conv3d(8, 2, 1)

    def forward(self, x):
        low = self.down(x)
        wide = F.interpolate(low, scale_factor=2, mode="trilinear", align_corners=False)
        fine = F.interpolate(low, scale_factor=2, mode="nearest")
        return self.head(torch.cat([self.up(low) + wide * fine, self.skip(x)], 1)), low.amax(1)


def eco():
    from edge4d import models

    return models.build("eco-lite", "conv3d", frames=4)
