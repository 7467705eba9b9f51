"""What every validator returns: findings with stable codes, in a report that alone decides the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "CODES",
    "SCHEMA_VERSION",
    "Code",
    "Finding",
    "Report",
    "Severity",
    "Shape",
    "Where",
    "finding",
    "shape_text",
]

SCHEMA_VERSION = 1
"""Of `Report.to_dict`; raised when a key changes its meaning or goes away."""

Severity = Literal["error", "warning"]

Shape = tuple[int | str | None, ...]
"""Sizes of a value: a number, the name of a dynamic size, or None for a size that nothing tells."""


@dataclass(frozen=True)
class Code:
    """One kind of finding; its code and name never change their meaning.

    Attributes:
        code: for machines and for baselines, e.g. ``E4D001``.
        name: for people, e.g. ``rank-over-limit``.
        explanation: one line that says what is wrong.
        hint: what to do about it, unless the finding knows better.
    """

    code: str
    name: str
    explanation: str
    hint: str


# In the order in which a report shows them: what is no model at all, then causes before their consequences.
_TABLE = (
    Code(
        "E4D006",
        "invalid-graph",
        "the file breaks a rule of ONNX that every runtime relies on",
        "run `onnx.checker.check_model` on it and write it anew from its source",
    ),
    Code(
        "E4D004",
        "nothing-checked",
        "the model holds no value that could be checked, so nothing was proven",
        "check that this is the file you meant, and that its export ended well",
    ),
    Code(
        "E4D003",
        "three-axis-operator",
        "the operator works on three spatial axes",
        "rewrite the model with `edge4d export MODEL`, which replaces such operators by equal 2-D ones",
    ),
    Code(
        "E4D001",
        "rank-over-limit",
        "a value has more axes than the target takes",
        "rewrite the model with `edge4d export MODEL`, which keeps every value within four axes",
    ),
    Code(
        "E4D005",
        "shape-contradiction",
        "the file declares a shape that the graph itself contradicts",
        "drop the stale value_info (onnxsim does), or repair the tool that wrote it",
    ),
    Code(
        "E4D002",
        "rank-unknown",
        "nothing proves how many axes a value has",
        "give every graph input a shape, and replace operators that shape inference does not know",
    ),
    Code(
        "E4D007",
        "section-not-checked",
        "the file holds a section that the gate does not look into",
        "export the model for inference, without training_info",
    ),
)

CODES: Mapping[str, Code] = {code.code: code for code in _TABLE}


@dataclass(frozen=True)
class Where:
    """The place a finding is about; what is not known or does not apply is None.

    Attributes:
        graph: path of the (sub)graph or function, e.g. ``graph / If 'gate' / then_branch``.
        node: the node's name, or ``#3`` (its place in the graph) for a nameless one.
        op: the operator, with its domain unless that is ONNX's own.
        value: the tensor's name.
        shape: its inferred sizes; None when the rank is unknown.
        layer: the source module, e.g. ``layer1.0.conv1``, when the exporter left it in the metadata.
        line: the source line, e.g. ``model.py:42``, likewise.
    """

    graph: str
    node: str | None = None
    op: str | None = None
    value: str | None = None
    shape: Shape | None = None
    layer: str | None = None
    line: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping of the attributes."""
        names = ("graph", "node", "op", "value", "layer", "line")
        shape = None if self.shape is None else list(self.shape)
        return {name: getattr(self, name) for name in names} | {"shape": shape}

    def to_text(self) -> str:
        """Node, subgraph and source in one line, e.g. ``Conv 'c1' (layer1.0.conv1, model.py:42)``; may be empty."""
        node = "" if self.op is None else f"{self.op} {self.node!r}"
        inside = "" if self.graph == "graph" else f"in {self.graph}"
        source = ", ".join(text for text in (self.layer, self.line) if text)
        return " ".join(text for text in (node, inside, f"({source})" if source else "") if text)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: stable code, a key of `CODES`.
        name: the code's name for people.
        severity: ``error`` makes the report fail, ``warning`` does not.
        message: what was got and what was expected, one line.
        where: the place.
        hint: what to do.
    """

    code: str
    name: str
    severity: Severity
    message: str
    where: Where
    hint: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping of the attributes."""
        return {
            "code": self.code,
            "name": self.name,
            "severity": self.severity,
            "message": self.message,
            "where": self.where.to_dict(),
            "hint": self.hint,
        }


def finding(code: str, message: str, where: Where, *, hint: str | None = None, severity: Severity = "error") -> Finding:
    """A finding whose name and, unless given, hint come from the table of codes."""
    entry = CODES[code]
    return Finding(code, entry.name, severity, message, where, entry.hint if hint is None else hint)


@dataclass(frozen=True)
class Report:
    """What a validator found, and what it looked at.

    Attributes:
        findings: everything that is wrong, worst kind first.
        checked: how many of each thing were looked at: ``graphs``, ``functions``, ``nodes``, ``values``, …
        versions: of the tools that were at work, by name.
        settings: what was asked for, e.g. ``{"max_rank": 4}``.
        path: the file; None for a model in memory.
        highest_rank: the greatest rank seen; None when no rank is known.
        schema_version: of `to_dict`.
    """

    findings: tuple[Finding, ...]
    checked: Mapping[str, int]
    versions: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    highest_rank: int | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(item.severity != "error" for item in self.findings)

    @property
    def exit_code(self) -> int:
        """0 when `ok`, else 1. The only place where a verdict becomes an exit code."""
        return 0 if self.ok else 1

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping; its keys are stable within one `schema_version`."""
        return {
            "schema_version": self.schema_version,
            "path": self.path,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "settings": dict(self.settings),
            "checked": dict(self.checked),
            "highest_rank": self.highest_rank,
            "versions": dict(self.versions),
            "findings": [item.to_dict() for item in self.findings],
        }

    def to_text(self, *, limit: int | None = 5) -> str:
        """The verdict in one line, then the findings by kind.

        Args:
            limit: how many findings of a kind to show; None for all.
        """
        counts = Counter(item.code for item in self.findings)
        what = ", ".join(f"{counts[code]} {CODES[code].name}" for code in CODES if counts[code]) or "ok"
        looked = ", ".join(_counted(n, noun) for noun, n in self.checked.items() if n)
        rank = "" if self.highest_rank is None else f"; highest rank {self.highest_rank}"
        lines = [f"{'✓' if self.ok else '✗'} {self.path or 'model'}: {what} (checked {looked or 'nothing'}{rank})"]
        for code in CODES:
            lines += _group([item for item in self.findings if item.code == code], limit)
        return "\n".join(lines)


def _group(items: Sequence[Finding], limit: int | None) -> Iterable[str]:
    """The lines of one kind of finding; a hint that several share is said once, after them."""
    if not items:
        return
    kind = CODES[items[0].code]
    yield f"  {kind.code} {kind.name}: {kind.explanation}"
    shown = items if limit is None else items[:limit]
    for item in shown:
        place = item.where.to_text()
        yield f"    {place}: {item.message}" if place else f"    {item.message}"
    if len(items) > len(shown):
        yield f"    … and {len(items) - len(shown)} more (--verbose shows all)"
    for hint in dict.fromkeys(item.hint for item in shown):
        yield f"    hint: {hint}"


def _counted(n: int, plural: str) -> str:
    return f"{n} {plural.removesuffix('s') if n == 1 else plural}"


def shape_text(shape: Shape) -> str:
    """``(1, 3, None)`` as ``[1, 3, ?]``."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
