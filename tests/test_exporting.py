"""The whole line on small networks: files, metadata, recipe, names, refusals, interruptions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import einops
import numpy as np
import onnx
import pytest
import torch
from torch import nn

import edge4d
from edge4d.errors import ExportError, UsageError
from edge4d.exporters.onnx import to_onnx
from edge4d.exporters.writing import write_artifact
from edge4d.lowered import lower
from tests.lowering.harness import randomise


class Net(nn.Module):
    """Two blocks, two outputs of rank 5 and 2."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(2, 32, 3, padding=1), nn.BatchNorm3d(32), nn.ReLU())
        self.body = nn.Conv3d(32, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, clip):
        features = self.body(self.stem(clip))
        return {"scores": self.head(features.mean((2, 3, 4))), "features": features}


@pytest.fixture(scope="module")
def net():
    return randomise(Net()).eval()


@pytest.fixture(scope="module")
def clip():
    return torch.randn(2, 2, 5, 6, 7, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def report(net, clip, tmp_path_factory):
    return edge4d.export(net, (clip,), output=tmp_path_factory.mktemp("export") / "net.onnx")


def test_the_report_says_that_all_is_well(report):
    assert report.ok
    assert report.gate.ok
    assert report.parity is not None
    assert report.parity.ok
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert "packed: n c t h w -> (n t) c h w" in report.to_text()
    assert "edge4d verify" in report.to_text()


def test_a_user_of_any_runtime_needs_einops_and_the_metadata_only(report, net, clip):
    import onnxruntime

    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["edge4d.version"] == edge4d.__version__
    assert metadata["edge4d.block"] == "exact"
    assert metadata["edge4d.shape.clip"] == "2x2x5x6x7"
    packed = einops.rearrange(clip.numpy(), metadata["edge4d.packing.clip"])
    scores, features = session.run(["scores", "features"], {"clip": np.ascontiguousarray(packed)})
    with torch.no_grad():
        expected = net(clip)
    np.testing.assert_allclose(scores, expected["scores"], rtol=1e-4, atol=1e-4)
    logical = einops.rearrange(expected["features"].numpy(), metadata["edge4d.packing.features"])
    np.testing.assert_allclose(features, logical, rtol=1e-4, atol=2e-3)
    assert "edge4d.shape.scores" not in metadata


def test_nodes_and_weights_are_named_after_the_source_layers(report):
    model = onnx.load(report.path)
    onnx.checker.check_model(model, full_check=True)
    assert {t.name for t in model.graph.initializer} >= {
        "stem.0.weight.folded",
        "stem.0.bias.folded",
        "body.weight.folded",
        "body.bias.folded",
        "head.weight",
    }
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert {node.name.split("/")[0] for node in convolutions} == {"stem.0", "body"}
    told = {entry.key: entry.value for entry in convolutions[-1].metadata_props}
    assert told["edge4d.layer"] == "body"
    assert told["edge4d.op"] == "aten.conv3d.default"
    assert told["edge4d.rule"] == "Convolution"
    assert told["edge4d.line"].startswith("tests/test_exporting.py:")
    assert all(len(t.dims) <= 4 for t in model.graph.initializer)
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_the_recipe_lies_beside_the_artifact(report):
    recipe = json.loads(report.path.with_name("net.onnx.json").read_text())
    assert recipe["options"]["block"] == "exact"
    assert recipe["options"]["opset"] == 18
    assert recipe["options"]["inputs"][0]["packing"] == "n c t h w -> (n t) c h w"
    assert len(recipe["files"]["net.onnx"]["sha256"]) == 64
    assert recipe["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_other_opsets(net, clip, opset, tmp_path):
    report = edge4d.export(net, (clip,), output=tmp_path / "net.onnx", opset=opset)
    assert report.ok
    (version,) = (entry.version for entry in onnx.load(report.path).opset_import if entry.domain == "")
    assert version == opset


@pytest.mark.parametrize("opset", [9, 17, 24, 99])
def test_an_opset_that_cannot_be_written_is_refused_at_once(net, clip, opset, tmp_path):
    with pytest.raises(UsageError, match=rf"opset {opset} .*expected 18 to 23"):
        edge4d.export(net, (clip,), output=tmp_path / "net.onnx", opset=opset)


def test_a_device_profile_gates_too(net, clip, tmp_path):
    report = edge4d.export(net, (clip,), output=tmp_path / "net.onnx", parity=False, profile="edgetpu")
    assert not report.ok  # ten frames lie in the batch, and the Edge TPU takes three axes larger than 1
    assert {f.code for f in report.gate.findings} == {"E4D101"}
    assert any(f.where.layer for f in report.gate.findings)
    with pytest.raises(UsageError, match="no profile"):
        edge4d.export(net, (clip,), output=tmp_path / "no.onnx", profile="toaster")
    assert not (tmp_path / "no.onnx").exists()


def test_without_simplification_the_numbers_are_the_same(net, clip, tmp_path):
    assert edge4d.export(net, (clip,), output=tmp_path / "net.onnx", simplify=False).ok


def test_large_weights_lie_in_a_file_beside_the_model(net, clip, tmp_path):
    lowered = lower(net, (clip,))
    graph = to_onnx(lowered)
    path = tmp_path / "big.onnx"
    write_artifact(graph, path, options={}, external_above=1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data", "big.onnx.json"]
    assert path.with_name("big.onnx.data").stat().st_size > 20_000
    assert len(onnx.load(path, load_external_data=False).SerializeToString()) < 20_000
    write_artifact(graph, tmp_path / "small.onnx", options={})
    feeds = dict(zip((p.name for p in lowered.inputs), (t.numpy() for t in lowered.pack(clip)), strict=True))
    with edge4d.open(path) as big, edge4d.open(tmp_path / "small.onnx") as small:
        for name, array in big.session.run(feeds).items():
            assert (array == small.session.run(feeds)[name]).all()
    assert edge4d.validators.check_rank(path).ok


def test_an_existing_output_is_kept_unless_forced(net, clip, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_text("precious")
    with pytest.raises(UsageError, match=r"exists already[\s\S]*--force"):
        edge4d.export(net, (clip,), output=path)
    assert path.read_text() == "precious"
    assert edge4d.export(net, (clip,), output=path, force=True, parity=False).ok


def test_a_folder_that_is_not_there_is_a_clear_error(net, clip, tmp_path):
    with pytest.raises(ExportError, match="nowhere"):
        edge4d.export(net, (clip,), output=tmp_path / "nowhere" / "net.onnx")


def test_a_full_disk_leaves_nothing(net, clip, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ExportError, match="no space is left on the disk"):
        edge4d.export(net, (clip,), output=tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_while_writing_leaves_nothing(net, clip, tmp_path, monkeypatch):
    def interrupted(self, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        edge4d.export(net, (clip,), output=tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("block", "said"), [("exakt", "did you mean 'exact'"), ("zzz", "known blocks: exact")])
def test_an_unknown_block_lists_them(net, clip, block, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        edge4d.export(net, (clip,), output=tmp_path / "net.onnx", block=block)


def test_a_module_in_memory_needs_inputs_and_an_output(net, clip, tmp_path):
    with pytest.raises(UsageError, match="needs an output path"):
        edge4d.export(net, (clip,))
    with pytest.raises(UsageError, match="no example inputs for Net"):
        edge4d.export(net, output=tmp_path / "net.onnx")


def test_an_exported_program_and_keyword_inputs(net, clip, tmp_path):
    program = torch.export.export(net, (clip,))
    assert edge4d.export(program, (clip,), output=tmp_path / "program.onnx").ok
    assert edge4d.export(net, kwargs={"clip": clip}, output=tmp_path / "keywords.onnx").ok


def test_parity_fails_when_the_graph_is_wrong(net, clip, tmp_path, monkeypatch):
    """The comparison inside `export` is not a formality: a spoilt weight is found."""
    import edge4d.exporters.writing as writing

    honest = writing._write_inside

    def spoilt(graph, proto):
        graph.weights["head.weight"] = graph.weights.get("head.weight", np.zeros((3, 4), np.float32))
        name = max(graph.weights, key=lambda n: graph.weights[n].nbytes)
        graph.weights[name] = graph.weights[name] * 1.01
        graph.weights.pop("head.weight")
        honest(graph, proto)

    monkeypatch.setattr(writing, "_write_inside", spoilt)
    report = edge4d.export(net, (clip,), output=tmp_path / "net.onnx")
    assert not report.ok
    assert report.gate.ok
    assert report.parity is not None
    assert not report.parity.ok


def test_import_is_light():
    code = "import sys, edge4d; print([m for m in ('torch', 'onnx', 'numpy', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_model_over_two_gigabytes(tmp_path):
    class Large(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(1, 4, 3, padding=1)
            self.wide = nn.Linear(4 * 4 * 6 * 6, 960 * 1000, bias=False)  # 2.2 GB of float32

        def forward(self, x):
            return self.wide(self.conv(x).flatten(1)).view(-1, 1000, 960).amax(1)

    report = edge4d.export(Large().eval(), (torch.randn(1, 1, 4, 6, 6),), output=tmp_path / "large.onnx", sets=1)
    assert report.ok
    assert report.weight_bytes > 2**31
    assert (tmp_path / "large.onnx.data").stat().st_size > 2**31
    assert (tmp_path / "large.onnx").stat().st_size < 2**20
