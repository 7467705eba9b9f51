"""The table runtime × precision: what it says, what it marks, and what it refuses. Nothing is built or timed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import engines
from benchmarks.engines_table import BEGIN, END, into_document, read_rows, render
from benchmarks.networks import NETWORKS, Case
from edge4d.errors import RuntimeFailed, UsageError
from edge4d.exporters.protocol import Availability, BuildResult
from edge4d.validators.fps import Samples, summarise

MS = 1_000_000
CLIPS = np.random.default_rng(0).standard_normal((4, 1, 2, 3, 3)).astype(np.float32)
CASE = Case(None, CLIPS, CLIPS, np.array([0, 1, 0, 1]))
SCORES = np.array([[2, 1], [1, 3], [5, 1], [1, 2]], np.float32)


class Fake:
    """A runtime whose engines return the scores, wrong ones in int8, and that cannot build fp16."""

    suffixes = (".fake",)
    limits: list[float] = []  # noqa: RUF012

    def __init__(self, why_not_run=None):
        self.why_not_run = why_not_run

    def probe(self):
        return Availability(ok=True, version="1.0", why_not_run=self.why_not_run)

    def build(self, model, output, *, timeout, **_):
        self.limits.append(timeout)
        if "fp16" in output.name:
            raise RuntimeFailed(f"building took more than {timeout:g} s and was stopped")
        output.write_bytes(b"12345")
        return BuildResult(output, (output,), output, "fake", 1.25)


class Opened:
    def __init__(self, path):
        self.wrong = "int8" in path.name
        self.calls = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __call__(self, clip):
        at = [i for i, own in enumerate(CLIPS) if np.array_equal(own, clip[0])][0]  # noqa: RUF015
        return {"scores": SCORES[at : at + 1, :: -1 if self.wrong else 1]}


@pytest.fixture
def fakes(monkeypatch):
    """One runtime that runs here and one that needs a GPU; no export, no process."""
    found = {"runs": Fake(), "gpu": Fake("it needs an NVIDIA RTX GPU: CUDA finds none")}
    Fake.limits.clear()

    def bench(paths, **given):
        assert given["native"]
        assert given["time_limit_s"] < 1000
        gathered = {path.name: Samples(run_ns=[[10 * MS]], frames=16, native="nat") for path in paths[1:]}
        native = Samples(run_ns=[[20 * MS]], frames=16, is_native=True, native="nat")
        return summarise(
            {"eager": Samples(run_ns=[[30 * MS]], frames=16), **gathered, "nat": native}, rounds=1, warmup=0
        )

    monkeypatch.setattr(engines.exporters, "get", found.__getitem__)
    monkeypatch.setattr(engines, "write_eager", lambda *_: None)
    monkeypatch.setattr(Case, "scores", lambda _: SCORES)
    monkeypatch.setattr(Case, "args", ())
    monkeypatch.setattr(engines, "export", lambda *_, output, **__: output.write_bytes(b""))
    monkeypatch.setattr(engines, "open_artifact", lambda path, **_: Opened(path))
    monkeypatch.setattr("edge4d.validators.fps_paths.bench_paths", bench)
    monkeypatch.setattr(engines, "busy", lambda: 0.01)
    return found


def rows(folder):
    got = engines.measure("net", CASE, folder, rounds=1, build_limit=77, runtimes=("runs", "gpu"))
    return [{"date": "2026-11-26", **row} for row in got]


def test_every_runtime_and_precision_has_a_row(fakes, tmp_path):
    found = rows(tmp_path)
    told = {(row["runtime"], row["precision"]): row for row in found if row["form"] == "rank-4"}
    assert [*told] == [(runtime, p) for runtime in ("runs", "gpu") for p in ("fp32", "fp16", "int8")]
    assert set(Fake.limits) == {77}  # every build has its limit
    fp32, fp16, int8 = (told["runs", p] for p in ("fp32", "fp16", "int8"))
    assert (fp32["build_s"], fp32["size_bytes"], fp32["failure"]) == (1.25, 5, None)
    assert (fp32["parity"]["ok"], fp32["parity"]["top1"], fp32["parity"]["accuracy"]) == (True, 1, 1)
    assert (fp32["fps"]["frames_per_s"], fp32["fps"]["ratio_to_pytorch"], fp32["fps"]["ratio_to_native"]) == (
        1600,
        3,
        2,
    )
    assert "took more than 77 s" in fp16["failure"]
    assert fp16["fps"] is None
    assert (int8["parity"]["ok"], int8["parity"]["top1"]) == (False, 0)
    gpu = told["gpu", "fp32"]
    assert "NVIDIA" in gpu["needs"]
    assert (gpu["build_s"], gpu["parity"], gpu["fps"], gpu["failure"]) == (1.25, None, None, None)
    assert {row["form"] for row in found} == {"rank-4", "eager", "native-5d"}


def test_what_failed_or_is_wrong_is_a_problem_and_what_needs_a_gpu_is_none(fakes, tmp_path):
    problems = {(row["runtime"], row["precision"]): engines._problem(row) for row in rows(tmp_path)}
    assert problems["gpu", "fp32"] is None
    assert problems["runs", "fp32"] is None
    assert "took more than" in problems["runs", "fp16"]
    assert "parity" in problems["runs", "int8"]


def test_the_table_marks_a_gpu_a_failure_and_an_error(fakes, tmp_path):
    lines = {
        line.split("|")[2].strip() + line.split("|")[3].strip(): line for line in table(tmp_path).splitlines()[2:8]
    }
    text = table(tmp_path)
    assert "needs a GPU" in next(line for line in text.splitlines() if "| gpu" in line)
    assert "fails" in next(line for line in text.splitlines() if "4-D, fp16" in line)
    assert "✗" in next(line for line in text.splitlines() if "4-D, int8" in line)
    assert "✗" not in next(line for line in text.splitlines() if "4-D, fp32" in line)
    assert "- gpu: it needs an NVIDIA RTX GPU: CUDA finds none" in text
    assert len(lines) == 6


def table(folder):
    return render(rows(folder))


def test_the_table_goes_between_the_markers_and_nowhere_else(fakes, tmp_path):
    document = tmp_path / "d.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    found = rows(tmp_path)
    into_document(found, document)
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}\n\n| network")
    assert text.endswith(f"\n\n{END}\nafter\n")
    assert "old" not in text
    into_document(found, document)
    assert document.read_text() == text


@pytest.mark.parametrize("text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n"])
def test_a_document_without_its_markers_is_refused_and_kept(tmp_path, text):
    document = tmp_path / "d.md"
    document.write_text(text)
    with pytest.raises(UsageError, match="must hold these two lines"):
        into_document([], document)
    assert document.read_text() == text


@pytest.mark.parametrize("text", ["", "[]\n", "{\n", '{"schema": 2}\n', '{"schema": 1, "network": "a"}\n'])
def test_a_file_that_holds_no_results_is_refused(tmp_path, text):
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError):
        read_rows(path)


def test_an_unknown_network_and_an_existing_file_are_refused_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(engines.NETWORKS, "moving-digits", lambda: pytest.fail("it worked"))
    out = tmp_path / "r.jsonl"
    out.write_text("kept")
    assert engines.main(["moving-digits", "--out", str(out)]) == 2
    assert out.read_text() == "kept"
    assert engines.main(["resnet", "--out", str(tmp_path / "other")]) == 2
    assert "no network resnet" in capsys.readouterr().err


def test_a_further_network_is_added_to_a_file(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "RUNTIMES", ("gpu",))
    monkeypatch.setattr(engines.measure, "__kwdefaults__", {"runtimes": ("gpu",)})
    monkeypatch.setattr(engines, "stamp_of", dict)
    for name in ("r3d_18", "x3d_s"):
        monkeypatch.setitem(engines.NETWORKS, name, lambda: replace(CASE))
    out = tmp_path / "r.jsonl"
    for name in ("r3d_18", "x3d_s", "x3d_s"):
        engines.main([name, "--out", str(out), "--add", "--no-docs"])
    names = [json.loads(line)["network"] for line in out.read_text().splitlines()]
    assert names == ["r3d_18"] * 3 + ["x3d_s"] * 3


def test_the_issues_networks_are_there():
    assert [*NETWORKS] == ["moving-digits", "r3d_18", "slow_r50", "x3d_s", "ECO-Lite/Proposed-Add"]
