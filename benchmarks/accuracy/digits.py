"""Moving digits that are hard: a class is a digit *and* how it moves, among stray pieces that move too, in noise.

Two sets stand for the paper's two: ``source`` for Kinetics (more clips; digits 0, 1, 2 in eight directions) and
``target`` for UCF-101 (few clips; four other digits, six other motions). Each has 24 classes.

- One frame cannot tell the class: the canvas wraps around and the start is uniform, so at *every* frame the digit is
  anywhere with the same chance, whatever its motion.
- Motion cannot tell it either: every digit of a set moves in each of its motions, by the same draws of speed and start.
- Two stray pieces of other scans move in motions of the same set, so that what moves need not be the digit.

The scans are scikit-learn's; those of training and of test clips are disjoint. The same arguments give the same clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge4d.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FRAMES", "SETS", "SIZE", "DigitSet", "draw", "offsets", "scans", "stills"]

FRAMES, SIZE = 8, 64
"""T, and H = W in pixels."""

SCALE = 3  # pixels of the canvas for one of a scan
SPEED = (2.0, 6.0)  # pixels a frame
BRIGHTNESS = (0.5, 1.0)
NOISE = (0.02, 0.2)  # standard deviation, where white is 1
STRAYS = 2
TEST_SCANS = 500

_SPLIT_SEED = 1797
_CHUNK = 256  # clips drawn at once; part of what a seed means
_DIRECTIONS = {
    name: (np.sin(i * np.pi / 4), np.cos(i * np.pi / 4))
    for i, name in enumerate(("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right"))
}


@dataclass(frozen=True)
class DigitSet:
    """Which digits, in which motions.

    Attributes:
        digits: 0 to 9.
        motions: names that `offsets` knows.
    """

    digits: tuple[int, ...]
    motions: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """``3 right``, …: the label is digit · motions + motion."""
        return tuple(f"{digit} {motion}" for digit in self.digits for motion in self.motions)


SETS = {
    "source": DigitSet((0, 1, 2), tuple(_DIRECTIONS)),
    "target": DigitSet(
        (3, 4, 6, 7), ("clockwise", "counterclockwise", "right", "left", "there-and-back", "down-and-up")
    ),
}


def scans(test: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scikit-learn's digits, split once and for all.

    Returns:
        Scans (N, 8, 8), float32 in 0..1, and their digits (N,).
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(found.images))
    kept = order[:TEST_SCANS] if test else order[TEST_SCANS:]
    return (found.images[kept] / 16.0).astype(np.float32), found.target[kept].astype(np.int64)


def offsets(motion: str, speed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where something is, seen from its start: (N,) pixels a frame → (N, T, [y, x])."""
    t = np.arange(FRAMES, dtype=np.float64)
    if motion in _DIRECTIONS:
        path = t[:, None] * np.asarray(_DIRECTIONS[motion])
    elif motion in ("clockwise", "counterclockwise"):
        angle = t * (2 * np.pi / FRAMES) * (1 if motion == "clockwise" else -1)
        radius = FRAMES / (2 * np.pi)  # once around, at the speed of the straight motions
        path = radius * np.stack([np.sin(angle), np.cos(angle) - 1], 1)
    elif motion in ("there-and-back", "down-and-up"):
        away = np.minimum(t, FRAMES - 1 - t)
        path = away[:, None] * np.asarray((0.0, 1.0) if motion == "there-and-back" else (1.0, 0.0))
    else:
        raise UsageError(f"no motion is named {motion!r}")
    result: NDArray[np.float64] = speed[:, None, None] * path
    return result


