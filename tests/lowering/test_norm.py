"""Norms over a clip's own elements: how many calls they are, and that they bear a large mean."""

import pytest
import torch
from torch import nn

from edge4d.lowered import lower
from tests.lowering.harness import Fn, lowered_equals_eager, ops_of, randomise, worst_error


def clip(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 3, 5, 4), (2, 1, 5, 4)])
def test_of_planes_it_is_one_call(affine, shape):
    norm = randomise(nn.InstanceNorm2d(shape[1], affine=affine))
    assert ops_of(lowered_equals_eager(norm, clip(*shape)))[-2:].count("aten.instance_norm.default") == 1


@pytest.mark.parametrize(("affine", "calls"), [(False, 7), (True, 9)])
def test_of_frames_it_is_that_many_calls_and_no_transpose(affine, calls):
    module = nn.Sequential(nn.Conv3d(3, 4, 1), nn.InstanceNorm3d(4, affine=affine))
    work = [op for op in ops_of(lowered_equals_eager(randomise(module), clip(2, 3, 3, 5, 4))) if "reshape" not in op]
    assert len(work) == 1 + calls
    assert "aten.permute.default" not in work


@pytest.mark.parametrize("shape", [(1, 3, 4, 5, 6), (2, 3, 7, 6)])
def test_a_large_mean_costs_no_digits(shape):
    """A variance as mean of squares less square of the mean would have none left."""
    x = clip(*shape) + 3000
    norm = nn.InstanceNorm3d(3) if len(shape) == 5 else nn.InstanceNorm2d(3)
    with torch.no_grad():
        exact = norm(x.double())
        lowered = lower(norm, (x,))
        found = lowered.unpack(lowered.module(*lowered.pack(x)))
        eager = worst_error(norm(x).double(), exact)
        axes = tuple(range(2, x.dim()))
        naive = (x - x.mean(axes, True)) / ((x * x).mean(axes, True) - x.mean(axes, True) ** 2).clamp_min(1e-5).sqrt()
    assert worst_error(found.double(), exact) <= max(1e-4, 2 * eager)
    assert worst_error(naive.double(), exact) > 1e-3


def test_a_shared_norm_and_one_whose_weight_is_computed():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.InstanceNorm2d(3, affine=True)

        def forward(self, x):
            return self.norm(self.norm(x).tanh())

    lowered_equals_eager(randomise(Twice()), clip(2, 3, 5, 4))
    lowered_equals_eager(Fn(lambda x, w: nn.functional.instance_norm(x, weight=w)), clip(1, 3, 5, 4), clip(3, seed=1))


OF_LARGE_NUMBERS = {
    "normalize": lambda x: nn.functional.normalize(x, dim=1),
    "cubic_norm": lambda x: torch.linalg.vector_norm(x, 3, dim=1),
    "deviation": lambda x: torch.std_mean(x, (1, 2), keepdim=True),
    "distance": lambda x: torch.dist(x[:, 0], x[:, 1]),
    "similarity": lambda x: nn.functional.cosine_similarity(x, x.flip(1), 1),
    "group_norm": lambda x: nn.functional.group_norm(x, 2, torch.full((4,), 0.5).half(), torch.ones(4).half()),
    "instance_norm_of_frames": lambda x: nn.functional.instance_norm(x * 1, eps=1e-3),
    "layer_norm_of_channels": lambda x: nn.functional.layer_norm(x.movedim(1, -1), (4,)),
    "rms_norm": lambda x: nn.functional.rms_norm(x, (6,), torch.full((6,), 0.5).half()),
    "rms_norm_of_small_ones": lambda x: nn.functional.rms_norm(x / 3e4, (6,)),
}


@pytest.mark.parametrize("name", OF_LARGE_NUMBERS)
def test_squares_of_float16_do_not_end_at_255(name):
    """Numbers around 300, whose squares float16 does not hold: the result, which it does, is that of PyTorch."""
    x = (300 * clip(2, 4, 3, 5, 6)).half()
    function = OF_LARGE_NUMBERS[name]
    lowered = lower(Fn(function), (x,))
    found, expected = (
        [one.double() for one in torch.utils._pytree.tree_leaves(result)]
        for result in (lowered.unpack(lowered.module(*lowered.pack(x))), function(x))
    )
    assert worst_error(found, expected) < 4e-3
