"""A graph's inputs and outputs as a user sees them and as the device sees them (no torch, no ONNX)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge4d.intake import Intake

__all__ = ["OPEN", "Port", "fits", "ports_text", "shape_text", "sizes_text"]

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
        intake: of an input that the graph takes otherwise than the model does: as uint8 frames, or channels last.
    """

    name: str
    shape: tuple[int, ...]
    physical: tuple[int, ...]
    dtype: str
    packing: str | None = None
    intake: Intake | None = None

    @property
    def own_shape(self) -> tuple[int, ...]:
        """The logical shape of what the model takes, e.g. N C T H W where the graph has N T H W C."""
        return self.shape if self.intake is None else self.intake.own_shape(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping of the attributes."""
        plain = asdict(self) | {"shape": list(self.shape), "physical": list(self.physical)}
        del plain["intake"]
        return plain | ({"intake": self.intake.to_dict()} if self.intake is not None else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Port:
        """The inverse of `to_dict`."""
        taken = data.get("intake")
        return cls(
            data["name"],
            tuple(data["shape"]),
            tuple(data["physical"]),
            data["dtype"],
            data.get("packing"),
            Intake.from_dict(taken) if taken is not None else None,
        )


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as people read it: ``Nx3x16x112x112``."""
    return "x".join("N" if size == OPEN else str(size) for size in shape)


def sizes_text(shape: Sequence[int]) -> str:
    """A shape in a message about what fits: ``1x3x?x112x112``, ``()`` for a scalar."""
    return "x".join("?" if size == OPEN else str(size) for size in shape) or "()"


def ports_text(ports: Iterable[Port]) -> str:
    """Ports with their logical shapes, for messages."""
    return ", ".join(f"{port.name} {sizes_text(port.shape)}" for port in ports) or "none"


def fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    """Whether a shape is the declared one; an open size takes any."""
    return len(shape) == len(declared) and all(d in (s, OPEN) for s, d in zip(shape, declared, strict=True))
