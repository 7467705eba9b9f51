"""`torch.export` → a functional ATen graph with static shapes, its constants, its inputs and outputs by name."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch._ops import OpOverload
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from edge4d.effects import without_checks, without_writes
from edge4d.errors import CaptureError
from edge4d.fixed_inputs import fixed_of
from edge4d.known import knowing
from edge4d.lowering.recurrent import is_whole
from edge4d.lowering.registry import registered
from edge4d.lowering.values import Const
from edge4d.quiet import quiet
from edge4d.structures import register_dataclasses

if TYPE_CHECKING:
    from edge4d.intake import Intake
    from edge4d.lowering.registry import Decline

__all__ = ["Captured", "capture", "program_of", "source_line"]

_OURS = tuple(str(Path(__file__).parent / name) for name in ("loading/onnx/", "known.py", "fixed_inputs.py"))
"""Lines of ours that run a user's code, or an ONNX graph, whose nodes have names: no lines of the user's."""


@dataclass
class Captured:
    """A model as one ATen graph.

    Attributes:
        graph: placeholders are constants (keys of `constants`) and the user's tensors (`inputs`), in any order.
        constants: parameter, buffer or lifted tensor of each constant placeholder.
        inputs: placeholder names of the user's tensors, flat, in call order.
        outputs: a readable name for each tensor of the result, flat: keys and fields, else output, output_1, …
        in_spec, out_spec: pytree structure of (args, kwargs) and of the result.
        intakes: inputs that are taken otherwise than the model has them, by name.
    """

    graph: fx.Graph
    constants: dict[str, Const]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    intakes: dict[str, Intake] = field(default_factory=dict)

    def of_inputs(self) -> tuple[tuple[tuple[int, ...], ...], tuple[bool, ...]]:
        """The shape of each input, and whether it is of floating point."""
        nodes = {node.name: node for node in self.graph.nodes if node.op == "placeholder"}
        values = [nodes[name].meta["val"] for name in self.inputs]
        return tuple(tuple(int(s) for s in v.shape) for v in values), tuple(v.is_floating_point() for v in values)


def capture(
    model: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
) -> Captured:
    """Capture a model in inference mode; the model itself is left as it was.

    Args:
        model: a module, or an `ExportedProgram` (then `args` only tell the structure and may be its example inputs).
        args: example inputs; their shapes become the graph's.
        kwargs: keyword inputs.

    Raises:
        CaptureError: torch.export refuses the model: data-dependent control flow, an input of the wrong shape, …
    """
    program = program_of(model, args, kwargs)
    table = torch.export.default_decompositions()
    for op in registered():
        if all(is_whole(node) for node in program.graph.nodes if node.target is op):
            table.pop(op, None)  # type: ignore[no-untyped-call]
    program = _decomposed(program, table)
    tokens = without_checks(program)
    without_writes(program, tokens)
    signature = program.graph_signature
    tensors = {**program.state_dict, **program.constants}
    constants, inputs = {}, []
    for spec in signature.input_specs:
        name = spec.arg.name
        if spec.kind is InputKind.TOKEN and name in tokens:
            continue
        if spec.kind is InputKind.USER_INPUT:
            inputs.append(name)
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            constants[name] = Const(tensors[spec.target].detach(), spec.target)
        else:
            raise CaptureError(f"the model holds a {spec.kind.name} named {spec.target!r}, which no graph can carry")
    for output in signature.output_specs:
        if output.kind is OutputKind.TOKEN and output.arg.name in tokens:
            continue
        if output.kind not in (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION):
            raise CaptureError(
                f"the model changes {output.target!r} while it runs ({output.kind.name})",
                hint="make it a function of its inputs, e.g. return the new state",
            )
    graph_inputs = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    tensors_in = [i for i in inputs if isinstance(graph_inputs[i].meta.get("val"), torch.Tensor)]
    return Captured(
        program.graph,
        constants,
        tuple(tensors_in),
        _output_names(program.call_spec.out_spec, set(tensors_in)),
        program.call_spec.in_spec,
        program.call_spec.out_spec,
    )


def program_of(
    model: nn.Module | torch.export.ExportedProgram, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> torch.export.ExportedProgram:
    """What `torch.export` makes of a model in inference mode; arguments and errors as of `capture`."""
    if isinstance(model, torch.export.ExportedProgram):
        return model
    register_dataclasses((args, dict(kwargs or {})))
    with _in_inference(model):
        return _export(model, args, dict(kwargs or {}))


def _output_names(spec: pytree.TreeSpec, taken: set[str]) -> tuple[str, ...]:
    leaves, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(spec.num_leaves)), spec))
    names: list[str] = []
    for i, (path, _) in enumerate(leaves):
        keys = [_key(key) for key in path if isinstance(key, pytree.MappingKey | pytree.GetAttrKey)]
        name = "_".join(keys) or "output"
        if name in taken:
            name = f"{name}_{i}"
        while name in taken:
            name += "_"
        taken = taken | {name}
        names.append(name)
    return tuple(names)


def _key(key: Any) -> str:
    """A dict's key, or the field of a named tuple or a dataclass."""
    return str(key.key if isinstance(key, pytree.MappingKey) else key.name)


