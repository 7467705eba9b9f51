"""What every registered exporter must keep to, installed or not, on a machine that can run its engines or not."""

from __future__ import annotations

import json
import resource
import signal
import sys

import numpy as np
import pytest

from edge4d import exporters
from edge4d.artifact import open
from edge4d.cli import main
from edge4d.errors import (
    ExportError,
    GateError,
    PackingError,
    RuntimeFailed,
    RuntimeUnavailable,
    UsageError,
    ValidationError,
)
from edge4d.exporters.protocol import Availability, Exporter, require
from edge4d.exporters.rknn import PYTHON_VARIABLE
from edge4d.files import sha256_of
from tests.exporters import fake_rknn
from tests.onnx_models import CLIP, RESULT, artifact, expected, five_axes, save

IMPORTS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx"}
"""What each runtime is imported as; taken away, it is a runtime that is not installed."""

RTOL = {"rknn": 2e-3}
"""Of engines that compute in float16."""

FAKED = "rknn-with-a-fake-toolkit"


@pytest.fixture(params=[*exporters.names(), FAKED])
def exporter(request, tmp_path_factory, monkeypatch):
    if request.param == FAKED:
        monkeypatch.setenv(PYTHON_VARIABLE, str(fake_rknn.install(tmp_path_factory.mktemp("fake") / "rknn")))
    return exporters.get("rknn" if request.param == FAKED else request.param)


def assert_same(found, wanted, exporter):
    np.testing.assert_allclose(found, wanted, rtol=RTOL.get(exporter.name, 1e-6))


@pytest.fixture
def builder(exporter):
    """An exporter that can build here."""
    found = exporter.probe()
    if not found.ok:
        pytest.skip(f"{exporter.name}: {found.why_not}")
    return exporter


@pytest.fixture
def runner(builder):
    """An exporter whose engines can be run here."""
    found = builder.probe()
    if found.why_not_run is not None:
        pytest.skip(f"{builder.name}: {found.why_not_run}")
    return builder


@pytest.fixture
def model(tmp_path):
    return save(artifact(), tmp_path / "m.onnx")


@pytest.fixture
def output(exporter, tmp_path):
    return tmp_path / f"engine{exporter.suffixes[0]}"


@pytest.fixture
def clip():
    return np.random.default_rng(0).standard_normal(CLIP.shape).astype(np.float32)


# ---- installed or not -------------------------------------------------------------------------------------------


def test_it_keeps_to_the_protocol(exporter):
    assert isinstance(exporter, Exporter)
    assert exporters.get(exporter.name).name == exporter.name
    assert all(suffix.startswith(".") for suffix in exporter.suffixes)
    assert all(isinstance(name, str) for name in exporter.open_options)


def test_its_probe_says_yes_or_what_to_install(exporter):
    found = exporter.probe()
    assert found.version if found.ok else found.why_not and found.install
    assert found.to_dict().keys() >= {"ok", "version", "why_not", "install", "why_not_run"}


def test_where_it_is_missing_the_install_command_is_given(exporter, model, output, monkeypatch, capsys):
    if exporter.name in IMPORTS:
        monkeypatch.setitem(sys.modules, IMPORTS[exporter.name], None)
    else:
        monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    found = exporter.probe()
    assert not found.ok
    assert found.why_not == "it is not installed" or "no interpreter that has rknn-toolkit2" in found.why_not
    assert "pip install " in found.install
    output.write_bytes(b"an engine from elsewhere")
    for attempt in (lambda: exporter.open(output), lambda: exporter.build(model, output.with_name(f"n{output.name}"))):
        with pytest.raises(RuntimeUnavailable) as caught:
            attempt()
        assert caught.value.hint == f"install it with: {found.install}"
    assert main(["build", str(model), "-r", exporter.name]) == 3
    assert found.install in capsys.readouterr().err
    output.with_name(f"{output.name}.json").write_text("{}")  # whatever lies there: the runtime is missing first
    if exporters.for_path(output).name == exporter.name:
        assert main(["parity", str(model), str(output)]) == 3
        assert found.install in capsys.readouterr().err
    assert main(["doctor"]) == 0
    assert found.install in capsys.readouterr().out


