"""Reference networks that every structure of `edge4d.blocks` can be built into.

Importing this package loads no torch; a network's own module does.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from edge4d.errors import UsageError

if TYPE_CHECKING:
    from edge4d.models.eco_lite import EcoLite

__all__ = ["ModelType", "build", "get", "names"]


@dataclass(frozen=True)
class ModelType:
    """A reference network.

    Attributes:
        name: as ``edge4d blocks --model`` spells it.
        summary: one line.
        frames: T of its clips, unless asked otherwise.
        home: module and function that build it, imported on first use.
    """

    name: str
    summary: str
    frames: int
    home: str


_TYPES = {
    kind.name: kind
    for kind in (
        ModelType("eco-lite", "the paper's ECO-Lite (Table I), 243×243", 16, "edge4d.models.eco_lite:eco_lite"),
        ModelType(
            "eco-lite-small",
            "ECO-Lite an eighth as wide on 83×83, for a quick look",
            8,
            "edge4d.models.eco_lite:eco_lite_small",
        ),
    )
}


def names() -> tuple[str, ...]:
    """Every network."""
    return tuple(_TYPES)


def get(name: str) -> ModelType:
    """The network of that name.

    Raises:
        UsageError: there is none; the message lists them and names the nearest.
    """
    if name not in _TYPES:
        near = difflib.get_close_matches(name, _TYPES, n=1, cutoff=0.4)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"unknown model {name!r}", hint=f"{meant}known models: {', '.join(_TYPES)}")
    return _TYPES[name]


def build(name: str, structure: str = "conv3d", *, frames: int | None = None) -> EcoLite:
    """A network with random weights (of torch's global generator) and `structure` in place of its Conv3d layers.

    Raises:
        UsageError: unknown network or structure, or fewer frames than it can take.
    """
    kind = get(name)
    module, _, function = kind.home.partition(":")
    network: EcoLite = getattr(import_module(module), function)(structure, frames=frames or kind.frames)
    return network
