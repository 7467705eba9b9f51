"""Layer by layer: the layer with the wrong weight is the one that is named, and what it writes reproduces it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edge4d.checking import check_parity
from edge4d.cli import main
from edge4d.errors import ExportError, UsageError, ValidationError
from edge4d.exporting import export
from edge4d.layer_checking import compare_layers, exposed
from edge4d.layer_values import METADATA_KEY, LayerValue
from edge4d.packing import Packing
from edge4d.source_layers import source_layers
from edge4d.subject import Subject
from edge4d.validators import ParityReport, tolerance_for
from edge4d.validators.layers import LayersReport, layer_values

pytest.importorskip("onnxruntime", reason="layers run in ONNX Runtime")

CLIP = (1, 2, 4, 6, 6)


class Block(nn.Module):
    """A convolution that takes up its batch norm, an activation in place, and one that is used twice."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv3d(channels, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(4)
        self.act = nn.ReLU(inplace=True)
        self.same = nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x):
        return self.act(self.same(self.act(self.norm(self.conv(x)))))


class Shifted(nn.Module):
    """The simplifier may take the addition up into the convolution, whose output is then another one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(4, 4, 1, bias=False)
        self.shift = nn.Parameter(torch.linspace(-1, 1, 4).reshape(1, 4, 1, 1, 1))

    def forward(self, x):
        return self.conv(x) + self.shift


class Windows(nn.Module):
    """An axis in two pieces: the packing is more than an order of whole axes."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x):
        n, c, t, h, w = x.shape
        pieces = x.reshape(n, c, t, h // 3, 3, w).permute(0, 2, 3, 5, 4, 1)
        return self.mix(pieces).permute(0, 5, 1, 2, 4, 3).reshape(n, c, t, h, w)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(2), Block(4))
        self.shifted = Shifted()
        self.windows = Windows()
        self.head = nn.Linear(4, 5)

    def forward(self, clip):
        return self.head(self.windows(self.shifted(self.blocks(clip))).mean((2, 3, 4)))


