"""A small network in the manner of r3d_18, trained on the hard digits: the second network that tuning is judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.accuracy import digits
from benchmarks.accuracy.optimizing import Optimizing
from edge4d.tuning.checkpoints import read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SmallR3d", "as_clips", "trained"]

WIDTHS = (16, 32, 64)
BATCH, RATE, DECAY = 32, 4e-3, 1e-2
STEPS = 1500
DRAWN = 32 * 50  # clips drawn at once
_SEED = 1_000  # of the first drawing; tuning's and the test's clips have other seeds


class SmallR3d(nn.Module):
    """Stem and basic blocks of r3d_18, an eighth as wide: (N, 1, 8, 64, 64) → (N, classes)."""

    def __init__(self, classes: int = len(digits.SETS["source"].classes)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(1, WIDTHS[0], (3, 7, 7), (1, 4, 4), (1, 3, 3), bias=False), nn.BatchNorm3d(WIDTHS[0]), nn.ReLU()
        )
        stages: list[nn.Module] = []
        channels = WIDTHS[0]
        for number, width in enumerate(WIDTHS):
            stages += [_Block(channels, width, 1 if number == 0 else 2), _Block(width, width, 1)]
            channels = width
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(channels, classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Scores."""
        scores: Tensor = self.fc(self.stages(self.stem(clip)).mean((2, 3, 4)))
        return scores


class _Block(nn.Module):
    """A basic block: two 3×3×3 convolutions and the shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv3d(channels, width, 1, stride, bias=False), nn.BatchNorm3d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def as_clips(clips: NDArray[Any]) -> Tensor:
    """Drawn clips (N, T, H, W) as the network takes them: (N, 1, T, H, W), float32."""
    return torch.from_numpy(clips).unsqueeze(1).float() / 255


def trained(folder: Path, told: Callable[[str], None], steps: int = STEPS) -> nn.Module:
    """The network, trained on ever new clips of the source set; kept in `folder`.

    Raises:
        UsageError: what is kept there is something else.
        ExportError: it cannot be written.
    """
    network = SmallR3d()
    kept, identity = folder / "small-r3d.pt", {"small-r3d": {"steps": steps, "rate": RATE}}
    if kept.exists():
        network.load_state_dict(read_checkpoint(kept, identity)["weights"])
        return network.eval()
    torch.manual_seed(0)
    network = SmallR3d().train()
    optimizing = Optimizing(network, RATE, DECAY, steps)
    total = 0.0
    for step in range(steps):
        if step * BATCH % DRAWN == 0:
            seed = _SEED + step * BATCH // DRAWN
            clips, labels = digits.draw(digits.SETS["source"], DRAWN, seed, test=False)
        at = step * BATCH % DRAWN
        chosen = slice(at, at + BATCH)
        loss = F.cross_entropy(network(as_clips(clips[chosen])), torch.from_numpy(labels[chosen]))
        total += optimizing.step(loss)
        if (step + 1) % 50 == 0:
            told(f"small r3d: step {step + 1}/{steps}, loss {total / 50:.3f}")
            total = 0.0
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(kept, {"identity": identity, "weights": network.state_dict()})
    return network.eval()
