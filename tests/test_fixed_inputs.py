"""Inputs that are baked into the graph, parts of networks, and what a capture knows of tensors without inputs."""

import copy
import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import edge4d
from edge4d.capture import capture
from edge4d.errors import CaptureError, UsageError
from edge4d.exporting import plan_report
from edge4d.fixed_inputs import fix_inputs, fixed_of, parse_fixes, part_of


class Windows(nn.Module):
    """Rows of patches (S, C); attention stays within each picture of `grid` [[T, H, W], …], as in vision towers."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4))
        self.mix = nn.Linear(8, 8)

    def forward(self, rows, grid, scale=1.0, **_ignored):
        x = self.patch(rows.view(-1, 3, 2, 4, 4)).view(-1, 8)
        ends = nn.functional.pad(torch.repeat_interleave(grid[:, 1] * grid[:, 2], grid[:, 0]).cumsum(0), (1, 0))
        places = torch.cat([torch.arange(h * w).repeat(t) for t, h, w in grid]).float()
        x = x + places.sin()[:, None]
        parts = torch.split(x, (ends[1:] - ends[:-1]).tolist())
        return torch.cat([(part @ part.T).softmax(-1) @ self.mix(part) for part in parts]) * scale


GRID = [[2, 2, 3], [1, 4, 2]]
ROWS = sum(t * h * w for t, h, w in GRID)


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return Windows().eval()


@pytest.fixture
def rows():
    return torch.randn(ROWS, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("grid", [[[1, 4, 5]], [[2, 2, 5]], GRID])
def test_a_grid_that_is_read_by_value_is_exact(tower, tmp_path, grid):
    x = torch.randn(sum(t * h * w for t, h, w in grid), 96)
    report = edge4d.export(tower, (x,), output=tmp_path / "t.onnx", fix={"grid": grid}, simplify=False)
    assert report.ok
    assert [port.name for port in report.inputs] == ["rows"]
    with edge4d.open(tmp_path / "t.onnx") as opened:
        (found,) = opened(x.numpy()).values()
    with torch.no_grad():
        expected = tower(x, torch.tensor(grid)).numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)


def test_another_grid_gives_other_numbers(tower):
    """The grid matters here: two pictures attend apart, one does not."""
    x = torch.randn(8, 96)
    with torch.no_grad():
        apart, joint = (tower(x, torch.tensor(grid)) for grid in ([[2, 2, 2]], [[1, 2, 4]]))
    assert (apart - joint).abs().max() > 1e-2


def test_the_files_say_what_was_fixed(tower, rows, tmp_path):
    edge4d.export(tower, (rows,), output=tmp_path / "t.onnx", fix={"grid": GRID, "scale": 2.0}, parity=False)
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "t.onnx").metadata_props}
    assert metadata["edge4d.fixed.grid"] == json.dumps(GRID)
    assert metadata["edge4d.fixed.scale"] == "2.0"
    (recipe,) = tmp_path.glob("*.json")
    assert json.loads(recipe.read_text())["options"]["fix"] == [f"grid={json.dumps(GRID)}", "scale=2.0"]


def test_the_model_is_left_alone(tower, rows):
    before = type(tower), dict(tower.__dict__)
    fixed = fix_inputs(tower, {"grid": torch.tensor(GRID)})
    assert fixed is not tower
    assert fixed_of(fixed) == {"grid": GRID}
    assert fixed_of(tower) == {}
    assert (type(tower), dict(tower.__dict__)) == before
    assert [name for name, _ in fixed.named_parameters()] == [name for name, _ in tower.named_parameters()]
    with torch.no_grad():
        torch.testing.assert_close(fixed(rows), tower(rows, torch.tensor(GRID)))


def test_a_copy_calls_its_own_layers(tower, rows):
    fixed = fix_inputs(tower, {"grid": GRID})
    double = copy.deepcopy(fixed).double()
    with torch.no_grad():
        assert double(rows.double()).dtype is torch.float64
        assert fixed(rows).dtype is torch.float32


def test_without_fixes_it_is_the_model_itself(tower):
    assert fix_inputs(tower, None) is tower
    assert fix_inputs(tower, {}) is tower


@pytest.mark.parametrize(
    ("fixes", "said"),
    [
        ({"grdi": GRID}, "did you mean grid?"),
        ({"_ignored": 1}, "no such argument"),
        ({"grid": [[1, 2], [3]]}, "makes no tensor"),
        ({"grid": object()}, "a object cannot be baked"),
        ({"grid": [2**70]}, "makes no tensor"),
    ],
)
def test_refused(tower, fixes, said):
    with pytest.raises(UsageError, match="--fix") as caught:
        fix_inputs(tower, fixes)
    assert said in str(caught.value)


def test_a_graph_has_no_inputs_to_fix_nor_parts(tower, rows):
    program = torch.export.export(nn.ReLU(), (rows,))
    for graph in (program, torch.jit.trace(nn.ReLU(), rows), program.module()):
        with pytest.raises(UsageError, match=r"--fix x: .* is a graph"):
            fix_inputs(graph, {"x": 1})
        with pytest.raises(UsageError, match=r"--submodule a: .* is a graph"):
            part_of(graph, "a")


def test_spellings():
    texts = ["grid_thw=[[1, 4, 6]]", "mode=null", "on=true", 'kind="cubic"', "n=3"]
    assert parse_fixes(texts) == {"grid_thw": [[1, 4, 6]], "mode": None, "on": True, "kind": "cubic", "n": 3}
    assert parse_fixes(None) == {}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["grid"], "expected NAME=VALUES"),
        (["=1"], "expected NAME=VALUES"),
        (["grid=1,2"], "cannot be read as JSON"),
        (["grid=[[1,2]"], "cannot be read as JSON"),
        (["grid=" + "[" * 100_000], "cannot be read as JSON"),
        (["a=1", "a=2"], "given twice"),
    ],
)
def test_misspellings(texts, said):
    with pytest.raises(UsageError, match=said):
        parse_fixes(texts)


def test_part_of_a_network(tower):
    network = nn.Sequential(tower, nn.ReLU())
    assert part_of(network, "0.patch") is tower.patch
    with pytest.raises(UsageError, match=r"has no such part\n.*there is 0\.patch"):
        part_of(network, "0.pach")
    with pytest.raises(UsageError, match="has no such part"):
        part_of(network, "")


def test_plan_takes_them_too(tower, rows):
    network = nn.ModuleDict({"vision": tower})
    report = plan_report(network, (rows,), submodule="vision", fix={"grid": GRID})
    assert report.ok
    assert [layer.becomes for layer in report.layers if layer.op == "aten.conv3d.default"] == ["patchify"]
    assert {layer.line.split(":")[0] for layer in report.layers} == {"tests/test_fixed_inputs.py"}


# ---- what the capture knows ------------------------------------------------------------------------------------------


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _sizes(x):
    """Sizes by the values of a literal, which plain `torch.export` does not follow."""
    counts = torch.tensor([1, 2]).repeat_interleave(torch.tensor([1, 1])).cumsum(0)
    return [part.sum() for part in torch.split(x, counts.tolist())]


def _masked(x):
    padded = nn.functional.pad(torch.arange(4).view(2, 2), (0, 1), value=-1)
    return x.flatten()[padded[padded != -1]], *_sizes(x)


def _written_for_real(x):
    mask = torch.zeros(4)
    for place in torch.tensor([1, 3]):
        mask[place] = 1
    mask += 0.5
    first = x * mask
    mask.zero_()
    return first, x * mask, *_sizes(x)


def _known_result(x):
    return torch.arange(3).cumsum(0), *_sizes(x)


@pytest.mark.parametrize("function", [_sizes, _masked, _written_for_real, _known_result])
def test_what_depends_on_no_input_is_known(function):
    x = torch.randn(4, 4)
    lowered = edge4d.lower(Of(function), (x,))
    found = lowered.unpack(lowered.module(*lowered.pack(x)))
    for one, other in zip(found, function(x), strict=True):
        torch.testing.assert_close(one, other)


def test_the_plain_way_does_not_follow_them():
    """Else the test above would show nothing."""
    with pytest.raises(Exception, match="data-dependent"):
        torch.export.export(Of(_sizes), (torch.randn(4, 4),), strict=False)


def _by_item(x):
    known = torch.zeros(4)
    known[1] = x.sum()
    return known, *_sizes(x)


def _by_sum(x):
    known = torch.zeros(4, 4)
    known += x
    return known, *_sizes(x)


def _by_out(x):
    known = torch.zeros(4, 4)
    torch.add(x, x, out=known)
    return known, *_sizes(x)


def _by_view(x):
    known = torch.zeros(4, 4)
    view = known.view_as(x)
    view += x
    return known, *_sizes(x)


@pytest.mark.parametrize("function", [_by_item, _by_sum, _by_out, _by_view])
def test_writing_an_input_into_what_is_known_is_refused(function):
    with pytest.raises(CaptureError, match=r"writes .*into a tensor that") as caught:
        capture(Of(function), (torch.randn(4, 4),))
    assert "torch.where" in str(caught.value)


def test_random_numbers_are_not_baked_in():
    def noisy(x):
        return x + torch.rand_like(torch.zeros(4)), *_sizes(x)

    captured = capture(Of(noisy), (torch.randn(4, 4),))
    assert any("rand" in str(node.target) for node in captured.graph.nodes)


def test_values_of_the_input_are_refused_with_a_way_out(tower, rows, capfd):
    with pytest.raises(CaptureError, match="decides by the values of its input") as caught:
        capture(tower, (rows, torch.tensor(GRID)))
    assert "--fix" in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_float_input_is_no_input_to_fix():
    def branches(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(CaptureError, match="decides by the values of its input") as caught:
        capture(Of(branches), (torch.randn(4),))
    assert "--fix" not in str(caught.value)


def test_hooks_of_the_capture_are_gone(tower, rows):
    before = len(tower._forward_hooks), len(tower._forward_pre_hooks)
    with pytest.raises(CaptureError):
        capture(tower, (rows, torch.tensor(GRID)))
    assert (len(tower._forward_hooks), len(tower._forward_pre_hooks)) == before
