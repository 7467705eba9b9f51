"""Every exact formulation by itself, whatever the planner would choose, on fixed and on random convolutions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from edge4d import tile_parts
from edge4d.lowering import builder
from edge4d.lowering.conv.rules import FORMULATIONS
from edge4d.lowering.conv.spec import tap_range
from tests.lowering.harness import Fn, lowered_equals_eager, ops_of, randomise
from tests.lowering.test_conv import CONVS, TRANSPOSED


@pytest.fixture
def force(monkeypatch):
    """Make the planner choose one formulation; returns what it refused."""

    def by(name):
        refused = []

        def choose(spec, *_):
            reason = FORMULATIONS[name].applies(spec)
            if reason is None:
                return name
            refused.append(reason)
            return "phases" if spec.transposed else "taps"

        monkeypatch.setattr(builder, "choose", choose)
        return refused

    return by


SHORT = ("plain", "no_bias", "asymmetric_kernel", "temporal_only", "same", "same_even", "groups", "depthwise")
"""Cases in which a clip of two frames gives few enough results."""


APART = ("one_tap", "pointwise", "pointwise_stride", "pointwise_padding", "patches", "dilation", "dilation_stride")
APART += ("same_even", "same_dilated", "groups", "depthwise", "depthwise_temporal")
"""Cases in which there are no frames or pixels to join, or none that can be."""


def applies(name: str, case: dict, transposed: bool = False) -> bool:
    """Whether a formulation takes a case of `test_conv`, by its kernel alone."""
    kernel = case["kernel_size"]
    kernel = kernel if isinstance(kernel, tuple) else (kernel,) * 3
    if transposed:
        return name == "phases" or (name == "interleaved" and case.get("groups", 1) == 1)
    if "+rows-" in name:
        inner, tile = name.split("+rows-")
        along_rows = [v if isinstance(v, int) else v[1] for v in (case.get("stride", 1), case.get("dilation", 1))]
        return along_rows == [1, 1] and kernel[1] > 1 and kernel[1] + int(tile) <= 9 and applies(inner, case)
    if name == "short":
        return any(case is CONVS[fits] for fits in SHORT)
    if name.startswith("winograd-split"):
        along_time = [v if isinstance(v, int) else v[0] for v in (case.get("stride", 1), case.get("dilation", 1))]
        return kernel[0] == 3 and along_time == [1, 1]
    if name.startswith("winograd-"):
        along_time = [v if isinstance(v, int) else v[0] for v in (case.get("stride", 1), case.get("dilation", 1))]
        return kernel[0] > 1 and along_time == [1, 1] and kernel[0] + int(name[-1]) <= 9  # more points are refused
    stride, padding, dilation, taps = (
        value if isinstance(value, int | str) else value[0]
        for value in (case.get("stride", 1), case.get("padding", 0), case.get("dilation", 1), kernel)
    )
    if name == "patchify":
        return taps > 1 and (stride, padding, dilation) == (taps, 0, 1)
    if name == "padded":
        return taps > 1 and padding not in (0, "valid") and "padding_mode" not in case
    if name == "shifted":
        return taps > 1 and stride == 1
    if name == "ranges":
        fits = ("plain", "no_bias", "same", "same_even", "groups", "depthwise", "depthwise_temporal", "temporal_only")
        return any(case is CONVS[name] for name in fits)
    if name == "folded":
        without = ("same_even", "same_dilated", "padding_beyond_kernel", "replicate")  # uneven planes, many frames
        return taps > 1 and all(case is not CONVS[unfit] for unfit in without)
    if name == "space-to-depth":
        return all(case is not CONVS[unfit] for unfit in APART)
    if name == "regrouped":
        return stride > 1 and case.get("groups", 1) == 1
    return {"taps": True, "stacked": kernel[0] > 1, "temporal": kernel[1:] == (1, 1)}.get(name, False)


BY_ROWS = ("plain", "same_even", "asymmetric_kernel", "groups", "padding_beyond_kernel")
"""Cases for rows on top of other formulations than `taps`, which alone takes them all."""

CASES = [
    (formulation, case)
    for formulation in FORMULATIONS
    for case in CONVS
    if applies(formulation, CONVS[case]) and ("+rows" not in formulation or "taps" in formulation or case in BY_ROWS)
]


@pytest.mark.parametrize(("formulation", "case"), CASES)
def test_formulation_is_exact(formulation, case, force):
    refused = force(formulation)
    frames = 2 if formulation.startswith("short") else 5
    clip = torch.randn(2, 4, frames, 7, 6, generator=torch.Generator().manual_seed(0))
    lowered = lowered_equals_eager(randomise(nn.Conv3d(4, 8, **CONVS[case])), clip)
    assert refused == []
    assert [layer.becomes for layer in lowered.layers if layer.macs] == [formulation]


TRANSPOSED_CASES = [
    (form, case) for form in FORMULATIONS for case in TRANSPOSED if applies(form, TRANSPOSED[case], True)
]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("formulation", "case"), TRANSPOSED_CASES)
def test_formulation_of_a_transposed_convolution_is_exact(formulation, case, batch, force):
    refused = force(formulation)
    clip = torch.randn(batch, 4, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    lowered = lowered_equals_eager(randomise(nn.ConvTranspose3d(4, 6, **TRANSPOSED[case])), clip)
    assert refused == []
    assert [layer.becomes for layer in lowered.layers if layer.macs] == [formulation]


def test_a_kernel_as_long_as_its_stride_gives_all_frames_at_once():
    """One call, which moves nothing; a kernel of 3 at stride 2 has products with zeros, too many for many channels."""
    doubled = lowered_equals_eager(randomise(nn.ConvTranspose3d(4, 6, 2, stride=2)), torch.randn(1, 4, 3, 4, 5))
    assert [op for op in ops_of(doubled) if "reshape" not in op] == ["aten.conv_transpose2d.input"]
    for channels, becomes in ((8, "interleaved"), (256, "phases")):
        layer = randomise(nn.ConvTranspose3d(channels, 128, 3, stride=2, padding=1))
        lowered = lowered_equals_eager(layer, torch.randn(1, channels, 4, 4, 4))
        assert [layer.becomes for layer in lowered.layers if layer.macs] == [becomes]


def test_every_formulation_is_exercised():
    exercised = {formulation for formulation, _ in (*CASES, *TRANSPOSED_CASES)}
    assert exercised == set(FORMULATIONS)


@pytest.mark.parametrize("formulation", [name for name in FORMULATIONS if name != "taps"])
def test_a_formulation_says_why_it_does_not_fit(formulation, force):
    refused = force(formulation)
    unfit = nn.Conv3d(2, 3, (1, 3, 3), stride=(1, 2, 1))  # one frame, and rows apart
    lowered_equals_eager(randomise(unfit), torch.randn(1, 2, 3, 5, 5))
    assert len(refused) == 1
    assert refused[0]


@pytest.mark.parametrize("formulation", [name for name in FORMULATIONS if name not in ("phases", "interleaved")])
def test_integers_are_exact_or_left_to_others(formulation, force):
    """Winograd's weights are fractions of the kernel's."""
    refused = force(formulation)
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 3, 2, 6, 5), (4, 3, 3, 3, 3), (4,))
    clip, weight, bias = (torch.randint(-5, 6, shape, generator=generator) for shape in shapes)
    lowered_equals_eager(Fn(lambda x: nn.functional.conv3d(x, weight, bias, padding=1)), clip)
    if any(name in formulation for name in ("winograd", "rows", "short")):
        assert "weights of integers" in refused[0]


@pytest.mark.parametrize("order", ["given as patches", "given as a clip"])
def test_a_patch_embedding_is_one_product_and_moves_nothing(order):
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(3, 8, (2, 4, 5), stride=(2, 4, 5))

        def forward(self, rows):
            clip = rows.view(-1, 3, 2, 4, 5) if order == "given as patches" else rows
            return self.conv(clip).flatten(1)

    shape = (6, 3 * 2 * 4 * 5) if order == "given as patches" else (6, 3, 2, 4, 5)
    lowered = lowered_equals_eager(randomise(Patches()), torch.randn(shape))
    work = [op for op in ops_of(lowered) if "reshape" not in op]
    assert work == ["aten.mm.default", "aten.add.Tensor"]
    assert [layer.becomes for layer in lowered.layers if layer.macs] == ["patchify"]


@pytest.mark.parametrize("sizes", [(1, 2, 4, 4), (3, 2, 4, 1), (1, 3, 1, 1)], ids=["channels", "columns", "all"])
def test_a_patch_embedding_with_axes_of_one(sizes):
    patch = randomise(nn.Conv3d(sizes[0], 5, sizes[1:], stride=sizes[1:]))
    lowered = lowered_equals_eager(patch, torch.randn(2, *sizes, generator=torch.Generator().manual_seed(0)))
    assert [layer.becomes for layer in lowered.layers] == ["patchify"]


@pytest.mark.parametrize("size", [6, 7, 8, 9, 10, 11])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(4, 2, 2), (6, 3, 3), (3, 2, 1), (4, 3, 3)])
def test_pixels_that_blocks_leave_over_are_read(kernel, stride, padding, size, force):
    """Behind the last whole block, where x' has zeros, the last window may still see a row."""
    refused = force("space-to-depth")
    layer = nn.Conv3d(1, 3, (2, kernel, kernel), stride=(1, stride, stride), padding=(1, padding, padding))
    lowered_equals_eager(
        randomise(layer), torch.randn(1, 1, 3, size, size + 1, generator=torch.Generator().manual_seed(0))
    )
    assert refused in ([], ["there are no frames or pixels to join, or not with so many channels"])


