"""Table II: counts against arithmetic and the paper, and the table's own honesty."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from edge4d import blocks
from edge4d.comparison import PAPER, Comparison, PaperFigures, Row, compare_structures, count_macs
from edge4d.errors import UsageError
from edge4d.models.eco_lite import eco_lite


def test_macs_of_one_convolution():
    conv = nn.Conv3d(3, 8, 3, stride=2, padding=1, bias=False)
    assert count_macs(conv, torch.zeros(1, 3, 4, 6, 8)) == 27 * 3 * 8 * (2 * 3 * 4)


def test_counting_leaves_the_module_alone():
    conv = nn.Conv3d(1, 1, 1)
    count_macs(conv, torch.zeros(1, 1, 1, 1, 1))
    assert conv.weight.device.type == "cpu"


@pytest.mark.parametrize("structure", ["conv3d", "r2plus1d", "proposed-add", "proposed-cat"])
def test_within_3_percent_of_the_paper(structure):
    with torch.device("meta"):
        network = eco_lite(structure)
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    macs = count_macs(network.net3d, torch.empty(1, 96, 16, 28, 28)) / 1e9
    assert parameters == pytest.approx(PAPER[structure].parameters, rel=0.03)
    assert macs == pytest.approx(PAPER[structure].macs, rel=0.03)


def test_conv3d_by_hand():
    """Two basic blocks a stage, a projection in each, as `eco_lite` states."""
    kernels, work = 0, 0
    for c, s, positions in ((96, 128, 16 * 28**2), (128, 256, 8 * 14**2), (256, 512, 4 * 7**2)):
        stage = 27 * c * s + 3 * 27 * s * s + c * s
        kernels, work = kernels + stage, work + stage * positions
    with torch.device("meta"):
        network = eco_lite()
    assert count_macs(network.net3d, torch.empty(1, 96, 16, 28, 28)) == work + 512 * 400
    norms = 2 * 5 * (128 + 256 + 512)
    assert sum(p.numel() for p in network.net3d.parameters()) == kernels + norms + 512 * 400 + 400


def test_counting_alone():
    state = torch.random.get_rng_state()
    found = compare_structures("eco-lite-small", structures=["conv3d", "proposed-add"], frames=4, rounds=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [row.structure for row in found.rows] == ["conv3d", "proposed-add"]
    conv, add = found.rows
    assert add.parameters < conv.parameters
    # taps in the padding are left out, transforms save products, folded time multiplies zeros
    assert 0 < conv.graph_macs != conv.macs
    assert add.graph_macs < conv.graph_macs
    assert conv.paper is None
    assert conv.frames_per_s is None
    assert found.ok
    assert "FPS was not measured" in found.to_text()


def row(**changes):
    base = Row("conv3d", "Conv3D", 33_700_000, 35_600_000_000, 35_000_000_000, paper=PaperFigures(33.7, 773, 35.6))
    return replace(base, **changes)


def test_the_difference_to_the_paper_is_shown():
    off = row(parameters=40_440_000)
    assert off.difference("parameters") == pytest.approx(0.2)
    assert off.difference("macs") == pytest.approx(0)
    assert "+20.0%" in Comparison("eco-lite", (1, 3, 16, 243, 243), (off,), 1).to_text()


@pytest.mark.parametrize("wrong", [{"ok": False}, {"ok": True, "failure": "out of memory"}])
def test_a_failure_is_no_success(wrong):
    found = Comparison("eco-lite", (1, 3, 16, 243, 243), (row(**wrong),), 1)
    assert not found.ok
    assert "failed" in found.to_text()


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="unknown model"):
        compare_structures("resnet")
    with pytest.raises(UsageError, match="unknown block"):
        compare_structures(structures=["conv4d"])
    with pytest.raises(UsageError, match="rounds"):
        compare_structures(rounds=-1)


def test_the_paper_has_every_structure():
    assert set(PAPER) == set(blocks.names())
