"""Indices, scatter, order, running results, windows and sampling at computed coordinates, in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edge4d.errors import LoweringError
from edge4d.lowered import lower
from edge4d.lowering import sampling
from tests.lowering.harness import Fn, lowered_equals_eager, ops_of


def clip(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def put(x, places, values):
    y = x * 2
    y[places] = values
    return y


def added(x, places, values):
    return torch.index_put(x, places, values, accumulate=True)


ALL = slice(None)
MASK = torch.tensor([True, False, True])

PLACES = {
    "gather": lambda x: x.gather(2, x.argmax(2, keepdim=True)),
    "gather_shorter": lambda x: x.gather(3, x[:, :2, 1:, :4, 3:].argsort(3)),
    "gather_from_constant": lambda x: torch.arange(5.0).view(1, 1, 1, 5, 1).expand_as(x).gather(3, x.argsort(3)),
    "gather_constant": lambda x: x.gather(1, torch.tensor([3, 0]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 5, 6)),
    "take_along": lambda x: torch.take_along_dim(x, x.argmin(3, keepdim=True), 3),
    "take": lambda x: x.take(torch.tensor([[7, -1], [0, 7]])),
    "index_computed": lambda x: x[:, :, (x[0, 0, :, 0, 0] > 0).long() - 1],
    "index_matrix_computed": lambda x: x.movedim(2, 0)[(x[:, 0, :, 0, :2] > 0).long()],
    "index_two_axes": lambda x: x[:, :, torch.tensor([0, -1]), torch.tensor([1, 4])],
    "index_two_computed": lambda x: x[:, x[0, :, 0, 0, 0].argsort(), (x[0, :, 0, 0, 0] > 0).long()],
    "index_apart": lambda x: x[:, torch.tensor([0, 3]), :, torch.tensor([[1], [4]])],
    "index_mask": lambda x: x[:, :, MASK],
    "index_mask_of_two_axes": lambda x: x[:, :, MASK.view(3, 1) & (torch.arange(5) > 2)],
    "index_select_computed": lambda x: x.index_select(2, x[0, 0, :, 0, 0].argsort()),
    "index_many": lambda x: x[..., torch.tensor([5, 0, 4, 0, 3, 0, 2, 0, 1, 0])],
    "scatter": lambda x: torch.zeros_like(x).scatter(2, x.argmax(2, keepdim=True), 1.5),
    "scatter_source": lambda x: torch.zeros_like(x).scatter(2, x.argsort(2), x + 1),
    "scatter_shorter": lambda x: (x * 2).scatter(3, x[:, 1:, :2, :3, 1:].argsort(3), x[:, :, :, 1:]),
    "scatter_add": lambda x: (x * 2).scatter_add(1, (x > 0).long(), x),
    "scatter_multiply": lambda x: (x * 2).scatter(1, x.argsort(1)[:, 1:], 3.0, reduce="multiply"),
    "scatter_reduce": lambda x: (x * 2).scatter_reduce(4, (x > 0).long(), x, "amax"),
    "put_number": lambda x: put(x, (ALL, ALL, torch.tensor([0, 2])), 1.5),
    "put_rows": lambda x: put(x, (ALL, torch.tensor([3, -4]), torch.tensor([0, 2])), x[:, 1:3, 1]),
    "put_mask": lambda x: put(x, x > 0, -1.0),
    "put_computed": lambda x: put(x, (ALL, ALL, x[0, 0, :, 0, 0].argsort()), x),
    "put_add": lambda x: added(x, (torch.tensor([0, 0]), torch.tensor([1, 1])), x[0, :2]),
    "index_add": lambda x: x.index_add(2, torch.tensor([1, 1, 0]), x * 3),
    "index_copy": lambda x: x.index_copy(2, torch.tensor([1, 2]), x[:, :, :2]),
    "index_fill": lambda x: x.index_fill(3, torch.tensor([4, 0]), 2.5),
    "masked_fill": lambda x: x.masked_fill(x.sum(1, keepdim=True) > 0, 0.25),
    "unfold": lambda x: x.unfold(4, 3, 2),
    "unfold_apart": lambda x: x.unfold(3, 2, 2).unfold(2, 2, 1),
    "im2col": lambda x: F.unfold(x.flatten(0, 1), (3, 2), padding=1, stride=2),
    "col2im": lambda x: F.fold(F.unfold(x[:, :, 0], 2), (5, 6), 2),
    "diagonal": lambda x: x.diagonal(1, 3, 4),
    "diagonal_below": lambda x: x.diagonal(-1, 4, 1),
    "trace": lambda x: torch.einsum("ncthh->nct", x[..., :5]),
    "repeat_unevenly": lambda x: x.repeat_interleave(torch.tensor([1, 0, 2]), 2),
    "roll_flat": lambda x: x.roll(7),
    "repeat_flat": lambda x: x.repeat_interleave(2),
    "bucketize": lambda x: torch.bucketize(x, torch.tensor([-0.5, 0.0, 0.5]).double()),
    "searchsorted": lambda x: torch.searchsorted(x[0, 0, 0, 0].sort()[0], x, side="right", out_int32=True),
    "one_hot": lambda x: F.one_hot(x.argmax(2), 3),
    "triangle": lambda x: x.tril(1) + x.triu(-2),
}

ORDER = {
    "topk": lambda x: x.topk(2, 2),
    "topk_smallest": lambda x: x.topk(3, 4, largest=False, sorted=False)[0].sum(4),
    "sort": lambda x: x.sort(3),
    "sort_descending": lambda x: x.sort(1, descending=True),
    "sort_stable": lambda x: torch.sort(x, dim=2, stable=True)[0],
    "argsort": lambda x: x.argsort(4, descending=True),
    "median": lambda x: x.median(4, keepdim=True),
    "median_of_all": lambda x: x.median() + x.flatten()[:4].median() + x.mean().median(),
    "kthvalue": lambda x: x.kthvalue(2, 3),
    "quantile": lambda x: x.quantile(0.3, 3),
    "cumsum": lambda x: x.cumsum(3),
    "cumprod": lambda x: x.cumprod(4),
    "cummax": lambda x: x.cummax(3)[0],
    "cummin": lambda x: x.cummin(4)[0],
    "diff": lambda x: x.diff(dim=2, n=2),
    "norm_of_order_3": lambda x: x.norm(p=3, dim=(2, 4)),
    "cdist": lambda x: torch.cdist(x[:, :, 0], x[:, :, 1, 1:]),
}


@pytest.mark.parametrize("name", {**PLACES, **ORDER})
def test_places_and_order(name):
    lowered_equals_eager(Fn({**PLACES, **ORDER}[name]), clip(2, 4, 3, 5, 6), tolerance=1e-11)


def test_places_in_axes_of_one():
    def every_kind(x):
        index = torch.tensor([0, 0])
        y = x * 2
        y[:, index] = 3.0
        return (
            x.gather(0, x.argmax(0, keepdim=True)),
            y,
            x.scatter_add(1, (x > 0).long() * 0, x),
            x[index],
            x.topk(1, 1),
        )

    lowered_equals_eager(Fn(every_kind), clip(1, 1))
    lowered_equals_eager(Fn(every_kind), clip(1, 1, 1, 3, 1))


def test_integer_running_extrema_begin_at_the_lowest_integer():
    x = torch.tensor([[-5, -7, -2], [4, -9, 8]])
    lowered_equals_eager(Fn(lambda i: i.cummax(1)[0]), x)


def test_an_embedding_of_computed_tokens():
    tokens = torch.tensor([[[1, 2], [3, 0]]])
    lowered = lowered_equals_eager(nn.Embedding(5, 3, padding_idx=0), tokens)
    assert "aten.index_select.default" in ops_of(lowered)


CORNERS = list(itertools.product(("bilinear", "nearest"), ("zeros", "border", "reflection"), (True, False)))


@pytest.mark.parametrize(
    ("shape", "at_once", "gathers"),
    [
        ((1, 2, 3, 4, 5), 2**24, 6 * 2),
        ((1, 2, 3, 4, 5), 0, 6 * (8 + 1)),
        ((2, 3, 1, 4, 2), 2**24, 6 * 2),
        ((2, 3, 1, 4, 2), 0, 2 * (8 + 1) + 4 * (4 + 1)),  # without a border of zeros both ends of one frame are it
    ],
)
def test_sampling_a_volume(shape, at_once, gathers, monkeypatch):
    monkeypatch.setattr(sampling, "AT_ONCE", at_once)

    def every_way(x, grid):
        return {
            f"{mode}_{padding}_{corners}": F.grid_sample(x, grid, mode, padding, corners)
            for mode, padding, corners in CORNERS
        }

    lowered = lowered_equals_eager(Fn(every_way), clip(*shape), clip(shape[0], 2, 3, 4, 3, seed=1) * 1.5)
    assert ops_of(lowered).count("aten.index_select.default") == gathers


def test_sampling_a_volume_on_its_border():
    """Positions on the last element and behind it read it alone."""
    steps = torch.tensor([-1.0, -1.0 + 2 / 3, 1 - 1e-9, 1.0, 1.5], dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1).unsqueeze(0)
    for padding in ("zeros", "border"):
        lowered_equals_eager(
            Fn(lambda x, g, p=padding: F.grid_sample(x, g, "bilinear", p, True)), clip(1, 2, 4, 3, 2), grid
        )


def test_sampling_frames():
    def every_mode(x, grid):
        frames = x.flatten(0, 1)
        return [F.grid_sample(frames, grid, mode, align_corners=False) for mode in ("bilinear", "nearest", "bicubic")]

    lowered_equals_eager(Fn(every_mode), clip(2, 2, 3, 4, 5), clip(4, 2, 3, 2, seed=1))


@pytest.mark.parametrize("size", [(7, 4), (3, 13)])
def test_resizing_planes_smoothly(size):
    def every_mode(x):
        return [
            F.interpolate(x.flatten(1, 2), size, mode=mode, antialias=antialias)
            for mode in ("bilinear", "bicubic")
            for antialias in (False, True)
        ]

    lowered_equals_eager(Fn(every_mode), clip(2, 2, 3, 5, 6), tolerance=1e-11)


def test_resizing_by_a_scale_bicubic_with_corners():
    fn = Fn(lambda x: F.interpolate(x, scale_factor=(1.4, 0.6), mode="bicubic", align_corners=True))
    lowered_equals_eager(fn, clip(2, 3, 5, 6), tolerance=1e-11)


def test_batch_norm_without_statistics():
    lowered_equals_eager(nn.BatchNorm3d(4, track_running_stats=False), clip(2, 4, 3, 5, 6), tolerance=1e-11)


def assigned_through_a_mask(x):
    y = x * 2
    y[x > 0] = x[x > 0]
    return y


def test_buckets_of_what_is_no_number():
    """Behind all boundaries, as torch's own search has it."""
    x = clip(2, 3, 4, 5, 6).masked_fill(clip(2, 3, 4, 5, 6) > 1, float("nan"))
    edges = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    for right in (False, True):
        lowered_equals_eager(Fn(lambda v, right=right: torch.bucketize(v, edges, right=right)), x)


