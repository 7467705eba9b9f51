"""TorchScript → a graph module that `torch.export` accepts, with the weights under their own names."""

from __future__ import annotations

import copy
import re
import warnings
from typing import TYPE_CHECKING, Any

from edge4d.errors import CaptureError

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

__all__ = ["script_to_module"]

_DATA_DEPENDENT = (
    "data-dependent",
    "DataDependent",
    "_local_scalar_dense",
    "ATen/core/ivalue.h",
    "GuardOnDataDependent",
    "SymInt",
    "SymFloat",
    "SymBool",
)


def script_to_module(scripted: torch.jit.ScriptModule, args: tuple[Any, ...]) -> nn.Module:
    """Trace a ScriptModule into plain ATen calls.

    `torch.export` refuses ScriptModules. Here its interpreter runs once on fake tensors; branches on shapes are taken
    as `args` take them, branches on values are an error, never a guess. The result is compared with the script
    on `args` and on ``-args``.

    Args:
        scripted: traced, scripted or frozen; not changed. One in training mode is copied and captured in eval mode.
        args: example inputs, e.g. one clip N C T H W.

    Returns:
        A `torch.fx.GraphModule`: parameters and buffers under their original names (``layer1.0.conv1.weight``), frozen
        constants as ``constant_0``…, and the owning layer in each node's ``nn_module_stack``.

    Raises:
        CaptureError: the script rejects `args`, depends on values, or does not compute the same when traced.
    """
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    if getattr(scripted, "training", False):
        scripted = copy.deepcopy(scripted).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Before dispatch: group norm, LSTM and attention stay the one operator each that `torch.export` keeps too.
            tracer = make_fx(scripted, tracing_mode="fake", pre_dispatch=True, _allow_non_fake_inputs=True)
            # Without gradients nn.MultiheadAttention and nn.TransformerEncoder call kernels of their own. An optimized
            # script would keep what it folds now, fake tensors, for all later runs.
            with torch.enable_grad(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                traced = tracer(*args)
        except Exception as error:
            # The interpreter reports every failure, the user's shape as much as a missing feature, as RuntimeError.
            raise _capture_error(_real_error(scripted, args) or error) from error
        module = _with_own_names(traced, scripted)
        _check_same(module, scripted, args)
    return module


def _real_error(scripted: torch.jit.ScriptModule, args: tuple[Any, ...]) -> Exception | None:
    """What the script says to `args` itself: on fake tensors torch leaves some messages empty."""
    try:
        scripted(*args)
    except Exception as error:
        return error
    return None


def _capture_error(error: Exception) -> CaptureError:
    text = str(error)
    place = _place(text)
    if any(sign in text for sign in _DATA_DEPENDENT):
        return CaptureError(
            f"the TorchScript model decides by the values of a tensor{place}; one fixed graph cannot follow that",
            hint="decide by shapes or settings, or keep both branches with torch.where, and save the model again",
        )
    reason = re.findall(r"^(?:\w+(?:Error|Exception)): *(.+)$", text, flags=re.MULTILINE)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    what = reason[-1] if reason else (lines[0] if lines else type(error).__name__)
    return CaptureError(
        f"the TorchScript model could not be traced{place}: {what[:400]}",
        hint="check the input shapes; of a file made by torch.jit.optimize_for_inference, give the original",
    )


def _place(text: str) -> str:
    """The line that TorchScript's own message marks as the culprit."""
    marked = re.findall(r"^(.*)\n *~+ *<--- HERE", text, flags=re.MULTILINE)
    where = re.findall(r'File "([^"]+)", line (\d+)', text.partition("<--- HERE")[0])
    line = f" in `{marked[0].strip()}`" if marked else ""
    file = f" ({where[-1][0].rpartition('/')[2]}:{where[-1][1]})" if where else ""
    return line + file


def _with_own_names(traced: fx.GraphModule, scripted: torch.jit.ScriptModule) -> fx.GraphModule:
    import torch
    from torch import fx, nn

    graph = traced.graph
    graph.eliminate_dead_code()
    _normalise(graph)
    names = _Names(scripted)
    root = nn.Module()
    for node in graph.nodes:
        if node.op == "get_attr":
            value = _attribute(traced, node.target)
            if isinstance(value, torch.Tensor):
                node.target = names.of(value)
                node._rename(node.target.replace(".", "_"))
                _register(root, node.target, value, is_parameter=names.is_parameter(node.target))
            else:
                root.add_module(node.target, value)
    _name_placeholders(graph, scripted)
    _tell_layers(graph, scripted)
    return fx.GraphModule(root, graph, class_name=getattr(scripted, "original_name", "Script"))


def _attribute(module: nn.Module, target: str) -> Any:
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part)
    return value


