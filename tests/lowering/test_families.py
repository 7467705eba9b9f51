"""Pools, norms, pointwise, axis operators, products, resizes, views of any rank against float64 eager."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.lowering.harness import Fn, lowered_equals_eager, ops_of, randomise


def clip(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


POOLS = {
    "max": nn.MaxPool3d(2),
    "max_overlap": nn.MaxPool3d(3, stride=2, padding=1),
    "max_mixed": nn.MaxPool3d((1, 3, 2), stride=(1, 2, 1), padding=(0, 1, 1)),
    "max_time": nn.MaxPool3d((3, 1, 1), stride=(1, 1, 1), padding=(1, 0, 0)),
    "max_ceil": nn.MaxPool3d(2, ceil_mode=True),
    "max_ceil_padding": nn.MaxPool3d(3, stride=2, padding=1, ceil_mode=True),
    "max_dilation": nn.MaxPool3d(2, stride=1, dilation=(2, 1, 3)),
    "max_dilation_padding_ceil": nn.MaxPool3d((3, 3, 2), stride=2, padding=1, dilation=(2, 2, 1), ceil_mode=True),
    "avg": nn.AvgPool3d(2),
    "avg_overlap": nn.AvgPool3d(3, stride=(1, 2, 2), padding=1),
    "avg_exclude": nn.AvgPool3d(3, stride=2, padding=1, count_include_pad=False),
    "avg_ceil": nn.AvgPool3d((2, 3, 2), stride=2, ceil_mode=True),
    "avg_ceil_padding": nn.AvgPool3d(3, stride=2, padding=1, ceil_mode=True),
    "avg_ceil_exclude": nn.AvgPool3d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
    "avg_divisor": nn.AvgPool3d((2, 3, 3), stride=2, padding=(1, 1, 0), divisor_override=5),
    "avg_time": nn.AvgPool3d((2, 1, 1), stride=(2, 1, 1)),
    "adaptive_one": nn.AdaptiveAvgPool3d(1),
    "adaptive_keep": nn.AdaptiveAvgPool3d((None, 1, 1)),
    "adaptive_even": nn.AdaptiveAvgPool3d((3, 7, 3)),
    "adaptive_uneven": nn.AdaptiveAvgPool3d((4, 3, 5)),
    "adaptive_up": nn.AdaptiveAvgPool3d((9, 2, 1)),
    "adaptive_max_one": nn.AdaptiveMaxPool3d(1),
    "adaptive_max_uneven": nn.AdaptiveMaxPool3d((4, 3, 5)),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", POOLS)
def test_pool3d(name, batch):
    lowered = lowered_equals_eager(POOLS[name], clip(batch, 4, 6, 7, 9))
    assert not any("pool3d" in op for op in ops_of(lowered))


@pytest.mark.parametrize(
    "module",
    [
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.MaxPool1d(3, 2, 1),
        nn.AvgPool1d(2),
        nn.AdaptiveAvgPool2d((3, 2)),
        nn.AdaptiveAvgPool1d(2),
    ],
    ids=lambda m: type(m).__name__,
)
def test_pools_of_fewer_axes(module):
    x = clip(2, 4, 7, 9) if "2d" in type(module).__name__ else clip(2, 4, 9)
    lowered_equals_eager(module, x)


def test_unbatched_pool():
    lowered_equals_eager(nn.MaxPool3d(2), clip(4, 6, 7, 9))
    lowered_equals_eager(nn.AvgPool3d(2, padding=1), clip(4, 6, 7, 9))


NORMS = {
    "batch": nn.BatchNorm3d(4),
    "batch_no_affine": nn.BatchNorm3d(4, affine=False, eps=0.1),
    "instance": nn.InstanceNorm3d(4),
    "instance_affine": nn.InstanceNorm3d(4, affine=True),
    "instance_tracked": nn.InstanceNorm3d(4, affine=True, track_running_stats=True),
    "group": nn.GroupNorm(2, 4),
    "group_one": nn.GroupNorm(1, 4, affine=False),
    "group_all": nn.GroupNorm(4, 4),
    "layer_last": nn.LayerNorm(7),
    "layer_three": nn.LayerNorm((5, 6, 7)),
    "layer_all_no_bias": nn.LayerNorm((4, 5, 6, 7), bias=False),
    "layer_plain": nn.LayerNorm((6, 7), elementwise_affine=False),
    "rms": nn.RMSNorm(7, eps=1e-3),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", NORMS)
def test_norm(name, batch):
    lowered_equals_eager(randomise(NORMS[name]), clip(batch, 4, 5, 6, 7), tolerance=1e-11)


def test_channels_last_layer_norm():
    fn = Fn(lambda x: F.layer_norm(x.permute(0, 2, 3, 4, 1), (4,)).permute(0, 4, 1, 2, 3))
    lowered_equals_eager(fn, clip(2, 4, 3, 5, 6), tolerance=1e-11)


POINTWISE = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "elu": lambda x: F.elu(x, 0.7),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.8),
    "softplus": lambda x: F.softplus(x, 2.0, 5.0),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "clamp": lambda x: x.clamp(-0.5),
    "clamp_both": lambda x: x.clamp(-0.5, 0.25),
    "pow": lambda x: x.abs() ** 1.5,
    "rsub": lambda x: 1 - x,
    "rdiv": lambda x: 2 / (x * x + 1),
    "neg_abs_sqrt": lambda x: -(x.abs() + 1).sqrt(),
    "alpha": lambda x: torch.add(x, x * 2, alpha=3),
    "where": lambda x: torch.where(x > 0, x, 0.1),
    "compare": lambda x: (x > 0) & (x < 1) | (x == 0),
    "masked_fill": lambda x: x.masked_fill(x > 0, -2.0),
    "cast": lambda x: x.to(torch.float32).double() + (x > 0).to(torch.int64),
    "bool_mask": lambda x: x * (x > 0),
    "sum_of_masks": lambda x: ((x > 0) + (x < -1)) + (x == 0).mean(1, dtype=x.dtype, keepdim=True).bool(),
    "mask_plus_true": lambda x: (x > 0) + True,
    "round": lambda x: (x * 3).round() + x.floor() + x.trunc(),
    "glu": lambda x: F.glu(x, 1),
    "in_place": lambda x: F.relu_(x.clone()).mul_(2).add_(1),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.3),
    "atan2": lambda x: torch.atan2(x, x + 3),
    "prelu": nn.PReLU(4),
    "prelu_one": nn.PReLU(),
    "prelu_channels": lambda x: F.prelu(x, x.new_tensor([0.2, -0.4, 1, 0.9])),
    "prelu_zero": lambda x: F.prelu(x, x.new_tensor([0.2, 0, 0.5, 0.3])),
    "prelu_steep": lambda x: F.prelu(x, x.new_tensor([0.2, 3, -2, 1])),
    "prelu_computed": lambda x: F.prelu(x, x.mean((0, 2, 3, 4))),
    "prelu_infinite": lambda x: F.prelu(torch.where(x > 1, torch.inf, x), x.new_tensor([0.2, 0, 0.5, 0.3])).clamp(
        max=9
    ),
    "dropout": nn.Dropout3d(0.5),
    "softmin_max": lambda x: torch.maximum(x, -x) - torch.minimum(x, x * 0),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise(name):
    module = POINTWISE[name]
    lowered_equals_eager(module if isinstance(module, nn.Module) else Fn(module), clip(2, 4, 3, 5, 6))


SHAPES = [
    ((2, 4, 3, 5, 6), (4, 1, 1, 1)),
    ((2, 4, 3, 5, 6), (2, 1, 3, 1, 6)),
    ((2, 4, 3, 5, 6), (6,)),
    ((2, 4, 3, 5, 6), ()),
    ((2, 4, 3, 5, 6), (1, 4, 1, 5, 1)),
    ((2, 1, 3, 1, 6), (1, 4, 1, 5, 1)),
    ((2, 4, 1, 5, 1), (3, 1, 6)),
    ((4, 1, 3), (2, 1, 5, 1)),
    ((2, 3, 2, 3, 2, 3), (3, 1, 3, 1, 3)),
    ((1, 1, 1, 1, 1), (2, 4, 3, 5, 6)),
    ((1, 1), (1,)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_broadcasting_of_inputs_and_constants(left, right):
    constant = clip(*right, seed=7)
    lowered_equals_eager(Fn(lambda x, y: x * 2 + y), clip(*left), clip(*right, seed=3))
    lowered_equals_eager(Fn(lambda x: x - constant), clip(*left))
    lowered_equals_eager(Fn(lambda x: x.permute(*reversed(range(x.dim()))).sin() * 3), clip(*left))


def test_broadcasting_between_differently_permuted_and_viewed_operands():
    def function(x, y):
        a = x.permute(0, 2, 3, 4, 1)
        b = y.view(2, 2, 2, 3, 5, 6).transpose(1, 2).reshape(2, 4, 3, 5, 6).permute(0, 2, 3, 4, 1)
        return a + b, a.reshape(2, 3, 30, 4) * b.reshape(2, 3, 30, 4)

    lowered_equals_eager(Fn(function), clip(2, 4, 3, 5, 6), clip(2, 4, 3, 5, 6, seed=5))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 1, 1, 1), (2, 4, 3, 5, 6)], ids=str)
def test_a_computed_number_meets_a_constant(shape):
    constant = clip(*shape, seed=7)
    lowered_equals_eager(Fn(lambda x: x.mean() + constant), clip(2, 4, 3, 5, 6))
    lowered_equals_eager(Fn(lambda x: torch.where(x.sum() > 0, constant, constant * x.mean())), clip(2, 3))


def test_a_constant_of_one_number_is_kept_as_one():
    def function(x):
        return torch.where(x > 0, x, torch.zeros_like(x)) + torch.full((4, 3, 5, 6), 0.5).double() * x

    lowered = lowered_equals_eager(Fn(function), clip(2, 4, 3, 5, 6))
    assert max(p.numel() for p in lowered.module.parameters()) == 1


def test_a_constant_that_gives_the_shape_is_kept_whole():
    lowered_equals_eager(Fn(lambda x: torch.zeros(2, 3, 5, 6).double() + x), clip(2, 1, 1, 1))
    lowered_equals_eager(Fn(lambda x: torch.where(x.sum() > 0, torch.ones(2, 3), torch.zeros(2, 3))), clip(2, 2))
    lowered_equals_eager(Fn(lambda x: torch.cat([torch.zeros(2, 3, 5, 6).double(), x], 1)), clip(2, 4, 5, 6))


def test_views_without_a_common_refinement():
    fn = Fn(lambda x: x.reshape(2, 8, 3, 5, 9).permute(2, 0, 4, 1, 3).reshape(6, 72, 5).reshape(3, 4, 9, 20) + 1)
    lowered_equals_eager(fn, clip(2, 6, 4, 5, 9))


def assigned(x, where):
    y = x * 2
    y[where] = x[where].flip(0) - 1
    return y


def cost_volume(left, right):
    """As stereo networks build it: a 5-D volume filled disparity by disparity."""
    n, c, h, w = left.shape
    volume = left.new_zeros(n, 2 * c, 3, h, w)
    for disparity in range(3):
        volume[:, :c, disparity, :, disparity:] = left[:, :, :, disparity:]
        volume[:, c:, disparity, :, disparity:] = right[:, :, :, : w - disparity]
    return volume


AXIS = {
    "cat_channel": lambda x: torch.cat([x, x * 2], 1),
    "cat_time": lambda x: torch.cat([x, x[:, :, :1], x], 2),
    "cat_width": lambda x: torch.cat([x, x], -1),
    "cat_batch": lambda x: torch.cat([x, -x], 0),
    "cat_constant": lambda x: torch.cat([x, torch.zeros(x.shape[0], 4, 2, 5, 6, dtype=x.dtype)], 2),
    "cat_permuted": lambda x: torch.cat([x.transpose(1, 2), x.transpose(1, 2).flip(3)], 2),
    "stack_new_time": lambda x: torch.stack([x[:, :, 0], x[:, :, 1]], 2),
    "stack_last": lambda x: torch.stack([x, x + 1], -1),
    "split": lambda x: x.split([1, 3], 1),
    "split_even": lambda x: torch.split(x, 2, 2),
    "chunk": lambda x: x.chunk(2, 1),
    "unbind": lambda x: x.unbind(2),
    "slice_step": lambda x: x[:, 1:, ::2, 1:-1, :4],
    "slice_beyond": lambda x: x[:, :, 1:100],
    "select": lambda x: x[:, :, -1],
    "narrow": lambda x: x.narrow(2, 1, 2),
    "pad_constant": lambda x: F.pad(x, (1, 2, 0, 1, 2, 0), value=0.5),
    "pad_channels": lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 2)),
    "pad_crop": lambda x: F.pad(x, (-1, 2, 0, 0, -1, 1)),
    "pad_reflect": lambda x: F.pad(x, (1, 2, 2, 1, 1, 2), mode="reflect"),
    "pad_replicate": lambda x: F.pad(x, (1, 2, 0, 1, 3, 2), mode="replicate"),
    "pad_circular": lambda x: F.pad(x, (1, 2, 0, 1, 3, 2), mode="circular"),
    "pad_circular_cropped": lambda x: F.pad(x, (-1, 2, 2, -2, -1, -1), mode="circular"),
    "pad_reflect_cropped": lambda x: F.pad(x, (-1, 2, 2, -2, -1, 1), mode="reflect"),
    "pad_replicate_cropped": lambda x: F.pad(x, (-1, 2, 2, -2, -1, 1), mode="replicate"),
    "flip": lambda x: x.flip(2, 4),
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "roll_negative": lambda x: torch.roll(x, shifts=-1, dims=-1),
    "repeat": lambda x: x.repeat(1, 2, 1, 3, 1),
    "repeat_new": lambda x: x.repeat(2, 1, 1, 1, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 2),
    "expand": lambda x: x[:, :1].expand(-1, 7, -1, -1, -1) * 1,
    "index_select": lambda x: x.index_select(2, torch.tensor([2, 0, 0])),
    "tsm": lambda x: torch.cat([F.pad(x[:, :2, 1:], (0, 0, 0, 0, 0, 1)), F.pad(x[:, 2:, :-1], (0, 0, 0, 0, 1, 0))], 1),
    "window": lambda x: (
        x[..., :4, :].reshape(-1, 2, 2, 3, 2, 2, 3, 2).permute(0, 3, 4, 6, 2, 5, 7, 1).reshape(-1, 24, 4)
    ),
    "index": lambda x: x[:, :, [2, 0, 0]],
    "index_matrix": lambda x: x[:, torch.tensor([[0, 1], [3, 2]])],
    "likeness": lambda x: torch.zeros_like(x) + torch.full_like(x, 2.0) * x.new_ones(5, 6),
    "assign_slice": lambda x: assigned(x, (slice(None), slice(1, 3), slice(None), slice(None, None, 2))),
    "assign_step": lambda x: assigned(x, (slice(None), slice(None), slice(0, 3, 2))),
    "assign_select": lambda x: assigned(x, (slice(None), slice(None), 1)),
    "assign_all": lambda x: assigned(x, (slice(None),)),
    "cost_volume": lambda x: cost_volume(x[:, :, 0], x[:, :, 1]),
    "squeeze": lambda x: x.mean(2, keepdim=True).squeeze(2).unsqueeze(1),
    "identity": lambda x: x,
    "two_outputs": lambda x: {"a": x.transpose(1, 4), "b": [x.flatten(2), x.sum((1, 2, 3, 4))]},
    "class_token": lambda x: torch.cat([torch.ones(len(x), 1, 4).double(), x.flatten(2).transpose(1, 2)], 1),
    "rank7_output": lambda x: x.reshape(-1, 2, 2, 3, 5, 2, 3).transpose(1, 5),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", AXIS)
def test_axis_operators(name, batch):
    lowered_equals_eager(Fn(AXIS[name]), clip(batch, 4, 3, 5, 6))


PRODUCTS = {
    "linear_last": (lambda: nn.Linear(6, 3), [(2, 4, 3, 5, 6)]),
    "linear_no_bias": (lambda: nn.Linear(6, 3, bias=False), [(2, 6)]),
    "linear_channels": (lambda: Fn(lambda x, w: F.linear(x.movedim(1, -1), w)), [(2, 4, 3, 5, 6), (7, 4)]),
    "matmul_5d": (lambda: Fn(torch.matmul), [(2, 4, 3, 5, 6), (2, 4, 3, 6, 2)]),
    "matmul_broadcast": (lambda: Fn(torch.matmul), [(2, 4, 3, 5, 6), (3, 6, 2)]),
    "matmul_one": (lambda: Fn(torch.matmul), [(2, 4, 3, 5, 6), (6, 2)]),
    "matmul_left_one": (lambda: Fn(torch.matmul), [(5, 6), (2, 4, 3, 6, 2)]),
    "matmul_vector": (lambda: Fn(torch.matmul), [(2, 4, 3, 5, 6), (6,)]),
    "vector_matmul": (lambda: Fn(torch.matmul), [(6,), (2, 3, 6, 4)]),
    "dot": (lambda: Fn(torch.matmul), [(6,), (6,)]),
    "bmm_permuted": (lambda: Fn(lambda x: x.flatten(2).transpose(1, 2) @ x.flatten(2)), [(2, 4, 3, 2, 2)]),
    "addmm": (lambda: Fn(lambda a, x, y: torch.addmm(a, x, y, beta=0.5, alpha=2)), [(4,), (3, 5), (5, 4)]),
    "baddbmm": (lambda: Fn(torch.baddbmm), [(2, 3, 4), (2, 3, 5), (2, 5, 4)]),
    "bilinear": (lambda: nn.Bilinear(6, 5, 3), [(2, 4, 3, 6), (2, 4, 3, 5)]),
    "einsum": (lambda: Fn(lambda x, y: torch.einsum("ncthw,kc->nkthw", x, y)), [(2, 4, 3, 5, 6), (7, 4)]),
    "attention": (
        lambda: Fn(
            lambda q, k: (q.flatten(2).transpose(1, 2) @ k.flatten(2)).softmax(-1) @ k.flatten(2).transpose(1, 2)
        ),
        [(2, 4, 2, 3, 3), (2, 4, 2, 3, 3)],
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
    build, shapes = PRODUCTS[name]
    lowered_equals_eager(randomise(build()), *(clip(*shape, seed=i) for i, shape in enumerate(shapes)), tolerance=1e-11)


RESIZES = {
    "nearest": dict(scale_factor=2),
    "nearest_time": dict(scale_factor=(2, 1, 1)),
    "nearest_odd": dict(size=(5, 8, 9)),
    "nearest_fraction": dict(scale_factor=1.7),
    "nearest_exact": dict(size=(5, 8, 9), mode="nearest-exact"),
    "trilinear": dict(scale_factor=2, mode="trilinear"),
    "trilinear_corners": dict(scale_factor=2, mode="trilinear", align_corners=True),
    "trilinear_size": dict(size=(4, 9, 7), mode="trilinear"),
    "trilinear_size_corners": dict(size=(4, 9, 7), mode="trilinear", align_corners=True),
    "trilinear_fraction": dict(scale_factor=(1.5, 1.3, 2.1), mode="trilinear"),
    "trilinear_recompute": dict(scale_factor=1.3, mode="trilinear", recompute_scale_factor=True),
    "trilinear_down": dict(scale_factor=0.5, mode="trilinear"),
    "trilinear_space": dict(scale_factor=(1, 2, 2), mode="trilinear"),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", RESIZES)
def test_resize(name, batch):
    lowered_equals_eager(Fn(lambda x: F.interpolate(x, **RESIZES[name])), clip(batch, 3, 3, 5, 6), tolerance=1e-11)


@pytest.mark.parametrize(
    "kwargs", [dict(scale_factor=2), dict(scale_factor=2, mode="bilinear"), dict(size=(7, 3), mode="bilinear")]
)
def test_resize_of_two_axes(kwargs):
    lowered_equals_eager(Fn(lambda x: F.interpolate(x, **kwargs)), clip(2, 3, 5, 6), tolerance=1e-11)


def test_constants_of_rank_five_become_rank_four_parameters():
    class Positional(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 4, 3, 5, 6))

        def forward(self, x):
            return x + self.position

    lowered = lowered_equals_eager(randomise(Positional()), clip(2, 4, 3, 5, 6))
    assert list(lowered.module.state_dict()) == ["position"]
    assert ops_of(lowered)[-2:] == ["aten.add.Tensor", "aten.reshape.default"]


def test_integer_and_boolean_inputs():
    fn = Fn(lambda i, m: (i * 2 + m, torch.where(m, i, -i)))
    i = torch.randint(-5, 5, (2, 3, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    lowered_equals_eager(fn, i, i > 0)


def test_the_callers_model_is_left_as_it_was():
    module = nn.Sequential(nn.Conv3d(2, 3, 3), nn.BatchNorm3d(3), nn.Dropout()).double()
    module[2].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    from edge4d.lowered import lower

    lower(module, (clip(1, 2, 4, 5, 5),))
    assert [m.training for m in module] == [True, True, False]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_an_argument_that_must_be_named_is_handed_on_though_it_is_none():
    lowered_equals_eager(Fn(lambda x: torch.div(x, x.abs() + 1, rounding_mode=None)), torch.randn(1, 2, 3, 4, 5))
