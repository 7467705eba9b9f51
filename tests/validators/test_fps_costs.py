"""What a file costs beside its speed: size, build time, copies; unknown ones say why."""

from __future__ import annotations

import pytest

from edge4d.validators.fps import summarise
from edge4d.validators.fps_facts import facts_of, no_copies
from edge4d.validators.fps_paths import bench_paths
from tests.onnx_models import artifact, save
from tests.validators.timings import MS, measured, recipe_for

pytestmark = pytest.mark.usefixtures("no_pauses")


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
