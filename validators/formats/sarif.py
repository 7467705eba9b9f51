"""SARIF 2.1.0, as code scanning takes it: relative URIs, one rule a code, results that keep their identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d._version import __version__
from edge4d.validators.baseline import Baseline, fingerprint
from edge4d.validators.explaining import explain, list_rules
from edge4d.validators.formats.places import relative, source_place, told, uri
from edge4d.validators.gate import Unreadable

if TYPE_CHECKING:
    from edge4d.validators.findings import Finding, Report
    from edge4d.validators.gate import GateReport

__all__ = ["render"]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "%SRCROOT%"


def render(gate: GateReport, root: Path) -> str:
    """The whole document."""
    rules = list_rules()
    places = {rule["code"]: i for i, rule in enumerate(rules)}
    run = {
        "tool": {
            "driver": {
                "name": "edge4d",
                "semanticVersion": __version__,
                "rules": [_rule(rule) for rule in rules],
            }
        },
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {_ROOT: {"description": {"text": "The folder that the paths are relative to."}}},
        "invocations": [_invocation(gate, root)],
        "results": [
            _result(report, item, places[item.code], root) for report in gate.reports for item in report.findings
        ],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _rule(rule: dict[str, str]) -> dict[str, Any]:
    text = explain(rule["code"])
    return {
        "id": rule["code"],
        "name": "".join(word.capitalize() for word in rule["name"].split("-")),
        "shortDescription": {"text": rule["explanation"]},
        "fullDescription": {"text": text.split("\n\nWhat to do")[0].partition("\n\n")[2]},
        "help": {"text": text},
        "defaultConfiguration": {"level": "error"},
    }


def _invocation(gate: GateReport, root: Path) -> dict[str, Any]:
    notes = [
        {
            "level": "error",
            "message": {"text": _message(item.message)},
            "locations": [{"physicalLocation": {"artifactLocation": _artifact(relative(item.path, root))}}],
        }
        for item in gate.results
        if isinstance(item, Unreadable)
    ]
    return {
        "executionSuccessful": not gate.unreadable,
        "exitCode": gate.exit_code,
        "toolExecutionNotifications": notes,
    }


def _result(report: Report, item: Finding, rule: int, root: Path) -> dict[str, Any]:
    model = relative(report.path or "model", root)
    source = source_place(item.where.line, root)
    # A graph has no lines; code scanning wants one all the same, and shows the file.
    in_model = {"physicalLocation": {"artifactLocation": _artifact(model), "region": {"startLine": 1}}}
    location: dict[str, Any] = dict(in_model)
    if source is not None:
        physical = {"artifactLocation": _artifact(source[0]), "region": {"startLine": source[1]}}
        location = {"physicalLocation": physical}
    location["logicalLocations"] = [_logical(item)]
    result: dict[str, Any] = {
        "ruleId": item.code,
        "ruleIndex": rule,
        "level": item.severity,
        "message": {"text": _message(f"{told(report, item)}. To do: {item.hint}")},
        "locations": [location],
        "partialFingerprints": {"edge4dFinding/v1": fingerprint(Baseline(root).entry(report, item))},
    }
    if source is not None:
        result["relatedLocations"] = [{**in_model, "id": 1, "message": {"text": "the model"}}]
    properties: dict[str, Any] = {}
    if item.chain:
        properties["chain"] = [step.to_text() for step in item.chain]
    if item.source is not None:
        properties["source"] = item.source
    return {**result, "properties": properties} if properties else result


def _message(text: str) -> str:
    """Braces stand for arguments in a message, and brackets before a parenthesis for a link; names hold neither."""
    return text.replace("{", "{{").replace("}", "}}").replace("](", "] (")


def _logical(item: Finding) -> dict[str, str]:
    where = item.where
    parts = [where.graph, *(part for part in (where.node, where.value) if part)]
    logical = {"fullyQualifiedName": " / ".join(parts), "kind": "member"}
    name = where.layer or where.node or where.value
    return {**logical, "name": name} if name else logical


def _artifact(path: str) -> dict[str, str]:
    """Relative to the root where it lies below it; else as a file of this machine."""
    if path.startswith("/") or path[1:2] == ":":
        return {"uri": f"file://{'' if path.startswith('/') else '/'}{uri(path)}"}
    return {"uri": uri(path), "uriBaseId": _ROOT}
