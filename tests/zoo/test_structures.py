"""Real networks with every Conv3d replaced by each of the paper's structures: exported, gated, and the same numbers."""

from __future__ import annotations

import pytest

import edge4d
from edge4d import blocks
from tests.zoo.models import find

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("block", blocks.names())
@pytest.mark.parametrize("name", ["r3d_18", "slow_r50"])
def test_network_under_structure(name, block, tmp_path):
    entry = find(name)
    report = edge4d.export(entry.ready(seed=0), entry.inputs(seed=1), output=tmp_path / "net.onnx", block=block, sets=1)
    assert report.gate.ok, report.gate.to_text()
    assert report.parity is not None
    assert report.parity.ok, report.parity.to_text()
    assert report.swap is not None
    assert sum(row.block == block for row in report.swap.rows) >= 4
