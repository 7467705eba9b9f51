"""Higher-order operators of PyTorch: what the formal inputs of their subgraphs are, and what they give back.

Only ranks are needed, so a slice of a tensor is told by its element, and a stack by one that has an axis more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Call", "call_of"]

Results = Sequence[Sequence[Any]]
"""What each subgraph gives back, flat, in the order in which a `Call` lists them."""


@dataclass(frozen=True)
class Call:
    """How a higher-order operator uses its subgraphs.

    Attributes:
        bodies: for each argument that is a subgraph: its place among the arguments, and what its inputs are.
        results: what the operator gives back, from what its subgraphs do. Several versions are held to agree.
        context: what the subgraphs run within, e.g. the arguments of `torch.autocast`; None for nothing.
    """

    bodies: Sequence[tuple[int, Sequence[Any]]]
    results: Callable[[Results], Sequence[Sequence[Any]]]
    context: Mapping[str, Any] | None = None


def call_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call | None:
    """What is known about a call; None for an operator that edge4d has no rule for, or that is called in another way.

    Args:
        name: of the operator, e.g. ``cond``.
        args: values of its arguments; anything for those that are subgraphs.
        kwargs: its keyword arguments, of which none is expected.
    """
    rule = _RULES.get(name)
    if rule is None or kwargs:
        return None
    try:
        return rule(*args)
    except (TypeError, AttributeError, IndexError):  # other arguments than this version of PyTorch has
        return None


def _cond(_predicate: Any, _then: Any, _other: Any, operands: Sequence[Any] = ()) -> Call:
    return Call([(1, operands), (2, operands)], lambda bodies: bodies)


def _while_loop(_condition: Any, _body: Any, carried: Sequence[Any], more: Sequence[Any] = ()) -> Call:
    inputs = [*carried, *more]
    # A carried value is what it starts as, and what every round makes of it.
    return Call([(0, inputs), (1, inputs)], lambda bodies: [carried, bodies[1]])


def _scan(_body: Any, initial: Sequence[Any], xs: Sequence[Any], more: Sequence[Any] = ()) -> Call:
    count = len(initial)

    def results(bodies: Results) -> Sequence[Sequence[Any]]:
        (made,) = bodies
        stacks = [_stacked(value) for value in made[count:]]
        return [[*initial, *stacks], [*made[:count], *stacks]]

    return Call([(0, [*initial, *map(_slice, xs), *more])], results)


def _associative_scan(_body: Any, xs: Sequence[Any], more: Sequence[Any] = ()) -> Call:
    slices = [_slice(x) for x in xs]
    return Call([(0, [*slices, *slices, *more])], lambda bodies: [xs, [_stacked(value) for value in bodies[0]]])


def _map(_body: Any, xs: Sequence[Any], more: Sequence[Any] = ()) -> Call:
    return Call([(0, [*map(_slice, xs), *more])], lambda bodies: [[_stacked(value) for value in bodies[0]]])


def _wrap(_body: Any, *inputs: Any) -> Call:
    return Call([(0, inputs)], lambda bodies: bodies)


def _strict_mode(_body: Any, operands: Sequence[Any]) -> Call:
    return Call([(0, operands)], lambda bodies: bodies)


def _no_grad(_enabled: bool, _body: Any, *inputs: Any) -> Call:
    return Call([(1, inputs)], lambda bodies: bodies)


def _autocast(device: str, dtype: Any, enabled: bool, cache: bool | None, _body: Any, *inputs: Any) -> Call:
    context = {"device_type": device, "dtype": dtype, "enabled": enabled, "cache_enabled": cache}
    return Call([(4, inputs)], lambda bodies: bodies, context)


def _invoke(_body: Any, _name: str, *inputs: Any) -> Call:
    return Call([(0, inputs)], lambda bodies: bodies)


_RULES: Mapping[str, Callable[..., Call]] = {
    "cond": _cond,
    "while_loop": _while_loop,
    "scan": _scan,
    "associative_scan": _associative_scan,
    "map_impl": _map,
    "wrap": _wrap,
    "wrap_activation_checkpoint": _wrap,
    "tag_activation_checkpoint": _wrap,
    "strict_mode": _strict_mode,
    "wrap_with_set_grad_enabled": _no_grad,
    "wrap_with_autocast": _autocast,
    "invoke_subgraph": _invoke,
}


def _slice(value: Any) -> Any:
    """One element along the first axis."""
    return value.new_empty(value.shape[1:])


def _stacked(value: Any) -> Any:
    """With one axis more; what is no tensor stays as it is."""
    return value.new_empty((1, *value.shape)) if hasattr(value, "new_empty") else value
