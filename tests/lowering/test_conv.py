"""Every attribute of a convolution, against float64 eager PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.lowering.harness import Fn, lowered_equals_eager, ops_of, randomise


def clip(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CONVS = {
    "plain": dict(kernel_size=3, padding=1),
    "no_padding": dict(kernel_size=3),
    "no_bias": dict(kernel_size=3, padding=1, bias=False),
    "asymmetric_kernel": dict(kernel_size=(2, 3, 5), padding=(0, 1, 2)),
    "one_tap": dict(kernel_size=(1, 3, 3), padding=(0, 1, 1)),
    "one_tap_time_stride": dict(kernel_size=(1, 3, 3), stride=(2, 1, 2), padding=(1, 0, 1)),
    "pointwise": dict(kernel_size=1),
    "pointwise_stride": dict(kernel_size=1, stride=2),
    "pointwise_padding": dict(kernel_size=1, padding=(1, 0, 2)),
    "temporal_only": dict(kernel_size=(3, 1, 1), padding=(1, 0, 0)),
    "temporal_only_stride": dict(kernel_size=(3, 1, 1), stride=(2, 2, 1), padding=(1, 1, 0)),
    "stride": dict(kernel_size=3, stride=(2, 1, 3), padding=1),
    "stride_beyond_kernel": dict(kernel_size=2, stride=3),
    "patches": dict(kernel_size=(2, 3, 2), stride=(2, 3, 1), groups=2),
    "dilation": dict(kernel_size=3, dilation=(2, 1, 2), padding=(2, 1, 2)),
    "dilation_stride": dict(kernel_size=3, dilation=(2, 2, 1), stride=2, padding=(3, 0, 1)),
    "padding_beyond_kernel": dict(kernel_size=2, padding=(4, 3, 2)),
    "same": dict(kernel_size=3, padding="same"),
    "same_even": dict(kernel_size=(4, 2, 3), padding="same"),
    "same_dilated": dict(kernel_size=(2, 3, 4), padding="same", dilation=(3, 2, 1)),
    "valid": dict(kernel_size=3, padding="valid"),
    "circular": dict(kernel_size=3, padding=(1, 2, 1), padding_mode="circular"),
    "replicate": dict(kernel_size=3, padding=(2, 1, 1), padding_mode="replicate"),
    "reflect": dict(kernel_size=3, padding=(1, 2, 1), padding_mode="reflect"),
    "reflect_same": dict(kernel_size=(3, 2, 4), padding="same", padding_mode="reflect"),
    "groups": dict(kernel_size=3, padding=1, groups=2),
    "depthwise": dict(kernel_size=3, padding=1, groups=4),
    "depthwise_temporal": dict(kernel_size=(5, 1, 1), padding=(2, 0, 0), groups=4),
    "long_kernel": dict(kernel_size=(7, 1, 3), padding=(3, 0, 1)),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", CONVS)
def test_conv3d(name, batch):
    module = randomise(nn.Conv3d(4, 8, **CONVS[name]))
    lowered = lowered_equals_eager(module, clip(batch, 4, 6, 7, 9))
    assert not any("conv3d" in op for op in ops_of(lowered))


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("name", ["plain", "long_kernel", "dilation", "temporal_only", "circular", "stride"])
def test_clip_shorter_than_the_kernel(name, frames):
    lowered_equals_eager(randomise(nn.Conv3d(4, 6, **CONVS[name])), clip(2, 4, frames, 7, 8))


def test_single_channel_single_pixel_and_unbatched():
    lowered_equals_eager(randomise(nn.Conv3d(1, 1, 3, padding=1)), clip(1, 1, 1, 1, 1))
    lowered_equals_eager(randomise(nn.Conv3d(1, 5, 3, padding=1)), clip(2, 1, 4, 1, 6))
    lowered_equals_eager(randomise(nn.Conv3d(3, 5, 3, padding=1)), clip(3, 4, 5, 6))


def test_one_frame_that_padding_makes_three():
    lowered_equals_eager(randomise(nn.Conv3d(4, 4, 3, padding=(2, 1, 1), groups=4)), clip(1, 4, 1, 5, 5))
    lowered_equals_eager(randomise(nn.Conv3d(32, 32, 3, padding=(2, 1, 1))), clip(2, 32, 1, 9, 9))


def test_every_window_in_the_padding_gives_the_bias():
    lowered_equals_eager(
        randomise(nn.Conv3d(2, 3, (1, 1, 1), stride=(4, 1, 1), padding=(3, 0, 0))), clip(1, 2, 1, 3, 3)
    )


def test_convolution_count_does_not_depend_on_time():
    counts = set()
    for frames in (4, 8, 16):
        lowered = lowered_equals_eager(randomise(nn.Conv3d(32, 4, 3, padding=1)), clip(1, 32, frames, 5, 5))
        counts.add(sum("conv2d" in op for op in ops_of(lowered)))
    assert counts == {1}


def test_functional_call_with_a_computed_weight():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2 * 3 * 27)

        def forward(self, x):
            weight = self.head(x.mean((0, 2, 3, 4))).view(2, 3, 3, 3, 3)
            return F.conv3d(x, weight, padding=1)

    lowered_equals_eager(randomise(Dynamic()), clip(2, 3, 4, 5, 6), tolerance=1e-11)


def test_weight_and_input_both_inputs():
    fn = Fn(lambda x, w, b: F.conv3d(x, w, b, stride=(1, 2, 1), padding=1, groups=2))
    lowered_equals_eager(fn, clip(2, 4, 3, 5, 5), clip(6, 2, 3, 3, 3), clip(6))


def test_shared_weight_is_stored_once():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(32, 32, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x))

    lowered = lowered_equals_eager(randomise(Shared()), clip(1, 32, 4, 4, 4))
    names = sorted(lowered.module.state_dict())
    assert len({name.rpartition(".")[2] for name in names if "weight" in name or "bias" in name}) == 1, names
    assert [name.rpartition(".")[0] for name in names if "weight" in name or "bias" in name] == [
        "conv.bias",
        "conv.weight",
    ]


def test_shared_weight_under_two_formulations():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 4, 3, 3, 3))

        def forward(self, x):
            return F.conv3d(x, self.weight), F.conv3d(x, self.weight, groups=1, stride=2), self.weight * 2

    lowered_equals_eager(randomise(Two()), clip(1, 4, 6, 7, 7))


TRANSPOSED = {
    "plain": dict(kernel_size=3),
    "double": dict(kernel_size=2, stride=2),
    "padding": dict(kernel_size=3, stride=2, padding=1),
    "output_padding": dict(kernel_size=3, stride=(2, 3, 2), padding=1, output_padding=(1, 2, 0)),
    "dilation": dict(kernel_size=3, dilation=(2, 1, 3), stride=(2, 1, 2), padding=(2, 1, 0)),
    "groups": dict(kernel_size=(3, 2, 4), stride=2, groups=2),
    "no_bias": dict(kernel_size=(1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1), bias=False),
    "output_padding_of_a_dilation": dict(kernel_size=2, dilation=(3, 2, 4), stride=(1, 1, 2), output_padding=(2, 1, 3)),
    "stride_beyond_kernel": dict(kernel_size=(2, 1, 2), stride=3, output_padding=2),
    "time_stride_only": dict(kernel_size=(4, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0)),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_conv_transpose3d(name, batch):
    lowered_equals_eager(randomise(nn.ConvTranspose3d(4, 6, **TRANSPOSED[name])), clip(batch, 4, 3, 4, 5))


@pytest.mark.parametrize("frames", [1, 2])
def test_conv_transpose3d_of_short_clips(frames):
    lowered_equals_eager(randomise(nn.ConvTranspose3d(2, 3, 3, stride=2, padding=1)), clip(1, 2, frames, 3, 3))


@pytest.mark.parametrize(
    "module", [nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), nn.ConvTranspose1d(4, 6, 3, stride=2)]
)
def test_conv1d(module):
    lowered_equals_eager(randomise(module), clip(2, 4, 11))


@pytest.mark.parametrize(
    "module", [nn.Conv2d(4, 6, (3, 2), padding="same"), nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1)]
)
def test_conv2d(module):
    lowered_equals_eager(randomise(module), clip(2, 4, 7, 8))


def test_conv2d_on_frames_moves_no_data():
    class FramesNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, padding=1)

        def forward(self, x):
            n, c, t, h, w = x.shape
            y = self.conv(x.transpose(1, 2).reshape(n * t, c, h, w))
            return y.view(n, t, 5, h, w).transpose(1, 2)

    lowered = lowered_equals_eager(randomise(FramesNet()), clip(2, 3, 4, 5, 6))
    assert ops_of(lowered) == ["aten.conv2d.default"]


@pytest.mark.parametrize("norm_affine", [True, False])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv3d(4, 6, 3, padding=1),
        nn.Conv3d(4, 6, 3, bias=False, groups=2),
        nn.ConvTranspose3d(4, 6, 2, stride=2, groups=2),
        nn.ConvTranspose3d(4, 6, 3, bias=False),
    ],
    ids=["conv", "grouped", "transposed_grouped", "transposed"],
)
def test_batch_norm_is_folded(conv, norm_affine):
    module = randomise(nn.Sequential(conv, nn.BatchNorm3d(6, affine=norm_affine), nn.ReLU()))
    lowered = lowered_equals_eager(module, clip(2, 4, 4, 5, 5), tolerance=1e-11)
    assert lowered.folded == 1
    assert not any("batch_norm" in op for op in ops_of(lowered))


def test_batch_norm_is_not_folded_where_the_convolution_has_another_reader():
    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv3d(2, 3, 3), nn.BatchNorm3d(3)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    assert lowered_equals_eager(randomise(Read()), clip(2, 2, 4, 5, 5)).folded == 0


@pytest.mark.parametrize(
    ("conv", "norm", "shape"),
    [
        (nn.Conv3d(3, 4, 3, padding=1), nn.BatchNorm2d(4), (3, 4, 6, 5)),
        (nn.ConvTranspose3d(3, 4, 3, padding=1), nn.BatchNorm2d(4), (3, 4, 6, 5)),
        (nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm1d(6), (3, 6, 5)),
    ],
)
def test_batch_norm_is_not_folded_where_there_is_no_batch(conv, norm, shape):
    """Then it goes by frames or rows, as many as there are channels here."""
    assert lowered_equals_eager(randomise(nn.Sequential(conv, norm)), clip(*shape)).folded == 0
