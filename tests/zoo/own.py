"""Small networks of shapes that papers made common and no library on PyPI builds: stereo, temporal tricks, volumes.

They are written as their authors' code writes them: slice assignment, stack, grid_sample, gather.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "ConvLstmHead",
    "CorrelationStereo",
    "GridWarp",
    "NonLocal3d",
    "PsmNet",
    "RaftLookup",
    "TemporalConv1d",
    "TemporalDifference",
    "TemporalShift",
    "TopKFrames",
]


class PsmNet(nn.Module):
    """Concatenation cost volume by slice assignment, 3-D hourglass, trilinear upsampling, soft-argmin (PSMNet)."""

    def __init__(self, channels: int = 8, disparities: int = 16) -> None:
        super().__init__()
        self.disparities = disparities
        self.features = nn.Sequential(
            nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, 1), nn.BatchNorm2d(channels)
        )
        wide = 2 * channels
        self.inlet = nn.Sequential(nn.Conv3d(wide, channels, 3, padding=1, bias=False), nn.BatchNorm3d(channels))
        self.down = nn.Sequential(
            nn.Conv3d(channels, wide, 3, 2, 1, bias=False),
            nn.BatchNorm3d(wide),
            nn.ReLU(),
            nn.Conv3d(wide, wide, 3, 1, 1),
        )
        self.up = nn.Sequential(
            nn.ConvTranspose3d(wide, channels, 3, 2, 1, output_padding=1, bias=False), nn.BatchNorm3d(channels)
        )
        self.head = nn.Conv3d(channels, 1, 3, padding=1, bias=False)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Map two images (N, 3, H, W) to disparities (N, H, W)."""
        one, other = self.features(left), self.features(right)
        n, c, h, w = one.shape
        depth = self.disparities // 4
        cost = one.new_zeros(n, 2 * c, depth, h, w)
        for i in range(depth):
            if i == 0:
                cost[:, :c, i], cost[:, c:, i] = one, other
            else:
                cost[:, :c, i, :, i:] = one[:, :, :, i:]
                cost[:, c:, i, :, i:] = other[:, :, :, :-i]
        cost = F.relu(self.inlet(cost.contiguous()))
        cost = F.relu(self.up(self.down(cost)) + cost)
        size = (self.disparities, left.shape[2], left.shape[3])
        volume = F.interpolate(self.head(cost), size, mode="trilinear", align_corners=False).squeeze(1)
        places = torch.arange(self.disparities, dtype=volume.dtype, device=volume.device).view(1, -1, 1, 1)
        return (F.softmax(volume, 1) * places).sum(1)