def draw(kind: DigitSet, count: int, seed: int, *, test: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw clips.

    Args:
        kind: digits and motions.
        count: how many; classes are balanced as far as it allows.
        seed: of everything drawn.
        test: whether scans are those of the test clips.

    Returns:
        Clips (N, T, H, W), grey, and labels (N,).

    Raises:
        UsageError: `count` is below 1.
    """
    if count < 1:
        raise UsageError(f"{count} clips were asked for, expected at least 1")
    images, digits = scans(test)
    rng = np.random.default_rng((seed, int(test)))
    labels = rng.permutation(np.arange(count) % len(kind.classes))
    clips = np.empty((count, FRAMES, SIZE, SIZE), np.uint8)
    for begin in range(0, count, _CHUNK):
        part = labels[begin : begin + _CHUNK]
        clips[begin : begin + _CHUNK] = _scenes(kind, part, images, digits, rng)
    return clips, labels.astype(np.int64)


def stills(count: int, seed: int, *, test: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Single frames of all ten digits, for the 2D-Net's start: (N, H, W) and the digits (N,)."""
    kind = DigitSet(tuple(range(10)), ("right",))
    clips, labels = draw(kind, count, seed, test=test)
    return clips[:, 0], labels


def _scenes(
    kind: DigitSet,
    labels: NDArray[np.int64],
    images: NDArray[np.float32],
    digits: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Clips of these labels. No draw depends on the motion, so that clips of one seed differ by it alone."""
    n = len(labels)
    which, motion = labels // len(kind.motions), labels % len(kind.motions)
    scores = rng.random((n, len(images)))
    scores[np.asarray(kind.digits)[which][:, None] != digits] = -1  # only scans of the class's digit
    light = rng.uniform(*BRIGHTNESS, (n, 1, 1)).astype(np.float32)
    clips = np.zeros((n, FRAMES, SIZE, SIZE), np.float32)
    _paint(clips, _enlarged(images[scores.argmax(1)]) * light, _path(kind, motion, rng))
    for _ in range(STRAYS):
        piece = images[rng.integers(len(images), size=n)]
        top, left = rng.integers(5, size=(2, n))
        rows, columns = top[:, None] + np.arange(4), left[:, None] + np.arange(4)
        piece = piece[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
        light = rng.uniform(*BRIGHTNESS, (n, 1, 1)).astype(np.float32)
        _paint(clips, _enlarged(piece) * light, _path(kind, rng.integers(len(kind.motions), size=n), rng))
    deviation = rng.uniform(*NOISE, (n, 1, 1, 1)).astype(np.float32)
    clips += deviation * rng.standard_normal(clips.shape, dtype=np.float32)
    return (np.clip(clips, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def _path(kind: DigitSet, motion: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Upper left corners (N, T, [y, x]) in whole pixels; a start uniform on the canvas."""
    speed, start = rng.uniform(*SPEED, len(motion)), rng.uniform(0, SIZE, (len(motion), 1, 2))
    every = np.stack([offsets(name, speed) for name in kind.motions])
    return np.floor(start + every[motion, np.arange(len(motion))]).astype(np.int64)


def _enlarged(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, h, w) → (N, h·SCALE, w·SCALE), smoothly."""
    big = np.pad(images.repeat(SCALE, 1).repeat(SCALE, 2), ((0, 0), (1, 1), (1, 1)))
    rows = (big[:, :-2] + big[:, 1:-1] + big[:, 2:]) / np.float32(3)
    smooth: NDArray[np.float32] = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / np.float32(3)
    return smooth


def _paint(clips: NDArray[np.float32], patches: NDArray[np.float32], corner: NDArray[np.int64]) -> None:
    """Lay patches (N, h, w) over clips (N, T, H, W), the lighter one seen, wrapping at the edges."""
    n, t = np.ogrid[: len(clips), :FRAMES]
    rows = (corner[..., 0, None] + np.arange(patches.shape[1])) % SIZE
    columns = (corner[..., 1, None] + np.arange(patches.shape[2])) % SIZE
    at = n[..., None, None], t[..., None, None], rows[..., :, None], columns[..., None, :]
    clips[at] = np.maximum(clips[at], patches[:, None])
