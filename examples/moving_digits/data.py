"""Clips of handwritten digits moving across a canvas: deterministic, and nothing to download.

The digits are scikit-learn's bundled 8x8 scans. The class of a clip is the *direction* of motion, one of eight, so
no single frame tells it: the canvas wraps around and the start is uniform, hence position carries no hint either.
A network has to look along time. Train and test clips come from disjoint sets of scans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CLASSES = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")
FRAMES, HEIGHT, WIDTH = 16, 32, 32
TEST_IMAGES = 500

SPEED = (0.4, 1.4)  # pixels per frame
BRIGHTNESS = (0.4, 1.0)
NOISE = (0.05, 0.6)  # standard deviation, on a scale where white is 1

_SPLIT_SEED = 1797
_TEST_SEED = 20_000


def load_images() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scikit-learn's digits, split once and for all.

    Returns:
        (train, test): images of shape (N, 8, 8), float32 in 0..1; no scan is in both.
    """
    from sklearn.datasets import load_digits

    images = (load_digits().images / 16.0).astype(np.float32)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
    return images[order[TEST_IMAGES:]], images[order[:TEST_IMAGES]]


def make_clips(images: NDArray[np.float32], count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw `count` clips; the same arguments always give the same clips.

    Args:
        images: digits to choose from, (N, 8, 8), float32 in 0..1.
        count: how many clips. Directions are balanced as far as `count` allows.
        seed: seeds every random choice: digit, direction, start, speed, brightness and noise.

    Returns:
        clips (N, C, T, H, W) = (count, 1, 16, 32, 32), float32 in 0..1, and labels (count,), indices into `CLASSES`.

    Raises:
        ValueError: if `images` is not (N, 8, 8) with N > 0, or `count` is below 1.
    """
    if images.ndim != 3 or images.shape[1:] != (8, 8) or len(images) == 0:
        raise ValueError(f"images should be (N, 8, 8) with N > 0, got {images.shape}")
    if count < 1:
        raise ValueError(f"count should be at least 1, got {count}")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(CLASSES))
    digits = images[rng.integers(len(images), size=count)]
    angle = labels * (2 * np.pi / len(CLASSES))
    velocity = rng.uniform(*SPEED, count)[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)  # (N, [y, x])
    start = rng.uniform(0, (HEIGHT, WIDTH), (count, 2))
    position = start[:, None] + velocity[:, None] * np.arange(FRAMES)[:, None]  # (N, T, [y, x])

    clips = _render(digits, position)
    clips *= rng.uniform(*BRIGHTNESS, (count, 1, 1, 1)).astype(np.float32)
    deviation = rng.uniform(*NOISE, (count, 1, 1, 1)).astype(np.float32)
    clips += deviation * rng.standard_normal(clips.shape, dtype=np.float32)
    return np.clip(clips, 0.0, 1.0)[:, None], labels.astype(np.int64)


def make_test_set(count: int = 800) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The held-out clips: made from the test scans only, and always the same ones."""
    return make_clips(load_images()[1], count, _TEST_SEED)


def training_batches(
    images: NDArray[np.float32], steps: int, batch: int, seed: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Endless variety from few scans: every step draws fresh clips."""
    for step in range(steps):
        yield make_clips(images, batch, seed=seed * 1_000_003 + step)


def _render(digits: NDArray[np.float32], position: NDArray[np.float64]) -> NDArray[np.float32]:
    """Paint digits (N, 8, 8) at sub-pixel positions (N, T, [y, x]), wrapping at the edges: (N, T, H, W)."""
    count, frames = position.shape[:2]
    corner = np.floor(position).astype(np.int64)
    fraction = (position - corner).astype(np.float32)
    # Bilinear placement is separable: a 9x8 matrix shifts eight pixels by a fraction of one.
    keep, carry = np.eye(9, 8, dtype=np.float32), np.eye(9, 8, k=-1, dtype=np.float32)
    shift = (1 - fraction)[..., None, None] * keep + fraction[..., None, None] * carry  # (N, T, [y, x], 9, 8)
    patch = shift[:, :, 0] @ digits[:, None] @ shift[:, :, 1].swapaxes(-1, -2)  # (N, T, 9, 9)

    rows = (corner[..., 0, None] + np.arange(9)) % HEIGHT
    columns = (corner[..., 1, None] + np.arange(9)) % WIDTH
    clips = np.zeros((count, frames, HEIGHT, WIDTH), np.float32)
    n, t = np.ogrid[:count, :frames]
    clips[n[..., None, None], t[..., None, None], rows[..., :, None], columns[..., None, :]] = patch
    return clips
