"""Device profiles: what a device's documents state outright, each limit with its source, version and date.

A profile is a TOML file; those that edge4d ships stand in ``profiles/``, and users give the paths of their own.
"""

from __future__ import annotations

import datetime
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge4d.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["KINDS", "Bound", "Profile", "load_profile", "shipped_profiles"]

_HOME = Path(__file__).with_name("profiles")
_FORMAT = 1
_LARGEST = 1 << 20  # bytes


@dataclass(frozen=True)
class _Kind:
    """What a kind of limit may and must say."""

    explanation: str
    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


_WINDOW = (frozenset({"operators"}), frozenset({"min", "max", "axis"}))
_OPERATORS = frozenset({"operators"})
_MAX = frozenset({"max"})

KINDS: Mapping[str, _Kind] = {
    "rank": _Kind("the most axes of a value, or of what some operators take and give", _MAX, _OPERATORS),
    "spatial-axes": _Kind("no operator works on three spatial axes"),
    "forbidden": _Kind("operators that there are not", _OPERATORS),
    "kernel": _Kind("sizes of a window", *_WINDOW),
    "dilated-kernel": _Kind("sizes of a window with its holes", *_WINDOW),
    "stride": _Kind("steps of a window", *_WINDOW),
    "size": _Kind("sizes of a value's last three axes", frozenset(), frozenset({"min", "max", "operators"})),
    "batch": _Kind("product of the sizes before the last three axes", _MAX, _OPERATORS),
    "inner-axes": _Kind("how many innermost axes may be larger than 1", _MAX),
    "static": _Kind("no dynamic sizes"),
    "opset": _Kind("version of ONNX's operator set", frozenset(), frozenset({"min", "max"})),
}
"""Kinds of limits."""

_ALWAYS = {"kind": str, "states": str, "source": str, "versions": str, "read": datetime.date, "confidence": str}
_MAYBE: Mapping[str, type] = {"min": int, "max": int, "operators": list, "axis": str}
_TOP = {"format": int, "name": str, "title": str, "toolchain": str, "bound": list}
_CONFIDENCE = ("document", "source code", "thread", "page", "own")
AXES: Mapping[str, int] = {"height": -2, "width": -1}


@dataclass(frozen=True)
class Bound:
    """One limit.

    Attributes:
        kind: a key of `KINDS`.
        states: what the source says, in one sentence.
        source: address of the document.
        versions: of the toolchain that it was stated for.
        read: the day on which the source was read.
        confidence: what kind of source it is.
        min: the least value, None for none.
        max: the greatest value, None for none.
        operators: which operators it concerns; empty for all.
        axis: ``height`` or ``width`` when it concerns one of them only.
    """

    kind: str
    states: str
    source: str
    versions: str
    read: datetime.date
    confidence: str
    min: int | None = None
    max: int | None = None
    operators: tuple[str, ...] = ()
    axis: str | None = None

    def allows(self, number: int) -> bool:
        """Whether a number keeps the limit."""
        return (self.min is None or number >= self.min) and (self.max is None or number <= self.max)

    @property
    def expected(self) -> str:
        """``at most 4``, ``1 to 8``."""
        if self.min is not None and self.max is not None:
            return f"{self.min} to {self.max}" if self.min != self.max else str(self.max)
        return f"at most {self.max}" if self.max is not None else f"at least {self.min}"

    @property
    def cited(self) -> str:
        """Where the limit comes from, with version and date."""
        return f"{self.source} ({self.confidence}; {self.versions}; read {self.read.isoformat()})"


@dataclass(frozen=True)
class Profile:
    """A device.

    Attributes:
        name: how the command line calls it.
        title: for people.
        toolchain: the compiler or runtime, with the versions that the profile is about.
        bounds: its limits.
        notes: what a user should know besides.
        path: the file.
    """

    name: str
    title: str
    toolchain: str
    bounds: tuple[Bound, ...]
    notes: str
    path: Path

    @property
    def max_rank(self) -> int | None:
        """The most axes that any value may have; None when nothing is stated about all values."""
        stated = (b.max for b in self.bounds if b.kind == "rank" and not b.operators)
        return min((rank for rank in stated if rank is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        bounds = [
            {**vars(bound), "read": bound.read.isoformat(), "operators": list(bound.operators)} for bound in self.bounds
        ]
        return {
            "name": self.name,
            "title": self.title,
            "toolchain": self.toolchain,
            "notes": self.notes,
            "bounds": bounds,
        }

    def bound(self, kind: str) -> Bound | None:
        """The first limit of a kind that concerns all operators."""
        return next((bound for bound in self.bounds if bound.kind == kind and not bound.operators), None)


def shipped_profiles() -> list[Profile]:
    """All profiles that edge4d ships, by name."""
    return [_read(path) for path in sorted(_HOME.glob("*.toml"))]


def load_profile(wanted: str) -> Profile:
    """A shipped profile by name, or a user's by path.

    Raises:
        UsageError: there is no such profile, or its file is not as it should be (says where).
    """
    names = [path.stem for path in sorted(_HOME.glob("*.toml"))]
    if wanted in names:
        return _read(_HOME / f"{wanted}.toml")
    path = Path(wanted)
    if path.suffix == ".toml" or path.is_file():
        return _read(path)
    near = difflib.get_close_matches(wanted, names, 1)
    known = f"known are {', '.join(names)}; a file of your own ends in .toml"
    raise UsageError(f"there is no profile {wanted!r}", hint=f"did you mean {near[0]}? {known}" if near else known)


def _read(path: Path) -> Profile:
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"profile {path}: larger than {_LARGEST} bytes")
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"profile {path}: no such file", hint="see `edge4d verify --list-profiles`") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"profile {path}: cannot be read: {error}") from error
    return _checked(path, data)