def _net():
    torch.manual_seed(0)
    net = Net().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return net


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The network, its program on disk and its artifact."""
    folder = tmp_path_factory.mktemp("layers")
    net, clip = _net(), torch.randn(CLIP, generator=torch.Generator().manual_seed(1))
    torch.export.save(torch.export.export(net, (clip,)), folder / "net.pt2")
    assert export(net, (clip,), output=folder / "net.onnx", parity=False).ok
    return folder, net, clip


def _damaged(source: Path, target: Path, weight: str) -> Path:
    """The artifact with one wrong number in the first weight of that name."""
    model = onnx.load(source)
    tensor = min((t for t in model.graph.initializer if t.name.startswith(weight)), key=lambda t: t.name)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[array.size // 2] += 1.0
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, target)
    return target


# ---- where layers are -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packing", "pattern"),
    [
        (Packing.frames((2, 3, 4, 5, 6)), "n c t h w -> (n t) c h w"),
        (Packing.frames((1, 3, 4, 1, 6)), "() c t () w -> t c () w"),
        (Packing((2, 3, 4), ((0, 1), (2,)), ((1,), (0, 2))), "(a0 a1) a2 -> a1 (a0 a2)"),
        (Packing.of(()), " -> "),
    ],
)
def test_a_layer_value_says_its_packing_as_einops_does(packing, pattern):
    value = LayerValue.of("layer", "x", packing)
    assert value.packing == pattern
    array = np.arange(np.prod(packing.shape or (1,))).reshape(packing.shape)
    assert value.pack(array).shape == packing.physical_shape
    np.testing.assert_array_equal(value.unpack(value.pack(array)), array)


def test_every_layer_is_recorded_or_folded(made):
    folder, net, _ = made
    values = layer_values(onnx.load(folder / "net.onnx"))
    folded = {name for value in values.values() for name in value.folded}
    assert folded == {"blocks.0.conv", "blocks.1.conv"}
    names = {name for name, _ in net.named_modules() if name}
    again = {"blocks.0.act@1", "blocks.1.act@1"}
    # The simplifier made the addition a bias: what was the convolution's output is the sum now, and the sum is gone.
    assert (names | again) - set(values) - folded == {"shifted", "shifted.conv"}


@pytest.mark.parametrize("kind", ["module", "program", "archive"])
def test_an_exact_artifact_agrees_in_every_layer(made, kind):
    folder, net, clip = made
    subject = {
        "module": lambda: Subject.of(net, (clip,)),
        "program": lambda: Subject.of(torch.export.export(net, (clip,)), (clip,)),
        "archive": lambda: Subject.of(folder / "net.pt2"),
    }[kind]()
    with exposed(folder / "net.onnx") as candidate:
        found = compare_layers(subject, candidate, [{"clip": clip.numpy()}])
    assert found.ok, found.to_text()
    assert len(found.report.rows) >= 12
    assert found.unseen == ()
    assert found.first is None


def test_hooks_and_the_interpreted_program_see_the_same(made):
    folder, net, clip = made
    hooked = source_layers(Subject.of(net, (clip,)))(clip.numpy())
    interpreted = source_layers(Subject.of(folder / "net.pt2"))(clip.numpy())
    assert set(interpreted) == set(hooked)
    for name, array in interpreted.items():
        np.testing.assert_array_equal(array, hooked[name], err_msg=name)


# ---- the wrong layer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "layer", "folded"),
    [
        ("blocks.0.conv.weight", "blocks.0.norm", "blocks.0.conv"),
        ("windows.mix.bias", "windows.mix", None),
        ("head.weight", "head", None),
    ],
)
def test_the_layer_with_a_wrong_weight_is_named_first(made, tmp_path, weight, layer, folded):
    folder, _, _ = made
    bad = _damaged(folder / "net.onnx", tmp_path / "bad.onnx", weight)
    report = check_parity(folder / "net.pt2", [bad], layers=True)[bad]
    assert not report.ok
    assert report.layers is not None
    assert report.layers.first is not None
    assert report.layers.first.name == layer
    assert report.layers.folded.get(layer, ()) == ((folded,) if folded else ())
    assert f"the first layer out of tolerance is {layer!r}" in report.to_text()
    assert report.to_dict()["layers"]["first"] == layer


def test_a_wrong_layer_fails_although_the_outputs_agree(made, tmp_path):
    """An error that the network hides later is an error all the same."""
    folder, _, _ = made
    source = folder / "net.onnx"
    whole = check_parity(folder / "net.pt2", [source], sets=1)[source]
    (first, *_) = check_parity(folder / "net.pt2", [source], layers=True, sets=1)[source].layers.report.rows
    wrong = replace(whole, layers=LayersReport(ParityReport((replace(first, ok=False, reason="far off"),), sets=1)))
    assert whole.ok
    assert not wrong.ok
    assert wrong.exit_code == 1
    assert not replace(whole, layers=LayersReport(ParityReport((), sets=1))).ok  # nothing compared


def test_the_repro_of_a_layer_runs_and_shows_it(made, tmp_path):
    folder, _, _ = made
    bad = _damaged(folder / "net.onnx", tmp_path / "bad.onnx", "blocks.1.conv.weight")
    check_parity(folder / "net.pt2", [folder / "net.onnx", bad], layers=True, repro=tmp_path / "repro", sets=1)
    assert [path.name for path in (tmp_path / "repro").iterdir()] == ["bad.onnx"]
    home = tmp_path / "repro" / "bad.onnx"
    files = {"candidate.npz", "inputs.npz", "layer.onnx", "recipe.json", "reference.npz", "repro.py"}
    assert {path.name for path in home.iterdir()} == files
    assert len(onnx.load(home / "layer.onnx").graph.node) < len(onnx.load(bad).graph.node) / 2
    error, allowed = _run(home)
    assert error > 100 * allowed
    # The layer alone gives what it gave inside the whole.
    got, expected = np.load(home / "candidate.npz"), np.load(home / "reference.npz")
    name = expected.files[0]
    assert error == pytest.approx(np.abs(got[name] - expected[name]).max() / np.ptp(expected[name]), rel=1e-2)
    assert len((home / "repro.py").read_text().splitlines()) == 10


def test_the_repro_of_a_whole_artifact_runs_and_shows_it(made, tmp_path):
    folder, _, _ = made
    bad = _damaged(folder / "net.onnx", tmp_path / "bad.onnx", "head.weight")
    check_parity(folder / "net.pt2", [bad], repro=tmp_path / "repro", sets=1)
    error, allowed = _run(tmp_path / "repro" / "bad.onnx")
    assert error > 100 * allowed


def _run(home: Path) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "repro.py"], cwd=home, capture_output=True, text=True, encoding="utf-8", check=True
    )
    error, allowed = re.search(r": (\S+) of the range, (\S+) is allowed", done.stdout).groups()
    return float(error), float(allowed)


def test_no_difference_leaves_no_folder_and_a_full_one_is_refused(made, tmp_path):
    folder, _, _ = made
    check_parity(folder / "net.pt2", [folder / "net.onnx"], repro=tmp_path / "repro", sets=1)
    assert not (tmp_path / "repro").exists()
    (tmp_path / "repro").mkdir()
    (tmp_path / "repro" / "mine").touch()
    with pytest.raises(UsageError, match="the folder is not empty"):
        check_parity(folder / "net.pt2", [folder / "net.onnx"], repro=tmp_path / "repro")
    with pytest.raises(ExportError, match="cannot make the folder"):
        check_parity(folder / "net.pt2", [folder / "net.onnx"], repro=tmp_path / "repro" / "mine" / "below")


def test_layers_on_another_runtime(made):
    pytest.importorskip("openvino", reason="builds the layers for OpenVINO")
    folder, net, clip = made
    with exposed(folder / "net.onnx", "openvino") as candidate:
        found = compare_layers(Subject.of(net, (clip,)), candidate, [{"clip": clip.numpy()}])
    assert found.ok, found.to_text()


def test_half_is_held_to_the_limits_of_half(made, tmp_path):
    """Its inputs are of another width than the reference's, its nodes were rebuilt by a converter."""
    folder, net, clip = made
    half = tmp_path / "half.onnx"
    export(net, (clip,), output=half, parity=False, precision="fp16", fp16_io=True)
    report = check_parity(folder / "net.pt2", [half], layers=True)[half]
    assert report.ok, report.to_text()
    assert {row.allowed for row in report.layers.report.rows} == {tolerance_for("fp16").max_error}
    bad = _damaged(half, tmp_path / "bad.onnx", "blocks.1.conv.weight")
    found = check_parity(folder / "net.pt2", [bad], layers=True)[bad].layers
    assert found.first.name == "blocks.1.norm"


