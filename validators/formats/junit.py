"""JUnit XML: a suite for each file, in it a test for each rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from edge4d.validators.explaining import list_rules
from edge4d.validators.formats.places import relative
from edge4d.validators.gate import Unreadable

if TYPE_CHECKING:
    from edge4d.validators.findings import Finding, Report
    from edge4d.validators.gate import GateReport

__all__ = ["render"]

_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def render(gate: GateReport, root: Path) -> str:
    """The whole document."""
    top = ElementTree.Element("testsuites", name="edge4d verify")
    for result in gate.results:
        if isinstance(result, Unreadable):
            _unreadable(top, result, root)
        else:
            _suite(top, result, root)
    for key in ("tests", "failures", "errors"):
        top.set(key, str(sum(int(suite.get(key, "0")) for suite in top)))
    ElementTree.indent(top)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(top, encoding="unicode")


def _suite(top: ElementTree.Element, report: Report, root: Path) -> None:
    name = relative(report.path or "model", root)
    if "profile" in report.settings:
        name += f" ({report.settings['profile']})"
    rules = list_rules()
    failed = 0
    suite = ElementTree.SubElement(top, "testsuite", name=_clean(name), errors="0", tests=str(len(rules)))
    for rule in rules:
        case = ElementTree.SubElement(suite, "testcase", classname=_clean(name), name=f"{rule['code']} {rule['name']}")
        items = [item for item in report.findings if item.code == rule["code"]]
        errors = [item for item in items if item.severity == "error" or report.fail_on == "warning"]
        text = _clean("\n".join(_line(item) for item in items))
        if errors:
            failed += 1
            message = f"{len(items)} {rule['name']}: {rule['explanation']}"
            ElementTree.SubElement(case, "failure", type=rule["code"], message=message).text = text
        elif items:
            ElementTree.SubElement(case, "system-out").text = text
    suite.set("failures", str(failed))


def _unreadable(top: ElementTree.Element, result: Unreadable, root: Path) -> None:
    name = _clean(relative(result.path, root))
    suite = ElementTree.SubElement(top, "testsuite", name=name, tests="1", failures="0", errors="1")
    case = ElementTree.SubElement(suite, "testcase", classname=name, name="readable")
    ElementTree.SubElement(case, "error", type=result.kind, message=_clean(result.message)).text = result.hint or ""


def _line(item: Finding) -> str:
    place = item.where.to_text()
    return f"{item.severity}: {place + ': ' if place else ''}{item.message}"


def _clean(text: str) -> str:
    """Names in a model may hold characters that XML does not have."""
    return _NOT_XML.sub("\ufffd", text)