def _decomposed(program: torch.export.ExportedProgram, table: Any) -> torch.export.ExportedProgram:
    try:
        with quiet():
            found: torch.export.ExportedProgram = program.run_decompositions(table)
        return found
    except RuntimeError as error:
        if "is mutated in the forward method" not in str(error):
            raise
        raise CaptureError(
            "the model writes into a tensor that it holds, or makes of Python numbers, and that is a constant of the "
            f"graph ({str(error).split(' is ')[0].removeprefix('Constant ')})",
            hint="make a new tensor by torch.where, torch.cat or torch.stack, or clone() the old one first",
        ) from error


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.export.ExportedProgram:
    """Where values are asked for, what depends on no input is computed for real: see `edge4d.known`."""
    if fixed_of(model):
        try:
            return _exported(model, args, kwargs, known=True)
        except Exception as error:
            raise _refusal(model, args, kwargs, error) from error
    try:
        program = _exported(model, args, kwargs, known=False)
        if not _has_open_sizes(program):
            return program
        first: Exception | None = None
    except Exception as error:  # torch.export raises anything the model raises, and a dozen types of its own
        if not _by_values(error):
            raise _refusal(model, args, kwargs, error) from error
        first = error
    try:
        return _exported(model, args, kwargs, known=True)
    except Exception as error:
        if first is None:
            return program  # as far as it goes: the lowering names the operators
        told = error if _by_values(error) or isinstance(error, CaptureError) else first
        raise _refusal(model, args, kwargs, told) from told


def _exported(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, known: bool
) -> torch.export.ExportedProgram:
    def once() -> torch.export.ExportedProgram:
        with knowing(model) if known else contextlib.nullcontext():
            return torch.export.export(model, args, kwargs, strict=False)

    with quiet(), _without_partial_graph(), torch.no_grad():
        try:
            return once()
        except Exception:
            if not _returns_dataclasses(model, args, kwargs):
                raise
            return once()


def _has_open_sizes(program: torch.export.ExportedProgram) -> bool:
    """Whether a size depends on values, as that of `nonzero` does."""
    return any(
        isinstance(size, torch.SymInt)
        for node in program.graph.nodes
        for value in pytree.tree_leaves(node.meta.get("val"))
        if isinstance(value, torch.Tensor)
        for size in value.shape
    )


def _by_values(error: Exception) -> bool:
    return "data-dependent" in str(error).lower() or "DataDependent" in type(error).__name__


