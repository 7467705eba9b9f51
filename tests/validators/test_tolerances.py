"""One table of limits: each of its columns can fail a comparison, and a file's own word picks the row."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edge4d.errors import UsageError
from edge4d.validators.parity import compare, compare_callables
from edge4d.validators.tolerances import LEAST_ROWS, TOLERANCES, Tolerance, loosest, tolerance_for


def sides(noise, size=4096, seed=0):
    generator = np.random.default_rng(seed)
    a = generator.standard_normal(size).astype(np.float32)
    return {"x": a}, {"x": (a + noise * generator.standard_normal(size)).astype(np.float32)}


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (Tolerance(0.01), "of the range"),
        (Tolerance(1.0, cosine=0.9999), "cosine 0.99"),
        (Tolerance(1.0, snr_db=30), "SNR 19.* dB, expected at least 30"),
    ],
)
def test_each_limit_fails_what_is_too_far(limit, said):
    (row,) = compare(*sides(0.1), tolerance=limit).rows
    assert not row.ok
    assert re.search(said, row.reason)
    assert compare(*sides(0.001), tolerance=limit).ok


def test_top1_counts_over_all_sets_together():
    limit = Tolerance(1.0, top1=0.9)

    def scores(wrong, rows):
        a = np.eye(4, dtype=np.float32)[np.arange(rows) % 4]
        b = a.copy()
        b[:wrong] = np.roll(b[:wrong], 1, axis=1)
        return a, b

    def report(wrong, rows):
        a, b = scores(wrong, rows)
        sets = [[i] for i in range(rows)]
        return compare_callables(lambda i: a[i : i + 1], lambda i: b[i : i + 1], sets, tolerance=limit)

    assert report(2, LEAST_ROWS).ok  # 90 %
    failed = report(3, LEAST_ROWS)
    assert not failed.ok
    assert failed.rows[0].reason == "top-1 agrees on 85.0% of 20 rows, expected at least 90%"
    assert failed.rows[0].difference.top1 == pytest.approx(0.85)
    assert report(3, LEAST_ROWS - 1).ok  # too few to tell


def test_the_table_says_what_it_holds():
    assert TOLERANCES["int8"].max_error > TOLERANCES["fp16"].max_error > TOLERANCES["fp32"].max_error
    assert "top-1 at least 95% of 20 rows or more" in tolerance_for("int8").to_text()
    assert tolerance_for("float16") is TOLERANCES["fp16"]
    assert set(Tolerance(0.1).to_dict()) == {"max_error", "cosine", "snr_db", "top1"}


def test_the_loosest_of_what_a_file_says():
    assert loosest(None, "fp32", "fp64") is None  # left to the dtypes of the outputs
    assert loosest("fp16", "int8") == "int8"
    assert loosest(None, "fp16") == "fp16"
    with pytest.raises(UsageError, match=r"no tolerance for precision 'int9'.*\n.*did you mean 'int8'"):
        loosest("int9")
