"""A short run of the fuzzer; `make fuzz` runs it for longer. Hypothesis adds inputs that it can shrink."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_gate
from tests.fuzz.fuzz_gate import Failure, check, input_of, main
from tests.fuzz.mutations import parses
from tests.validators.onnx_models import hidden_rank_5


@pytest.mark.parametrize(("seed", "runs"), [(0, 300), pytest.param(10_000, 4000, marks=pytest.mark.slow)])
def test_a_short_run(tmp_path, capsys, seed, runs):
    keep = tmp_path / "failure.onnx"
    assert main(["--seed", str(seed), "--runs", str(runs), "--keep", str(keep)]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["inputs"] == runs
    # It would prove little if nothing came past the parser, or nothing were broken enough to be refused.
    assert min(counts[what] for what in ("pass", "fail", "unknown", "refused")) > 0.03 * runs
    assert counts["protobuf"] > 0.5 * runs
    assert not keep.exists()


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes(data):
    check(data)


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), min_size=1, max_size=4))
def test_bytes_written_over_a_model(cuts):
    data = hidden_rank_5().SerializeToString()
    for at, piece in cuts:
        data = data[:at] + piece + data[at + len(piece) :]
    check(data)


def test_the_same_seed_gives_the_same_input():
    assert input_of(5) == input_of(5)
    assert input_of(5) != input_of(6)
    assert any(parses(input_of(seed)) for seed in range(5))


@pytest.mark.parametrize("wrong", [KeyError("k"), RecursionError(), UnicodeDecodeError("utf-8", b"", 0, 1, "x")])
def test_a_traceback_would_be_noticed(tmp_path, monkeypatch, wrong):
    def broken(data, profile):
        raise wrong

    monkeypatch.setattr(fuzz_gate, "check_rank", broken)
    keep = tmp_path / "failure.onnx"
    assert main(["--runs", "1", "--keep", str(keep)]) == 1
    assert keep.read_bytes() == input_of(0)


def test_a_long_wait_would_be_noticed(monkeypatch):
    monkeypatch.setattr(fuzz_gate, "SLOW_S", 0.0)
    with pytest.raises(Failure, match="it took"):
        check(hidden_rank_5().SerializeToString())
