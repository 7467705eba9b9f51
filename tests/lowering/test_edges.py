"""Numbers without axes, tensors without elements, and models that write into their input."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from edge4d.errors import LoweringError
from edge4d.lowered import lower
from edge4d.lowering.builder import Builder
from edge4d.lowering.values import Const
from tests.lowering.harness import RANGE, Fn, assert_close, lowered_equals_eager

CLIP = torch.randn(2, 3, 4, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FIRST = torch.tensor([0])

# ---- torch takes axis 0 of a number, which has none -----------------------------------------------------------------

OF_ONE_NUMBER = {
    "softmax": lambda x: x.softmax(0),
    "log_softmax": lambda x: x.log_softmax(-1),
    "cumsum": lambda x: x.cumsum(0),
    "max": lambda x: tuple(x.max(0)),
    "argmax": lambda x: x.argmax(-1),
    "sort": lambda x: tuple(x.sort(0)),
    "topk": lambda x: x.topk(1, 0)[0],
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(1),
    "index_select": lambda x: x.index_select(0, FIRST),
    "index_select_by_a_number": lambda x: x.index_select(0, FIRST[0]),
    "sum": lambda x: x.sum(0),
    "var": lambda x: x.var(unbiased=False),
    "var_mean": lambda x: torch.var_mean(x, correction=0),
    "prod": lambda x: x.prod(0),
}


@pytest.mark.parametrize("name", OF_ONE_NUMBER)
def test_an_axis_of_a_number(name):
    lowered_equals_eager(Fn(lambda x: OF_ONE_NUMBER[name](x.mean())), CLIP)


# ---- what has no elements depends on no input -----------------------------------------------------------------------

NOWHERE = torch.tensor([], dtype=torch.long)

EMPTY = {
    "joined": lambda x: torch.cat([x[:, :0], x, x[:, 3:]], 1),
    "the_only_one_with_elements": lambda x: torch.cat([x[:, :0], x * 2], 1),
    "summed": lambda x: x + x[:, :, :0].sum(2, keepdim=True) + x[:, :, 9:].flatten(2).sum(),
    "split_off": lambda x: torch.cat(x.split([0, 3], 1)[::-1], 1),
    "selected": lambda x: torch.cat([x.index_select(1, NOWHERE), x[:, NOWHERE], x], 1),
    "top_none": lambda x: torch.cat([x.topk(0, 1)[0], x], 1),
    "scattered": lambda x: x.scatter(1, torch.zeros(2, 0, 4, 6, 5, dtype=torch.long), x),
    "multiplied": lambda x: x @ x.mT + x[..., :0] @ x[..., :0].mT,
    "diagonal": lambda x: torch.cat([x.diagonal(6, 3, 4), x[:, :, :, 0, :2]], -1),
    "windows": lambda x: torch.cat([x[:, :0].unfold(2, 2, 1), x.unfold(2, 2, 1)], 1),
    "convolved": lambda x: torch.cat([torch.conv3d(x[:0], torch.ones(3, 3, 1, 1, 1, dtype=x.dtype)), x]),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_part_without_elements(name):
    lowered_equals_eager(Fn(EMPTY[name]), CLIP)


def test_an_output_without_elements_is_refused():
    with pytest.raises(LoweringError, match=r"output 'output_1' of the model has no elements \(shape 2x0x4x6x5\)"):
        lower(Fn(lambda x: (x, x[:, :0])), (CLIP,))


# ---- writes into a diagonal -----------------------------------------------------------------------------------------


def diagonals(x):
    y = x.clone()
    y.diagonal(0, 3, 4).fill_(2.0)
    y.diagonal(-1, 2, 3).mul_(3)
    y.diagonal(2, -1, 1)[:, :, 0] = x.mean()
    return y, y.diagonal_scatter(x[..., :4].flatten(2)[..., :24].view(2, 3, 6, 4), 1, 2, 4)


def test_writes_into_a_diagonal():
    lowered_equals_eager(Fn(diagonals), torch.randn(2, 3, 4, 6, 5, dtype=torch.float64))


def filled(x):
    y = x.clone()
    y[:, 0].fill_(1 / 3)
    y.select(2, 1).fill_(0.1)
    return y


def test_numbers_are_filled_in_to_the_last_digit():
    lowered_equals_eager(Fn(filled), CLIP, tolerance=1e-15)


def test_zeros_of_both_signs_are_two_numbers():
    zeros = torch.zeros(4, 6, 5, dtype=torch.float64)
    zeros[1:] = -0.0
    lowered_equals_eager(Fn(lambda x: x.copysign(zeros)), CLIP)


def test_what_is_computed_of_constants_goes_by_the_names_of_arguments():
    b = Builder(FakeTensorMode(allow_non_fake_inputs=True))
    numbers = Const(torch.tensor([-1.0, 2.0]), "numbers")
    low, high = (b.lower(torch.ops.aten.clamp.default, numbers, **{end: 0.5}).tensor for end in ("min", "max"))
    assert (low.tolist(), high.tolist()) == ([0.5, 2.0], [-1.0, 0.5])


# ---- a place that is one number ------------------------------------------------------------------------------------

PICKED = {
    "a_frame": lambda x: x[:, :, x.mean((0, 1, 3, 4)).argmax()],
    "from_the_end": lambda x: x[..., -(x.sum((0, 1, 2, 3)).argmax() + 1)],
    "a_row_of_a_table": lambda x: torch.arange(12.0, dtype=x.dtype).view(4, 3)[(x.sum() > 0).long()] + x.mean(),
    "one_number_of_two_places": lambda x: x[:, (x[0, 0, 0, 0, 0] > 0).long(), :, (x.mean() > 0).int()],
    "twice": lambda x: x.select(1, i := x.mean((0, 2, 3, 4)).argmin()) + x.select(1, i - 1),
}


@pytest.mark.parametrize("name", PICKED)
def test_a_place_that_is_one_number(name):
    lowered_equals_eager(Fn(PICKED[name]), CLIP)
    lowered_equals_eager(Fn(PICKED[name]), -CLIP)


def test_a_number_that_is_used_otherwise_is_refused():
    with pytest.raises(LoweringError, match="a number is read from a tensor"):
        lower(Fn(lambda x: x[:, i := x.sum((0, 2, 3, 4)).argmax()] * i.item()), (CLIP,))


# ---- a model that writes into its input -----------------------------------------------------------------------------


def written(x, y):
    x.mul_(2)
    torch.relu_(y[:, 0])
    x[:, 0] = y[:, 1]
    return x[:, :, 1:], y, {"x": x}


def test_what_a_model_writes_into_its_input_is_seen_in_its_results_and_nowhere_else():
    args = (CLIP, CLIP.flip(1))
    expected = written(*(arg.clone() for arg in args))
    given = tuple(arg.clone() for arg in args)
    lowered = lower(Fn(written), given)
    packed = lowered.pack(*given)
    assert_close(lowered.unpack(lowered.module(*packed)), expected, RANGE)
    assert all(torch.equal(now, before) for now, before in zip(given, args, strict=True))


# ---- weights ---------------------------------------------------------------------------------------------------------


class Weighted(torch.nn.Module):
    """Weights that are used as they lie, and some that are laid out anew."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(3, 4, (1, 3, 3), dtype=torch.float64)
        self.linear = torch.nn.Linear(3, 4, dtype=torch.float64)
        self.offset = torch.nn.Parameter(torch.ones(3, 1, 6, 5, dtype=torch.float64))
        self.register_buffer("table", torch.ones(3, 4, 1, 1, dtype=torch.float64))

    def forward(self, x):
        return self.conv(x), self.linear(x.movedim(1, 4)), x + self.offset, x * self.table


def test_weights_of_the_lowered_model_are_its_own():
    """None shares memory with the original, which may be trained on."""
    model = Weighted().eval()
    lowered = lower(model, (CLIP,))
    theirs = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    held = {**dict(lowered.module.named_parameters()), **dict(lowered.module.named_buffers())}
    assert len(held) >= 6
    assert not [name for name, tensor in held.items() if tensor.untyped_storage().data_ptr() in theirs]
    packed = lowered.pack(CLIP)
    before = [result.clone() for result in lowered.module(*packed)]
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    for got, wanted in zip(lowered.module(*packed), before, strict=True):
        assert torch.equal(got, wanted)
