"""Real networks with every Conv3d replaced by each of the paper's structures: exported, gated, and the same numbers."""

from __future__ import annotations

from functools import partial

import pytest

import edge4d
from edge4d import blocks, distance
from tests.zoo.models import find, ready

pytestmark = pytest.mark.slow


FACTORISED = "*branch2.conv_[ab]="
"""slow_r50 has no 3x3x3 kernel: the (1, 3, 3), (3, 1, 1) and (1, 1, 1) ones of its bottlenecks are named instead."""


@pytest.mark.parametrize("block", blocks.names())
@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        pytest.param("r3d_18", "", marks=pytest.mark.xdist_group("r3d_18")),
        pytest.param("slow_r50", FACTORISED, marks=pytest.mark.xdist_group("slow_r50")),
    ],
)
def test_network_under_structure(name, pattern, block, tmp_path, monkeypatch):
    # How far a structure is from the Conv3d is told, and not asked here: of one clip, where eight are as many runs.
    monkeypatch.setattr(distance, "distances", partial(distance.distances, clips=1))
    module, clips = ready(name), find(name).inputs(seed=1)
    report = edge4d.export(
        module, clips, output=tmp_path / "net.onnx", block=[pattern + block] if pattern else block, sets=1
    )
    assert report.gate.ok, report.gate.to_text()
    assert report.parity is not None
    assert report.parity.ok, report.parity.to_text()
    assert report.swap is not None
    assert sum(row.block == block for row in report.swap.rows) >= 16
    assert report.swap.distance
