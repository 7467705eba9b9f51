"""The rank rule where engines are made: on the ONNX graph, and again on whatever a runtime made of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from edge4d.errors import GateError

__all__ = ["Made", "gate_model", "gate_values"]

_SHOWN = 5
_HINT = "rewrite the model with `edge4d export`; to build it all the same, e.g. for a comparison, add --no-gate"


class Made(NamedTuple):
    """A value of a runtime's own graph.

    Attributes:
        name: the value's.
        rank: number of axes; None when the runtime does not tell.
        layer: what makes it, e.g. ``CONVOLUTION 'layer1/Conv'``.
    """

    name: str
    rank: int | None
    layer: str


def gate_model(path: Path, max_rank: int, what: str = "") -> None:
    """Hold an ONNX file against the limit.

    Args:
        path: the file.
        max_rank: the limit.
        what: what the file is, for messages; its path when empty.

    Raises:
        ValidationError: it cannot be read.
        GateError: a finding.
    """
    from edge4d.validators.rank import check_rank

    report = check_rank(path, max_rank)
    if not report.ok:
        said = [f"{item.code} {item.message} {item.where.to_text()}".rstrip() for item in report.findings]
        raise GateError(f"{what or path}: {_listed(said, max_rank)}", hint=_HINT)


def gate_values(what: str, values: Iterable[Made], max_rank: int) -> int:
    """Hold the values of a runtime's own graph against the limit.

    Returns:
        How many were looked at.

    Raises:
        GateError: one has more axes, or an unknown number of them, or there is none at all.
    """
    count, said = 0, []
    for value in values:
        count += 1
        if value.rank is None:
            said.append(f"{value.name!r} of {value.layer} has an unknown number of axes")
        elif value.rank > max_rank:
            said.append(f"{value.name!r} of {value.layer} has {value.rank} axes")
    if not count:
        said.append("it holds no value, so nothing was checked")
    if said:
        raise GateError(f"{what}: {_listed(said, max_rank)}", hint=_HINT)
    return count


def _listed(said: list[str], max_rank: int) -> str:
    more = f"\n    and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    lines = "".join(f"\n    {line}" for line in said[:_SHOWN])
    return f"{len(said)} finding{'s' if len(said) > 1 else ''} at max rank {max_rank}{lines}{more}"
