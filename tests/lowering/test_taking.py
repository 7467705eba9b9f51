"""Frames into the graph: exact in float64, borders included, whether or not the numbers moved into the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edge4d.intake_options import Asked
from edge4d.lowered import lower
from tests.lowering.harness import RANGE, assert_close, ops_of, randomise

MEAN, STD = (0.43, 0.39, 0.37), (0.22, 0.25, 0.21)
PER_CHANNEL = {"mean": MEAN, "std": STD}


class Net(nn.Module):
    """A first convolution of any kind, and one behind it."""

    def __init__(self, first):
        super().__init__()
        self.first = first
        self.second = nn.Conv3d(6, 2, 1)

    def forward(self, clip):
        return self.second(self.first(clip).relu())


def taken(module, asked: Asked, shape=(2, 3, 4, 6, 5), fold="all"):
    """Lower for frames and hold the result against normalising, turning and running the module by hand."""
    module = randomise(module).double().eval()
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(numbers, dtype=torch.float64).view(3, 1, 1, 1) for numbers in (MEAN, STD))
    clip = (frames.double() / 255 - mean) / std
    lowered = lower(module, (clip,), asked=asked, fold=fold)
    (port,) = lowered.inputs
    given = frames.movedim(1, -1) if port.intake.last else frames
    with torch.no_grad():
        got = lowered.unpack(lowered.module(*lowered.pack(given)))
        expected = module(clip)
        assert_close(got, expected, RANGE)
        # The border is where a mean in the bias would show; were it not exact, this would see it.
        assert (expected[..., 0, 0] - got[..., 0, 0]).abs().max() <= RANGE * expected.abs().max()
    return lowered


def count(lowered, *names: str) -> list[int]:
    return [sum(name in op for op in ops_of(lowered)) for name in names]


@pytest.mark.parametrize(
    ("first", "shifts", "layout"),
    [
        (nn.Conv3d(3, 6, 3), 0, None),
        (nn.Conv3d(3, 6, 3, bias=False), 0, "nhwc"),
        (nn.Conv3d(3, 6, (1, 3, 3), stride=(1, 2, 2), groups=3), 0, None),
        (nn.Conv3d(3, 6, 3, padding=1), 1, "nhwc"),
        (nn.Conv3d(3, 6, 3, padding=(1, 0, 0), bias=False), 1, None),
        (nn.Conv3d(3, 6, 3, padding="same"), 1, "nhwc"),
        (nn.Conv3d(3, 6, 1, padding="same"), 0, None),
        (nn.Conv3d(3, 6, 3, padding="valid"), 0, "nhwc"),
        (nn.Sequential(nn.Conv3d(3, 6, 3), nn.BatchNorm3d(6)), 0, None),
        (nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.BatchNorm3d(6)), 1, "nhwc"),
    ],
    ids=lambda v: str(v)[:60],
)
def test_a_first_convolution_takes_up_all_that_is_exact(first, shifts, layout):
    lowered = taken(Net(first), Asked.of(PER_CHANNEL, layout))
    assert count(lowered, "aten.mul", "aten.sub", "_to_copy") == [0, shifts, 1]
    (port,) = lowered.inputs
    assert port.dtype == "uint8"
    assert port.packing == ("n t h w c -> (n t) h w c" if layout else "n c t h w -> (n t) c h w")


def test_a_mean_of_zero_leaves_nothing_behind_even_with_padding():
    module = randomise(Net(nn.Conv3d(3, 6, 3, padding=1))).double().eval()
    frames = torch.randint(0, 256, (1, 3, 4, 6, 5), dtype=torch.uint8)
    lowered = lower(module, (frames.double(),), asked=Asked.of("mean=0 std=0.25 scale=255"))
    with torch.no_grad():
        got = lowered.unpack(lowered.module(*lowered.pack(frames)))
        assert_close(got, module(frames.double() / 255 / 0.25), RANGE)
    assert count(lowered, "aten.mul", "aten.sub") == [0, 0]


class Shared(nn.Module):
    """The input has two readers: a convolution and something else."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 3, 3, padding=1)

    def forward(self, clip):
        return self.conv(clip) + clip


class Twice(nn.Module):
    """Two convolutions read the input; one of them pads, and they share a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 3, 1, 3, 3))

    def forward(self, clip):
        valid = nn.functional.conv3d(clip, self.weight)
        same = nn.functional.conv3d(clip, self.weight, padding=(0, 1, 1))
        return valid.mean((3, 4), keepdim=True) + same


class Padded(nn.Module):
    """The padding is an operator of its own, by something other than zero."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3)

    def forward(self, clip):
        return self.conv(nn.functional.pad(clip, (1, 1, 1, 1, 1, 1), value=0.5))


@pytest.mark.parametrize(("net", "products"), [(Shared, 1), (Padded, 1), (Twice, 0)])
def test_what_cannot_be_taken_up_is_one_product_and_one_difference(net, products):
    lowered = taken(net(), Asked.of(PER_CHANNEL))
    assert count(lowered, "aten.mul", "aten.sub") == [products, 1]


def test_how_much_is_taken_up_can_be_limited():
    assert count(taken(Net(nn.Conv3d(3, 6, 3)), Asked.of(PER_CHANNEL), fold="scale"), "aten.mul", "aten.sub") == [0, 1]
    assert count(taken(Net(nn.Conv3d(3, 6, 3)), Asked.of(PER_CHANNEL), fold="none"), "aten.mul", "aten.sub") == [1, 1]


def test_the_harness_sees_a_mean_in_the_bias_of_a_padded_convolution(monkeypatch):
    from edge4d.lowering import taking

    monkeypatch.setattr(taking._Taking, "_padded", lambda self, conv: False)
    with pytest.raises(AssertionError, match="of the output's range"):
        taken(Net(nn.Conv3d(3, 6, 3, padding=1)), Asked.of(PER_CHANNEL))


def test_another_order_alone_keeps_the_type():
    module = randomise(Net(nn.Conv3d(3, 6, 3, padding=1))).double().eval()
    clip = torch.randn(2, 3, 4, 6, 5, dtype=torch.float64)
    lowered = lower(module, (clip,), asked=Asked.of(None, "nhwc"))
    with torch.no_grad():
        got = lowered.unpack(lowered.module(*lowered.pack(clip.movedim(1, -1))))
        assert_close(got, module(clip), RANGE)
    (port,) = lowered.inputs
    assert (port.dtype, port.shape, port.physical) == ("float64", (2, 4, 6, 5, 3), (8, 6, 5, 3))


def test_pictures_are_taken_too():
    module = randomise(nn.Conv2d(3, 4, 3, padding=1)).double().eval()
    frames = torch.randint(0, 256, (2, 3, 6, 5), dtype=torch.uint8)
    lowered = lower(module, (frames.double(),), asked=Asked.of({"mean": 0.4, "std": 0.2, "scale": 128}, "nhwc"))
    with torch.no_grad():
        got = lowered.unpack(lowered.module(*lowered.pack(frames.movedim(1, -1))))
        assert_close(got, module((frames.double() / 128 - 0.4) / 0.2), RANGE)
    assert lowered.inputs[0].packing is None


def test_layers_keep_their_names():
    lowered = taken(Net(nn.Conv3d(3, 6, 3, padding=1)), Asked.of(PER_CHANNEL, "nhwc"))
    assert [layer.layer for layer in lowered.layers if layer.macs] == ["first", "second"]
    assert {value.layer for value in lowered.values} == {"first", "second"}
