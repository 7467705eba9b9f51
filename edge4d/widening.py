"""Float types other than float32: which a lowered model computes in, what no runtime here runs, and the way to float32.

A graph has its model's own types. float16 stays float16. Neither bfloat16 nor float64 convolutions can be run and so
be checked; they are refused by layer, and `widen` is the way out: float32 holds every float16 and bfloat16 number.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from edge4d.capture import program_of
from edge4d.errors import UsageError
from edge4d.quiet import quiet

if TYPE_CHECKING:
    from edge4d.lowered import Lowered
    from edge4d.subject import Subject

__all__ = ["check_runnable", "float_types", "own_precision", "widen"]

aten = torch.ops.aten

_CASTS = {aten.to.dtype, aten.to.dtype_layout, aten._to_copy.default, aten.type_as.default}


def float_types(lowered: Lowered) -> dict[torch.dtype, Any]:
    """Every float type but float32 that calls of the graph give, with the first such call."""
    found: dict[torch.dtype, Any] = {}
    for node in lowered.module.graph.nodes:
        if node.op != "call_function":
            continue
        for value in pytree.tree_leaves(node.meta.get("val")):
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float32:
                convolves = "conv" in str(node.target)
                if value.dtype not in found or (convolves and "conv" not in str(found[value.dtype].target)):
                    found[value.dtype] = node
    return found


def check_runnable(found: dict[torch.dtype, Any]) -> None:
    """Refuse what can neither be written nor checked.

    Args:
        found: of `float_types`.

    Raises:
        UsageError: bfloat16, or a convolution in float64.
    """
    way = "--precision fp32 widens it exactly, and --precision fp16 makes float16 of that"
    if (node := found.get(torch.bfloat16)) is not None:
        raise UsageError(
            f"the model computes in bfloat16, first in {_place(node)}: ONNX Runtime runs no such operators on a CPU, "
            "so no number of the graph could be checked",
            hint=way,
        )
    node = found.get(torch.float64)
    if node is not None and "conv" in str(node.target):
        raise UsageError(
            f"the model convolves in float64, first in {_place(node)}: ONNX Runtime has no such operator",
            hint="--precision fp32 rounds it to float32",
        )


def own_precision(found: dict[torch.dtype, Any]) -> str:
    """By which row of the tolerance table a graph of these types is judged."""
    return "fp16" if torch.float16 in found else "fp32"


def widen(subject: Subject, found: dict[torch.dtype, Any]) -> None:
    """Put a float32 copy in the place of the model: its weights, its inputs, and the types that its code names.

    Args:
        subject: changed; the user's own model is not.
        found: of `float_types`.
    """
    program = program_of(subject.model, subject.args, subject.kwargs)
    with quiet():
        functional = program.run_decompositions({})  # without views and writes that two names share
        module = copy.deepcopy(functional.module(check_guards=False)).float()
    for node in list(module.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
        elif node.target in _CASTS and _float(node) and _float(node.args[0]):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
        elif node.op == "call_function":
            node.args = torch.fx.node.map_aggregate(node.args, _widened)
            node.kwargs = torch.fx.node.map_aggregate(node.kwargs, _widened)
    module.recompile()
    subject.model, subject.script = module, None
    subject.graph = subject.graph or "a widened copy"
    subject.args, subject.kwargs = pytree.tree_map(
        lambda x: x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x,
        (subject.args, subject.kwargs),
    )
    names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
    how = "rounded" if torch.float64 in found else "widened"
    subject.notes.append(f"the model computes in {names}; for this it was {how} to float32, and is compared as such")


def _widened(value: Any) -> Any:
    return torch.float32 if isinstance(value, torch.dtype) and value.is_floating_point else value


def _float(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _place(node: Any) -> str:
    at = node.meta.get("edge4d")
    layer, op = getattr(at, "layer", ""), getattr(at, "op", "") or str(node.target)
    line = f" ({at.line})" if getattr(at, "line", "") else ""
    return f"{f'layer {layer!r}' if layer else 'its own forward'}: {op}{line}"
