"""The benchmark: statistics on known numbers, slow things found slow, failures reported and not fatal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from edge4d.errors import UsageError
from edge4d.validators import fps_paths
from edge4d.validators.fps import Samples, bench, percentile, summarise
from edge4d.validators.fps_floors import Floors
from edge4d.validators.fps_paths import bench_paths
from edge4d.validators.fps_worker import CLOCKS, clips_and_frames, peak_rss_mib
from tests.onnx_models import plain, save
from tests.validators.timings import four, measured

pytestmark = pytest.mark.usefixtures("no_pauses")


# ---- statistics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [0, 50, 90, 99, 100])
@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_percentiles_are_numpys(percent, count):
    values = np.random.default_rng(count).random(count).tolist()
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_a_percentile_of_nothing_is_an_error():
    with pytest.raises(ValueError):
        percentile([], 50)


def test_rates_follow_from_the_median_latency():
    report = summarise({"a": measured([10], [20], [60])}, rounds=3, warmup=0)
    (a,) = report.candidates
    assert a.turns_ms == pytest.approx((10, 20, 60))
    assert a.latency_ms == pytest.approx({"p10": 12, "p50": 20, "p90": 52, "p99": 59.2, "min": 10})
    assert (a.clips_per_s, a.frames_per_s, a.samples, a.speedup) == pytest.approx((100, 1600, 3, 1))


def test_the_speedup_is_the_median_of_each_rounds_own_ratio():
    # The machine slowed down tenfold in the last two rounds: medians of all samples would say 20 / 10, too.
    gathered = {"ref": measured([10], [20], [300]), "b": measured([5], [10], [100])}
    assert summarise(gathered, rounds=3, warmup=0).candidates[1].speedup == pytest.approx(2)
    swapped = {"ref": measured([10], [100], [100]), "b": measured([10], [10], [50])}
    assert summarise(swapped, rounds=3, warmup=0).candidates[1].speedup == pytest.approx(2)


def test_without_a_reference_there_are_numbers_but_no_speedup():
    report = summarise({"ref": Samples(failure="it broke"), "b": measured([5])}, rounds=1, warmup=0)
    assert report.candidates[1].speedup is None
    assert report.candidates[1].latency_ms is not None
    assert not report.ok


def test_a_report_of_nothing_is_not_ok():
    from edge4d.validators.fps import FpsReport

    assert not FpsReport((), 1, 0, {}).ok


def test_the_ratio_to_native_is_to_the_form_on_the_same_runtime():
    gathered = {
        "ref": measured([40]),
        "a": measured([10], native="n1"),
        "b": measured([10], native="n2"),
        "n1": measured([20], native="n1", is_native=True),
        "n2": Samples(failure="no fifth axis", native="n2", is_native=True),
    }
    report = summarise(gathered, rounds=1, warmup=0)
    assert [line.speedup for line in report.candidates] == [1, 4, 4, 2, None]
    assert [line.speedup_to_native for line in report.candidates] == [None, 2, None, 1, None]
    assert "vs native" in report.to_text()
    assert "vs native" not in four().to_text()


def test_the_table_and_the_json_hold_every_candidate():
    gathered = {"ref": measured([10], load_rss_mib=80.0, peak_rss_mib=123.4), "dead": Samples(failure="no such op")}
    report = summarise(gathered, rounds=1, warmup=2)
    text = report.to_text()
    assert "dead failed: no such op" in text
    assert "123" in text
    assert text.isascii()
    document = json.loads(json.dumps(report.to_dict()))
    assert document["ok"] is False
    assert document["reference"] == "ref"
    assert document["candidates"][0]["latency_ms"]["p50"] == 10
    assert document["candidates"][1]["failure"] == "no such op"
    assert document["machine"]["cores"] >= 1


# ---- in this process --------------------------------------------------------------------------------------------


def test_a_slow_callable_is_found_slow_and_calls_are_interleaved():
    calls = []

    def candidate(name, seconds):
        def call():
            calls.append(name)
            time.sleep(seconds)

        return call

    report = bench({"a": candidate("a", 0.002), "b": candidate("b", 0.02)}, rounds=4, warmup=1, frames_per_call=16)
    assert calls == ["a", "b", *["a", "b"] * 4]
    a, b = report.candidates
    assert a.frames_per_s > 3 * b.frames_per_s
    assert 0.05 < b.speedup < 0.3
    assert a.speedup == 1


def test_a_callable_that_raises_is_reported_and_the_others_go_on():
    def broken():
        raise RuntimeError("out of luck")

    report = bench({"ok": lambda: None, "broken": broken}, rounds=2)
    assert report.candidates[0].samples == 2
    assert report.candidates[1].failure == "RuntimeError: out of luck"
    assert [candidate.exit_code for candidate in report.candidates] == [0, 1]
    assert report.exit_code == 1
    assert not report.ok


@pytest.mark.parametrize(
    ("candidates", "counts"), [({}, {}), ({"a": int}, {"rounds": 0}), ({"a": int}, {"warmup": -1})]
)
def test_a_measurement_of_nothing_is_refused(candidates, counts):
    with pytest.raises(UsageError, match="cannot measure"):
        bench(candidates, **counts)


# ---- in processes of their own ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ([(2, 3, 16, 8, 8)], (2, 32)),
        ([(4, 7), (2, 3, 16, 8, 8)], (2, 32)),
        ([(), (4, 3, 8, 8)], (4, 4)),
        ([()], (1, 1)),
        ([], (1, 1)),
    ],
)
def test_frames_are_those_of_the_first_clip(shapes, found):
    assert clips_and_frames(shapes) == found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_peak_memory_is_the_processes_own_and_not_its_parents():
    ballast = np.ones(40 << 20, dtype=np.uint8)  # the parent's peak, which getrusage would pass on to a child
    code = "a = p(); b = bytearray(b'x' * (30 << 20)); print(a, p())"
    code = f"from edge4d.validators.fps_worker import peak_rss_mib as p; {code}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(float, result.stdout.split())
    assert after - before > 25
    assert before < ballast.nbytes / 2**20 < peak_rss_mib()


def test_an_artifact_against_itself(model):
    report = bench_paths([model, model], rounds=3, warmup=1, threads=1, calls_per_round=2)
    assert report.ok, report.to_text()
    a, b = report.candidates
    assert (a.name, b.name) == (str(model), f"{model} (2)")
    assert (a.samples, b.samples) == (6, 6)
    assert a.details["runtime"] == "onnxruntime"
    assert a.details["threads"] == 1
    assert a.details["shapes"] == [[2, 3, 4, 5, 6]]
    assert a.pack_ms > 0
    assert 1 < a.load_rss_mib <= a.peak_rss_mib
    assert a.frames_per_s / a.clips_per_s == pytest.approx(4)
    assert b.speedup > 0


NETWORK = """
import torch

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(3, 1, 1, 1))

    def forward(self, clip):
        print("a model that prints to stdout must not disturb the protocol")
        return (clip + self.bias).relu()
