"""How clips are varied: what each way does, that a seed means one of them, and what a batch says of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge4d.data.batches import train_batches
from edge4d.data.varying import KINDS, Variation, Vary
from edge4d.errors import UsageError
from tests.data.test_batches import Numbered

CLIP = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("variation", "expected"),
    [
        (Variation(), CLIP),
        (Variation(mirror=True), CLIP[..., [7, 6, 5, 4, 3, 2, 1, 0]]),
        (Variation(flip=True), CLIP[:, :, [7, 6, 5, 4, 3, 2, 1, 0]]),
        (Variation(reverse=True), CLIP[:, [2, 1, 0]]),
        (Variation(turn=True), CLIP.permute(0, 1, 3, 2)),
        (Variation(shift=(2, -1)), CLIP[:, :, [2, 1, 0, 1, 2, 3, 4, 5]][..., [1, 2, 3, 4, 5, 6, 7, 6]]),
        (Variation(mirror=True, shift=(0, 1)), CLIP[..., [6, 7, 6, 5, 4, 3, 2, 1]]),
    ],
)
def test_what_a_variation_does(variation, expected):
    assert torch.equal(variation.of(CLIP), expected)
    assert variation.keeps_label == (variation == Variation(shift=variation.shift))


@given(st.integers(0, 10**6), st.sampled_from([(1, 4, 8, 8), (3, 1, 5, 9), (1, 2, 1, 1), (2, 3, 4, 6)]))
def test_a_variation_keeps_the_shape(seed, shape):
    clip = torch.rand(shape)
    drawn = Vary(KINDS).draw((0, seed), shape)
    assert drawn == Vary(KINDS).draw((0, seed), shape)
    assert drawn.of(clip).shape == clip.shape
    assert not (drawn.turn and shape[2] != shape[3])
    assert max(abs(moved) / size for moved, size in zip(drawn.shift, shape[2:], strict=True)) <= 0.25


def test_every_kind_is_drawn_and_no_other():
    for kind in KINDS:
        drawn = [Vary((kind,)).draw((0, 0, seed), CLIP.shape) for seed in range(60)]
        idle = {name for name in KINDS if not any(getattr(one, name) not in (False, (0, 0)) for one in drawn)}
        assert idle == set(KINDS) - {kind}
    assert all(Vary().draw((0, seed), CLIP.shape) == Variation() for seed in range(60))


def test_some_clips_keep_their_label():
    drawn = [Vary(KINDS, labelled=0.5).draw((0, 0, seed), CLIP.shape) for seed in range(400)]
    assert 170 < sum(one.keeps_label for one in drawn) < 260, "a half, and a sixteenth of the rest"
    assert sum(one.keeps_label and one != Variation() for one in drawn) > 150, "these are shifted, too"


def test_unknown_kinds_are_refused():
    with pytest.raises(UsageError, match="unknown variation 'mirrored'"):
        Vary(("mirrored",))


class Drawn(Numbered):
    """Clip i has other pixels than any other."""

    def read(self, index, view):
        return CLIP + 1000 * index


def batches(**settings):
    given = {"batch": 8, "micro": 8, "first": 0, "steps": 3, "seed": 3, "vary": Vary(KINDS, 0.3), **settings}
    return list(train_batches(Drawn(10), **given))


def test_a_batch_says_whose_label_holds():
    turning = Vary(("mirror", "reverse"), 0.3)
    for batch in batches(vary=turning):
        same = [torch.equal(clip, CLIP + 1000 * index) for clip, index in zip(batch.clips, batch.indices, strict=True)]
        assert batch.labelled.tolist() == same
    assert {bool(flag) for batch in batches(vary=turning) for flag in batch.labelled} == {True, False}
    assert all(batch.labelled.all() for batch in batches(vary=None))


def test_a_clip_is_varied_alike_in_any_process_worker_part_and_start():
    whole = torch.cat([batch.clips for batch in batches()])
    parts = [batches(micro=2, rank=rank, world=2) for rank in range(2)]
    steps = [torch.cat([b.clips for rank in range(2) for b in parts[rank][2 * s : 2 * s + 2]]) for s in range(3)]
    assert torch.equal(torch.cat(steps), whole)
    assert torch.equal(torch.cat([b.clips for b in batches(first=1)]), whole[8:])
    assert torch.equal(torch.cat([b.clips for b in batches(workers=1)]), whole)
    assert not torch.equal(torch.cat([b.clips for b in batches(seed=4)]), whole)


def test_a_clip_is_varied_anew_in_every_epoch():
    seen = {}
    for batch in batches(steps=10, vary=Vary(KINDS)):
        for clip, index in zip(batch.clips, batch.indices, strict=True):
            seen.setdefault(index, []).append(clip)
    assert all(any(not torch.equal(one, views[0]) for one in views[1:]) for views in seen.values())


def test_steps_without_an_end():
    found = train_batches(Drawn(10), batch=8, micro=8, first=0, steps=None, seed=3)
    assert [len(next(found).indices) for _ in range(5)] == [8] * 5
