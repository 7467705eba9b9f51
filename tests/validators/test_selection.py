"""Rules chosen and left out, warnings, what fails, and baselines."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from edge4d.errors import UsageError
from edge4d.validators import check_rank
from edge4d.validators.baseline import Baseline, Known
from edge4d.validators.explaining import explain, list_rules, matching_codes
from edge4d.validators.findings import CODES, UNPROVEN
from edge4d.validators.gate import GateReport, Unreadable
from edge4d.validators.selection import Selection
from tests.validators import onnx_models as zoo


def test_codes_are_matched_by_code_beginning_and_name():
    assert matching_codes("e4d001") == matching_codes("rank-over-limit") == {"E4D001"}
    assert matching_codes("E4D1") == {"E4D101", "E4D102"}
    assert matching_codes("all") == set(CODES)
    for wrong in ("E4D999", "rank", "", "E5D001"):
        with pytest.raises(UsageError, match="no rule"):
            matching_codes(wrong)
    with pytest.raises(UsageError) as caught:
        matching_codes("rank-over-limits")
    assert "rank-over-limit?" in (caught.value.hint or "")


def test_every_rule_is_explained():
    for rule in list_rules():
        text = explain(rule["code"])
        assert len(text.splitlines()) > 5
        assert rule["hint"] in text


def test_select_ignore_and_warn():
    report = check_rank(zoo.conv3d())
    counts = {code: sum(f.code == code for f in report.findings) for code in ("E4D001", "E4D003")}
    only = Selection.of(select=["E4D003"]).apply(report)
    assert {f.code for f in only.findings} == {"E4D003"}
    assert only.set_aside == {"ignored": counts["E4D001"]}
    assert not only.ok
    none = Selection.of(ignore=["E4D001,three-axis-operator"]).apply(report)
    assert (none.ok, none.findings, none.set_aside) == (True, (), {"ignored": len(report.findings)})
    assert "4 ignored" in none.to_text()
    mild = Selection.of(warn=["ALL"]).apply(report)
    assert (mild.ok, mild.exit_code, len(mild.findings)) == (True, 0, len(report.findings))


@pytest.mark.parametrize(
    ("fail_on", "warn", "code", "ok"),
    [
        ("error", (), 1, False),
        ("error", ("ALL",), 0, True),
        ("warning", ("ALL",), 1, False),
        ("never", (), 0, False),
    ],
)
def test_what_fails(fail_on, warn, code, ok):
    report = Selection.of(warn=warn, fail_on=fail_on).apply(check_rank(zoo.conv3d()))
    assert (report.exit_code, report.ok) == (code, ok)
    assert GateReport((report,)).exit_code == code


@pytest.mark.parametrize(
    ("select", "ignore"), [((), ("ALL",)), ((), ("E4D",)), (("E4D003",), ("three-axis-operator",)), (("E4D004",), ())]
)
def test_a_selection_that_leaves_no_rule_is_refused(select, ignore):
    with pytest.raises(UsageError, match="leave no rule"):
        Selection.of(select, ignore)


def test_that_nothing_was_checked_always_fails():
    report = check_rank(zoo.empty_graph())
    assert "E4D004" in {item.code for item in report.findings}
    for selection in (Selection.of(select=["E4D003"]), Selection.of(ignore=["E4D004"]), Selection.of(warn=["ALL"])):
        assert selection.apply(report).exit_code == 1


def test_verdicts():
    assert check_rank(zoo.plain()).verdict == "pass"
    assert check_rank(zoo.conv3d()).verdict == "fail"
    unknown = check_rank(zoo.unknown_operator())
    assert (unknown.verdict, unknown.exit_code) == ("unknown", 1)
    assert set(CODES) >= UNPROVEN


def test_nothing_at_all_is_no_success():
    assert GateReport(()).exit_code == 2
    assert not GateReport(()).ok
    broken = Unreadable("a", "ValidationError", "broken", None, 2)
    assert GateReport((check_rank(zoo.plain()), broken)).exit_code == 2


# ---- baselines ----------------------------------------------------------------------------------------------------


def _saved(folder: Path, make, name="m.onnx"):
    onnx.save(make(), folder / name)
    return check_rank(folder / name)


def test_known_findings_do_not_count(tmp_path):
    report = _saved(tmp_path, zoo.conv3d)
    known = Baseline.of(tmp_path, [report])
    (tmp_path / "known.json").write_text(known.to_json())
    again = Baseline.read(tmp_path / "known.json")
    assert again.known == known.known
    quiet = again.apply(report)
    assert (quiet.ok, quiet.set_aside) == (True, {"baseline": len(report.findings)})
    assert again.gone([report]) == 0


def test_new_findings_count_and_old_ones_that_went_are_told(tmp_path):
    known = Baseline.of(tmp_path, [_saved(tmp_path, zoo.hidden_rank_5)])
    report = _saved(tmp_path, zoo.conv3d)
    assert not known.apply(report).ok
    assert known.gone([report]) == 2
    assert known.gone([_saved(tmp_path, zoo.plain, "other.onnx")]) == 0


def test_a_finding_of_another_file_is_new(tmp_path):
    known = Baseline.of(tmp_path, [_saved(tmp_path, zoo.conv3d)])
    assert not known.apply(_saved(tmp_path, zoo.conv3d, "n.onnx")).ok


def test_paths_do_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    report = _saved(tmp_path, zoo.conv3d)
    known = Baseline.of(tmp_path, [report])
    monkeypatch.chdir(tmp_path)
    assert known.apply(check_rank("m.onnx")).ok
    assert Baseline(Path(), known.known).apply(check_rank("m.onnx")).ok


def test_that_nothing_was_checked_is_never_known(tmp_path):
    report = _saved(tmp_path, zoo.empty_graph)
    known = Baseline.of(tmp_path, [report])
    assert [f.code for f in known.apply(report).findings] == ["E4D004"]
    forged = Baseline(tmp_path, tuple(Known(known.entry(report, f)) for f in report.findings))
    assert not forged.apply(report).ok


def _in_layers(*layers):
    """Two Conv3d in a row, their nodes numbered as an exporter likes, in these layers."""
    first = zoo.node("Conv", "x w", "a", name=f"node_{layers[0]}_7")
    second = zoo.node("Conv", "a w", "b", name=f"node_{layers[1]}_8")
    for made, layer in ((first, layers[0]), (second, layers[1])):
        made.metadata_props.add(key="edge4d.layer", value=layer.partition("@")[0])
    clip = ("x", [1, 4, 5, 5, 5])
    return zoo.model(first, second, inputs=(clip,), outputs=(("b", None),), weights=(zoo.floats("w", 4, 4, 1, 1, 1),))


def test_a_node_that_got_another_name_in_the_same_layer_is_still_known(tmp_path):
    known = Baseline.of(tmp_path, [_saved(tmp_path, lambda: _in_layers("stem", "head"))])
    assert known.apply(_saved(tmp_path, lambda: _in_layers("stem@2", "head@2"))).ok
    report = _saved(tmp_path, lambda: _in_layers("stem@2", "neck"))
    again = Baseline(tmp_path, known.known)
    assert {item.where.layer for item in again.apply(report).findings} == {"neck"}
    assert again.gone([report]) == 2  # of the layer that went: its operator and its result


def test_a_known_finding_makes_up_for_one_only(tmp_path):
    known = Baseline.of(tmp_path, [_saved(tmp_path, lambda: _in_layers("stem", "head"))])
    report = _saved(tmp_path, lambda: _in_layers("stem@2", "stem@3"))
    assert {item.code for item in known.apply(report).findings} == {"E4D001", "E4D003"}
    assert len(known.apply(report).findings) > 0


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "{}", '{"edge4d_baseline": 2}', '{"edge4d_baseline": 1, "findings": [1]}', "[" * 90000]
)
def test_broken_baselines(tmp_path, content):
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(UsageError, match=r"b\.json"):
        Baseline.read(tmp_path / "b.json")
    with pytest.raises(UsageError, match="no such file"):
        Baseline.read(tmp_path / "none.json")


def test_an_empty_baseline_is_json(tmp_path):
    assert json.loads(Baseline(tmp_path).to_json())["findings"] == []
