"""Models of float16, bfloat16, float64, and of several: kept, or refused by layer with a way out that works."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import edge4d
from edge4d.checking import check_parity
from edge4d.errors import UsageError
from edge4d.subject import numpy_of, torch_of
from edge4d.widening import float_types
from tests.lowering.harness import randomise

CLIP = torch.randn(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, clip):
        return self.head(self.stem(clip).mean((2, 3, 4)))


class Mixed(nn.Module):
    """Its code names the types, and works in place on a copy that a cast made."""

    def __init__(self, narrow):
        super().__init__()
        self.narrow = narrow
        self.first = nn.Conv3d(3, 8, 3, padding=1).to(narrow)
        self.second = nn.Conv3d(8, 4, 3)

    def forward(self, clip):
        own = clip.to(self.narrow)
        own.mul_(0.5)
        return self.second((self.first(own)).float()).mean((2, 3, 4)) + clip.mean()


def net(dtype) -> nn.Module:
    torch.manual_seed(0)
    return Net().eval().to(dtype)


def test_a_float16_model_stays_float16_and_is_judged_as_such(tmp_path):
    report = edge4d.export(net(torch.float16), (CLIP.half(),), output=tmp_path / "half.onnx")
    assert report.ok
    assert (report.inputs[0].dtype, report.outputs[0].dtype) == ("float16", "float16")
    assert report.precision["precision"] == "fp16"
    assert report.parity.rows[0].allowed == 5e-3
    metadata = {entry.key: entry.value for entry in onnx.load(report.path).metadata_props}
    assert metadata["edge4d.precision"] == "fp16"


def test_a_model_with_some_float16_inside_is_judged_by_it(tmp_path):
    torch.manual_seed(0)
    report = edge4d.export(Mixed(torch.float16).eval(), (CLIP,), output=tmp_path / "mixed.onnx")
    assert report.ok
    assert report.outputs[0].dtype == "float32"
    assert report.precision["precision"] == "fp16"
    assert any("limits of fp16" in note for note in report.parity.notes)


@pytest.mark.parametrize(
    ("model", "clip", "said"),
    [
        (net(torch.bfloat16), CLIP.bfloat16(), r"computes in bfloat16, first in layer 'stem.0': aten.conv3d"),
        (Mixed(torch.bfloat16).eval(), CLIP, r"computes in bfloat16, first in layer 'first': aten.conv3d"),
        (net(torch.float64), CLIP.double(), r"convolves in float64, first in layer 'stem.0': aten.conv3d"),
    ],
    ids=["bfloat16", "mixed", "float64"],
)
def test_what_no_runtime_runs_is_refused_by_layer_and_float32_is_the_way_out(model, clip, said, tmp_path):
    with pytest.raises(UsageError, match=said) as raised:
        edge4d.export(model, (clip,), output=tmp_path / "net.onnx")
    assert "--precision fp32" in raised.value.hint
    assert not (tmp_path / "net.onnx").exists()
    types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    report = edge4d.export(model, (clip,), output=tmp_path / "net.onnx", precision="fp32")
    assert report.ok
    assert report.parity.rows[0].allowed == 1e-5
    assert (report.inputs[0].dtype, report.outputs[0].dtype) == ("float32", "float32")
    assert next(layer.layer for layer in report.layers if layer.macs) in ("stem.0", "first")
    assert any("to float32, and is compared as such" in note for note in report.notes)
    assert {name: tensor.dtype for name, tensor in model.state_dict().items()} == types
    with torch.no_grad():
        expected = model(clip).float().numpy()
    with edge4d.open(report.path) as opened:
        got = opened(clip.float().numpy())["output"]
    assert np.abs(got - expected).max() < 0.02 * np.ptp(expected)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_narrow_model_in_an_asked_precision(precision, tmp_path):
    calib = {"calib": np.random.default_rng(0).standard_normal((8, 3, 4, 8, 8)).astype("f4")}
    report = edge4d.export(
        net(torch.bfloat16),
        (CLIP.bfloat16(),),
        output=tmp_path / "net.onnx",
        precision=precision,
        **(calib if precision == "int8" else {}),
    )
    assert report.ok
    assert report.precision["precision"] == precision


def test_float64_without_a_convolution_is_kept(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double().eval()
    report = edge4d.export(model, (torch.randn(2, 3, 2, 2, 1).double(),), output=tmp_path / "net.onnx")
    assert report.ok
    assert report.outputs[0].dtype == "float64"


def test_an_archive_of_bfloat16_is_the_reference_of_its_float32_artifact(tmp_path):
    program = torch.export.export(net(torch.bfloat16), (CLIP.bfloat16(),))
    torch.export.save(program, tmp_path / "net.pt2")
    report = edge4d.export(tmp_path / "net.pt2", precision="fp32")
    assert report.ok
    found = check_parity(tmp_path / "net.pt2", [report.path], layers=True)
    assert found[report.path].ok
    assert found[report.path].rows[0].allowed == 4e-2
    torch.export.save(torch.export.export(net(torch.float64), (CLIP.double(),)), tmp_path / "double.pt2")
    wide = edge4d.export(tmp_path / "double.pt2", precision="fp32")
    (judged,) = check_parity(tmp_path / "double.pt2", [wide.path]).values()
    assert judged.ok
    assert judged.rows[0].allowed == 1e-5


def test_an_open_batch_of_a_narrow_model_is_declined(tmp_path):
    with pytest.raises(UsageError, match="--dynamic batch with --precision fp32: the model computes in bfloat16"):
        edge4d.export(
            net(torch.bfloat16),
            (CLIP.bfloat16(),),
            output=tmp_path / "net.onnx",
            dynamic="batch",
            precision="fp32",
        )
    with pytest.raises(UsageError, match="computes in bfloat16, first in layer"):
        edge4d.export(net(torch.bfloat16), (CLIP.bfloat16(),), output=tmp_path / "net.onnx", dynamic="batch")


def test_frames_into_a_float16_model(tmp_path):
    model = net(torch.float16)
    report = edge4d.export(
        model, (CLIP.half(),), output=tmp_path / "net.onnx", normalize="mean=0.4 std=0.2", input_layout="nhwc"
    )
    assert report.ok
    assert report.inputs[0].dtype == "uint8"
    frames = np.random.default_rng(0).integers(0, 256, (1, 4, 8, 8, 3), dtype=np.uint8)
    clip = ((torch.from_numpy(frames).float() / 255 - 0.4) / 0.2).half().permute(0, 4, 1, 2, 3)
    with torch.no_grad(), edge4d.open(report.path) as opened:
        expected = model(clip).float().numpy()
        assert np.abs(opened(frames)["output"] - expected).max() < 5e-3 * np.ptp(expected)


def test_arrays_keep_bfloat16():
    tensor = torch.randn(3, 4).bfloat16()
    array = numpy_of(tensor.t())
    assert array.dtype.name == "bfloat16"
    assert torch.equal(torch_of(array), tensor.t())
    assert torch_of(np.float32(2)).shape == ()


def test_float32_models_have_no_other_type():
    from edge4d.lowered import lower

    assert float_types(lower(randomise(Net()).float().eval(), (CLIP,))) == {}


@pytest.mark.slow
def test_on_the_command_line(tmp_path):
    torch.export.save(torch.export.export(net(torch.bfloat16), (CLIP.bfloat16(),)), tmp_path / "net.pt2")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edge4d", "export", str(tmp_path / "net.pt2"), "--json", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = run()
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert "computes in bfloat16" in refused.stderr
    wrong = run("--precision", "fp32", "--normalize", "mean=0.4 std=0")
    assert wrong.returncode == 2
    assert "std holds 0" in wrong.stderr
    good = run("--precision", "fp32", "--normalize", "mean=0.4,0.4,0.4 std=0.2", "--input-layout", "clip:nhwc")
    assert good.returncode == 0, good.stderr
    (port,) = json.loads(good.stdout)["inputs"]
    assert port["dtype"] == "uint8"
    assert port["shape"] == [1, 4, 8, 8, 3]
    assert port["intake"] == {"layout": "nhwc", "normalize": "mean=0.4,0.4,0.4 std=0.2 scale=255"}
