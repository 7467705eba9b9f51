"""Arguments of a captured call."""

from __future__ import annotations

from typing import Any

from torch import fx
from torch._ops import OpOverload

from edge4d.errors import InternalError

__all__ = ["argument"]


def argument(node: fx.Node, name: str) -> Any:
    """A call's argument by its schema name, its default where it is not given."""
    assert isinstance(node.target, OpOverload)
    for place, schema in enumerate(node.target._schema.arguments):
        if schema.name == name:
            return node.args[place] if place < len(node.args) else node.kwargs.get(name, schema.default_value)
    raise InternalError(f"{node.target} has no argument {name!r}")
