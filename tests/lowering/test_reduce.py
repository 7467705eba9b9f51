"""Sums, means, extrema, norms and softmax over any axes against float64 eager."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.lowering.harness import Fn, lowered_equals_eager


def clip(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


REDUCTIONS = {
    "mean_space": lambda x: x.mean((3, 4)),
    "mean_time_space": lambda x: x.mean((2, 3, 4), keepdim=True),
    "mean_alternating": lambda x: x.mean((0, 2, 4)),
    "mean_channel": lambda x: x.mean(1),
    "mean_all": lambda x: x.mean(),
    "distance": lambda x: torch.dist(x, x.flip(1), 3) + torch.dist(x[:, 0], x.mean((0, 1))),
    "extrema_of_masks": lambda x: (x > 0).amax(1) & (x > -1).amin((1, 3), keepdim=True)[:, 0] | (x > 0).min(),
    "extrema_of_masks_with_places": lambda x: torch.cat([(x > 0).max(2)[0], (x < 0.3).min(2)[0]], 1),
    "sum": lambda x: x.sum((1, 3), keepdim=True),
    "sum_negative": lambda x: x.sum(-3),
    "amax": lambda x: x.amax((2, 4)),
    "amin": lambda x: x.amin(0),
    "max_dim": lambda x: x.max(2),
    "min_dim_keep": lambda x: x.min(1, keepdim=True),
    "max_all": lambda x: x.max(),
    "argmax": lambda x: x.argmax(2),
    "argmin_all": lambda x: x.argmin(),
    "prod": lambda x: x.prod(2),
    "var": lambda x: x.var((1, 3)),
    "std": lambda x: x.std(2, correction=0),
    "var_mean": lambda x: torch.var_mean(x, (0, 2, 4), keepdim=True),
    "logsumexp": lambda x: x.logsumexp((1, 2)),
    "norm2": lambda x: torch.linalg.vector_norm(x, dim=(2, 3)),
    "norm1": lambda x: torch.linalg.vector_norm(x, 1, dim=1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "any": lambda x: (x > 2).any(2),
    "all": lambda x: (x > -2).all(1, keepdim=True),
    "any_and_all_of_no_axes": lambda x: torch.any(x, dim=()) & torch.all(x > 0, dim=()),
    "sum_and_extrema_of_no_axes": lambda x: x.sum(dim=()) + x.amax(dim=()) - x.mean(dim=()),
    "cumsum": lambda x: x.cumsum(2),
    "softmax_channel": lambda x: x.softmax(1),
    "softmax_time": lambda x: F.softmax(x, 2),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "soft_argmin": lambda x: (x.softmax(2) * torch.arange(3, dtype=x.dtype).view(1, 1, 3, 1, 1)).sum(2),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, batch):
    lowered_equals_eager(Fn(REDUCTIONS[name]), clip(batch, 4, 3, 5, 6))


POOL, CONV = nn.MaxPool3d((1, 2, 2)), nn.Conv3d(3, 3, 3, padding=1)


@pytest.mark.parametrize(
    ("layers", "axes"),
    [
        ([POOL], [2, 3]),
        ([CONV, POOL, nn.ReLU(), Fn(lambda x: torch.cat([x, 2 * x[:, :, 1:3]], 2))], [2, 3]),
        ([nn.AvgPool3d((1, 2, 2)), Fn(lambda x: x.transpose(3, 4) + 1)], [2, 3]),
        ([CONV], [0, 2, 3]),
        ([POOL, CONV, nn.ReLU()], [0, 2, 3]),
    ],
    ids=["pool", "after a pool", "transposed", "conv", "conv after a pool"],
)
@pytest.mark.parametrize("head", [nn.AdaptiveAvgPool3d(1), Fn(lambda x: x.mean((2, 3, 4)))], ids=["pooled", "mean"])
def test_no_mean_of_what_a_pool_gave_goes_over_frames_and_places_at_once(layers, axes, head):
    """OpenVINO answers wrongly there from the second call on, where the CPU has AVX2 alone: docs/engines.md."""
    lowered = lowered_equals_eager(nn.Sequential(*layers, head), clip(1, 3, 6, 10, 10))
    means = [node.args[1] for node in lowered.module.graph.nodes if node.target is torch.ops.aten.mean.dim]
    assert means == [axes]
