"""Every structure in the place of random Conv3d layers: shapes, fits, gradients, lowering."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edge4d import blocks
from edge4d.blocks.geometry import Geometry
from edge4d.errors import UsageError
from edge4d.swapping import relative_error
from tests.lowering.harness import lowered_equals_eager, ops_of

NAMES = blocks.names()
SEEDED = settings(max_examples=25, deadline=None, derandomize=True)


def make(name, conv, **options):
    return blocks.get(name).module_class.fit(conv, **options)


def seeded(conv, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return conv.double()


def clip(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def triples(low, high):
    return st.tuples(*[st.integers(low, high)] * 3)


@st.composite
def layers(draw):
    groups = draw(st.sampled_from([1, 2, 4]))
    padding = draw(triples(0, 2) | st.sampled_from(["same", "valid"]))
    return nn.Conv3d(
        4,
        4 * draw(st.integers(1, 2)),
        draw(triples(1, 4)),
        1 if padding == "same" else draw(triples(1, 3)),
        padding,
        draw(triples(1, 2)),
        groups,
        draw(st.booleans()),
        draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
    )


@pytest.mark.parametrize("name", NAMES)
@SEEDED
@given(conv=layers(), sizes=st.tuples(*[st.integers(7, 10)] * 3), batch=st.integers(1, 2))
def test_is_the_conv3d_of_its_kernel(name, conv, sizes, batch):
    conv = seeded(conv)
    block = make(name, conv)
    x = clip(batch, 4, *sizes)
    other = copy.deepcopy(conv)
    with torch.no_grad():
        other.weight.copy_(block.kernel())
        got, expected = block(x), other(x)
    assert got.shape == conv(x).shape
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@SEEDED
@given(conv=layers(), sizes=st.tuples(*[st.integers(7, 8)] * 3), batch=st.integers(1, 2))
def test_what_a_calibration_solves_for_makes_the_output(name, conv, sizes, batch):
    block = make(name, seeded(conv))
    x = clip(batch, 4, *sizes)
    with torch.no_grad():
        whole, systems = block(x), block.systems(x)
        for system in systems:
            parts = [
                torch.einsum("grk,gsk->grs", columns, own.weight.reshape(own.groups, -1, own.weight[0].numel()))
                for own, columns in zip(system.convs, system.columns, strict=True)
            ]
            made = sum(parts).transpose(0, 1).flatten(1)
            if system.bias is not None:
                made = made + system.bias
            expected = whole if system.offset is None else whole - system.offset
            if system.members is not None:
                expected = expected[:, system.members]
            torch.testing.assert_close(made, expected.movedim(1, -1).flatten(0, -2), rtol=1e-10, atol=1e-10)
    covered = sum(whole.shape[1] if system.members is None else len(system.members) for system in systems)
    assert covered == (0 if name == "conv3d" else whole.shape[1])


@pytest.mark.parametrize("name", NAMES)
@SEEDED
@given(conv=layers(), seed=st.integers(0, 99))
def test_the_fit_is_never_worse_than_a_random_start(name, conv, seed):
    conv = seeded(conv, seed)
    torch.manual_seed(seed)
    kind = blocks.get(name).module_class
    assert relative_error(conv, kind.fit(conv)) <= relative_error(conv, kind.like(conv)) + 1e-12


@SEEDED
@given(conv=layers())
def test_r2plus1d_at_full_rank_is_exact(conv):
    conv = seeded(conv)
    block = make("r2plus1d", conv, rank="full")
    assert relative_error(conv, block) <= 1e-10
    x = clip(1, 4, 8, 8, 8)
    torch.testing.assert_close(block(x), conv(x), rtol=1e-10, atol=1e-10)


@SEEDED
@given(conv=layers())
def test_rank_1_with_wide_joints_is_exact(conv):
    block = make("rank-1", seeded(conv), rank=4 * 8)
    assert relative_error(conv, block) <= 1e-10


def test_the_fits_are_the_best_of_their_family():
    conv = seeded(nn.Conv3d(4, 6, 3, padding=1))
    matrix = conv.weight.detach().movedim(2, 1).reshape(18, 36)
    lost = torch.linalg.svdvals(matrix)[6:].square().sum().sqrt() / matrix.norm()
    assert relative_error(conv, make("p3d-a", conv)) == pytest.approx(float(lost), rel=1e-9)
    assert relative_error(conv, make("p3d-c", conv)) == pytest.approx(float(lost), rel=1e-9)
    cross = torch.zeros(3, 3, 3, dtype=torch.bool)
    cross[1] = cross[:, 1, 1] = True
    off = conv.weight.detach()[:, :, ~cross].norm() / conv.weight.detach().norm()
    assert relative_error(conv, make("proposed-add", conv)) == pytest.approx(float(off), rel=1e-9)


def test_energy_picks_the_rank():
    conv = seeded(nn.Conv3d(4, 6, 3, padding=1))
    low, high = make("r2plus1d", conv, energy=0.5), make("r2plus1d", conv, energy=0.99)
    assert low.width < high.width
    assert relative_error(conv, high) ** 2 <= 0.01 + 1e-12
    assert relative_error(conv, low) ** 2 <= 0.5 + 1e-12
    assert make("r2plus1d", conv, energy=1.0).width <= 18


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stride", [1, 2])
def test_trains_and_travels(name, stride):
    block = make(name, seeded(nn.Conv3d(4, 8, 3, stride, 1)).float())
    x = clip(2, 4, 6, 8, 8).float()
    block(x).square().sum().backward()
    for label, parameter in block.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().sum() > 0, label
    twin = blocks.get(name).module_class.like(nn.Conv3d(4, 8, 3, stride, 1))
    twin.load_state_dict(block.state_dict())
    assert torch.equal(twin(x), block(x))
    assert torch.equal(pickle.loads(pickle.dumps(block))(x), block(x))
    assert torch.equal(block(x[0]), block(x[:1])[0])
    block.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = block(x)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), block(x), rtol=0.05, atol=0.05 * float(block(x).detach().abs().max()))
    mixed.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())
    assert block.training
    assert not blocks.get(name).module_class.like(nn.Conv3d(4, 8, 3, stride, 1).eval()).training
    assert torch.equal(block.eval()(x), block.train()(x))
    torch._dynamo.reset()
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), block(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "attributes", [{}, {"stride": 2}, {"padding": "same", "kernel_size": (2, 3, 4)}, {"groups": 4}]
)
def test_lowers_to_its_own_numbers(name, attributes):
    conv = seeded(nn.Conv3d(4, 8, **{"kernel_size": 3, "padding": 1, **attributes}))
    lowered = lowered_equals_eager(make(name, conv), clip(2, 4, 4, 6, 6))
    assert not any("conv3d" in op for op in ops_of(lowered))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "conv3d"])
def test_computes_on_four_axes_at_most(name):
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            ranks = [a.dim() for a in args if isinstance(a, torch.Tensor)]
            seen.append((str(func), max(ranks, default=0)))
            return func(*args, **(kwargs or {}))

    block = make(name, seeded(nn.Conv3d(4, 8, 3, 2, 1)))
    with torch.no_grad(), Watch():
        block(clip(2, 4, 6, 8, 8))
    moves = ("view", "reshape", "transpose", "clone", "permute", "index_select", "cat", "add")
    worst = [op for op, rank in seen if rank > 4 and not any(move in op for move in moves)]
    assert not worst


@pytest.mark.parametrize("name", NAMES)
def test_stands_in_for_a_conv3d(name):
    conv = nn.Conv3d(4, 8, (3, 1, 5), (1, 2, 1), (1, 0, 2), (1, 1, 1), 2)
    block = make(name, conv)
    x = torch.randn(1, 4, 3, 5, 5)
    assert torch.equal(block(input=x), block(x))
    for attribute in ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups"):
        assert getattr(block, attribute) == getattr(conv, attribute), attribute
    with pytest.raises(UsageError, match=rf"{name}: 2 along W, padded by \(0, 0\), is too little for a kernel of 3"):
        make(name, nn.Conv3d(4, 1, 3))(torch.randn(1, 4, 3, 3, 2))
    with pytest.raises(UsageError, match=r"takes clips \(N, C, T, H, W\), got a tensor of shape \(3, 4\)"):
        block(torch.randn(3, 4))


def test_parameter_counts():
    conv = nn.Conv3d(16, 32, 3, padding=1, bias=False)
    counts = {name: sum(p.numel() for p in blocks.get(name).module_class.like(conv).parameters()) for name in NAMES}
    assert counts["conv3d"] == 27 * 16 * 32
    assert counts["proposed-add"] == counts["p3d-b"] == 12 * 16 * 32
    assert counts["proposed-cat"] == 6 * 16 * 32
    assert counts["p3d-a"] == counts["p3d-c"] == 9 * 16 * 32 + 3 * 32 * 32
    assert counts["rank-1"] == 3 * 16 * 32 + 6 * 32 * 32
    assert 0.98 < counts["r2plus1d"] / counts["conv3d"] <= 1
    strided = nn.Conv3d(16, 32, 3, 2, 1, bias=False)
    add = blocks.get("proposed-add").module_class
    assert sum(p.numel() for p in add.like(strided).parameters()) == 12 * 16 * 32 + 32 * 32
    assert sum(p.numel() for p in add.like(strided, temporal_pool="select").parameters()) == 12 * 16 * 32
    wide = blocks.get("proposed-cat").module_class.like(conv, width="full")
    assert sum(p.numel() for p in wide.parameters()) == 12 * 16 * 32
    assert wide(torch.randn(1, 16, 3, 4, 4)).shape == (1, 64, 3, 4, 4)


def test_paper_alignment():
    conv = seeded(nn.Conv3d(4, 8, 3, 2, 1))
    block = make("proposed-add", conv, alignment="paper")
    assert block(clip(1, 4, 4, 6, 8)).shape == conv(clip(1, 4, 4, 6, 8)).shape
    assert block.kernel() is None
    with pytest.raises(UsageError, match=r"cannot stride 7x7 pixels.* makes 13, .* 4x4 = 16"):
        block(clip(1, 4, 4, 7, 7))
    with pytest.raises(UsageError, match="one stride for both spatial axes"):
        make("proposed-add", nn.Conv3d(2, 2, 3, (1, 1, 2)), alignment="paper")
    still = seeded(nn.Conv3d(4, 8, 3, padding=1))
    x = clip(1, 4, 4, 5, 7)
    assert torch.equal(make("proposed-add", still, alignment="paper")(x), make("proposed-add", still)(x))


def test_the_middle_tap_of_an_even_kernel_is_the_earlier_one():
    geometry = Geometry.of(nn.Conv3d(1, 1, (2, 4, 3), padding="same"))
    assert geometry.centre == (0, 1, 1)
    assert [geometry.offset(axis) for axis in range(3)] == [0, 0, 0]  # so that `same` reads where it writes


def test_a_relu_between_changes_the_numbers():
    conv = seeded(nn.Conv3d(4, 8, 3, padding=1))
    block = make("p3d-a", conv, activation="relu")
    assert block.kernel() is None
    assert not torch.allclose(block(clip(1, 4, 4, 5, 5)), make("p3d-a", conv)(clip(1, 4, 4, 5, 5)))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("proposed-add", {"alignment": "diagonal"}, "unknown alignment 'diagonal'"),
        ("proposed-add", {"temporal_pool": "max"}, "unknown temporal_pool 'max'"),
        ("proposed-cat", {"width": "double"}, "unknown width 'double'"),
        ("p3d-a", {"activation": "gelu"}, "unknown activation 'gelu'"),
        ("r2plus1d", {"rank": 0}, "rank must be"),
        ("r2plus1d", {"energy": 1.5}, "energy must be"),
        ("r2plus1d", {"energy": 0.9, "rank": 3}, "exclude each other"),
        ("rank-1", {"rank": 0}, "rank must be"),
    ],
)
def test_options_that_do_not_suit(name, options, said):
    with pytest.raises(UsageError, match=said):
        make(name, nn.Conv3d(2, 4, 3), **options)


def test_registry():
    assert len(NAMES) == 8
    for name in NAMES:
        kind = blocks.get(name)
        assert kind.name == kind.module_class.name == name
        assert "\n" not in kind.summary
    with pytest.raises(UsageError, match=r"unknown block 'proposed_ad'[\s\S]*did you mean 'proposed-add'"):
        blocks.get("proposed_ad")
    with pytest.raises(UsageError, match=r"replaces an nn.Conv3d"):
        blocks.get("p3d-a").module_class.like(nn.Conv2d(1, 1, 3))
