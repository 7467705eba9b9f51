"""What every validator returns: findings with stable codes, in a report that alone decides the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "CODES",
    "SCHEMA_VERSION",
    "Code",
    "FailOn",
    "Finding",
    "Report",
    "Severity",
    "Shape",
    "Step",
    "UNPROVEN",
    "Verdict",
    "Where",
    "finding",
    "shape_text",
]

# Sizes that a message states, and those that JSON lists; a hostile file may give a weight a million axes.
_MOST_SIZES = 16
_MOST_LISTED = 64

SCHEMA_VERSION = 1
"""Of `Report.to_dict`; raised when a key changes its meaning or goes away."""

Severity = Literal["error", "warning"]
FailOn = Literal["error", "warning", "never"]
Verdict = Literal["pass", "fail", "unknown"]

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
    Code(
        "E4D101",
        "device-limit",
        "the graph goes beyond a limit that the device's documents state",
        "change the layer, or choose another device; `edge4d verify --list-profiles` shows what each one states",
    ),
    Code(
        "E4D102",
        "device-limit-unproven",
        "nothing proves that the graph keeps a limit of the device",
        "fix the dynamic sizes when exporting, so that there is something to check",
    ),
)

CODES: Mapping[str, Code] = {code.code: code for code in _TABLE}

UNPROVEN = frozenset({"E4D002", "E4D007", "E4D102"})
"""Codes that say "nothing shows that this is well", not "this is wrong"; they fail all the same."""


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
        return {name: getattr(self, name) for name in names} | {"shape": _listed(self.shape)}

    def to_text(self) -> str:
        """Node, subgraph and source in one line, e.g. ``Conv 'c1' (layer1.0.conv1, model.py:42)``; may be empty."""
        node = "" if self.op is None else f"{self.op} {self.node!r}"
        inside = "" if self.graph == "graph" else f"in {self.graph}"
        source = ", ".join(text for text in (self.layer, self.line) if text)
        return " ".join(text for text in (node, inside, f"({source})" if source else "") if text)


@dataclass(frozen=True)
class Step:
    """A value on the way from an input to the value that a finding is about.

    Attributes:
        value: its name.
        shape: its sizes; None when the rank is unknown.
        op: what made it; None for an input or a weight.
        node: the name of the node that made it, likewise.
        skipped: how many nodes before it, which change no rank, are left out.
        cut: whether further steps are left out between this one and the next.
    """

    value: str
    shape: Shape | None
    op: str | None = None
    node: str | None = None
    skipped: int = 0
    cut: bool = False

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping of the attributes."""
        return {
            "value": self.value,
            "shape": _listed(self.shape),
            "op": self.op,
            "node": self.node,
            "skipped": self.skipped,
            "cut": self.cut,
        }

    def to_text(self) -> str:
        """``Reshape 'up' → x_r5 [1, 2, 2, 8, 8]``."""
        made = "" if self.op is None else f"{self.op} {self.node!r} → "
        left_out = f"({self.skipped} of the same rank) → " if self.skipped else ""
        shape = "of unknown rank" if self.shape is None else shape_text(self.shape)
        return f"{left_out}{made}{self.value} {shape}{' → …' if self.cut else ''}"


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
        chain: how the value came about, from an input to it; empty where that does not apply.
        source: of a device's limit, the address of the document that states it.
    """

    code: str
    name: str
    severity: Severity
    message: str
    where: Where
    hint: str
    chain: tuple[Step, ...] = ()
    source: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping of the attributes."""
        return {
            "code": self.code,
            "name": self.name,
            "severity": self.severity,
            "message": self.message,
            "where": self.where.to_dict(),
            "hint": self.hint,
            "chain": [step.to_dict() for step in self.chain],
            "source": self.source,
        }


def finding(
    code: str,
    message: str,
    where: Where,
    *,
    hint: str | None = None,
    severity: Severity = "error",
    chain: tuple[Step, ...] = (),
    source: str | None = None,
) -> Finding:
    """A finding whose name and, unless given, hint come from the table of codes."""
    entry = CODES[code]
    return Finding(code, entry.name, severity, message, where, entry.hint if hint is None else hint, chain, source)


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
        set_aside: how many findings are not among `findings` since the user wants it so, by reason:
            ``ignored``, ``baseline``.
        fail_on: the mildest severity that fails.
        schema_version: of `to_dict`.
    """

    findings: tuple[Finding, ...]
    checked: Mapping[str, int]
    versions: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    highest_rank: int | None = None
    set_aside: Mapping[str, int] = field(default_factory=dict)
    fail_on: FailOn = "error"
    schema_version: int = SCHEMA_VERSION

    @property
    def ok(self) -> bool:
        """Whether no finding is an error (nor a warning, with `fail_on` ``warning``)."""
        failing = ("error", "warning") if self.fail_on == "warning" else ("error",)
        return all(item.severity not in failing for item in self.findings)

    @property
    def verdict(self) -> Verdict:
        """``pass``; ``unknown`` when all that stands in its way is that something could not be proven; ``fail``."""
        codes = {item.code for item in self.findings if self.fail_on == "warning" or item.severity == "error"}
        if not codes:
            return "pass"
        return "unknown" if codes <= UNPROVEN else "fail"

    @property
    def exit_code(self) -> int:
        """0 when `ok`, else 1; always 0 with `fail_on` ``never``. The only place where a verdict becomes a number."""
        return 0 if self.ok or self.fail_on == "never" else 1

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping; its keys are stable within one `schema_version`."""
        return {
            "schema_version": self.schema_version,
            "path": self.path,
            "ok": self.ok,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "fail_on": self.fail_on,
            "settings": dict(self.settings),
            "checked": dict(self.checked),
            "highest_rank": self.highest_rank,
            "counts": dict(Counter(item.code for item in self.findings)),
            "set_aside": dict(self.set_aside),
            "versions": dict(self.versions),
            "findings": [item.to_dict() for item in self.findings],
        }

    def to_text(self, *, limit: int | None = 5) -> str:
        """The verdict in one line, then the findings by kind.

        Args:
            limit: how many findings of a kind to show; None for all.
        """
        from edge4d.validators.formats.text import report_text

        return report_text(self, limit=limit)


def _listed(shape: Shape | None) -> list[int | str | None] | None:
    """For JSON; what a hostile file has too much of is counted in the last entry."""
    if shape is None or len(shape) <= _MOST_LISTED:
        return None if shape is None else list(shape)
    return [*shape[:_MOST_LISTED], f"and {len(shape) - _MOST_LISTED} more"]


def shape_text(shape: Shape) -> str:
    """``(1, 3, None)`` as ``[1, 3, ?]``; of very many sizes the first ones."""
    sizes = ["?" if size is None else str(size) for size in shape[:_MOST_SIZES]]
    return "[" + ", ".join(sizes + ["…"] * (len(shape) > _MOST_SIZES)) + "]"
