"""Swapping the layers of a network, in memory and on the way to an artifact."""

from __future__ import annotations

import json

import onnx
import pytest
import torch
from torch import nn

import edge4d
from edge4d import blocks
from edge4d.blocks.base import Block
from edge4d.blocks.choice import Choice
from edge4d.distance import distances
from edge4d.dry_run import plan_report
from edge4d.errors import UsageError
from edge4d.swapping import swap_with_report


class Net(nn.Module):
    """A stem that is not 3x3x3, two stages, and a layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(2, 8, (1, 3, 3), padding=(0, 1, 1))
        self.layer1 = nn.Sequential(nn.Conv3d(8, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv3d(8, 12, 3, 2, 1), nn.ReLU())
        self.shared = nn.Conv3d(12, 12, 3, padding=1)
        self.again = self.shared
        self.head = nn.Linear(12, 5)

    def forward(self, clip):
        x = self.layer2(self.layer1(self.stem(clip)))
        return self.head(self.again(self.shared(x).relu()).mean((2, 3, 4)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def clip():
    return torch.randn(2, 2, 6, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_copy_with_every_3x3x3_layer_replaced_once(net, clip):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    swapped, report = swap_with_report(net, "proposed-add", args=(clip,))
    assert [(row.layer, row.block) for row in report.rows] == [
        ("stem", None),
        ("layer1.0", "proposed-add"),
        ("layer2.0", "proposed-add"),
        ("shared", "proposed-add"),
    ]
    assert report.rows[0].reason == "its kernel is 1x3x3, not 3x3x3"
    assert swapped.shared is swapped.again
    assert swapped.swap_report is report
    assert swapped(clip).shape == net(clip).shape
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(isinstance(module, Block) for module in net.modules())
    swapped(clip).sum().backward()
    assert all(parameter.grad is not None for parameter in swapped.parameters())


def test_the_report_counts(net, clip):
    _, report = swap_with_report(net, "proposed-add", args=(clip,))
    row = report.rows[1]
    assert (row.input_shape, row.output_shape) == ((2, 8, 6, 8, 8), (2, 8, 6, 8, 8))
    assert (row.parameters_before, row.parameters_after) == (27 * 64, 12 * 64)
    assert (row.macs_before, row.macs_after) == (27 * 64 * 768, 12 * 64 * 768)
    shared = report.rows[3]
    assert shared.macs_before == 2 * 27 * 144 * 2 * 3 * 16  # it runs twice
    assert 0 < row.relative_error < 1
    assert json.loads(json.dumps(report.to_dict()))["layers"][0]["reason"]
    assert "left alone: its kernel is 1x3x3" in report.to_text()


def test_conv3d_changes_nothing(net, clip):
    torch.testing.assert_close(edge4d.swap(net, "conv3d")(clip), net(clip))
    torch.testing.assert_close(edge4d.swap(net, "r2plus1d", rank="full")(clip), net(clip), rtol=1e-4, atol=1e-5)


def test_a_model_that_is_one_layer():
    assert edge4d.swap(nn.Conv3d(2, 4, 3), "p3d-a").name == "p3d-a"


@pytest.mark.parametrize(
    "spec",
    [
        ["exact", "layer*=proposed-add", "layer2.*=rank-1"],
        {"layer*": "proposed-add", "layer2.*": "rank-1"},
        [("layer*", "proposed-add"), ("layer2.*", "rank-1")],
    ],
)
def test_a_choice_per_layer(net, spec):
    _, report = swap_with_report(net, spec)
    assert [row.block for row in report.rows] == [None, "proposed-add", "rank-1", None]
    assert report.block == "mixed: exact, layer*=proposed-add, layer2.*=rank-1"


def test_layers_and_exceptions(net):
    _, report = swap_with_report(net, "p3d-b", layers="stem")
    assert [row.block for row in report.rows] == ["p3d-b", None, None, None]
    _, report = swap_with_report(net, ["p3d-b", "shared=exact"])
    assert [row.block for row in report.rows] == [None, "p3d-b", "p3d-b", None]
    assert report.rows[3].reason == "exact was asked for"


def test_a_layer_with_its_own_forward_is_left_alone(net, clip):
    class Odd(nn.Conv3d):
        def forward(self, x):
            return super().forward(x) * 2

    net.shared = net.again = Odd(12, 12, 3, padding=1)
    patched = net.layer2[0].forward
    net.layer2[0].forward = lambda x: patched(x) * 2
    net.layer1[0].register_forward_hook(lambda _module, _args, output: output * 2)
    with pytest.raises(UsageError, match="nothing to replace in Net"):
        edge4d.swap(net, "p3d-a")
    swapped, report = swap_with_report(net, ["p3d-a", "stem=conv3d"])
    assert [row.reason for row in report.rows] == [
        "",
        "it has forward hooks, which its block would not run",
        "Conv3d computes in its own way",
        "Odd computes in its own way",
    ]
    torch.testing.assert_close(swapped(clip), net(clip))


class Own(nn.Module):
    """A forward of the caller's, around two layers."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.first, self.second = nn.Conv3d(2, 4, 3, padding=1), nn.Conv3d(2, 4, 3, padding=1)
        self.code = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.code(self, x)


