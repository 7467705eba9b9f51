"""Shapes and multiply-accumulates of the replaced layers, from one pass on fake tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edge4d.blocks.base import Block
from edge4d.subject import evaluation

if TYPE_CHECKING:
    from edge4d.swap_report import SwapRow

__all__ = ["count"]


def count(model: nn.Module, rows: Sequence[SwapRow], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Fill in the shapes and the MACs of `rows`, which name Conv3d layers and blocks of `model`.

    Nothing is computed: the pass runs on fake tensors. A layer that is called twice counts twice.

    Args:
        model: the swapped network.
        rows: changed in place.
        args, kwargs: example inputs.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils import _pytree as pytree

    modules = dict(model.named_modules())
    handles = []
    for row in rows:
        module = modules[row.layer]
        handles.append(module.register_forward_hook(_shapes_of(row)))
        for part in module.modules() if isinstance(module, Block) else (module,):
            if isinstance(part, nn.Conv2d | nn.Conv3d):
                handles.append(part.register_forward_hook(_macs_of(row)))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = pytree.tree_map_only(Tensor, mode.from_tensor, (args, kwargs))
    try:
        with evaluation(model), torch.no_grad(), mode:
            model(*fakes[0], **fakes[1])
    finally:
        for handle in handles:
            handle.remove()


def _shapes_of(row: SwapRow) -> Any:
    taps = row.kernel[0] * row.kernel[1] * row.kernel[2]

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        groups = module.geometry.groups if isinstance(module, Block) else module.groups
        if row.input_shape is None:
            row.input_shape, row.output_shape = tuple(inputs[0].shape), tuple(output.shape)
        own = output.numel() * taps * row.in_channels // int(groups)  # type: ignore[arg-type]
        row.macs_before = (row.macs_before or 0) + own

    return hook


def _macs_of(row: SwapRow) -> Any:
    def hook(module: nn.Conv2d | nn.Conv3d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        row.macs_after = (row.macs_after or 0) + output.numel() * module.weight[0].numel()

    return hook
