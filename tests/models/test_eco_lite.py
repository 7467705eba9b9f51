"""ECO-Lite: Table I's shapes, and every structure through the whole export line."""

from __future__ import annotations

import pytest
import torch

import edge4d
from edge4d import blocks, models
from edge4d.errors import UsageError
from edge4d.models.eco_lite import eco_lite, eco_lite_small


def shapes_of(network, names):
    """Output shapes of submodules, on the meta device."""
    found = {}
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: found.__setitem__(name, tuple(out.shape))
        )
    with torch.no_grad():
        found["output"] = tuple(network(torch.empty(network.input_shape, device="meta")).shape)
    return found


def test_sizes_of_table_1():
    with torch.device("meta"):
        network = eco_lite()
    sizes = {
        "net2d.conv1": (32, 121),
        "net2d.conv2": (32, 119),
        "net2d.conv3": (64, 119),
        "net2d.pool1": (64, 59),
        "net2d.conv4": (80, 59),
        "net2d.conv5": (192, 57),
        "net2d.pool2": (192, 28),
        "net2d.inception_3a": (256, 28),
        "net2d.inception_3b": (288, 28),
        "net2d.inception_3c": (96, 28),
    }
    clips = {"net3d.conv1": (128, 16, 28), "net3d.conv2": (256, 8, 14), "net3d.conv3": (512, 4, 7)}
    found = shapes_of(network, [*sizes, *clips])
    for name, (channels, size) in sizes.items():
        assert found[name] == (16, channels, size, size), name
    for name, (channels, frames, size) in clips.items():
        assert found[name] == (1, channels, frames, size, size), name
    assert found["output"] == (1, 400)


def test_cat_doubles_the_channels():
    with torch.device("meta"):
        network = eco_lite("proposed-cat")
    assert shapes_of(network, ["net3d.conv3"])["net3d.conv3"] == (1, 1024, 4, 7, 7)


@pytest.mark.parametrize("structure", blocks.names())
def test_it_trains(structure):
    torch.manual_seed(0)
    network = eco_lite_small(structure, frames=4, size=51)
    loss = network(torch.randn(2, 3, 4, 51, 51)).square().mean()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def export_and_check(network, path):
    clip = torch.randn(network.input_shape, generator=torch.Generator().manual_seed(1))
    report = edge4d.export(network.eval(), (clip,), output=path, sets=1)
    assert report.gate.ok
    assert report.parity is not None
    assert report.ok
    with edge4d.open(path) as artifact, torch.no_grad():
        (got,) = artifact(clip.numpy()).values()
        expected = network(clip)
    error = (torch.from_numpy(got) - expected).abs().max() / (expected.max() - expected.min())
    assert error <= 1e-5


@pytest.mark.parametrize("structure", blocks.names())
def test_the_small_one_exports_exactly(structure, tmp_path):
    torch.manual_seed(0)
    export_and_check(eco_lite_small(structure, frames=4, size=51), tmp_path / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["conv3d", "proposed-add"])
def test_the_full_one_exports_exactly(structure, tmp_path):
    torch.manual_seed(0)
    export_and_check(eco_lite(structure), tmp_path / "m.onnx")


def test_the_same_seed_gives_the_same_network():
    torch.manual_seed(3)
    first = eco_lite_small("p3d-a")
    torch.manual_seed(3)
    second = models.build("eco-lite-small", "p3d-a")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: eco_lite_small("proposed-ad"), "did you mean 'proposed-add'"),
        (lambda: eco_lite_small(frames=3), "at least 4 frames, got 3"),
        (lambda: models.build("eco-light"), "did you mean 'eco-lite'"),
    ],
)
def test_mistakes_are_named(call, said):
    with pytest.raises(UsageError) as caught:
        call()
    assert said in str(caught.value)
