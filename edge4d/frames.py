"""Clips of one size from pictures and videos: each frame scaled to fill the network's frame, and cut around its middle.

PyAV reads videos, Pillow pictures; both are imported when they are needed. What cannot be read is skipped and named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import RuntimeUnavailable, UsageError

if TYPE_CHECKING:
    import numpy as np

    from edge4d.clips import Pixels

__all__ = ["PICTURES", "VIDEOS", "clips_of"]

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
VIDEOS = frozenset(
    {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".gif", ".wmv", ".flv", ".ts", ".3gp"}
)

_Source = tuple[str, Callable[[], Iterator[Any]]]
"""What a clip is called, and its frames as Pillow images."""


def clips_of(
    folder: Path, name: str, shape: Sequence[int] | None, pixels: Pixels, most: int
) -> tuple[np.ndarray, tuple[str, ...], int]:
    """Make clips of the videos and frames in a folder, and in the folders in it.

    Args:
        folder: videos give one clip each, T frames spread over the whole; frames beside each other give a clip for
            every T of them in the order of their names, or the first T of what is shorter, the last one repeated.
        name: of the folder, for messages.
        shape: (N, C, T, H, W) of what the network takes.
        pixels: how values from 0 to 1 are scaled.
        most: clips that are enough.

    Returns:
        Clips (clips, C, T, H, W) in float32; the files that were skipped, each with the reason; how many were left out.

    Raises:
        UsageError: no picture and no video there, none that can be read, or a network that takes no pictures.
        RuntimeUnavailable: PyAV or Pillow is not installed.
    """
    import numpy as np

    if shape is None or len(shape) != 5 or shape[1] not in (1, 3):
        got = "clips of unknown size" if shape is None else f"inputs of {'x'.join(map(str, shape))}"
        raise UsageError(
            f"{name}: no .npy file there, and pictures cannot be made into {got}",
            hint="clips as arrays (N C T H W); pictures are for networks that take clips of 1 or 3 channels",
        )
    _, channels, length, height, width = shape
    sources = list(_sources(folder, length))
    if not sources:
        there = sorted({entry.suffix.lower() or entry.name for entry in folder.iterdir()})[:8]
        raise UsageError(
            f"{name}: the folder holds no .npy file, no video and no picture, but: {', '.join(there) or 'nothing'}",
            hint=f"videos: {' '.join(sorted(VIDEOS))}; pictures: {' '.join(sorted(PICTURES))}",
        )
    clips: list[np.ndarray] = []
    skipped: list[str] = []
    tried = 0
    for label, frames in sources:
        if len(clips) == most:
            break
        tried += 1
        try:
            kept = _spread(frames(), length, partial(_fitted, channels=channels, height=height, width=width))
        except _unreadable() as error:
            reason = str(error).strip().splitlines()
            skipped.append(f"{label}: {reason[0][:200] if reason else type(error).__name__}")
            continue
        clips.append(pixels.normalise(np.stack(kept, 1)))
    if not clips:
        raise UsageError(
            f"{name}: none of {len(sources)} clips could be read: {'; '.join(skipped[:3])}",
            hint="play one of them; is it whole, and what its name says?",
        )
    return np.stack(clips).astype(np.float32, copy=False), tuple(skipped), len(sources) - tried


def _sources(folder: Path, length: int) -> Iterator[_Source]:
    """Clips of a folder and of those in it, in the order of their names."""
    for place in (folder, *sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=_natural)):
        files = sorted((entry for entry in place.iterdir() if entry.is_file()), key=_natural)
        for file in files:
            if file.suffix.lower() in VIDEOS:
                yield str(file.relative_to(folder)), lambda file=file: _video(file)  # type: ignore[misc]
        pictures = [file for file in files if file.suffix.lower() in PICTURES]
        whole = len(pictures) // length * length or len(pictures)
        for start in range(0, whole, length):
            part = pictures[start : start + length]
            yield str(part[0].relative_to(folder)), lambda part=part: _pictures(part)  # type: ignore[misc]


def _natural(path: Path) -> list[Any]:
    """``frame9`` before ``frame10``."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"([0-9]+)", path.name)]


def _video(file: Path) -> Iterator[Any]:
    av: Any = _needed("av", "PyAV")
    image: Any = _needed("PIL.Image", "Pillow")
    with av.open(str(file)) as container:
        if not container.streams.video:
            raise ValueError("it holds no video")
        for frame in container.decode(container.streams.video[0]):
            yield image.fromarray(frame.to_ndarray(format="rgb24"))


def _pictures(files: Iterable[Path]) -> Iterator[Any]:
    image: Any = _needed("PIL.Image", "Pillow")
    for file in files:
        try:
            with image.open(file) as picture:
                yield picture.convert("RGB")
        except _unreadable() as error:
            raise ValueError(f"{file.name}: {error}") from error


def _spread(frames: Iterator[Any], length: int, make: Callable[[Any], np.ndarray]) -> list[np.ndarray]:
    """`length` frames spread evenly over all that come, of which no more than four times as many are held at once."""
    kept: list[np.ndarray] = []
    step = 1
    for i, frame in enumerate(frames):
        if i % step == 0:
            kept.append(make(frame))
        if len(kept) > 4 * length:
            kept, step = kept[::2], 2 * step
    if not kept:
        raise ValueError("it holds no frame")
    if len(kept) <= length:  # shorter than a clip: its last frame stands still
        return kept + [kept[-1]] * (length - len(kept))
    return [kept[round(i * (len(kept) - 1) / max(length - 1, 1))] for i in range(length)]


def _fitted(frame: Any, channels: int, height: int, width: int) -> np.ndarray:
    """One frame as (C, H, W), values from 0 to 1."""
    import numpy as np

    ops: Any = _needed("PIL.ImageOps", "Pillow")
    picture = ops.fit(frame.convert("L" if channels == 1 else "RGB"), (width, height))
    values: np.ndarray = np.asarray(picture, np.float32).reshape(height, width, channels).transpose(2, 0, 1)
    return values / 255


def _needed(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise RuntimeUnavailable(
            f"{package} is needed to read videos and pictures, and cannot be imported: {error}",
            hint='pip install "edge4d[clips]", or give the clips as an .npz',
        ) from error


def _unreadable() -> tuple[type[BaseException], ...]:
    """What a damaged file makes the libraries raise."""
    bomb: type[BaseException] = _needed("PIL.Image", "Pillow").DecompressionBombError
    kinds = (OSError, ValueError, EOFError, SyntaxError, bomb)
    if util.find_spec("av") is None:
        return kinds
    error: type[BaseException] = _needed("av", "PyAV").FFmpegError
    return (*kinds, error)