class CorrelationStereo(nn.Module):
    """Group-wise correlation volume by stack (GwcNet), top-k soft-argmin by gather (CoEx)."""

    def __init__(self, channels: int = 8, groups: int = 4, disparities: int = 8) -> None:
        super().__init__()
        self.groups, self.disparities = groups, disparities
        self.features = nn.Conv2d(3, channels, 3, 2, 1)
        self.prior = nn.Parameter(torch.linspace(0.5, -0.5, disparities).view(1, -1, 1, 1))  # no two levels tie
        self.filter = nn.Sequential(nn.Conv3d(groups, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 1, 3, padding=1))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Map two images (N, 3, H, W) to disparities (N, 1, H/2, W/2)."""
        one, other = self.features(left), self.features(right)
        n, c, h, w = one.shape
        levels = []
        for i in range(self.disparities):
            shifted = F.pad(other, (i, 0))[..., :w]
            levels.append((one * shifted).view(n, self.groups, c // self.groups, h, w).mean(2))
        volume = self.filter(torch.stack(levels, 2)).squeeze(1) + self.prior
        best, places = torch.topk(volume, 2, dim=1)
        values = torch.arange(self.disparities, dtype=volume.dtype).view(1, -1, 1, 1).expand_as(volume)
        return (best.softmax(1) * values.gather(1, places)).sum(1, keepdim=True)


class GridWarp(nn.Module):
    """Warps frames by a predicted flow, and a volume by a predicted affine map (STN, VoxelMorph)."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = nn.Conv3d(2, 3, 3, padding=1)

    def forward(self, volume: Tensor) -> Tensor:
        """Map (N, 2, D, H, W) to the volume warped by its own flow, of the same shape."""
        d, h, w = volume.shape[2:]
        axes = [torch.linspace(-1, 1, size) for size in (w, h, d)]
        identity = torch.stack(torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")[::-1], -1).to(volume)
        grid = identity + 0.1 * self.flow(volume).permute(0, 2, 3, 4, 1).tanh()
        return F.grid_sample(volume, grid, mode="bilinear", padding_mode="border", align_corners=True)


class RaftLookup(nn.Module):
    """All-pairs correlation and its lookup by 4-D grid_sample (RAFT)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, 4, 1)
        self.update = nn.Conv2d(9, 2, 3, padding=1)

    def forward(self, clip: Tensor) -> Tensor:
        """Map a clip (N, 3, 2, H, W) to flow (N, 2, H/4, W/4)."""
        one, other = self.features(clip[:, :, 0]), self.features(clip[:, :, 1])
        n, c, h, w = one.shape
        volume = torch.einsum("ncij,ncxy->nijxy", one, other) / c**0.5
        volume = volume.reshape(n * h * w, 1, h, w)
        ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        coordinates = torch.stack([xs, ys], -1).to(clip).reshape(h * w, 1, 1, 2)
        steps = torch.stack(torch.meshgrid(torch.arange(-1, 2), torch.arange(-1, 2), indexing="ij"), -1).to(clip)
        flow = torch.zeros(n, 2, h, w)
        for _ in range(2):
            shift = flow.permute(0, 2, 3, 1).reshape(n * h * w, 1, 1, 2)
            at = coordinates.repeat(n, 1, 1, 1) + shift + steps.view(1, 3, 3, 2)
            grid = 2 * at / torch.tensor([w - 1, h - 1]).to(clip) - 1
            sampled = F.grid_sample(volume, grid, align_corners=True).view(n, h, w, 9).permute(0, 3, 1, 2)
            flow = flow + self.update(sampled)
        return flow


class TemporalShift(nn.Module):
    """TSM as its authors write it: views by segment, slice assignment into zeros, 2-D convolutions."""

    def __init__(self, segments: int = 8, channels: int = 16) -> None:
        super().__init__()
        self.segments = segments
        self.stem = nn.Conv2d(3, channels, 3, 2, 1)
        self.block = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.head = nn.Linear(channels, 10)

    def shift(self, x: Tensor) -> Tensor:
        nt, c, h, w = x.size()
        x = x.view(nt // self.segments, self.segments, c, h, w)
        fold = c // 8
        out = torch.zeros_like(x)
        out[:, :-1, :fold] = x[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
        return out.view(nt, c, h, w)

    def forward(self, clip: Tensor) -> Tensor:
        """Map (N, 3, T, H, W) to the mean score of the segments (N, 10)."""
        n = clip.shape[0]
        x = clip.transpose(1, 2).flatten(0, 1)
        x = self.block(self.shift(self.stem(x))) + self.block(self.stem(x))
        return self.head(x.mean((2, 3))).view(n, self.segments, -1).mean(1)


class TemporalDifference(nn.Module):
    """Frame differences, causal padding, running sums and maxima along time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 8, (3, 3, 3), padding=(0, 1, 1))

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Map (N, 3, T, H, W) to a mapping of three tensors over time."""
        moved = clip[:, :, 1:] - clip[:, :, :-1]
        x = self.conv(F.pad(moved, (0, 0, 0, 0, 2, 0)))
        seen = x.mean((3, 4))
        best, _ = seen.cummax(2)
        return {"diff": torch.diff(x, dim=2), "sum": seen.cumsum(2), "best": best, "decay": seen.sigmoid().cumprod(2)}


class ConvLstmHead(nn.Module):
    """A 3-D stem, then recurrent heads over time: a bidirectional two-layer LSTM and a GRU."""

    def __init__(self, channels: int = 8, hidden: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, channels, 3, (1, 2, 2), 1)
        self.lstm = nn.LSTM(channels, hidden, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(2 * hidden, hidden)
        self.head = nn.Linear(hidden, 5)

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, 3, T, H, W) to scores by frame (N, T, 5) and the last state (N, hidden)."""
        x = self.stem(clip).mean((3, 4)).transpose(1, 2)
        x, _ = self.lstm(x)
        x, last = self.gru(x.transpose(0, 1))
        return self.head(x).transpose(0, 1), last[-1]


class NonLocal3d(nn.Module):
    """The embedded-Gaussian block with a pooled key (Non-local networks)."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        inner = channels // 2
        self.stem = nn.Conv3d(3, channels, 3, (1, 2, 2), 1)
        self.theta, self.phi, self.g = (nn.Conv3d(channels, inner, 1) for _ in range(3))
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.out = nn.Sequential(nn.Conv3d(inner, channels, 1), nn.BatchNorm3d(channels))

    def forward(self, clip: Tensor) -> Tensor:
        """Map (N, 3, T, H, W) to features of the stem's shape."""
        x = self.stem(clip)
        n, _, t, h, w = x.shape
        theta = self.theta(x).flatten(2).transpose(1, 2)
        phi, g = self.pool(self.phi(x)).flatten(2), self.pool(self.g(x)).flatten(2).transpose(1, 2)
        y = torch.matmul(torch.matmul(theta, phi).softmax(-1), g)
        return self.out(y.transpose(1, 2).reshape(n, -1, t, h, w)) + x


class TopKFrames(nn.Module):
    """Scores the frames, keeps the best by gather (frame selection), in the order of their scores by sort."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 6, 3, (1, 2, 2), 1)

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (N, 3, T, H, W) to the best frames' features (N, 6, 3, H/2, W/2), their places and all scores sorted."""
        x = self.stem(clip)
        scores = x.mean((1, 3, 4))
        _, places = scores.topk(3, dim=1)
        index = places[:, None, :, None, None].expand(-1, x.shape[1], -1, *x.shape[3:])
        ordered, _ = scores.sort(1, descending=True)
        return x.gather(2, index), places, ordered


class TemporalConv1d(nn.Module):
    """2-D convolutions by frame, 1-D ones along time, a weighted sum by einsum (TCN, TAM)."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.frame = nn.Conv2d(3, channels, 3, 2, 1)
        self.tcn = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=2, dilation=2), nn.BatchNorm1d(channels), nn.ReLU()
        )
        self.gate = nn.Conv1d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, clip: Tensor) -> Tensor:
        """Map (N, 3, T, H, W) to (N, C, H/2, W/2): frames weighted along time by their own channels."""
        n, _, t, _, _ = clip.shape
        x = self.frame(clip.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, t)).transpose(1, 2)
        weights = self.gate(self.tcn(x.mean((-2, -1)))).softmax(-1)
        return torch.einsum("ncthw,nct->nchw", x, weights)
