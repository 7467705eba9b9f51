"""Graphs stay sane: nodes and weights of the 4-D ONNX against those of the 5-D network."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import edge4d
from tests.zoo.coverage import run
from tests.zoo.models import find
from tests.zoo.wide import WIDE

pytestmark = pytest.mark.slow

TIMES = 3

LARGER = {
    # an instance norm is one node in ONNX and seven at rank 4, a convolution seven by Winograd and nine by taps
    "unet3d": 4.5,
    "basic_unet": 4.5,
    "dynunet": 5.5,
    # ONNX's GridSample of a volume is one node of six; at rank 4 it is the places and weights of eight corners
    "grid_warp": 8,
}

BOUNDS = {
    **dict.fromkeys(("psmnet", "tsm", "timesformer", "segresnet", "voxelmorph", "attention_unet"), TIMES),
    **LARGER,
}
"""Nodes for each node of the native graph, of networks that `test_wide.py` exports anyway and holds against them."""


def test_nodes_against_the_native_export(tmp_path):
    outcome = run(find("r3d_18"), tmp_path)
    assert outcome.native is not None
    assert outcome.nodes <= TIMES * outcome.native


# ---- weights ------------------------------------------------------------------------------------------------------

LARGE = 1024
"""Bytes; equal constants below that are shapes, scales and untrained norms."""


def copies(model: onnx.ModelProto) -> list[list[str]]:
    """Names of large initializers that hold the very same bytes under the same shape."""
    found = defaultdict(list)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.nbytes >= LARGE and np.ptp(array):  # all ones or zeros is what an untrained norm begins with
            found[array.dtype, array.shape, hashlib.sha256(array.tobytes()).digest()].append(tensor.name)
    return [names for names in found.values() if len(names) > 1]


def large_bytes(model: onnx.ModelProto) -> int:
    """Of the weights; a large block of zeros is no weight."""
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return sum(array.nbytes for array in arrays if array.nbytes >= LARGE and np.ptp(array))


def test_a_weight_that_is_there_twice_would_be_noticed():
    w = np.arange(600, dtype=np.float32)
    given = {
        "a": w,
        "b": w.copy(),
        "c": w + 1,
        "small": w[:10],
        "small2": w[:10],
        "ones": w * 0 + 1,
        "ones2": w * 0 + 1,
    }
    initializers = [numpy_helper.from_array(array, name) for name, array in given.items()]
    model = helper.make_model(helper.make_graph([], "g", [], [], initializers))
    assert copies(model) == [["a", "b"]]
    assert large_bytes(model) == 3 * w.nbytes


OWN_WEIGHTS = {"formulations": ["taps"], "max_weight_growth": 1, "parity": False}


@pytest.mark.parametrize("name", ["psmnet", "attention_unet", "vjepa2", "lstm_gru_head"])
def test_no_weight_is_there_twice(name, tmp_path):
    """With `taps`, whose weights are the layer's own, a graph needs no more of them than the network has."""
    entry = next(entry for entry in WIDE if entry.name == name)
    module = entry.ready(seed=0)
    report = edge4d.export(module, entry.inputs(1), output=tmp_path / "net.onnx", **OWN_WEIGHTS)
    model = onnx.load(report.path)
    assert copies(model) == []
    own = sum(tensor.nbytes for tensor in {id(t): t for t in module.state_dict().values()}.values())
    assert large_bytes(model) <= 1.02 * own
