"""Networks as PyTorch and TensorFlow write them to ONNX, through the whole line, against ONNX Runtime on the file."""

import contextlib
import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import edge4d
from edge4d.checking import check_parity
from edge4d.errors import CaptureError, UsageError
from edge4d.ports import OPEN
from edge4d.validators.tolerances import Tolerance
from tests.loading.onnx_files import nets
from tests.loading.onnx_files.models import integers, model_of, numbers
from tests.lowering.harness import randomise

CLIP = (1, 3, 4, 16, 16)


def written(net, shape, path, *, dynamo=True, opset=18):
    """What torch.onnx makes of a network with random weights and statistics."""
    net = randomise(net).eval()
    for parameter in net.parameters():
        parameter.data *= 0.2
    clip = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    how = {"opset_version": opset, "dynamo": dynamo, "input_names": ["clip"]}
    if dynamo:
        how["verbose"] = False
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (clip,), str(path), **how)
    return path


def exported_equals_runtime(path, **options):
    """Export the file; it must hold what ONNX Runtime computes from it."""
    report = edge4d.export(path, **options)
    assert report.ok
    assert report.gate.ok
    assert not any("not checked" in note for note in report.notes)
    shapes = [tuple(3 if size == OPEN else size for size in port.shape) for port in report.inputs]
    held = check_parity(path, [report.path], tolerance=Tolerance(1e-5), input_shapes=shapes)
    assert held[report.path].ok, held[report.path].to_text()
    return report


@pytest.mark.parametrize("dynamo", [True, False])
def test_residual_network(tmp_path, dynamo):
    path = written(nets.r3d(), CLIP, tmp_path / "model.onnx", dynamo=dynamo)
    report = exported_equals_runtime(path)
    assert report.path == tmp_path / "model.4d.onnx"
    assert [port.name for port in report.inputs] == ["clip"]
    named = {node.name for node in onnx.load(path).graph.node}
    assert sum(layer.macs > 0 for layer in report.layers) == 4
    assert {layer.layer for layer in report.layers if layer.macs} <= named
    layers = check_parity(path, [report.path], sets=1, layers=True)[report.path].layers
    assert layers.ok
    assert set(layers.values) <= named


@pytest.mark.parametrize(
    ("net", "shape"), [(nets.X3d, CLIP), (nets.Attention, CLIP), (nets.Volume, (1, 1, 6, 8, 10))], ids=lambda v: str(v)
)
def test_families(tmp_path, net, shape):
    exported_equals_runtime(written(net(), shape, tmp_path / "model.onnx"))