@pytest.mark.parametrize("formulation", ["winograd-2", "winograd-2+rows-2", "winograd-4+rows-2"])
@pytest.mark.parametrize("frames", [4, 9, 13])
def test_tiles_in_parts_give_the_same_numbers(formulation, frames, force, monkeypatch):
    """Where rows are transformed too; without, `edge4d build` makes the parts."""
    force(formulation)
    monkeypatch.setattr(tile_parts, "PART", 1)
    clip = torch.randn(1, 4, frames, 7, 6, generator=torch.Generator().manual_seed(0))
    ops = ops_of(lowered_equals_eager(randomise(nn.Conv3d(4, 8, 3, padding=1)), clip))
    tiles = -(-frames // int(formulation[9]))
    parts = max(parts for parts in (1, 2, 4) if parts <= tiles) if "rows" in formulation else 1
    assert sum("matmul" in op for op in ops) == 2 * parts


def test_parts_are_for_what_is_large_alone():
    assert [tile_parts.parts_of(held << 20, 8) for held in (1, 10, 11, 25, 200)] == [1, 1, 2, 4, 4]
    assert [tile_parts.parts_of(200 << 20, tiles) for tiles in (1, 2, 3, 4)] == [1, 2, 2, 4]


def test_pieces_of_a_clip_and_folded_time_move_nothing():
    pieces = lowered_equals_eager(randomise(nn.Conv3d(4, 8, (2, 3, 3), stride=(2, 1, 1))), torch.randn(1, 4, 6, 7, 8))
    pointwise = lowered_equals_eager(randomise(nn.Conv3d(4, 8, 1)), torch.randn(2, 4, 3, 7, 8))
    for lowered in (pieces, pointwise):
        assert [op for op in ops_of(lowered) if "reshape" not in op] == ["aten.conv2d.default"]


def test_the_number_of_convolutions_is_that_of_the_formulation(force):
    module, clip = randomise(nn.Conv3d(4, 4, 3, padding=1)), torch.randn(1, 4, 3, 5, 5)
    for formulation, count in (
        ("taps", 3),
        ("stacked", 1),
        ("winograd-2", 1),
        ("winograd-4", 1),
        ("short", 1),
        ("winograd-split", 4),
        ("winograd-split-4", 6),
        ("padded", 3),
        ("shifted", 3),
        ("ranges", 7),
        ("folded", 1),
    ):
        force(formulation)
        assert sum("conv2d" in op for op in ops_of(lowered_equals_eager(module, clip))) == count


axis = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2))


