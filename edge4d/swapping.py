"""`edge4d.swap`: a copy of a network with its Conv3d layers replaced by a structure of 2-D convolutions."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from edge4d.blocks.choice import BlockSpec, Choice, near_names
from edge4d.blocks.registry import EXACT, get
from edge4d.errors import Edge4dError, UsageError
from edge4d.swap_report import SwapReport, SwapRow

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["swap", "swap_with_report"]

DEFAULT_KERNEL = (3, 3, 3)
HOOKED = "it has forward hooks, which its block would not run"
UNNAMED = "no pattern names it"


def swap(
    model: nn.Module,
    block: BlockSpec = "proposed-add",
    layers: str | Sequence[str] | None = None,
    *,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    calib: Any = None,
    **options: Any,
) -> nn.Module:
    """A trainable copy of `model` with Conv3d layers replaced, each fitted to the weight it replaces.

    The numbers change (unless the block is ``conv3d``, or of full rank); training recovers accuracy. The result
    carries a `SwapReport` as its attribute ``swap_report``. Layers that share their weight and bias share one block;
    those that share only one of the two, or stride differently, get blocks of their own.

    Args:
        model: any `nn.Module`; left unchanged.
        block: a structure for all 3×3×3 layers, or a choice per layer: ``{"layer4.*": "proposed-add"}``,
            ``["exact", "layer4.*=proposed-add"]``. A layer that a pattern names may have any kernel.
        layers: patterns (``fnmatch``) of the layers that a plain `block` replaces; all 3×3×3 ones when None.
        args, kwargs: example inputs; with them the report has shapes and multiply-accumulates.
        calib: clips for a least-squares fit of every layer, see `edge4d.calibrating.calibrate`; of the shape of the
            example input where there is one.
        options: of the structures, e.g. ``energy=0.99`` or ``alignment="paper"``.

    Raises:
        UsageError: an unknown block or option, a pattern that fits no Conv3d, nothing to replace, weights that are
            not finite, example inputs or clips that the network cannot take, or a model without `nn.Conv3d` modules
            (an `ExportedProgram`, TorchScript).
    """
    swapped, _ = swap_with_report(model, block, layers, args=args, kwargs=kwargs, calib=calib, **options)
    return swapped


def swap_with_report(
    model: nn.Module,
    block: BlockSpec = "proposed-add",
    layers: str | Sequence[str] | None = None,
    *,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    calib: Any = None,
    **options: Any,
) -> tuple[nn.Module, SwapReport]:
    """As `swap`; the report as well."""
    choice = Choice.of(block)
    choice.check_options(options)
    if options.get("width") == "full":
        raise UsageError(
            "proposed-cat of full width doubles a layer's channels, so it cannot replace one layer of a network",
            hint="leave width out, or build a network of that width, as edge4d.models.eco_lite does",
        )
    _check_model(model)
    patterns = (layers,) if isinstance(layers, str) else None if layers is None else tuple(layers)
    found = _convolutions(model)
    _check_patterns(found, choice, patterns)
    try:
        swapped = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"{type(model).__name__} cannot be copied: {str(error).strip().partition(chr(10))[0]}",
            hint="make the weights plain again: torch.nn.utils.remove_weight_norm, remove_spectral_norm, prune.remove",
        ) from error
    rows: list[SwapRow] = []
    blocks: dict[int, nn.Module] = {}
    fitted: dict[Any, str] = {}
    counted: set[int] = set()
    found = _convolutions(swapped)
    for name, conv in found.items():
        wanted, reason = _decide(name, conv, choice, patterns)
        row = _row(name, conv, reason, counted)
        rows.append(row)
        if wanted is None:
            continue
        row.block = wanted
        same = _identity(conv, wanted)
        if same in fitted:
            first = next(earlier for earlier in rows if earlier.layer == fitted[same])
            blocks[id(conv)] = blocks[id(found[first.layer])]
            row.shared_with, row.parameters_after, row.relative_error = first.layer, 0, first.relative_error
            continue
        kind = get(wanted)
        own = {key: value for key, value in options.items() if key in kind.options}
        try:
            replacement = kind.module_class.fit(conv, **own)
        except Edge4dError as error:
            raise type(error)(f"layer {name}: {error.message}", hint=error.hint) from error
        row.parameters_after = sum(p.numel() for p in replacement.parameters())
        row.relative_error = relative_error(conv, replacement)
        blocks[id(conv)] = replacement
        if same is not None:
            fitted[same] = name
    if not blocks and not choice.exact:
        reasons = "; ".join(sorted({row.reason for row in rows if row.reason})) or "the model has no nn.Conv3d"
        raise UsageError(
            f"nothing to replace in {type(model).__name__}: {reasons}",
            hint=_naming(rows, choice.blocks[0]),
        )
    swapped = _replaced(swapped, blocks)
    report = SwapReport(choice.label, tuple(rows))
    if args is not None or kwargs:
        from edge4d.blocks.cost import count

        count(swapped, rows, tuple(args or ()), dict(kwargs or {}))
        report.counted = True
    if calib is not None:
        from edge4d.calibrating import calibrate

        report.calibration = calibrate(model, swapped, calib, rows, _clip_of(args, kwargs))
    swapped.swap_report = report  # type: ignore[assignment]
    return swapped, report


def relative_error(conv: nn.Conv3d, block: Any) -> float | None:
    """‖K − W‖ / ‖W‖ of the kernel K that a block equals; None when it equals none (a ReLU inside, paper alignment)."""
    kernel = block.kernel()
    if kernel is None:
        return None
    weight = conv.weight.detach().double()
    norm = float(weight.norm())
    return float((kernel - weight).norm()) / norm if norm else float(kernel.norm() > 0)


def _check_model(model: Any) -> None:
    import torch
    from torch import nn

    if isinstance(model, torch.export.ExportedProgram | torch.jit.ScriptModule) or not isinstance(model, nn.Module):
        raise UsageError(
            f"a block replaces nn.Conv3d modules, and {type(model).__name__} has none: its layers are already a graph",
            hint="pass the nn.Module itself, or its state_dict with --factory package.module:callable",
        )


def _clip_of(args: tuple[Any, ...] | None, kwargs: Mapping[str, Any] | None) -> Tensor | None:
    """The example clip (N, C, T, H, W), where that is all the network takes."""
    from torch import Tensor

    given = [*(args or ()), *(kwargs or {}).values()]
    return given[0] if len(given) == 1 and isinstance(given[0], Tensor) and given[0].dim() == 5 else None


def _convolutions(model: nn.Module) -> dict[str, nn.Conv3d]:
    """Every Conv3d once, by the first name it has."""
    from torch import nn

    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv3d)}
    for name, conv in found.items():
        if isinstance(conv, nn.LazyConv3d):
            raise UsageError(f"layer {name} has no weight yet", hint="run the model once on a clip before swapping")
    return found


def _identity(conv: nn.Conv3d, block: str) -> Any:
    """What two layers have in common that compute the same with the same parameters; None for a computed weight."""
    from edge4d.blocks.geometry import Geometry

    if conv._parameters.get("weight") is None or (conv.bias is not None and conv._parameters.get("bias") is None):
        return None
    return id(conv.weight), id(conv.bias), Geometry.of(conv), block


def _check_patterns(found: Mapping[str, nn.Conv3d], choice: Choice, layers: tuple[str, ...] | None) -> None:
    for pattern in (*(pattern for pattern, _ in choice.rules), *(layers or ())):
        if not any(fnmatchcase(name, pattern) for name in found):
            listed = near_names(pattern, list(found))
            raise UsageError(
                f"the pattern {pattern!r} fits none of the {len(found)} Conv3d layers",
                hint=f"layers of the model: {listed}" if found else "the model has no nn.Conv3d",
            )


def _decide(name: str, conv: nn.Conv3d, choice: Choice, layers: tuple[str, ...] | None) -> tuple[str | None, str]:
    """The structure for a layer, or None and why it is left alone."""
    from torch import nn

    own = "forward" in vars(conv) or "_conv_forward" in vars(conv)
    if own or type(conv).forward is not nn.Conv3d.forward or type(conv)._conv_forward is not nn.Conv3d._conv_forward:
        return None, f"{type(conv).__name__} computes in its own way"
    if conv._forward_hooks or conv._forward_pre_hooks:
        return None, HOOKED
    ruled = choice.rule_for(name)
    if ruled is not None:
        return (None, "exact was asked for") if ruled == EXACT else (ruled, "")
    if choice.default == EXACT:
        return None, UNNAMED
    if layers is not None:
        fits = any(fnmatchcase(name, pattern) for pattern in layers)
        return (choice.default, "") if fits else (None, UNNAMED)
    if tuple(conv.kernel_size) != DEFAULT_KERNEL:
        return None, f"its kernel is {'x'.join(map(str, conv.kernel_size))}, not 3x3x3"
    return choice.default, ""


def _row(name: str, conv: nn.Conv3d, reason: str, counted: set[int]) -> SwapRow:
    """A layer left alone; parameters that an earlier layer has counted are not counted again."""
    own = sum(p.numel() for p in conv.parameters() if id(p) not in counted)
    counted.update(id(p) for p in conv.parameters())
    kernel = (conv.kernel_size[0], conv.kernel_size[1], conv.kernel_size[2])
    return SwapRow(name, None, reason, kernel, conv.in_channels, conv.out_channels, own, own)


def _naming(rows: list[SwapRow], block: str) -> str | None:
    """How to choose layers by name, shown on one of this model's own, the one with most to replace."""
    if not rows:
        return "a block replaces nn.Conv3d modules; what is written with functions has to become one first"
    if any(row.reason == HOOKED for row in rows):
        return "remove the hooks first"
    nameable = [row for row in rows if row.reason.startswith("its kernel") or row.reason == UNNAMED]
    if not nameable:
        return None
    layer = max(nameable, key=lambda row: math.prod(row.kernel)).layer
    return f"name layers to replace those of other kernels: --block '{layer}={block}', in Python layers=['{layer}']"


def _replaced(model: nn.Module, blocks: Mapping[int, nn.Module]) -> nn.Module:
    """Put the blocks in, wherever a layer is referred to; a layer that several modules share stays one module."""
    if id(model) in blocks:
        return blocks[id(model)]
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is not None and id(child) in blocks:
                parent._modules[key] = blocks[id(child)]
    return model
