"""The float64 referee lets float32 rounding pass, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from edge4d.validators.parity import compare
from edge4d.validators.referee import compare_by_referee

TRUE = np.linspace(0.0, 1.0, 50).reshape(5, 10)


DIRECT = compare({"y": TRUE}, {"y": TRUE + 1})


def model(array):
    return lambda *_: {"y": np.asarray(array)}


def rounded(size):
    return (TRUE + size * np.sign(np.sin(np.arange(50))).reshape(5, 10)).astype(np.float32)


def judged(reference, candidate):
    return compare_by_referee(DIRECT, model(reference), model(TRUE), model(candidate), [[np.zeros(1)]])


def test_a_candidate_as_exact_as_pytorch_passes_though_the_two_differ_by_more():
    report = judged(rounded(2e-5), rounded(-2e-5) * 1.0)
    assert report.ok
    assert "float32 PyTorch itself is 2.0e-05" in report.notes[0]


def test_a_candidate_less_exact_than_pytorch_fails():
    assert not judged(rounded(2e-5), rounded(4e-5)).ok


def test_an_exact_reference_lends_nothing():
    assert judged(TRUE.astype(np.float32), rounded(5e-6)).ok
    assert not judged(TRUE.astype(np.float32), rounded(2e-5)).ok


@pytest.mark.parametrize(
    "bad",
    [
        TRUE.astype(np.float32) * 1.01,
        np.full((5, 10), np.nan, np.float32),
        TRUE.T.astype(np.float32),
        np.zeros((5, 10), int),
    ],
    ids=["scaled", "nan", "shape", "dtype"],
)
def test_what_is_wrong_stays_wrong(bad):
    assert not judged(rounded(2e-5), bad).ok


def test_a_missing_output_and_no_inputs_fail():
    reference = model(TRUE.astype(np.float32))
    assert not compare_by_referee(DIRECT, reference, model(TRUE), lambda *_: {}, [[np.zeros(1)]]).ok
    assert not compare_by_referee(DIRECT, reference, model(TRUE), reference, []).ok


def test_a_model_that_cannot_run_in_float64_keeps_its_verdict():
    def broken(*_):
        raise RuntimeError("expected float, got double")

    reference = model(TRUE.astype(np.float32))
    report = compare_by_referee(DIRECT, reference, broken, reference, [[np.zeros(1)]])
    assert not report.ok
    assert "expected float, got double" in report.notes[-1]
