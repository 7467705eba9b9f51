"""Weights change their order in memory and nothing else."""

from __future__ import annotations

import torch
from torch import nn

from edge4d.tuning.layout import channels_first, channels_last


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 4, (1, 3, 3)), nn.Flatten())


def test_there_and_back():
    network, clip = net(), torch.randn(2, 1, 4, 6, 6)
    before, given = {k: v.clone() for k, v in network.state_dict().items()}, network(clip)
    channels_last(network)
    assert all(m.weight.stride()[1] == 1 for m in network if isinstance(m, nn.Conv3d)), "one channel is no exception"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.allclose(network(clip), given, atol=1e-6)
    channels_first(network)
    assert all(value.is_contiguous() and torch.equal(value, before[k]) for k, value in network.state_dict().items())
    assert [p.stride() for p in network.parameters()] == [p.stride() for p in net().parameters()]