"""


def test_the_processors_clock_stands_still_while_nothing_is_done():
    spent = {}
    for name, now in CLOCKS.items():
        start = now()
        time.sleep(0.05)
        spent[name] = (now() - start) / 1e6
    assert spent["wall"] >= 50
    assert spent["processor"] < 25


def test_files_are_timed_by_the_processors_clock(model):
    report = bench_paths([model], rounds=2, warmup=0, threads=1, clock="processor")
    assert report.ok
    assert len(report.candidates[0].turns_ms) == 2


@pytest.mark.parametrize(("clock", "threads"), [("processor", 2), ("processor", None), ("sundial", 1)])
def test_a_clock_that_says_nothing_is_refused(model, clock, threads):
    with pytest.raises(UsageError, match=clock):
        bench_paths([model], rounds=1, threads=threads, clock=clock)


def test_pytorch_is_measured_with_the_shapes_that_the_artifact_knows(model, tmp_path, monkeypatch):
    import torch

    (tmp_path / "bench_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    torch.save({"bias": torch.zeros(3, 1, 1, 1)}, tmp_path / "weights.pt")
    report = bench_paths(
        [tmp_path / "weights.pt", model], rounds=2, warmup=1, threads=1, factory="bench_network:Network"
    )
    assert report.ok, report.to_text()
    assert report.candidates[0].details["runtime"] == "pytorch"
    assert report.candidates[0].details["inputs"] == "those of another candidate"
    assert report.candidates[0].pack_ms is None
    assert report.candidates[1].speedup > 0


def test_models_given_other_inputs_are_not_compared(model, tmp_path):
    other = save(plain("Relu", (5, 3)), tmp_path / "other.onnx")
    report = bench_paths([model, other], rounds=1, warmup=0)
    assert report.ok
    assert report.candidates[1].speedup is None
    assert "inputs 5x3, the reference 2x3x4x5x6" in report.candidates[1].incomparable
    (short,) = report.held_to(Floors(min_ratio=0.1)).shortfalls
    assert (short.name, short.got) == ("other.onnx", None)
    assert "no ratio (it was given inputs 5x3" in short.to_text()


def test_an_open_shape_is_asked_for(tmp_path):
    path = save(plain(), tmp_path / "m.onnx")
    (failed,) = bench_paths([path], rounds=1).candidates
    assert "leaves the shape of input 'x' open" in failed.failure
    assert bench_paths([path], rounds=1, input_shapes=[(4, 3)]).ok


def test_an_unreadable_file_fails_alone(model, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    report = bench_paths([model, tmp_path / "bad.onnx"], rounds=1)
    assert report.candidates[0].samples == 1
    assert "bad.onnx is no ONNX model" in report.candidates[1].failure
    assert report.exit_code == 2
    assert not report.ok


def test_a_missing_file_is_a_usage_error(model, tmp_path):
    with pytest.raises(UsageError, match=r"absent\.onnx: no such file"):
        bench_paths([model, tmp_path / "absent.onnx"])


WORKER = """
import json, os, sys, time
for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "describe":
        names = ("size_bytes", "size_unknown", "build_s", "build_unknown")
        print(json.dumps({"event": "facts", **dict.fromkeys(names)}), flush=True)
    elif order["do"] == "load":
        answer = {"event": "ready", "shapes": [], "clips": 1, "frames": 1, "details": {}, "rss_mib": 1.0}
        answer |= {"load_s": 0.0, "copy_unknown": None}
        print(json.dumps(answer), flush=True)
    else:
        FAULT
