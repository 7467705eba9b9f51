"""Sets of inputs from files: how many a file holds, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from edge4d.checking import check_parity
from edge4d.errors import UsageError
from edge4d.input_sets import read_sets
from edge4d.ports import Port
from tests.test_checking import _onnx

CLIP = Port("clip", (1, 3, 4, 5, 6), (4, 3, 5, 6), "float32", "n c t h w -> (n t) c h w")
MASK = Port("mask", (2, 7), (2, 7), "int64")


def _save(path, array):
    np.save(path, array)
    return path


def test_clips_are_stacked_along_the_first_axis(tmp_path):
    clips = np.random.default_rng(0).standard_normal((3, 3, 4, 5, 6)).astype(np.float32)
    sets = read_sets([_save(tmp_path / "a.npy", clips), _save(tmp_path / "b.npy", clips[:1])], [CLIP], strict=True)
    assert [found["clip"].shape for found in sets] == [(1, 3, 4, 5, 6)] * 4
    np.testing.assert_array_equal(np.concatenate([found["clip"] for found in sets[:3]]), clips)


def test_every_input_needs_as_many_sets(tmp_path):
    path = tmp_path / "in.npz"
    np.savez(path, mask=np.zeros((4, 7), np.int64), clip=np.zeros((2, 3, 4, 5, 6), np.float32))
    assert [list(found) for found in read_sets([path], [CLIP, MASK], strict=True)] == [["clip", "mask"]] * 2
    np.savez(path, mask=np.zeros((6, 7), np.int64), clip=np.zeros((2, 3, 4, 5, 6), np.float32))
    with pytest.raises(UsageError, match="different numbers of sets: clip 2, mask 3"):
        read_sets([path], [CLIP, MASK], strict=True)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((1, 3, 4, 5, 7), np.float32), r"shape 1x3x4x5x7, expected 1x3x4x5x6"),
        (np.zeros((3, 4, 5, 6), np.float32), r"the batch axis is missing"),
        (np.zeros((0, 3, 4, 5, 6), np.float32), r"holds no clip"),
        (np.zeros((1, 3, 4, 5, 6), np.uint8), r"dtype uint8, expected float32"),
        (np.float32(1), r"shape \(\), expected"),
    ],
)
def test_clips_that_do_not_fit(tmp_path, array, said):
    with pytest.raises(UsageError, match=said):
        read_sets([_save(tmp_path / "a.npy", array)], [CLIP], strict=True)


def test_what_is_no_clip(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"nonsense")
    for name in ("a.npy", "none.npy"):
        with pytest.raises(UsageError, match="--clips"):
            read_sets([tmp_path / name], [CLIP], strict=True)
    with pytest.raises(UsageError, match="--clips"):
        read_sets([_save(tmp_path / "o.npy", np.array([None]))], [CLIP], strict=True)


def test_random_sets_come_besides_when_asked_for(tmp_path):
    a, b = (_onnx(tmp_path / name) for name in ("a.onnx", "b.onnx"))
    clips = _save(tmp_path / "c.npy", np.ones((6, 3), np.float32))
    assert check_parity(a, [b], inputs=[clips])[b].sets == 3
    assert check_parity(a, [b], inputs=clips, sets=2)[b].sets == 5
    assert check_parity(a, [b], inputs=_save(tmp_path / "d.npy", np.ones((2, 3))))[b].ok  # float64
    with pytest.raises(UsageError, match="dtype int64"):
        check_parity(a, [b], inputs=_save(tmp_path / "e.npy", np.ones((2, 3), int)))


def test_a_difference_that_one_given_clip_shows_fails(tmp_path):
    a, b = _onnx(tmp_path / "a.onnx"), _onnx(tmp_path / "b.onnx", scale=1.9)
    clips = np.zeros((4, 3), np.float32)
    assert check_parity(a, [b], inputs=_save(tmp_path / "c.npy", clips))[b].ok  # zeros show nothing
    clips[3] = 1
    report = check_parity(a, [b], inputs=_save(tmp_path / "c.npy", clips))[b]
    assert not report.ok
    assert report.rows[0].input_set == 1
