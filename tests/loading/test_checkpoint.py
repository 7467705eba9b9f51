"""Weights that do not fit say which; prefixes are dropped only where that helps."""

from pathlib import Path

import pytest
import torch
from torch import nn

from edge4d.errors import LoadError
from edge4d.loading.checkpoint import fit, unwrap
from tests.loading.nets import Net, make_net

PATH = Path("weights.pt")


def test_fit_puts_the_weights_in():
    net = Net()
    fit(net, make_net().state_dict(), PATH)
    for name, value in make_net().state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name


def test_counter_of_old_files_may_be_missing():
    state = {k: v for k, v in make_net().state_dict().items() if not k.endswith("num_batches_tracked")}
    fit(Net(), dict(state), PATH)


def test_differences_are_named_and_the_rest_counted():
    state = dict(make_net().state_dict())
    state["fc.weight"] = torch.zeros(7, 4)
    state["fc.bias"] = torch.zeros(7)
    del state["layer1.0.conv1.weight"]
    state |= {f"head.{i}.weight": torch.zeros(1) for i in range(8)}
    with pytest.raises(LoadError) as caught:
        fit(Net(), state, PATH)
    lines = caught.value.message.splitlines()
    assert lines[0] == (
        "weights.pt: its weights do not fit the network of --factory (16 tensors in the file, 9 in the network)"
    )
    assert lines[1].strip() == "missing from the file: layer1.0.conv1.weight"
    assert lines[2].strip() == (
        "not in the network: head.0.weight, head.1.weight, head.2.weight, head.3.weight, head.4.weight, "
        "head.5.weight and 2 more"
    )
    assert lines[3].strip() == "of another size: fc.weight (file 7x4, network 2x4), fc.bias (file 7, network 2)"
    assert "number of classes" in caught.value.hint


def test_prefix_of_a_network_that_has_it_itself_stays():
    class Wrapping(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Conv3d(1, 2, 1)

    source, target = Wrapping(), Wrapping()
    found = unwrap(source.state_dict(), PATH)
    assert set(found) == {"weight", "bias"}
    fit(target, found, PATH)
    assert torch.equal(target.module.weight, source.module.weight)


def test_a_common_prefix_that_is_no_wrapper_stays_if_it_fits():
    source = nn.Sequential(nn.Sequential(nn.Conv3d(1, 2, 1)))
    target = nn.Sequential(nn.Sequential(nn.Conv3d(1, 2, 1)))
    fit(target, source.state_dict(), PATH)
    assert torch.equal(target[0][0].weight, source[0][0].weight)


def test_wrappers_of_a_module_are_taken_off():
    net = make_net()
    assert unwrap(nn.DataParallel(net), PATH) is net
    assert unwrap({"model": torch.compile(net)}, PATH) is net


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "an empty dict"),
        ([1], "a list"),
        ({f"k{i}": i for i in range(10)}, "'k7' and 2 more"),
        ({"state_dict": {"a": {"b": {"c": torch.ones(1)}}}}, "a dict with the keys 'state_dict'"),
    ],
)
def test_no_model(value, says):
    with pytest.raises(LoadError) as caught:
        unwrap(value, PATH)
    assert says in caught.value.message


def test_the_model_goes_before_its_average():
    a, b = make_net().state_dict(), Net().state_dict()
    assert unwrap({"ema": b, "state_dict": a}, PATH)["fc.weight"] is a["fc.weight"]
