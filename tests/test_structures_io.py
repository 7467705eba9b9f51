"""Inputs and outputs of any structure and type, through export, open and parity."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import edge4d
from edge4d.checking import check_parity
from edge4d.errors import CaptureError, LoweringError, UsageError
from edge4d.lowered import lower
from tests.lowering.harness import assert_close, randomise

Pair = collections.namedtuple("Pair", "video count")


class Typed(NamedTuple):
    video: torch.Tensor
    lengths: torch.Tensor


@dataclass
class Sample:
    video: torch.Tensor
    mask: torch.Tensor


@dataclass
class Result:
    features: torch.Tensor
    sample: Sample


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(2, 3, 3, padding=1)


class Nested(Base):
    def forward(self, batch):
        return {"out": {"features": self.conv(batch["video"]), "sums": batch["extra"][0].sum(1)}}


class List(Base):
    def forward(self, clips):
        return [self.conv(clip) for clip in clips]


class Named(Base):
    def forward(self, pair, scale=2.0):
        return Pair(self.conv(pair.video) * scale, pair.count + 1)


class TypedNet(Base):
    def forward(self, given):
        return Typed(self.conv(given.video), given.lengths * 2)


class DataNet(Base):
    def forward(self, sample):
        return Result(self.conv(sample.video), Sample(sample.video, ~sample.mask))


class Keyword(Base):
    def forward(self, clip, *, mask=None):
        return self.conv(clip) * mask[:, None, None, None, None], mask.any()


class Choice(Base):
    def forward(self, clip, index, keep):
        y = self.conv(clip)
        kept = torch.where(keep[:, None, None, None, None], y, -y)
        return kept, y[:, index.long()], index + 1, keep & (index.sum() > 1)


class Plain(Base):
    def forward(self, clip, missing=None):
        return {"features": self.conv(clip), "loss": missing, "stride": 2, "size": clip.shape[2], "kind": "video"}


X = torch.randn(1, 2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([True])
ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("net", "args", "kwargs", "inputs", "outputs"),
    [
        (
            Nested,
            ({"video": X, "extra": [ONES]},),
            {},
            "batch_video batch_extra_0",
            "out_features out_sums",
        ),
        (List, ([X, X + 1],), {}, "clips_0 clips_1", "output output_1"),
        (Named, (Pair(X, torch.arange(3)),), {}, "pair_video pair_count", "video count"),
        (TypedNet, (Typed(X, torch.tensor([3])),), {}, "given_video given_lengths", "video lengths"),
        (DataNet, (Sample(X, MASK),), {}, "sample_video sample_mask", "features sample_video_1 sample_mask_2"),
        (Keyword, (X,), {"mask": MASK}, "clip mask", "output output_1"),
        (Choice, (X, torch.tensor([0, 2]), MASK), {}, "clip index keep", "output output_1 output_2 output_3"),
        (Choice, (X, torch.tensor([0, 2], dtype=torch.int32), MASK), {}, None, None),
        (Choice, (X, torch.tensor([2, 1], dtype=torch.uint8), MASK), {}, None, None),
        (Choice, (X, torch.tensor([2, 1], dtype=torch.int8), MASK), {}, None, None),
        (Plain, (X,), {}, "clip", "features"),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else "",
)
def test_a_structure_is_flat_in_the_graph_and_whole_in_python(net, args, kwargs, inputs, outputs, tmp_path):
    model = randomise(net()).float().eval()
    report = edge4d.export(model, args, kwargs, output=tmp_path / "net.onnx")
    assert report.ok
    assert inputs is None or [port.name for port in report.inputs] == inputs.split()
    assert outputs is None or [port.name for port in report.outputs] == outputs.split()
    with torch.no_grad():
        expected = model(*args, **kwargs)
    lowered = lower(model, args, kwargs)
    with torch.no_grad():
        got = lowered.unpack(lowered.module(*lowered.pack(*args, **kwargs)))
    assert type(got) is type(expected)
    tensors = [[x for x in pytree.tree_leaves(tree) if isinstance(x, torch.Tensor)] for tree in (got, expected)]
    assert_close(*tensors, 1e-5)
    given = [x.numpy() for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    with edge4d.open(report.path) as opened:
        found = opened(*given)
    for array, want in zip(found.values(), tensors[1], strict=True):
        assert array.dtype == want.numpy().dtype
        np.testing.assert_allclose(array, want.numpy(), rtol=1e-4, atol=1e-5)


def test_results_that_are_no_tensors_come_back_from_the_lowered_module():
    model = randomise(Plain()).float().eval()
    lowered = lower(model, (X,))
    with torch.no_grad():
        got = lowered.unpack(lowered.module(*lowered.pack(X)))
    assert {key: got[key] for key in ("loss", "stride", "size", "kind")} == {
        "loss": None,
        "stride": 2,
        "size": 3,
        "kind": "video",
    }


class Nothing(nn.Module):
    def forward(self, clip):
        return {"loss": None, "size": clip.shape[0]}


def test_a_model_without_any_tensor_to_return_is_refused():
    with pytest.raises(LoweringError, match="the model returns no tensor"):
        lower(Nothing(), (X,))


def test_parity_draws_integers_from_the_archive_s_own(tmp_path):
    model = randomise(Choice()).float().eval()
    args = (X, torch.tensor([2, 1], dtype=torch.int8), MASK)
    torch.export.save(torch.export.export(model, args), tmp_path / "net.pt2")
    report = edge4d.export(tmp_path / "net.pt2")
    assert report.ok
    (found,) = check_parity(tmp_path / "net.pt2", [report.path], sets=3).values()
    assert found.ok


class Picky(Base):
    """Its index must be sorted, which no random one is."""

    def forward(self, clip, index):
        torch._check(index.shape[0] == 2)
        return self.conv(clip)[:, :, index.long()]


def test_a_model_that_fails_on_made_up_inputs_is_told_as_such(tmp_path):
    args = (X, torch.zeros(2, dtype=torch.uint8))  # zeros do not tell which integers are valid
    with pytest.raises(UsageError, match="the model itself fails on the inputs that were made to check it: IndexError"):
        edge4d.export(randomise(Picky()).float().eval(), args, output=tmp_path / "net.onnx")


class Failing(nn.Module):
    def forward(self, sample):
        raise RuntimeError("no such thing")


def test_a_model_that_fails_says_why_with_a_dataclass_too():
    with pytest.raises(CaptureError, match="no such thing"):
        lower(Failing(), (Sample(X, MASK),))


class Scalars(nn.Module):
    def forward(self, clip, index):
        total = clip.sum()
        six = torch.ones(1, 2, 3, 2, 2, 1, dtype=clip.dtype)
        return total * 2, torch.where(total > 1, six, -six), index.sum() > 1, total.add(index.sum())


def test_scalars_among_themselves_and_among_constants():
    args = (X.double(), torch.tensor([1, 2]))
    lowered = lower(Scalars(), args)
    assert_close(lowered.unpack(lowered.module(*lowered.pack(*args))), Scalars()(*args), 1e-12)