@settings(max_examples=40)
@given(
    st.tuples(axis, axis, axis),
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from([(1, 1, 1), (4, 2, 1), (4, 4, 2), (3, 6, 3)]),
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
        lowered_equals_eager(randomise(module), clip)
    finally:
        builder.choose = before


@settings(max_examples=40)
@given(
    st.tuples(axis, axis, axis),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([(1, 1, 1), (4, 2, 2), (2, 4, 1), (3, 2, 1)]),
    st.data(),
)
def test_random_transposed_convolutions(axes, sizes, channels, data):
    kernel, stride, padding, dilation = zip(*axes, strict=True)
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    result = [
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, k, s, p, d, e in zip(sizes, kernel, stride, padding, dilation, extra, strict=True)
    ]
    assume(min(result) >= 1)
    fan_in, fan_out, groups = channels
    module = nn.ConvTranspose3d(fan_in, fan_out, kernel, stride, padding, extra, groups, True, dilation)
    formulation = data.draw(st.sampled_from(["phases", "interleaved"]))
    before = builder.choose
    builder.choose = lambda spec, *_: formulation if FORMULATIONS[formulation].applies(spec) is None else "phases"
    try:
        clip = torch.randn(2, fan_in, *sizes, generator=torch.Generator().manual_seed(1))
        lowered_equals_eager(randomise(module), clip)
    finally:
        builder.choose = before


@given(st.integers(0, 4), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5), st.integers(1, 3))
def test_a_taps_range_is_what_a_loop_finds(tap, frames, stride, before, dilation):
    results = (frames + 2 * before - dilation * tap - 1) // stride + 1
    assume(results >= 1)
    pairs = [(o, o * stride + tap * dilation - before) for o in range(results)]
    inside = [(o, i) for o, i in pairs if 0 <= i < frames]
    found = tap_range(tap, frames, results, stride, before, dilation)
    if not inside:
        assert found is None
    else:
        assert found is not None
        assert (found.first, found.start) == inside[0]
        assert (found.last, found.stop) == inside[-1]
        assert len(inside) == found.last - found.first + 1
