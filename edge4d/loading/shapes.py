"""The inputs a model is captured with: from the archive, from ``--input-shape``, or inferred and said."""

from __future__ import annotations

import copy
import inspect
import re
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from torch import nn

    from edge4d.loading.loaded import Loaded

__all__ = ["format_shape", "infer_input_shapes", "parse_shape", "resolve_inputs"]

# T H W of the clips that video and volume networks are trained on, the usual first.
_CLIPS = (
    (16, 112, 112), (8, 224, 224), (4, 182, 182), (16, 224, 224), (32, 224, 224), (13, 182, 182), (16, 312, 312),
    (32, 112, 112), (8, 112, 112), (64, 224, 224), (4, 224, 224), (16, 128, 128), (16, 64, 64), (8, 64, 64),
    (8, 32, 32), (32, 32, 32), (64, 64, 64), (96, 96, 96), (128, 128, 128),
)  # fmt: skip


def parse_shape(text: str) -> tuple[int, ...]:
    """``"1x3x16x112x112"`` → ``(1, 3, 16, 112, 112)``.

    Raises:
        UsageError: anything but positive whole numbers with ``x`` between them.
    """
    parts = re.split(r"\s*[xX×]\s*", text.strip())
    try:
        sizes = tuple(int(part) for part in parts if part.isascii() and part.isdigit())
    except ValueError:  # thousands of digits
        sizes = ()
    if len(sizes) != len(parts) or any(not 0 < size < 2**31 for size in sizes):
        raise UsageError(
            f"--input-shape {text!r}: expected positive sizes with x between them, batch first",
            hint="for a clip N C T H W, for example --input-shape 1x3x16x112x112",
        )
    return sizes


def format_shape(shape: Sequence[Any]) -> str:
    """``(1, 3, 16, 112, 112)`` → ``"1x3x16x112x112"``."""
    return "x".join(str(size) for size in shape) or "scalar"


def infer_input_shapes(module: nn.Module) -> tuple[tuple[int, ...], ...] | None:
    """Guess the input shape of a network with one input.

    The channels are those that the first Conv3d (else the first 5-D weight) takes; T H W are the common clips, tried
    in turn on fake tensors, so nothing is computed and `module` is not changed.

    Returns:
        One shape N C T H W, or None when no guess runs. Whoever uses it says so to the user.
    """
    channels = _channels(module)
    if channels is None:
        return None
    for clip in _CLIPS:
        shape = (1, channels, *clip)
        if _rejection(module, (shape,), (_dtype(module),), really=False) is None:
            return (shape,)
    return None


def _channels(module: nn.Module) -> int | None:
    from torch import nn

    for part in module.modules():
        if isinstance(part, nn.Conv3d):
            return part.in_channels
    return next((weight.shape[1] for weight in _weights(module) if weight.dim() == 5), None)


def _weights(module: nn.Module) -> Iterator[torch.Tensor]:
    """Parameters, or what freezing a script made of them: constants that its convolutions take."""
    import torch

    yield from module.parameters()
    if isinstance(module, torch.jit.ScriptModule):
        graph: Any = module.inlined_graph
        for kind in ("aten::conv3d", "aten::_convolution", "aten::convolution"):
            for node in graph.findAllNodes(kind):
                value = list(node.inputs())[1].toIValue()
                if isinstance(value, torch.Tensor):
                    yield value


def _dtype(module: nn.Module) -> torch.dtype:
    import torch

    return next((weight.dtype for weight in _weights(module) if weight.is_floating_point()), torch.float32)


def _rejection(
    module: nn.Module, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[torch.dtype], *, really: bool
) -> str | None:
    """Why `module` does not run on these shapes; None when it does.

    Args:
        module: called in the mode it is in.
        shapes: one per input.
        dtypes: one per input.
        really: whether to run on real zeros when fake tensors fail (code that looks at values needs them).
    """
    import torch

    with torch.no_grad():
        try:
            _run_fake(module, shapes, dtypes)
        except Exception as error:
            if not really:
                return str(error)
        else:
            return None
        try:
            module(*(torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)))
        except Exception as error:
            return _first_words(error)
    return None


