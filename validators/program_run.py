"""Runs one node of a `torch.export` program on fake tensors, which have a shape and no numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from edge4d.validators.program_facts import target_name

__all__ = ["HIDDEN", "UNSEEN", "broken_rule", "leaves", "mode_of", "ranks", "run"]

UNSEEN: Any = object()
"""That nothing is known about a node, not even whether it gives tensors."""

HIDDEN = "torch.vmap hides an axis of it; `program.run_decompositions()` shows it"
_BATCHED = "torch._functorch"  # where the functions live that torch.vmap leaves in a graph


def run(node: fx.Node, env: Mapping[fx.Node, Any]) -> tuple[Any, str]:
    """What a node gives when it is run on shapes alone; `UNSEEN` and the reason when it cannot be."""
    if node.op != "call_function" or not callable(node.target):
        return UNSEEN, f"{node.op} is no kind of node that an exported program has"
    if str(getattr(node.target, "__module__", "")).startswith(_BATCHED):
        return UNSEEN, HIDDEN
    changes = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable

    def value(source: fx.Node) -> Any:
        held = env[source]
        return pytree.tree_map_only(torch.Tensor, torch.Tensor.clone, held) if changes else held

    try:
        with _on_shapes(mode_of(env[n] for n in node.all_input_nodes)):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
            return node.target(*args, **kwargs), ""
    except Exception as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        said = f": {lines[0][:160]}" if lines else ""
        return UNSEEN, f"running {target_name(node)} on shapes alone fails ({type(error).__name__}{said})"


def mode_of(values: Iterable[Any]) -> FakeTensorMode:
    """The mode that these values' fake tensors belong to; a new one where there are none."""
    leaves = (leaf for value in values for leaf in pytree.tree_leaves(value))
    modes = (leaf.fake_mode for leaf in leaves if isinstance(leaf, FakeTensor))
    return next(modes, None) or FakeTensorMode()


@contextlib.contextmanager
def _on_shapes(mode: FakeTensorMode) -> Iterator[None]:
    """Within it operators run on shapes alone, and sizes that depend on data get new names that nobody keeps."""
    fresh = contextlib.nullcontext() if mode.shape_env is None else mode.shape_env.ignore_fresh_unbacked_symbols()
    with mode, fresh:
        yield


def broken_rule(graph: fx.Graph) -> str | None:
    """Why a graph is none, as far as torch can tell; None when it is one."""
    try:
        graph.lint()
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    return None


def leaves(value: Any) -> list[tuple[str, torch.Tensor]]:
    """Every tensor within a value, with the path to it: ``""`` for the value itself, ``[1]`` for a part."""
    if value is UNSEEN:
        return []
    found, _ = pytree.tree_flatten_with_path(value)
    return [(pytree.keystr(path), leaf) for path, leaf in found if isinstance(leaf, torch.Tensor)]


def ranks(value: Any) -> list[tuple[str, int]] | None:
    """The rank of every tensor within a value, with the path to it; None for `UNSEEN`."""
    return None if value is UNSEEN else [(path, leaf.dim()) for path, leaf in leaves(value)]