def _refusal(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> CaptureError:
    if isinstance(error, CaptureError):
        return error
    at = _raised_at(error)
    tensors = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
    text = str(error).strip().split("\n\n")[0][:800]
    if _by_values(error):
        counts = any(not tensor.is_floating_point() for tensor in tensors)
        fix = "bake an input that it counts by into the graph, --fix 'NAME=[[1, 16, 24]]'; else " if counts else ""
        return CaptureError(
            f"{type(model).__name__} decides by the values of its input (data-dependent control flow){at}: {text}",
            hint=f"{fix}replace the Python `if`/loop over tensor values by torch.where, or by a fixed number of steps",
        )
    if (refused := _refused_by_name(model, error)) is not None:
        return CaptureError(f"{type(model).__name__} cannot be captured{at}: {refused.reason}", hint=refused.hint)
    shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in tensors)
    return CaptureError(
        f"torch.export cannot capture {type(model).__name__} with inputs of shape {shapes}{at}: "
        f"{type(error).__name__}: {text}",
        hint="check that the model runs on these shapes: model(torch.randn(shape))",
    )


def _refused_by_name(model: nn.Module, error: BaseException) -> Decline | None:
    """What stopped the capture, where that is an operator without known shapes, or quantized layers; else None."""
    from edge4d.lowering.registry import Decline
    from edge4d.lowering.unknown import unknown

    quantized = {
        name: type(child) for name, child in model.named_modules() if ".nn.quantized" in type(child).__module__
    }
    if quantized:
        named = ", ".join(f"{name or 'the model'} ({kind.__name__})" for name, kind in list(quantized.items())[:5])
        return Decline(
            f"it has quantized layers: {named}{', …' if len(quantized) > 5 else ''}",
            "give the network in floating point; edge4d export --precision int8 quantizes it afterwards",
        )
    cause: BaseException | None = error
    while cause is not None:
        op = getattr(cause, "func", None)
        if isinstance(op, OpOverload):
            refused = unknown(op)
            return Decline(f"it calls {op}: {refused.reason}", refused.hint)
        cause = cause.__cause__ or cause.__context__
    return None


def _returns_dataclasses(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the capture failed for dataclasses among the results; they are known afterwards."""
    try:
        return register_dataclasses(model(*args, **kwargs))
    except Exception:  # the model itself fails: what the capture said tells more
        return False


@contextlib.contextmanager
def _without_partial_graph() -> Iterator[None]:
    """torch.export prints the graph so far to stderr when it fails, twice; what the model itself prints stays."""
    printed = io.StringIO()
    graph = ""
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except Exception as error:
        graph = str(getattr(error, "partial_fx_graph", ""))
        raise
    finally:
        text = printed.getvalue()
        sys.stderr.write(text.replace(f"{graph}\n", "") if graph else text)


def _raised_at(error: Exception) -> str:
    """`` in `if x.sum() > 0:` (net.py:42)``: the innermost line outside torch and its sympy, if any."""
    packages = Path(torch.__file__).parents[1]
    inside = (str(packages / "torch"), str(packages / "sympy"), __file__, *_OURS, "<")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(inside)]
    return f" in `{frames[-1].line}` ({_shown(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""


@contextlib.contextmanager
def _in_inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time of the capture; each module's own mode is restored."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, training in modes:
            if training:
                module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


def source_line(node: fx.Node) -> str:
    """``file.py:42`` of the user's code that made a node: the innermost frame outside torch itself."""
    trace = node.meta.get("stack_trace") or ""
    frames = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    for frame in reversed(frames):
        path, _, rest = frame.removeprefix('File "').partition('", line ')
        if "/torch/nn/" not in path and "/torch/_" not in path and not path.startswith(_OURS):
            return f"{_shown(path)}:{rest.split(',')[0]}"
    return ""


def _shown(path: str) -> str:
    """A path as a reader knows it: within the working folder or the installed package, not of this machine."""
    for anchor in (f"{Path.cwd()}/", "/site-packages/"):
        if anchor in path:
            return path.split(anchor)[-1]
    return path


def layer_of(node: fx.Node) -> str:
    """The module path that made a node, e.g. ``layer1.0.conv1``; empty for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    path = paths[-1] if paths else ""
    return path.removeprefix("L['self'].").removeprefix("L['self']")
