"""One layer in one formulation as an ONNX model, in milliseconds: what `--autotune` times.

`edge4d.exporters.onnx` translates whole networks by torch.onnx, which takes seconds however small they are.
Formulations are made of a dozen ATen calls, which are translated here one to one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge4d.errors import InternalError

if TYPE_CHECKING:
    import onnx
    from torch import fx

    from edge4d.lowering.conv.spec import ConvSpec

__all__ = ["layer_model"]

_OPSET = 18
_IR_VERSION = 9

Attributes = dict[str, Any]
Call = tuple[str, list[Any], Attributes]
"""ONNX operator; its inputs, a list of integers standing for a constant; its attributes."""


def layer_model(spec: ConvSpec, formulation: str, runtime: str | None = None) -> onnx.ModelProto:
    """A model of rank ≤ 4: the layer's clip in *frames* packing in, its result in *frames* packing out.

    Args:
        spec: the layer; its input is replaced by the model's, its constants are used as they are.
        formulation: a name of `FORMULATIONS` that fits it.
        runtime: the one that it is written for; some get the same formulation in other calls.

    Raises:
        InternalError: the formulation emits a call that has no translation here.
    """
    import onnx
    from onnx import helper, numpy_helper
    from torch._subclasses.fake_tensor import FakeTensorMode

    from edge4d.lowering.builder import Builder
    from edge4d.lowering.conv.rules import FORMULATIONS
    from edge4d.packing import Packing
    from edge4d.planning import Planner

    b = Builder(FakeTensorMode(allow_non_fake_inputs=True), Planner(runtime))
    packing = Packing.frames(spec.x.shape)
    clip = b.value(b.placeholder("clip", packing.physical_shape, spec.x.dtype), packing)
    result = FORMULATIONS[formulation].rewrite(b, replace(spec, x=clip))
    out = b.arrange_as(result, Packing.frames(spec.shape))
    b.graph.output((out,))
    b.graph.eliminate_dead_code()
    element = helper.np_dtype_to_tensor_dtype(_array(0.0, spec).dtype)
    nodes: list[Any] = []
    constants: dict[str, Any] = {}
    for node in b.graph.nodes:
        if node.op == "get_attr":
            constants[node.name] = b.parameters[str(node.target)].numpy()
        elif node.op == "call_function" and node.target is not operator.getitem:
            op, inputs, attributes = _translated(node)
            names = []
            for i, value in enumerate(inputs):
                if isinstance(value, str):
                    names.append(value)
                    continue
                name = f"{node.name}:{i}"
                constants[name] = _array(value, spec)
                names.append(name)
            nodes.append(helper.make_node(op, names, _results(node), node.name, **attributes))
    nodes.append(helper.make_node("Identity", [out.name], ["result"]))
    port = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "layer",
        [port("clip", element, list(packing.physical_shape))],
        [port("result", element, list(Packing.frames(spec.shape).physical_shape))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    return model


def _results(node: fx.Node) -> list[str]:
    """Names of a call's results: of those of several the names of the calls that pick them, empty where none does."""
    if not isinstance(node.meta["val"], list | tuple):
        return [node.name]
    picked = {user.args[1]: user.name for user in node.users}
    return [picked.get(i, "") for i in range(len(node.meta["val"]))]


def _array(value: Any, spec: ConvSpec) -> Any:
    import numpy as np
    import torch

    if isinstance(value, float):
        return torch.tensor(value, dtype=spec.x.dtype).numpy()
    return np.array(value, dtype=np.int64)


def _translated(node: fx.Node) -> Call:
    name = getattr(node.target, "__name__", str(node.target)).split(".")[0]
    translate = _CALLS.get(name)
    if translate is None:
        raise InternalError(f"a formulation emits {node.target}, which cannot be timed by itself")
    return translate(node)


def _given(node: fx.Node, place: int, default: Any) -> Any:
    return node.args[place] if place < len(node.args) else default


def _named(*nodes: Any) -> list[Any]:
    return [node.name for node in nodes if node is not None]


def _convolution(node: fx.Node) -> Call:
    x, weight, bias = node.args[:3]
    pads = list(_given(node, 4, [0, 0]))
    attributes = {
        "strides": list(_given(node, 3, [1, 1])),
        "pads": pads * 2,
        "dilations": list(_given(node, 5, [1, 1])),
        "group": _given(node, 6, 1),
    }
    return "Conv", _named(x, weight, bias), attributes


def _transposed(node: fx.Node) -> Call:
    x, weight, bias = node.args[:3]
    attributes = {
        "strides": list(_given(node, 3, [1, 1])),
        "pads": list(_given(node, 4, [0, 0])) * 2,
        "output_padding": list(_given(node, 5, [0, 0])),
        "group": _given(node, 6, 1),
        "dilations": list(_given(node, 7, [1, 1])),
    }
    return "ConvTranspose", _named(x, weight, bias), attributes


def _slice(node: fx.Node) -> Call:
    x, dim, start, stop = node.args[:4]
    return "Slice", [*_named(x), [start], [stop], [dim], [_given(node, 4, 1)]], {}


def _split(node: fx.Node) -> Call:
    x, sizes, dim = node.args
    return "Split", [*_named(x), list(sizes)], {"axis": dim}  # type: ignore[arg-type]


def _pad(node: fx.Node) -> Call:
    x, amounts = node.args[:2]
    rank = len(x.meta["val"].shape)  # type: ignore[union-attr]
    pairs = [(0, 0)] * rank
    for i in range(len(amounts) // 2):  # type: ignore[arg-type]
        pairs[-1 - i] = (amounts[2 * i], amounts[2 * i + 1])  # type: ignore[index,assignment]
    ordered = [before for before, _ in pairs] + [after for _, after in pairs]
    return "Pad", [*_named(x), ordered, float(_given(node, 2, 0.0))], {"mode": "constant"}


_CALLS: dict[str, Callable[[Any], Call]] = {
    "conv2d": _convolution,
    "conv_transpose2d": _transposed,
    "slice": _slice,
    "constant_pad_nd": _pad,
    "cat": lambda node: ("Concat", _named(*node.args[0]), {"axis": _given(node, 1, 0)}),
    "index_select": lambda node: ("Gather", _named(node.args[0], node.args[2]), {"axis": node.args[1]}),
    "permute": lambda node: ("Transpose", _named(node.args[0]), {"perm": list(node.args[1])}),
    "reshape": lambda node: ("Reshape", [*_named(node.args[0]), list(node.args[1])], {}),
    "matmul": lambda node: ("MatMul", _named(*node.args), {}),
    "mm": lambda node: ("MatMul", _named(*node.args), {}),
    "add": lambda node: ("Add", _named(*node.args), {}),
    "split_with_sizes": _split,
    "gt": lambda node: ("Greater", [*_named(node.args[0]), float(node.args[1])], {}),
    "expand": lambda node: ("Expand", [*_named(node.args[0]), list(node.args[1])], {}),
    "_to_copy": lambda node: ("CastLike", [*_named(node.args[0]), 0.0], {}),
    "sub": lambda node: ("Sub", _named(*node.args), {}),
}
"""By ATen name."""