# ---- what cannot be compared ----------------------------------------------------------------------------------------


def test_what_has_no_layers_is_refused(made, tmp_path, capsys):
    folder, _, _ = made
    model = onnx.load(folder / "net.onnx")
    for node in model.graph.node:
        del node.metadata_props[:]
    bare = tmp_path / "bare.onnx"
    onnx.save(model, bare)
    with pytest.raises(UsageError, match="does not say which of its values are the outputs of layers"):
        check_parity(folder / "net.pt2", [bare], layers=True)
    reports = check_parity(folder / "net.pt2", [bare, folder / "net.onnx"], layers=True)
    assert [report.layers is None for report in reports.values()] == [True, False]
    with pytest.raises(UsageError, match="is no PyTorch model"):
        check_parity(folder / "net.onnx", [folder / "net.onnx"], layers=True)
    model.graph.node[0].metadata_props.add(key=METADATA_KEY, value="[]")
    onnx.save(model, bare)
    with pytest.raises(UsageError, match="does not say"):
        check_parity(folder / "net.pt2", [bare], layers=True)
    with pytest.raises(UsageError, match="unknown runtime 'onxruntime'"):
        check_parity(folder / "net.pt2", [folder / "net.onnx"], layers=True, layer_runtime="onxruntime")
    assert (
        main(["parity", str(folder / "net.pt2"), str(folder / "net.onnx"), "--layers", "--layer-runtime", "rknn"]) == 3
    )
    assert "rknn" in capsys.readouterr().err


