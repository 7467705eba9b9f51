"""In how many parts Winograd's tiles are worked off, in the graph or in an engine made of it (without torch)."""

from __future__ import annotations

__all__ = ["parts_of"]

PART = 10 * 2**20
"""Bytes of combined frames below which nothing is taken apart further."""

MOST_PARTS = 4
"""However long the clip is, so that the number of convolutions stays bounded."""


def parts_of(held: int, tiles: int) -> int:
    """Parts of tiles, so that the combined frames of one make way for those of the next; `held`: bytes of all."""
    parts = 1
    while 2 * parts <= min(tiles, MOST_PARTS) and held > parts * PART:
        parts *= 2
    return parts
