"""Rules by ATen overload: `check` turns a call into a complete frozen spec or declines, `rewrite` sees only the spec.

A rule must look at every argument of its operator: `Site` counts what `check` has read, and an argument that was not
read is our bug, reported at once, so that no attribute is ever ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from torch._ops import OpOverload

from edge4d.errors import InternalError, UsageError

if TYPE_CHECKING:
    import torch

    from edge4d.lowering.builder import Builder

__all__ = ["Decline", "Rule", "Site", "find", "lowers", "register_rule", "registered"]


@dataclass(frozen=True)
class Decline:
    """Why a rule does not take a call, and what the user can do instead."""

    reason: str
    hint: str | None = None


@dataclass
class Site:
    """One call of an ATen operator on logical operands.

    Attributes:
        op: the overload.
        arguments: every argument by its schema name, defaults filled in; tensors are `Value` or `Const`.
        result: fake tensor(s) with the logical shape and dtype that the call returns.
        used: which of several results the model uses.
    """

    op: OpOverload
    arguments: Mapping[str, Any]
    result: Any
    used: frozenset[int] = frozenset()
    _read: set[str] = field(default_factory=set)

    def take(self, name: str) -> Any:
        """The argument of that schema name."""
        self._read.add(name)
        return self.arguments[name]

    def take_all(self) -> dict[str, Any]:
        """Every argument, for rules that pass them all on unchanged."""
        self._read.update(self.arguments)
        return dict(self.arguments)

    def has(self, name: str) -> bool:
        """Whether this overload has an argument of that name."""
        return name in self.arguments

    @property
    def unread(self) -> list[str]:
        """Arguments that `check` has not looked at."""
        return [name for name in self.arguments if name not in self._read]

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape of the (single) result."""
        return tuple(self.result.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Element type of the (single) result."""
        dtype: torch.dtype = self.result.dtype
        return dtype


Spec = TypeVar("Spec")


class Rule(Protocol, Generic[Spec]):
    """How one family of ATen overloads is brought to rank ≤ 4. Stateless: one instance serves every graph."""

    def check(self, site: Site) -> Spec | Decline:
        """The complete description of the call, or why it is declined. Reads every argument of the site."""

    def rewrite(self, b: Builder, spec: Spec) -> Any:
        """Emit the call; returns an `Operand`, or a list of them for an operator with several results."""


_RULES: dict[OpOverload, Rule[Any]] = {}
_R = TypeVar("_R", bound=Callable[[], Any])


def lowers(*ops: OpOverload) -> Callable[[_R], _R]:
    """Class decorator: one instance of the rule serves these overloads. A second rule for one is an error."""

    def register(rule: _R) -> _R:
        instance = rule()
        for op in ops:
            if op in _RULES:
                raise InternalError(f"{op} has two rules: {type(_RULES[op]).__name__} and {type(instance).__name__}")
            _RULES[op] = instance
        return rule

    return register


def register_rule(op: OpOverload, rule: Rule[Any]) -> None:
    """Add or replace the rule for one overload, for users' own operators.

    Args:
        op: e.g. ``torch.ops.mylib.shift.default``.
        rule: an object with `check` and `rewrite`; see ``docs/writing_rules.md``.

    Raises:
        UsageError: `op` is not an overload (its packet was given, say), or `rule` lacks one of the two methods.
    """
    if not isinstance(op, OpOverload):
        raise UsageError(
            f"register_rule needs an operator overload, got {op!r}", hint="write e.g. torch.ops.mylib.shift.default"
        )
    for method in ("check", "rewrite"):
        if not callable(getattr(rule, method, None)):
            raise UsageError(f"the rule for {op} has no method {method}()", hint="see docs/writing_rules.md")
    _RULES[op] = rule


def find(op: OpOverload) -> Rule[Any] | None:
    """The rule for an overload, or None."""
    return _RULES.get(op)


def registered() -> Iterator[OpOverload]:
    """Every overload that has a rule."""
    return iter(tuple(_RULES))
