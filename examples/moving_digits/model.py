"""A small network in the manner of C3D: stacks of Conv3d, batch norm, ReLU and max pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MovingDigits", "build"]


class MovingDigits(nn.Module):
    """Names the direction in which a digit moves.

    Args:
        classes: number of directions.
    """

    def __init__(self, classes: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _stage(1, 16, pool=(1, 2, 2)),  # early pooling leaves time alone, as in C3D
            _stage(16, 32, pool=(2, 2, 2)),
            _stage(32, 64, pool=(2, 2, 2)),
            _stage(64, 128, pool=(2, 2, 2)),
        )
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(128, classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Map clips (N, C=1, T=16, H=32, W=32) to scores (N, classes)."""
        features = self.pool(self.features(clip)).flatten(1)
        scores: Tensor = self.classifier(self.dropout(features))
        return scores


def build() -> MovingDigits:
    """The network with fresh weights: the factory that `edge4d --factory` calls."""
    return MovingDigits()


def _stage(inputs: int, outputs: int, pool: tuple[int, int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, kernel_size=3, padding=1, bias=False),  # the norm after it has the bias
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
        nn.MaxPool3d(pool),
    )
