"""What every source of clips is: clips by number, each with a name and perhaps a label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge4d.errors import Edge4dError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ClipSpec", "ClipUnreadable", "Part", "Source", "View"]


class ClipUnreadable(Edge4dError):
    """One clip cannot be read; the others may be. The message is the reason alone."""


@dataclass(frozen=True)
class ClipSpec:
    """What the network takes, and how a video becomes that.

    Attributes:
        shape: one clip, (C, T, H, W).
        step: video frames from one frame of the clip to the next.
        short_side: pixels of a video's shorter side before it is cropped; None for 8/7 of the clip's larger one.
        mean, std: of each channel, for pixels in 0..1: a value v becomes (v - mean) / std.
        flip: whether training may mirror a video left to right.
    """

    shape: tuple[int, int, int, int]
    step: int = 2
    short_side: int | None = None
    mean: tuple[float, ...] = (0.45,)
    std: tuple[float, ...] = (0.225,)
    flip: bool = True

    @property
    def resized(self) -> int:
        """The shorter side in pixels; never less than the clip needs."""
        larger = max(self.shape[2:])
        return max(larger, self.short_side if self.short_side is not None else round(larger * 8 / 7))


@dataclass(frozen=True)
class View:
    """Which part of a video is looked at.

    Attributes:
        seed: draws time, crop, size and mirroring as training does; None for the fixed places below.
        clip, clips: the clip-th of `clips` evenly spread in time.
        crop, crops: the crop-th of `crops` evenly spread along the longer side.
    """

    seed: tuple[int, ...] | None = None
    clip: int = 0
    clips: int = 1
    crop: int = 0
    crops: int = 1


class Source(ABC):
    """Clips by number.

    Attributes:
        classes: names in the order of the labels; None where clips have no labels.
        skipped: (name, reason) of what was listed and is left out.
        fixed: clips are arrays as they are, of which there is one view only.
    """

    classes: tuple[str, ...] | None = None
    skipped: Sequence[tuple[str, str]] = ()
    fixed: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """For messages: a file, or an array's row."""

    @abstractmethod
    def label(self, index: int) -> int | None:
        """The clip's class; None without labels."""

    @abstractmethod
    def read(self, index: int, view: View) -> Tensor:
        """One clip (C, T, H, W), float32, normalised.

        Raises:
            ClipUnreadable: this one cannot be read.
        """


class Part(Source):
    """Some clips of a source.

    Args:
        source: all of them.
        indices: which.
    """

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source, self.indices = source, tuple(indices)
        self.classes, self.skipped, self.fixed = source.classes, source.skipped, source.fixed

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def label(self, index: int) -> int | None:
        return self.source.label(self.indices[index])

    def read(self, index: int, view: View) -> Tensor:
        return self.source.read(self.indices[index], view)