def test_a_runtime_that_fails_to_import_is_told_from_a_missing_one(exporter, monkeypatch):
    if exporter.name not in IMPORTS:
        pytest.skip(f"{exporter.name} is imported elsewhere: see test_rknn.py")

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == IMPORTS[exporter.name]:
                raise ImportError("libsomething.so.9: cannot open shared object file")

    monkeypatch.delitem(sys.modules, IMPORTS[exporter.name], raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    found = exporter.probe()
    assert not found.ok
    assert found.why_not.startswith("it is installed but cannot be imported: libsomething.so.9")


def test_an_unknown_option_is_answered_with_the_nearest(exporter, model, output):
    with pytest.raises(UsageError, match=f"{exporter.name} has no option 'no_such_option', expected one of: "):
        exporter.build(model, output, no_such_option=1)
    with pytest.raises(UsageError, match=f"{exporter.name} has no option 'no_such_option'"):
        exporter.open(output, no_such_option=1)


# ---- where it builds --------------------------------------------------------------------------------------------


def test_it_builds_an_engine_and_its_recipe(builder, model, output):
    result = builder.build(model, output)
    assert all(file.is_file() for file in result.files)
    assert result.size_bytes > 0
    assert result.to_dict()["runtime"] == builder.name
    recipe = json.loads(result.recipe.read_text())
    assert recipe["step"] == f"build {builder.name}"
    assert recipe["sources"] == [{"name": "m.onnx", "sha256": sha256_of(model)}]
    assert recipe["files"][output.name] == {"sha256": sha256_of(output), "bytes": output.stat().st_size}
    assert recipe["options"]["max_rank"] == 4
    assert recipe["engine"]["metadata"]["edge4d.packing.clip"] == CLIP.packing
    assert 0 < recipe["build_s"] <= result.seconds
    own = [recipe["versions"][name] for name in recipe["versions"] if name not in ("python", "edge4d", "onnx")]
    assert any(own) or recipe["engine"]["version"]
    assert exporters.for_path(output).name == builder.name


def test_the_command_line_builds_too(builder, model, capsys):
    assert main(["build", str(model), "-r", builder.name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    ending = builder.suffixes[0]
    assert told["path"] == str(model.with_name("m" + (ending if ending == ".rknn" else f".{builder.name}{ending}")))
    assert told["seconds"] > 0


def test_five_axes_are_refused_unless_asked_for(builder, output, tmp_path):
    model = save(five_axes(), tmp_path / "m.onnx")
    with pytest.raises(GateError, match="works on three spatial axes") as caught:
        builder.build(model, output)
    assert caught.value.exit_code == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]
    assert main(["build", str(model), "-r", builder.name, "-o", str(output)]) == 1
    assert builder.build(model, output, max_rank=None).path.is_file()


def test_a_missing_model_is_named(builder, output):
    with pytest.raises(ValidationError, match=r"absent\.onnx: no such file"):
        builder.build(output.with_name("absent.onnx"), output)


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04", bytes(1000)])
def test_what_is_no_model_is_named(builder, output, data):
    bad = output.with_name("bad.onnx")
    bad.write_bytes(data)
    with pytest.raises(ValidationError, match=r"bad\.onnx"):
        builder.build(bad, output)
    assert [entry.name for entry in bad.parent.iterdir()] == ["bad.onnx"]


def test_an_operator_that_it_does_not_know_is_named(builder, output, tmp_path):
    made = artifact()
    made.graph.node[1].op_type = "NoSuchOperator"
    model = save(made, tmp_path / "m.onnx")
    with pytest.raises(ValidationError, match=r"m\.onnx holds (.|\n)*NoSuchOperator"):
        builder.build(model, output, max_rank=None)


def test_another_suffix_is_refused(builder, model, tmp_path):
    with pytest.raises(UsageError, match=rf"cannot build .*engine\.other: {builder.name} writes \.\w+"):
        builder.build(model, tmp_path / "engine.other")


def test_a_full_disk_is_said_and_leaves_nothing(builder, model, output):
    """The system refuses to let a file grow beyond 512 bytes, in the compiler's process as in this one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
        with pytest.raises(ExportError, match=r"cannot write .*engine"):
            builder.build(model, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [entry.name for entry in output.parent.iterdir()] == ["m.onnx"]


def test_a_time_limit_that_is_too_short_is_said(builder, model, output):
    with pytest.raises(RuntimeFailed, match=rf"building .*with {builder.name} took more than 0\.01 s"):
        builder.build(model, output, timeout=0.01)
    assert [entry.name for entry in output.parent.iterdir()] == ["m.onnx"]


def test_a_damaged_engine_is_refused(builder, model, output, capsys):
    builder.build(model, output)
    output.write_bytes(output.read_bytes()[:-7])
    if output.suffix == ".onnx":  # needs no recipe, so nothing but the file itself speaks
        output.write_bytes(output.read_bytes()[: output.stat().st_size // 2])
    with pytest.raises(ValidationError, match=r"engine"):
        builder.open(output)
    assert main(["parity", str(model), str(output)]) == 2
    assert "Traceback" not in capsys.readouterr().err


# ---- where it runs, and where it does not -----------------------------------------------------------------------


def test_where_it_cannot_run_it_says_what_it_needs(builder, model, output, capsys):
    found = builder.probe()
    if found.why_not_run is None:
        pytest.skip(f"{builder.name} runs here")
    builder.build(model, output)
    with pytest.raises(RuntimeUnavailable, match="cannot be run here: it needs an NVIDIA RTX GPU") as caught:
        open(output)
    assert caught.value.exit_code == 3
    assert main(["parity", str(model), str(output)]) == 3
    assert "needs an NVIDIA RTX GPU" in capsys.readouterr().err
    assert main(["bench", str(model), str(output), "--rounds", "1", "--warmup", "0", "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert "needs an NVIDIA RTX GPU" in report["candidates"][1]["failure"]
    assert report["candidates"][0]["latency_ms"]["p50"] > 0
    assert main(["doctor"]) == 0
    assert "builds, cannot run" in capsys.readouterr().out


def test_it_computes_the_same_through_the_description(runner, model, output, clip):
    runner.build(model, output)
    with open(output) as engine:
        assert (engine.inputs, engine.outputs) == ((CLIP,), (RESULT,))
        assert_same(engine(clip)["result"], expected(clip), runner)
        assert_same(engine(-clip)["result"], expected(-clip), runner)
        assert engine.session.details["runtime"] == runner.name
        assert engine.session.details["version"]
        json.dumps(dict(engine.session.details))


def test_it_runs_in_this_process_too(runner, model, output, clip):
    runner.build(model, output, timeout=0)
    with open(output, timeout=0) as engine:
        assert_same(engine(clip)["result"], expected(clip), runner)


def test_parity_and_bench_take_its_engines(runner, model, output, capsys):
    runner.build(model, output)
    assert main(["parity", str(model), str(output)]) == 0
    capsys.readouterr()
    code = main(["bench", str(model), str(output), "--rounds", "2", "--warmup", "1", "--threads", "1", "--json"])
    report = json.loads(capsys.readouterr().out)
    if runner.name == "rknn":
        assert code == 3
        assert "runs on a simulator here, whose speed says nothing" in report["candidates"][1]["failure"]
        return
    assert code == 0
    assert report["candidates"][1]["latency_ms"]["p50"] > 0
    assert report["candidates"][1]["details"]["runtime"] == runner.name


def test_parity_finds_an_engine_of_other_numbers(runner, model, output, tmp_path, capsys):
    other = artifact()
    other.graph.initializer[0].raw_data = (np.ones(90, np.float32) * 3).tobytes()
    runner.build(save(other, tmp_path / "other.onnx"), output)
    assert main(["parity", str(model), str(output)]) == 1
    capsys.readouterr()


def test_what_it_returns_is_the_callers_own(runner, model, output, clip):
    runner.build(model, output)
    with open(output, timeout=0) as engine:  # in this process, where a runtime could use its memory again
        first = engine(clip)["result"]
        kept = first.copy()
        engine(clip + 1)
        np.testing.assert_array_equal(first, kept)


def test_a_closed_session_says_so(runner, model, output, clip):
    runner.build(model, output)
    session = runner.open(output)
    session.close()
    session.close()
    with pytest.raises(UsageError, match="the session is closed"):
        session.run({"clip": clip})


def test_wrong_feeds_are_explained(runner, model, output):
    runner.build(model, output)
    with runner.open(output) as session:
        with pytest.raises(UsageError, match=r"takes the inputs clip, got other"):
            session.run({"other": np.zeros(CLIP.physical, np.float32)})
        with pytest.raises(PackingError, match="engine"):
            session.run({"clip": np.zeros((8, 3, 5, 7), np.float32)})
        with pytest.raises(PackingError, match="engine"):
            session.run({"clip": np.zeros(CLIP.physical, np.float64)})
        assert session.run({"clip": np.zeros(CLIP.physical, np.float32)})["result"].shape == RESULT.physical


def test_a_missing_engine_is_named(exporter, output):
    if not exporter.probe().ok:
        pytest.skip(f"{exporter.name}: {exporter.probe().why_not}")
    with pytest.raises(ValidationError, match=r"engine\.\w+: no such file"):
        exporter.open(output)


# ---- the registry -----------------------------------------------------------------------------------------------


class Absent:
    """A runtime that is not there."""

    name = "absent"
    suffixes = (".absent",)

    def probe(self):
        return Availability(ok=False, why_not="it is not installed", install="pip install absent")


def test_require_gives_the_exact_install_command():
    with pytest.raises(RuntimeUnavailable, match="'absent' cannot be used here: it is not installed") as caught:
        require(Absent())
    assert caught.value.hint == "install it with: pip install absent"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("name", "hint"), [("onnxruntme", "did you mean 'onnxruntime'?"), ("ORT", "`edge4d doctor` lists the runtimes")]
)
def test_an_unknown_runtime_is_answered_with_the_known_ones(name, hint):
    with pytest.raises(UsageError, match="expected one of: onnxruntime") as caught:
        exporters.get(name)
    assert caught.value.hint == hint


def test_the_suffix_tells_the_runtime():
    assert exporters.for_path("a/b.ONNX").name == "onnxruntime"
    assert exporters.for_path("a/b.xml").name == "openvino"
    with pytest.raises(UsageError, match=r"expected one of the suffixes: \.onnx"):
        exporters.for_path("model")


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ('{"step": "build tensorrt_rtx"}', "tensorrt_rtx"),
        ('{"step": "build tensorrt"}', "tensorrt"),
        ('{"step": "build onnxruntime"}', "tensorrt"),  # does not open such files
        ('{"step": 4}', "tensorrt"),
        ("not json", "tensorrt"),
        (None, "tensorrt"),
    ],
)
def test_the_recipe_tells_runtimes_of_one_suffix_apart(tmp_path, recipe, name):
    if recipe is not None:
        (tmp_path / "m.engine.json").write_text(recipe)
    assert exporters.for_path(tmp_path / "m.engine").name == name