class _Names:
    """Original names of a script's tensors: by identity, else by the memory they lie in."""

    def __init__(self, scripted: torch.jit.ScriptModule) -> None:
        tensors = [*scripted.named_parameters(), *scripted.named_buffers()]
        self._by_id = {id(tensor): name for name, tensor in reversed(tensors)}
        self._by_memory = {self._memory(tensor): name for name, tensor in reversed(tensors) if tensor.numel()}
        self._parameters = {name for name, _ in scripted.named_parameters()}
        self._taken = {name for name, _ in tensors}
        self._keep = tensors  # an id means something only while its tensor lives
        self._constants: dict[int, str] = {}

    @staticmethod
    def _memory(tensor: torch.Tensor) -> tuple[Any, ...]:
        return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def is_parameter(self, name: str) -> bool:
        return name in self._parameters

    def of(self, tensor: torch.Tensor) -> str:
        name = self._by_id.get(id(tensor)) or (self._by_memory.get(self._memory(tensor)) if tensor.numel() else None)
        if name is None:
            name = self._constants.get(id(tensor))
        if name is None:
            number = len(self._constants)
            while f"constant_{number}" in self._taken:
                number += 1
            name = self._constants[id(tensor)] = f"constant_{number}"
            self._taken.add(name)
        return name


def _register(root: nn.Module, name: str, value: torch.Tensor, *, is_parameter: bool) -> None:
    from torch import nn

    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    if is_parameter:
        # A script read from a file hands its parameters out as plain tensors.
        parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach(), value.requires_grad)
        root.register_parameter(leaf, parameter)
    else:
        root.register_buffer(leaf, value)


def _normalise(graph: fx.Graph) -> None:
    """Spell convolution and inference batch norm as `torch.export` itself does, so that one rule meets both."""
    import operator

    import torch

    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is aten._convolution.default:
            # The four flags that follow choose a cuDNN kernel, not a result.
            node.target, node.args = aten.convolution.default, node.args[:9]
        elif node.target is aten.native_batch_norm.default and node.args[5] is False:
            if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
                continue
            for user in list(node.users):
                user.target, user.args = aten.batch_norm.default, (*node.args, False)
                user._rename("batch_norm")
            graph.erase_node(node)


def _argument_names(scripted: torch.jit.ScriptModule) -> list[str]:
    method: Any = scripted.forward
    return [argument.name for argument in method.schema.arguments[1:]]


def _name_placeholders(graph: fx.Graph, scripted: torch.jit.ScriptModule) -> None:
    from torch import fx

    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    names = _argument_names(scripted)
    if type(graph._codegen) is not fx.graph.CodeGen or len(inputs) > len(names):
        return  # nested inputs: the code generator knows the placeholders by the names they have
    for node, name in zip(inputs, names, strict=False):
        node.target = name
        node._rename(name)


def _tell_layers(graph: fx.Graph, scripted: torch.jit.ScriptModule) -> None:
    """`torch.export` keeps ``nn_module_stack`` of a graph module's nodes, so the layer's name reaches the reports."""
    types = {name: getattr(module, "original_name", "Module") for name, module in scripted.named_modules()}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        owners = [str(i.target).rpartition(".")[0] for i in node.all_input_nodes if i.op == "get_attr"]
        owner = next((name for name in owners if name in types), "")
        stack = {"L__self__": ("", types.get("", "Module"))}
        if owner:
            stack[f"L__self__{owner}"] = (owner, types[owner])
        node.meta["nn_module_stack"] = stack


def _check_same(module: nn.Module, scripted: torch.jit.ScriptModule, args: tuple[Any, ...]) -> None:
    import torch
    from torch.utils import _pytree as pytree

    def negated(value: Any) -> Any:
        return -value if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    for inputs in (args, pytree.tree_map(negated, args)):
        want, got = pytree.tree_leaves(scripted(*inputs)), pytree.tree_leaves(module(*inputs))
        same = len(want) == len(got) and all(_close(a, b) for a, b in zip(want, got, strict=True))
        if not same:
            raise CaptureError(
                "the graph traced from the TorchScript model does not compute the same as the model itself",
                hint="it draws random numbers or depends on values; export it in eval mode from the PyTorch source",
            )


def _close(want: Any, got: Any) -> bool:
    import torch

    if not isinstance(want, torch.Tensor) or not isinstance(got, torch.Tensor):
        return bool(want == got)
    if want.shape != got.shape or want.dtype != got.dtype:
        return False
    if not want.is_floating_point():
        return torch.equal(want, got)
    finite = want[want.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    # Same kernels, but the script may fuse pointwise operators: a few rounding steps of the output's range.
    tolerance = max(32 * torch.finfo(want.dtype).eps * scale, torch.finfo(want.dtype).tiny)
    return torch.allclose(want, got, rtol=0.0, atol=tolerance, equal_nan=True)
