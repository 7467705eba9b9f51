"""Winograd's tiles in parts: bit for bit what they were, in smaller pieces, and whatever else is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import edge4d
from edge4d import tile_parts
from edge4d.exporters import onnxruntime_parts
from edge4d.exporters.onnxruntime import compile_engine
from edge4d.exporters.onnxruntime_parts import split_tiles
from edge4d.planning import Planner

FRAMES = 13
CLIP = torch.randn(1, 4, FRAMES, 7, 6, generator=torch.Generator().manual_seed(0))


def written(path, formulation="winograd-4", clip=CLIP, **how):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv3d(4, 8, 3, padding=1), nn.ReLU()).eval()
    edge4d.export(net, (clip,), output=path, parity=False, formulations=[("*", formulation)], **how)
    return path


@pytest.fixture
def small(monkeypatch):
    """Layers of a test are large enough."""
    monkeypatch.setattr(tile_parts, "PART", 1)


def built(path, beside=False):
    """An engine, in this process, which knows what the test has changed."""
    engine = path.with_name("engine.onnx")
    files = [engine, *([engine.with_name("engine.onnx.data")] if beside else [])]
    compile_engine({"model": path, "options": {}, "files": files, "max_rank": 4})
    return engine


def count(path, kind: str) -> int:
    return sum(node.op_type == kind for node in onnx.load(path).graph.node)


def result(path, clip=CLIP):
    with edge4d.open(path) as opened:
        return opened(clip.numpy())["output"]


@pytest.mark.parametrize(("formulation", "parts"), [("winograd-4", 4), ("winograd-2", 4)])
@pytest.mark.parametrize("batch", [1, 3])
def test_numbers_stay_what_they_were(small, tmp_path, formulation, parts, batch):
    clip = torch.randn(batch, 4, FRAMES, 7, 6)
    path = written(tmp_path / "net.onnx", formulation, clip)
    before = result(path, clip)
    assert split_tiles(path) == 1
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert (count(path, "MatMul"), count(path, "Conv"), count(path, "Concat")) == (2 * parts, parts, 1)
    assert np.array_equal(result(path, clip), before)


def test_a_part_that_reads_the_wrong_tiles_would_be_noticed(small, tmp_path, monkeypatch):
    real = onnxruntime_parts._Layer.cuts

    def swapped(layer, parts):
        cuts = real(layer, parts)
        return [(places, rows) for (places, _), (_, rows) in zip(reversed(cuts), cuts, strict=True)]

    monkeypatch.setattr(onnxruntime_parts._Layer, "cuts", swapped)
    path = written(tmp_path / "net.onnx", clip=(clip := torch.randn(1, 4, 16, 7, 6)))
    before = result(path, clip)
    assert split_tiles(path) == 1
    assert not np.array_equal(result(path, clip), before)


def test_an_engine_is_built_in_parts_and_holds_no_constant_of_the_whole(small, tmp_path):
    path = written(tmp_path / "net.onnx")
    engine = built(path)
    assert (count(path, "MatMul"), count(engine, "MatMul")) == (2, 8)
    assert np.array_equal(result(engine), result(path))
    graph = onnx.load(engine).graph
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


def test_weights_beside_the_engine_are_found(small, tmp_path):
    path = written(tmp_path / "net.onnx", clip=(clip := torch.randn(1, 4, 24, 7, 6)))
    engine = built(path, beside=True)  # W1 is 36 x 24 floats, large enough to lie outside
    assert engine.with_name("engine.onnx.data").stat().st_size > 0
    assert count(engine, "MatMul") == 8
    assert np.array_equal(result(engine, clip), result(path, clip))


def test_small_layers_stay_whole(tmp_path):
    path = written(tmp_path / "net.onnx")
    before = path.read_bytes()
    assert split_tiles(path) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "what", ["used elsewhere", "a result of the graph", "tiles that overlap", "another type", "short"]
)
def test_what_does_not_come_apart_is_left_alone(small, tmp_path, what):
    short = what == "short"
    clip = torch.randn(1, 4, 2, 7, 6) if short else CLIP
    path = written(tmp_path / "net.onnx", "short" if short else "winograd-4", clip)
    model = onnx.load(path)
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    if what == "used elsewhere":
        model.graph.node.append(onnx.helper.make_node("Relu", [products[0].output[0]], ["spare"]))
        model.graph.output.append(onnx.helper.make_tensor_value_info("spare", onnx.TensorProto.FLOAT, None))
    elif what == "a result of the graph":
        name = products[0].output[0]
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    elif what in ("tiles that overlap", "another type"):
        place = next(t for t in model.graph.initializer if t.name == products[-1].input[0])
        array = numpy_helper.to_array(place).copy()
        array[0, 0, -1] = 1  # the first result reads the last tile
        array = array.astype(np.float16) if what == "another type" else array
        place.CopyFrom(numpy_helper.from_array(array, place.name))
    onnx.save(model, path)
    before = path.read_bytes()
    assert split_tiles(path) == 0
    assert path.read_bytes() == before


def test_the_graph_itself_is_never_in_parts():
    wide = torch.zeros(1, 64, 16, 56, 56)
    lowered = edge4d.lower(nn.Conv3d(64, 64, 3, padding=1).eval(), (wide,), planner=Planner.of())
    assert sum("matmul" in str(node.target) for node in lowered.module.graph.nodes) == 2
