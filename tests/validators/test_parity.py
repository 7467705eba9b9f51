"""The comparison: mostly that it fails when it should."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge4d.errors import UsageError
from edge4d.ports import Port
from edge4d.validators import ParityReport, Tolerance, compare, compare_callables, random_inputs, tolerance_for

RNG = np.random.default_rng(0)
A = RNG.standard_normal((2, 10)).astype(np.float32)
EXACT = Tolerance(0.0)


def _altered(change):
    array = A.copy()
    return {"y": change(array)}


def _with(index, number):
    def change(array):
        array[index] = number
        return array

    return change


def test_equal_outputs_agree_exactly():
    report = compare({"y": A}, {"y": A.copy()}, tolerance=EXACT)
    assert report.ok
    assert report.exit_code == 0
    found = report.rows[0].difference
    assert (found.max_abs, found.mean_abs, found.relative, found.top1) == (0, 0, 0, 1)
    assert found.cosine == pytest.approx(1)
    assert found.snr_db == math.inf
    assert report.to_dict()["outputs"][0]["statistics"]["snr_db"] is None


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (_altered(lambda a: a * 1.9), "of the range, expected at most 1e-05; worst at ["),
        (_altered(lambda a: a + 1e-3), "of the range, expected at most"),
        (_altered(lambda a: -a), "of the range, expected at most"),
        (_altered(_with((1, 3), np.nan)), "1 of 20 elements differ in NaN or infinity, first at [1, 3]: got nan"),
        (_altered(_with((0, 0), np.inf)), "1 of 20 elements differ in NaN or infinity, first at [0, 0]: got inf"),
        (_altered(_with(..., np.nan)), "20 of 20 elements differ in NaN or infinity"),
        (_altered(lambda a: a[:1]), "shape 1x10, expected 2x10"),
        (_altered(lambda a: a[None]), "shape 1x2x10, expected 2x10"),
        (_altered(lambda a: a.ravel()), "shape 20, expected 2x10"),
        (_altered(lambda a: a.astype(np.int32)), "dtype int32, expected a float like the reference's float32"),
        (_altered(lambda a: a.astype(str)), "only numbers and bools can be compared"),
        (_altered(lambda a: a.astype(complex)), "dtype complex128, expected a float"),
        ({}, "the candidate has no output of this name"),
        ({"Y": A}, "the candidate has no output of this name"),
        ({"y": A, "z": A}, "the reference has no output of this name"),
    ],
)
def test_known_bad_candidates_fail(candidate, reason):
    report = compare({"y": A}, candidate)
    assert not report.ok
    assert report.exit_code == 1
    assert any(reason in (row.reason or "") for row in report.rows), [row.reason for row in report.rows]
    assert reason.split(";")[0] in report.to_text()


def test_swapped_outputs_fail():
    b = RNG.standard_normal((2, 10)).astype(np.float32)
    assert not compare({"p": A, "q": b}, {"p": b, "q": A}).ok


def test_nothing_compared_is_a_failure():
    for report in (compare({}, {}), compare_callables(dict, dict, [[]]), ParityReport((), sets=3)):
        assert not report.ok
        assert "nothing was compared" in report.to_text()
    assert not compare_callables(lambda x: x, lambda x: x, []).ok


def test_size_0_is_a_failure():
    report = compare({"y": np.zeros((0, 4))}, {"y": np.zeros((0, 4))})
    assert report.rows[0].reason == "no elements, so nothing was compared"


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_reference_without_numbers_is_a_failure(number):
    array = np.full((2, 3), number)
    report = compare({"y": array}, {"y": array})
    assert report.rows[0].reason == "the reference holds no finite number, so nothing was compared"


def test_what_is_not_finite_is_compared_by_position():
    a = A.copy()
    a[0, :3] = np.nan, np.inf, -np.inf
    same = compare({"y": a}, {"y": a.copy()})
    assert same.ok
    assert (same.rows[0].difference.nan, same.rows[0].difference.inf) == ((1, 1), (2, 2))
    other_sign = a.copy()
    other_sign[0, 1] = -np.inf
    moved = a.copy()
    moved[0, 0], moved[0, 4] = 0, np.nan
    swapped = a.copy()
    swapped[0, 0], swapped[0, 1] = np.inf, np.nan
    for bad in (other_sign, moved, swapped):
        assert not compare({"y": a}, {"y": bad}, tolerance=Tolerance(1e9)).ok
    assert same.rows[0].difference.top1 == 0.5  # a row with a NaN never agrees


def test_errors_are_relative_to_the_range_of_the_reference():
    a = np.array([100.0, 101.0])
    found = compare({"y": a}, {"y": a + np.array([0, 0.25])}).rows[0].difference
    assert found.relative == 0.25
    assert found.max_abs == 0.25
    assert found.mean_abs == 0.125
    constant = compare({"y": np.full(2, 4.0)}, {"y": np.array([4.0, 5.0])}).rows[0].difference
    assert constant.relative == 0.25
    zero = compare({"y": np.zeros(2)}, {"y": np.array([0.0, 0.5])}).rows[0].difference
    assert zero.relative == 0.5
    assert zero.cosine == 0
    assert zero.snr_db == -math.inf


def test_a_range_beyond_float64_hides_no_error():
    a = np.array([-1.7e308, 1.7e308, 1.0])
    assert not compare({"y": a}, {"y": a * [1, -1, 1]}, tolerance=Tolerance(1e-3)).ok
    assert compare({"y": a}, {"y": a.copy()}).ok


def test_statistics_agree_with_their_definitions():
    b = A + 0.1 * RNG.standard_normal(A.shape).astype(np.float32)
    found = compare({"y": A}, {"y": b}).rows[0].difference
    x, y = A.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    assert found.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert found.snr_db == pytest.approx(10 * np.log10((x @ x) / ((x - y) @ (x - y))))
    assert found.relative == pytest.approx(np.abs(x - y).max() / (x.max() - x.min()))
    assert found.top1 == np.mean(A.argmax(1) == b.argmax(1))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint64, bool])
def test_integers_and_bools_are_compared_exactly(dtype):
    a = np.array([[1, 0], [1, 1]], dtype)
    b = a.copy()
    assert compare({"y": a}, {"y": b}).ok
    b[1, 0] = 0
    row = compare({"y": a}, {"y": b}, tolerance=Tolerance(100.0)).rows[0]
    assert not row.ok
    assert row.reason.startswith("1 of 4 elements differ, e.g. at [1, 0]")


def test_large_integers_that_float64_cannot_tell_apart():
    a = np.array([2**63 - 1], np.int64)
    assert not compare({"y": a}, {"y": a - 1}).ok


def test_narrow_floats_and_complex_numbers():
    narrow = A.astype(ml_dtypes.bfloat16)
    assert compare({"y": narrow}, {"y": narrow}).ok
    assert compare({"y": narrow}, {"y": narrow}).rows[0].allowed == tolerance_for("bf16").max_error
    z = A + 1j * A[::-1]
    assert compare({"y": z}, {"y": z.copy()}).ok
    assert not compare({"y": z}, {"y": z.conj()}).ok
    bad = z.copy()
    bad[0, 0] = complex(1, np.nan)
    assert not compare({"y": z}, {"y": bad}).ok


def test_scalars():
    assert compare({"y": np.float32(2)}, {"y": np.float32(2)}).ok
    row = compare({"y": np.float32(2)}, {"y": np.float32(3)}).rows[0]
    assert not row.ok
    assert row.difference.first == ()


def test_the_limit_comes_from_the_table():
    for dtype, limit in ((np.float64, 1e-11), (np.float32, 1e-5), (np.float16, 5e-3)):
        a = np.array([0, 1], dtype)
        assert compare({"y": a}, {"y": a}).rows[0].allowed == limit
    assert tolerance_for("fp32") == tolerance_for("float32") == Tolerance(1e-5)
    with pytest.raises(UsageError, match="no tolerance for precision 'fp23'"):
        tolerance_for("fp23")


@pytest.mark.parametrize("number", [-1e-5, math.nan, math.inf])
def test_a_limit_must_be_able_to_fail(number):
    with pytest.raises(UsageError, match="max_error"):
        Tolerance(number)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4), elements=st.floats(-1e3, 1e3, width=32)),
    st.data(),
)
def test_one_wrong_element_anywhere_fails(array, data):
    index = tuple(data.draw(st.integers(0, size - 1)) for size in array.shape)
    wrong = array.copy()
    wrong[index] += 1 + 0.01 * (array.max() - array.min())
    assert compare({"y": array}, {"y": array.copy()}, tolerance=EXACT).ok
    report = compare({"y": array}, {"y": wrong}, tolerance=Tolerance(1e-4))
    assert not report.ok
    assert report.rows[0].difference.first == index


# ---- callables ----------------------------------------------------------------------------------------------------


def _sets(n):
    return [{"x": np.full((1, 3), i, np.float32)} for i in range(n)]


def test_the_worst_set_of_every_output_is_kept():
    def candidate(x):
        return {"p": x + 1e-3 * (x == 2), "q": -x + 1e-3 * (x == 1)}

    report = compare_callables(lambda x: {"p": x, "q": -x}, candidate, _sets(4))
    assert not report.ok
    assert report.sets == 4
    assert [(row.name, row.ok, row.input_set) for row in report.rows] == [("p", False, 2), ("q", False, 1)]
    assert "✗ 2 of 2 outputs differ on 4 input sets" in report.to_text()


def test_a_failing_set_is_not_hidden_by_later_ones():
    for bad in range(3):
        report = compare_callables(lambda x: [x], lambda x, bad=bad: [x * (np.nan if x[0, 0] == bad else 1)], _sets(3))
        assert not report.ok


@pytest.mark.parametrize("result", [lambda x: (x, -x), lambda x: [x, -x], lambda x: {"p": x, "q": -x}])
def test_outputs_without_names_are_paired_in_order_and_it_is_said(result):
    named = compare_callables(result, lambda x: {"p": x, "q": -x}, _sets(2))
    assert named.ok
    assert bool(named.notes) == (not isinstance(result(A), dict))
    assert [row.name for row in named.rows] == ["p", "q"]
    assert not compare_callables(result, lambda x: {"p": -x, "q": x}, _sets(2)).ok


def test_outputs_of_another_number_are_not_paired():
    for reference, candidate in (
        (lambda x: [x, x], lambda x: {"p": x}),
        (lambda x: [x], lambda x: {"p": x, "q": x}),
        (lambda x: x, lambda x: []),
    ):
        report = compare_callables(reference, candidate, _sets(1))
        assert not report.ok
        assert "the reference has" in report.to_text()


def test_neither_model_can_change_what_the_other_sees():
    def greedy(x):
        x += 1
        return [x]

    assert compare_callables(greedy, lambda x: [x + 1], _sets(2)).ok
    assert compare_callables(lambda x: [x + 1], greedy, _sets(2)).ok
    buffer = np.zeros((1, 3), np.float32)

    def reusing(x):
        buffer[:] = x
        return [buffer]

    assert not compare_callables(reusing, lambda x: reusing(x + 1), _sets(2)).ok


def test_the_report_is_json_and_an_aligned_table():
    bad = compare({"long name": A, "y": np.zeros((0,))}, {"long name": A * 1.9, "y": np.zeros((0,))})
    data = json.loads(json.dumps(bad.to_dict(), allow_nan=False))
    assert data["ok"] is False
    assert [row["name"] for row in data["outputs"]] == ["long name", "y"]
    assert data["outputs"][1]["statistics"] is None
    lines = bad.to_text().splitlines()
    assert lines[0] == "✗ 2 of 2 outputs differ on 1 input set"
    assert lines[1].index("shape") == lines[3].index("2x10")
    assert "'y': no elements" in lines[-1]
    assert bad.worst == bad.rows[0].difference.relative


# ---- inputs -------------------------------------------------------------------------------------------------------


def _port(name, dtype, shape=(2, 3, 4, 5, 6)):
    return Port(name, shape, shape, dtype)


def test_random_inputs_are_seeded_and_logical():
    port = Port("clip", (1, 3, 4, 8, 8), (4, 3, 8, 8), "float32", "n c t h w -> (n t) c h w")
    first, again, other = (random_inputs([port], seed)["clip"] for seed in (0, 0, 1))
    assert first.shape == (1, 3, 4, 8, 8)
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert abs(first.mean()) < 0.1
    assert 0.9 < first.std() < 1.1


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int64", 0, 1), ("int32", 0, 1), ("uint8", 0, 127), ("int8", 0, 127), ("bool", 0, 1), ("bfloat16", -9, 9)],
)
def test_random_inputs_of_every_dtype(dtype, low, high):
    array = random_inputs([_port("x", dtype)], 0)["x"]
    assert array.dtype.name == dtype
    assert low <= array.min() < array.max() <= high


def test_random_inputs_need_a_known_shape_and_dtype():
    with pytest.raises(UsageError, match=r"'x' leaves sizes open \(\?x3\)"):
        random_inputs([_port("x", "float32", (-1, 3))], 0)
    for dtype in ("str", "float99"):
        with pytest.raises(UsageError, match="dtype"):
            random_inputs([_port("x", dtype)], 0)
