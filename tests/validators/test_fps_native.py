"""The native form: one for each runtime and device, timed beside the candidates, or failing alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge4d.errors import ExportError, RuntimeFailed, UsageError
from edge4d.validators import fps_native, fps_paths
from edge4d.validators.fps import Samples, summarise
from edge4d.validators.fps_facts import facts_of
from edge4d.validators.fps_paths import bench_paths
from tests.onnx_models import five_axes, save
from tests.validators.timings import MS, measured, recipe_for

pytestmark = pytest.mark.usefixtures("no_pauses")


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


ORDER = {"factory": None, "trust_pickle": False, "submodule": None, "fix": {}, "seed": 0}


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
