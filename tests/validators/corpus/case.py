"""One model of the corpus: how it is made, what the gate must say of it, and whether ONNX Runtime can run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import ModelProto

__all__ = ["CASES", "Case", "add", "case"]


@dataclass(frozen=True)
class Case:
    """A small model with a name.

    Attributes:
        name: unique in the corpus.
        make: builds it.
        codes: of the findings it must have, all of them; empty for a model that passes.
        refused: why ONNX Runtime does not run it: a part of what it says; None for a model that it runs.
        feeds: inputs that must not be arbitrary, by name: an array, or the shape where the file gives none.
    """

    name: str
    make: Callable[[], ModelProto]
    codes: frozenset[str] = frozenset()
    refused: str | None = None
    feeds: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        return not self.codes


CASES: dict[str, Case] = {}


def add(name: str, make: Callable[[], ModelProto], *codes: str, refused: str | None = None, **feeds: Any) -> None:
    if name in CASES:
        raise ValueError(f"two models of the corpus are called {name!r}")
    CASES[name] = Case(name, make, frozenset(codes), refused, feeds)


def case(
    *codes: str, refused: str | None = None, **feeds: Any
) -> Callable[[Callable[[], ModelProto]], Callable[[], ModelProto]]:
    """Enter a function that builds a model under its own name."""

    def enter(make: Callable[[], ModelProto]) -> Callable[[], ModelProto]:
        add(make.__name__, make, *codes, refused=refused, **feeds)
        return make

    return enter
