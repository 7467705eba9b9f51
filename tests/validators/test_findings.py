"""Reports: the verdict, the exit code, the text."""

from __future__ import annotations

import re

from edge4d.validators.findings import CODES, Report, Where, finding, shape_text


def _report(*findings):
    return Report(tuple(findings), {"graphs": 1, "functions": 0, "nodes": 2}, {"onnx": "1"}, {"max_rank": 4}, "m.onnx")


def test_codes_are_stable():
    """Baselines in users' repositories rely on these; add codes, never change one."""
    assert {code: entry.name for code, entry in CODES.items()} == {
        "E4D001": "rank-over-limit",
        "E4D002": "rank-unknown",
        "E4D003": "three-axis-operator",
        "E4D004": "nothing-checked",
        "E4D005": "shape-contradiction",
        "E4D006": "invalid-graph",
        "E4D007": "section-not-checked",
        "E4D101": "device-limit",
        "E4D102": "device-limit-unproven",
    }
    for entry in CODES.values():
        assert re.fullmatch(r"[a-z-]+", entry.name)
        assert entry.explanation
        assert entry.hint


def test_only_errors_fail():
    warning = finding("E4D005", "stale", Where("graph"), severity="warning")
    error = finding("E4D001", "5 axes", Where("graph"))
    assert (_report().exit_code, _report(warning).exit_code, _report(warning, error).exit_code) == (0, 0, 1)
    assert _report(error).to_dict()["exit_code"] == 1


def test_text_of_a_clean_report():
    assert _report().to_text() == "✓ m.onnx: ok (checked 1 graph, 2 nodes)"


def test_a_finding_says_where_and_what_to_do():
    where = Where("function my::F", "conv", "Conv", "y", (1, "n", None), "layer1.0", "net.py:7")
    text = _report(finding("E4D001", "too many", where, hint="do this")).to_text()
    assert "Conv 'conv' in function my::F (layer1.0, net.py:7): too many" in text
    assert "hint: do this" in text
    assert where.to_dict()["shape"] == [1, "n", None]
    assert shape_text(where.shape) == "[1, n, ?]"


def test_findings_can_be_compared_and_hashed():
    one, two = (finding("E4D001", "x", Where("graph", shape=(1, None))) for _ in range(2))
    assert one == two
    assert len({one, two}) == 1
