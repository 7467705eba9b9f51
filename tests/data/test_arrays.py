"""Clips that are arrays, and data sets of the user's own."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from edge4d.data.opening import open_source
from edge4d.data.source import ClipSpec, ClipUnreadable, View
from edge4d.errors import UsageError

SPEC = ClipSpec(shape=(1, 2, 3, 4))
CLIPS = np.random.default_rng(0).random((5, 1, 2, 3, 4), np.float32)


def test_clips_and_labels(tmp_path):
    np.savez(tmp_path / "a.npz", clips=CLIPS, labels=[0, 1, 2, 1, 0], classes=["x", "y", "z"])
    source = open_source(tmp_path / "a.npz", SPEC)
    assert (len(source), source.classes, source.label(2), source.name(2)) == (5, ("x", "y", "z"), 2, "a.npz[2]")
    np.testing.assert_array_equal(source.read(3, View()).numpy(), CLIPS[3])


def test_an_array_alone_has_no_labels(tmp_path):
    np.save(tmp_path / "a.npy", CLIPS)
    source = open_source(tmp_path / "a.npy", SPEC)
    assert (source.classes, source.label(0)) == (None, None)


def test_pixels_become_shares_of_white(tmp_path):
    np.save(tmp_path / "a.npy", np.full((1, 1, 2, 3, 4), 255, np.uint8))
    assert open_source(tmp_path / "a.npy", SPEC).read(0, View()).max() == 1


def test_a_clip_with_nan_is_told(tmp_path):
    bad = CLIPS.copy()
    bad[1, 0, 0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", bad)
    with pytest.raises(ClipUnreadable, match="NaN"):
        open_source(tmp_path / "a.npy", SPEC).read(1, View())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"clips": CLIPS[:, :, :1]}, "expected clips N x 1x2x3x4 .*got 5x1x1x3x4"),
        ({"clips": CLIPS, "labels": np.zeros(4, int)}, "expected 5 integers"),
        ({"clips": CLIPS, "labels": np.zeros(5)}, "expected 5 integers"),
        ({"clips": CLIPS, "labels": np.full(5, -1)}, "expected 5 integers"),
        ({"clips": CLIPS, "labels": np.full(5, 2), "classes": ["a"]}, "label 2, but only 1 names"),
        ({"a": CLIPS, "b": CLIPS}, "holds a, b, expected clips and labels"),
        ({"clips": np.array([None, 1], object)}, "cannot be read"),
    ],
)
def test_bad_arrays(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        open_source(tmp_path / "a.npz", SPEC)


def test_a_broken_file(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    with pytest.raises(UsageError, match="cannot be read"):
        open_source(tmp_path / "a.npz", SPEC)


class Own(torch.utils.data.Dataset):
    classes = ("a", "b")

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index == 2:
            raise OSError("the disk is gone")
        return torch.full((1, 2, 3, 4), float(index)), index


unlabelled = [torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4)]
wrong = [torch.zeros(1, 2, 3, 5)]


def test_a_dataset_of_the_users_own():
    source = open_source(f"{__name__}:Own", SPEC)
    assert (len(source), source.classes, source.label(1)) == (3, ("a", "b"), 1)
    assert source.read(1, View()).mean() == 1
    with pytest.raises(ClipUnreadable, match="OSError: the disk is gone"):
        source.read(2, View())
    assert open_source(f"{__name__}:unlabelled", SPEC).classes is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "its clips are 1x2x3x5, the network takes 1x2x3x4"),
        ("Onw", "no attribute 'Onw'"),
        ("pytest", "expected a Dataset"),
    ],
)
def test_bad_datasets(name, message):
    assert sys.modules[__name__]
    with pytest.raises(UsageError, match=message):
        open_source(f"{__name__}:{name}", SPEC)