def _run_fake(module: nn.Module, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[torch.dtype]) -> None:
    """Run on tensors that have a shape and no data."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    if isinstance(module, torch.jit.ScriptModule):
        if getattr(module, "training", False):
            module = copy.deepcopy(module).eval()
        # A trace keeps sizes as 0-d tensors; only make_fx follows those.
        args = [torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        make_fx(module, tracing_mode="fake", _allow_non_fake_inputs=True)(*args)
        return
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    # Fake copies of the state as well: batch norm in training mode counts its batches even when nothing is computed.
    state: dict[str, torch.Tensor] = {
        name: fake.from_tensor(value) for name, value in [*module.named_parameters(), *module.named_buffers()]
    }
    with fake:
        args = [torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        torch.func.functional_call(module, state, tuple(args))


def _first_words(error: Exception) -> str:
    """The message of torch; of TorchScript's, the last line, since the rest is a listing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = lines[-1] if "TorchScript" in lines[0] else lines[0]
    return re.sub(r"^\w+Error: ", "", line)[:400]


def resolve_inputs(
    loaded: Loaded, input_shapes: Sequence[tuple[int, ...]], *, seed: int = 0
) -> tuple[tuple[torch.Tensor, ...], str]:
    """The tensors to capture a model with, and a sentence that says where their shapes came from.

    Args:
        loaded: the model.
        input_shapes: what the user gave, one per input, in order; may be empty.
        seed: of the normal numbers that fill new tensors; the same seed gives the same numbers.

    Returns:
        ``(args, "from the archive" | "from the file" | "from --input-shape" | "inferred: 1x3x16x112x112 …")``. Without
        `input_shapes`, an archive's own inputs come back as they are, whatever their structure.

    Raises:
        UsageError: the number of shapes or a shape does not suit the model (names the input), or no guess works.
    """
    if loaded.example_args is not None:
        if not input_shapes:
            return loaded.example_args, "from the archive"
        return _reshaped_archive(loaded, input_shapes, seed), "from --input-shape"
    module = loaded.module
    if loaded.kind == "onnx":
        from edge4d.loading.declared import declared_shapes

        ports: Any = module
        found, said = declared_shapes(ports.inputs, input_shapes)
        return _fill(found, [port.dtype for port in ports.inputs], seed), said
    if module is None:
        raise UsageError("the model has no example inputs and no module to try shapes on", hint="give --input-shape")
    dtype = _dtype(module)
    if not input_shapes and loaded.told is not None:
        said = f"from config.json: {format_shape(loaded.told)}" + (" (N T C H W)" if len(loaded.told) == 5 else "")
        return _fill([loaded.told], [dtype], seed), said
    if not input_shapes and loaded.kind == "huggingface":
        raise UsageError("config.json does not tell the shape of the input", hint=_untold(module))
    if not input_shapes:
        guess = infer_input_shapes(module)
        if guess is None:
            raise UsageError(
                "the input shape is not in the file and could not be inferred",
                hint="give it, one per input, for example --input-shape 1x3x16x112x112",
            )
        said = ", ".join(map(format_shape, guess))
        return _fill(
            guess, [dtype] * len(guess), seed
        ), f"inferred: {said} (pass --input-shape if the model wants another)"
    names, needed = _input_names(module)
    if not needed <= len(input_shapes) <= max(len(names), needed):
        raise _wrong_count(names[:needed] or names, input_shapes)
    dtypes = [dtype] * len(input_shapes)
    if (reason := _rejection(module, input_shapes, dtypes, really=True)) is not None:
        given = ", ".join(f"{name}: {format_shape(shape)}" for name, shape in zip(names, input_shapes, strict=False))
        raise UsageError(
            f"the model rejects the input {given}: {reason}",
            hint="check --input-shape: batch first, then channels, e.g. 1x3x16x112x112 for N C T H W",
        )
    return _fill(input_shapes, dtypes, seed), "from --input-shape"