@pytest.mark.parametrize(
    "code",
    [
        lambda net, x: net.first(input=x) + net.second(x),
        lambda net, x: net.first(x).reshape(len(x), net.second.out_channels, -1) * net.second(x).mean(),
        lambda net, x: net.first(x) if net.second(x).sum() != 0 else x,
    ],
    ids=["keyword", "attribute", "looks at values"],
)
def test_ways_to_call_a_layer(code, clip):
    model = Own(code)
    swapped, report = swap_with_report(model, "r2plus1d", args=(clip,), calib=clip, rank="full")
    torch.testing.assert_close(swapped(clip), model(clip), rtol=1e-4, atol=1e-5)
    own = clip.numel() // 2 * 27 * 8
    assert report.rows[1].macs_before == own
    assert report.rows[0].input_shape == tuple(clip.shape)


def test_layers_that_are_not_called_are_named(clip):
    model = Own(lambda net, x: net.listed[0](x) + net.first(x))
    model.listed = [model.second]  # a list hides a module from named_modules, and from the swap
    _, report = swap_with_report(model, "p3d-a", args=(clip,))
    assert [row.layer for row in report.idle] == ["second"]
    assert "never called as modules on these inputs, so that their blocks change nothing: second" in report.to_text()
    assert not swap_with_report(model, "p3d-a")[1].idle  # nothing was called


def test_a_network_that_reads_the_weight_is_refused(clip):
    model = Own(lambda net, x: nn.functional.conv3d(x, net.first.weight, padding=1) + net.second(x))
    with pytest.raises(UsageError, match=r"Own does not run on these inputs: AttributeError: .*'weight'[\s\S]*exact"):
        edge4d.swap(model, "p3d-a", args=(clip,))
    assert isinstance(edge4d.swap(model, ["p3d-a", "first=exact"], args=(clip,)).second, Block)


def test_a_size_that_paper_alignment_cannot_take_is_said_of_its_layer():
    net = nn.Sequential(nn.Conv3d(2, 4, 3, 2, 1))
    with pytest.raises(UsageError, match=r"layer 0: alignment 'paper' cannot stride 7x7 pixels"):
        edge4d.swap(net, "proposed-add", args=(torch.zeros(1, 2, 6, 7, 7),), alignment="paper")


def test_tied_layers_share_a_block():
    torch.manual_seed(0)
    tied, other = nn.Conv3d(4, 4, 3, padding=1), nn.Conv3d(4, 4, 3, 1, 1)
    other.weight, other.bias = tied.weight, tied.bias
    half = nn.Conv3d(4, 4, 3, padding=1, bias=False)
    half.weight = tied.weight
    net = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), tied, nn.ReLU(), other, half).eval()
    x = torch.randn(2, 2, 4, 6, 6)
    swapped, report = swap_with_report(net, "proposed-add", args=(x,), calib=x)
    assert swapped[1] is swapped[3]
    assert swapped[4] is not swapped[1]
    assert [row.shared_with for row in report.rows] == [None, None, "1", None]
    assert report.rows[1].output_error == report.rows[2].output_error
    assert report.calibration.after < report.calibration.before
    totals = report.totals()
    assert totals["parameters_before"] == sum(p.numel() for p in net.parameters())
    assert totals["parameters_after"] == sum(p.numel() for p in swapped.parameters())
    assert totals["macs_before"] == 2 * 144 * 27 * 4 * (2 + 3 * 4)
    assert "proposed-add (that of 1)" in report.to_text()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_computed_weights():
    torch.manual_seed(0)
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv3d(2, 4, 3)), nn.Conv3d(4, 4, 3))
    x = torch.randn(1, 2, 6, 6, 6)
    torch.testing.assert_close(edge4d.swap(net, "r2plus1d", rank="full")(x), net(x), rtol=1e-4, atol=1e-5)
    old = nn.Sequential(nn.utils.weight_norm(nn.Conv3d(2, 4, 3)))
    with pytest.raises(UsageError, match=r"Sequential cannot be copied[\s\S]*remove_weight_norm"):
        edge4d.swap(old, "p3d-a")
    nn.utils.remove_weight_norm(old[0])
    assert isinstance(edge4d.swap(old, "p3d-a")[0], Block)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("name", ["proposed-cat", "rank-1"])
