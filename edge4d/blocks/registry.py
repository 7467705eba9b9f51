"""Which structures there are, by the names that ``--block`` takes; torch is loaded when one of them is used."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from edge4d.errors import UsageError

if TYPE_CHECKING:
    from edge4d.blocks.base import Block

__all__ = ["EXACT", "BlockType", "get", "names", "suggestion"]

EXACT = "exact"
"""The word that leaves a Conv3d as it is: the lowering then keeps every number. Not a structure, so not in `names`."""


@dataclass(frozen=True)
class BlockType:
    """A structure.

    Attributes:
        name: as ``--block`` spells it.
        title: as the paper's Table II spells it.
        summary: one line.
        home: module and class, imported on first use.
    """

    name: str
    title: str
    summary: str
    home: str

    @property
    def module_class(self) -> type[Block]:
        """The `nn.Module`, built by ``like(conv, **options)`` or ``fit(conv, **options)``."""
        module, _, name = self.home.partition(":")
        found: type[Block] = getattr(import_module(module), name)
        return found

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the keyword arguments that `like` and `fit` take."""
        parameters = inspect.signature(self.module_class.__init__).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


_TYPES = {
    kind.name: kind
    for kind in (
        BlockType("conv3d", "Conv3D", "the reference: one 3-D convolution", "edge4d.blocks.conv3d:Conv3dBlock"),
        BlockType(
            "r2plus1d",
            "R(2+1)D",
            "spatial then temporal, as many parameters as the Conv3d (Tran et al. 2018)",
            "edge4d.blocks.r2plus1d:R2Plus1d",
        ),
        BlockType(
            "proposed-cat",
            "Proposed-Cat",
            "spatial beside temporal, joined along channels (the paper, II)",
            "edge4d.blocks.proposed_cat:ProposedCat",
        ),
        BlockType(
            "proposed-add",
            "Proposed-Add",
            "spatial beside temporal, added: 12/27 of the parameters (the paper, II)",
            "edge4d.blocks.proposed_add:ProposedAdd",
        ),
        BlockType(
            "p3d-a", "P3D-A", "spatial then temporal of the same width (Qiu et al. 2017)", "edge4d.blocks.p3d_a:P3dA"
        ),
        BlockType("p3d-b", "P3D-B", "spatial beside temporal, added (Qiu et al. 2017)", "edge4d.blocks.p3d_b:P3dB"),
        BlockType(
            "p3d-c",
            "P3D-C",
            "spatial, plus temporal of its result (Qiu et al. 2017)",
            "edge4d.blocks.p3d_c:P3dC",
        ),
        BlockType(
            "rank-1",
            "Rank-1",
            "one-dimensional filters along width, height and time in turn (Jin et al. 2014, Kim et al. 2018)",
            "edge4d.blocks.rank_1:Rank1",
        ),
    )
}


def names() -> tuple[str, ...]:
    """Every structure, the Conv3d itself first, in the order of the paper's Table II."""
    return tuple(_TYPES)


def get(name: str) -> BlockType:
    """The structure of that name.

    Raises:
        UsageError: there is none; the message lists them and names the nearest.
    """
    if name not in _TYPES:
        raise UsageError(f"unknown block {name!r}", hint=suggestion(name, names(), "known blocks"))
    return _TYPES[name]


def suggestion(name: str, known: tuple[str, ...], what: str) -> str:
    """``did you mean 'p3d-a'? known blocks: …`` for a name that is none of `known`."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}{what}: {', '.join(known)}"
