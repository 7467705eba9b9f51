"""Every operator, in every way it can be written, against ONNX Runtime or ONNX's own reference."""

import numpy as np
import pytest

from edge4d.loading.onnx.registry import known
from tests.loading.onnx_files.cases import CASES
from tests.loading.onnx_files.models import expected, imported, one_node, same


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case}" for i, case in enumerate(CASES)])
def test_operator(case):
    model = one_node(case.op, case.inputs, case.attributes, case.opset, case.outputs, case.constants)
    given = {f"x{i}": array for i, array in enumerate(case.inputs) if array is not None and i not in case.constants}
    got = imported(model, given)
    same(got, expected(model, given, case.by))


def test_every_operator_has_a_case():
    folded_only = {"Scatter"}  # an old name of ScatterElements
    assert set(known()) - {case.op for case in CASES} == folded_only


def test_the_comparison_sees_a_wrong_number():
    want = {"y": np.ones((2, 3), np.float32)}
    same(want, want)
    for wrong in (want["y"] + 1e-3, want["y"][:, :2], want["y"].astype(np.float64), want["y"] * np.nan):
        with pytest.raises(AssertionError):
            same({"y": wrong}, want)
    with pytest.raises(AssertionError):
        same({"z": want["y"]}, want)
