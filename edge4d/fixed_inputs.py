"""Inputs whose values are baked into the graph, `--fix NAME=VALUES`, and the part of a network that is wanted.

Some networks read an input by value: the grid of a vision tower says how many patches each picture or clip has, and
Python loops over it. No graph can leave that open. A fixed input is made inside ``forward`` of a literal instead of
being taken.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Fixes", "fix_inputs", "fixed_of", "fixes_text", "parse_fixes", "part_of"]

Fixes = Mapping[str, Any]
"""Values by the name of the argument: numbers, texts, booleans and None as they are; lists become tensors."""

_SPELLING = "for example --fix 'grid_thw=[[1, 16, 24]]'; a list becomes a tensor, a single value stays one"


def parse_fixes(texts: Sequence[str] | None) -> dict[str, Any]:
    """``["grid_thw=[[1, 16, 24]]"]`` as a mapping; values are JSON.

    Raises:
        UsageError: no name, no JSON, or a name given twice.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        name = name.strip()
        if not name.isidentifier() or not sign:
            raise UsageError(f"--fix {text!r}, expected NAME=VALUES", hint=_SPELLING)
        if name in found:
            raise UsageError(f"--fix {name} was given twice")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--fix {name}: {value!r} cannot be read as JSON: {error}", hint=_SPELLING) from None
    return found


def fix_inputs(model: Any, fixes: Fixes | None) -> Any:
    """A module that makes some of its inputs itself; `model` stays as it is and shares its weights.

    Args:
        model: an `nn.Module`; a graph (an `ExportedProgram`, TorchScript) has read its inputs' values already.
        fixes: values by argument of ``forward``; tensors and arrays are taken as lists. Floats become float32,
            integers int64.

    Returns:
        The model itself without `fixes`; else a module with the same layers, whose ``forward`` lacks these arguments.

    Raises:
        UsageError: no argument of that name, values that make no tensor, or a model that is a graph.
    """
    if not fixes:
        return model
    if _is_graph(model):
        raise UsageError(
            f"--fix {', '.join(fixes)}: {type(model).__name__} is a graph, which takes the inputs it was made with",
            hint="fix the input where the graph is made, or give the nn.Module itself",
        )
    values = {name: _checked(name, value) for name, value in fixes.items()}
    whole = inspect.signature(model.forward)
    for name in values:
        _check_name(name, whole)
    fixed: Any = copy.copy(model)
    fixed.__class__ = _fixing(type(model), whole, tuple(values))
    fixed.edge4d_fixed = values
    return fixed


def part_of(model: Any, path: str) -> Any:
    """A part of a network, e.g. the vision tower of a language model.

    Raises:
        UsageError: no part of that path, or a model that is a graph.
    """
    if _is_graph(model):
        raise UsageError(
            f"--submodule {path}: {type(model).__name__} is a graph, not a network of parts",
            hint="take the part where the graph is made, or give the nn.Module itself",
        )
    parts = dict(model.named_modules())
    if path not in parts or not path:
        near = [name for name, _ in model.named_children()]
        near = difflib.get_close_matches(path, parts, n=3, cutoff=0.4) or near[:8]
        raise UsageError(
            f"--submodule {path}: {type(model).__name__} has no such part", hint=f"there is {', '.join(near) or 'none'}"
        )
    return parts[path]


def fixed_of(model: Any) -> dict[str, Any]:
    """The values that `fix_inputs` gave to a module; empty for any other."""
    return dict(getattr(model, "edge4d_fixed", {}))


def fixes_text(fixes: Fixes | None) -> list[str]:
    """As the command line spells them, for a recipe."""
    return [f"{name}={json.dumps(_checked(name, value))}" for name, value in (fixes or {}).items()]


def _fixing(base: type[nn.Module], whole: inspect.Signature, names: tuple[str, ...]) -> type[nn.Module]:
    """A class of its own, so that copies of the module call their own layers."""
    left = whole.replace(parameters=[p for name, p in whole.parameters.items() if name not in names])

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = left.bind(*args, **kwargs).arguments | {n: _made(v) for n, v in self.edge4d_fixed.items()}
        ordered = OrderedDict((name, given[name]) for name in whole.parameters if name in given)
        call = inspect.BoundArguments(whole, ordered)
        return base.forward(self, *call.args, **call.kwargs)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    keyed = any(p.kind is p.POSITIONAL_ONLY for p in left.parameters.values())
    own = own if keyed else own.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = left.replace(parameters=[own, *left.parameters.values()])  # type: ignore[attr-defined]
    return type(base.__name__, (base,), {"forward": forward, "__module__": base.__module__})


def _made(value: Any) -> Any:
    import torch

    return torch.tensor(value) if isinstance(value, list) else value


def _checked(name: str, value: Any) -> Any:
    """As JSON has it.

    Raises:
        UsageError: lists of unequal lengths, or what is neither a number nor a text.
    """
    import torch

    value = value.tolist() if hasattr(value, "tolist") else value
    value = _lists(value)
    if isinstance(value, list):
        try:
            torch.tensor(value)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise UsageError(f"--fix {name}={value}: makes no tensor: {error}", hint=_SPELLING) from None
    elif not isinstance(value, str | bool | int | float | None):
        raise UsageError(f"--fix {name}: a {type(value).__name__} cannot be baked into a graph", hint=_SPELLING)
    return value


def _lists(value: Any) -> Any:
    return [_lists(one) for one in value] if isinstance(value, list | tuple) else value


def _check_name(name: str, whole: inspect.Signature) -> None:
    known = [n for n, p in whole.parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"--fix {name}: the model's forward has no such argument, it has {', '.join(known) or 'none'}",
            hint=f"did you mean {near[0]}?" if near else None,
        )


def _is_graph(model: Any) -> bool:
    import torch

    from edge4d.loading.onnx import OnnxModel

    graphs = torch.jit.ScriptModule | torch.fx.GraphModule | OnnxModel
    return not isinstance(model, torch.nn.Module) or isinstance(model, graphs)
