"""What the planner chooses, and what users can ask of it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import edge4d
from benchmarks.calibrate import spec_of
from edge4d.cli import main
from edge4d.errors import UsageError
from edge4d.lowered import lower, plan
from edge4d.lowering.conv.cost import Cost, NpuRates
from edge4d.lowering.conv.rules import FORMULATIONS
from edge4d.offers import RUNTIMES
from edge4d.planning import Planner, choose
from tests.lowering.harness import randomise


class Net(nn.Module):
    """Wide layers for which Winograd pays."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 32, (3, 5, 5), padding=(1, 2, 2))
        self.body = nn.Sequential(nn.Conv3d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv3d(32, 32, 3, padding=1))

    def forward(self, clip):
        return self.body(self.stem(clip))


CLIP = torch.randn(1, 3, 8, 20, 20, generator=torch.Generator().manual_seed(0))


def chosen(**asked):
    layers = plan(Net(), (CLIP,), planner=Planner.of(**asked))
    return {layer.layer: layer.becomes for layer in layers if layer.macs}


def test_what_is_cheapest_is_chosen():
    assert chosen() == {"stem": "stacked", "body.0": "winograd-4", "body.2": "winograd-4"}


@pytest.mark.parametrize(("name", "kind"), [("winograd-4", "depthwise"), ("winograd-3", "ragged"), ("taps", "ragged")])
def test_depthwise_products_side_by_side_may_fill_what_their_channels_do_not(name, kind):
    spec = spec_of(54, 54, (3, 3, 3), (1, 1, 1), (1, 1, 1), 54, 4, 40)
    assert FORMULATIONS[name].cost(spec).kind == kind  # 6 · 54 channels are a multiple of 4; 5 · 54 and 54 are none
    assert choose(spec, Planner.of("onnxruntime")) == "winograd-4"


def test_a_runtime_leaves_out_what_it_handles_badly():
    for runtime, without in RUNTIMES.items():
        assert without <= set(FORMULATIONS)
        assert not without & set(chosen(runtime=runtime).values())


def test_for_rknn_channels_fill_blocks_and_no_product_along_time_is_left():
    found = chosen(runtime="rknn")
    assert found == {"stem": "space-to-depth", "body.0": "winograd-split", "body.2": "winograd-split"}
    wide = NpuRates(product=1, block=32, moved=0, calls=0)
    few, many, apart = (Cost(96, channels, groups=groups) for channels, groups in ((3, 1), (64, 1), (1, 8)))
    assert [wide.milliseconds(cost) * 1e6 for cost in (few, many, apart)] == [1024, 96, 96]


@pytest.mark.parametrize(("runtime", "slices", "gathers"), [("rknn", 0, 3), (None, 3, 0)])
def test_every_second_frame_is_gathered_where_slices_with_a_step_fall_back(runtime, slices, gathers):
    conv = nn.Conv3d(4, 4, 3, stride=(2, 1, 1), padding=1)
    asked = Planner.of(runtime=runtime, formulations=["*=taps"])
    clip = torch.randn(1, 4, 6, 5, 5)
    lowered = lower(conv, (clip,), planner=asked)
    calls = [node for node in lowered.module.graph.nodes if node.op == "call_function"]
    steps = [node for node in calls if "slice" in str(node.target) and len(node.args) > 4 and node.args[4] > 1]
    assert len(steps) == slices
    assert sum("index_select" in str(node.target) for node in calls) == gathers
    torch.testing.assert_close(lowered.unpack(lowered.module(*lowered.pack(clip))), conv(clip))


def test_weights_grow_no_more_than_allowed():
    assert chosen(max_weight_growth=1.4)["body.0"] == "winograd-2"
    assert chosen(max_weight_growth=1)["body.0"] in ("taps", "padded", "shifted"), "these keep the weights as many"


def test_formulations_by_pattern_the_last_one_wins():
    assert chosen(formulations=["body.*=taps"])["body.0"] == "taps"
    assert chosen(formulations=["taps", "body.2=stacked"]) == {"stem": "taps", "body.0": "taps", "body.2": "stacked"}


