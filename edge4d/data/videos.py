"""Videos as clips: decoded by PyAV, sampled in time, resized, cropped, mirrored and normalised.

As the field does it: training takes a random stretch of the video, a random size and crop; measuring takes evenly
spread stretches and crops of one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edge4d.data.source import ClipSpec, ClipUnreadable, Source, View
from edge4d.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["VideoClips", "VideoFile"]

_JITTER = 1.25
"""Training draws the shorter side from its set size up to this many times it."""


@dataclass(frozen=True)
class VideoFile:
    """One video of a list.

    Attributes:
        path: where it lies.
        name: as the list or the folder has it.
        label: index of its class; None without labels.
    """

    path: Path
    name: str
    label: int | None = None


class VideoClips(Source):
    """Videos, one clip each at a time.

    Args:
        files: the videos.
        spec: what the network takes.
        classes: names in the order of the labels.
        skipped: what was listed and is not there.

    Raises:
        UsageError: PyAV is not installed, or the clip has neither one channel nor three.
    """

    def __init__(
        self,
        files: Sequence[VideoFile],
        spec: ClipSpec,
        classes: tuple[str, ...] | None,
        skipped: Sequence[tuple[str, str]] = (),
    ) -> None:
        import importlib.util

        if importlib.util.find_spec("av") is None:
            raise UsageError("videos are read with PyAV, which is not installed", hint='pip install "edge4d[clips]"')
        if spec.shape[0] not in (1, 3):
            raise UsageError(
                f"the network takes {spec.shape[0]} channels; videos give 3 (colour) or 1 (grey)",
                hint="give arrays (.npz) or a Dataset of your own (package.module:name)",
            )
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            if len(values) not in (1, spec.shape[0]):
                raise UsageError(f"{name} has {len(values)} values, the clips have {spec.shape[0]} channels")
        self.files, self.spec, self.classes, self.skipped = tuple(files), spec, classes, skipped

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index].name

    def label(self, index: int) -> int | None:
        return self.files[index].label

    def read(self, index: int, view: View) -> Tensor:
        channels, frames, height, width = self.spec.shape
        rng = np.random.default_rng(view.seed) if view.seed is not None else None
        jitter = 1.0 if rng is None else rng.uniform(1.0, _JITTER)
        pixels = _decode(self.files[index].path, self.spec, view, rng, round(self.spec.resized * jitter))
        tall, wide = pixels.shape[1:3]
        if rng is not None:
            top, left = int(rng.integers(tall - height + 1)), int(rng.integers(wide - width + 1))
            mirrored = self.spec.flip and bool(rng.integers(2))
        else:
            where = 0.5 if view.crops == 1 else view.crop / (view.crops - 1)
            top = round((tall - height) * (where if tall > wide else 0.5))
            left = round((wide - width) * (where if tall <= wide else 0.5))
            mirrored = False
        pixels = pixels[:, top : top + height, left : left + width]
        if mirrored:
            pixels = pixels[:, :, ::-1]
        clip = torch.from_numpy(np.ascontiguousarray(pixels)).permute(3, 0, 1, 2).float() / 255
        assert clip.shape == (channels, frames, height, width)
        mean, std = (torch.tensor(v, dtype=torch.float32).reshape(-1, 1, 1, 1) for v in (self.spec.mean, self.spec.std))
        return (clip - mean) / std


def _decode(path: Path, spec: ClipSpec, view: View, rng: np.random.Generator | None, short_side: int) -> np.ndarray:
    """Frames (T, H', W', C), uint8, with the given shorter side."""
    import av

    channels, frames = spec.shape[:2]
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ClipUnreadable("has no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # workers are the parallel ones
            total = _length(container, stream)
            wanted = _picked(total, frames, spec.step, view, rng)
            found = _frames_at(container, stream, wanted)
            layout = "gray" if channels == 1 else "rgb24"
            images = [_resized(frame, short_side, layout) for frame in found]
    except ClipUnreadable:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ClipUnreadable(f"cannot be decoded: {str(error).strip() or type(error).__name__}") from error
    if len({image.shape for image in images}) > 1:
        raise ClipUnreadable("changes its size while it plays")
    return np.stack(images)


def _length(container: Any, stream: Any) -> int:
    """Frames of a video: what its header says, else its duration times its rate, else counted; at least 1."""
    if stream.frames > 0:
        return int(stream.frames)
    seconds = None
    if stream.duration is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / 1e6
    if seconds is not None and stream.average_rate:
        return max(1, round(seconds * float(stream.average_rate)))
    count = sum(1 for _ in container.decode(stream))
    container.seek(0)
    if not count:
        raise ClipUnreadable("holds no frame")
    return count


def _picked(total: int, frames: int, step: int, view: View, rng: np.random.Generator | None) -> list[int]:
    """Frame numbers of a clip; a video that is too short repeats its last frame."""
    free = max(0, total - ((frames - 1) * step + 1))
    if rng is not None:
        start = int(rng.integers(free + 1))
    else:
        start = free // 2 if view.clips == 1 else round(free * view.clip / (view.clips - 1))
    return [min(start + i * step, total - 1) for i in range(frames)]


def _frames_at(container: Any, stream: Any, wanted: Sequence[int]) -> list[Any]:
    """The frames of these rising numbers. Numbers come from time stamps, so that seeking needs no index."""
    rate, base = stream.average_rate or stream.base_rate, stream.time_base
    first = stream.start_time or 0
    if wanted[0] > 0 and rate and base:
        # A seek lands on the key frame before; without one the video is read from its start.
        container.seek(first + int(wanted[0] / rate / base), stream=stream, backward=True, any_frame=False)
    found: list[Any] = []
    last = None
    for counted, frame in enumerate(container.decode(stream)):
        number = counted if frame.pts is None or not rate else round(float((frame.pts - first) * base) * float(rate))
        while len(found) < len(wanted) and number > wanted[len(found)]:
            found.append(last if last is not None else frame)  # frames may be missing: the one before stands for them
        while len(found) < len(wanted) and number == wanted[len(found)]:
            found.append(frame)
        last = frame
        if len(found) == len(wanted):
            return found
    if last is None:
        raise ClipUnreadable("no frame could be decoded")
    return found + [last] * (len(wanted) - len(found))  # the header promised more frames than there are


def _resized(frame: Any, short_side: int, layout: str) -> np.ndarray:
    scale = short_side / min(frame.width, frame.height)
    width, height = (max(short_side, round(size * scale)) for size in (frame.width, frame.height))
    image: np.ndarray = frame.reformat(width=width, height=height, format=layout, interpolation="BILINEAR").to_ndarray()
    return image[..., None] if layout == "gray" else image
