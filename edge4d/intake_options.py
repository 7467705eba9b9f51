"""What a user asks of the inputs, ``--normalize`` and ``--input-layout``, and which input each is about."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge4d.errors import UsageError
from edge4d.intake import FIELDS, Given, Intake, Normalize

__all__ = ["Asked"]

_RANKS = (4, 5)
"""Axes of pictures and of clips."""


@dataclass(frozen=True)
class _Entry:
    """One thing that the user asked: of one input, or of every one when `name` is None."""

    name: str | None
    layout: str | None = None
    normalize: Normalize | None = None

    @property
    def option(self) -> str:
        return "--input-layout" if self.layout is not None else "--normalize"


@dataclass(frozen=True)
class Asked:
    """What the user asked of all inputs, before their names are known."""

    entries: tuple[_Entry, ...] = ()

    @classmethod
    def of(
        cls,
        normalize: Given | Sequence[Given] | Mapping[str, Given] | None = None,
        layout: str | Sequence[str] | Mapping[str, str] | None = None,
    ) -> Asked:
        """Read both options.

        Args:
            normalize: see `Normalize.of`; ``NAME:…`` or a mapping by name for one of several inputs.
            layout: ``nhwc``, ``NAME:nhwc``, several of the latter, or a mapping by name.

        Raises:
            UsageError: a spelling that cannot be read.
        """
        plain = isinstance(normalize, Mapping) and set(normalize) <= set(FIELDS)
        found = [
            _Entry(name, normalize=Normalize.of(value))
            for name, value in _named(normalize, whole=plain or isinstance(normalize, Normalize))
        ]
        found += [_Entry(name, layout=Intake(value).layout) for name, value in _named(layout)]
        return cls(tuple(found))

    def __bool__(self) -> bool:
        return bool(self.entries)

    @property
    def normalizes(self) -> bool:
        """Whether any input shall be normalised."""
        return any(entry.normalize is not None for entry in self.entries)

    def to_dict(self) -> dict[str, Any]:
        """What a recipe keeps; empty when nothing was asked."""
        texts: dict[str, list[str]] = {"normalize": [], "input_layout": []}
        for entry in self.entries:
            said = entry.normalize.text if entry.normalize is not None else str(entry.layout)
            key = "normalize" if entry.normalize is not None else "input_layout"
            texts[key].append(f"{entry.name}:{said}" if entry.name is not None else said)
        return {key: said for key, said in texts.items() if said}

    def resolve(
        self, names: Sequence[str | None], shapes: Sequence[Sequence[int]], floats: Sequence[bool]
    ) -> tuple[Intake | None, ...]:
        """For each input, in order, how it is taken; None for the model's own way.

        Args:
            names: of the inputs; None for one whose name is not known yet, which every name then fits.
            shapes: the model's own.
            floats: whether each is of floating point.

        Raises:
            UsageError: no input of that name, one that cannot be taken so, or one that was asked twice.
        """
        known = [name for name in names if name is not None]
        for entry in self.entries:
            if entry.name is not None and None not in names and entry.name not in known:
                near = difflib.get_close_matches(entry.name, known, n=1)
                raise UsageError(
                    f"{entry.option} {entry.name}:…: the model has no such input, it has {', '.join(known)}",
                    hint=f"did you mean {near[0]}?" if near else None,
                )
        return tuple(self._resolved(*one, alone=len(names) == 1) for one in zip(names, shapes, floats, strict=True))

    def _resolved(self, name: str | None, shape: Sequence[int], floats: bool, *, alone: bool) -> Intake | None:
        found = Intake()
        twice: set[str] = set()
        for entry in self.entries:
            if entry.name is not None and name is not None and entry.name != name:
                continue
            if entry.option in twice:
                raise UsageError(f"{entry.option} was given twice for the input {name or 'of the model'!r}")
            twice.add(entry.option)
            _check(entry, name, shape, floats, alone=alone)
            if entry.normalize is not None:
                found = replace(found, normalize=entry.normalize)
            else:
                found = replace(found, layout=str(entry.layout))
        return found if found != Intake() else None


def _check(entry: _Entry, name: str | None, shape: Sequence[int], floats: bool, *, alone: bool) -> None:
    said = f"{entry.option}: the input {name!r}" if name is not None else f"{entry.option}: the model's input"
    others = None if alone else f"name the inputs that are frames: {entry.option} NAME:…"
    if len(shape) not in _RANKS:
        raise UsageError(
            f"{said} is {'x'.join(map(str, shape)) or 'a scalar'}, expected clips N C T H W or pictures N C H W",
            hint=others,
        )
    if entry.normalize is None:
        return
    if not floats:
        raise UsageError(
            f"{said} is not of floating point: the model takes such frames as they are", hint=others or "leave it out"
        )
    count = entry.normalize.channels
    if count is not None and count != shape[1]:
        raise UsageError(
            f"{said} has {shape[1]} channels, mean and std are for {count}",
            hint=others or "one number, or one a channel",
        )


def _named(given: Any, *, whole: bool = False) -> list[tuple[str | None, Any]]:
    """(name or None, what was given) for each thing given."""
    if given is None:
        return []
    if isinstance(given, Mapping) and not whole:
        return [(str(name), value) for name, value in given.items()]
    if isinstance(given, str):
        name, colon, rest = given.partition(":")
        return [(name.strip(), rest.strip()) if colon and name.strip() else (None, given)]
    if whole or not isinstance(given, Sequence):
        return [(None, given)]
    return [pair for one in given for pair in _named(one, whole=not isinstance(one, str))]
