"""Which function imports which ONNX operator."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from edge4d.loading.onnx.node import Node

__all__ = ["FAMILIES", "Importer", "imports", "known", "lookup"]

FAMILIES = (
    "activation", "arithmetic", "conv", "indexing", "matmul", "moving", "norm", "pool", "recurrent", "reduce", "resize",
    "view",
)  # fmt: skip
"""One file each in `operators`."""

Build = Callable[[Node], "nn.Module | Callable[..., Any]"]


@dataclass(frozen=True)
class Importer:
    """How an operator is imported.

    Attributes:
        build: makes of a node a module that takes the first input alone, or a function of all its inputs (None for one
            that is not there) that returns a tensor, or a tuple of them.
        sizes: inputs that have to be known when shapes are: they arrive as numpy arrays.
        either: inputs that arrive as numpy arrays where they are known, else as tensors.
    """

    build: Build
    sizes: tuple[int, ...] = ()
    either: tuple[int, ...] = ()


_IMPORTERS: dict[str, Importer] = {}


def imports(*ops: str, sizes: tuple[int, ...] = (), either: tuple[int, ...] = ()) -> Callable[[Build], Build]:
    """Register a function for operators; see `Importer` for the rest."""

    def register(build: Build) -> Build:
        for op in ops:
            if op in _IMPORTERS:
                raise ValueError(f"{op} is imported twice")
            _IMPORTERS[op] = Importer(build, sizes, either)
        return build

    return register


def lookup(op: str) -> Importer | None:
    """The importer of an operator of ONNX's own set."""
    _load()
    return _IMPORTERS.get(op)


def known() -> tuple[str, ...]:
    """All operators that are imported."""
    _load()
    return tuple(sorted(_IMPORTERS))


def _load() -> None:
    for family in FAMILIES:
        importlib.import_module(f"edge4d.loading.onnx.operators.{family}")