def _untold(module: nn.Module) -> str:
    """What to do about a network whose config does not tell its input; a language model's tower is named."""
    names, _ = _input_names(module)
    if "input_ids" not in names:
        return "give it as the model takes it, frames before channels: --input-shape 1x16x3x224x224"
    from torch import nn

    convs = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Conv3d)]
    parents = [name for name, part in module.named_modules() if name and hasattr(part, "config")]
    towers = [name for name in parents if convs and convs[0].startswith(f"{name}.")]
    where = f"it seems to be {max(towers, key=len)}" if towers else "e.g. model.visual"
    return f"a language model as a whole takes words; give its vision tower by --submodule PATH, {where}"


def _wrong_count(names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> UsageError:
    plural = "input" if len(names) == 1 else "inputs"
    return UsageError(
        f"the model takes {len(names)} {plural} ({', '.join(names)}), --input-shape was given {len(shapes)} time(s): "
        + ", ".join(map(format_shape, shapes)),
        hint="give --input-shape once per input, in the order of the model's arguments; an input that the code reads "
        "by value is baked in instead: --fix 'NAME=[[1, 16, 24]]'",
    )


def _input_names(module: nn.Module) -> tuple[list[str], int]:
    """Names of the positional inputs of `forward`, and how many have no default."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        method: Any = module.forward
        arguments = method.schema.arguments[1:]
        return [a.name for a in arguments], sum(not a.has_default_value() for a in arguments)
    parameters = inspect.signature(module.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in parameters if p.name in names)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        names += [f"input{i}" for i in range(len(names), 64)]
    return names, needed


def _fill(shapes: Sequence[tuple[int, ...]], dtypes: Sequence[torch.dtype], seed: int) -> tuple[torch.Tensor, ...]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(shape, generator=generator).to(dtype)
        if dtype.is_floating_point or dtype.is_complex
        else torch.zeros(shape, dtype=dtype)  # an index or a mask: 0 is the value that is always valid
        for shape, dtype in zip(shapes, dtypes, strict=True)
    )


def _reshaped_archive(loaded: Loaded, shapes: Sequence[tuple[int, ...]], seed: int) -> tuple[torch.Tensor, ...]:
    import torch

    examples = loaded.example_args or ()
    if not all(isinstance(example, torch.Tensor) for example in examples):
        raise UsageError(
            "the archive's inputs are nested (lists, dicts or numbers), so --input-shape cannot describe them",
            hint="leave --input-shape out: the archive's own inputs are used",
        )
    metas = _archive_inputs(loaded)
    if len(metas) != len(shapes):
        raise _wrong_count([name for name, _ in metas], shapes)
    for (name, sizes), shape in zip(metas, shapes, strict=True):
        _check_against_archive(loaded, name, sizes, shape)
    return _fill(shapes, [example.dtype for example in examples], seed)


def _archive_inputs(loaded: Loaded) -> list[tuple[str, list[Any]]]:
    """Name and sizes of each input; a size is an int, or a SymInt where the archive is dynamic."""
    examples = loaded.example_args or ()
    if loaded.program is None:
        return [(f"input{i}", list(example.shape)) for i, example in enumerate(examples)]
    names = loaded.program.graph_signature.user_inputs
    values = {node.name: node.meta["val"] for node in loaded.program.graph.nodes if node.op == "placeholder"}
    return [(str(name), list(values[name].shape)) for name in names]


def _check_against_archive(loaded: Loaded, name: str, sizes: list[Any], shape: tuple[int, ...]) -> None:
    says = format_shape(["?" if not isinstance(size, int) else size for size in sizes])
    wrong = f"the archive says {name}: {says}, --input-shape gave {format_shape(shape)}"
    hint = "leave --input-shape out, or export the archive again with that shape or with dynamic_shapes"
    if len(sizes) != len(shape):
        raise UsageError(f"{wrong} ({len(sizes)} axes against {len(shape)})", hint=hint)
    constraints = loaded.program.range_constraints if loaded.program is not None else {}
    for axis, (size, got) in enumerate(zip(sizes, shape, strict=True)):
        if isinstance(size, int):
            if size != got:
                raise UsageError(f"{wrong} (axis {axis} is fixed at {size})", hint=hint)
        elif (limits := constraints.get(size.node.expr)) is not None and not limits.lower <= got <= limits.upper:
            raise UsageError(f"{wrong} (axis {axis} must lie in {limits.lower}…{limits.upper})", hint=hint)
