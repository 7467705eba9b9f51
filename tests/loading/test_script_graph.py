"""TorchScript as a graph module: same numbers, original names, and never a silent guess."""

import copy

import pytest
import torch
from torch import nn

import edge4d
from edge4d.errors import CaptureError
from edge4d.loading import load_model, script_to_module
from edge4d.loading.script_graph import _check_same, _close
from tests.loading.nets import Two, clip, make_net

NAMES = {
    "layer1.0.scale",
    "layer1.0.conv1.weight",
    "layer1.0.bn1.weight",
    "layer1.0.bn1.bias",
    "layer1.0.bn1.running_mean",
    "layer1.0.bn1.running_var",
    "fc.weight",
    "fc.bias",
}
MAKERS = {
    "scripted": torch.jit.script,
    "traced": lambda net: torch.jit.trace(net, clip()),
    "frozen script": lambda net: torch.jit.freeze(torch.jit.script(net)),
    "frozen trace": lambda net: torch.jit.freeze(torch.jit.trace(net, clip())),
}


def script(net, how, tmp_path, *, from_file=True):
    made = MAKERS[how](net)
    if not from_file:
        return made
    made.save(tmp_path / "model.pt")
    return load_model(tmp_path / "model.pt").module


def targets(graph):
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("from_file", [True, False])
@pytest.mark.parametrize("how", MAKERS)
def test_same_numbers_and_names_through_export(tmp_path, how, from_file):
    net = make_net()
    scripted = script(net, how, tmp_path, from_file=from_file)
    module = script_to_module(scripted, (clip(),))
    program = torch.export.export(module, (clip(),))
    for other in (clip(), clip() * 3 - 1):
        want = net(other)
        assert torch.equal(module(other), scripted(other))
        torch.testing.assert_close(module(other), want, rtol=0, atol=1e-5)
        torch.testing.assert_close(program.module()(other), want, rtol=0, atol=1e-5)
    if "frozen" in how:
        assert set(program.state_dict) == {f"constant_{i}" for i in range(len(program.state_dict))}
    else:
        assert set(program.state_dict) == NAMES
        assert set(dict(module.named_parameters())) == {name for name, _ in net.named_parameters()}
        for name, value in net.state_dict().items():
            assert name.endswith("num_batches_tracked") or torch.equal(program.state_dict[name], value), name
    assert program.graph_signature.user_inputs == ("x",)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("how", ["scripted", "traced"])
def test_spelling_and_layers_survive_export_and_decomposition(tmp_path, how):
    program = torch.export.export(script_to_module(script(make_net(), how, tmp_path), (clip(),)), (clip(),))
    spelled = {"scripted": "aten.conv3d.default", "traced": "aten.convolution.default"}[how]
    assert spelled in targets(program.graph)
    (norm,) = [node for node in program.graph.nodes if str(node.target) == "aten.batch_norm.default"]
    assert norm.args[5] is False
    decomposed = program.run_decompositions()
    assert "aten._native_batch_norm_legit_no_training.default" in targets(decomposed.graph)
    for graph in (program.graph, decomposed.graph):
        layers = {
            str(node.target): list(node.meta["nn_module_stack"].values())[-1]
            for node in graph.nodes
            if node.op == "call_function"
        }
        assert layers[spelled if graph is program.graph else "aten.convolution.default"] == (
            "layer1.0.conv1",
            "Conv3d",
        )
        assert layers["aten.linear.default" if graph is program.graph else "aten.addmm.default"] == ("fc", "Linear")
        assert layers["aten.mean.dim"] == ("", "Net")


class Tokens(nn.Module):
    """Voxels as tokens, made from 3 channels, for a layer that takes (N, tokens, 8)."""

    def __init__(self, layer):
        super().__init__()
        self.stem, self.layer = nn.Conv3d(3, 8, 2, stride=2), layer

    def forward(self, x):
        return self.layer(self.stem(x).flatten(2).transpose(1, 2))


class First(nn.Module):
    """The first of several results."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


class Attended(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0]


COMPOSED = {
    "group norm": lambda: nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)),
    "layer norm": lambda: Tokens(nn.LayerNorm(8)),
    "LSTM": lambda: Tokens(First(nn.LSTM(8, 5, num_layers=2, batch_first=True, bidirectional=True))),
    "GRU": lambda: Tokens(First(nn.GRU(8, 5, batch_first=True))),
    "RNN": lambda: Tokens(First(nn.RNN(8, 5, batch_first=True))),
    "attention": lambda: Tokens(Attended()),
    "encoder": lambda: Tokens(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("how", ["scripted", "traced"])
@pytest.mark.parametrize("composed", COMPOSED)
def test_layers_that_torch_composes_are_lowered_as_from_a_module(composed, how, tmp_path):
    """Traced below autograd they were operators of one library's kernels, which no rule knows."""
    net = make_net(COMPOSED[composed])
    how = {"scripted": torch.jit.script, "traced": lambda n: torch.jit.trace(n, clip(), check_trace=False)}[how]
    how(net).save(tmp_path / "model.pt")
    lowered = edge4d.lower(script_to_module(load_model(tmp_path / "model.pt").module, (clip(),)), (clip(),))
    other = clip() * 2 - 1
    with torch.no_grad():
        got, want = lowered.unpack(lowered.module(*lowered.pack(other))), net(other)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_constants_that_the_script_makes_are_real_afterwards(tmp_path):
    """An optimized script keeps what it folds: once traced on fake tensors, it gave fake ones to every later run."""

    class Warp(nn.Module):
        def forward(self, x):
            theta = torch.eye(3, 4).unsqueeze(0).expand(x.shape[0], 3, 4)
            return nn.functional.affine_grid(theta, list(x.shape), align_corners=False) + 0.3 * x[:, :1].permute(
                0, 2, 3, 4, 1
            )

    torch.jit.trace(Warp(), clip(), check_trace=False).save(tmp_path / "model.pt")
    scripted = load_model(tmp_path / "model.pt").module
    module = script_to_module(scripted, (clip(),))
    for made in (scripted, module):
        assert type(made(clip())) is torch.Tensor
        torch.testing.assert_close(made(clip()), Warp()(clip()))


