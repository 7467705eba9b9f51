"""`edge4d.lower`: a model as an equal `nn.Module` on packed tensors of rank ≤ 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import einops
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from edge4d.capture import Captured, capture
from edge4d.errors import LoweringError, PackingError
from edge4d.intake_options import Asked
from edge4d.layer_values import LayerValue
from edge4d.lowering.driver import Interpretation, interpret
from edge4d.lowering.taking import Fold
from edge4d.planning import LayerPlan, Planner
from edge4d.ports import Port

__all__ = ["Lowered", "lower", "plan", "unpack"]

Progress = Callable[[int, int], None]


@dataclass
class Lowered:
    """The outcome of lowering.

    Attributes:
        module: takes the packed inputs in order, returns a tuple of packed outputs.
        inputs, outputs: logical and physical shape, packing and name of each.
        layers: what each operator above rank 4 became.
        folded: batch norms taken up by convolutions.
        values: which nodes of `module` hold the outputs of the source's modules, and how they are packed there.
        plain: what the model returns that is no tensor, by its place among all results; `unpack` puts it back.
    """

    module: fx.GraphModule
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    layers: tuple[LayerPlan, ...]
    folded: int
    _in_spec: pytree.TreeSpec
    _out_spec: pytree.TreeSpec
    values: tuple[LayerValue, ...] = ()
    plain: Mapping[int, Any] = field(default_factory=dict)

    def pack(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """The model's own arguments as the packed tensors that `module` takes.

        Raises:
            PackingError: another number of tensors, or a shape other than the one lowered for.
        """
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if len(leaves) != len(self.inputs):
            raise PackingError(f"got {len(leaves)} tensors, the lowered model takes {len(self.inputs)}")
        return tuple(_pack(leaf, port) for leaf, port in zip(leaves, self.inputs, strict=True))

    def unpack(self, outputs: tuple[torch.Tensor, ...]) -> Any:
        """Packed outputs in the structure and the logical shapes that the model itself returns."""
        tensors = iter([unpack(tensor, port) for tensor, port in zip(outputs, self.outputs, strict=True)])
        count = len(self.outputs) + len(self.plain)
        leaves = [self.plain[i] if i in self.plain else next(tensors) for i in range(count)]
        return pytree.tree_unflatten(leaves, self._out_spec)


def _pack(tensor: torch.Tensor, port: Port) -> torch.Tensor:
    if tuple(tensor.shape) != port.shape:
        raise PackingError(
            f"input {port.name!r} has shape {tuple(tensor.shape)}, the lowered model expects {port.shape}",
            hint="lower it again for this shape",
        )
    return tensor if port.packing is None else einops.rearrange(tensor, port.packing)


def unpack(tensor: torch.Tensor, port: Port) -> torch.Tensor:
    """One packed output in its logical shape."""
    if port.packing is None:
        return tensor
    left, right = port.packing.split("->")
    sizes = dict(zip(left.split(), port.shape, strict=True))
    return einops.rearrange(tensor, f"{right.strip()} -> {left.strip()}", **sizes)


def lower(
    model: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    planner: Planner | None = None,
    progress: Progress | None = None,
    asked: Asked | None = None,
    fold: Fold = "all",
) -> Lowered:
    """Rewrite a model exactly into operators of rank ≤ 4.

    Args:
        model: an `nn.Module` (left unchanged) or an `ExportedProgram`.
        args: example inputs, e.g. one clip (N, C, T, H, W); the shapes are fixed by them.
        kwargs: keyword inputs.
        planner: what the choice of formulations has to respect; see `edge4d.planning.Planner`.
        progress: called with (done, all) nodes.
        asked: inputs that are taken as uint8 frames or with their channels last; see `edge4d.intake_options`.
        fold: how much of their normalisation may move into the weights behind it; see `edge4d.lowering.taking`.

    Raises:
        CaptureError: torch.export cannot capture the model.
        LoweringError: the model holds operators that no rule lowers; the message lists every one of them.
        UsageError: the planner asks for a formulation that fits no layer, or no input can be taken as asked.
    """
    captured = _captured(model, args, kwargs, asked)
    found = interpret(captured, planner=planner, progress=progress, fold=fold)
    if found.module is None:
        raise _refusal(found)
    return Lowered(
        found.module,
        found.inputs,
        found.outputs,
        found.layers,
        found.folded,
        captured.in_spec,
        captured.out_spec,
        found.values,
        found.plain,
    )


def plan(
    model: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    planner: Planner | None = None,
    asked: Asked | None = None,
    fold: Fold = "all",
) -> tuple[LayerPlan, ...]:
    """What `lower` would make of every operator above rank 4, or why it would decline; nothing is written.

    Raises:
        CaptureError: torch.export cannot capture the model.
        UsageError: the planner asks for a formulation that fits no layer, or no input can be taken as asked.
    """
    return interpret(_captured(model, args, kwargs, asked), planner=planner, fold=fold).layers


def _captured(
    model: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    asked: Asked | None,
) -> Captured:
    captured = capture(model, args, kwargs)
    if asked:
        intakes = asked.resolve(captured.inputs, *captured.of_inputs())
        captured.intakes = {n: intake for n, intake in zip(captured.inputs, intakes, strict=True) if intake is not None}
    return captured


def _refusal(found: Interpretation) -> LoweringError:
    lines: dict[str, int] = {}
    for layer in found.declined:
        where = f"layer {layer.layer!r}" if layer.layer else "the model's own forward"
        at = f" ({layer.line})" if layer.line else ""
        shape = "x".join(map(str, layer.shape))
        hint = f"; {layer.hint}" if layer.hint else ""
        line = f"  {layer.op} at {where}{at}, result {shape}: {layer.reason}{hint}"
        lines[line] = lines.get(line, 0) + 1
    count = len(found.declined)
    plural = "operator has" if count == 1 else "operators have"
    said = "\n".join(line + (f" ({times} times)" if times > 1 else "") for line, times in lines.items())
    covered = found.operators - count
    return LoweringError(
        f"{count} {plural} no way to rank 4:\n{said}\n"
        f"  {covered} of the model's {found.operators} operators ({100 * covered / found.operators:.1f} %) have one",
        hint="replace the operator in the model, or register a rule for it with edge4d.register_rule",
    )
