"""The benchmark's own parts: what it reads, what it refuses to record, what it writes. Nothing large is timed."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import edge4d.errors
from benchmarks import compare, measuring, run
from benchmarks.candidates import (
    EAGER,
    EDGE4D,
    EDGE4D_FOR,
    LIMIT,
    NATIVE,
    check,
    clips_of,
    make,
    network_of,
    parity_sets,
)
from benchmarks.cases import CASES, Case, load_cases, select
from edge4d.validators.fps import Samples, bench, summarise
from edge4d.validators.parity import compare as compare_outputs
from edge4d.validators.tolerances import Tolerance

CASE = Case("tiny", "r3d_18", (3, 4, 8, 8), 1, 1)
STAMP = {"date": "2026-11-23", "versions": {"torch": "2.13.0"}}


def parity(error: float):
    """A report of one output with this error relative to its range."""
    reference = np.linspace(0, 1, 11, dtype=np.float64)
    off = reference + np.where(np.arange(11) == 5, error, 0)
    return compare_outputs({"scores": reference}, {"scores": off}, tolerance=Tolerance(LIMIT))


def report(*names: str):
    return summarise({name: Samples(run_ns=[[10_000_000]] * 3, frames=4) for name in names}, rounds=3, warmup=0)


def rows(**ratios: float):
    """Recorded rows of candidates with these speedups."""
    samples = {name: Samples(run_ns=[[round(20e6 / ratio)]] * 3, frames=4) for name, ratio in ratios.items()}
    found, problems = measuring.rows_of(
        CASE, summarise(samples, rounds=3, warmup=1), {name: parity(2e-7) for name in ratios}, STAMP
    )
    assert not problems
    return found


def write(path: Path, entries) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


# ---- cases --------------------------------------------------------------------------------------------------------


def test_every_case_is_a_network_of_the_zoo_at_its_own_size():
    from tests.zoo.models import find

    for case in load_cases():
        assert find(case.model).shapes[0] == (1, *case.shape)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no"),
        ("[[case", "cannot be read"),
        ('[[case]]\nname = "a"', "missing or unknown keys: batch, model, shape, threads"),
        ("{case}\nrounds = 3", "missing or unknown keys: rounds"),
        ("{case}{case}", "more than one case is named a"),
        ("{flat}", "expected four positive sizes"),
        ("{none}", "expected positive integers"),
    ],
)
def test_a_wrong_case_file_is_refused(tmp_path, text, said):
    entry = '[[case]]\nname = "a"\nmodel = "r3d_18"\nshape = [3, 4, 8, 8]\nbatch = 1\nthreads = 1\n'
    flat, none = entry.replace("4, 8, 8", "8, 8"), entry.replace("batch = 1", "batch = 0")
    path = tmp_path / "cases.toml"
    path.write_text(text.replace("{case}", entry).replace("{flat}", flat).replace("{none}", none))
    with pytest.raises(edge4d.errors.UsageError, match=said):
        load_cases(path)


def test_cases_are_selected_by_name_and_an_unknown_one_is_refused():
    cases = load_cases(CASES)
    assert [case.name for case in select(cases, [cases[-1].name])] == [cases[-1].name]
    assert select(cases, None) == cases
    with pytest.raises(edge4d.errors.UsageError, match="no case resnet"):
        select(cases, ["resnet"])


def test_a_case_at_another_size_than_the_zoos_is_refused():
    with pytest.raises(edge4d.errors.UsageError, match="takes 1x3x16x112x112"):
        network_of(CASE)


# ---- what is recorded ---------------------------------------------------------------------------------------------


def test_a_slower_candidate_has_a_ratio_below_one_and_a_faster_one_above():
    measured = bench(
        {NATIVE: lambda: time.sleep(0.01), "slow": lambda: time.sleep(0.03), "fast": lambda: None}, rounds=3, warmup=0
    )
    found, problems = measuring.rows_of(CASE, measured, dict.fromkeys((NATIVE, "slow", "fast"), parity(0)), STAMP)
    ratio = {row["candidate"]: row["ratio"] for row in found}
    assert not problems
    assert ratio[NATIVE] == 1
    assert 0 < ratio["slow"] < 1 < ratio["fast"]


@pytest.mark.parametrize("error", [2 * LIMIT, float("nan"), float("inf")])
def test_a_candidate_with_wrong_numbers_is_not_recorded(error):
    found, problems = measuring.rows_of(
        CASE, report(NATIVE, EDGE4D, EAGER), {NATIVE: parity(0), EDGE4D: parity(error), EAGER: parity(0)}, STAMP
    )
    assert [row["candidate"] for row in found] == [NATIVE, EAGER]
    assert len(problems) == 1
    assert f"tiny/{EDGE4D} is not recorded: parity fails" in problems[0]


def test_a_laxer_comparison_does_not_open_the_record():
    lax = compare_outputs({"y": np.array([0.0, 1.0])}, {"y": np.array([0.0, 0.9])}, tolerance=Tolerance(0.5))
    assert lax.ok
    found, _ = measuring.rows_of(CASE, report(NATIVE, EDGE4D), {NATIVE: parity(0), EDGE4D: lax}, STAMP)
    assert [row["candidate"] for row in found] == [NATIVE]


def test_a_candidate_that_was_not_compared_is_not_recorded():
    found, problems = measuring.rows_of(CASE, report(NATIVE, EDGE4D), {NATIVE: parity(0)}, STAMP)
    assert [row["candidate"] for row in found] == [NATIVE]
    assert "parity was not checked" in problems[0]


def test_nothing_is_recorded_when_the_reference_is_wrong():
    found, problems = measuring.rows_of(CASE, report(NATIVE, EDGE4D), {NATIVE: parity(1), EDGE4D: parity(0)}, STAMP)
    assert found == []
    assert problems[-1] == f"tiny: nothing is recorded without {NATIVE}"


def test_a_candidate_that_died_is_a_problem_with_its_reason():
    samples = {NATIVE: Samples(run_ns=[[1]]), EDGE4D: Samples(failure="its process died by signal 9")}
    found, problems = measuring.rows_of(
        CASE, summarise(samples, rounds=1, warmup=0), dict.fromkeys(samples, parity(0)), STAMP
    )
    assert [row["candidate"] for row in found] == [NATIVE]
    assert "died by signal 9" in problems[0]


def test_candidates_of_a_small_network_agree_and_a_changed_weight_is_found(tmp_path):
    import torch

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv3d(2, 4, 3, padding=1), torch.nn.BatchNorm3d(4), torch.nn.ReLU()).eval()
    clip = (torch.randn(1, 2, 4, 6, 6),)
    files = make(network, clip, tmp_path)
    assert list(files) == [NATIVE, EDGE4D, EDGE4D_FOR, EAGER]
    assert all(found.ok for found in check(network, files, [clip]).values())
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0, 0] += 1
    assert not any(found.ok for found in check(network, files, [clip]).values())


def test_parity_is_checked_on_other_clips_than_the_candidates_were_made_with():
    case = load_cases()[0]
    made = clips_of(case, 0)[0]
    assert not any((made == clip[0]).all() for clip in parity_sets(partial(clips_of, case)))


def test_an_existing_record_is_not_replaced_unasked(tmp_path, capsys):
    kept = write(tmp_path / "kept.jsonl", rows(a=1.0))
    before = kept.read_bytes()
    assert run.main(["--out", str(kept)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert kept.read_bytes() == before


@pytest.mark.parametrize("words", [["--cases", "nothing"], ["--rounds", "0"]])
def test_wrong_usage_is_said_before_anything_is_measured(words, tmp_path, capsys):
    assert run.main([*words, "--out", str(tmp_path / "x.jsonl")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")


# ---- tables -------------------------------------------------------------------------------------------------------


def test_a_result_file_becomes_a_markdown_table(tmp_path, capsys):
    path = write(tmp_path / "r.jsonl", rows(**{"native": 1.0, "four": 1.25}))
    assert compare.main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].replace(" ", "").startswith("|case|clip|candidate|p50ms|p90ms|frames/s|vsnative|")
    assert [line.count("|") for line in lines[:4]] == [10] * 4
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells[:7] == ["tiny", "1×3×4×8×8", "four", "16.0", "16.0", "250.0", "1.25×"]
    assert "2026-11-23" in lines[-1]
    assert "torch 2.13.0" in lines[-1]


def test_two_result_files_are_held_against_each_other(tmp_path, capsys):
    before = write(tmp_path / "a.jsonl", rows(native=1.0, four=1.25, gone=1.0))
    entries = rows(native=1.0, four=1.0, fresh=2.0)
    for entry in entries:
        entry["versions"] = {"torch": "2.14.0"}
    after = write(tmp_path / "b.jsonl", entries)
    assert compare.main([str(before), str(after)]) == 0
    out = capsys.readouterr().out
    cells = {
        line.split("|")[2].strip(): [cell.strip() for cell in line.split("|")[3:-1]]
        for line in out.splitlines()
        if line.startswith("| tiny")
    }
    assert cells["four"] == ["16.0", "20.0", "0.80×", "1.25×", "1.00×", "-20.0 %"]
    assert cells["gone"] == ["20.0", "-", "-", "1.00×", "-", "-"]
    assert cells["fresh"] == ["-", "10.0", "-", "-", "2.00×", "-"]
    assert out.rstrip().endswith("The two runs differ in versions.")


def damaged(key: str, value):
    row = rows(native=1.0)[0]
    row[key] = value
    return json.dumps(row)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no rows"),
        ("{", "1: not JSON"),
        ("[]", "1: not a JSON object"),
        ("{}", "1: schema is None"),
        (damaged("ratio", None), "1: ratio is no number"),
        (damaged("ratio", float("nan")), "1: ratio is no number"),
        (damaged("ratio", 0), "a ratio of 0"),
        (damaged("latency_ms", {"p50": 1.0}), "latency_ms.p90 is no number"),
        (damaged("machine", None), "'machine' is missing"),
        (damaged("date", 20261123), "'date' is missing"),
        (damaged("date", "x") + "\n" + damaged("date", "x"), "2: tiny/native stands there twice"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, capsys, text, said):
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    assert compare.main([str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err


def test_the_committed_records_can_be_read():
    folder = Path(compare.__file__).parent / "results"
    files = sorted(folder.glob("[0-9]*-cpu-*core.jsonl"))  # other benchmarks' records begin with their name
    for path in files:
        for row in compare.read_rows(path):
            assert row["parity"]["max_error_of_range"] <= LIMIT
    assert files
