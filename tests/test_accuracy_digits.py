"""The hard set: the same clips every time, all classes alike, and no class told by a frame or by a motion alone."""

from __future__ import annotations

import numpy as np
import pytest

import edge4d.errors
from benchmarks.accuracy import digits
from benchmarks.accuracy.digits import FRAMES, SETS, SIZE, draw, offsets, scans


@pytest.mark.parametrize("name", SETS)
def test_same_arguments_same_clips(name):
    clips, labels = draw(SETS[name], 60, 5, test=False)
    again, same = draw(SETS[name], 60, 5, test=False)
    other, _ = draw(SETS[name], 60, 6, test=False)
    held_out, _ = draw(SETS[name], 60, 5, test=True)
    assert clips.shape == (60, FRAMES, SIZE, SIZE)
    assert clips.dtype == np.uint8
    assert np.array_equal(clips, again)
    assert np.array_equal(labels, same)
    assert not np.array_equal(clips, other)
    assert not np.array_equal(clips, held_out)


@pytest.mark.parametrize("name", SETS)
def test_classes_are_balanced_and_pair_every_digit_with_every_motion(name):
    kind = SETS[name]
    _, labels = draw(kind, 250, 1, test=False)
    counts = np.bincount(labels, minlength=len(kind.classes))
    assert counts.max() - counts.min() == 1  # 250 is no multiple of 24
    assert len(kind.classes) == len(set(kind.classes)) == len(kind.digits) * len(kind.motions) >= 20
    assert min(len(kind.digits), len(kind.motions)) >= 3


def test_the_sets_share_no_digit():
    assert not set(SETS["source"].digits) & set(SETS["target"].digits)


def test_training_and_test_scans_are_different_ones():
    (train, _), (test, _) = scans(False), scans(True)
    assert (len(train), len(test)) == (1297, 500)
    assert not {scan.tobytes() for scan in train} & {scan.tobytes() for scan in test}


def scenes(kind, labels, seed=3):
    """Clips and, for each painted thing, its patches and corners."""
    painted = []

    def paint(clips, patches, corner):
        painted.append((patches, corner))
        digits_paint(clips, patches, corner)

    digits_paint, digits._paint = digits._paint, paint
    try:
        clips = digits._scenes(kind, np.asarray(labels), *scans(False), np.random.default_rng(seed))
    finally:
        digits._paint = digits_paint
    return clips, painted


@pytest.mark.parametrize("name", SETS)
def test_motion_is_drawn_apart_from_appearance(name):
    """One seed, labels that differ in motion (or digit) alone: nothing else differs."""
    kind = SETS[name]
    several = len(kind.motions)
    one, first = scenes(kind, [0] * 8)
    moved, second = scenes(kind, [1] * 8)
    named, third = scenes(kind, [several] * 8)
    assert np.array_equal(one[:, 0], moved[:, 0])  # the start says nothing of the motion
    assert not np.array_equal(one, moved)
    assert np.array_equal(first[0][0], second[0][0])  # the same scans, at the same light
    assert not np.array_equal(first[0][1], second[0][1])
    assert np.array_equal(first[0][1], third[0][1])  # another digit, on the same path
    assert not np.array_equal(first[0][0], third[0][0])
    for stray in range(1, 1 + digits.STRAYS):
        for other in (second, third):
            assert all(np.array_equal(a, b) for a, b in zip(first[stray], other[stray], strict=True))
    assert not np.array_equal(one, named)


def unevenness(corners):
    """Chi-square of places (N, [y, x]) on a grid of 4 × 4 fields, over its 15 degrees of freedom."""
    cells = (corners % SIZE) // (SIZE // 4)
    counts = np.bincount(cells[:, 0] * 4 + cells[:, 1], minlength=16)
    expected = len(corners) / 16
    return float(((counts - expected) ** 2 / expected).sum() / 15)


@pytest.mark.parametrize("name", SETS)
def test_in_every_frame_a_digit_is_anywhere_whatever_its_motion(name):
    kind = SETS[name]
    for motion in range(len(kind.motions)):
        corners = digits._path(kind, np.full(4000, motion), np.random.default_rng(motion))
        for frame in range(FRAMES):
            assert unevenness(corners[:, frame]) < 2.5, (kind.motions[motion], frame)


@pytest.mark.parametrize("name", SETS)
def test_a_fixed_start_would_be_found(name):
    """What the test above must refuse: places that betray the motion."""
    speed = np.random.default_rng(0).uniform(*digits.SPEED, 4000)
    for motion in SETS[name].motions:
        assert unevenness(np.floor(offsets(motion, speed)[:, 3]).astype(np.int64)) > 2.5, motion


def test_the_order_of_frames_matters():
    """Some motions show the same frames as others in another order, so that no frames without order tell them."""
    speed = np.array([3.0])
    backwards = offsets("left", speed)[:, ::-1] - offsets("left", speed)[:, -1:]
    assert np.allclose(offsets("right", speed), backwards)
    assert np.allclose(offsets("clockwise", speed)[:, 1:], offsets("counterclockwise", speed)[:, :0:-1])


def test_motions_go_their_speed():
    speed = np.array([3.0])
    for kind in SETS.values():
        for motion in kind.motions:
            steps = np.linalg.norm(np.diff(offsets(motion, speed)[0], axis=0), axis=1)
            assert steps.max() == pytest.approx(3.0, rel=0.03), motion


def test_what_is_not_there_is_refused():
    with pytest.raises(edge4d.errors.UsageError, match="expected at least 1"):
        draw(SETS["source"], 0, 1, test=False)
    with pytest.raises(edge4d.errors.UsageError, match="sideways"):
        offsets("sideways", np.array([1.0]))