def test_a_pattern_means_the_layers_that_it_fits_a_name_means_that_layer():
    assert "temporal" not in chosen(formulations=["*=temporal"]).values()
    with pytest.raises(UsageError, match=r"layer body.0 cannot be temporal: the kernel"):
        chosen(formulations=["body.0=temporal"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(runtime="rknnn"), "no formulations are chosen for runtime 'rknnn'"),
        (dict(formulations=["body.*=winogrd-4"]), "unknown formulation 'winogrd-4'"),
        (dict(formulations=["tail=taps"]), "fits none of the 3 3-D convolutions"),
        (dict(max_weight_growth=0.5), "cannot be kept below 0.5"),
        (dict(max_weight_growth=float("nan")), "cannot be kept below nan"),
        (dict(max_activation_memory=-1), "cannot be kept within -1 bytes"),
    ],
)
def test_mistakes(asked, said):
    with pytest.raises(UsageError, match=said) as caught:
        chosen(**asked)
    assert caught.value.hint


def test_activations_need_no_more_memory_than_allowed():
    held = {layer.layer: layer.becomes for layer in plan(Net(), (CLIP,), planner=Planner.of(max_activation_memory=1))}
    assert held["body.0"] not in {"stacked", "winograd-4", "winograd-2"}


def test_a_plan_explains_its_choice_and_counts_what_moves_data():
    body = next(layer for layer in plan(Net(), (CLIP,)) if layer.layer == "body.0")
    assert body.estimates[body.becomes] <= 1.1 * min(body.estimates.values())
    assert {"taps", "stacked", "winograd-4"} <= body.estimates.keys()
    assert body.why.startswith(f"{body.estimates[body.becomes]:.3g} ms predicted; ")
    taps = next(x for x in plan(Net(), (CLIP,), planner=Planner.of(formulations=["taps"])) if x.layer == "body.0")
    assert body.moves <= 2  # a budget: frames are regrouped by views, padded once and cut once
    assert taps.moves <= 4  # the frames of the two outer taps are cut, their results padded


@pytest.mark.parametrize("runtime", [None, *RUNTIMES])
def test_the_numbers_are_the_same_for_every_runtime(runtime):
    net = randomise(Net()).eval()
    lowered = lower(net, (CLIP,), planner=Planner.of(runtime))
    with torch.no_grad():
        got, expected = lowered.unpack(lowered.module(*lowered.pack(CLIP))), net(CLIP)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_export_keeps_what_was_asked_in_the_recipe(tmp_path):
    asked = dict(runtime="rknn", formulations=["body.0=taps"], max_weight_growth=1.5)
    report = edge4d.export(Net(), (CLIP,), output=tmp_path / "net.onnx", parity=False, **asked)
    options = json.loads((tmp_path / "net.onnx.json").read_text())["options"]
    assert (options["for"], options["formulations"]) == ("rknn", ["body.0=taps"])
    assert report.ok


def test_the_command_line_takes_them(tmp_path, capsys):
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Net().eval(), (CLIP,)), path)
    assert main(["plan", str(path), "--for", "rknn", "--formulation", "body.2=stacked", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [layer["becomes"] for layer in layers if layer["macs"]][-1] == "stacked"
    assert main(["plan", str(path), "--for", "toaster"]) == 2
    assert "known: onnxruntime" in capsys.readouterr().err


def test_limits_of_memory_do_not_bring_back_what_a_runtime_cannot_run():
    for asked in (dict(runtime="rknn"), dict(precision="int8")):
        ways = set(chosen(max_activation_memory=0, max_weight_growth=1, **asked).values())
        assert not ways & {"winograd-2", "winograd-3", "winograd-4", "short"}


@pytest.mark.parametrize(("stride", "becomes"), [((1, 2, 2), "shifted"), (1, "padded")])
def test_results_are_shifted_where_they_are_smaller_than_the_clip(stride, becomes):
    layer = nn.Conv3d(32, 32, 3, stride=stride, padding=1, groups=32)
    (found,) = plan(layer, (torch.randn(1, 32, 13, 56, 56),), planner=Planner.of("onnxruntime"))
    assert found.becomes == becomes