def test_training_mode_is_captured_in_eval_mode_and_left_alone():
    scripted = torch.jit.script(make_net().train())
    before = copy.deepcopy(scripted.state_dict())
    module = script_to_module(scripted, (clip(),))
    assert scripted.training
    for name, value in scripted.state_dict().items():
        assert torch.equal(value, before[name]), name
    torch.testing.assert_close(module(clip()), make_net()(clip()), rtol=0, atol=1e-5)
    assert "aten.batch_norm.default" in targets(module.graph)


def test_shared_weights_have_one_name():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv3d(3, 3, 1, bias=False)
            self.second = nn.Conv3d(3, 3, 1, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    net = Tied().eval()
    module = script_to_module(torch.jit.script(net), (clip(),))
    assert list(module.state_dict()) == ["first.weight"]
    torch.testing.assert_close(module(clip()), net(clip()))


def test_several_inputs_and_a_structured_output():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.two = Two()

        def forward(self, clip: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
            y = self.two(clip, mask)
            return y, [y.mean(), y.amax((2, 3, 4))]

    net = make_net(Pair)
    args = (clip(), clip(2, 1, 4, 8, 8))
    module = script_to_module(torch.jit.script(net), args)
    torch.testing.assert_close(module(*args), net(*args))
    assert torch.export.export(module, args).graph_signature.user_inputs == ("clip", "mask")


def test_nested_inputs():
    class Paths(nn.Module):
        def __init__(self):
            super().__init__()
            self.slow, self.fast = nn.Conv3d(3, 2, 1), nn.Conv3d(3, 2, 1)

        def forward(self, paths: list[torch.Tensor]) -> torch.Tensor:
            return self.slow(paths[0]) + self.fast(paths[1])[:, :, ::2]

    net = make_net(Paths)
    args = ([clip(1, 3, 2, 4, 4), clip(1, 3, 4, 4, 4)],)
    module = script_to_module(torch.jit.script(net), args)
    torch.testing.assert_close(module(*args), net(*args))
    program = torch.export.export(module, args)
    torch.testing.assert_close(program.module()(*args), net(*args))


def test_branches_on_shapes_are_taken():
    class Shapes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[2] > 3:
                return x + 1
            return x - 1

    scripted = torch.jit.script(Shapes())
    for frames in (3, 4):
        x = clip(1, 3, frames, 4, 4)
        assert torch.equal(script_to_module(scripted, (x,))(x), scripted(x))


class BySum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x + 1
        return x - 1


class ByAny(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if bool((x > 0).any()) else x


class ByCount(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = int(x.abs().mean().item())
        for _ in range(n):
            x = x * 2
        return x


class ByItem(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.max().item())


@pytest.mark.parametrize("cls", [BySum, ByAny, ByCount, ByItem])
def test_decisions_on_values_are_an_error(cls):
    with pytest.raises(
        CaptureError, match=r"decides by the values of a tensor in `.*` \(test_script_graph.py:"
    ) as caught:
        script_to_module(torch.jit.script(cls()), (clip(),))
    assert "torch.where" in caught.value.hint
    assert "Traceback" not in caught.value.message


def test_a_shape_that_does_not_fit_is_named():
    with pytest.raises(CaptureError, match=r"expected input.* to have 3 channels, but got 5"):
        script_to_module(torch.jit.script(make_net()), (clip(1, 5, 4, 8, 8),))


def test_random_numbers_are_noticed():
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    with pytest.raises(CaptureError, match="does not compute the same") as caught:
        script_to_module(torch.jit.script(Noisy()), (clip(),))
    assert "random" in caught.value.hint


def test_the_comparison_can_fail():
    """A graph that was specialised to one branch passes on its own input and is caught on the negated one."""

    class Specialised(nn.Module):
        def forward(self, x):
            return x + 1

    x = clip().abs()
    with pytest.raises(CaptureError, match="does not compute the same"):
        _check_same(Specialised(), torch.jit.script(BySum()), (x,))
    _check_same(BySum(), torch.jit.script(BySum()), (x,))
    one = torch.ones(3)
    assert _close(one, one + 1e-7)
    assert not _close(one, one + 1e-4)
    assert not _close(one, torch.ones(1))
    assert not _close(one, one.double())
    assert not _close(torch.tensor([1, 2]), torch.tensor([1, 3]))
    assert not _close(one, torch.tensor([1.0, 1.0, torch.nan]))
    assert _close(torch.tensor([1.0, torch.inf]), torch.tensor([1.0, torch.inf]))
    assert _close(3, 3)
    assert not _close(3, 4)
