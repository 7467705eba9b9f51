"""Clips from arrays, videos and frames: the same numbers wherever they come from, and plain words for what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from edge4d.clips import Pixels, load_clips, load_inputs
from edge4d.errors import RuntimeUnavailable, UsageError

SHAPE = (1, 3, 4, 8, 12)


def grey(level):
    return np.full((16, 24, 3), level, np.uint8)


def write_video(path, levels):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "yuv420p"
        for level in levels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(level), format="rgb24")))
        container.mux(stream.encode())


def write_frames(folder, levels):
    image = pytest.importorskip("PIL.Image")
    folder.mkdir(exist_ok=True)
    for i, level in enumerate(levels):
        image.fromarray(grey(level)).save(folder / f"frame{i}.png")


def levels_of(clip):
    """The grey level of each frame of a clip (C, T, H, W) of plain frames."""
    return (clip.mean((0, 2, 3)) * 255).round().astype(int).tolist()


def test_arrays_in_every_form(tmp_path):
    clips = np.random.default_rng(0).standard_normal((5, *SHAPE[1:])).astype(np.float32)
    np.savez(tmp_path / "clips.npz", clips=clips)
    np.save(tmp_path / "clips.npy", clips)
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "a.npy", clips[:4])
    np.save(tmp_path / "folder" / "b.npy", clips[4])
    for source in (clips, tmp_path / "clips.npz", str(tmp_path / "clips.npy"), tmp_path / "folder"):
        assert (load_clips(source, SHAPE).clips == clips).all()


def test_a_video_is_a_clip_of_frames_spread_over_all_of_it(tmp_path):
    write_video(tmp_path / "long.mp4", range(0, 240, 12))  # 20 frames
    write_video(tmp_path / "short.mp4", [50, 100])
    found = load_clips(tmp_path, SHAPE)
    assert found.clips.shape == (2, *SHAPE[1:])
    assert found.clips.dtype == np.float32
    first, *_, last = levels = levels_of(found.clips[0])
    assert levels == sorted(levels)
    assert first < 20
    assert last > 180
    assert np.ptp(np.diff(levels)) < 40  # evenly
    assert np.allclose(levels_of(found.clips[1]), [50, 100, 100, 100], atol=4)  # the last frame stands still
    assert found.notes == []


def test_frames_are_taken_in_the_order_that_people_count(tmp_path):
    write_frames(tmp_path / "beside", range(0, 220, 20))  # 11 frames: two clips of 4, three left over
    write_frames(tmp_path / "nested", [])
    write_frames(tmp_path / "nested" / "one", [10, 20, 30, 40])
    write_frames(tmp_path / "nested" / "two", [90, 80])
    assert [levels_of(clip) for clip in load_clips(tmp_path / "beside", SHAPE).clips] == [
        [0, 20, 40, 60],
        [80, 100, 120, 140],
    ]
    assert [levels_of(clip) for clip in load_clips(tmp_path / "nested", SHAPE).clips] == [
        [10, 20, 30, 40],
        [90, 80, 80, 80],
    ]


def test_pixels_are_scaled_as_training_did_and_cut_to_size(tmp_path):
    write_frames(tmp_path / "f", [51] * 4)
    plain = load_clips(tmp_path / "f", (1, 1, 4, 8, 8)).clips
    np.testing.assert_allclose(plain, 0.2, rtol=1e-6)
    assert plain.shape == (1, 1, 4, 8, 8)
    scaled = load_clips(tmp_path / "f", SHAPE, Pixels((0.2, 0.1, 0.0), (0.5,))).clips
    np.testing.assert_allclose(scaled.mean((0, 2, 3, 4)), [0, 0.2, 0.4], atol=1e-6)
    with pytest.raises(UsageError, match="2 numbers for the mean of 3 channels"):
        load_clips(tmp_path / "f", SHAPE, Pixels((0.2, 0.1)))
    with pytest.raises(UsageError, match="a deviation of 0"):
        Pixels(std=(0.5, 0))


def test_what_is_corrupt_is_skipped_by_name_and_counted(tmp_path):
    write_video(tmp_path / "good.mp4", [10] * 4)
    whole = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:100])
    (tmp_path / "empty.avi").write_bytes(b"")
    (tmp_path / "text.mkv").write_text("not a video")
    write_frames(tmp_path / "frames", [1, 2, 3, 4])
    (tmp_path / "frames" / "frame2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = load_clips(tmp_path, SHAPE)
    assert len(found.clips) == 1
    (note,) = found.notes
    assert note.startswith("4 calibration files were skipped: ")
    for name in ("cut.mp4", "empty.avi", "text.mkv", "frame2.png"):
        assert name in note
    (tmp_path / "good.mp4").unlink()
    with pytest.raises(UsageError, match=r"none of 4 clips could be read: cut\.mp4"):
        load_clips(tmp_path, SHAPE)


def test_enough_is_enough(tmp_path, monkeypatch):
    import edge4d.clips

    monkeypatch.setattr(edge4d.clips, "MOST", 1)
    write_frames(tmp_path / "f", range(8))
    assert load_clips(tmp_path / "f", SHAPE).notes == ["1 calibration clips are enough: 1 further ones were not read"]


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(RuntimeUnavailable, match=r"PyAV is needed[\s\S]*edge4d\[clips\]"):
        load_clips(tmp_path, SHAPE)


@pytest.mark.parametrize(
    ("make", "shape", "said"),
    [
        (lambda f: f / "nothing", SHAPE, "no such file or folder"),
        (lambda f: f, SHAPE, r"no \.npy file, no video and no picture, but: nothing"),
        (lambda f: f, None, "clips of unknown size"),
        (lambda f: f, (1, 5, 4, 8, 8), "pictures cannot be made into inputs of 1x5x4x8x8"),
        (lambda _: np.zeros((2, 3)), SHAPE, r"expected clips \(N, C, T, H, W\), got shape \(2, 3\)"),
        (lambda _: np.zeros((0, *SHAPE[1:])), SHAPE, "expected clips"),
        (lambda _: np.zeros((2, 3, 4, 8, 8)), SHAPE, "clips of 3x4x8x8, but the network takes 3x4x8x12"),
        (lambda _: np.full((2, *SHAPE[1:]), np.nan), SHAPE, "2 of 2 clips hold values that are NaN"),
        (lambda _: np.full((2, *SHAPE[1:]), "x"), SHAPE, "expected an array of numbers, got <U1"),
    ],
)
def test_what_is_no_clip(tmp_path, make, shape, said):
    with pytest.raises(UsageError, match=said):
        load_clips(make(tmp_path), shape)


def test_a_broken_archive(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY")
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    for name, said in (("a.npz", "not an .npz"), ("b.npy", "cannot be read"), ("two.npz", "expected one array")):
        with pytest.raises(UsageError, match=said):
            load_clips(tmp_path / name, SHAPE)
    with pytest.raises(UsageError, match=r"--inputs .*two\.npz: holds a, b; the model's inputs are x\n"):
        load_inputs(tmp_path / "two.npz", ["x"], "--inputs")
