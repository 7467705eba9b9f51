"""Graphs stay sane: the nodes of the 4-D ONNX against those of the 5-D graph that torch.onnx.export writes."""

from __future__ import annotations

import pytest
import torch

import edge4d
from edge4d.quiet import quiet
from tests.zoo.wide import WIDE

pytestmark = pytest.mark.slow

TIMES = 3

LARGER = {
    # ONNX has one node for instance norm and for a transposed convolution; at rank 4 they are several
    "unet3d": 6,
    # ONNX's GridSample of a volume is one node; at rank 4 it is eight gathers and their weights
    "grid_warp": 18,
}


@pytest.mark.parametrize("name", ["psmnet", "tsm", "timesformer", "segresnet", *LARGER])
def test_nodes_against_the_native_export(name, tmp_path):
    entry = next(entry for entry in WIDE if entry.name == name)
    module, clips = entry.build(), entry.inputs(1)
    report = edge4d.export(module, clips, output=tmp_path / "net.onnx", parity=False)
    with quiet():
        native = torch.onnx.export(module, clips, dynamo=True, verbose=False)
    assert native is not None
    assert sum(report.operators.values()) <= LARGER.get(name, TIMES) * len(native.model.graph)
