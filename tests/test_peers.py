"""Another library's form of a network: it has the same numbers, and says so where it is none of that network."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import edge4d.errors
from benchmarks.cases import load_cases
from benchmarks.peers import PEERS, peer_of
from tests.zoo.models import _declare_torchvision_operators, randomise_batch_norm

CLIP = (1, 3, 4, 64, 64)


@pytest.fixture(scope="module")
def small():
    """An X3D-XS whose head pools what a small clip leaves, with uneven batch norms, and clips for it."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        _declare_torchvision_operators()
        from pytorchvideo.models.x3d import create_x3d

        torch.manual_seed(0)
        network = create_x3d(input_clip_length=4, input_crop_size=64, model_num_class=7).eval()
        clips = torch.randn(2, *CLIP[1:])
        randomise_batch_norm(network, 0, (clips,))
        network.blocks[5].proj.weight.data *= 100  # scores that a softmax leaves apart
    return network, clips[:1]


def far(network, other, clip) -> float:
    """Greatest difference, relative to the range of the network's scores."""
    with torch.inference_mode():
        scores, others = network(clip), other(clip)
    return float((scores - others).abs().max() / (scores.max() - scores.min()))


def test_the_deployable_form_of_efficient_x3d_has_the_numbers_of_x3d(small):
    network, clip = small
    made = peer_of("efficient_x3d", network, (clip,))
    assert not any(isinstance(module, nn.Conv3d) for module in made.modules())
    assert far(network, made, clip) < 1e-5
    assert all(not isinstance(module, nn.Conv2d) for module in network.modules())  # it is not the network, changed


def test_a_weight_that_was_not_carried_over_is_found(small):
    network, clip = small
    made = peer_of("efficient_x3d", network, (clip,))
    network = copy.deepcopy(network)
    with torch.no_grad():
        network.blocks[2].res_blocks[1].branch2.conv_b.weight[0, 0, 0, 1, 1] += 1
    assert far(network, made, clip) > 1e-4


@pytest.mark.parametrize(
    ("name", "network", "said"),
    [
        ("efficient_x4d", nn.Identity(), "no peer efficient_x4d"),
        ("efficient_x3d", nn.Identity(), "no head of an X3D-XS"),
        ("efficient_x3d", nn.Sequential(nn.Conv3d(3, 4, 3)), "0.weight: not a weight of pytorchvideo's X3D"),
    ],
)
def test_what_has_no_such_form_is_refused(name, network, said):
    with pytest.raises(edge4d.errors.UsageError, match=said):
        peer_of(name, network, (torch.zeros(CLIP),))


def test_a_network_of_another_depth_is_refused(small):
    network, clip = copy.deepcopy(small)
    del network.blocks[4].res_blocks[6]
    with pytest.raises(edge4d.errors.UsageError, match="not the weights of an X3D-XS"):
        peer_of("efficient_x3d", network, (clip,))


def test_the_peers_of_the_cases_exist():
    assert {case.peer for case in load_cases()} - {""} <= set(PEERS)