DECLINED = {
    "mask_assigned_several": (
        assigned_through_a_mask,
        r"aten\.index\.Tensor .*result \?: the shape of its result depends on the values",
    ),
    "scatter_mean": (lambda x: x.scatter_reduce(1, x.argsort(1), x, "mean"), "scatter_reduce with a mean"),
    "scatter_without_self": (
        lambda x: x.scatter_reduce(1, x.argsort(1), x, "sum", include_self=False),
        "leaves out the former values",
    ),
    "put_apart": (
        lambda x: put(x, (ALL, torch.tensor([0, 1]), ALL, torch.tensor([0, 1])), 1.0),
        "axes that are not neighbours",
    ),
    "running_places": (lambda x: x.cummax(2)[1], r"result 1 of aten\.cummax\.default is used"),
    "sorted_booleans": (lambda x: (x > 0).sort(1)[0], "an order of booleans"),
    "nonzero": (torch.nonzero, r"result \?x5: the shape of its result depends on the values"),
    "unique": (lambda x: torch.histc(x.unique()), r"1 operator .*\n.*_unique2.* result \?: the shape"),
    "mean_of_integers": (lambda x: F.avg_pool3d(x.long(), 3, 2, 1, count_include_pad=False), "a mean of integers"),
    "smooth_resize_of_integers": (
        lambda x: F.interpolate(x[:, :, 0].to(torch.uint8), (7, 9), mode="bicubic"),
        "a resize of integers, which torch rounds; convert to a floating type first",
    ),
    "several_results": (lambda x: torch.frexp(x)[0], r"aten\.frexp\.Tensor .*an operator of several results"),
    "norm_of_order_0": (lambda x: x.norm(p=0, dim=1), "a norm of order 0"),
}


@pytest.mark.parametrize("name", DECLINED)
def test_what_is_declined_says_why(name):
    fn, reason = DECLINED[name]
    with pytest.raises(LoweringError, match=reason):
        lower(Fn(fn), (clip(2, 4, 3, 5, 6),))
