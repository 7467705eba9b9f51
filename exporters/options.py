"""Options of a runtime as a frozen dataclass: unknown names are answered with the nearest, None means the default."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from edge4d.errors import UsageError

__all__ = ["as_names", "check_count", "check_settings", "checked"]

T = TypeVar("T")


def checked(kind: type[T], runtime: str, given: Mapping[str, Any]) -> T:
    """Make the options of a runtime.

    Args:
        kind: a dataclass; its ``__post_init__`` checks the values.
        runtime: for messages.
        given: by name; those that are None are left at their defaults.

    Raises:
        UsageError: an unknown name, or a value that the dataclass refuses.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise UsageError(
                f"{runtime} has no option {name!r}, expected one of: {', '.join(known)}",
                hint=f"did you mean {near[0]!r}?" if near else None,
            )
    return kind(**{name: value for name, value in given.items() if value is not None})


def as_names(value: Any) -> tuple[str, ...]:
    """One name or several as several."""
    return (value,) if isinstance(value, str) else tuple(value)


def check_count(name: str, value: Any) -> None:
    """Refuse what is no whole number from 0 on.

    Raises:
        UsageError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{name} {value!r}, expected a whole number, 0 for the runtime's own choice")


def check_settings(value: Any) -> dict[str, str]:
    """A runtime's own settings by name, as text.

    Raises:
        UsageError: no mapping of names to plain values.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
        raise UsageError(f"settings {value!r}, expected names and values", hint="--option NAME=VALUE")
    return {key: str(entry) for key, entry in value.items()}
