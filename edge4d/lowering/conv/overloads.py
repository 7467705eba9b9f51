"""Every ATen spelling of a convolution of one to three axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from edge4d.lowering.calls import argument

__all__ = ["OVERLOADS", "is_transposed"]

aten = torch.ops.aten

OVERLOADS: Mapping[Any, bool | None] = {
    aten.conv1d.default: False,
    aten.conv1d.padding: False,
    aten.conv2d.default: False,
    aten.conv2d.padding: False,
    aten.conv3d.default: False,
    aten.conv3d.padding: False,
    aten.conv_transpose1d.default: True,
    aten.conv_transpose2d.input: True,
    aten.conv_transpose3d.input: True,
    aten.convolution.default: None,
    aten._convolution.default: None,
}
"""Whether each is transposed; None where an argument of the call says so."""


def is_transposed(conv: fx.Node) -> bool:
    """Whether a call of one of `OVERLOADS` is a transposed convolution."""
    fixed = OVERLOADS[conv.target]
    return bool(argument(conv, "transposed")) if fixed is None else fixed
