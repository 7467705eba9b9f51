"""What is lowered for runtimes that hold convolutions with channels last: the same numbers, and cuts that are views."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional as F

from edge4d.lowered import lower
from edge4d.lowering import builder
from edge4d.lowering.channels_last import bridge, frames_groups, is_plane
from edge4d.lowering.conv.rules import FORMULATIONS
from edge4d.lowering.joins import activations_before_joins
from edge4d.packing import Packing
from edge4d.planning import Planner
from tests.lowering.harness import Fn, assert_close, ops_of, randomise

aten = torch.ops.aten

OPENVINO = Planner.of("openvino")


def openvino_equals_eager(module, *args, tolerance=1e-12, planner=OPENVINO):
    """As `lowered_equals_eager`, for OpenVINO."""
    module, args = module.double().eval(), tuple(arg.double() for arg in args)
    lowered = lower(module, args, planner=planner)
    with torch.no_grad():
        assert_close(lowered.unpack(lowered.module(*lowered.pack(*args))), module(*args), tolerance)
    return lowered


def forced(formulation, module, *args):
    """Lowered with one formulation, checked, and that it was taken."""
    lowered = openvino_equals_eager(module, *args, planner=Planner.of("openvino", [formulation]))
    assert formulation in {layer.becomes for layer in lowered.layers if layer.macs}
    return lowered


axis = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2))


@settings(max_examples=40)
@given(
    st.tuples(axis, axis, axis),
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from([(1, 1, 1), (4, 2, 1), (4, 4, 2), (3, 3, 3)]),
    st.sampled_from([name for name in FORMULATIONS if name not in ("phases", "interleaved")]),
    st.integers(1, 2),
    st.booleans(),
)
def test_random_convolutions(axes, sizes, channels, formulation, batch, bias):
    kernel, stride, padding, dilation = zip(*axes, strict=True)
    reach = [size + 2 * p - d * (k - 1) for size, k, p, d in zip(sizes, kernel, padding, dilation, strict=True)]
    assume(min(reach) >= 1)
    before = builder.choose
    builder.choose = lambda spec, *_: formulation if FORMULATIONS[formulation].applies(spec) is None else "taps"
    try:
        fan_in, fan_out, groups = channels
        module = nn.Conv3d(fan_in, fan_out, kernel, stride, padding, dilation, groups, bias)
        clip = torch.randn(batch, fan_in, *sizes, generator=torch.Generator().manual_seed(1))
        openvino_equals_eager(nn.Sequential(randomise(module), nn.SiLU()), clip)
    finally:
        builder.choose = before


class Residual(nn.Module):
    """What video networks are made of: kernels of one tap and of several, a sum, a gate, a pool."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv3d(4, 8, 1)
        self.depthwise = nn.Conv3d(8, 8, 3, padding=1, groups=8)
        self.temporal = nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0))
        self.second = nn.Conv3d(8, 8, 3, padding=1)
        self.pool = nn.MaxPool3d(3, stride=(1, 2, 2), padding=1)

    def forward(self, clip):
        x = torch.relu(self.first(clip))
        y = self.depthwise(x)
        y = y * torch.sigmoid(y.mean((2, 3, 4), keepdim=True))
        y = self.temporal(y * torch.sigmoid(y)) + x
        return self.pool(torch.relu(self.second(torch.relu(y))))


@pytest.mark.parametrize("formulation", ["ranges", "padded", "taps", "temporal", "winograd-2", "winograd-4", "stacked"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_network(formulation, batch):
    clip = torch.randn(batch, 4, 6, 8, 7, generator=torch.Generator().manual_seed(0))
    forced(formulation, randomise(Residual()), clip)


def test_a_tap_reads_every_piece_that_it_cuts():
    clip = torch.randn(1, 4, 7, 5, 6)
    lowered = forced("ranges", randomise(nn.Conv3d(4, 4, (5, 3, 3), padding=(2, 1, 1), groups=4)), clip)
    nodes = lowered.module.graph.nodes
    cuts = [node for node in nodes if node.target is aten.split_with_sizes.default]
    assert len(cuts) == 5
    for cut in cuts:
        assert {user.args[1] for user in cut.users} == set(range(len(cut.args[1])))
        assert all(user.target is operator.getitem for user in cut.users)
        assert len(cut.meta["val"][0].shape) == 2  # frames first, so that pieces are views


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_zero_frames_are_zero_whatever_the_clip(value):
    """A frame that is not finite spoils the results that see it, and no others."""
    module = randomise(nn.Conv3d(2, 2, (3, 1, 1), padding=(1, 0, 0), groups=2)).double().eval()
    clip = torch.randn(1, 2, 5, 3, 3).double()
    clip[:, :, 0] = value
    lowered = lower(module, (clip,), planner=Planner.of("openvino", ["padded"]))
    assert "aten.gt.Scalar" in ops_of(lowered)
    with torch.no_grad():
        got, want = lowered.unpack(lowered.module(*lowered.pack(clip))), module(clip)
    assert torch.equal(got.isfinite(), want.isfinite())
    assert want[:, :, 2:].isfinite().all()
    assert_close(got[:, :, 2:], want[:, :, 2:], 1e-12)


@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.SiLU(), nn.Hardswish(), nn.LeakyReLU(0.3), nn.GELU(approximate="tanh")]
)
def test_an_activation_goes_before_the_join(activation):
    module = nn.Sequential(randomise(nn.Conv3d(4, 4, 3, padding=1)), activation)
    lowered = forced("ranges", module, torch.randn(1, 4, 5, 6, 6))
    joins = [node for node in lowered.module.graph.nodes if node.target is aten.cat.default]
    assert len(joins) == 1
    assert not any(part.target is aten.add.Tensor for part in joins[0].args[0])


