"""What every structure's 2D-Net starts from: the part that ImageNet's weights play in the paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.accuracy import digits
from benchmarks.accuracy.clips import normalised
from benchmarks.accuracy.optimizing import Optimizing
from edge4d import models
from edge4d.errors import UsageError
from edge4d.tuning.checkpoints import read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.accuracy.config import Network, Start

__all__ = ["from_inception", "start_of"]

_LAYERS = {
    "conv1": "Conv2d_1a_3x3",
    "conv2": "Conv2d_2a_3x3",
    "conv3": "Conv2d_2b_3x3",
    "conv4": "Conv2d_3b_1x1",
    "conv5": "Conv2d_4a_3x3",
    "inception_3c.0": "Mixed_5d.branch3x3dbl_1",
    "inception_3c.1": "Mixed_5d.branch3x3dbl_2",
}
_BRANCHES = {
    "single": "branch1x1",
    "large.0": "branch5x5_1",
    "large.1": "branch5x5_2",
    "deep.0": "branch3x3dbl_1",
    "deep.1": "branch3x3dbl_2",
    "deep.2": "branch3x3dbl_3",
    "pooled.1": "branch_pool",
}
for _own, _theirs in (("inception_3a", "Mixed_5b"), ("inception_3b", "Mixed_5c")):
    _LAYERS |= {f"{_own}.{mine}": f"{_theirs}.{other}" for mine, other in _BRANCHES.items()}


def start_of(start: Start, network: Network, folder: Path, told: Callable[[str], None]) -> dict[str, Tensor] | None:
    """The 2D-Net's first weights; None for random ones.

    Args:
        start: which.
        network: whose 2D-Net.
        folder: where trained ones are kept, so that a second recipe starts from the same.
        told: hears how the training on stills goes.

    Raises:
        UsageError: weights that cannot be read, or do not fit.
    """
    if start.weights is not None:
        return _from_file(Path(start.weights))
    if not start.stills:
        return None
    identity = {**vars(start), "network": network.model, "size": network.size}
    kept = folder / "start.pt"
    if kept.exists():
        state: dict[str, Tensor] = read_checkpoint(kept, {"start": identity})["net2d"]
        return state
    state, accuracy = _on_stills(start, network, told)
    write_checkpoint(kept, {"identity": {"start": identity}, "net2d": state, "accuracy": accuracy})
    return state


def from_inception(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """The 2D-Net's weights from torchvision's Inception-V3, of which it is the first layers.

    Raises:
        UsageError: they are not of that network.
    """
    pairs = {"0.weight": "conv.weight"}
    pairs |= {f"1.{k}": f"bn.{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    found: dict[str, Tensor] = {}
    for own, theirs in _LAYERS.items():
        for mine, other in pairs.items():
            if f"{theirs}.{other}" not in weights:
                raise UsageError(f"the weights hold no {theirs}.{other}, so they are not torchvision's Inception-V3")
            found[f"{own}.{mine}"] = weights[f"{theirs}.{other}"]
    return found


def _from_file(path: Path) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever a broken archive makes it raise
        raise UsageError(f"{path}: cannot be read as weights: {str(error).splitlines()[0][:200]}") from error
    return weights if "conv1.0.weight" in weights else from_inception(weights)


def _on_stills(start: Start, network: Network, told: Callable[[str], None]) -> tuple[dict[str, Tensor], float]:
    """Learn to name the digit in single frames; the head is thrown away."""
    torch.manual_seed(0)
    net2d = models.build(network.model, frames=network.frames).net2d
    namer = nn.Sequential(net2d, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(net2d.channels, 10))
    frames, labels = digits.stills(start.stills, 3, test=False)
    steps_each = len(frames) // start.batch
    optimizing = Optimizing(namer, start.rate, 1e-2, start.epochs * steps_each)
    rng = np.random.default_rng(0)
    namer.train()
    for epoch in range(start.epochs):
        order, total = rng.permutation(len(frames)), 0.0
        for step in range(steps_each):
            chosen = order[step * start.batch : (step + 1) * start.batch]
            rolled = np.roll(frames[chosen], rng.integers(digits.SIZE, size=2), (1, 2))
            total += optimizing.step(F.cross_entropy(namer(_colour(rolled)), torch.from_numpy(labels[chosen])))
        told(f"2D-Net on stills: epoch {epoch + 1}/{start.epochs}, loss {total / steps_each:.3f}")
    frames, labels = digits.stills(1000, 4, test=True)
    namer.eval()
    with torch.no_grad():
        named = torch.cat([namer(_colour(frames[i : i + 50])).argmax(1) for i in range(0, len(frames), 50)])
    accuracy = float((named.numpy() == labels).mean())
    told(f"2D-Net on stills: names the digit in {accuracy:.1%} of the test frames")
    return net2d.state_dict(), accuracy


def _colour(frames: np.ndarray) -> Tensor:
    """(N, H, W) → (N, 3, H, W)."""
    return normalised(frames).unsqueeze(1).expand(-1, 3, -1, -1)