class Heads(torch.nn.Module):
    """A convolution over a clip (N, C, T, H, W), then each kind of recurrent layer over its frames."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(3, 6, 3, padding=1)
        self.lstm = torch.nn.LSTM(6, 5, num_layers=2, bidirectional=True)
        self.gru = torch.nn.GRU(10, 4, batch_first=True)
        self.rnn = torch.nn.RNN(4, 3, nonlinearity="relu", bidirectional=True)

    def forward(self, clip):
        frames = self.conv(clip).relu().mean((3, 4)).permute(2, 0, 1)
        frames, _ = self.lstm(frames)
        frames, last = self.gru(frames.transpose(0, 1))
        frames, _ = self.rnn(frames.transpose(0, 1))
        return frames[-1], last[0]


def test_recurrent_heads(tmp_path):
    path = written(Heads(), CLIP, tmp_path / "model.onnx", dynamo=False)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert [kinds.count(kind) for kind in ("LSTM", "GRU", "RNN")] == [2, 1, 1]
    report = exported_equals_runtime(path, simplify=False)
    assert report.operators["LSTM"] == 2
    assert report.operators["GRU"] == 1


def test_recurrent_heads_of_an_open_batch(tmp_path):
    """tf2onnx's and PyTorch's way: the first state is made of the batch's size."""
    x, w, r = numbers(1, 3, 4, 5, 6), numbers(1, 16, 3, seed=1), numbers(1, 16, 4, seed=2)
    nodes = [
        helper.make_node("ReduceMean", ["clip", "space"], ["means"], keepdims=0),
        helper.make_node("Transpose", ["means"], ["frames"], perm=[2, 0, 1]),
        helper.make_node("Shape", ["clip"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Concat", ["one", "batch", "four"], ["size"], axis=0),
        helper.make_node("ConstantOfShape", ["size"], ["state"]),
        helper.make_node(
            "LSTM", ["frames", "w", "r", "", "", "state", "state"], ["y", "h"], hidden_size=4, name="lstm"
        ),
    ]
    given = {"space": np.array([3, 4]), "zero": np.array([0]), "one": np.array([1]), "four": np.array([4])}
    model = model_of(nodes, {"clip": x}, given | {"w": w, "r": r}, ["y", "h"], open_axes=(0,))
    onnx.save(model, tmp_path / "model.onnx")
    report = exported_equals_runtime(tmp_path / "model.onnx", dynamic="batch", simplify=False)
    assert report.inputs[0].shape[0] == OPEN


@pytest.mark.slow
def test_eco_lite(tmp_path):
    exported_equals_runtime(written(nets.eco(), (1, 3, 4, 224, 224), tmp_path / "model.onnx", dynamo=False), sets=1)


def test_a_block_replaces_the_convolutions_of_a_file(tmp_path):
    path = written(nets.r3d(), CLIP, tmp_path / "model.onnx", dynamo=False)
    report = edge4d.export(path, output=tmp_path / "small.onnx", block="proposed-add", sets=1, simplify=False)
    assert report.ok
    assert [row.layer for row in report.swap.rows if row.block] == ["/3/conv1/Conv", "/3/conv2/Conv"]


def tensorflow_like():
    """tf2onnx's way: NDHWC outside, a Transpose around each Conv, auto_pad, and shapes computed from the batch."""
    rng = np.random.default_rng(3)
    weights = {
        "w1": rng.normal(0, 0.2, (8, 3, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.1, (6, 8, 3, 3, 3)).astype(np.float32),
        "b2": rng.normal(0, 0.1, 6).astype(np.float32),
        "pads": np.array([0, 1, 1, 1, 0, 0, 1, 1, 1, 0]),
        "zero": np.array([0]),
        "one": np.array([1]),
        "rest": np.array([-1]),
        "fc": rng.normal(0, 0.1, (192, 5)).astype(np.float32),
    }
    to_first, to_last = [0, 4, 1, 2, 3], [0, 2, 3, 4, 1]
    same, valid = {"auto_pad": "SAME_UPPER"}, {"auto_pad": "VALID"}
    nodes = [
        helper.make_node("Transpose", ["clip"], ["t1"], perm=to_first, name="net/conv1/Conv3D__5"),
        helper.make_node("Conv", ["t1", "w1"], ["c1"], name="net/conv1/Conv3D", **same, strides=[1, 2, 2]),
        helper.make_node("Transpose", ["c1"], ["t2"], perm=to_last, name="net/conv1/Conv3D__7"),
        helper.make_node("Relu", ["t2"], ["r1"], name="net/relu"),
        helper.make_node("Pad", ["r1", "pads"], ["p1"], name="net/pad"),
        helper.make_node("Transpose", ["p1"], ["t3"], perm=to_first, name="net/conv2/Conv3D__9"),
        helper.make_node("Conv", ["t3", "w2", "b2"], ["c2"], name="net/conv2/Conv3D", **valid, strides=[2, 2, 2]),
        helper.make_node("MaxPool", ["c2"], ["m"], name="net/pool", kernel_shape=[2, 2, 2], **same),
        helper.make_node("Shape", ["clip"], ["shape"], name="net/shape"),
        helper.make_node("Slice", ["shape", "zero", "one"], ["n"], name="net/strided_slice"),
        helper.make_node("Concat", ["n", "rest"], ["wanted"], name="net/packed", axis=0),
        helper.make_node("Reshape", ["m", "wanted"], ["flat"], name="net/reshape"),
        helper.make_node("MatMul", ["flat", "fc"], ["logits"], name="net/dense/MatMul"),
        helper.make_node("Softmax", ["logits"], ["out:0"], name="net/softmax"),
    ]  # fmt: skip
    return nodes, {"clip": numbers(1, 4, 16, 16, 3)}, weights


def test_tensorflow_layout(tmp_path):
    nodes, inputs, weights = tensorflow_like()
    path = tmp_path / "tf.onnx"
    onnx.save(model_of(nodes, inputs, weights, ["out:0"], 13, open_axes=(0,)), path)
    report = exported_equals_runtime(path)
    assert "from the file, with a batch of 1" in report.notes[0]
    assert [port.name for port in report.outputs] == ["out:0"]
    # auto_pad became padding where it is the same at both ends
    assert {layer.layer for layer in report.layers if layer.macs} == {"net/conv1/Conv3D.conv", "net/conv2/Conv3D"}


def test_open_batch(tmp_path):
    nodes, inputs, weights = tensorflow_like()
    path = tmp_path / "tf.onnx"
    onnx.save(model_of(nodes, inputs, weights, ["out:0"], 13, open_axes=(0,)), path)
    report = exported_equals_runtime(path, dynamic="batch", simplify=False, sets=1)
    assert report.inputs[0].shape == (OPEN, 4, 16, 16, 3)


def test_open_axes_need_a_shape(tmp_path):
    nodes, inputs, weights = tensorflow_like()
    path = tmp_path / "tf.onnx"
    onnx.save(model_of(nodes, inputs, weights, ["out:0"], 13, open_axes=(0, 1)), path)
    with pytest.raises(UsageError, match=r"leaves the shape of its input open: clip: s0xs1x16x16x3") as caught:
        edge4d.export(path)
    assert "--input-shape 1x16x16x16x3" in caught.value.hint
    with pytest.raises(UsageError, match="the file says clip: s0xs1x16x16x3, --input-shape gave"):
        edge4d.export(path, input_shapes=[(1, 4, 16, 16, 4)])
    with pytest.raises(UsageError, match=r"node 'net/dense/MatMul' \(MatMul\) fails on the input clip: 1x16x16x16x3"):
        edge4d.export(path, input_shapes=[(1, 16, 16, 16, 3)])
    with pytest.raises(UsageError, match=r"takes 1 input .*given 2 time"):
        edge4d.export(path, input_shapes=[(1, 4, 16, 16, 3)] * 2)
    exported_equals_runtime(path, input_shapes=[(1, 4, 16, 16, 3)])


def test_several_inputs_and_types(tmp_path):
    nodes = [
        helper.make_node("Gather", ["clip", "frames"], ["some"], axis=2, name="pick"),
        helper.make_node("Where", ["mask", "some", "zero"], ["masked"], name="mask"),
        helper.make_node("ReduceMean", ["masked"], ["mean"], axes=[3, 4], keepdims=0, name="mean"),
        helper.make_node("ArgMax", ["mean"], ["best"], axis=1, name="best"),
    ]
    inputs = {
        "clip": numbers(1, 3, 4, 5, 6),
        "frames": integers(2, high=4),
        "mask": integers(1, 1, 2, 5, 6, high=2).astype(bool),
    }
    path = tmp_path / "model.onnx"
    onnx.save(model_of(nodes, inputs, {"zero": np.array(-0.5, np.float32)}, ["mean", "best"], 13), path)
    report = exported_equals_runtime(path)
    assert [port.dtype for port in report.inputs] == ["float32", "int64", "bool"]


def test_an_import_that_computes_something_else_is_caught(tmp_path, monkeypatch):
    from edge4d.loading.onnx import registry

    nodes, inputs, weights = tensorflow_like()
    path = tmp_path / "tf.onnx"
    onnx.save(model_of(nodes, inputs, weights, ["out:0"], 13), path)
    registry.known()
    monkeypatch.setitem(registry._IMPORTERS, "Relu", registry.Importer(lambda node: lambda x: x.clamp(min=-0.01)))
    with pytest.raises(CaptureError, match="does not compute what ONNX Runtime computes") as caught:
        edge4d.export(path)
    assert "report" in caught.value.hint
    assert not (tmp_path / "tf.4d.onnx").exists()
