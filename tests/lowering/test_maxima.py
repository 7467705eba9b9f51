"""Maxima with their places: pools with `return_indices`, what is put back by them, and ties."""

import pytest
import torch
from torch import nn

import edge4d
from edge4d.lowered import lower
from tests.lowering.harness import Fn, lowered_equals_eager, ops_of


def clip(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


POOLS = {
    "even": nn.MaxPool3d(2, return_indices=True),
    "overlapping": nn.MaxPool3d((3, 2, 3), (2, 1, 2), (1, 0, 1), return_indices=True),
    "dilated": nn.MaxPool3d((2, 3, 1), (1, 2, 3), (1, 1, 0), (2, 1, 1), return_indices=True, ceil_mode=True),
    "adaptive": nn.AdaptiveMaxPool3d((3, 4, 1), return_indices=True),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", POOLS)
def test_places_of_volumes(name, batch):
    lowered_equals_eager(POOLS[name], clip(batch, 3, 5, 6, 7))


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(3, 2, 1, return_indices=True), nn.AdaptiveMaxPool2d(4, return_indices=True)]
)
def test_places_of_planes_and_rows(pool):
    lowered_equals_eager(pool, clip(2, 3, 7, 6))
    lowered_equals_eager(
        Fn(lambda x: nn.functional.max_pool1d(x.flatten(2), 3, 2, return_indices=True)), clip(1, 2, 3, 4, 5)
    )


def test_of_equal_maxima_the_first_one_is_told():
    x = clip(2, 2, 4, 6, 6).clamp(-0.5, 0.2)
    assert (x == 0.2).double().mean() > 0.3
    lowered_equals_eager(nn.MaxPool3d(3, 1, 1, return_indices=True), x)
    lowered_equals_eager(nn.MaxPool3d(2, return_indices=True), torch.zeros(1, 1, 4, 4, 4))
    lowered_equals_eager(nn.MaxPool3d(2, return_indices=True), torch.full((1, 1, 2, 2, 2), -torch.inf).nan_to_num())


class PutBack(nn.Module):
    """An encoder and decoder in SegNet's way."""

    def __init__(self):
        super().__init__()
        self.pool, self.unpool = nn.MaxPool3d(2, return_indices=True), nn.MaxUnpool3d(2)

    def forward(self, x):
        y, places = self.pool(x)
        return self.unpool(y.tanh(), places, output_size=x.shape)


def test_what_was_pooled_is_put_back():
    lowered_equals_eager(PutBack(), clip(2, 3, 4, 6, 8))


def test_a_wrong_place_would_be_noticed():
    pool, x = POOLS["even"], clip(1, 3, 5, 6, 7)
    lowered = lower(pool, (x,))
    values, places = lowered.unpack(lowered.module(*lowered.pack(x)))
    with pytest.raises(AssertionError):
        torch.testing.assert_close((values, places + 1), pool(x))


def test_places_that_nobody_uses_cost_nothing():
    lowered = lowered_equals_eager(Fn(lambda x: POOLS["even"](x)[0]), clip(1, 3, 4, 6, 6))
    assert "aten.max_pool2d.default" in ops_of(lowered)
    assert not any("index" in op or "max.dim" in op for op in ops_of(lowered))


@pytest.mark.parametrize(
    "taken",
    [
        lambda x: (x.amax((2, 3)), x.amin(1), x.max()),
        lambda x: (*x.max(2), *x.min(1), x.argmax(3)),
    ],
    ids=["values", "places"],
)
def test_of_16_bit_integers(taken, tmp_path):
    """ONNX has ReduceMax of 8, 32 and 64 bits; the file was refused as invalid by ONNX Runtime."""
    x = torch.randint(-32768, 32768, (1, 3, 4, 5, 6), generator=torch.Generator().manual_seed(2)).short()
    report = edge4d.export(Fn(taken), (x,), output=tmp_path / "net.onnx")
    assert report.ok
    with edge4d.open(report.path) as opened:
        for got, want in zip(opened(x.numpy()).values(), taken(x), strict=True):
            assert got.dtype == want.numpy().dtype
            assert (got == want.numpy()).all()