"""


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("print('torch is sad', file=sys.stderr, flush=True); os._exit(7)", "died with code 7\n    torch is sad"),
        ("os.kill(os.getpid(), 9)", r"died by signal 9 \(out of memory\?\)"),
        ("print('stuck', file=sys.stderr, flush=True); time.sleep(60)", "took more than 1 s to warm up\n    stuck"),
    ],
)
def test_a_worker_that_dies_or_hangs_is_its_candidates_failure(model, monkeypatch, fault, said):
    monkeypatch.setattr(fps_paths, "_START", WORKER.replace("FAULT", fault))
    start = time.monotonic()
    (failed,) = bench_paths([model], rounds=2, time_limit_s=1).candidates
    assert time.monotonic() - start < 30
    assert re.search(said, failed.failure), failed.failure


def test_an_interruption_leaves_no_worker_behind(model, monkeypatch):
    started = []
    real = subprocess.Popen

    def recording(*args, **kwargs):
        started.append(real(*args, **kwargs))
        return started[-1]

    def interrupt(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(fps_paths.subprocess, "Popen", recording)
    monkeypatch.setattr(fps_paths.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench_paths([model, model])
    assert len(started) == 4  # each is looked at in a process of its own
    assert all(process.poll() is not None for process in started)


def test_the_current_folder_does_not_shadow_what_a_worker_imports(model, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", os.fspath(tmp_path))])
    assert bench_paths([model], rounds=1).ok
