"""Random networks in float64, 5-D against rank 4: the same numbers, or a refusal by name; never a silent wrong one."""

from __future__ import annotations

import json

import pytest

from tests.lowering import survey as module
from tests.lowering.survey import main, survey


def few_refused(found) -> bool:
    return sum(found.refused.values()) <= 0.02 * found.exact


def test_random_networks():
    assert few_refused(found := survey(range(30))), found


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 300, 100))
def test_hundreds_of_random_networks(start):
    assert few_refused(found := survey(range(start, start + 100))), found


def test_a_wrong_number_would_be_noticed(monkeypatch):
    """Data that stay where they were when their order should have changed."""
    monkeypatch.setattr("edge4d.lowering.emitting.plan_repack", lambda sizes, source, target: ())
    with pytest.raises(AssertionError, match=r"seed .*: off by"):
        survey(range(10))


def test_a_survey_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    out, added = tmp_path / "survey.json", []
    monkeypatch.setattr(module.Survey, "add", lambda self, seeds: added.extend(seeds))
    assert main(["--from", "5", "--to", "8", "--out", str(out)]) == 0
    assert main(["--from", "5", "--to", "10", "--out", str(out)]) == 0
    assert added == [5, 6, 7, 8, 9]
    with pytest.raises(SystemExit, match="2"):
        main(["--from", "6", "--to", "10", "--out", str(out)])
    assert "begins at seed 5, not at 6" in capsys.readouterr().err


def test_a_fault_ends_a_survey_with_its_seed_and_keeps_what_is_done(tmp_path, monkeypatch, capsys):
    out = tmp_path / "survey.json"
    monkeypatch.setattr("edge4d.lowering.emitting.plan_repack", lambda sizes, source, target: ())
    assert main(["--from", "0", "--to", "10", "--out", str(out)]) == 1
    record = json.loads(out.read_text())
    assert f"error: seed {record['next']}: off by" in capsys.readouterr().err
    assert record["exact"] == record["next"]
