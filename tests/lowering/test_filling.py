"""Channels filled up with zeros: where, where not, and that every number stays what it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edge4d.lowered import lower, plan
from edge4d.lowering import filling
from edge4d.planning import Planner
from tests.lowering.harness import lowered_equals_eager, randomise

CLIP = torch.randn(1, 4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """As x3d has it: widened to 18 channels, depthwise, squeezed and excited, and narrowed again."""

    def __init__(self, between: str = "squeeze", channels: int = 18):
        super().__init__()
        self.widen = nn.Conv3d(4, channels, 1)
        self.depthwise = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.BatchNorm3d(channels)
        self.down, self.up = nn.Conv3d(channels, 5, 1), nn.Conv3d(5, channels, 1)
        self.narrow = nn.Conv3d(channels, 4, 1)
        self.between = between
        self.scale = nn.Parameter(torch.ones(channels, 1, 1, 1))

    def forward(self, clip):
        x = self.norm(self.depthwise(torch.relu(self.widen(clip))))
        if self.between == "squeeze":
            x = x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3, 4), keepdim=True)))))
        elif self.between == "softmax":
            x = torch.softmax(x, 1)
        elif self.between == "parameter":
            x = x * self.scale
        elif self.between == "over channels":
            x = x + x.mean(1, keepdim=True)
        elif self.between == "reciprocal":
            x = 1 / x
        elif self.between == "output":
            return self.narrow(x * torch.sigmoid(x)), x
        return self.narrow(x * torch.sigmoid(x)) + clip


def shapes(module, **asked) -> dict[str, int]:
    layers = plan(module.eval(), (CLIP,), planner=Planner.of(**asked))
    return {layer.layer: layer.filled or layer.shape[1] for layer in layers if layer.macs}


def test_a_plan_shows_the_models_own_channels_and_says_what_they_are_filled_to():
    layers = {layer.layer: layer for layer in plan(Block().eval(), (CLIP,)) if layer.macs}
    assert layers["widen"].shape[1] == 18
    assert layers["widen"].why.endswith("; channels filled up to 20")
    assert layers["narrow"].filled is None
    assert "filled" not in layers["narrow"].why


def test_zeros_run_from_the_convolution_before_to_the_one_behind():
    found = shapes(Block())
    assert found == {"widen": 20, "depthwise": 20, "down": 5, "up": 20, "narrow": 4}
    lowered = lowered_equals_eager(randomise(Block()), CLIP)
    assert {value.layer for value in lowered.values} >= {"down", "narrow"}
    assert not {"widen", "depthwise", "up"} & {value.layer for value in lowered.values}, "they have other channels now"


@pytest.mark.parametrize("between", ["softmax", "parameter", "over channels", "reciprocal", "output"])
def test_what_would_see_the_zeros_prevents_them(between):
    module = Block(between)
    assert shapes(module)["depthwise"] == 18
    lowered_equals_eager(randomise(module), CLIP)


def test_a_multiple_of_four_and_other_runtimes_are_left_alone():
    assert shapes(Block(channels=20))["depthwise"] == 20
    assert shapes(Block(), runtime="onnxruntime")["depthwise"] == 20
    assert shapes(Block(), precision="int8")["depthwise"] == 18, "a kernel of zeros has no scale"
    for runtime in ("openvino", "tensorrt", "rknn"):
        assert shapes(Block(), runtime=runtime)["depthwise"] == 18


def test_the_models_own_weights_stay_as_they_are():
    module = randomise(Block())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    lower(module.eval(), (CLIP,))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_a_lost_column_would_be_noticed(monkeypatch):
    """Zeros that are none: the comparison of these tests must see them."""
    real = torch.Tensor.new_zeros
    monkeypatch.setattr(torch.Tensor, "new_zeros", lambda self, *shape: real(self, *shape) + 1)
    with pytest.raises(AssertionError, match="off by"):
        lowered_equals_eager(randomise(Block()), CLIP)
    assert filling.ALIGNED == 4
