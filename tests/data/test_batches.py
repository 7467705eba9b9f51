"""The order of clips: a function of the seed, whatever the number of processes and the step a run goes on from."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge4d.data.batches import eval_batches, indices_of_step, train_batches
from edge4d.data.source import ClipUnreadable, Source
from edge4d.errors import UsageError


class Numbered(Source):
    """Clip i is filled with i; some cannot be read."""

    def __init__(self, count, bad=(), deadly=None):
        self.count, self.bad, self.deadly = count, set(bad), deadly
        self.classes = ("even", "odd")

    def __len__(self):
        return self.count

    def name(self, index):
        return f"clip{index}"

    def label(self, index):
        return index % 2

    def read(self, index, view):
        if index == self.deadly:
            os._exit(7)
        if index in self.bad:
            raise ClipUnreadable("is broken")
        return torch.full((1, 1, 1, 1), float(index))


def order(source, **settings):
    return [batch.indices for batch in train_batches(source, seed=3, **settings)]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_every_clip_comes_once_an_epoch(count, batch, seed):
    steps = -(-3 * count // batch)
    pairs = [pair for step in range(steps) for pair in indices_of_step(step, batch, count, seed)]
    for epoch in range(3):
        seen = [index for e, index in pairs[: 3 * count] if e == epoch]
        assert sorted(seen) == list(range(count))


def test_another_seed_gives_another_order():
    assert indices_of_step(0, 20, 20, 0) != indices_of_step(0, 20, 20, 1)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_a_batch(world):
    whole = order(Numbered(10), batch=8, micro=8, first=0, steps=3)
    parts = [
        order(Numbered(10), batch=8, micro=8 // world, first=0, steps=3, rank=r, world=world) for r in range(world)
    ]
    assert [sum(step, ()) for step in zip(*parts, strict=True)] == whole


def test_a_run_goes_on_where_it_was():
    assert (
        order(Numbered(7), batch=4, micro=4, first=2, steps=5)
        == order(Numbered(7), batch=4, micro=4, first=0, steps=5)[2:]
    )


def test_parts_of_a_batch():
    whole = order(Numbered(9), batch=6, micro=6, first=0, steps=2)
    parts = order(Numbered(9), batch=6, micro=2, first=0, steps=2)
    assert [len(part) for part in parts] == [2] * 6
    assert sum(parts, ()) == sum(whole, ())


def test_workers_change_nothing():
    alone = order(Numbered(9), batch=4, micro=4, first=0, steps=4)
    assert order(Numbered(9), batch=4, micro=4, first=0, steps=4, workers=2) == alone


def test_a_broken_clip_is_replaced_and_named():
    batches = list(train_batches(Numbered(6, bad=[2]), batch=6, micro=6, first=0, steps=1, seed=0))
    assert batches[0].failed == (("clip2", "is broken"),)
    assert sorted(batches[0].indices) == [0, 1, 3, 3, 4, 5]
    assert batches[0].labels.tolist() == [index % 2 for index in batches[0].indices]


def test_nothing_to_read_ends_the_run():
    with pytest.raises(UsageError, match="20 clips in a row cannot be read, the last one clip"):
        list(train_batches(Numbered(3, bad=[0, 1, 2]), batch=1, micro=1, first=0, steps=1, seed=0))


def test_measuring_leaves_a_broken_clip_out():
    batches = list(eval_batches(Numbered(5, bad=[1]), batch=2, clips=2, crops=1))
    assert [index for batch in batches for index in batch.indices] == [0, 0, 2, 2, 3, 3, 4, 4]
    assert {entry for batch in batches for entry in batch.failed} == {("clip1", "is broken")}


def test_measuring_is_shared_without_overlap():
    seen = [i for r in range(3) for b in eval_batches(Numbered(10), batch=2, rank=r, world=3) for i in b.indices]
    assert sorted(seen) == list(range(10))


@pytest.mark.filterwarnings("ignore")
def test_a_reader_that_dies_is_told():
    with pytest.raises(UsageError, match="a process that reads clips died"):
        list(train_batches(Numbered(4, deadly=1), batch=4, micro=4, first=0, steps=1, seed=0, workers=1))
