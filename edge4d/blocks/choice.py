"""Which structure each layer gets: what ``--block``, given once or often, says. Torch-free."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from edge4d.blocks.registry import EXACT, get, names, suggestion
from edge4d.errors import UsageError

__all__ = ["BlockSpec", "Choice", "near_names"]

BlockSpec: TypeAlias = str | Sequence[str | tuple[str, str]] | Mapping[str, str]
"""``"proposed-add"``, ``["exact", "layer4.*=proposed-add"]``, ``{"layer4.*": "proposed-add"}``, or pairs of those."""


@dataclass(frozen=True)
class Choice:
    """A default and exceptions.

    Attributes:
        default: for the layers that no pattern names: a structure, or ``exact``.
        rules: (pattern, structure or ``exact``); a later rule overrides an earlier one.
    """

    default: str
    rules: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, spec: BlockSpec) -> Choice:
        """Read what the user gave.

        Raises:
            UsageError: an unknown block, two defaults, or nothing at all.
        """
        if isinstance(spec, str):
            items: list[str | tuple[str, str]] = [spec]
        elif isinstance(spec, Mapping):
            items = list(spec.items())
        else:
            items = list(spec)
        defaults: list[str] = []
        rules: list[tuple[str, str]] = []
        for item in items:
            pattern, name = item if isinstance(item, tuple) else _split(item)
            if name != EXACT and name not in names():
                raise UsageError(f"unknown block {name!r}", hint=suggestion(name, (EXACT, *names()), "known blocks"))
            if pattern is None:
                defaults.append(name)
            else:
                rules.append((pattern, name))
        if len(defaults) > 1:
            raise UsageError(
                f"several blocks for every layer: {', '.join(defaults)}",
                hint="give one of them to some layers only: --block exact --block 'layer4.*=proposed-add'",
            )
        if not items:
            raise UsageError("no block was given", hint=f"one of: {', '.join((EXACT, *names()))}")
        return cls(defaults[0] if defaults else EXACT, tuple(rules))

    @property
    def exact(self) -> bool:
        """Nothing is replaced."""
        return self.default == EXACT and all(name == EXACT for _, name in self.rules)

    @property
    def label(self) -> str:
        """As an artifact's metadata carries it: the block's name, or ``mixed: exact, layer4.*=proposed-add``."""
        if self.exact:
            return EXACT
        if not self.rules:
            return self.default
        return f"mixed: {', '.join([self.default, *(f'{pattern}={name}' for pattern, name in self.rules)])}"

    @property
    def blocks(self) -> tuple[str, ...]:
        """The structures in use, `exact` not among them."""
        used = dict.fromkeys([self.default, *(name for _, name in self.rules)])
        return tuple(name for name in used if name != EXACT)

    def rule_for(self, layer: str) -> str | None:
        """What the last pattern that fits a layer says; None when none does."""
        found = None
        for pattern, name in self.rules:
            if fnmatchcase(layer, pattern):
                found = name
        return found

    def check_options(self, options: Mapping[str, object]) -> None:
        """Every option must be one of a structure in use.

        Raises:
            UsageError: one that is not.
        """
        known = {name: get(name).options for name in self.blocks}
        for option in options:
            if not any(option in taken for taken in known.values()):
                said = "; ".join(f"{name}: {', '.join(taken) or 'none'}" for name, taken in known.items())
                raise UsageError(f"no block in use has an option {option!r}", hint=f"options: {said or 'none'}")


def _split(text: str) -> tuple[str | None, str]:
    pattern, equals, name = text.rpartition("=")
    return (pattern, name) if equals else (None, text)


def near_names(pattern: str, known: Sequence[str]) -> str:
    """The names nearest to a pattern that fits none, or the first few."""
    near = difflib.get_close_matches(pattern.rstrip(".*"), known, n=3, cutoff=0.3) or list(known[:5])
    return ", ".join(near)
