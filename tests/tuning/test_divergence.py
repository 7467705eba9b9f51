"""Which layer was the first to give no finite number."""

from __future__ import annotations

import torch
from torch import nn

from edge4d.tuning.divergence import first_not_finite


class Log(nn.Module):
    def forward(self, x):
        return torch.log(x), x


def net():
    return nn.Sequential(nn.ReLU(), nn.Sequential(nn.Identity(), Log()))


def test_it_is_found_in_any_part_of_a_batch():
    good, bad = torch.ones(2, 3), torch.full((2, 3), -1.0)  # the logarithm of ReLU's 0 is not finite
    assert first_not_finite(net(), [good, good]) == ""
    assert first_not_finite(net(), [bad, good]) == "1.1"
    assert first_not_finite(net(), [good, bad]) == "1.1"


def test_nothing_is_left_behind():
    network = net()
    first_not_finite(network, [torch.ones(2, 3)])
    assert not any(m._forward_hooks for m in network.modules())