def test_an_activation_stays_where_the_join_has_another_user():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(4, 4, 3, padding=1)

        def forward(self, clip):
            y = self.conv(clip)
            return torch.relu(y) + y.mean()

    lowered = forced("ranges", randomise(Both()), torch.randn(1, 4, 5, 6, 6))
    (relu,) = [node for node in lowered.module.graph.nodes if node.target is aten.relu.default]
    assert relu.args[0].target is aten.cat.default


def test_a_product_that_is_no_gate_of_its_own_stays():
    graph = fx.Graph()
    x, w = graph.placeholder("x"), graph.placeholder("w")
    parts = [graph.call_function(aten.conv2d.default, (x, w)) for _ in range(2)]
    join = graph.call_function(aten.cat.default, (parts, 0))
    gate = graph.call_function(aten.sigmoid.default, (join,))
    graph.output(graph.call_function(aten.mul.Tensor, (x, gate)))
    for part in (*parts, join, gate):
        part.meta["val"] = None
    assert activations_before_joins(graph) == 1  # the sigmoid alone goes before the join, the product of x stays
    assert gate.target is aten.cat.default


def test_other_runtimes_are_not_touched():
    module, clip = randomise(Residual()), torch.randn(1, 4, 6, 8, 7)
    for runtime in (None, "onnxruntime", "tensorrt", "rknn"):
        ops = ops_of(lower(module, (clip,), planner=Planner.of(runtime)))
        assert "aten.split_with_sizes.default" not in ops
        assert "aten.gt.Scalar" not in ops


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (3, 6, 5), (3, 5)])
def test_pools_without_a_batch(shape):
    pools = {4: (F.max_pool3d, F.avg_pool3d), 3: (F.max_pool2d, F.avg_pool2d), 2: (F.max_pool1d, F.avg_pool1d)}
    for pool in pools[len(shape)]:
        openvino_equals_eager(Fn(lambda x, pool=pool: pool(x, 2, 1, 1)), torch.randn(shape))


def test_bridges():
    frames = Packing.frames((1, 3, 4, 5, 6))  # (t) c h w
    assert is_plane(frames)
    groups = frames_groups(frames)
    assert frames.reorder(groups).physical_shape == (4, 5 * 6 * 3)
    last = frames.reorder(groups)
    assert frames_groups(last) is None  # it lies so already
    temporal = frames.reorder(((), (0,), (1,), (2, 3)))  # n c t (h w)
    assert bridge(frames, last) == (True, False)
    assert bridge(last, frames) == (False, True)
    assert bridge(frames, temporal) == (True, True)
    assert bridge(frames, frames) == (False, False)
    assert bridge(frames, frames.reorder(((2,), (0,), (1,), (3,)))) == (False, False)  # rows first: a true move


def test_rows_are_transformed_for_all_products_along_time_at_once():
    """Six depthwise convolutions in, 36 products, and four rows joined with channels last, where that is a view."""
    module = randomise(nn.Conv3d(16, 16, 3, padding=1))
    lowered = forced("winograd-4+rows-4", module, torch.randn(1, 16, 8, 8, 5))
    calls = [node for node in lowered.module.graph.nodes if node.op == "call_function"]
    convolutions = [node for node in calls if node.target is aten.conv2d.default]
    assert len([node for node in convolutions if node.args[6] == 16]) == 6
    assert len([node for node in convolutions if node.args[6] == 1]) == 36
    (joined,) = [node for node in calls if node.target is aten.cat.default and len(node.args[0]) == 4]
    assert {tuple(row.meta["val"].shape) for row in joined.args[0]} == {(12, 2, 5, 16)}
