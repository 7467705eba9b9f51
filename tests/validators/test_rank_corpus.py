"""Every operator's own examples in onnx, held against the ranks of the results that onnx gives for them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from edge4d.validators import check_rank
from edge4d.validators.inference import infer
from edge4d.validators.inventory import take_inventory

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the examples themselves divide by zero and overflow
        from onnx.backend.test.case.node import collect_testcases

        found = [case for case in collect_testcases(None) if case.model is not None]
    assert len(found) > 1000
    return found


def test_no_rank_is_wrong(cases):
    wrong, compared = [], 0
    for case in cases:
        known = {}
        for one in infer(take_inventory(case.model, case.name)).occurrences:
            for value in one.outputs:
                if value.rank is not None and value.type.WhichOneof("value") == "tensor_type":
                    known.setdefault(value.name, set()).add(value.rank)
        for _, results in case.data_sets or ():
            for port, result in zip(case.model.graph.output, results, strict=False):
                if isinstance(result, np.ndarray) and port.name in known:
                    compared += 1
                    if known[port.name] != {result.ndim}:
                        wrong.append((case.name, port.name, known[port.name], result.ndim))
    assert not wrong
    assert compared > 1000


def test_what_passes_has_no_rank_above_four(cases):
    hidden = []
    for case in cases:
        if check_rank(case.model).ok:
            arrays = [a for ins, outs in case.data_sets or () for a in (*ins, *outs) if isinstance(a, np.ndarray)]
            hidden += [case.name for a in arrays if a.ndim > 4]
    assert not hidden


def test_few_examples_are_beyond_inference(cases):
    """Sequences that start empty, and shapes computed from data: each is a finding, and there are no more of them."""
    unknown = {case.name for case in cases if "E4D002" in {f.code for f in check_rank(case.model).findings}}
    assert len(unknown) < 0.03 * len(cases), sorted(unknown)


def test_no_contradiction_is_made_up(cases):
    codes = {f.code for case in cases for f in check_rank(case.model).findings}
    assert codes <= {"E4D001", "E4D002", "E4D003"}
