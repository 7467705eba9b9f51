"""The benchmark: statistics on known numbers, slow things found slow, failures reported and not fatal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edge4d.errors import ExportError, RuntimeFailed, UsageError
from edge4d.validators import fps_native, fps_paths
from edge4d.validators.fps import Samples, bench, percentile, summarise
from edge4d.validators.fps_facts import facts_of, no_copies
from edge4d.validators.fps_floors import Floors
from edge4d.validators.fps_paths import bench_paths
from edge4d.validators.fps_worker import clips_and_frames, peak_rss_mib
from tests.onnx_models import artifact, five_axes, plain, save

MS = 1_000_000


@pytest.fixture
def model(tmp_path):
    return save(artifact(), tmp_path / "m.onnx")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(fps_paths, "_SETTLE_S", 0)


def measured(*turns, **others):
    return Samples(run_ns=[[ms * MS for ms in turn] for turn in turns], clips=2, frames=32, **others)


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


def four(**floors):
    """A reference of 3200 frames/s, one twice and one half as fast, and one whose runtime is missing."""
    dead = Samples(failure="x", exit_code=3)
    gathered = {"ref": measured([10]), "fast": measured([5]), "slow": measured([20]), "dead": dead}
    return summarise(gathered, rounds=1, warmup=0).held_to(Floors(**floors))


@pytest.mark.parametrize(
    ("floors", "short"),
    [
        ({}, []),
        ({"min_ratio": 1.0}, ["slow", "dead"]),
        ({"min_ratio": 2.0}, ["slow", "dead"]),
        ({"min_ratio": 2.5}, ["fast", "slow", "dead"]),
        ({"min_fps": 1600}, ["dead"]),
        ({"min_fps": 1601}, ["slow", "dead"]),
        ({"min_fps": 6401}, ["fast", "slow", "dead"]),
        ({"min_fps": 1601, "min_ratio": 2.5}, ["slow", "dead", "fast", "slow", "dead"]),
    ],
)
def test_what_is_below_a_floor_or_not_known_falls_short(floors, short):
    assert [found.name for found in four(**floors).shortfalls] == short


def test_a_shortfall_says_got_and_expected():
    slow, dead = four(min_fps=2000).shortfalls
    assert slow.to_text() == "slow is too slow: 1600 frames/s, expected at least 2000 frames/s (--min-fps)"
    assert "dead is too slow: no frames/s (it failed), expected at least 2000" in dead.to_text()
    slow, _ = four(min_ratio=0.75).shortfalls
    assert "0.5 times as fast as the reference, expected at least 0.75 times (--min-ratio)" in slow.to_text()
    told = four(min_fps=2000).to_dict()["floors"]
    assert told["min_frames_per_s"] == 2000
    assert told["shortfalls"][0]["got"] == pytest.approx(1600)


def test_one_that_is_too_slow_weighs_more_than_a_missing_runtime_and_that_alone_keeps_its_code():
    assert four().exit_code == 3
    assert four(min_fps=1).exit_code == 3
    assert four(min_fps=2000).exit_code == 1
    assert not four(min_fps=2000).ok


def test_a_floor_holds_for_a_reference_that_stands_alone_and_never_for_native_forms():
    alone = summarise({"ref": measured([10])}, rounds=1, warmup=0)
    assert [found.name for found in alone.held_to(Floors(min_fps=3201)).shortfalls] == ["ref"]
    gathered = {"ref": measured([10]), "a": measured([5]), "n": measured([50], is_native=True)}
    report = summarise(gathered, rounds=1, warmup=0).held_to(Floors(min_fps=3201, min_ratio=1))
    assert report.ok


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["min_fps", "min_ratio"])
def test_a_floor_that_could_not_fail_or_not_hold_is_refused(name, value):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} .*, expected a finite number above 0"):
        Floors(**{name: value})


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
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_the_current_folder_does_not_shadow_what_a_worker_imports(model, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", os.fspath(tmp_path))])
    assert bench_paths([model], rounds=1).ok


# ---- what a file costs --------------------------------------------------------------------------------------------


def recipe_for(path, **changes):
    """Write the recipe of an engine: of this very file, unless changed."""
    from edge4d.files import sha256_of

    own = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    told = {"step": "build fake", "files": {path.name: own}, "build_s": 1.5} | changes
    path.with_name(f"{path.name}.json").write_text(json.dumps(told))


def test_size_and_build_time_of_an_engine_with_files_beside_it(tmp_path):
    engine, weights = tmp_path / "m.xml", tmp_path / "m.bin"
    engine.write_bytes(b"12345")
    weights.write_bytes(b"1234567890")
    facts = facts_of(engine)
    assert (facts["size_bytes"], facts["build_s"]) == (15, None)
    assert "no recipe of this very file" in facts["build_unknown"]
    recipe_for(engine)
    assert facts_of(engine) == {"size_bytes": 15, "size_unknown": None, "build_s": 1.5, "build_unknown": None}
    engine.write_bytes(b"54321")  # another engine, beside which the former's recipe was left
    assert facts_of(engine)["build_s"] is None


@pytest.mark.parametrize("wrong", [None, True, -1, "1.5", float("nan"), float("inf")])
def test_a_build_time_that_is_no_number_is_unknown(tmp_path, wrong):
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"12345")
    recipe_for(engine, build_s=wrong)
    facts = facts_of(engine)
    assert facts["build_s"] is None
    assert "does not say" in facts["build_unknown"]


def test_a_recipe_does_not_lead_out_of_its_folder(tmp_path):
    from edge4d.files import sha256_of

    (tmp_path / "secret").write_bytes(b"x" * 1000)
    folder = tmp_path / "engines"
    folder.mkdir()
    engine = folder / "m.engine"
    engine.write_bytes(b"12345")
    own = {"bytes": 5, "sha256": sha256_of(engine)}
    recipe_for(engine, files={"m.engine": own, "../secret": {}, str(tmp_path / "secret"): {}, "absent": {}})
    assert facts_of(engine)["size_bytes"] == 5


def test_weights_beside_an_onnx_file_count_and_their_absence_is_told(tmp_path):
    path = save(artifact(), tmp_path / "m.onnx", beside=True)
    data = path.with_name("m.onnx.data")
    facts = facts_of(path)
    assert facts["size_bytes"] == path.stat().st_size + data.stat().st_size
    assert facts["build_unknown"] == "the runtime compiles it while it loads"
    data.unlink()
    facts = facts_of(path)
    assert facts["size_bytes"] is None
    assert "not beside it" in facts["size_unknown"]


def test_an_export_is_no_build(tmp_path):
    path = save(artifact(), tmp_path / "m.onnx")
    recipe_for(path, step="export")
    assert facts_of(path)["build_s"] is None


@pytest.mark.parametrize(
    ("runtime", "providers", "said"),
    [
        ("pytorch", ["cpu"], "on the CPU"),
        ("onnxruntime", ["CPUExecutionProvider"], "on the CPU"),
        ("openvino", ["CPU"], "on the CPU"),
        ("onnxruntime", ["CUDAExecutionProvider", "CPUExecutionProvider"], "part of the latency"),
        ("openvino", ["GPU"], "part of the latency"),
        ("strange", [], "part of the latency"),
    ],
)
def test_copies_that_are_not_told_apart_have_a_reason(runtime, providers, said):
    assert said in no_copies({"runtime": runtime, "providers": providers})


def test_copies_are_a_column_where_they_are_told_apart_and_a_reason_elsewhere():
    gathered = {
        "gpu": measured([10], copy_ns=[2 * MS, 3 * MS, 40 * MS]),
        "cpu": measured([10], copy_unknown="no device"),
    }
    report = summarise(gathered, rounds=1, warmup=0)
    gpu, cpu = report.candidates
    assert (gpu.copy_ms, gpu.copy_unknown) == (3, None)
    assert (cpu.copy_ms, cpu.copy_unknown) == (None, "no device")
    assert "no copy ms: no device (cpu)" in report.to_text()


def test_a_file_that_cannot_be_loaded_keeps_its_size(model, tmp_path):
    (tmp_path / "bad.engine").write_bytes(b"nonsense")
    failed = bench_paths([model, tmp_path / "bad.engine"], rounds=1, warmup=0).candidates[1]
    assert failed.failure is not None
    assert failed.size_bytes == 8


# ---- the native form ----------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path):
    """An exported program of the same inputs as `artifact`."""
    import torch

    class Add(torch.nn.Module):
        def forward(self, clip):
            return (clip + 1).relu()

    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(Add(), (torch.zeros(2, 3, 4, 5, 6),)), path)
    return path


@pytest.mark.slow
def test_the_native_form_is_timed_on_the_runtimes_of_the_candidates(program, model):
    from edge4d import exporters

    engine = exporters.get("openvino").build(model, model.with_name("m.xml")).path
    report = bench_paths([program, model, engine], rounds=2, warmup=1, threads=1, native=True)
    assert report.ok, report.to_text()
    lines = {line.name: line for line in report.candidates}
    assert [*lines] == ["m.pt2", "m.onnx", "m.xml", "native-5d (onnxruntime)", "native-5d (openvino)"]
    assert [line.is_native for line in report.candidates] == [False, False, False, True, True]
    assert lines["m.pt2"].speedup_to_native is None
    for name, runtime in (("m.onnx", "onnxruntime"), ("m.xml", "openvino")):
        native = lines[f"native-5d ({runtime})"]
        assert lines[name].native == native.name
        assert lines[name].speedup_to_native > 0
        assert native.speedup_to_native == 1
        assert native.details["runtime"] == runtime
        assert native.details["shapes"] == [[2, 3, 4, 5, 6]]
        assert native.pack_ms is None  # five axes need no packing
    assert lines["m.xml"].build_s > 0
    assert lines["native-5d (openvino)"].build_s > 0
    assert all(line.size_bytes > 0 and line.load_s > 0 for line in report.candidates)


def loaded(runtime, *providers):
    return Samples(details={"runtime": runtime, "providers": list(providers), "shapes": [[2, 3, 4, 5, 6]]})


def exported(monkeypatch, error=None):
    """Stand in for torch.onnx; gives the list of the orders it gets."""
    orders = []

    def export(_target, order, limit, _doing):
        orders.append((order, limit))
        if error is not None:
            raise error
        save(five_axes(), Path(order["output"]))

    monkeypatch.setattr(fps_native, "call", export)
    return orders


ORDER = {"factory": None, "trust_pickle": False, "seed": 0}


def test_each_runtime_and_device_gets_one_native_form(model, tmp_path, monkeypatch):
    from edge4d import exporters

    orders = exported(monkeypatch)
    engine = exporters.get("openvino").build(model, model.with_name("m.xml")).path
    gathered = {
        "m.pt2": loaded("pytorch", "cpu"),
        "a": loaded("onnxruntime", "CPUExecutionProvider"),
        "b": loaded("onnxruntime", "CPUExecutionProvider"),
        "c": loaded("openvino", "CPU"),
        "dead": Samples(failure="x"),
    }
    placed = {"m.pt2": "m.pt2", "a": model, "b": model, "c": engine, "dead": model}
    forms = fps_paths._native_forms(gathered, placed, ORDER, tmp_path, 60.0)
    assert {name: path.suffix for name, (_, path) in forms.items()} == {
        "native-5d (onnxruntime)": ".onnx",
        "native-5d (openvino)": ".xml",
    }
    natives = [samples.native for samples in gathered.values()]
    assert natives == [None, *["native-5d (onnxruntime)"] * 2, "native-5d (openvino)", None]
    ((order, limit),) = orders  # exported once for all of them, under the time limit
    assert (order["shapes"], limit) == ([[2, 3, 4, 5, 6]], 60.0)
    assert facts_of(forms["native-5d (openvino)"][1])["build_s"] > 0


def test_a_native_form_that_torch_cannot_write_fails_alone(model, tmp_path, monkeypatch):
    orders = exported(monkeypatch, ExportError("torch.onnx cannot export it"))
    gathered = {"m.pt2": measured([10]), "a": loaded("onnxruntime", "cpu"), "b": loaded("openvino", "CPU")}
    gathered["m.pt2"].details["runtime"] = "pytorch"
    placed = dict.fromkeys(gathered, model)
    forms = fps_paths._native_forms(gathered, placed, ORDER, tmp_path, 60.0)
    assert [made.failure for made, _ in forms.values()] == ["torch.onnx cannot export it"] * 2
    assert len(orders) == 1  # it is not tried again for the second runtime
    gathered["a"].run_ns = [[5 * MS]]
    del gathered["b"]
    report = summarise(gathered | {name: made for name, (made, _) in forms.items()}, rounds=1, warmup=0)
    assert report.candidates[1].speedup == 2
    assert report.candidates[1].speedup_to_native is None
    assert report.exit_code == 2


def test_an_export_that_takes_too_long_says_which_option_gives_it_more(model, tmp_path, monkeypatch):
    exported(monkeypatch, RuntimeFailed("exporting took more than 60 s", hint="--timeout SECONDS"))
    gathered = {"m.pt2": loaded("pytorch", "cpu"), "a": loaded("onnxruntime", "cpu")}
    ((made, path),) = fps_paths._native_forms(gathered, dict.fromkeys(gathered, model), ORDER, tmp_path, 60.0).values()
    assert path is None
    assert "--time-limit SECONDS" in made.failure


def test_a_reference_that_fails_has_no_native_form(model, tmp_path, monkeypatch):
    orders = exported(monkeypatch)
    gathered = {"m.pt2": Samples(failure="it broke", exit_code=3), "a": loaded("onnxruntime", "cpu")}
    ((made, path),) = fps_paths._native_forms(gathered, dict.fromkeys(gathered, model), ORDER, tmp_path, 60.0).values()
    assert (made.failure, made.exit_code, path, orders) == ("m.pt2 itself failed", 3, None, [])


@pytest.mark.parametrize(
    ("device", "given"),
    [("GPU.1", ("GPU.1",)), (["sm_86"], ("sm_86",)), ("", None), (7, None), ([7], None), (None, None)],
)
def test_an_engine_of_the_native_form_is_built_for_the_candidates_device(tmp_path, device, given):
    engine = tmp_path / "m.xml"
    engine.write_bytes(b"x")
    recipe_for(engine, options={"device": device})
    assert fps_native._device(engine) == ({} if given is None else {"device": given})


def test_a_native_form_of_an_onnx_file_is_refused(model):
    with pytest.raises(UsageError, match=r"--native exports REFERENCE by torch\.onnx, and .* is a runtime's file"):
        bench_paths([model, model], native=True)
