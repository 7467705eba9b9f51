"""Convolutions along rows: float64 against conv3d, what is read, and what is emitted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.calibrate import spec_of
from edge4d.lowering.conv.rows import Rows, reading
from edge4d.lowering.conv.rules import FORMULATIONS
from edge4d.planning import Planner, choose, estimates
from tests.lowering.harness import lowered_equals_eager, ops_of, randomise


@given(
    st.lists(st.sampled_from([0.0, 1.0, -2.0, 0.5]), min_size=2, max_size=7).filter(any),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 20),
    st.integers(0, 5),
)
def test_a_reading_is_what_a_loop_reads(factors, tile, tiles, rows, before):
    read = reading(tuple(factors), tile, tiles, rows, before)
    picture = torch.randn(1, 1, rows, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = torch.tensor(read.taps, dtype=torch.float64).view(1, 1, -1, 1)
    got = torch.conv2d(picture, kernel, None, (tile, 1), (read.padding, 0), (read.dilation, 1))
    want = torch.zeros(tiles, 2, dtype=torch.float64)
    for i in range(tiles):
        for q, factor in enumerate(factors):
            row = i * tile + q - before
            if 0 <= row < rows:
                want[i] += factor * picture[0, 0, row]
    assert got.shape[2] == tiles
    assert torch.allclose(got[0, 0], want)


@settings(max_examples=25)
@given(
    st.sampled_from([name for name in FORMULATIONS if "+rows" in name]),
    st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(1, 3)),
    st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 2)),
    st.tuples(st.integers(1, 3), st.integers(1, 11), st.integers(3, 5)),
    st.integers(1, 2),
)
def test_float64_rows_equal_conv3d(name, kernel, padding, sizes, groups):
    from edge4d.lowering import builder

    assume(all(size + 2 * p >= k for size, p, k in zip(sizes, padding, kernel, strict=True)))
    before = builder.choose
    builder.choose = lambda spec, *_: name if FORMULATIONS[name].applies(spec) is None else "taps"
    try:
        module = randomise(nn.Conv3d(2 * groups, 4, kernel, padding=padding, groups=groups)).double()
        clip = torch.randn(2, 2 * groups, *sizes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        lowered_equals_eager(module, clip)
    finally:
        builder.choose = before


def test_all_convolutions_of_a_tile_are_plain_ones(monkeypatch):
    from edge4d.lowering import builder

    monkeypatch.setattr(builder, "choose", lambda *_: "taps+rows-4")
    lowered = lowered_equals_eager(randomise(nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1))), torch.randn(1, 4, 2, 8, 5))
    ops = ops_of(lowered)
    assert {op for op in ops if "reshape" not in op} == {
        "aten.conv2d.default",
        "aten.add.Tensor",
        "aten.cat.default",
    }
    # Six products and what they read; two differences; factors 2, 4 and 8 of the points 2 and -2.
    assert sum("conv2d" in op for op in ops) == 12 + 2 + 3


def test_rows_are_chosen_for_two_runtimes_and_where_channels_fit_their_layouts():
    spec = spec_of(128, 128, (1, 3, 3), (1, 1, 1), (0, 1, 1), 1, 8, 28)
    assert {choose(spec, Planner.of(runtime)) for runtime in ("onnxruntime", "openvino")} == {"taps+rows-4"}
    assert {choose(spec, Planner.of(runtime)) for runtime in (None, "tensorrt", "rknn")} == {"taps"}
    odd = spec_of(100, 128, (1, 3, 3), (1, 1, 1), (0, 1, 1), 1, 8, 28)
    assert choose(odd, Planner.of("onnxruntime")) == "taps"
    assert set(estimates(spec, Planner(precision="int8"))[0]) == {"taps"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"stride": (1, 2, 1)}, "stride 2"),
        ({"dilation": (1, 2, 1)}, "dilation 2"),
        ({"transposed": True}, "transposed"),
    ],
)
def test_what_has_no_rows_is_declined_by_name(changed, words):
    spec = replace(spec_of(16, 16, (1, 3, 3), (1, 1, 1), (0, 1, 1), 1, 2, 8), **changed)
    assert words in (FORMULATIONS["taps+rows-2"].applies(spec) or "")


def test_two_channels_and_two_rows_do_not_share_a_constant(monkeypatch):
    """Transforms and kernels are kept by what they are made of; the same factors mean another thing in each."""
    from edge4d.lowering import builder

    monkeypatch.setattr(builder, "choose", lambda *_: "taps+rows-2")
    lowered_equals_eager(randomise(nn.Conv3d(2, 4, (1, 2, 3))), torch.randn(1, 2, 1, 6, 5))


def test_too_many_points_are_declined():
    spec = spec_of(16, 16, (1, 5, 3), (1, 1, 1), (0, 2, 1), 1, 2, 8)
    assert "points" in (Rows(6, FORMULATIONS["taps"]).applies(spec) or "")
    assert Rows(4, FORMULATIONS["taps"]).applies(spec) is None