def test_other_precisions(name, dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(4, 4, 3, groups=4), nn.BatchNorm3d(4)).to(dtype).eval()
    x = torch.randn(2, 4, 4, 5, 5, dtype=dtype)
    swapped, report = swap_with_report(net, name, args=(x,), calib=x)
    assert swapped(x).dtype == dtype
    assert report.calibration.after <= report.calibration.before


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("proposed-ad", {}, r"unknown block 'proposed-ad'[\s\S]*did you mean 'proposed-add'"),
        (["layer9.*=p3d-a"], {}, r"'layer9\.\*' fits none of the 4 Conv3d layers[\s\S]*layer1\.0"),
        ("p3d-a", {"layers": ["nothing"]}, "fits none"),
        (["p3d-a", "p3d-b"], {}, "several blocks for every layer"),
        ([], {}, "no block was given"),
        ("p3d-a", {"alignment": "paper"}, "no block in use has an option 'alignment'"),
        ("proposed-cat", {"width": "full"}, "doubles a layer's channels"),
    ],
)
def test_wrong_requests(net, spec, options, said):
    with pytest.raises(UsageError, match=said):
        edge4d.swap(net, spec, **options)


def test_nothing_to_replace():
    with pytest.raises(UsageError, match=r"nothing to replace in Conv3d: its kernel is 1x1x1"):
        edge4d.swap(nn.Conv3d(2, 2, 1), "p3d-a")
    with pytest.raises(UsageError, match=r"the model has no nn.Conv3d"):
        edge4d.swap(nn.Linear(2, 2), "p3d-a")
    with pytest.raises(UsageError, match="layer 0 has no weight yet"):
        edge4d.swap(nn.Sequential(nn.LazyConv3d(2, 3)), "p3d-a")


def test_weights_that_are_not_finite(net):
    with torch.no_grad():
        net.layer2[0].weight[0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(UsageError, match=r"layer layer2\.0: the weight of the Conv3d holds 1 values that are NaN"):
        edge4d.swap(net, "p3d-a")


def test_labels():
    assert Choice.of("exact").exact
    assert Choice.of(["exact", "a=exact"]).label == "exact"
    assert Choice.of("rank-1").label == "rank-1"


@pytest.mark.parametrize("name", [name for name in blocks.names() if name != "conv3d"])
def test_export(net, clip, tmp_path, name):
    report = edge4d.export(net, (clip,), output=tmp_path / "net.onnx", block=name)
    assert report.ok
    assert report.parity.ok
    metadata = {entry.key: entry.value for entry in onnx.load(report.path).metadata_props}
    assert metadata["edge4d.block"] == report.block == name
    (distance,) = report.swap.distance
    assert distance.relative_error > 1e-3  # parity is with the swapped model; this is with the original
    assert -1 <= distance.cosine <= 1
    assert distance.top1 is not None
    assert "the numbers change" in report.to_text()
    assert "(8 random inputs)" in report.to_text()
    assert json.loads(json.dumps(report.to_dict()))["swap"]["block"] == name


def test_export_and_plan_of_a_mixture(net, clip, tmp_path):
    spec = ["exact", "layer2.*=proposed-cat"]
    report = edge4d.export(net, (clip,), output=tmp_path / "net.onnx", block=spec)
    assert report.ok
    metadata = {entry.key: entry.value for entry in onnx.load(report.path).metadata_props}
    assert metadata["edge4d.block"] == "mixed: exact, layer2.*=proposed-cat"
    planned = plan_report(net, (clip,), block=spec)
    assert planned.block == report.block
    assert "left alone" in planned.to_text()


def test_a_graph_has_no_layers_to_replace(net, clip, tmp_path):
    program = torch.export.export(net, (clip,))
    with pytest.raises(UsageError, match=r"an ExportedProgram, a graph without[\s\S]*--factory"):
        edge4d.export(program, (clip,), output=tmp_path / "net.onnx", block="p3d-a")
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(UsageError, match=r"a torch.export archive, a graph without[\s\S]*--factory"):
        plan_report(tmp_path / "net.pt2", block="p3d-a")
    with pytest.raises(UsageError, match="its layers are already a graph"):
        edge4d.swap(program, "p3d-a")


def test_the_distance_in_numbers():
    class Fixed(nn.Module):
        def __init__(self, first, second):
            super().__init__()
            self.rows = nn.Parameter(torch.tensor([first, second]))

        def forward(self, x):
            return self.rows[x.flatten(1)[:, 0].long()]

    clips = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1)
    (found,) = distances(Fixed([3.0, 0.0], [0.0, 4.0]), Fixed([2.0, 4.0], [0.0, 4.0]), (), {}, data=clips)
    assert found.relative_error == pytest.approx(17**0.5 / 5)
    assert found.cosine == pytest.approx(22 / (5 * 6))
    assert found.top1 == 0.5
    assert found.clips == 2