def _checked(path: Path, data: Mapping[str, Any]) -> Profile:
    _fields(path, "the file", data, _TOP, {"notes": str})
    if data["format"] != _FORMAT:
        raise _wrong(path, f"format {data['format']}, this edge4d reads {_FORMAT}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", data["name"]):
        raise _wrong(path, f"name {data['name']!r}, expected lower-case letters, digits and hyphens")
    if not data["bound"]:
        raise _wrong(path, "states no limit, so it would pass everything")
    bounds = tuple(_bound(path, i, entry) for i, entry in enumerate(data["bound"], 1))
    return Profile(data["name"], data["title"], data["toolchain"], bounds, data.get("notes", ""), path)


def _bound(path: Path, number: int, entry: Any) -> Bound:
    place = f"bound {number}"
    if not isinstance(entry, dict):
        raise _wrong(path, f"{place} is no table")
    kind = KINDS.get(str(entry.get("kind")))
    if kind is None:
        raise _wrong(path, f"{place}: kind {entry.get('kind')!r}, expected one of: {', '.join(KINDS)}")
    place += f" ({entry['kind']})"
    required = {**_ALWAYS, **{key: _MAYBE[key] for key in kind.required}}
    _fields(path, place, entry, required, {key: _MAYBE[key] for key in kind.optional})
    if "max" in kind.optional and "max" not in entry and "min" not in entry:
        raise _wrong(path, f"{place}: neither min nor max, so it limits nothing")
    operators = entry.get("operators", [])
    if not all(isinstance(op, str) and op for op in operators) or ("operators" in entry and not operators):
        raise _wrong(path, f"{place}: operators, expected names of operators")
    _check_operators(path, place, operators)
    least, most = entry.get("min", 1), entry.get("max", sys.maxsize)
    if least < 0 or most < max(least, 1):
        raise _wrong(path, f"{place}: min and max, expected 0 <= min <= max, and max at least 1")
    if entry.get("axis", "width") not in AXES:
        raise _wrong(path, f"{place}: axis {entry['axis']!r}, expected one of: {', '.join(AXES)}")
    if entry["confidence"] not in _CONFIDENCE:
        raise _wrong(path, f"{place}: confidence {entry['confidence']!r}, expected one of: {', '.join(_CONFIDENCE)}")
    if entry["confidence"] != "own" and not re.match(r"https://\S+$", entry["source"]):
        raise _wrong(path, f"{place}: source {entry['source']!r}, expected an https address")
    return Bound(**{**entry, "operators": tuple(operators)})


def _check_operators(path: Path, place: str, operators: Sequence[str]) -> None:
    """A name that no operator of ONNX has would never be met, and the limit pass everything."""
    if not operators:
        return
    from onnx import defs

    known = {schema.name for schema in defs.get_all_schemas() if not schema.domain}
    for op in operators:
        if op not in known:
            raise _wrong(path, f"{place}: operators: ONNX has no {op!r}", near=difflib.get_close_matches(op, known, 1))


def _fields(
    path: Path, place: str, entry: Mapping[str, Any], required: Mapping[str, type], optional: Mapping[str, type]
) -> None:
    known = [*required, *optional]
    for key in entry:
        if key not in known:
            raise _wrong(path, f"{place}: unknown key {key!r}", near=difflib.get_close_matches(key, known, 1))
    for key in required:
        if key not in entry:
            raise _wrong(path, f"{place} lacks {key!r}")
    for key, value in entry.items():
        expected = required.get(key) or optional[key]
        # A bool is an int to Python, and a time a date: neither is meant here.
        if type(value) is not expected or (isinstance(value, str) and not value.strip()):
            raise _wrong(path, f"{place}: {key} is {value!r:.60}, expected {_WORDS[expected]}")


_WORDS: Mapping[type, str] = {
    int: "an integer",
    str: "a text",
    list: "a list",
    datetime.date: "a date such as 2026-01-31, without quotes",
}


def _wrong(path: Path, what: str, near: Sequence[str] = ()) -> UsageError:
    hint = f"did you mean {near[0]}?" if near else "docs/gate.md shows a whole profile and the keys of each kind"
    return UsageError(f"profile {path}: {what}", hint=hint)
