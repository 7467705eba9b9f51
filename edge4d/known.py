"""Tensors that depend on no input, computed for real while `torch.export` captures the rest.

`torch.export` runs a model on tensors without data. A literal keeps its value there, what is computed of it does not:
``torch.repeat_interleave(h * w, t).cumsum(0).tolist()`` of a literal grid is then a decision by unknown values. Inside
`knowing`, tensors made of Python values, and whatever is computed of such tensors alone, stay real: they may be
listed, looped over, and be the sizes of a split. Where one meets an input or a weight, a copy of it becomes a constant
of the graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from edge4d.errors import CaptureError
from edge4d.torch_private import outside_of_modes, plain_calls

__all__ = ["knowing"]

_MAKERS = frozenset(
    {
        torch.arange,
        torch.as_tensor,
        torch.empty,
        torch.eye,
        torch.full,
        torch.linspace,
        torch.ones,
        torch.tensor,
        torch.tril_indices,
        torch.triu_indices,
        torch.zeros,
    }
)
"""What makes a tensor of Python values; nothing random."""


class _Known(TorchFunctionMode):
    """Runs calls on known tensors alone for real.

    Attributes:
        made: the known tensors by identity; held, so that no identity is used twice.
        copies: constants of the graph that stand for a known tensor at one of its versions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Tensor] = {}
        self.copies: dict[tuple[int, int], Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = pytree.tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        known = [tensor for tensor in tensors if id(tensor) in self.made]
        symbolic = any(isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool) for leaf in leaves)
        if not symbolic and len(known) == len(tensors) and (tensors or func in _MAKERS):
            found, done = _for_real(func, args, kwargs)
            if done:
                self._note(found)
                return found
        if not known:
            return func(*args, **kwargs)
        versions = [tensor._version for tensor in known]
        args, kwargs = pytree.tree_map(self.constant, (args, kwargs))
        stand_ins = [self.constant(tensor) for tensor in known]
        before = [tensor._version for tensor in stand_ins]
        result = func(*args, **kwargs)
        if [tensor._version for tensor in stand_ins] != before or [t._version for t in known] != versions:
            raise CaptureError(
                f"{getattr(func, '__name__', func)} writes values of an input or a weight into a tensor that was made "
                "of Python numbers, which the capture of this model needs as they are",
                hint="make the new tensor by torch.where, torch.cat or torch.stack instead",
            )
        return result

    def begin(self) -> None:
        """As `with` does, for a hook."""
        self.__enter__()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """The inverse of `begin`."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def constant(self, leaf: Any) -> Any:
        """For a known tensor the constant that stands for it as it is now; anything else as it is."""
        if not isinstance(leaf, Tensor) or id(leaf) not in self.made:
            return leaf
        key = id(leaf), leaf._version
        if key not in self.copies:
            with plain_calls(), outside_of_modes():
                self.copies[key] = leaf.detach().clone()
        return self.copies[key]

    def _note(self, found: Any) -> None:
        for leaf in pytree.tree_leaves(found):
            if isinstance(leaf, Tensor):
                self.made[id(leaf)] = leaf


def _for_real(func: Any, args: Any, kwargs: Any) -> tuple[Any, bool]:
    """(what a call gives outside of any capture, whether that is the same at every call)."""
    with plain_calls(), outside_of_modes():
        state = torch.get_rng_state()
        found = func(*args, **kwargs)
        if torch.equal(state, torch.get_rng_state()):
            return found, True
        torch.set_rng_state(state)
    return None, False


@contextlib.contextmanager
def knowing(model: nn.Module) -> Iterator[None]:
    """For a while, calls of `model` itself compute what depends on no input for real; its results are tensors of the
    graph all the same.
    """
    modes: list[_Known] = []

    def enter(_module: nn.Module, _args: Any) -> None:
        modes.append(_Known())
        modes[-1].begin()

    def leave(_module: nn.Module, _args: Any, result: Any) -> Any:
        mode = modes.pop()
        mode.end()
        return pytree.tree_map(lambda leaf: torch.clone(leaf) if leaf is not mode.constant(leaf) else leaf, result)

    hooks = [model.register_forward_pre_hook(enter), model.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
