"""What is measured: the cases of cases.toml."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edge4d.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["CASES", "Case", "load_cases", "select"]

CASES = Path(__file__).with_name("cases.toml")


@dataclass(frozen=True)
class Case:
    """One network at one size.

    Attributes:
        name: what ``--cases`` takes.
        model: its name in ``tests/zoo/models.py``.
        shape: of one clip, C T H W; of a network's first input.
        batch: clips in a call.
        threads: CPU threads of every candidate.
        peer: another library's form of the same network that is timed beside the others, a name of
            ``benchmarks/peers.py``; none when empty.
    """

    name: str
    model: str
    shape: tuple[int, ...]
    batch: int
    threads: int
    peer: str = ""


def load_cases(path: Path = CASES) -> tuple[Case, ...]:
    """Read the cases.

    Raises:
        UsageError: not TOML, a key too many or missing, a value that makes no sense, or a name given twice.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("case", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path}: holds no [[case]]")
    cases = tuple(_case(path, i, entry) for i, entry in enumerate(entries, 1))
    names = [case.name for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{path}: more than one case is named {', '.join(twice)}")
    return cases


def select(cases: tuple[Case, ...], names: list[str] | None) -> tuple[Case, ...]:
    """The cases of these names in the file's order; all of them when None.

    Raises:
        UsageError: an unknown name.
    """
    if names is None:
        return cases
    known = [case.name for case in cases]
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no case {', '.join(unknown)}", hint=f"there are {', '.join(known)}")
    return tuple(case for case in cases if case.name in names)


def _case(path: Path, number: int, entry: dict[str, Any]) -> Case:
    where = f"{path}: case {number}"
    wanted = {field.name for field in fields(Case)} - {"peer"}
    if set(entry) - {"peer"} != wanted:
        odd = ", ".join(sorted((set(entry) - {"peer"}) ^ wanted))
        raise UsageError(f"{where}: missing or unknown keys: {odd}", hint=f"write {', '.join(sorted(wanted))}")
    shape, counts = entry["shape"], (entry["batch"], entry["threads"])
    if not (isinstance(shape, list) and len(shape) == 4 and all(_count(size) for size in shape)):
        raise UsageError(f"{where}: shape is {shape}, expected four positive sizes, C T H W")
    if not all(_count(value) for value in counts):
        raise UsageError(f"{where}: batch and threads are {counts}, expected positive integers")
    return Case(str(entry["name"]), str(entry["model"]), tuple(shape), *counts, str(entry.get("peer", "")))


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
