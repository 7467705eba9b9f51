"""Random networks through a file and ONNX Runtime: the same numbers, or a refusal by name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge4d.errors import LoweringError
from tests.lowering import survey as module
from tests.lowering.random_networks import random_network
from tests.lowering.survey import main, survey
from tests.lowering.whole_path import Distance, distance, whole_path


@pytest.mark.parametrize("start", range(0, 24, 6))
def test_random_networks_the_whole_way(start, tmp_path):
    networks, clips = zip(*map(random_network, range(start, start + 6)), strict=True)
    found = whole_path(networks, clips, tmp_path)
    assert len(found) == 6
    assert all(one.exact for one in found), found


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 400, 60))
def test_many_random_networks_the_whole_way(start):
    found = survey(range(start, start + 60), "onnx")
    assert sum(found.refused.values()) + found.coarse <= 0.05 * found.exact, found


# ---- the comparison can fail --------------------------------------------------------------------------------------

TRUE = np.linspace(-1.0, 1.0, 11).reshape(1, 11)


def of_float32(array):
    return array.astype(np.float32)


def test_the_same_numbers_are_exact():
    found = distance([of_float32(TRUE)], [of_float32(TRUE)], [TRUE])
    assert found.exact
    assert not found.coarse


def test_the_worst_output_counts_and_is_neither_exact_nor_coarse():
    wrong = of_float32(TRUE).copy()
    wrong[0, 3] += 2.5e-5
    found = distance([of_float32(TRUE), wrong], [of_float32(TRUE)] * 2, [TRUE] * 2)
    assert found.ours == pytest.approx(1.25e-5, rel=0.02)
    assert not found.exact
    assert not found.coarse


def test_an_error_that_float32_itself_has_is_coarse_and_no_more_than_that():
    rounded = of_float32(TRUE) + np.float32(4e-4)
    assert distance([of_float32(TRUE) - np.float32(4e-4)], [rounded], [TRUE]).coarse
    assert not distance([of_float32(TRUE) + np.float32(1e-3)], [rounded], [TRUE]).coarse


def test_a_coarse_output_does_not_hide_a_wrong_one():
    coarse, wrong = of_float32(TRUE) + np.float32(0.2), of_float32(TRUE) + np.float32(0.1)
    found = distance([coarse, wrong], [coarse, of_float32(TRUE)], [TRUE] * 2)
    assert not found.exact
    assert not found.coarse


@pytest.mark.parametrize(
    ("got", "said"),
    [
        ([], "0 outputs, expected 1"),
        ([of_float32(TRUE)[0]], "shape"),
        ([TRUE], "type float64"),
        ([of_float32(TRUE) * np.float32(np.nan)], "not finite"),
    ],
    ids=["none", "another shape", "another type", "nan"],
)
def test_what_is_no_result_at_all_is_an_error(got, said):
    with pytest.raises(AssertionError, match=said):
        distance(got, [of_float32(TRUE)], [TRUE])


def test_a_wrong_number_in_the_file_would_be_noticed(monkeypatch):
    """Data that stay where they were when their order should have changed; the export's own parity is not asked."""
    monkeypatch.setattr("edge4d.lowering.emitting.plan_repack", lambda sizes, source, target: ())
    with pytest.raises(AssertionError, match="seed 0: off by"):
        survey([0], "onnx")


def test_a_survey_counts_what_is_coarse_and_goes_on_with_its_own_record_only(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "whole_path", lambda *_: [Distance(1e-6, 1e-7), Distance(3e-3, 2e-3)])
    out = tmp_path / "survey.json"
    assert main(["--from", "0", "--to", "2", "--through", "onnx", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert (record["through"], record["exact"], record["coarse"], record["worst_error"]) == ("onnx", 1, 1, 1e-6)
    with pytest.raises(SystemExit, match="2"):
        main(["--from", "0", "--to", "3", "--out", str(out)])
    assert "is of --through onnx: give another --out" in capsys.readouterr().err


def test_networks_that_do_not_all_pass_together_are_looked_at_one_by_one(monkeypatch):
    odd = random_network(2)[0].described()

    def one_by_one(networks, clips, folder):
        if len(networks) > 1 or networks[0].described() == odd:
            raise LoweringError("1 operator has no way to rank 4:\n  aten.odd: so it is")
        return [Distance(1e-7, 1e-7)]

    monkeypatch.setattr(module, "whole_path", one_by_one)
    found = survey(range(4), "onnx")
    assert (found.exact, dict(found.refused)) == (3, {"aten.odd: so it is": 1})