def test_a_reference_without_these_layers_is_refused(made):
    folder, _, _ = made
    torch.manual_seed(0)
    other = nn.Sequential(nn.Conv3d(2, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    clip = torch.zeros(CLIP)
    with (
        exposed(folder / "net.onnx") as candidate,
        pytest.raises(UsageError, match=r"no layer in common: the one names .*; the other has 0, 1, 2, 3"),
    ):
        compare_layers(Subject.of(other, (clip,)), candidate, [{"clip": clip.numpy()}])


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[1]",
        '[{"layer": "a"}]',
        '[{"layer": "a", "output": 9, "shape": [1], "packing": "", "sizes": {}}]',
        '[{"layer": 1, "output": 0, "shape": [1], "packing": "", "sizes": {}}]',
        "[" * 100_001,
    ],
)
def test_a_malformed_description_is_an_error(made, tmp_path, text):
    folder, _, _ = made
    model = onnx.load(folder / "net.onnx")
    node = next(node for node in model.graph.node if any(p.key == METADATA_KEY for p in node.metadata_props))
    next(p for p in node.metadata_props if p.key == METADATA_KEY).value = text
    with pytest.raises(ValidationError, match="malformed"):
        layer_values(model)


# ---- the report -----------------------------------------------------------------------------------------------------


def test_html_names_the_layer_and_needs_no_network(made, tmp_path, capsys):
    folder, _, _ = made
    bad = _damaged(folder / "net.onnx", tmp_path / "<bad>.onnx", "head.weight")
    page = tmp_path / "report.html"
    args = [str(folder / "net.pt2"), str(folder / "net.onnx"), str(bad), "--layers", "--html", str(page), "--sets", "1"]
    assert main(["parity", *args]) == 1
    text = page.read_text(encoding="utf-8")
    assert "<svg" in text
    assert "the first layer out of tolerance is &#x27;head&#x27;" in text
    assert "all 1" in text
    assert "&lt;bad&gt;.onnx" in text
    assert "<bad>" not in text
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#][^"']*)""", text)
    assert [link for link in links if not link.startswith("data:")] == []
    assert "<script" not in text
    assert main(["parity", *args[:3], "--html", str(tmp_path / "none" / "report.html")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_stages_tell_where_a_difference_begins(made, tmp_path, capsys):
    folder, _, _ = made
    bad = _damaged(folder / "net.onnx", tmp_path / "bad.onnx", "head.weight")
    reports = check_parity(folder / "net.pt2", [bad], stages=True, sets=1)
    found = {str(name).removeprefix(f"{tmp_path}/"): report.ok for name, report in reports.items()}
    assert found == {"lowered PyTorch": True, "bad.onnx, optimisations off": False, "bad.onnx": False}
    assert main(["parity", str(folder / "net.pt2"), str(folder / "net.onnx"), "--stages", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["candidates"]
    assert [entry["path"].split("/")[-1] for entry in listed] == [
        "lowered PyTorch",
        "net.onnx, optimisations off",
        "net.onnx",
    ]
    with pytest.raises(UsageError, match="--stages needs a PyTorch reference"):
        check_parity(folder / "net.onnx", [folder / "net.onnx"], stages=True)
