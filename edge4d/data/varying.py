"""Clips seen in other ways, for a teacher to name: mirrored, reversed in time, turned, shifted.

A network that learns from another one needs no labels, so a clip may be changed into one of another class, as long as
both networks see the very same one ("function matching", Beyer et al., 2022). That makes many clips of few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from edge4d.errors import UsageError

__all__ = ["KINDS", "Variation", "Vary"]

KINDS = ("mirror", "flip", "turn", "reverse", "shift")
"""Left to right, upside down, H and W exchanged (of square clips), last frame first, moved by up to a quarter."""

_FARTHEST = 4  # a shift is at most a fourth of H and of W


@dataclass(frozen=True)
class Variation:
    """One way to see a clip (C, T, H, W).

    Attributes:
        mirror, flip, turn, reverse: whether, see `KINDS`.
        shift: pixels (down, right); what comes in at an edge is the picture's reflection there.
    """

    mirror: bool = False
    flip: bool = False
    turn: bool = False
    reverse: bool = False
    shift: tuple[int, int] = (0, 0)

    @property
    def keeps_label(self) -> bool:
        """Whether a clip is of its class all the same: it was moved at most."""
        return not (self.mirror or self.flip or self.turn or self.reverse)

    def of(self, clip: Tensor) -> Tensor:
        """The clip (C, T, H, W) in this view; the same shape."""
        axes = [axis for axis, chosen in ((1, self.reverse), (2, self.flip), (3, self.mirror)) if chosen]
        seen = clip.flip(axes) if axes else clip
        if self.turn:
            seen = seen.transpose(2, 3)
        if any(self.shift):
            (down, right), (height, width) = self.shift, seen.shape[2:]
            wide = F.pad(seen, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="reflect")
            top, left = max(-down, 0), max(-right, 0)
            seen = wide[:, :, top : top + height, left : left + width]
        return seen.contiguous()


_STREAM = 1  # numbers drawn for variations are not those drawn for crops


@dataclass(frozen=True)
class Vary:
    """Which variations may be drawn.

    Attributes:
        kinds: some of `KINDS`; none leaves every clip as it is.
        labelled: the chance that a clip is shifted at most, so that its label holds; others may keep theirs by chance.
    """

    kinds: tuple[str, ...] = ()
    labelled: float = 0.0

    def __post_init__(self) -> None:
        """Raises `UsageError` for a word that is none of `KINDS`."""
        for kind in self.kinds:
            if kind not in KINDS:
                raise UsageError(f"unknown variation {kind!r}", hint=f"some of: {', '.join(KINDS)}; or none")

    def draw(self, seed: Sequence[int], shape: Sequence[int]) -> Variation:
        """The variation that a seed means.

        Args:
            seed: numbers; of the run, the epoch and the clip.
            shape: of the clip, (C, T, H, W).
        """
        rng = np.random.default_rng((*seed, _STREAM))
        chance = rng.random(1 + len(KINDS))  # always as many, so that one kind more leaves the others as they were
        likely = 0.0 if chance[0] < self.labelled else 0.5
        coin = {
            kind: kind in self.kinds and bool(value < likely) for kind, value in zip(KINDS, chance[1:], strict=True)
        }
        far = [size // _FARTHEST if "shift" in self.kinds else 0 for size in shape[2:]]
        down, right = (int(rng.integers(-most, most + 1)) for most in far)
        turn = coin["turn"] and shape[2] == shape[3]
        return Variation(coin["mirror"], coin["flip"], turn, coin["reverse"], (down, right))
