"""`--factory torchvision:NAME` and its kind."""

import importlib
import sys
import types

import pytest
import torch
from torch import nn

from edge4d.errors import LoadError, RuntimeUnavailable, UsageError
from edge4d.loading import load_model
from edge4d.loading.factory import build, split_arguments
from edge4d.loading.libraries import find_in_library
from tests.zoo.models import _declare_torchvision_operators


@pytest.fixture(scope="module", autouse=True)
def _importable():
    _declare_torchvision_operators()


@pytest.fixture
def timm(monkeypatch):
    """A library of that name with one network; the real one is none of our dependencies."""
    fake = types.ModuleType("timm")
    fake.list_models = lambda: ["tiny_net", "tiny_net_large"]
    fake.create_model = lambda name, pretrained, width=4: nn.Sequential(nn.Conv2d(3, width, 1))
    monkeypatch.setitem(sys.modules, "timm", fake)


def test_torchvision_and_its_weights(tmp_path):
    factory = "torchvision:mobilenet_v3_small(num_classes=7)"
    net = build(factory)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "weights.pth")
    loaded = load_model(tmp_path / "weights.pth", factory=factory)
    torch.testing.assert_close(loaded.module.classifier[3].weight, net.classifier[3].weight)
    with pytest.raises(LoadError, match=r"classifier.3.weight \(file 7x1024, network 1000x1024\)"):
        load_model(tmp_path / "weights.pth", factory="torchvision:mobilenet_v3_small")


def test_a_backbone_is_not_fetched(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("fetches weights"))
    assert isinstance(build("torchvision:lraspp_mobilenet_v3_large"), nn.Module)


def test_pytorchvideo():
    net = build("pytorchvideo:create_x3d(input_clip_length=4, input_crop_size=64, model_num_class=5)")
    assert net.blocks[-1].proj.out_features == 5
    assert callable(find_in_library("pytorchvideo:x3d_s", {}))
    assert callable(find_in_library("torchvision:r3d_18", {}))


@pytest.mark.usefixtures("timm")
def test_timm():
    assert build("timm:tiny_net(width=6)")[0].out_channels == 6


@pytest.mark.parametrize(
    ("factory", "says", "hint"),
    [
        ("torchvision:r3d18", "torchvision has no network 'r3d18'", "r3d_18"),
        ("pytorchvideo:x3d-s", "pytorchvideo has no network 'x3d-s'", "x3d_s"),
        ("timm:tiny_nte", "timm has no network 'tiny_nte'", "tiny_net"),
        ("timm:zzz", "timm has no network 'zzz'", "it has 2: tiny_net"),
        ("torchvison:r3d_18", "there is no module 'torchvison'", "did you mean torchvision:r3d_18?"),
        ("torchvision:r3d_18(weights='DEFAULT')", "fetches weights", "leave weights out"),
        ("timm:tiny_net(pretrained=True)", "fetches weights", "leave pretrained out"),
        ("timm:tiny_net(depth=3)", "calling it with depth raised TypeError", "timm:tiny_net(name=value)"),
        ("timm:tiny_net(3)", "expected keyword arguments with plain values", "num_classes=10"),
        ("timm:tiny_net(width=open('x'))", "expected keyword arguments with plain values", "num_classes=10"),
        ("timm:tiny_net(**{})", "expected keyword arguments with plain values", "num_classes=10"),
        ("timm:tiny_net(width=3", "expected keyword arguments with plain values", "num_classes=10"),
        ("timm:tiny_net(width=3)(a=1)", "expected keyword arguments with plain values", "num_classes=10"),
    ],
)
@pytest.mark.usefixtures("timm")
def test_mistakes(factory, says, hint):
    with pytest.raises(UsageError) as caught:
        build(factory)
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_a_library_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RuntimeUnavailable, match="timm is not installed") as caught:
        build("timm:resnet18")
    assert caught.value.hint == "pip install timm"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("said", "hint"),
    [("operator torchvision::nms does not exist", "install both from one index"), ("boom", "python -c 'import timm'")],
)
def test_a_library_that_cannot_be_imported(monkeypatch, said, hint):
    """A torchvision from PyPI beside a torch for CPUs fails so."""

    def broken(name):
        raise RuntimeError(said)

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(UsageError, match=f"importing timm raised RuntimeError: {said}") as caught:
        find_in_library("timm:tiny_net", {})
    assert hint in caught.value.hint


def test_arguments():
    assert split_arguments("a.b:c") == ("a.b:c", {})
    assert split_arguments("a.b:c()") == ("a.b:c", {})
    assert split_arguments("a:b(n=10, s=(1, 2), t='x', w=None)") == ("a:b", {"n": 10, "s": (1, 2), "t": "x", "w": None})


def test_a_factory_in_place_of_the_file():
    with pytest.raises(LoadError, match="no such file") as caught:
        load_model("torchvision:r3d_18")
    assert "--factory torchvision:r3d_18" in caught.value.hint
