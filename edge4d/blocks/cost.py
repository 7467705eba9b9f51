"""Shapes and multiply-accumulates of the replaced layers, from one pass on fake tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edge4d.blocks.base import Block
from edge4d.errors import UsageError
from edge4d.subject import evaluation

if TYPE_CHECKING:
    from edge4d.swap_report import SwapRow

__all__ = ["count"]


def count(model: nn.Module, rows: Sequence[SwapRow], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Fill in the shapes and the MACs of `rows`, which name Conv3d layers and blocks of `model`.

    Nothing is computed: the pass runs on fake tensors, unless the network looks at values. A layer that is called twice
    counts twice; one that is not called keeps None.

    Args:
        model: the swapped network.
        rows: changed in place.
        args, kwargs: example inputs.

    Raises:
        UsageError: the network does not run on these inputs with its blocks.
    """
    modules = dict(model.named_modules())
    handles = []
    running: list[str] = []  # layers that have been entered and not left
    for row in rows:
        if row.shared_with is not None:
            continue  # its calls are those of the other row
        module = modules[row.layer]
        handles.append(module.register_forward_pre_hook(_enter(row, running)))
        handles.append(module.register_forward_hook(_shapes_of(row, running), with_kwargs=True))
        for part in module.modules() if isinstance(module, Block) else (module,):
            if isinstance(part, nn.Conv2d | nn.Conv3d):
                handles.append(part.register_forward_hook(_macs_of(row)))
    try:
        with evaluation(model), torch.no_grad():
            _run(model, rows, running, args, kwargs)
    except Exception as error:
        where = f"layer {running[-1]}: " if running else ""
        if isinstance(error, UsageError):
            raise UsageError(f"{where}{error.message}", hint=error.hint) from error
        said = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"{where}with its blocks {type(model).__name__} does not run on these inputs: "
            f"{type(error).__name__}: {said}",
            hint="if it runs without them, leave the layer at fault alone: --block 'LAYER=exact'",
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def _run(
    model: nn.Module,
    rows: Sequence[SwapRow],
    running: list[str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    from torch._subclasses import fake_tensor
    from torch.utils import _pytree as pytree

    mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)
    fakes = pytree.tree_map_only(Tensor, mode.from_tensor, (args, kwargs))
    try:
        with mode:
            model(*fakes[0], **fakes[1])
    except (
        fake_tensor.DataDependentOutputException,
        fake_tensor.DynamicOutputShapeException,
        fake_tensor.UnsupportedOperatorException,
    ):  # a fake tensor has no values to look at
        for row in rows:
            row.input_shape = row.output_shape = row.macs_before = row.macs_after = None
        running.clear()
        model(*args, **kwargs)


def _enter(row: SwapRow, running: list[str]) -> Any:
    def hook(_module: nn.Module, _inputs: Any) -> None:
        running.append(row.layer)

    return hook


def _shapes_of(row: SwapRow, running: list[str]) -> Any:
    taps = row.kernel[0] * row.kernel[1] * row.kernel[2]

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        running.pop()
        if row.input_shape is None:
            given = inputs[0] if inputs else named["input"]
            row.input_shape, row.output_shape = tuple(given.shape), tuple(output.shape)
        own = output.numel() * taps * row.in_channels // int(module.groups)  # type: ignore[arg-type]
        row.macs_before = (row.macs_before or 0) + own

    return hook


def _macs_of(row: SwapRow) -> Any:
    def hook(module: nn.Conv2d | nn.Conv3d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        row.macs_after = (row.macs_after or 0) + output.numel() * module.weight[0].numel()

    return hook
