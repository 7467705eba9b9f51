"""The clips of a set: generated digits, or whatever `edge4d.data` reads."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.accuracy import digits
from edge4d.data import ClipSpec, Source, View, open_source
from edge4d.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from benchmarks.accuracy.config import Network, SetSpec

__all__ = ["DigitClips", "normalised", "open_set"]

PREFIX = "digits:"
MEAN, STD = 0.1, 0.25
"""Of the generated pixels, in 0..1, roughly."""

_TRAIN_SEED, _TEST_SEED = 1, 2


class DigitClips(Source):
    """Generated clips, grey in three channels; in training rolled by whole pixels, as others are cropped.

    Args:
        clips: (N, T, H, W), uint8.
        labels: (N,).
        classes: their names.
    """

    fixed = True

    def __init__(self, clips: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]) -> None:
        self.clips, self.labels, self.classes = clips, labels, classes

    def __len__(self) -> int:
        return len(self.clips)

    def name(self, index: int) -> str:
        return f"clip {index}"

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def read(self, index: int, view: View) -> Tensor:
        clip = self.clips[index]
        if view.seed is not None:
            clip = np.roll(clip, np.random.default_rng(view.seed).integers(digits.SIZE, size=2), (1, 2))
        return normalised(clip).expand(3, *clip.shape)


def normalised(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels as the networks see them."""
    return (torch.from_numpy(pixels).float() / 255 - MEAN) / STD


def open_set(spec: SetSpec, network: Network, *, test: bool) -> Source:
    """The training or the test clips of a set.

    Raises:
        UsageError: an unknown generated set, clips without labels, or whatever `open_source` raises.
    """
    place, split = (spec.test, spec.test_split) if test else (spec.train, spec.train_split)
    if place.startswith(PREFIX):
        if (network.frames, network.size) != (digits.FRAMES, digits.SIZE):
            raise UsageError(
                f"{place} has {digits.FRAMES} frames of {digits.SIZE} pixels, the network takes {network.frames} of "
                f"{network.size}"
            )
        return _generated(place[len(PREFIX) :], spec.test_clips if test else spec.train_clips, test)
    shape = (3, network.frames, network.size, network.size)
    source = open_source(place, ClipSpec(shape=shape, **spec.video), Path(split) if split else None)
    if source.classes is None:
        raise UsageError(f"{place}: these clips have no labels", hint="each subfolder is a class")
    return source


@lru_cache(maxsize=4)
def _generated(name: str, count: int, test: bool) -> DigitClips:
    if name not in digits.SETS:
        raise UsageError(f"no generated set is named {name!r}", hint=f"one of: {', '.join(digits.SETS)}")
    kind = digits.SETS[name]
    clips, labels = digits.draw(kind, count, _TEST_SEED if test else _TRAIN_SEED, test=test)
    return DigitClips(clips, labels, kind.classes)
