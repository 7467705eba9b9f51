"""A graph's inputs and outputs as a user sees them and as the device sees them (no torch, no ONNX)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["OPEN", "Port", "shape_text"]

OPEN = -1
"""Stands in a shape for a size that the graph leaves open."""


@dataclass(frozen=True)
class Port:
    """One graph input or output.

    Attributes:
        name: the graph's name for it.
        shape: logical shape, e.g. ``(1, 3, 16, 112, 112)`` for N C T H W; `OPEN` for a size that may be any.
        physical: the shape the graph itself carries, at most four axes, e.g. ``(16, 3, 112, 112)``.
        dtype: numpy's name of the element type, e.g. ``float32``.
        packing: einops pattern logical → physical, e.g. ``n c t h w -> (n t) c h w``;
            None when the logical rank is at most 4 and nothing is packed.
    """

    name: str
    shape: tuple[int, ...]
    physical: tuple[int, ...]
    dtype: str
    packing: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping of the attributes."""
        return asdict(self) | {"shape": list(self.shape), "physical": list(self.physical)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Port:
        """The inverse of `to_dict`."""
        return cls(data["name"], tuple(data["shape"]), tuple(data["physical"]), data["dtype"], data.get("packing"))


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as people read it: ``Nx3x16x112x112``."""
    return "x".join("N" if size == OPEN else str(size) for size in shape)
