"""Videos as clips: the right frames, sizes and crops, whatever the codec; what cannot be read says so."""

from __future__ import annotations

import av
import numpy as np
import pytest

from edge4d.data.source import ClipSpec, ClipUnreadable, View
from edge4d.data.videos import VideoClips, VideoFile
from edge4d.errors import UsageError
from tests.data.videos import CODECS, numbers, write_video

PLAIN = {"mean": (0.0,), "std": (1.0,)}
SPEC = ClipSpec(shape=(3, 8, 32, 32), step=2, short_side=36, **PLAIN)


def clips_of(path, spec=SPEC):
    return VideoClips([VideoFile(path, path.name)], spec, None)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("v") / "a.mp4")


@pytest.mark.parametrize("codec", [name for name in CODECS if name in av.codecs_available])
def test_every_codec_gives_the_middle_frames(codec, tmp_path):
    path = write_video(tmp_path / f"a{CODECS[codec]}", codec=codec)
    clip = clips_of(path).read(0, View()).numpy()
    assert clip.shape == SPEC.shape
    # 40 frames, the clip spans 15 of them: it starts at 25 // 2
    np.testing.assert_allclose(numbers(clip), np.arange(12, 28, 2), atol=0.6)


def test_the_codecs_that_matter_are_here():
    assert {"mpeg4", "mjpeg", "ffv1"} <= set(av.codecs_available)


@pytest.mark.parametrize(("index", "first"), [(0, 0), (1, 12), (2, 25)])
def test_clips_are_spread_in_time(video, index, first):
    clip = clips_of(video).read(0, View(clip=index, clips=3)).numpy()
    np.testing.assert_allclose(numbers(clip), np.arange(first, first + 16, 2), atol=0.6)


def test_crops_run_along_the_longer_side(video):
    left, middle, right = (clips_of(video).read(0, View(crop=i, crops=3)).numpy() for i in range(3))
    bright = [float((crop[0, 0] > crop[0, 0].min() + 0.08).mean()) for crop in (left, middle, right)]
    assert bright[0] > bright[1] > bright[2]


def test_a_training_view_is_drawn_from_its_seed(video):
    clips = clips_of(video)
    first = [clips.read(0, View(seed=(0, 0, i))) for i in range(6)]
    assert (first[0] == clips.read(0, View(seed=(0, 0, 0)))).all()
    starts = {round(float(numbers(clip.numpy())[0])) for clip in first}
    assert len(starts) > 2, "training clips start at different frames"
    mirrored = {bool(clip[0, 0, :, 0].mean() < clip[0, 0, :, -1].mean()) for clip in first}
    assert mirrored == {True, False}


def test_mirroring_can_be_left_out(video):
    spec = ClipSpec(shape=SPEC.shape, step=2, short_side=36, flip=False, **PLAIN)
    clips = [clips_of(video, spec).read(0, View(seed=(0, 0, i))) for i in range(6)]
    assert all(clip[0, 0, :, 0].mean() >= clip[0, 0, :, -1].mean() for clip in clips)


@pytest.mark.parametrize(("width", "height"), [(33, 65), (98, 50), (24, 18)])
def test_odd_sizes_are_cut_to_the_network(width, height, tmp_path):
    path = write_video(tmp_path / "a.mkv", width=width, height=height, codec="ffv1")
    assert clips_of(path).read(0, View()).shape == SPEC.shape
    assert clips_of(path).read(0, View(seed=(1,))).shape == SPEC.shape


def test_a_short_video_repeats_its_last_frame(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=5)
    np.testing.assert_allclose(numbers(clips_of(path).read(0, View()).numpy()), [0, 2, 4, 4, 4, 4, 4, 4], atol=0.6)


def test_grey_and_normalisation(video):
    spec = ClipSpec(shape=(1, 4, 32, 32), mean=(0.5,), std=(0.25,))
    grey = clips_of(video, spec).read(0, View())
    plain = clips_of(video, ClipSpec(shape=(1, 4, 32, 32), **PLAIN)).read(0, View())
    assert grey.shape == (1, 4, 32, 32)
    np.testing.assert_allclose(grey.numpy(), (plain.numpy() - 0.5) / 0.25, atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 50, b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 90])
def test_what_is_no_video_says_so(content, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(ClipUnreadable, match=r"decoded|no video|no frame"):
        clips_of(path).read(0, View())


def test_a_truncated_video_gives_the_frames_it_has(tmp_path):
    path = write_video(tmp_path / "a.mkv", codec="ffv1")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = numbers(clips_of(path).read(0, View()).numpy())
    assert (np.diff(found) >= -0.5).all()
    assert found[-1] < 26, "the rest of the file is not there"


def test_networks_of_other_channels_are_refused(video):
    with pytest.raises(UsageError, match="takes 2 channels; videos give 3"):
        clips_of(video, ClipSpec(shape=(2, 4, 32, 32)))


def test_a_mean_for_other_channels_is_refused(video):
    with pytest.raises(UsageError, match="mean has 2 values, the clips have 3 channels"):
        clips_of(video, ClipSpec(shape=(3, 4, 32, 32), mean=(0.1, 0.2)))
