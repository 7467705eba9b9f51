"""Sums of two convolutions name the one that is computed last first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edge4d.lowered import lower
from edge4d.lowering.sums import later_first
from edge4d.planning import Planner
from tests.lowering.harness import lowered_equals_eager, randomise

CLIP = torch.randn(1, 4, 2, 6, 6, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self, shortcut: bool = True):
        super().__init__()
        self.shortcut = nn.Conv3d(4, 4, 1) if shortcut else nn.Identity()
        self.branch = nn.Sequential(nn.Conv3d(4, 8, 1), nn.ReLU(), nn.Conv3d(8, 4, 1))

    def forward(self, clip):
        return self.shortcut(clip) + self.branch(clip)


def first_of_sum(lowered) -> str:
    (node,) = [node for node in lowered.module.graph.nodes if node.target is torch.ops.aten.add.Tensor]
    return node.args[0].meta["edge4d"].layer


@pytest.mark.parametrize(
    ("runtime", "first"), [(None, "branch.2"), ("onnxruntime", "branch.2"), ("openvino", "shortcut")]
)
def test_the_later_convolution_comes_first(runtime, first):
    assert first_of_sum(lower(Block().eval(), (CLIP,), planner=Planner.of(runtime))) == first


def test_numbers_stay_and_other_sums_too():
    lowered = lowered_equals_eager(randomise(Block()), CLIP)
    assert later_first(lowered.module.graph) == 0, "it is turned already"
    plain = lowered_equals_eager(randomise(Block(shortcut=False)), CLIP)
    (node,) = [node for node in plain.module.graph.nodes if node.target is torch.ops.aten.add.Tensor]
    assert node.args[0].op != "call_function" or "conv2d" not in str(node.args[0].target)
